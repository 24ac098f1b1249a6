// The table of the trials: sorted by any column; of many trials only the rows in sight are in the document.

const table = (() => {
  const element = one("#trials"), body = one("tbody", element), scroll = element.closest(".scroll");
  const heads = all("thead th", element), names = heads.map((cell) => cell.dataset.name);
  const MOST_ROWS = 200, SPARE = 15;
  let order = [], sorted = { name: "rank", up: true }, height = 0, first = -1;

  heads.forEach((head, index) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => {
      sorted = { name: names[index], up: head.getAttribute("aria-sort") !== "ascending" };
      sort();
      draw();
    });
    head.replaceChildren(button);
  });

  function sort() {
    const each = column(sorted.name);
    heads.forEach((head, index) => {
      if (names[index] === sorted.name) head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const values = sortValues(each);
    const isNumber = values.every((value) => value === "" || !isNaN(value));
    const keys = isNumber ? values.map((value) => (value === "" ? null : Number(value))) : values;
    const compare = isNumber ? (a, b) => keys[a] - keys[b] : (a, b) => keys[a].localeCompare(keys[b], undefined, { numeric: true });
    const sign = sorted.up ? 1 : -1;
    // Empty cells stay last in both directions; what is equal stays in the order of the ranking.
    order = [...shown].sort((a, b) => (values[a] === "") - (values[b] === "") || sign * compare(a, b) || a - b);
  }

  function row(trial, place) {
    const cells = data.columns.map((each) => {
      const text = each.texts[trial];
      if (each.name === "rank" && text !== "-")
        return make("td", { className: "number" }, make("a", { className: "rank", href: address(trial), ariaLabel: `${text}: to the trial`, textContent: text }));
      if (each.name !== "trial") return make("td", { className: each.number ? "number" : "", textContent: text });
      const button = make("button", { type: "button", textContent: text, title: `highlight the curves of ${data.trials.id[trial]}`, ariaPressed: String(choice.kept === trial) });
      return make("th", { scope: "row" }, button);
    });
    const found = make("tr", { className: choice.lit === trial ? "on" : "" }, ...cells);
    found.dataset.trial = trial;
    found.setAttribute("aria-rowindex", place + 2);
    return found;
  }

  function spacer(rows) {
    const cell = make("td", { colSpan: heads.length });
    cell.style.height = `${rows * height}px`;
    return make("tr", { className: "spacer", ariaHidden: "true" }, cell);
  }

  function window_() {
    if (order.length <= MOST_ROWS || !height) return [0, Math.min(order.length, MOST_ROWS)];
    const from = Math.max(0, Math.floor(scroll.scrollTop / height) - SPARE);
    return [from, Math.min(order.length, from + Math.ceil(scroll.clientHeight / height) + 2 * SPARE)];
  }

  function draw() {
    const [from, to] = window_();
    first = from;
    const active = document.activeElement, focused = active?.closest?.("#trials tr")?.dataset.trial;
    body.replaceChildren(...order.slice(from, to).map((trial, index) => row(trial, from + index)));
    element.setAttribute("aria-rowcount", order.length + 1);
    if (order.length > MOST_ROWS) {
      height ||= one("tr", body)?.offsetHeight || 0; // zero while the table is folded
      body.prepend(spacer(from));
      body.append(spacer(order.length - to));
    }
    if (focused !== undefined) one(`tr[data-trial="${focused}"] ${active.matches("a") ? "a" : "button"}`, body)?.focus({ preventScroll: true });
  }

  scroll.addEventListener("scroll", () => {
    if (order.length > MOST_ROWS && window_()[0] !== first) draw();
  });
  element.closest("details")?.addEventListener("toggle", draw);
  body.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) keep(Number(button.closest("tr").dataset.trial));
  });

  return {
    shown() {
      sort();
      draw();
    },
    lit() {
      for (const each of all("tr[data-trial]", body)) {
        const trial = Number(each.dataset.trial);
        each.classList.toggle("on", choice.lit === trial);
        one("th button", each)?.setAttribute("aria-pressed", String(choice.kept === trial));
      }
    },
  };
})();
views.push(table);
