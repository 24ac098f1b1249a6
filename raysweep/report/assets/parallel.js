// Parallel coordinates: a line for each trial, through its settings to its score. An axis is brushed by dragging along
// it, or by the two sliders that lie on it, which the keyboard moves.

const parallel = (() => {
  const host = one("#parallel");
  if (!host) return {};
  const canvas = make("canvas", { ariaHidden: "true" });
  const TOP = 34, BOTTOM = 16, GAP = 118, SIDE = 60, RIGHT = 84;
  let width = 0, height = 0, of = [], keys = [];

  const x = (index) => SIDE + ((width - SIDE - RIGHT) * index) / Math.max(1, axes.length - 1);
  const y = (place) => TOP + (1 - place) * (height - TOP - BOTTOM);

  function build() {
    const least = GAP * (axes.length - 1) + SIDE + RIGHT;
    width = Math.max(host.parentElement.clientWidth, least);
    height = 300;
    host.style.width = `${width}px`;
    host.replaceChildren(canvas, ...axes.map(element));
    keys = axes.map((axis) => axis.key);
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }

  function element(axis, index) {
    const name = make("span", { className: "name", title: axis.key, textContent: axis.label });
    const found = make("div", { className: "brush", role: "group", ariaLabel: axis.label }, name);
    found.style.left = `${x(index)}px`;
    let last = -Infinity;
    for (const [place, text] of axis.ticks) {
      if ((y(0) - y(place)) - last < 13 && place) continue;
      last = y(0) - y(place);
      const tick = make("span", { className: "tick", textContent: text, title: text });
      tick.style.top = `${y(place)}px`;
      found.append(tick);
    }
    const ends = [0, 1].map((end) => slider(axis, end));
    found.append(...ends);
    found.addEventListener("pointerdown", (event) => drag(event, axis, found));
    found.addEventListener("dblclick", () => brush(axis, 0, 1));
    mark(axis, found);
    return found;
  }

  function slider(axis, end) {
    const most = axis.steps ? Math.max(1, axis.steps - 1) : 1000;
    const input = make("input", { type: "range", className: end ? "high" : "low", min: 0, max: most, step: 1, ariaLabel: `${axis.label}: ${Boolean(end) !== Boolean(axis.isTurned) ? "most" : "least"}` });
    input.setAttribute("orient", "vertical");
    input.addEventListener("input", () => {
      const [low, high] = choice.brushes.get(axis.key) ?? [0, 1], place = Number(input.value) / most;
      brush(axis, end ? low : Math.min(place, high), end ? Math.max(place, low) : high);
    });
    return input;
  }

  function brush(axis, low, high) {
    if (low <= 0 && high >= 1) choice.brushes.delete(axis.key);
    else choice.brushes.set(axis.key, [low, high]);
    select();
  }

  function drag(event, axis, found) {
    if (event.target.tagName === "INPUT") return;
    const top = host.getBoundingClientRect().top;
    const place = (now) => Math.max(0, Math.min(1, 1 - (now.clientY - top - TOP) / (height - TOP - BOTTOM)));
    const begun = place(event);
    const move = (now) => {
      const [low, high] = [Math.min(begun, place(now)), Math.max(begun, place(now))];
      if (high - low > 0.01) brush(axis, low, high);
    };
    const end = () => {
      found.removeEventListener("pointermove", move);
      found.removeEventListener("pointerup", end);
    };
    found.setPointerCapture(event.pointerId);
    found.addEventListener("pointermove", move);
    found.addEventListener("pointerup", end);
    event.preventDefault();
  }

  // Shows an axis's brush: the sliders where it ends, and a band between them.
  function mark(axis, found) {
    const [low, high] = choice.brushes.get(axis.key) ?? [0, 1];
    const [first, second] = all("input", found);
    for (const [input, place] of [[first, low], [second, high]]) {
      input.value = Math.round(place * Number(input.max));
      const nearest = axis.ticks.reduce((best, tick) => (Math.abs(tick[0] - place) < Math.abs(best[0] - place) ? tick : best), axis.ticks[0] ?? [0, "-"]);
      input.setAttribute("aria-valuetext", axis.back ? axis.write(axis.back(place)) : nearest[1]);
    }
    found.classList.toggle("brushed", choice.brushes.has(axis.key));
    let band = one(".band", found);
    if (!band) found.prepend((band = make("div", { className: "band" })));
    band.style.top = `${y(high)}px`;
    band.style.height = `${y(low) - y(high)}px`;
  }

  function trace(context, trial) {
    let draws = false;
    axes.forEach((axis, index) => {
      const place = axis.at[trial];
      if (place === null) return (draws = false);
      draws ? context.lineTo(x(index), y(place)) : context.moveTo(x(index), y(place));
      draws = true;
    });
  }

  // Draws trials of one colour as one path, which takes a tenth of the time of as many strokes.
  function lines(context, trials, colour) {
    context.strokeStyle = colour;
    context.beginPath();
    for (const trial of trials) trace(context, trial);
    context.stroke();
  }

  function draw() {
    const context = canvas.getContext("2d"), scale = devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const scored = shown.filter((trial) => data.trials.score[trial] !== null), isOn = new Set(scored);
    context.lineWidth = 1;
    context.globalAlpha = 0.35;
    if (count() <= 1000) lines(context, data.trials.score.flatMap((score, trial) => (score === null || isOn.has(trial) ? [] : [trial])), palette.grey);
    context.globalAlpha = Math.max(0.12, Math.min(0.9, 60 / scored.length));
    context.lineWidth = 1.5;
    const groups = new Map(); // the best trials' colours are drawn last, on top
    for (const trial of scored.reverse()) {
      const colour = of[trial] ?? palette.grey;
      if (!groups.has(colour)) groups.set(colour, []);
      groups.get(colour).push(trial);
    }
    for (const [colour, trials] of groups) lines(context, trials, colour);
    context.globalAlpha = 1;
    for (const leader of [...data.leaders].reverse()) if (isOn.has(leader)) strong(context, leader, 2);
    if (choice.lit !== null) strong(context, choice.lit, 4);
  }

  function strong(context, trial, lineWidth) {
    context.lineWidth = lineWidth;
    lines(context, [trial], of[trial] ?? palette.text);
  }

  host.addEventListener("pointermove", (event) => {
    const box = host.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const index = Math.max(0, Math.min(axes.length - 2, Math.floor(((px - SIDE) / (width - SIDE - RIGHT)) * (axes.length - 1))));
    const share = Math.max(0, Math.min(1, (px - x(index)) / (x(index + 1) - x(index))));
    let nearest = null, distance = 7;
    for (const trial of shown) {
      const [a, b] = [axes[index]?.at[trial], axes[index + 1]?.at[trial]];
      if (a == null || b == null) continue;
      const away = Math.abs(y(a) + share * (y(b) - y(a)) - py);
      if (away < distance) [nearest, distance] = [trial, away];
    }
    light(nearest ?? choice.kept);
    say(nearest === null ? "" : `${data.trials.name[nearest]}: ${scoreText(nearest)}`, event);
  });
  host.addEventListener("pointerleave", (event) => {
    light(choice.kept);
    say("", event);
  });

  // Returns the axis and the end of the slider that has the keyboard's focus.
  function focus() {
    const place = all(".brush", host).findIndex((found) => found.contains(document.activeElement));
    return place < 0 ? [] : [keys[place], document.activeElement.className];
  }

  const repaint = () => {
    // By rank most lines would be grey; the score says more here.
    of = colours(choice.colour === "rank" ? "score" : choice.colour).of;
    draw();
  };
  new ResizeObserver(() => {
    if (Math.abs(host.parentElement.clientWidth - width) < 2) return;
    build();
    repaint();
  }).observe(host.parentElement);
  return {
    data() {
      const [axis, end] = focus();
      build();
      one(`input.${end}`, all(".brush", host)[axes.findIndex((each) => each.key === axis)])?.focus({ preventScroll: true });
      repaint();
    },
    shown() {
      all(".brush", host).forEach((found, index) => mark(axes[index], found));
      repaint();
    },
    lit: draw,
    colours: repaint,
  };
})();
views.push(parallel);
