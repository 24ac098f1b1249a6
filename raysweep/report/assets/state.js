// What the page shows of which trials: the document, the reader's choices, and who is told when they change.
// A trial is its place in the document's lists. raysweep/report/data.py says what the document holds.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const COLOURS = 8, SHADES = 40;

let data = JSON.parse(one("#data").textContent);
let sought = []; // each trial's text, which the search looks through
let shown = []; // the trials that pass search, status and brushes, best first
const choice = { words: "", status: "", colour: "rank", brushes: new Map(), lit: null, kept: null };
const views = []; // each an object with any of data(), shown(), lit()

function tell(what) {
  for (const view of views) view[what]?.();
}

const count = () => data.trials.id.length;
const column = (name) => data.columns.find((each) => each.name === name);
const sortValues = (each) => each.values ?? each.texts.map((text) => (text === "-" ? "" : text));
const address = (trial) => `#trial=${encodeURIComponent(data.trials.id[trial])}`;
const scoreText = (trial) => column(data.score).texts[trial];
const valueText = (value, isPercent) => (isPercent ? `${(100 * value).toFixed(2)} %` : significant(value));

// Returns a number with four significant digits, or all those before the point, as `significant` of terminal.py does.
function significant(value) {
  const rounded = Number(value.toPrecision(4)), size = Math.abs(rounded);
  if (size >= 1e4 && size < 1e7) return Math.round(value).toLocaleString("en-US");
  return size && (size < 1e-4 || size >= 1e7) ? rounded.toExponential().replace("e+", "e") : String(rounded);
}

// ---- axes: the settings and the score, with where each trial lies between 0 and 1

const FEW = 12; // values of an axis that has each of them at a place of its own
let axes = [];

function readAxes() {
  axes = data.axes.map((axis) => {
    const texts = column(axis.key).texts;
    const different = [...new Set(texts)].filter((text) => text !== "-");
    different.sort(axis.number ? (a, b) => a - b : (a, b) => a.localeCompare(b, undefined, { numeric: true }));
    if (!axis.number || different.length <= FEW) {
      const place = new Map(different.map((text, index) => [text, different.length > 1 ? index / (different.length - 1) : 0.5]));
      return { ...axis, steps: different.length, ticks: different.map((text) => [place.get(text), text]), at: texts.map((text) => place.get(text) ?? null) };
    }
    return { ...axis, steps: 0, ...continuous(texts.map((text) => (text === "-" ? null : Number(text))), axis.log, short) };
  });
  const write = data.percent ? (value) => `${Number((100 * value).toPrecision(3))} %` : short;
  const scores = continuous(data.trials.score, data.log, write);
  axes.push({ key: "score", label: data.metric, steps: 0, ...(data.best === "low" ? turned(scores) : scores) });
}

function continuous(values, log, write) {
  const known = values.filter((value) => value !== null).map((value) => (log ? Math.log(value) : value));
  const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const span = high - low || 1;
  const back = (place) => (log ? Math.exp(low + place * span) : low + place * span);
  const at = values.map((value) => (value === null ? null : ((log ? Math.log(value) : value) - low) / span));
  const ticks = known.length ? round(back(0), back(1), log).map((value) => [((log ? Math.log(value) : value) - low) / span, write(value)]) : [];
  return { at, ticks, back, write };
}

// Returns an axis upside down, so that the best score is at the top of its axis whether more or less of it is better.
function turned(axis) {
  const at = axis.at.map((place) => (place === null ? null : 1 - place));
  return { ...axis, at, isTurned: true, ticks: axis.ticks.map(([place, text]) => [1 - place, text]).reverse(), back: (place) => axis.back(1 - place) };
}

// Returns the round values of a range: of a logarithmic one powers of ten, and multiples of them where these are few.
function round(low, high, log) {
  const multiples = (factors) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      found.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(3))).filter((value) => value >= low && value <= high));
    return found;
  };
  if (log) return [[1], [1, 3], [1, 2, 5]].map(multiples).find((values) => values.length > 2) ?? multiples([1, 2, 5]);
  const rough = (high - low || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index++) found.push(index * step);
  return found;
}

function short(value) {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? Number(value.toPrecision(3)).toExponential().replace("e+", "e") : String(Number(value.toPrecision(3)));
}

// ---- which trials are shown

function readTexts() {
  sought = data.trials.id.map((id, trial) =>
    [id, ...data.columns.flatMap((each) => {
      const values = [...new Set([each.texts[trial], each.values?.[trial] ?? each.texts[trial]])]; // as shown, and as in the CSV
      return values.flatMap((value) => [value, `${each.label}=${value}`, `${each.name}=${value}`]);
    }), ""].join(" ").toLowerCase());
}

function select() {
  const words = choice.words.toLowerCase().split(/\s+/).filter(Boolean);
  // "lr=0.1" is a whole value, so that it does not find 0.15; other words are any part of the row.
  const tests = words.map((word) => (word.includes("=") ? (text) => text.includes(` ${word} `) : (text) => text.includes(word)));
  const statuses = column("status").texts;
  const brushed = axes.filter((axis) => choice.brushes.has(axis.key)).map((axis) => [axis.at, ...choice.brushes.get(axis.key)]);
  shown = [];
  for (let trial = 0; trial < count(); trial++)
    if (
      (!choice.status || statuses[trial] === choice.status) &&
      brushed.every(([at, low, high]) => at[trial] !== null && at[trial] >= low - 1e-6 && at[trial] <= high + 1e-6) &&
      tests.every((test) => test(sought[trial]))
    )
      shown.push(trial);
  tell("shown");
}

function light(trial) {
  if (trial === choice.lit) return;
  choice.lit = trial;
  tell("lit");
}

function keep(trial) {
  choice.kept = choice.kept === trial ? null : trial;
  choice.lit = null; // so that whoever looks is told
  light(choice.kept);
  if (choice.kept === null) tell("lit");
}

// ---- colours: by rank the leaders, by score, or by a setting

let palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  palette = Object.fromEntries(["text", "faint", "rule", "panel", "grey", "low", "high"].map((name) => [name, value(name)]));
  palette.values = Array.from({ length: COLOURS }, (_, index) => value(`c${index}`));
}

// Returns the colour of a share of the way from low to high, in steps that the eye cannot tell.
function mixed(exact) {
  const share = Math.round(exact * SHADES) / SHADES;
  const parts = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  const low = parts(palette.low), high = parts(palette.high);
  return `rgb(${low.map((part, index) => Math.round(part + share * (high[index] - part))).join(" ")})`;
}

// Returns the colour of each trial, null for grey, and the legend: colour and text of each entry.
function colours(by = choice.colour) {
  if (by === "rank") {
    const of = Array(count()).fill(null);
    data.leaders.forEach((trial, place) => (of[trial] = palette.values[place]));
    const legend = data.leaders.map((trial, place) => [palette.values[place], `${place + 1}`, data.trials.name[trial]]);
    return { of, legend: [...legend, [palette.grey, "the rest"]] };
  }
  const axis = axes.find((each) => each.key === by) ?? axes.at(-1);
  if (axis.steps && axis.steps <= COLOURS) {
    const step = axis.steps > 1 ? axis.steps - 1 : 1;
    const of = axis.at.map((place) => (place === null ? null : palette.values[axis.steps > 1 ? Math.round(place * step) : 0]));
    return { of, legend: axis.ticks.map(([, text], index) => [palette.values[index], text]) };
  }
  if (axis.steps && !axis.number) {
    const of = axis.at.map((place) => (place === null ? null : palette.values[Math.min(COLOURS - 1, Math.round(place * (axis.steps - 1)))]));
    const legend = axis.ticks.slice(0, COLOURS - 1).map(([, text], index) => [palette.values[index], text]);
    return { of, legend: [...legend, [palette.values[COLOURS - 1], "others"]] };
  }
  const ends = [axis.ticks[0], axis.ticks.at(-1)].filter(Boolean);
  return { of: axis.at.map((place) => (place === null ? null : mixed(place))), legend: ends.map(([place, text]) => [mixed(place), text]) };
}

// ---- one word on what is pointed at

const tip = one("#tip");

function say(text, event) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const below = event.clientY + 16 + tip.offsetHeight <= innerHeight;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 8}px`;
}
