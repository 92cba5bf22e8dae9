// Search, order and filters of the gallery. Each control sets a trait, and shows it wherever it was set.

const SORTS = { iou: "IoU", unit: "unit number", label: "label", concept: "IoU with concept" };
const LEAST = "Lowest IoU: with the concept if one is set, otherwise of the label";

class Toolbar {
  constructor(gallery) {
    this.gallery = gallery;
    this.elements = this.build();
  }

  build() {
    const controls = (this.controls = {
      layer: this.select("layer", "Layer"),
      search: this.input("search", "search", "Search numbers, labels and categories", { placeholder: "search" }),
      sort: this.select("sort", "Order of the units"),
      concept: this.conceptInput(),
      category: this.select("category", "Category of the label"),
      minimum: this.input("minimum", "range", LEAST, { min: 0, step: 0.005 }),
      interpretable_only: this.input("interpretable_only", "checkbox", "Show no units that draw nothing"),
      certain_only: this.input("certain_only", "checkbox", "Show no units whose label may be by chance"),
      labelled_only: this.input("labelled_only", "checkbox", "Show only units with the concept as their label"),
      flagged: this.select("flagged", "Flags"),
    });
    const labelled = (name, ...content) => h("label", { title: controls[name].title }, ...content);
    this.layer = labelled("layer", "layer", controls.layer);
    this.labelled = labelled("labelled_only", controls.labelled_only, "as label only");
    this.certain = labelled("certain_only", controls.certain_only, "certain");
    this.least = h("output", { class: "ganlens-value" });
    this.count = h("span", { role: "status" });
    this.chip = this.button("chip", () => this.gallery.set({ found: [] }));
    this.clear = this.button("link", () => this.gallery.set(FILTERS), "clear filters");
    const order = [
      controls.search,
      labelled("sort", "sort", controls.sort),
      controls.concept,
      this.names,
      this.labelled,
    ];
    const filters = [
      labelled("minimum", "IoU ≥", this.least, controls.minimum),
      labelled("interpretable_only", controls.interpretable_only, "interpretable"),
      this.certain,
      controls.category,
      controls.flagged,
    ];
    const status = h("span", { class: "ganlens-status" }, this.count, this.chip, this.clear);
    const group = { class: "ganlens-toolbar", role: "group" };
    return [
      h("div", { ...group, "aria-label": "Order" }, this.layer, ...order),
      h("div", { ...group, "aria-label": "Filters" }, ...filters, status),
    ];
  }

  button(kind, click, text = "") {
    return h("button", { type: "button", class: `ganlens-${kind}`, title: "Show all units again", click }, text);
  }

  /** An input that sets the trait of that name. */
  input(trait, type, title, attributes = {}) {
    const values = { checkbox: (input) => input.checked, range: (input) => Number(input.value) };
    const value = values[type] ?? ((input) => input.value);
    const set = (event) => this.gallery.set({ [trait]: value(event.target) });
    return h("input", { type, title, "aria-label": title, autocomplete: "off", ...attributes, input: set });
  }

  select(trait, title) {
    const change = (event) => this.gallery.set({ [trait]: event.target.value });
    return h("select", { title, "aria-label": title, change });
  }

  conceptInput() {
    const list = `ganlens-${Math.random().toString(36).slice(2)}`;
    this.names = h("datalist", { id: list });
    const title = "Sort by the IoU with a concept";
    const choose = (event) => this.chooseConcept(event.target, event.type === "change");
    const attributes = { type: "search", list, placeholder: "concept", autocomplete: "off", class: "ganlens-concept" };
    return h("input", { ...attributes, title, "aria-label": title, input: choose, change: choose });
  }

  chooseConcept(input, done) {
    const { table, get } = this.gallery;
    const name = input.value.trim();
    const concept = table.index.get(name);
    const sort = get("sort") === "concept" ? "iou" : get("sort");
    if (concept !== undefined) this.gallery.set({ concept: table.concepts[concept].known, sort: "concept" });
    else if (!name) this.gallery.set({ concept: null, labelled_only: false, sort });
    input.setAttribute("aria-invalid", done && name !== "" && concept === undefined);
  }

  /** Offer what the layer has. */
  showLayer() {
    const { controls } = this;
    const { concepts, highest } = this.gallery.table;
    const layers = this.gallery.get("layers");
    const categories = [...new Set(concepts.map(({ category }) => category))];
    const same = (names) => names.map((name) => [name, name]);
    offer(controls.layer, same(layers));
    offer(controls.sort, Object.entries(SORTS));
    offer(controls.category, [["", "all categories"], ...same(categories)]);
    offer(controls.flagged, [
      ["", "flagged or not"],
      ["favourite", "favourites"],
      ["artifact", "artifacts"],
    ]);
    this.names.replaceChildren(...concepts.map(({ known, category }) => h("option", { value: known }, category)));
    controls.minimum.max = Math.ceil(highest * 20) / 20;
    this.certain.hidden = !this.gallery.table.certain.length;
    controls.category.hidden = categories.length < 2;
    this.layer.hidden = layers.length < 2;
  }

  show() {
    const { controls } = this;
    const { get } = this.gallery;
    for (const name of ["layer", "search", "sort", "category", "flagged", "minimum"])
      if (controls[name].value !== String(get(name))) controls[name].value = get(name);
    for (const name of ["interpretable_only", "certain_only", "labelled_only"]) controls[name].checked = get(name);
    this.least.textContent = get("minimum").toFixed(3);
    this.showConcept(get("concept"));
    this.showFound(get("found").length);
    this.clear.hidden = Object.entries(FILTERS).every(([name, none]) => String(get(name)) === String(none));
  }

  showConcept(concept) {
    const input = this.controls.concept;
    const byConcept = this.controls.sort.lastChild;
    byConcept.disabled = concept === null;
    byConcept.textContent = concept === null ? SORTS.concept : `IoU with ${concept}`;
    this.labelled.hidden = concept === null;
    const { index } = this.gallery.table;
    const text = input.value.trim();
    const typing = this.gallery.focused() === input && text && !index.has(text); // half a name is left alone
    if (typing || index.get(text) === index.get(concept)) return;
    input.value = concept ?? "";
    input.removeAttribute("aria-invalid");
  }

  showFound(count) {
    this.chip.hidden = !count;
    this.chip.textContent = `${count} unit${count === 1 ? "" : "s"} found in the region ×`;
    this.controls.sort.disabled = count > 0;
  }

  showCount() {
    const { table, shown, place, get } = this.gallery;
    const hidden = get("units").filter((unit) => !place.has(unit)).length;
    const selected = ` · ${get("units").length} selected${hidden ? `, ${hidden} of them hidden` : ""}`;
    const text = `${shown.length} of ${table.units.length} units${get("units").length ? selected : ""}`;
    if (this.count.textContent !== text) this.count.textContent = text;
  }
}

function offer(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
}
