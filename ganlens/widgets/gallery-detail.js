// One unit from near: its top images, its IoU with the concepts, its activation.

const BARS = 12;
const CLOSEUPS = ["lit where the unit is on", "activation, with a line at the threshold", "segmentation"];

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const short = (number) => Number(number.toPrecision(3)).toString();

/** The view beneath the list. Its pictures and numbers come from Python when it is opened. */
class Detail {
  constructor(gallery) {
    this.gallery = gallery;
    this.unit = null;
    this.element = h("section", { class: "ganlens-detail", "aria-label": "Detail of a unit", hidden: true });
    this.ask = afterPause(80, () => this.unit !== null && gallery.send("detail", { unit: this.unit }));
  }

  /** Show a unit, or with null nothing. */
  show(unit) {
    this.element.hidden = unit === null;
    if (unit === this.unit) return;
    this.forget();
    this.unit = unit;
    if (unit === null) return;
    this.element.append(this.head(), h("p", { class: "ganlens-sentence" }), h("div", { class: "ganlens-body" }, this.pictures(), this.numbers()));
    this.gallery.showFlags(unit, this.element);
    this.ask();
  }

  forget() {
    for (const img of this.element.querySelectorAll("img")) URL.revokeObjectURL(img.src);
    this.element.replaceChildren();
    this.unit = null;
  }

  find(name) {
    return this.element.querySelector(`.ganlens-${name}`);
  }

  head() {
    const { gallery, unit } = this;
    const { name, category, iou, runnerUp, draws, spread } = gallery.table.units[unit];
    const flag = (which) => flagButton(which, { click: () => gallery.flag(unit, which) }, which);
    const close = {
      type: "button",
      class: "ganlens-tool",
      title: "Close (Escape)",
      "aria-label": "Close the detail view",
    };
    return h(
      "header",
      {},
      h("b", {}, `Unit ${unit}`),
      h("span", {}, name, " ", h("small", {}, category)),
      h("small", {}, `IoU ${iou.toFixed(3)}${spread && ` (95 %: ${spread})`}${runnerUp && `, ${runnerUp}`}${draws ? "" : "; not interpretable"}`),
      h("small", { class: "ganlens-on" }),
      h("span", { class: "ganlens-push" }, flag("favourite"), flag("artifact")),
      h("button", { ...close, click: () => gallery.closeDetail() }, icon("close")),
    );
  }

  pictures() {
    const { images, segmented } = this.gallery.table;
    if (!images) return null;
    const rows = CLOSEUPS.slice(0, segmented ? 3 : 2).map((title) =>
      h("figure", {}, h("figcaption", {}, title), h("div", { class: "ganlens-reel" })),
    );
    const said = `Top images of unit ${this.unit}`;
    const reels = h("div", { class: "ganlens-reels", tabindex: 0, role: "group", "aria-label": said }, ...rows);
    return h("div", { class: "ganlens-left" }, reels, h("div", { class: "ganlens-key" }));
  }

  numbers() {
    const { concepts, at } = this.gallery.table;
    const best = concepts.map((_, c) => c).sort((a, b) => at(this.unit, b) - at(this.unit, a));
    const shown = best.slice(0, BARS);
    const highest = Math.max(at(this.unit, best[0]), 0.01);
    const which = best.length > shown.length ? `the best ${shown.length} of ${best.length}` : "all";
    const bars = shown.map((c) => this.bar(concepts[c], at(this.unit, c), highest));
    const scale = h("small", {}, "of all cells, square-root scale");
    return h(
      "div",
      { class: "ganlens-right" },
      h("div", {}, h("h4", {}, `IoU with ${which} concepts`), ...bars),
      h("div", {}, h("h4", {}, "Activation ", scale), h("div", { class: "ganlens-activation" })),
    );
  }

  bar({ name, category, known }, iou, highest) {
    const title = `${name} (${category}): sort the units by it`;
    const sort = () => this.gallery.set({ concept: known, sort: "concept" });
    const named = h("span", { class: "ganlens-cut" }, name);
    return h(
      "button",
      { type: "button", class: "ganlens-concept-bar", title, click: sort },
      named,
      meter(iou, highest),
    );
  }

  receive(message, buffers) {
    if (message.unit !== this.unit) return;
    if (message.type === "numbers") this.showNumbers(message);
    if (message.type === "closeups") this.showCloseups(message, buffers);
  }

  showNumbers({ histogram, threshold, on, sentence }) {
    this.find("sentence").textContent = sentence;
    const said = threshold === null ? "" : `on above ${short(threshold)}: ${percent(on)} of the pixels`;
    this.find("on").textContent = said;
    this.find("activation").replaceChildren(histogramPicture(histogram, threshold));
  }

  /** Add pictures to the rows; the first ones replace what was there. */
  showCloseups({ start, seeds, key }, buffers) {
    const reels = [...this.element.querySelectorAll(".ganlens-reel")];
    buffers.forEach((bytes, i) => {
      const said = `${CLOSEUPS[i]}: seeds ${seeds.join(", ")}`;
      const img = h("img", {
        src: pictureURL(bytes),
        alt: `unit ${this.unit}, ${said}`,
        title: said,
        "data-start": start,
      });
      for (const old of reels[i].querySelectorAll("img"))
        if (start <= Number(old.dataset.start)) {
          URL.revokeObjectURL(old.src);
          old.remove();
        }
      reels[i].append(img);
    });
    const box = this.find("key");
    const known = new Set([...box.children].map((entry) => entry.textContent));
    for (const [name, color] of key)
      if (!known.has(name)) box.append(h("span", {}, h("i", { style: `background: ${color}` }), name));
  }
}

/** Bars, and a line at the threshold. Heights are square roots of counts: the rare high values can still be seen. */
function histogramPicture({ counts, low, width, highest }, threshold) {
  const [across, high] = [320, 84];
  const scale = high / Math.sqrt(Math.max(...counts, 1));
  const each = across / counts.length;
  const bars = counts.map((count, i) => {
    const tall = count ? Math.max(1, scale * Math.sqrt(count)) : 0;
    return `<rect x="${i * each}" y="${high - tall}" width="${each - 0.5}" height="${tall}"/>`;
  });
  const known = threshold !== null && width > 0;
  const place = known ? Math.min(1, Math.max(0, (threshold - low) / (width * counts.length))) : 0;
  const line = known ? `<line x1="${across * place}" x2="${across * place}" y1="-6" y2="${high}"/>` : "";
  const svg = `${bars.join("")}<path d="M0 ${high + 0.5}H${across}"/>${line}`;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const range = `${total} cells from ${short(low)} to ${short(highest)}`;
  const said = `Histogram of the activation of ${range}${known ? `, threshold ${short(threshold)}` : ""}`;
  const picture = h("div", { class: "ganlens-histogram", role: "img", "aria-label": said, title: said });
  picture.innerHTML = `<svg viewBox="0 -6 ${across} ${high + 7}" preserveAspectRatio="none">${svg}</svg>`;
  picture.append(h("span", { class: "ganlens-low" }, short(low)), h("span", { class: "ganlens-high" }, short(highest)));
  if (known) picture.append(h("span", { class: "ganlens-mark", style: `left: ${100 * place}%` }, short(threshold)));
  return picture;
}
