"use strict";
// The page is complete without this script, which adds sorting, filtering, colours by setting, and values of the curves.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const body = one("#trials tbody"), panels = one("#panels");
  const rows = all("tr", body);
  const heads = all("#trials thead th"), names = heads.map((cell) => cell.dataset.name);
  const value = (row, name) => row.cells[names.indexOf(name)].dataset.value;
  const rowOf = new Map(rows.map((row) => [row.dataset.trial, row]));
  const marked = {}; // a trial's number to its curves and sentences
  for (const element of all("main [data-trial]:not(tr)")) (marked[element.dataset.trial] ??= []).push(element);
  const drawn = (number) => (marked[number] || []).filter((element) => element instanceof SVGElement);
  function buttonIn(cell) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    return button;
  }
  document.documentElement.classList.add("scripted");
  one(".controls").hidden = false;

  // Sorting; empty cells stay last in both directions.
  heads.forEach((head, index) => {
    buttonIn(head).addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[index].dataset.value;
      const isNumber = rows.every((row) => key(row) === "" || !isNaN(key(row)));
      const compare = (a, b) => (isNumber ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true }));
      rows.sort((a, b) => (key(a) === "") - (key(b) === "") || (up ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  });

  // Filtering.
  const search = one("#search"), shown = one("#shown");
  const choices = all("fieldset[data-name]");
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const allowed = choices.map((set) => [set.dataset.name, new Set(all("input:checked", set).map((box) => box.value))]);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const stays = words.every((word) => text.includes(word)) && allowed.every(([name, values]) => values.has(value(row, name)));
      row.classList.toggle("gone", !stays);
      count += stays;
      for (const element of marked[row.dataset.trial] || []) element.classList.toggle("gone", !stays);
    }
    shown.textContent = `${count} of ${rows.length} trials shown`;
    curves = null;
  }
  search.addEventListener("input", filter);
  choices.forEach((set) => set.addEventListener("change", filter));
  function kinds() {
    for (const box of all("#kinds input")) panels?.classList.toggle(`no-${box.value}`, !box.checked);
    curves = null;
  }
  one("#kinds").addEventListener("change", kinds);
  one("#reset").addEventListener("click", () => {
    search.value = "";
    choices.forEach((set) => all("input", set).forEach((box) => (box.checked = true)));
    light(null);
    filter();
  });

  // Colours by a setting: its values in order; all values beyond the eighth share the last colour.
  const colour = one("#colour"), legend = one("#colours");
  colour?.addEventListener("change", () => {
    const values = [...new Set(rows.map((row) => value(row, colour.value)))];
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const numbers = values.every((text) => text !== "" && !isNaN(text));
    if (numbers) values.sort((a, b) => a - b);
    const place = new Map(values.map((text, index) => [text, Math.min(index, 7)]));
    for (const row of rows)
      for (const element of drawn(row.dataset.trial))
        element.setAttribute("class", element.getAttribute("class").replace(/\bc\d\b/, `c${place.get(value(row, colour.value))}`));
    if (!legend) return;
    one("#coloured").textContent = `${colour.selectedOptions[0].textContent}:`;
    legend.replaceChildren(...values.slice(0, 8).map((text, index) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      item.className = `key c${index}`;
      swatch.className = "swatch";
      item.append(swatch, index === 7 && values.length > 8 ? "others" : text);
      return item;
    }));
  });

  // One trial highlighted: by its row, or by its curve.
  let lit = null;
  function light(number) {
    document.body.classList.toggle("lit", number !== null);
    for (const [trial, on] of [[lit, false], [number, true]])
      for (const element of [rowOf.get(trial), ...drawn(trial)]) element?.classList.toggle("on", on);
    lit = number;
  }
  let kept = null; // the trial that a row's button keeps highlighted
  for (const row of rows) {
    const button = buttonIn(one("th", row));
    button.setAttribute("aria-pressed", "false");
    button.title = "highlight its curves";
    button.addEventListener("click", () => {
      const on = kept !== row.dataset.trial;
      if (kept !== null) one("th button", rowOf.get(kept)).setAttribute("aria-pressed", "false");
      kept = on ? row.dataset.trial : null;
      button.setAttribute("aria-pressed", String(on));
      light(kept);
    });
  }

  // Values of the curves, by pointer or by keyboard.
  const tip = one("#tip"), readout = one("#readout");
  const point = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  point.setAttribute("class", "point");
  point.setAttribute("r", "4");
  let curves = null; // of the picture in use: [{number, kind, places: [[x, y], ...]}]
  let of = null;
  const labels = { val: "", train: " (training)", averaged: " (EMA weights)" };
  function curvesOf(chart) {
    if (of === chart && curves) return curves;
    of = chart;
    curves = all("g.trial:not(.gone) polyline", chart)
      .filter((line) => getComputedStyle(line).display !== "none")
      .map((line) => ({
        number: line.parentNode.dataset.trial,
        kind: line.getAttribute("class"),
        places: line.getAttribute("points").split(" ").map((place) => place.split(",").map(Number)),
      }));
    return curves;
  }
  function inverse(chart, x, y) {
    const [low, high, start, end] = chart.dataset.x.split(" ").map(Number);
    const [bottom, top, first, last, kind] = chart.dataset.y.split(" ").map((word) => (isNaN(word) ? word : Number(word)));
    const share = (y - first) / (last - first);
    const number = kind === "log" ? bottom * (top / bottom) ** share : bottom + share * (top - bottom);
    const text = chart.dataset.unit === "%" ? `${(100 * number).toFixed(2)} %` : String(Number(number.toPrecision(3)));
    return [Math.round(low + ((x - start) / (end - start)) * (high - low)), text];
  }
  function say(chart, curve, [x, y]) {
    const [epoch, text] = inverse(chart, x, y);
    const title = chart.closest("figure").querySelector("figcaption").textContent.toLowerCase();
    const trial = rowOf.get(curve.number).querySelector("th").textContent.trim();
    light(curve.number);
    chart.append(point);
    point.setAttribute("cx", x);
    point.setAttribute("cy", y);
    return `${trial}, epoch ${epoch}: ${title}${labels[curve.kind] ?? ""} ${text}`;
  }
  function leave() {
    tip.hidden = true;
    point.remove();
    light(kept);
  }
  for (const chart of all("#panels .chart")) {
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect(), scale = chart.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      let nearest = null, distance = 24 ** 2;
      for (const curve of curvesOf(chart))
        for (const place of curve.places) {
          const away = (place[0] - x) ** 2 + (place[1] - y) ** 2;
          if (away < distance) [nearest, distance] = [[curve, place], away];
        }
      if (!nearest) return leave();
      tip.textContent = say(chart, ...nearest);
      tip.hidden = false;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 16}px`;
    });
    chart.addEventListener("pointerleave", leave);
    chart.tabIndex = 0;
    let curve = 0, place = 0;
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1e9], End: [0, 1e9] }[event.key];
      if (event.key === "Escape") return leave();
      // The best trials are drawn last, on top, and come first here.
      const known = curvesOf(chart).filter(({ kind }) => kind === "val").reverse();
      if (!step || !known.length) return;
      event.preventDefault();
      curve = Math.max(0, Math.min(known.length - 1, curve + step[0]));
      place = Math.max(0, Math.min(known[curve].places.length - 1, place + step[1]));
      readout.textContent = say(chart, known[curve], known[curve].places[place]);
    });
    chart.addEventListener("blur", leave);
  }
  // A trial's own part, by its address or by a link; its id can be copied.
  function open() {
    const part = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!part?.classList.contains("part")) return;
    part.open = true;
    part.scrollIntoView();
    one("summary", part).focus({ preventScroll: true });
  }
  addEventListener("hashchange", open);
  for (const id of all(".id")) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = "copy";
    copy.addEventListener("click", async () => {
      getSelection().selectAllChildren(id);
      await navigator.clipboard?.writeText(id.textContent).then(() => (copy.textContent = "copied"), () => {});
    });
    id.after(copy);
  }
  open();

  // On paper nothing can be unfolded, so everything is before printing.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
  kinds();
  filter();
})();
