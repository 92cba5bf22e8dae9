// A page that paints: strokes on a picture, undone and done again, and recipes that ganlens.replay understands.

const SCALE = 512; // pixels of the picture on the screen, at most
const STRIP = 8; // seeds beside each other
const BUSY = 200; // ms after which the page says that it computes

const told = JSON.parse(document.getElementById("told").textContent);
const $ = (name) => document.querySelector(`[data-is="${name}"]`);

/** An element; properties that begin with "on" are listeners, others attributes. */
function el(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...content);
  return made;
}

/** Units of a concept in a layer. */
const rankedIn = (layer, concept) => (Object.hasOwn(layer.ranked, concept) ? layer.ranked[concept] : []);

class Painting {
  constructor(engine) {
    this.engine = engine;
    this.strokes = []; // each { edit, concept, mode, on }
    this.past = []; // what the strokes were before, and after what was undone
    this.future = [];
    this.seed = told.seed;
    this.layer = told.layers[0];
    this.concept = told.start;
    this.mode = "add";
    this.chosen = this.concept ? null : []; // units picked from the list, null for those of the concept
    this.pages = 0;
    this.canvas = $("picture");
    this.overlay = $("brush");
    this.before = null;
    this.build();
    this.render();
    this.showStrip();
  }

  // ---- what is painted

  get units() {
    return this.chosen ?? rankedIn(this.layer, this.concept);
  }

  get edits() {
    return this.strokes.filter((stroke) => stroke.on).map((stroke) => stroke.edit);
  }

  paint(region) {
    if (!this.units.length || !region.some((row) => row.some((a) => a > 0))) return;
    const edit = {
      layer: this.layer.name,
      units: [...this.units],
      level: this.mode === "add" ? "q0.995" : 0,
      region,
      strength: Number($("strength").value),
    };
    this.change([...this.strokes, { edit, concept: this.chosen ? null : this.concept, mode: this.mode, on: true }]);
  }

  /** Other strokes instead, which can be undone. */
  change(strokes) {
    this.past.push(this.strokes);
    this.future = [];
    this.strokes = strokes;
    this.render();
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.strokes);
    this.strokes = this.past.pop();
    this.render();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.strokes);
    this.strokes = this.future.pop();
    this.render();
  }

  reset() {
    if (this.strokes.length) this.change([]);
  }

  setSeed(seed) {
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
      this.say("A seed is a whole number from 0 to 4,294,967,295.", "", true);
      $("seed").value = this.seed;
      return;
    }
    this.seed = seed;
    this.render();
  }

  // ---- pictures

  /** Compute and show the picture; of several that are asked for meanwhile, only the last is computed. */
  async render() {
    this.wanted = { seed: this.seed, edits: this.edits, strokes: this.strokes };
    this.showState();
    if (this.working) return this.working;
    this.working = this.work();
    await this.working;
    this.working = null;
  }

  async work() {
    const busy = setTimeout(() => this.canvas.parentElement.classList.add("busy"), BUSY);
    while (this.wanted) {
      try {
        const { seed, edits, strokes } = this.wanted;
        this.wanted = null;
        const given = { seed, levels: told.levels };
        const read = told.readout && edits.length > 0;
        if (this.before?.seed !== seed) {
          this.before = { seed, ...(await this.engine.ask("render", { ...given, edits: [], read: told.readout })) };
        }
        const after = edits.length ? await this.engine.ask("render", { ...given, edits, read }) : this.before;
        this.last = after;
        this.draw(this.canvas, after.picture);
        this.draw($("before"), this.before.picture);
        if (told.readout) this.tellChange(strokes.filter((stroke) => stroke.on));
      } catch (error) {
        this.say("This could not be computed.", error.message, true);
      }
    }
    clearTimeout(busy);
    this.canvas.parentElement.classList.remove("busy");
  }

  draw(canvas, picture) {
    [canvas.width, canvas.height] = told.size;
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(picture), ...told.size), 0, 0);
  }

  async showStrip() {
    const box = $("strip");
    const first = this.pages * STRIP;
    const tiles = Array.from({ length: STRIP }, (_, i) => {
      const canvas = el("canvas", { width: told.size[0], height: told.size[1] });
      const seed = first + i;
      return el("button", { type: "button", "aria-label": `seed ${seed}`, onclick: () => this.setSeed(seed) }, canvas);
    });
    box.replaceChildren(...tiles);
    this.showState();
    for (const [i, tile] of tiles.entries()) {
      if (this.working) await this.working;
      if (!tile.isConnected) return;
      const { picture } = await this.engine.ask("render", { seed: first + i, levels: told.levels, edits: [] });
      this.draw(tile.firstChild, picture);
    }
  }

  // ---- words

  say(main, more = "", warns = false) {
    $("main").textContent = main;
    $("more").textContent = more;
    $("result").classList.toggle("warn", warns);
  }

  /** What the strokes did, in percent of the picture: the concept of the last one first, then the largest changes. */
  tellChange(strokes) {
    if (!strokes.length) {
      this.say(`Image ${this.seed}, as the network draws it.`, "Choose what to paint, and drag over the picture.");
      return;
    }
    const counts = [this.before, this.last].map(({ labels }) => {
      const found = new Float64Array(told.concepts.length);
      for (const label of labels) found[label]++;
      return found.map((count) => (100 * count) / labels.length);
    });
    const changes = told.concepts.map(([name], c) => [name, counts[1][c] - counts[0][c]]);
    const large = changes.filter(([, change]) => Math.abs(change) >= 0.1);
    const asked = strokes.at(-1).concept;
    large.sort((a, b) => (b[0] === asked) - (a[0] === asked) || Math.abs(b[1]) - Math.abs(a[1]));
    const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(1)} %`;
    const [most, ...others] = large.map(([name, change]) => `${name} ${signed(change)}`);
    if (!most) this.say("Nothing changed.", "Another place, or another strength, may do more.", true);
    else if (asked && large[0][0] !== asked) this.say(`${asked}: nothing changed`, [most, ...others].slice(0, 4).join(", "));
    else this.say(`${most} of the picture${strokes.length > 1 ? ", all strokes together" : ""}`, others.slice(0, 4).join(", "));
  }

  showState() {
    $("seed").value = this.seed;
    $("undo").disabled = !this.past.length;
    $("reset").disabled = !this.strokes.length;
    $("redo").disabled = !this.future.length;
    for (const tile of $("tiles").children) {
      tile.setAttribute("aria-checked", String(!this.chosen && tile.dataset.concept === this.concept));
    }
    for (const mode of ["add", "remove"]) $(mode).setAttribute("aria-checked", String(this.mode === mode));
    for (const [i, tile] of [...$("strip").children].entries()) {
      tile.setAttribute("aria-pressed", String(this.pages * STRIP + i === this.seed));
    }
    $("units").textContent = this.chosen
      ? `units ${this.chosen.join(", ") || "of your choice: tick some below"}`
      : `${this.units.length} units of ${this.layer.name}: ${this.units.join(", ")}`;
    this.showStrokes();
    this.showUnits();
    if (!told.readout) this.say(`Image ${this.seed}`, `${this.edits.length} strokes`);
  }

  showStrokes() {
    const rows = this.strokes.map((stroke, i) => {
      const { units, layer, strength } = stroke.edit;
      const name = stroke.concept ?? `units ${units.join(", ")}`;
      const words = `${{ add: "draw", remove: "remove", edit: "edit" }[stroke.mode]} ${name}`;
      const change = () => this.change(this.strokes.with(i, { ...stroke, on: !stroke.on }));
      const drop = () => this.change(this.strokes.toSpliced(i, 1));
      const box = el("input", { type: "checkbox", checked: stroke.on, onchange: change });
      const about = el("small", {}, ` ${layer}, ${units.length} units, strength ${strength}`);
      const away = el("button", { type: "button", class: "plain", "aria-label": `delete: ${words}`, onclick: drop }, "×");
      return el("li", {}, el("label", {}, box, ` ${words}`, about), away);
    });
    $("strokes").replaceChildren(...rows);
  }

  showUnits() {
    const rows = this.layer.units.map(([unit, name, iou, draws]) => {
      const on = this.units.includes(unit);
      return el(
        "label",
        { class: draws ? null : "faint" },
        el("input", { type: "checkbox", checked: on, onchange: (event) => this.choose(unit, event.target.checked) }),
        ` ${unit} `,
        el("span", {}, name),
        el("small", {}, ` ${iou.toFixed(3)}`),
      );
    });
    const list = $("list");
    const place = list.scrollTop;
    list.replaceChildren(...rows);
    list.scrollTop = place;
  }

  chooseNone() {
    this.chosen = [];
    this.showState();
  }

  choose(unit, on) {
    const rest = this.units.filter((other) => other !== unit);
    this.chosen = on ? [...rest, unit] : rest;
    this.showState();
  }

  // ---- recipes

  get recipe() {
    const head = { format: 1, generator: told.generator, fingerprint: told.fingerprint, seed: this.seed };
    if (Object.keys(told.settings).length) head.settings = told.settings;
    return `${JSON.stringify({ ...head, edits: this.edits })}\n`;
  }

  /** Take over a recipe; an Error says what is wrong with it. */
  load(text) {
    const { seed, edits } = checkedRecipe(text, told);
    this.seed = seed;
    this.change(edits.map((edit) => ({ edit, ...nameOf(edit), on: true })));
  }
}

/** Concept and mode of an edit that this page would have made; else none, and "edit". */
function nameOf({ layer, units, level }) {
  const mode = { "q0.995": "add", 0: "remove" }[level] ?? "edit";
  const ranked = told.layers.find(({ name }) => name === layer)?.ranked ?? {};
  const known = Object.entries(ranked).find(([, own]) => mode !== "edit" && own.join() === units.join());
  return { concept: known?.[0] ?? null, mode };
}
