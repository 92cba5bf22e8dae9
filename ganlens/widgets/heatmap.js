const ONE = 65535; // code of an IoU of 1
const TALLEST = 420; // pixels of rows on show, at most
const PALE = 64; // opacity, of 255, of matches that may be by chance
const LINE = 14; // pixels from one label to the next
const CELL = { width: [3, 80], height: [3, 22] }; // pixels when not zoomed, at least and at most
const LARGE = { width: 48, height: 40 }; // pixels from which on cells need not grow
const ORDERS = { concept: "by concept", IoU: "best IoU first", unit: "by number", clustered: "alike together" };
const FILTERS = { search: "", minimum: 0, interpretable_only: false };

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));

/** A colour, as 32 bits, through which the page is seen; `paled` in heatmap.py. */
const pale = (color) => ((color & 0xffffff) | (PALE << 24)) >>> 0;

class Heatmap {
  constructor(model, el) {
    this.model = model;
    this.cursor = null; // { row, column } of the cell that keys move
    this.pointer = null; // where the mouse is
    this.ends = [root(model, el, "ganlens-heatmap")];
    this.drawSoon = oncePerFrame(() => this.draw());
    this.saveSoon = afterPause(250, () => model.save_changes());
    this.build(el);
    this.paper = document.createElement("canvas").getContext("2d"); // one pixel for each cell; measures text
    this.paper.font = getComputedStyle(this.side).font;

    this.follow("table", () => this.readTable());
    this.follow("layer", () => this.showControls());
    for (const name of ["order", ...Object.keys(FILTERS)]) this.follow(name, () => this.rearrange());
    this.follow("zoom", () => this.rescale());
    for (const name of ["unit", "units", "concept"]) this.follow(name, () => this.showSelection());
    const watcher = new ResizeObserver(() => this.resize());
    watcher.observe(this.scroll);
    this.ends.push(() => watcher.disconnect());
    this.readTable();
  }

  follow(name, act) {
    this.model.on(`change:${name}`, act);
    this.ends.push(() => this.model.off(`change:${name}`, act));
  }

  /** Change traits here and now, and in the kernel a moment later. */
  set(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.saveSoon();
  }

  // ---- elements

  build(el) {
    const option = ([value, text]) => h("option", { value }, text);
    const choice = (values, pick) => h("select", { change: (event) => pick(event.target.value) }, ...values.map(option));
    const labelled = (text, title, ...inputs) => h("label", { title }, text, ...inputs);
    const button = (text, title, click) => h("button", { type: "button", title, "aria-label": title, click }, text);

    const layers = this.model.get("layers").map((layer) => [layer, layer]);
    this.layer = choice(layers, (layer) => this.set({ layer }));
    this.order = choice(Object.entries(ORDERS), (order) => this.set({ order }));
    this.search = h("input", { type: "search", placeholder: "e.g. tree, sky", input: () => this.set({ search: this.search.value }) });
    this.minimum = h("input", { type: "range", min: 0, step: 0.01, input: () => this.set({ minimum: +this.minimum.value }) });
    this.least = h("output");
    this.only = h("input", { type: "checkbox", change: () => this.set({ interpretable_only: this.only.checked }) });
    this.out = button("−", "Zoom out (−)", () => this.zoomBy(1 / 1.5));
    this.in = button("+", "Zoom in (+, or Ctrl and the mouse wheel)", () => this.zoomBy(1.5));
    this.reset = button("1:1", "Fill the width, as at first (0)", () => this.set({ zoom: 1 }));
    const bar = h(
      "div",
      { class: "ganlens-heatmap-bar" },
      layers.length > 1 ? labelled("layer", "The layer on show", this.layer) : null,
      labelled("units", "Order of the units", this.order),
      labelled("concepts", "Show only concepts with these words in their name or category, with commas between", this.search),
      labelled("IoU ≥", "Show only units that reach this IoU with their concept", this.minimum, this.least),
      h("label", { title: "Show only units that draw a concept" }, this.only, "interpretable only"),
      h("span", { class: "ganlens-heatmap-zoom", role: "group", "aria-label": "Zoom" }, this.out, this.in, this.reset),
    );

    this.corner = h("div", { class: "ganlens-heatmap-corner" });
    this.head = h("div", { class: "ganlens-heatmap-head", "aria-hidden": "true" });
    this.side = h("div", { class: "ganlens-heatmap-side", "aria-hidden": "true" });
    this.canvas = h("canvas", {
      pointermove: (event) => this.point(event.clientX, event.clientY),
      pointerleave: () => this.unpoint(),
      // Clicks come with whole pixels, moves with fractions: the framed cell is meant.
      click: (event) => this.select(this.hovered() ?? this.cellAt(event.clientX, event.clientY)),
    });
    this.space = h("div", {}, this.canvas);
    this.scroll = h(
      "div",
      {
        class: "ganlens-heatmap-scroll",
        style: `max-height: ${TALLEST}px`,
        tabindex: 0,
        role: "application",
        "aria-roledescription": "heatmap",
        scroll: () => this.scrolled(),
        keydown: (event) => this.press(event),
        focus: () => this.showSelection(),
        blur: () => this.showSelection(),
      },
      this.space,
    );
    this.scroll.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.figure = h("div", { class: "ganlens-heatmap-figure" }, this.corner, this.head, this.side, this.scroll);
    this.nothing = h("div", { class: "ganlens-heatmap-nothing" });

    this.readout = h("span", { class: "ganlens-heatmap-readout", "aria-live": "polite" });
    this.counts = h("span", { class: "ganlens-heatmap-faint" });
    this.key = h("span", { class: "ganlens-heatmap-key", role: "img" });
    const foot = h("div", { class: "ganlens-heatmap-foot" }, this.readout, this.counts, this.key);
    this.tip = h("div", { class: "ganlens-heatmap-tip", role: "tooltip", popover: "manual", hidden: true });
    el.append(bar, this.figure, this.nothing, foot, this.tip);
  }

  showControls() {
    const get = (name) => this.model.get(name);
    this.layer.value = get("layer");
    this.order.value = get("order");
    if (this.search.value !== get("search")) this.search.value = get("search");
    this.minimum.max = Math.ceil((100 * this.table.peak) / ONE) / 100;
    this.minimum.value = get("minimum");
    this.least.value = get("minimum").toFixed(2);
    this.only.checked = get("interpretable_only");
    const { units, concepts } = this.shown;
    this.counts.textContent =
      `${units.length} of ${this.table.best.length} units × ${concepts.length} of ${this.table.names.length} concepts`;
  }

  showKey() {
    const peak = (this.table.peak / ONE).toFixed(2);
    const css = (color) => `rgb(${[0, 8, 16].map((bits) => (color >> bits) & 255)})`;
    const stops = [...this.colors].filter((_, i) => i % 15 === 0).map(css);
    const ramp = h("i", { style: `background: linear-gradient(to right, ${stops})` });
    const pale = this.table.tested ? h("span", { class: "ganlens-faint" }, "pale: maybe by chance") : "";
    this.key.replaceChildren(pale, "IoU 0", ramp, peak);
    this.key.title = `Colours from IoU 0 to ${peak}, the highest of this layer`;
    this.key.setAttribute("aria-label", this.key.title);
  }

  // ---- what is on show

  readTable() {
    this.table = readTable(this.model.get("table"));
    const rgb = typed(this.model.get("colors"), Uint8Array);
    const pixel = (_, i) => rgb[3 * i] | (rgb[3 * i + 1] << 8) | (rgb[3 * i + 2] << 16) | (255 << 24);
    this.colors = Uint32Array.from({ length: 256 }, pixel);
    this.showKey();
    this.rearrange();
  }

  rearrange() {
    const settings = Object.fromEntries(["order", ...Object.keys(FILTERS)].map((name) => [name, this.model.get(name)]));
    this.shown = arrange(this.table, settings);
    this.groups = settings.order === "concept" ? runs(this.shown.best) : [];
    this.cursor = null;
    this.unpoint();
    this.showControls();
    const empty = !this.shown.units.length;
    this.figure.hidden = empty;
    this.nothing.hidden = !empty;
    if (empty) {
      const reason = this.shown.concepts.length ? "No unit passes the filters." : `No concept matches “${settings.search}”.`;
      this.nothing.replaceChildren(reason, h("button", { type: "button", click: () => this.set(FILTERS) }, "Show all"));
    } else this.scroll.scrollTo(0, 0);
    this.layout();
    this.showSelection();
  }

  /** Sizes of cells, of the headers and of what can be scrolled. */
  layout() {
    const { units, concepts } = this.shown;
    if (!units.length || !this.scroll.clientWidth) return;
    const zoom = this.model.get("zoom");
    const { names } = this.table;
    const longest = (texts) => Math.max(...texts.map((text) => this.paper.measureText(text).width));
    this.plain = { height: clamp(TALLEST / units.length, ...CELL.height) };
    const height = clamp(this.plain.height * zoom, 1, LARGE.height);
    this.height = Math.round(height * devicePixelRatio) / devicePixelRatio;

    this.grouped = this.groups.length > 0 && this.height < LINE;
    const labels = this.grouped ? this.groups.map((group) => this.groupName(group)) : [String(Math.max(...units))];
    this.corner.textContent = this.grouped ? "concept (units)" : "unit";
    this.corner.title = this.grouped ? "units that draw the concept, of those that are nearest to it" : "";
    const room = clamp(this.figure.clientWidth / 4, 60, 150);
    this.side.style.width = `${Math.min(longest([...labels, this.corner.textContent]), room) + 14}px`;

    this.plain.width = clamp((this.scroll.clientWidth - 1) / concepts.length, ...CELL.width);
    this.width = clamp(this.plain.width * zoom, this.plain.width, Math.max(this.plain.width, LARGE.width));
    const longestName = longest(concepts.map((concept) => names[concept]));
    this.upright = longestName + 10 > this.width;
    this.head.style.height = `${this.upright ? clamp(longestName, 20, 150) + 10 : 22}px`;
    this.head.classList.toggle("upright", this.upright);
    this.space.style.width = `${this.width * concepts.length}px`;
    this.space.style.height = `${this.height * units.length}px`;
    this.out.disabled = zoom <= this.zoomRange[0];
    this.in.disabled = zoom >= this.zoomRange[1];
    this.draw();
  }

  groupName({ value, start, end }) {
    const drawing = this.shown.units.slice(start, end).filter((unit) => this.table.interpretable[unit]).length;
    const count = drawing === end - start ? drawing : `${drawing} of ${end - start}`;
    return `${this.table.names[value]} (${count})`;
  }

  resize() {
    const first = !this.width;
    this.layout();
    if (first) this.showSelection();
  }

  // ---- drawing

  draw() {
    const { units, concepts } = this.shown;
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.scroll;
    if (!units.length || !clientWidth || !this.width) return;
    const size = [Math.min(clientWidth, this.width * concepts.length), Math.min(clientHeight, this.height * units.length)];
    const view = {
      top: Math.floor(scrollTop / this.height),
      bottom: Math.min(Math.ceil((scrollTop + size[1]) / this.height), units.length),
      left: Math.floor(scrollLeft / this.width),
      right: Math.min(Math.ceil((scrollLeft + size[0]) / this.width), concepts.length),
    };
    this.drawCells(view, size);
    this.drawFrames(size);
    this.nameColumns(view);
    this.nameRows(view);
  }

  x(column) {
    return column * this.width - this.scroll.scrollLeft;
  }

  y(row) {
    return row * this.height - this.scroll.scrollTop;
  }

  drawCells({ top, bottom, left, right }, [width, height]) {
    const { units, concepts } = this.shown;
    const cells = new ImageData(right - left, bottom - top);
    const pixels = new Uint32Array(cells.data.buffer);
    let i = 0;
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++)
        pixels[i++] = this.color(units[row], concepts[column]);
    Object.assign(this.paper.canvas, { width: cells.width, height: cells.height });
    this.paper.putImageData(cells, 0, 0);

    const ratio = devicePixelRatio;
    Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const pen = (this.pen = this.canvas.getContext("2d"));
    pen.imageSmoothingEnabled = false;
    pen.scale(ratio, ratio);
    pen.drawImage(this.paper.canvas, this.x(left), this.y(top), cells.width * this.width, cells.height * this.height);

    const pixel = (value) => Math.round(value * ratio) / ratio;
    const across = (row) => pen.fillRect(0, pixel(this.y(row)), width, 1);
    pen.fillStyle = "#fff3";
    if (this.height >= 8) for (let row = top + 1; row < bottom; row++) across(row);
    if (this.height >= 8 && this.width >= 8)
      for (let column = left + 1; column < right; column++) pen.fillRect(pixel(this.x(column)), 0, 1, height);
    pen.fillStyle = "#fff6";
    for (const { start } of this.roomyGroups().slice(1)) across(start);
  }

  /** Of a cell; pale where the match may be by chance. */
  color(unit, concept) {
    const color = this.colors[Math.round((this.table.code(unit, concept) * 255) / this.table.peak)];
    return this.table.certain(unit, concept) ? color : pale(color);
  }

  /** The groups, if there is room for lines between them. */
  roomyGroups() {
    return this.height * this.shown.units.length > 10 * this.groups.length ? this.groups : [];
  }

  drawFrames([width, height]) {
    const { row, column } = this.selected();
    for (const { start, end } of this.selectedRows()) this.frame(-4, this.y(start), width + 8, (end - start) * this.height, 1);
    if (column >= 0) this.frame(this.x(column), -4, this.width, height + 8, 2);
    if (row >= 0) this.frame(-4, this.y(row), width + 8, this.height, 2);
    const cell = this.hovered() ?? (this.scroll.matches(":focus-visible") ? this.cursor : null);
    if (cell) this.frame(this.x(cell.column), this.y(cell.row), this.width, this.height, 2);
  }

  /** A white line around a rectangle, between dark ones: to be seen on every colour. */
  frame(x, y, width, height, line) {
    for (const [color, wide] of [["#000", line + 2], ["#fff", line]]) {
      this.pen.strokeStyle = color;
      this.pen.lineWidth = wide;
      this.pen.strokeRect(x - 1, y - 1, width + 2, height + 2);
    }
  }

  nameColumns({ left, right }) {
    const { concepts } = this.shown;
    const chosen = this.selected().column;
    const step = Math.ceil(LINE / this.width);
    const labels = [];
    for (let column = left; column < right; column++) {
      const rank = column === chosen ? 2 : Number(column % step === 0);
      labels.push({ at: this.x(column + 0.5), text: this.table.names[concepts[column]], rank, on: column === chosen });
    }
    const kept = this.upright ? spread(within(labels, this.canvas.clientWidth), LINE) : labels;
    this.head.replaceChildren(...kept.map((label) => this.label("left", label)));
  }

  label(side, { at, text, on }) {
    return h("span", { style: `${side}: ${at}px`, title: text, class: on && "on" }, text);
  }

  nameRows(view) {
    const labels = this.grouped ? this.groupLabels(view) : this.unitLabels(view);
    const marks = this.selectedRows().filter(({ start, end }) => end > view.top && start < view.bottom);
    this.side.replaceChildren(
      ...spread(within(labels, this.canvas.clientHeight), LINE).map((label) => this.label("top", label)),
      ...marks.map(({ start, end }) => h("i", { style: `top: ${this.y(start)}px; height: ${(end - start) * this.height}px` })),
    );
  }

  unitLabels({ top, bottom }) {
    const units = new Set(this.selectedUnits());
    const step = Math.ceil(LINE / this.height);
    return this.shown.units.slice(top, bottom).map((unit, i) => {
      const on = units.has(unit);
      const rank = unit === this.model.get("unit") ? 3 : on ? 2 : Number((top + i) % step === 0);
      return { at: this.y(top + i + 0.5), text: String(unit), rank, on };
    });
  }

  /** Names of the groups in view, each at the middle of what is in view of it, and the selected unit. */
  groupLabels({ top, bottom }) {
    const chosen = this.shown.concepts[this.selected().column];
    const labels = this.groups.flatMap((group) => {
      const [start, end] = [Math.max(group.start, top), Math.min(group.end, bottom)];
      if (start >= end) return [];
      const on = group.value === chosen;
      return [{ at: this.y((start + end) / 2), text: this.groupName(group), rank: on ? Infinity : end - start, on }];
    });
    const { row } = this.selected();
    if (row >= top && row < bottom)
      labels.push({ at: this.y(row + 0.5), text: `unit ${this.shown.units[row]}`, rank: Infinity, on: true });
    return labels;
  }

  // ---- selection

  selectedUnits() {
    const unit = this.model.get("unit");
    return unit === null ? this.model.get("units") : [unit, ...this.model.get("units")];
  }

  /** Where the unit and the concept in focus are; -1 where they are not on show. */
  selected() {
    const { names, categories } = this.table;
    const concept = this.model.get("concept");
    const index = names.findIndex((name, i) => concept === name || concept === `${name}:${categories[i]}`);
    return { row: this.shown.units.indexOf(this.selectedUnits()[0]), column: this.shown.concepts.indexOf(index) };
  }

  /** Runs of rows that are selected. */
  selectedRows() {
    const units = new Set(this.selectedUnits());
    return units.size ? runs(this.shown.units.map((unit) => units.has(unit))).filter(({ value }) => value) : [];
  }

  select(cell) {
    if (!cell) return;
    const unit = this.shown.units[cell.row];
    this.cursor = cell;
    this.model.set("concept", this.table.names[this.shown.concepts[cell.column]]);
    this.model.set("units", [unit]);
    this.model.set("unit", unit);
    this.model.save_changes();
  }

  /** Say what is selected, and bring it into view. */
  showSelection() {
    const { row, column } = this.selected();
    if (row >= 0) this.cursor = { row, column: Math.max(column, 0) };
    this.reveal(row, column, true);
    this.readout.textContent = this.selectionText();
    this.describe();
    this.drawSoon();
  }

  selectionText() {
    const [units, concept] = [[...new Set(this.selectedUnits())], this.model.get("concept")];
    if (!units.length && concept === null) return "Click a cell to select its unit and its concept.";
    const { row, column } = this.selected();
    const whole = row >= 0 && column >= 0;
    const what = whole ? [this.cellText({ row, column })] : [units.length && `unit ${units[0]}`, concept].filter(Boolean);
    const others = units.length - 1;
    if (others > 0) what.push(`and ${others} more unit${others > 1 ? "s" : ""}`);
    const hidden = (units.length && row < 0) || (concept !== null && column < 0);
    return `Selected: ${what.join(", ")}${hidden ? " (left out by the filters)" : ""}`;
  }

  cellText({ row, column }) {
    const [unit, concept] = [this.shown.units[row], this.shown.concepts[column]];
    return `unit ${unit}, ${this.table.names[concept]}, IoU ${(this.table.code(unit, concept) / ONE).toFixed(3)}`;
  }

  describe() {
    const cell = this.cursor && this.shown.units.length ? `: ${this.cellText(this.cursor)}` : "";
    this.scroll.setAttribute("aria-label", `IoU of units and concepts${cell}. Arrow keys move, Enter selects.`);
  }

  /** Scroll until a cell is in view, as little as needed or to the middle. */
  reveal(row, column, middle = false) {
    if (!this.width) return;
    const near = (start, size, from, extent) => {
      if (start >= from && start + size <= from + extent) return from;
      if (middle) return start + size / 2 - extent / 2;
      return start < from ? start : start + size - extent;
    };
    const { scrollTop, clientHeight, scrollLeft, clientWidth } = this.scroll;
    if (row >= 0) this.scroll.scrollTop = near(row * this.height, this.height, scrollTop, clientHeight);
    if (column >= 0) this.scroll.scrollLeft = near(column * this.width, this.width, scrollLeft, clientWidth);
  }

  // ---- mouse

  /** The cell at a place of the page, or null. */
  cellAt(x, y) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((x - box.left + this.scroll.scrollLeft) / this.width);
    const row = Math.floor((y - box.top + this.scroll.scrollTop) / this.height);
    return row in this.shown.units && column in this.shown.concepts ? { row, column } : null;
  }

  hovered() {
    return this.pointer && this.cellAt(...this.pointer);
  }

  point(x, y) {
    this.pointer = [x, y];
    const cell = this.hovered();
    if (cell) this.showTip(cell, x, y);
    else this.hideTip();
    this.drawSoon();
  }

  unpoint() {
    this.pointer = null;
    this.hideTip();
    this.drawSoon();
  }

  scrolled() {
    this.hideTip();
    if (this.pointer) this.point(...this.pointer);
    this.drawSoon();
  }

  showTip({ row, column }, x, y) {
    const [unit, concept] = [this.shown.units[row], this.shown.concepts[column]];
    const { names, categories, best, interpretable } = this.table;
    this.tip.replaceChildren(
      h("b", {}, this.cellText({ row, column })),
      h("div", {}, this.table.certain(unit, concept) ? (this.table.tested ? "certain" : "") : "maybe by chance"),
      h("div", {}, `${categories[concept]}; the unit ${interpretable[unit] ? "draws" : "is closest to"} ${names[best[unit]]}`),
    );
    this.tip.hidden = false;
    this.tip.togglePopover?.(true);
    const { width, height } = this.tip.getBoundingClientRect();
    this.tip.style.left = `${x + 14 + width < innerWidth ? x + 14 : x - 14 - width}px`;
    this.tip.style.top = `${y + 18 + height < innerHeight ? y + 18 : y - 12 - height}px`;
  }

  hideTip() {
    if (this.tip.isConnected) this.tip.togglePopover?.(false);
    this.tip.hidden = true;
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.scroll.getBoundingClientRect();
    this.zoomBy(Math.exp(-event.deltaY / 400), [event.clientX - box.left, event.clientY - box.top]);
  }

  // ---- zoom

  /** From all rows in view, or a pixel each, to the largest cells. */
  get zoomRange() {
    const { width, height } = this.plain;
    const all = TALLEST / (this.shown.units.length * height);
    return [Math.max(Math.min(all, 1), 1 / height), Math.max(LARGE.width / width, LARGE.height / height)];
  }

  /** Zoom about a place in the view, or about the cursor, or about the middle. */
  zoomBy(factor, place) {
    if (!this.shown.units.length) return;
    this.fixed = place ?? this.cursorPlace();
    this.set({ zoom: clamp(this.model.get("zoom") * factor, ...this.zoomRange) });
  }

  cursorPlace() {
    if (!this.cursor) return undefined;
    const [x, y] = [this.x(this.cursor.column + 0.5), this.y(this.cursor.row + 0.5)];
    const { clientWidth, clientHeight } = this.scroll;
    return x > 0 && x < clientWidth && y > 0 && y < clientHeight ? [x, y] : undefined;
  }

  rescale() {
    const { scroll } = this;
    const [x, y] = this.fixed ?? [scroll.clientWidth / 2, scroll.clientHeight / 2];
    const [column, row] = [(scroll.scrollLeft + x) / this.width, (scroll.scrollTop + y) / this.height];
    this.fixed = undefined;
    this.unpoint();
    this.layout();
    scroll.scrollTo(column * this.width - x, row * this.height - y);
    this.drawSoon();
  }

  // ---- keys

  press(event) {
    if (event.altKey || event.metaKey) return;
    const page = Math.max(Math.floor(this.scroll.clientHeight / this.height) - 1, 1);
    const [rows, columns] = [this.shown.units.length, this.shown.concepts.length];
    const actions = {
      ArrowUp: () => this.move(-1, 0),
      ArrowDown: () => this.move(1, 0),
      ArrowLeft: () => this.move(0, -1),
      ArrowRight: () => this.move(0, 1),
      PageUp: () => this.move(-page, 0),
      PageDown: () => this.move(page, 0),
      Home: () => (event.ctrlKey ? this.move(-rows, 0) : this.move(0, -columns)),
      End: () => (event.ctrlKey ? this.move(rows, 0) : this.move(0, columns)),
      Enter: () => this.select(this.cursor),
      " ": () => this.select(this.cursor),
      Escape: () => this.hideTip(),
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      0: () => this.set({ zoom: 1 }),
    };
    const act = actions[event.key];
    if (!act || (event.ctrlKey && !["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** Move the cursor; at first it comes to the first cell in view. */
  move(down, right) {
    const { scrollTop, scrollLeft } = this.scroll;
    const first = { row: Math.ceil(scrollTop / this.height) - down, column: Math.ceil(scrollLeft / this.width) - right };
    const { row, column } = this.cursor ?? first;
    this.cursor = {
      row: clamp(row + down, 0, this.shown.units.length - 1),
      column: clamp(column + right, 0, this.shown.concepts.length - 1),
    };
    this.pointer = null;
    this.reveal(this.cursor.row, this.cursor.column);
    this.readout.textContent = this.cellText(this.cursor);
    this.describe();
    const box = this.scroll.getBoundingClientRect();
    this.showTip(this.cursor, box.left + this.x(this.cursor.column + 1), box.top + this.y(this.cursor.row + 1));
    this.drawSoon();
  }
}

function render({ model, el }) {
  const heatmap = new Heatmap(model, el);
  return () => heatmap.ends.forEach((end) => end());
}

export default { render };
