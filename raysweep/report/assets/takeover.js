// Takes over a newer report into this page, without loading it: what has changed changes, and what the reader has
// opened, searched, zoomed and scrolled to stays.

const OWN = "#now, #explore ~ *, #trials, .part-curves, noscript, #tip, script, template"; // the script's, not the report's
const LAYOUT = ["#parallel", "#curve-chart", "#configs", "#part"]; // parts that the script looked for when it began

const layout = (root) => JSON.stringify([LAYOUT.map((each) => Boolean(root.querySelector(each))), [...root.querySelectorAll("#trials thead th")].map((head) => head.dataset.name)]);
const begunWith = layout(document);

function take(now, newer) {
  if (now.isEqualNode(newer)) return;
  if (now.nodeName !== newer.nodeName || now.id !== newer.id) return now.replaceWith(document.importNode(newer, true));
  if (now.nodeType !== Node.ELEMENT_NODE) return (now.data = newer.data);
  if (now.matches(OWN)) return;
  for (const { name } of [...now.attributes]) if (!newer.hasAttribute(name) && !["open", "hidden"].includes(name)) now.removeAttribute(name);
  for (const { name, value } of newer.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  [...newer.childNodes].forEach((child, index) => {
    const same = child.id && document.getElementById(child.id); // a trial's part, at another place
    if (same?.parentNode === now && same !== now.childNodes[index]) now.insertBefore(same, now.childNodes[index]);
    if (now.childNodes[index]) take(now.childNodes[index], child);
    else now.append(document.importNode(child, true));
  });
  while (now.childNodes.length > newer.childNodes.length) now.lastChild.remove();
}

function redrawPart(part, before) {
  const lines = (document, trial) => JSON.stringify(document.pictures.map((picture) => Object.values(picture.lines).map((each) => each[trial])));
  const id = part.id.slice("trial=".length), [old, trial] = [before.trials.id.indexOf(id), data.trials.id.indexOf(id)];
  part.dataset.part = trial;
  if (lines(before, old) === lines(data, trial)) return;
  one(".part-curves", part).replaceChildren();
  drawPart(part);
}

let pressed = false; // a brush or a zoom is being drawn
addEventListener("pointerdown", () => (pressed = true), true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => (pressed = false), true);
const released = () => new Promise((done) => (pressed ? setTimeout(() => done(released()), 100) : done()));

followRun(async () => {
  const newer = new DOMParser().parseFromString(await (await fetch("")).text(), "text/html");
  await released();
  if (layout(newer) !== begunWith) return location.reload();
  const before = data, opened = all("#parts > details[open]").map((part) => part.id.slice("trial=".length));
  take(one("main"), one("main", newer));
  for (const element of all(".script")) element.hidden = false;
  update(JSON.parse(one("#data", newer).textContent));
  tell("lit");
  if (choice.colour !== "rank") tell("colours");
  for (const part of opened.map(partOf).filter(Boolean)) {
    if (part.open) redrawPart(part, before);
    part.open = true;
  }
});
