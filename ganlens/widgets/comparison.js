// One row for each dissection, in it the units that match the concept best. Python makes their strips, on demand.

class Comparison {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.table = model.get("table");
    this.urls = [];
    this.stopErrors = root(model, el, "ganlens-comparison");
    this.build();
    this.heard = [
      ["change:concept", () => this.show()],
      ["change:table", () => this.show()],
      ["change:layer", () => this.mark()],
      ["change:unit", () => this.mark()],
      ["msg:custom", (message, buffers) => this.receive(message, buffers)],
    ];
    for (const [name, act] of this.heard) model.on(name, act);
    this.show();
  }

  remove() {
    this.stopErrors();
    for (const [name, act] of this.heard) this.model.off(name, act);
    this.forget();
  }

  build() {
    const groups = new Map();
    for (const [category, name] of this.table.concepts) {
      if (!groups.has(category)) groups.set(category, h("optgroup", { label: category }));
      const found = this.table.rows[name].filter((row) => row.draw).length;
      groups.get(category).append(h("option", { value: name }, `${name} (in ${found} of ${this.table.names.length})`));
    }
    const choose = () => {
      this.model.set("concept", this.select.value);
      this.model.save_changes();
    };
    this.select = h("select", { "aria-label": "Concept", change: choose }, ...groups.values());
    const listeners = { click: (event) => this.click(event), keydown: (event) => this.key(event) };
    this.list = h("div", { class: "ganlens-rows", role: "listbox", "aria-label": "Best units", ...listeners });
    this.el.append(h("label", {}, "concept ", this.select), this.list);
  }

  show() {
    this.forget();
    this.table = this.model.get("table");
    this.concept = this.model.get("concept");
    this.select.value = this.concept ?? "";
    const rows = this.table.rows[this.concept] ?? [];
    this.list.replaceChildren(...rows.map((row, i) => this.row(this.table.names[i], row, this.table.images[i])));
    this.mark();
    if (rows.length && this.table.images.some(Boolean)) this.model.send({ type: "strips", concept: this.concept });
  }

  row(name, { draw, units }, images) {
    const says = draw ? `${draw} unit${draw > 1 ? "s" : ""} draw${draw > 1 ? "" : "s"} it` : "no unit draws it";
    const head = h("div", { class: "ganlens-name" }, h("b", {}, name), h("small", {}, says));
    const cards = units.map(([unit, iou]) => {
      const label = `${name}, unit ${unit}, IoU ${iou.toFixed(2)}`;
      const caption = h("small", {}, `unit ${unit} · IoU ${iou.toFixed(3)}`);
      const strip = images ? h("div", { class: "ganlens-strip" }) : null;
      const option = { role: "option", tabindex: -1, "aria-label": label, "data-name": name, "data-unit": unit };
      return h("div", { class: "ganlens-card", ...option }, strip, caption);
    });
    return h("div", { class: `ganlens-row${draw ? "" : " ganlens-vague"}`, role: "group", "aria-label": name }, head, ...cards);
  }

  /** Show which unit is selected; Tab reaches it, or the first one. */
  mark() {
    const [layer, unit] = [this.model.get("layer"), this.model.get("unit")];
    for (const card of this.cards()) {
      const selected = card.dataset.name === layer && Number(card.dataset.unit) === unit;
      card.setAttribute("aria-selected", selected);
      card.tabIndex = selected ? 0 : -1;
    }
    if (!this.cards().some((card) => card.tabIndex === 0)) this.cards()[0]?.setAttribute("tabindex", 0);
  }

  cards() {
    return [...this.list.querySelectorAll(".ganlens-card")];
  }

  receive(message, buffers) {
    if (message.type !== "strips" || message.concept !== this.concept) return;
    const cards = this.cards().filter((card) => card.dataset.name === message.name);
    cards.forEach((card, i) => {
      const src = pictureURL(buffers[i]);
      this.urls.push(src);
      card.querySelector(".ganlens-strip").replaceChildren(h("img", { src, alt: `top images of ${card.ariaLabel}` }));
    });
  }

  forget() {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
  }

  click(event) {
    const card = event.target.closest(".ganlens-card");
    if (!card) return;
    card.focus({ preventScroll: true });
    this.model.send({ type: "pick", name: card.dataset.name, unit: Number(card.dataset.unit) });
  }

  key(event) {
    const card = event.target.closest(".ganlens-card");
    const [row, place] = [card?.parentElement, [...(card?.parentElement.children ?? [])].indexOf(card)];
    const steps = { ArrowRight: () => card.nextElementSibling, ArrowLeft: () => card.previousElementSibling };
    steps.ArrowDown = () => row.nextElementSibling?.children[place];
    steps.ArrowUp = () => row.previousElementSibling?.children[place];
    if (!card || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") this.click(event);
    else if (!steps[event.key]) return;
    else steps[event.key]()?.focus();
    event.preventDefault();
    event.stopPropagation();
  }
}

export default {
  render({ model, el }) {
    const view = new Comparison(model, el);
    return () => view.remove();
  },
};
