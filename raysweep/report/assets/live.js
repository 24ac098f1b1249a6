// Shows in #now what trains now: asks the server each half second for what is new. Where the document is a report, what
// `takeOver` does follows as soon as the server has a newer one; where it is not one yet, the page is loaded anew.

const followRun = (takeOver) => {
  const ASK_EVERY_MS = 500;
  const part = (name) => document.querySelector(`#now .${name}`);
  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  let version = 0, report = Number(document.body.dataset.report);

  function line(cells, tag = "td") {
    const made = document.createElement("tr");
    made.append(...cells.map((cell) => (cell instanceof Node ? cell : element(tag, cell, tag === "th" ? { scope: "col" } : {}))));
    return made;
  }

  function cells(row, isRepeated) {
    const cell = element("td", "", { class: "epochs" });
    cell.append(element("progress", "", { max: row.epochs, value: row.epoch, "aria-label": `epochs of ${row.id}` }), ` ${row.epoch} of ${row.epochs}${row.status === "running" ? "" : `, ${row.status}`}`);
    const seed = isRepeated ? [String(row.seed)] : [];
    return [element("th", row.settings[0] ?? row.id, { scope: "row", title: row.id }), ...row.settings.slice(1), ...seed, cell, row.now, row.score];
  }

  const inWords = (now, row) => now.settings.map((label, index) => `${label} ${row.settings[index]}`).join(", ") || row.id;

  function show(now) {
    document.title = `${now.state === "running" ? "● " : ""}${now.name}: ${now.state}`;
    const state = { running: "Running", waiting: "Waiting" }[now.state] ?? "Not running";
    if (part("state").textContent !== state) part("state").textContent = state; // which is read out
    part("state").className = `state ${now.state === "running" ? "runs" : ""}`;
    part("said").textContent = now.said;
    part("best").textContent = now.best && !report ? `Best so far: ${inWords(now, now.best)}, ${now.best.score}.` : "";
    part("fault").textContent = now.fault;
    const rows = [...now.running, ...now.over]; // those that have just ended are seen with their last epoch
    part("trains").hidden = !rows.length;
    const trains = now.running.length === 1 ? "1 trial trains now" : `${now.running.length} trials train now`;
    part("trains summary").textContent = now.running.length ? trains : "No trial trains now; these did last";
    const heads = [...(now.settings.length ? now.settings : ["trial"]), ...(now.is_repeated ? ["seed"] : []), "epoch", `${now.metric} now`, "best"];
    document.querySelector("#now thead").replaceChildren(line(heads, "th"));
    document.querySelector("#now tbody").replaceChildren(...rows.map((row) => line(cells(row, now.is_repeated))));
    part("scroll").style.minHeight = `${part("scroll").offsetHeight}px`; // so that the report below does not jump
  }

  async function ask() {
    try {
      const answer = await fetch(`data.json?after=${version}`);
      if (answer.status === 200) {
        const now = await answer.json();
        show(now);
        if (now.report !== report) {
          await takeOver();
          report = now.report;
        }
        version = now.version;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) console.error(error); // TypeError: the server does not answer
      part("state").className = "state";
      part("state").textContent = "raysweep watch has ended; this is what it showed last.";
      version = 0; // it may have been away for a moment
    }
    setTimeout(ask, ASK_EVERY_MS);
  }
  ask();
};
