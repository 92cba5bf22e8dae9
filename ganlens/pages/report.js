// Sorting and filtering. The rows stand in the page already; nothing is made from text here.

for (const part of document.querySelectorAll(".units")) {
  const tools = part.querySelector(".tools");
  const count = part.querySelector(".count");
  const body = part.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...part.querySelectorAll("thead th")];

  // ---- sorting

  const value = (row, column) => {
    const text = row.cells[column].dataset.v;
    return text === undefined ? NaN : Number(text);
  };
  const name = (row) => row.dataset.concept;

  /** From the lowest (sign 1) or the highest (sign -1); what has no value stands at the end. */
  function order(column, sign) {
    const words = heads[column].dataset.sort === "text";
    const compare = words
      ? (a, b) => sign * name(a).localeCompare(name(b))
      : (a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          return isNaN(x) - isNaN(y) || sign * (x - y) || 0;
        };
    body.append(...[...rows].sort(compare));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  }

  heads.forEach((head, column) => {
    if (!head.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    const first = head.dataset.sort === "down" ? -1 : 1;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      order(column, now ? (now === "ascending" ? -1 : 1) : first);
    });
  });

  // ---- filtering

  const texts = new Map(
    rows.map((row) => {
      const cells = [...row.cells].filter((cell) => !cell.classList.contains("images"));
      return [row, cells.map((cell) => cell.textContent).join(" ").toLowerCase()];
    }),
  );
  const has = (row, word) =>
    /^\d+$/.test(word) ? row.cells[0].textContent === word : texts.get(row).includes(word);

  function filter() {
    const get = (field) => tools.elements[field]?.value ?? "";
    const words = get("text").toLowerCase().split(/\s+/).filter(Boolean);
    const minimum = Number(get("minimum")) || 0;
    const iou = heads.findIndex((head) => head.textContent === "IoU");
    let shown = 0;
    for (const row of rows) {
      const passes =
        (!get("concept") || row.dataset.concept === get("concept")) &&
        (!get("category") || row.dataset.category === get("category")) &&
        (!get("flags") || (row.dataset.flags ?? "").split(" ").includes(get("flags"))) &&
        (!tools.elements.clear.checked || !row.classList.contains("vague")) &&
        (!tools.elements.certain?.checked || "certain" in row.dataset) &&
        value(row, iou) >= minimum &&
        words.every((word) => has(row, word));
      row.hidden = !passes;
      shown += passes;
    }
    count.textContent = shown === rows.length ? `${rows.length} units` : `${shown} of ${rows.length} units`;
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", filter);
  tools.querySelector("[type=reset]").addEventListener("click", (event) => {
    event.preventDefault();
    tools.reset();
    filter();
  });
  tools.hidden = false;
  filter();
}

// Images come after the text; but on paper all of them are wanted, also those that were never on the screen.
addEventListener("load", () => {
  for (const image of document.querySelectorAll("img[loading]")) image.loading = "eager";
});
