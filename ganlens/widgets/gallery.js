// The unit gallery: a list of which only the rows in sight exist. Python makes the strips of these, on demand.

const SPARE = 3; // rows that exist beyond both ends of what is in sight
const STRIP = { height: 64, gap: 2 };
const TEXT = 260; // pixels of a row beside the strip
const SHORTCUTS = { f: "favourite", x: "artifact" };

class Gallery {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.rows = new Map(); // by unit, as are the addresses of strips
    this.urls = new Map();
    this.shown = []; // the units that pass the filters, in their order, and the place of each
    this.place = new Map();
    this.height = STRIP.height + 12; // of a row
    this.heard = [];
    this.get = (name) => model.get(name);
    this.stopErrors = root(model, el, "ganlens-gallery");
    this.toolbar = new Toolbar(this);
    this.detail = new Detail(this);
    this.build();
    this.listen();
    this.showLayer();
    this.follow();
    this.sizes = new ResizeObserver(this.refresh);
    this.sizes.observe(this.list);
    this.stopThemes = onThemeChange(afterPause(500, this.refresh)); // rows have other heights while style sheets load
  }

  remove() {
    this.sizes.disconnect();
    this.stopThemes();
    this.stopErrors();
    for (const [name, act] of this.heard) this.model.off(name, act);
    this.forget();
  }

  build() {
    this.note = h("div", { class: "ganlens-note" });
    this.spacer = h("div", { class: "ganlens-spacer", role: "presentation" });
    const listeners = {
      scroll: oncePerFrame(() => this.paint()),
      keydown: (event) => this.key(event),
      mousedown: (event) => event.shiftKey && event.preventDefault(), // selects no text
      click: (event) => this.click(event),
      dblclick: (event) => this.click(event),
    };
    const list = { class: "ganlens-list", role: "grid", "aria-multiselectable": "true", "aria-label": "Units" };
    this.list = h("div", { ...list, ...listeners }, this.spacer);
    this.el.append(...this.toolbar.elements, this.note, this.list, this.detail.element);
    this.el.addEventListener("keydown", (event) => this.escape(event));
  }

  // ---- to and from Python

  listen() {
    this.refresh = oncePerFrame(() => this.rearrange());
    this.repaint = oncePerFrame(() => this.paint());
    this.ask = afterPause(40, () => this.askForStrips());
    this.on(["change:table"], () => this.showLayer());
    this.on(
      ["sort", "concept", ...Object.keys(FILTERS)].map((name) => `change:${name}`),
      () => this.fromTop(),
    );
    this.on(["change:flags"], () => this.refresh());
    this.on(["change:unit", "change:units"], () => this.follow());
    this.on(["change:unit", "change:detail"], () => this.showDetail());
    this.on(["msg:custom"], (message, buffers) => this.receive(message, buffers));
  }

  on(names, act) {
    for (const name of names) {
      this.heard.push([name, act]);
      this.model.on(name, act);
    }
  }

  /** Set traits, here and in Python. */
  set(values) {
    this.own = true;
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.own = false;
    this.model.save_changes();
  }

  send(type, content) {
    this.model.send({ type, layer: this.table.layer, ...content });
  }

  receive(message, buffers) {
    if (message.layer !== this.table.layer) return;
    if (message.type === "strips") message.units.forEach((unit, i) => this.keepStrip(unit, buffers[i]));
    else this.detail.receive(message, buffers);
  }

  // ---- what is shown

  showLayer() {
    this.forget();
    const table = (this.table = readTable(this.get("table")));
    this.toolbar.showLayer();
    this.note.textContent = table.note;
    this.strip = table.images * (STRIP.height * table.aspect + STRIP.gap) - STRIP.gap; // its width
    this.fromTop();
    this.showDetail();
  }

  /** Rows are as high as a strip; on narrow pages the strip lies below the text. */
  measure() {
    const width = this.list.clientWidth;
    if (!width) return; // not on the page yet
    const pictures = this.table.images > 0;
    const narrow = pictures && width < this.strip + TEXT + 40;
    const text = this.get("concept") === null ? 70 : 84;
    const below = STRIP.height * Math.min(1, (width - 20) / this.strip);
    this.height = Math.ceil(narrow ? text + below : STRIP.height + 12);
    this.el.classList.toggle("ganlens-narrow", narrow);
    this.el.classList.toggle("ganlens-plain", !pictures);
    this.el.style.setProperty("--ganlens-row", `${this.height}px`);
  }

  fromTop() {
    this.list.scrollTop = 0;
    this.refresh();
  }

  rearrange() {
    this.measure();
    this.shown = arrange(this.table, this.get);
    this.place = new Map(this.shown.map((unit, i) => [unit, i]));
    this.spacer.style.height = `${this.shown.length * this.height}px`;
    this.toolbar.show();
    if (this.list.clientHeight) {
      this.reveal(this.next);
      this.next = null;
    }
    this.paint();
    if (this.detail.unit !== null) this.showFlags(this.detail.unit, this.detail.element);
  }

  /** Make the rows in sight and drop the others; the row that takes the focus always exists. */
  paint() {
    const { scrollTop, clientHeight } = this.list;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - SPARE);
    this.near = this.shown.slice(first, Math.ceil((scrollTop + clientHeight) / this.height) + SPARE);
    this.active = this.place.has(this.get("unit")) ? this.get("unit") : this.shown[0];
    const wanted = new Set(this.shown.length ? [...this.near, this.active] : []);
    const hadFocus = this.spacer.contains(this.focused());
    for (const [unit, row] of this.rows) if (!wanted.has(unit)) this.dropRow(unit, row);
    const units = [...wanted].sort((a, b) => this.place.get(a) - this.place.get(b));
    units.forEach((unit, i) => {
      const row = this.rows.get(unit) ?? this.makeRow(unit);
      this.updateRow(unit, row);
      if (this.spacer.children[i] !== row) this.spacer.insertBefore(row, this.spacer.children[i] ?? null);
    });
    if (hadFocus && !this.spacer.contains(this.focused())) this.focus();
    this.toolbar.showCount();
    this.ask();
  }

  makeRow(unit) {
    const { name, category, iou, runnerUp, draws, certain, spread } = this.table.units[unit];
    const weak = draws ? "" : ": too weak to be called interpretable";
    const title = `${name} (${category})${weak}`;
    const doubt = h("span", { class: "ganlens-doubt", title: "may be by chance", hidden: certain }, "?");
    const detail = { type: "button", class: "ganlens-tool", "data-detail": true, title: "Look closer (Enter)" };
    const row = h(
      "div",
      { class: `ganlens-row${draws ? "" : " ganlens-vague"}`, role: "row", "data-unit": unit },
      h("span", { class: "ganlens-unit", role: "gridcell" }, String(unit)),
      h(
        "span",
        { class: "ganlens-text", role: "gridcell" },
        h("span", { class: "ganlens-label", title }, name, doubt, " ", h("small", {}, category)),
        meter(iou, this.table.highest, spread),
        h("small", { class: "ganlens-cut", title: "The concept with the next best IoU" }, runnerUp),
        h("small", { class: "ganlens-cut ganlens-chosen" }),
      ),
      h("span", { class: "ganlens-strip", role: "gridcell", hidden: !this.table.images }),
      h(
        "span",
        { class: "ganlens-tools", role: "gridcell" },
        flagButton("favourite", { tabindex: -1, title: "Favourite (F)", "aria-label": `unit ${unit}: favourite` }),
        flagButton("artifact", { tabindex: -1, title: "Artifact (X)", "aria-label": `unit ${unit}: artifact` }),
        h("button", { ...detail, tabindex: -1, "aria-label": `unit ${unit}: look closer` }, icon("detail")),
      ),
    );
    this.rows.set(unit, row);
    if (this.urls.has(unit)) this.putStrip(unit);
    return row;
  }

  dropRow(unit, row) {
    row.remove();
    this.rows.delete(unit);
  }

  updateRow(unit, row) {
    const { name, iou, draws, certain } = this.table.units[unit];
    const flags = Object.values(SHORTCUTS).filter((flag) => this.flagged(unit, flag));
    const said = [`unit ${unit}`, name, `IoU ${iou.toFixed(2)}`, ...(draws ? [] : ["not interpretable"]), ...(certain ? [] : ["may be by chance"]), ...flags];
    const concept = this.table.index.get(this.get("concept"));
    const chosen =
      concept === undefined ? "" : `${this.table.concepts[concept].name} ${this.table.at(unit, concept).toFixed(3)}`;
    row.style.transform = `translateY(${this.place.get(unit) * this.height}px)`;
    row.tabIndex = unit === this.active ? 0 : -1;
    row.setAttribute("aria-label", said.join(", "));
    row.setAttribute("aria-selected", this.get("units").includes(unit));
    row.setAttribute("aria-rowindex", this.place.get(unit) + 1);
    row.classList.toggle("ganlens-current", unit === this.get("unit"));
    row.querySelector(".ganlens-chosen").textContent = chosen;
    this.showFlags(unit, row);
  }

  showFlags(unit, element) {
    for (const button of element.querySelectorAll("[data-flag]"))
      button.setAttribute("aria-pressed", this.flagged(unit, button.dataset.flag));
  }

  flagged(unit, name) {
    return (this.get("flags")[name] ?? []).includes(unit);
  }

  showDetail() {
    const unit = this.get("detail") ? this.get("unit") : null;
    this.el.classList.toggle("ganlens-open", unit !== null);
    this.detail.show(unit);
  }

  // ---- strips

  /** Ask for the strips of the rows in view and next to it; what was asked before and is not there yet is forgotten. */
  askForStrips() {
    const { scrollTop, clientHeight } = this.list;
    const middle = scrollTop + clientHeight / 2;
    const distance = (unit) => Math.abs((this.place.get(unit) + 0.5) * this.height - middle);
    const missing = this.near.filter((unit) => !this.urls.has(unit) && distance(unit) < clientHeight / 2 + this.height);
    if (this.table.images && clientHeight && missing.length) this.send("strips", { units: missing });
  }

  keepStrip(unit, bytes) {
    if (this.urls.has(unit)) return;
    this.urls.set(unit, pictureURL(bytes));
    if (this.rows.has(unit)) this.putStrip(unit);
  }

  putStrip(unit) {
    const img = h("img", { src: this.urls.get(unit), alt: `top images of unit ${unit}`, draggable: "false" });
    this.rows.get(unit).querySelector(".ganlens-strip").replaceChildren(img);
  }

  /** Drop everything that belongs to a layer. */
  forget() {
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls.clear();
    for (const [unit, row] of this.rows) this.dropRow(unit, row);
    this.detail.forget();
  }

  // ---- choosing

  focused() {
    return this.el.getRootNode().activeElement;
  }

  focus() {
    this.rows.get(this.active)?.focus({ preventScroll: true });
  }

  /** After a selection from elsewhere, its first unit comes into view. */
  follow() {
    if (this.own) return this.repaint();
    [this.next = this.get("unit")] = this.get("units");
    this.refresh();
  }

  reveal(unit) {
    if (!this.place.has(unit)) return;
    const top = this.place.get(unit) * this.height;
    const { scrollTop, clientHeight } = this.list;
    if (top < scrollTop) this.list.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.list.scrollTop = top + this.height - clientHeight;
  }

  click(event) {
    const row = event.target.closest(".ganlens-row");
    if (!row) return;
    const unit = Number(row.dataset.unit);
    const button = event.target.closest("button");
    const twice = event.type === "dblclick";
    if (button?.dataset.flag) twice || this.flag(unit, button.dataset.flag);
    else if (button || twice) this.openDetail(unit);
    else this.pick(unit, { range: event.shiftKey, toggle: event.ctrlKey || event.metaKey });
    row.focus({ preventScroll: true });
  }

  pick(unit, { range = false, toggle = false } = {}) {
    const before = this.get("units");
    let units = [unit];
    if (range) units = this.upTo(unit);
    if (range && toggle) units = [...new Set([...before, ...units])];
    else if (toggle) units = before.includes(unit) ? before.filter((other) => other !== unit) : [...before, unit];
    if (!range) this.anchor = unit;
    this.set({ units, unit });
  }

  /** The units from the anchor up to this one. */
  upTo(unit) {
    if (!this.place.has(this.anchor)) this.anchor = this.active;
    const [from, to] = [this.place.get(this.anchor), this.place.get(unit)];
    return from <= to ? this.shown.slice(from, to + 1) : this.shown.slice(to, from + 1).reverse();
  }

  flag(unit, name) {
    this.send("flag", { unit, name, on: !this.flagged(unit, name) });
  }

  openDetail(unit) {
    this.set({ unit, detail: true });
    this.reveal(unit);
    this.detail.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  closeDetail() {
    this.set({ detail: false });
    this.focus();
  }

  key(event) {
    if (event.altKey || this.active === undefined) return;
    const control = event.ctrlKey || event.metaKey;
    const letter = event.key.toLowerCase();
    const here = this.place.get(this.active);
    const page = Math.max(1, Math.floor(this.list.clientHeight / this.height) - 1);
    const last = this.shown.length - 1;
    const goals = {
      ArrowDown: here + 1,
      ArrowUp: here - 1,
      PageDown: here + page,
      PageUp: here - page,
      Home: 0,
      End: last,
    };
    if (event.key in goals) this.go(this.shown[Math.min(last, Math.max(0, goals[event.key]))], event.shiftKey);
    else if (event.key === " ") this.pick(this.active, { toggle: true });
    else if (event.key === "Enter") this.openDetail(this.active);
    else if (letter === "a" && control) this.set({ units: this.shown, unit: this.active });
    else if (SHORTCUTS[letter] && !control) this.flag(this.active, SHORTCUTS[letter]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Move the focus; with Shift select what lies between. */
  go(unit, select) {
    if (select) this.pick(unit, { range: true });
    else {
      this.anchor = unit;
      this.set({ unit });
    }
    this.reveal(unit);
    this.paint();
    this.focus();
  }

  escape(event) {
    const clears = event.target.matches("input[type=search]") && event.target.value;
    if (event.key !== "Escape" || !this.get("detail") || clears) return;
    event.stopPropagation();
    this.closeDetail();
  }
}

function render({ model, el }) {
  const gallery = new Gallery(model, el);
  return () => gallery.remove();
}

export default { render };
