// Curves by uPlot: one metric over the epochs, of the trials that are shown or of one. Zoom by dragging, reset by a
// double click; pointing at a curve, or the arrow keys, tell trial, epoch and value.

const MOST_LINES = 200; // curves drawn, of the best trials: more would be one cloud
const DASHES = { val: [], train: [6, 3], averaged: [2, 3] };
const SAID = { val: "", train: " (training)", averaged: " (EMA weights)" };

// Returns the exponential moving average of a curve, by weights that sum to one from its first value on.
function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, sum = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
}

// Returns the ends of the axis: all values, but a few that lie far off do not flatten the rest, as in families.py.
function ends(lines, isLog, isPercent) {
  const values = lines.flatMap((line) => line.values.filter((value) => value !== null && value !== undefined && (!isLog || value > 0)));
  if (!values.length) return isLog ? [0.1, 1] : [0, 1];
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.floor(share * (values.length - 1))], reach = isPercent || isLog ? Infinity : 2 * (at(0.95) - at(0.05)) || Infinity;
  const low = Math.max(values[0], at(0.05) - reach), high = Math.min(values.at(-1), at(0.95) + reach);
  if (isLog) return low < high ? [low, high] : [low / 2, high * 2];
  const spare = 0.04 * (high - low) || Math.abs(high) * 0.1 || 1;
  return [low - spare, high + spare];
}

// A chart in `host`; `wanted` returns what it shows: {picture, trials, kinds, log, smoothing, of}.
function curveChart(host, height, wanted, readout) {
  let chart = null, lines = [], now = null, zoom = null, dragged = false, place = { line: 0, epoch: 0 };

  const dash = (line) => (now.kinds.length > 1 ? DASHES[line.kind] : []);
  const xEnds = () => [1, Math.max(2, data.epochs.at(-1) ?? 2)];
  const yEnds = () => ends(lines, now.log, now.picture.percent);

  function gather() {
    now = wanted();
    lines = [];
    for (const trial of [...now.trials].reverse())
      for (const kind of now.kinds) {
        const values = now.picture.lines[kind]?.[trial];
        if (values) lines.push({ trial, kind, colour: now.of[trial], values: smoothed(values, now.smoothing) });
      }
    // What is in colour lies on top.
    lines.sort((a, b) => (a.colour !== null) - (b.colour !== null));
  }

  function build() {
    gather();
    chart?.destroy();
    chart = null;
    if (!host.clientWidth) return; // folded; it is built once it is seen
    const axis = { stroke: palette.faint, font: "12px system-ui, sans-serif", grid: { stroke: palette.rule, width: 1 }, ticks: { show: false } };
    const length = data.epochs.length;
    const options = {
      width: host.clientWidth,
      height,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: { points: { show: false }, y: false, drag: { x: true, y: true, uni: 20, setScale: false }, bind: { dblclick: () => () => (reset(), null) } },
      scales: {
        x: { time: false, range: () => zoom?.x ?? xEnds() },
        y: { distr: now.log ? 3 : 1, range: () => zoom?.y ?? yEnds() },
      },
      axes: [
        { ...axis, size: 28, values: (_, splits) => splits.map((value) => (Number.isInteger(value) ? value : "")) },
        { ...axis, size: 62, values: (_, splits) => splits.map((value) => (value === null ? "" : now.picture.percent ? `${Number((100 * value).toPrecision(4))} %` : short(value))) },
      ],
      series: [{}, ...lines.map((line) => ({
        stroke: line.colour ?? palette.grey,
        width: line.colour === null ? 1 : 1.75,
        dash: dash(line),
        points: { show: line.values.filter((value) => value !== null).length === 1, size: 5 },
      }))],
      hooks: { draw: [paint], setSelect: [selected], setCursor: [pointed] },
    };
    const padded = lines.map(({ values }) => Array.from({ length }, (_, index) => (now.log && values[index] <= 0 ? null : values[index] ?? null)));
    chart = new uPlot(options, [data.epochs, ...padded], host);
  }

  function selected(u) {
    const { left, top, width, height: tall } = u.select;
    if (!width && !tall) return;
    dragged = true; // the click that ends it is none
    zoom = { x: zoom?.x ?? xEnds(), y: zoom?.y ?? yEnds() };
    if (width && width < u.over.clientWidth) zoom.x = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    if (tall && tall < u.over.clientHeight) zoom.y = [u.posToVal(top + tall, "y"), u.posToVal(top, "y")];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    rescale();
  }

  function rescale() {
    const [x, y] = [zoom?.x ?? xEnds(), zoom?.y ?? yEnds()];
    chart?.batch(() => {
      chart.setScale("x", { min: x[0], max: x[1] });
      chart.setScale("y", { min: y[0], max: y[1] });
    });
  }

  function reset() {
    zoom = null;
    rescale();
  }

  // Zooms about the middle; the score's axis goes with the epochs.
  function zoomBy(factor) {
    const about = ([low, high], isLog) => {
      if (isLog) return about([Math.log(low), Math.log(high)]).map(Math.exp);
      const middle = (low + high) / 2, half = ((high - low) / 2) * factor;
      return [middle - half, middle + half];
    };
    zoom = { x: about(zoom?.x ?? xEnds()), y: about(zoom?.y ?? yEnds(), now.log) };
    rescale();
  }

  // Draws over the curves: the one that is pointed at, and where findings are on those in colour.
  function paint(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const line of lines) if (line.trial === choice.lit && lines.length > 1) stroke(u, line);
    for (const line of lines) if (line.kind === now.kinds[0] && now.picture.marked && (line.colour !== null || line.trial === choice.lit)) marks(u, line);
    ctx.restore();
  }

  function stroke(u, line) {
    const { ctx } = u;
    ctx.beginPath();
    ctx.lineWidth = 4 * devicePixelRatio;
    ctx.strokeStyle = line.colour ?? palette.text;
    ctx.setLineDash(dash(line).map((part) => part * devicePixelRatio));
    let draws = false;
    line.values.forEach((value, index) => {
      if (value === null || value === undefined) return (draws = false);
      const [px, py] = [u.valToPos(data.epochs[index], "x", true), u.valToPos(value, "y", true)];
      draws ? ctx.lineTo(px, py) : ctx.moveTo(px, py);
      draws = true;
    });
    ctx.stroke();
    ctx.setLineDash([]);
  }

  function marks(u, line) {
    const { ctx } = u, size = 5 * devicePixelRatio;
    ctx.setLineDash([]);
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = line.colour ?? palette.text;
    for (const [kind, epoch] of data.marks[line.trial] ?? []) {
      const index = data.epochs.findLastIndex((each) => each <= epoch), value = line.values[index];
      if (value === null || value === undefined) continue;
      const [px, py] = [u.valToPos(data.epochs[index], "x", true), u.valToPos(value, "y", true)];
      ctx.beginPath();
      if (kind === "dip") {
        ctx.moveTo(px - size, py - 2.4 * size);
        ctx.lineTo(px + size, py - 2.4 * size);
        ctx.lineTo(px, py - 0.8 * size);
        ctx.fill();
      } else if (kind === "overfitting") {
        ctx.arc(px, py, size, 0, 2 * Math.PI);
        ctx.stroke();
      } else if (kind === "divergence") {
        for (const slope of [1, -1]) {
          ctx.moveTo(px - size, py - slope * size);
          ctx.lineTo(px + size, py + slope * size);
        }
        ctx.stroke();
      }
    }
  }

  function words(line, index) {
    const what = `${now.picture.name}${SAID[line.kind]} ${valueText(line.values[index], now.picture.percent)}`;
    return `${now.trials.length > 1 ? `${data.trials.name[line.trial]}, ` : ""}epoch ${data.epochs[index]}: ${what}`;
  }

  function pointed(u) {
    const { left, top, idx } = u.cursor;
    if (left < 0 || idx === null || idx === undefined || !u.pointer) return;
    let nearest = null, distance = 24;
    for (const line of lines) {
      const value = line.values[idx];
      if (value === null || value === undefined) continue;
      const away = Math.abs(u.valToPos(value, "y") - top) - (line.colour === null ? 0 : 3); // coloured ones first
      if (away < distance) [nearest, distance] = [line, away];
    }
    if (now.trials.length > 1) light(nearest?.trial ?? choice.kept);
    say(nearest ? words(nearest, idx) : "", u.pointer);
  }

  host.addEventListener("pointermove", (event) => {
    if (chart) chart.pointer = event;
  }, true);
  host.addEventListener("pointerleave", (event) => {
    say("", event);
    if (now?.trials.length > 1) light(choice.kept);
  });
  host.addEventListener("click", (event) => {
    if (!dragged && event.detail === 1 && now?.trials.length > 1 && choice.lit !== null) keep(choice.lit);
    dragged = false;
  });
  host.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const keys = { "+": () => zoomBy(0.5), "-": () => zoomBy(2), 0: reset, Escape: () => light(choice.kept) };
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1e9], End: [0, 1e9] }[event.key];
    if (!keys[event.key] && !step) return;
    event.preventDefault();
    keys[event.key]?.();
    // The best trial is drawn last, on top, and comes first here.
    const known = [...lines].filter((line) => line.kind === now.kinds[0]).sort((a, b) => a.trial - b.trial);
    if (!step || !known.length) return;
    place.line = Math.max(0, Math.min(known.length - 1, place.line + step[0]));
    const line = known[place.line], last = line.values.findLastIndex((value) => value !== null && value !== undefined);
    place.epoch = Math.max(0, Math.min(last, place.epoch + step[1]));
    if (now.trials.length > 1) light(line.trial);
    readout.textContent = line.values[place.epoch] === null ? `${data.trials.name[line.trial]}, epoch ${data.epochs[place.epoch]}: no value` : words(line, place.epoch);
  });
  new ResizeObserver(() => {
    if (!host.clientWidth) return;
    if (!chart) build();
    else if (Math.abs(chart.width - host.clientWidth) > 1) chart.setSize({ width: host.clientWidth, height });
  }).observe(host);

  return {
    build,
    repaint: () => chart?.redraw(false),
    reset,
    zoomBy,
    series: () => lines, // for tests and for whoever explores the page's console
    scale: (name) => [chart.scales[name].min, chart.scales[name].max],
    position: (epoch, value) => {
      const box = chart.over.getBoundingClientRect();
      return [box.left + chart.valToPos(epoch, "x"), box.top + chart.valToPos(value, "y")];
    },
  };
}

// ---- the large chart, with its controls

const curves = (() => {
  const host = one("#curve-chart");
  if (!host) return {};
  const metric = one("#metric"), log = one("#log"), smoothing = one("#smoothing"), boxes = all("#kinds input");
  const kinds = () => boxes.filter((box) => box.checked && picture().lines[box.value]).map((box) => box.value);
  const picture = () => data.pictures.find((each) => each.name === metric.value) ?? data.pictures[0];
  let left = 0, coloured = { of: [], legend: [] };
  const chart = curveChart(host, 380, () => {
    const drawn = shown.filter((trial) => kinds().some((kind) => picture().lines[kind]?.[trial]));
    left = shown.length - drawn.slice(0, MOST_LINES).length;
    return { picture: picture(), trials: drawn.slice(0, MOST_LINES), kinds: kinds(), log: log.checked, smoothing: Number(smoothing.value), of: coloured.of };
  }, one("#readout"));

  function options() {
    const chosen = metric.value;
    metric.replaceChildren(...data.pictures.map(({ name }) => make("option", { value: name, textContent: name })));
    if (data.pictures.some(({ name }) => name === chosen)) metric.value = chosen;
  }

  function draw() {
    coloured = colours();
    for (const box of boxes) {
      box.closest("label").hidden = !picture().lines[box.value]?.some(Boolean);
      box.nextSibling.textContent = ` ${picture().words[box.value] || picture().name}`;
    }
    if (!kinds().length) boxes.find((box) => picture().lines[box.value]).checked = true;
    chart.build();
    const legend = coloured.legend.map(([colour, text, rest]) => {
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = colour;
      return make("li", {}, swatch, rest ? `${text}: ${rest}` : text);
    });
    one("#colours").replaceChildren(...legend);
    one("#left-out").textContent = left ? `${left} of the shown trials have no curve here: it draws the best ${MOST_LINES} that have this metric.` : "";
  }

  metric.addEventListener("change", () => {
    log.checked = picture().log;
    chart.reset();
    draw();
  });
  for (const control of [log, smoothing, ...boxes]) control.addEventListener("input", draw);
  one("#closer").addEventListener("click", () => chart.zoomBy(0.5));
  one("#further").addEventListener("click", () => chart.zoomBy(2));
  one("#whole").addEventListener("click", chart.reset);
  return {
    chart,
    data() {
      options();
      draw();
    },
    shown: draw,
    lit: chart.repaint,
    colours: draw,
  };
})();
views.push(curves);
