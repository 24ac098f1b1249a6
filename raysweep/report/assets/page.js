// The rest: controls, the trials' parts, what the page's own text says of trials, printing.
// The page can be read without any script; docs/page.md says what the script adds.

document.documentElement.classList.add("scripted");
for (const element of all(".script")) element.hidden = false;

// ---- controls

const search = one("#search"), status = one("#status"), colour = one("#colour");

search.addEventListener("input", () => {
  choice.words = search.value;
  select();
});
status.addEventListener("change", () => {
  choice.status = status.value;
  select();
});
colour.addEventListener("change", () => {
  choice.colour = colour.value;
  tell("colours");
});
one("#reset").addEventListener("click", () => {
  search.value = choice.words = status.value = choice.status = "";
  choice.brushes.clear();
  choice.kept = choice.lit = null;
  select();
  tell("lit");
});

// Returns a search that finds something in this sweep.
function example() {
  const axis = axes.find((each) => each.number && each.ticks.length && each.steps) ?? axes[0];
  const texts = axis.key === "score" ? [] : column(axis.key).texts;
  return texts.length ? `${axis.label}=${texts[0]}` : data.trials.id[0];
}

views.push({
  data() {
    search.placeholder = example();
    const different = [...new Set(column("status").texts)];
    status.replaceChildren(make("option", { value: "", textContent: "any" }), ...different.map((text) => make("option", { value: text, textContent: text })));
    status.value = choice.status;
    const settings = data.axes.map((axis) => make("option", { value: axis.key, textContent: axis.label }));
    colour.replaceChildren(make("option", { value: "rank", textContent: "rank" }), make("option", { value: "score", textContent: "score" }), ...settings);
    colour.value = choice.colour;
  },
  shown() {
    const none = shown.length || !choice.words ? "" : `: a row has words or values such as ${example()}`;
    one("#shown").textContent = `${shown.length} of ${count()} trials${none}`;
    const isShown = new Set(shown.map(String));
    for (const row of all("#configs tbody tr")) row.classList.toggle("gone", !row.dataset.trials.split(" ").some((trial) => isShown.has(trial)));
  },
});

// ---- what pictures and lists say of trials

const drawnKeys = [...all(".colour-key")].map((key) => [key, [...key.childNodes]]);
let marked = new Map(); // a trial to its elements, all but the rows of the table

views.push({
  data() {
    marked = new Map();
    for (const element of all("main [data-trial]:not(tr)")) {
      const trial = Number(element.dataset.trial);
      if (!marked.has(trial)) marked.set(trial, []);
      marked.get(trial).push(element);
    }
  },
  shown() {
    const isShown = new Set(shown);
    for (const [trial, elements] of marked) for (const element of elements) element.classList.toggle("gone", !isShown.has(trial));
  },
  colours() {
    const isDrawn = choice.colour === "rank"; // as Python drew them: by the setting that the legend names
    const { of, legend } = colours();
    for (const [trial, elements] of marked)
      for (const element of elements) if (element instanceof SVGElement) element.style.color = isDrawn ? "" : of[trial] ?? palette.grey;
    for (const [key, drawn] of drawnKeys) {
      if (isDrawn) { key.replaceChildren(...drawn); continue; }
      const entries = legend.map(([shade, text]) => {
        const swatch = make("span", { className: "swatch" });
        swatch.style.background = shade;
        return make("span", { className: "key" }, " ", swatch, text);
      });
      key.replaceChildren(`${colour.selectedOptions[0].textContent}:`, ...entries);
    }
  },
  lit() {
    document.body.classList.toggle("lit", choice.lit !== null);
    for (const element of all("main .on[data-trial]:not(tr)")) element.classList.remove("on");
    for (const element of marked.get(choice.lit) ?? []) element.classList.add("on");
  },
});

// ---- a trial's part: most are in the page, the others are made from the document

function makePart(trial) {
  const { first, shared, trials } = data.parts, known = trials[trial - first];
  const part = one("#part").content.cloneNode(true).firstElementChild;
  part.id = `trial=${data.trials.id[trial]}`;
  part.dataset.part = trial;
  one("summary", part).textContent = known.headline;
  one(".copy", part).hidden = false;
  one(".id", part).textContent = data.trials.id[trial];
  for (const [name, text] of [["error", known.error], ["traceback", known.traceback], ["config", [...(known.config ?? []), ...shared].join("\n")], ["pull", known.pull]]) {
    const place = one(`[data-text="${name}"]`, part);
    if (text) place.textContent = text;
    else place.closest("[data-of]").remove();
  }
  const items = (texts) => texts.map((text) => make("li", { textContent: text }));
  one("ul", part).replaceChildren(...known.lines.map(([text, evidence]) => make("li", {}, text, ...(evidence.length ? [make("ul", {}, ...items(evidence))] : []))));
  const settings = [...data.axes.map(({ key }) => key), "seed"].map((key) => [key, column(key).texts[trial]]);
  one("dl", part).replaceChildren(...settings.map(([key, text]) => make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: text }))));
  one("#parts").append(part);
  return part;
}

function partOf(id) {
  const found = document.getElementById(`trial=${id}`);
  if (found) return found;
  const trial = data.trials.id.indexOf(id);
  return trial >= data.parts.first ? makePart(trial) : null;
}

function open() {
  let hash = "";
  try {
    hash = decodeURIComponent(location.hash.slice(1));
  } catch {} // an address that somebody cut off
  if (!hash.startsWith("trial=")) return;
  const part = partOf(hash.slice("trial=".length));
  if (!part) return;
  part.open = true;
  part.scrollIntoView();
  one("summary", part).focus({ preventScroll: true });
}

const LINES = { val: "", train: ", dashed", averaged: ", dotted" };

// Draws a trial's curves once its part is opened: the objective's and the loss.
function drawPart(part) {
  const host = one(".part-curves", part), trial = Number(part.dataset.part);
  const readout = make("p", { className: "readout", role: "status" });
  const pictures = data.pictures.filter((picture) => Object.values(picture.lines).some((lines) => lines[trial])).slice(0, 2);
  const charts = pictures.map((picture) => {
    const kinds = Object.keys(DASHES).filter((kind) => picture.lines[kind]?.[trial]);
    const place = make("div", { className: "plot", tabIndex: 0, role: "application", ariaLabel: `${picture.name} of this trial over the epochs; arrow keys tell its values` });
    host.append(make("figure", {}, make("figcaption", { textContent: [picture.name, kinds.map((kind) => picture.words[kind] + LINES[kind]).filter(Boolean).join("; ")].filter(Boolean).join(": ") }), place));
    const of = { [trial]: palette.values[0] };
    return curveChart(place, 220, () => ({ picture, trials: [trial], kinds, log: picture.log, smoothing: 0, of }), readout);
  });
  if (charts.length) host.append(readout);
  for (const chart of charts) chart.build();
}

one("#parts").addEventListener("toggle", (event) => {
  const part = event.target;
  if (part.matches?.("details.part") && part.open && !folded.includes(part) && !one(".part-curves", part).childElementCount) drawPart(part);
}, true);
one("#parts").addEventListener("click", async (event) => {
  if (!event.target.matches(".copy")) return;
  const id = one(".id", event.target.closest(".part"));
  getSelection().selectAllChildren(id);
  await navigator.clipboard?.writeText(id.textContent).then(() => (event.target.textContent = "copied"), () => {});
});
addEventListener("hashchange", open);

// ---- on paper nothing can be unfolded, so everything is before printing

let folded = []; // those of trials get no curves: they would come too late, and a hundred of them would stay
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
  setTimeout(() => (folded = [])); // after the toggles
});

// ---- begin, and begin again with a newer document: what the reader chose stays

function update(newer) {
  const [lit, kept] = [choice.lit, choice.kept].map((trial) => (trial === null ? null : data.trials.id[trial]));
  data = newer;
  [choice.lit, choice.kept] = [lit, kept].map((id) => (id === null || !data.trials.id.includes(id) ? null : data.trials.id.indexOf(id)));
  readPalette();
  readTexts();
  readAxes();
  for (const key of [...choice.brushes.keys()]) if (!axes.some((axis) => axis.key === key)) choice.brushes.delete(key);
  tell("data");
  select();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readPalette();
  tell("colours");
});
for (const box of all("#kinds input")) box.checked = box.value === data.kind;
one("#log") && (one("#log").checked = data.pictures[0]?.log ?? false);
update(data);
window.raysweep = { update, curves: curves.chart };
open();
