"use strict";
// Asks each second for what changed, and shows it. The report, in a frame, is loaded again when there is a newer one.
(() => {
  const one = (id) => document.getElementById(id);
  let version = 0, report = 0;
  function cell(kind, text, title) {
    const element = document.createElement(kind);
    element.textContent = text;
    if (title) element.title = title;
    return element;
  }
  function fill(table, heads, rows, none) {
    const lines = rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...row.cells.map((text) => cell("td", text, row.id)));
      return line;
    });
    const head = document.createElement("tr");
    head.append(...heads.map((text) => cell("th", text)));
    table.replaceChildren(...(rows.length ? [head, ...lines] : [cell("caption", none)]));
  }
  function update(data) {
    document.title = `${data.name}: ${data.state}`;
    one("name").textContent = data.name;
    one("state").textContent = data.state === "running" ? "Running." : data.state === "waiting" ? "" : "Not running.";
    one("said").textContent = data.said;
    one("fault").textContent = data.fault || "";
    const settings = data.settings || [], metric = data.metric || "score";
    const cells = (row, ...others) => ({ id: row.id, cells: [...row.settings, row.seed, ...others] });
    fill(one("running"), [...settings, "seed", "epoch", `${metric} now`, "best"],
      data.running.map((row) => cells(row, row.epoch, row.newest, row.score)), "No trial is running.");
    fill(one("best"), [...settings, "seed", "score", "epoch", "status"],
      data.best.map((row) => cells(row, row.score, row.epoch, row.status)), "No trial has a score yet.");
    if (data.report !== report && one("follow").checked) {
      report = data.report;
      one("report").contentWindow.location.reload(); // which keeps the place it is scrolled to
    }
  }
  async function ask() {
    try {
      const answer = await fetch(`data.json?after=${version}`);
      if (answer.status === 200) {
        const data = await answer.json();
        version = data.version;
        update(data);
      }
    } catch {
      one("state").textContent = "raysweep watch has ended; this is what it showed last.";
    }
    setTimeout(ask, 500);
  }
  one("follow").addEventListener("change", () => { version = 0; });
  ask();
})();
