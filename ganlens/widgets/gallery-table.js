// What the gallery knows of a layer, the order of its units, and pieces that several parts of it show.

const FILTERS = {
  search: "",
  category: "",
  minimum: 0,
  interpretable_only: false,
  certain_only: false,
  labelled_only: false,
  flagged: "",
  found: [],
};
const ICONS = {
  favourite: "M8 1.6l1.9 4.2 4.5.5-3.4 3 1 4.5L8 11.5l-4 2.3 1-4.5-3.4-3 4.5-.5z",
  artifact: "M3.5 15V1.5M3.5 2.2h9l-2.2 3.1 2.2 3.1h-9",
  detail: "M9.5 2H14v4.5M14 2L9 7M6.5 14H2V9.5M2 14l5-5",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
};

// ---- values

/** The table of a layer with its numbers unpacked; `at` gives the IoU of a unit with a concept. */
function readTable(table) {
  const codes = typed(table.iou, Uint16Array);
  const at = (unit, concept) => codes[unit * table.concepts.length + concept] / 65535;
  const concepts = table.concepts.map(([name, category, known]) => ({ name, category, known }));
  const units = table.label.map((label, unit) => {
    const { name, category } = concepts[label];
    const second = table.second[unit];
    const runnerUp = second < 0 ? "" : `then ${concepts[second].name} ${at(unit, second).toFixed(3)}`;
    const text = `${name} ${category}`.toLowerCase();
    const known = { iou: at(unit, label), draws: !!table.interpretable[unit], certain: table.certain[unit] !== 0 };
    return { unit, label, name, category, text, runnerUp, spread: table.spread[unit], ...known };
  });
  const index = new Map(concepts.map(({ name, category }, c) => [`${name}:${category}`, c]));
  concepts.forEach(({ known }, c) => index.set(known, c));
  const highest = units.reduce((most, { iou }) => Math.max(most, iou), 0.01);
  return { ...table, concepts, units, index, at, highest };
}

/** The units that pass the filters, in their order. `get` gives the value of a trait. */
function arrange(table, get) {
  const concept = table.index.get(get("concept"));
  const score = concept === undefined ? ({ iou }) => iou : ({ unit }) => table.at(unit, concept);
  const words = get("search").toLowerCase().split(/\s+/).filter(Boolean);
  const flagged = get("flagged") && new Set(get("flags")[get("flagged")] ?? []);
  const isNumber = (word) => /^\d+$/.test(word);
  const matches = ({ unit, text }, word) =>
    isNumber(word) ? Number(word) === unit || text.split(" ").includes(word) : text.includes(word);
  const passes = (row) =>
    score(row) >= get("minimum") &&
    (!get("category") || row.category === get("category")) &&
    (!get("interpretable_only") || row.draws) &&
    (!get("certain_only") || row.certain) &&
    (!get("labelled_only") || concept === undefined || row.label === concept) &&
    (!flagged || flagged.has(row.unit)) &&
    words.every((word) => matches(row, word));
  const found = get("found");
  const rows = (found.length ? found.map((unit) => table.units[unit]) : table.units).filter(passes);
  const orders = {
    iou: (a, b) => b.iou - a.iou,
    unit: (a, b) => a.unit - b.unit,
    label: (a, b) => a.name.localeCompare(b.name) || b.iou - a.iou,
    concept: (a, b) => score(b) - score(a),
  };
  if (!found.length) rows.sort(orders[get("sort")]);
  return rows.map(({ unit }) => unit);
}

// ---- pieces

function icon(name) {
  const span = h("span", { "aria-hidden": "true", class: `ganlens-icon ganlens-icon-${name}` });
  span.innerHTML = `<svg viewBox="0 0 16 16" width="14" height="14"><path d="${ICONS[name]}"/></svg>`;
  return span;
}

/** A bar as long as a share of the highest IoU, with the number beside it. */
function meter(iou, highest, spread = "") {
  const bar = h("span", { class: "ganlens-bar", style: `width: ${Math.min(100, (100 * iou) / highest)}%` });
  const track = h("span", { class: "ganlens-track", title: `the full length is ${highest.toFixed(3)}` }, bar);
  return h("span", { class: "ganlens-meter" }, track, h("span", { class: "ganlens-value", title: spread && `95 %: ${spread}` }, iou.toFixed(3)));
}

function flagButton(name, attributes = {}, text = null) {
  return h("button", { type: "button", class: "ganlens-tool", "data-flag": name, ...attributes }, icon(name), text);
}
