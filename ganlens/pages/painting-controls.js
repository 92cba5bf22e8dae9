// What the hand does: the brush on the picture, buttons, keys.

Object.assign(Painting.prototype, {
  build() {
    const tiles = told.concepts.filter(([name]) => told.layers.some((layer) => rankedIn(layer, name).length));
    $("tiles").replaceChildren(
      ...tiles.map(([name, color]) => {
        const dot = el("i", { class: "dot" });
        dot.style.background = color;
        const attributes = { type: "button", role: "radio", "data-concept": name, onclick: () => this.pick(name) };
        return el("button", attributes, dot, name);
      }),
    );
    const layers = told.layers.map(({ name }) => el("option", { value: name }, name));
    $("layer").replaceChildren(...layers);
    $("layer").parentElement.hidden = layers.length < 2;
    const acts = {
      undo: () => this.undo(),
      redo: () => this.redo(),
      reset: () => this.reset(),
      add: () => this.setMode("add"),
      remove: () => this.setMode("remove"),
      previous: () => this.turn(-1),
      next: () => this.turn(1),
      random: () => this.setSeed(Math.floor(Math.random() * 1e6)),
      png: () => this.savePicture(),
      copy: () => this.copyRecipe(),
      load: () => this.askRecipe(),
      none: () => this.chooseNone(),
    };
    for (const [name, act] of Object.entries(acts)) $(name).addEventListener("click", act);
    $("layer").addEventListener("change", (event) => this.setLayer(event.target.value));
    $("seed").addEventListener("change", (event) => this.setSeed(Number(event.target.value || NaN)));
    $("compare").addEventListener("input", (event) => this.compare(Number(event.target.value)));
    document.addEventListener("keydown", (event) => this.key(event));
    this.follow();
  },

  pick(concept) {
    this.concept = concept;
    this.chosen = null;
    if (!rankedIn(this.layer, concept).length) this.layer = told.layers.find((layer) => rankedIn(layer, concept).length);
    $("layer").value = this.layer.name;
    this.showState();
  },

  setLayer(name) {
    this.layer = told.layers.find((layer) => layer.name === name);
    if (!rankedIn(this.layer, this.concept).length) this.concept = Object.keys(this.layer.ranked)[0] ?? null;
    this.chosen = this.concept ? null : [];
    this.showState();
  },

  setMode(mode) {
    this.mode = mode;
    this.showState();
  },

  turn(by) {
    this.pages = Math.max(0, this.pages + by);
    this.showStrip();
  },

  /** Show the unedited image left of a share of the width. */
  compare(percent) {
    $("before").style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    $("stage").classList.toggle("compared", percent > 0);
    $("stage").style.setProperty("--cut", `${percent}%`);
  },

  // ---- the brush

  follow() {
    const stage = $("stage");
    let cells = null;
    const cellsAt = (event) => {
      const box = stage.getBoundingClientRect();
      const [height, width] = this.layer.grid;
      const [y, x] = [((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width];
      return this.around(y, x, height, width);
    };
    const show = (region) => this.showRegion(region);
    stage.addEventListener("pointerdown", (event) => {
      if (event.button || event.target.tagName === "INPUT") return;
      event.preventDefault();
      stage.focus();
      stage.setPointerCapture(event.pointerId);
      cells = cellsAt(event);
      show(cells);
    });
    stage.addEventListener("pointermove", (event) => {
      const here = cellsAt(event);
      if (cells) for (const [y, row] of here.entries()) for (const [x, a] of row.entries()) cells[y][x] ||= a;
      show(cells ?? here);
    });
    const end = (paints) => () => {
      const region = cells;
      cells = null;
      show(null);
      if (region && paints) this.paint(region);
    };
    stage.addEventListener("pointerup", end(true));
    stage.addEventListener("pointercancel", end(false));
    stage.addEventListener("pointerleave", () => cells || show(null));
    stage.addEventListener("keydown", (event) => this.steer(event));
    stage.addEventListener("blur", () => show(null));
  },

  /** Arrows move the brush, Space and Enter paint. */
  steer(event) {
    const [height, width] = this.layer.grid;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], " ": [0, 0], Enter: [0, 0] };
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [y, x] = this.cursor ?? [height / 2, width / 2];
    const within = (place, n) => Math.min(Math.max(place, 0.5), n - 0.5);
    this.cursor = [within(y + step[0], height), within(x + step[1], width)];
    const region = this.around(...this.cursor, height, width);
    this.showRegion(region);
    if (event.key === " " || event.key === "Enter") this.paint(region);
  },

  /** Cells (H, W) under a brush whose middle is at (y, x), in cells: 1 where it covers at least half of one. */
  around(y, x, height, width) {
    const radius = Number($("size").value) / 2;
    return Array.from({ length: height }, (_, row) =>
      Array.from({ length: width }, (_, column) => {
        const inside = Math.hypot(row + 0.5 - y, column + 0.5 - x) <= Math.max(radius, 0.5);
        const under = row === Math.floor(y) && column === Math.floor(x);
        return inside || under ? 1 : 0;
      }),
    );
  },

  showRegion(region) {
    const [height, width] = this.layer.grid;
    [this.overlay.width, this.overlay.height] = [width, height];
    const paper = this.overlay.getContext("2d");
    paper.clearRect(0, 0, width, height);
    paper.fillStyle = this.mode === "add" ? "rgb(255 255 255 / 55%)" : "rgb(0 0 0 / 50%)";
    for (const [y, row] of (region ?? []).entries()) {
      for (const [x, a] of row.entries()) if (a) paper.fillRect(x, y, 1, 1);
    }
  },

  // ---- keys, files

  key(event) {
    if (event.target.matches("input[type=number], textarea, select")) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) this.redo();
      else this.undo();
    } else if (command && event.key.toLowerCase() === "y") {
      event.preventDefault();
      this.redo();
    } else if (!command && !event.altKey && event.key === "n") this.setSeed(Math.min(this.seed + 1, 2 ** 32 - 1));
    else if (!command && !event.altKey && event.key === "p") this.setSeed(Math.max(this.seed - 1, 0));
    else if (!command && !event.altKey && event.key === "x") this.setMode(this.mode === "add" ? "remove" : "add");
  },

  savePicture() {
    const link = el("a", { download: `${told.generator}-${this.seed}${this.edits.length ? "-edited" : ""}.png`, href: this.canvas.toDataURL("image/png") });
    link.click();
  },

  async copyRecipe() {
    const box = $("recipe");
    box.value = this.recipe;
    box.parentElement.hidden = false;
    box.select();
    try {
      await navigator.clipboard.writeText(this.recipe);
      this.say("The recipe is copied.", "ganlens.replay(ganlens.Recipe.from_json(text)) draws the same picture.");
    } catch {
      this.say("Copy the recipe from the field.", "This page may not use the clipboard.");
    }
  },

  askRecipe() {
    const box = $("recipe");
    if (box.parentElement.hidden) {
      box.parentElement.hidden = false;
      box.value = "";
      box.focus();
      this.say("Paste a recipe into the field, and press “load recipe” again.");
      return;
    }
    try {
      this.load(box.value);
    } catch (error) {
      this.say("The recipe cannot be loaded.", error.message, true);
    }
  },
});

/** Start the engine, and the page; say so where this browser cannot. */
async function start() {
  const started = performance.now();
  try {
    if (typeof Worker === "undefined") throw new Error("it has no workers");
    const engine = new Engine(document.getElementById("worker").textContent);
    const given = {
      program: told.program,
      weights: await bytesOf("weights"),
      segmenter: told.segmenter,
      segmenterWeights: await bytesOf("segmenter-weights"),
      kernel: await bytesOf("kernel"),
      latents: told.latents,
    };
    const buffers = [given.weights, given.segmenterWeights, given.kernel].filter(Boolean);
    const { compiled } = await engine.ask("start", given, buffers);
    window.painting = new Painting(engine);
    await window.painting.working;
    document.body.dataset.ready = Math.round(performance.now() - started);
    $("app").hidden = false;
    $("cannot").hidden = true;
    $("plain").hidden = compiled;
  } catch (error) {
    $("cannot").hidden = false;
    $("cannot").textContent = `This browser cannot run the network of this page (${error.message}).`;
  }
}

start();
