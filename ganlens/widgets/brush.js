const CURSOR = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const COLORS = { remove: "255, 140, 0", add: "0, 200, 220", query: "250, 250, 250", copy: "190, 120, 255", paste: "190, 120, 255" };

const RESTS = 120; // milliseconds that the brush rests before it is asked what a stroke would do

/** Cells that a brush touches: those whose centre it covers, and those that its path crosses. */
function touched(path, radius, [rows, columns], [width, height]) {
  const cells = new Set();
  const reach = radius * radius;
  const visit = (x, y) => {
    const row = Math.floor((y / height) * rows), column = Math.floor((x / width) * columns);
    if (row >= 0 && row < rows && column >= 0 && column < columns) cells.add(row * columns + column);
    for (let i = 0; i < rows; i++) {
      const dy = ((i + 0.5) / rows) * height - y;
      if (dy * dy > reach) continue;
      for (let j = 0; j < columns; j++) {
        const dx = ((j + 0.5) / columns) * width - x;
        if (dx * dx + dy * dy <= reach) cells.add(i * columns + j);
      }
    }
  };
  path.forEach(([x, y], k) => {
    const [px, py] = path[Math.max(k - 1, 0)];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - px, y - py) / 4));
    for (let s = 1; s <= steps; s++) visit(px + ((x - px) * s) / steps, py + ((y - py) * s) / steps);
  });
  return cells;
}

/** Cells of a clip when its middle is moved to a point; those outside are left out. */
function moved(clip, [x, y], [rows, columns], [width, height]) {
  const down = Math.floor((y / height) * rows) - clip.middle[0];
  const right = Math.floor((x / width) * columns) - clip.middle[1];
  const inside = clip.cells
    .map((cell) => [Math.floor(cell / columns) + down, (cell % columns) + right])
    .filter(([i, j]) => i >= 0 && i < rows && j >= 0 && j < columns);
  return { down, right, cells: new Set(inside.map(([i, j]) => i * columns + j)) };
}

/** Cells of the rectangle between two points. */
function boxed([[ax, ay], [bx, by]], [rows, columns], [width, height]) {
  const span = (a, b, size, count) => [Math.min(a, b), Math.max(a, b)].map((at) => Math.min(count - 1, Math.max(0, Math.floor((at / size) * count))));
  const [top, bottom] = span(ay, by, height, rows), [left, right] = span(ax, bx, width, columns);
  const cells = new Set();
  for (let i = top; i <= bottom; i++) for (let j = left; j <= right; j++) cells.add(i * columns + j);
  return cells;
}

const LEAST = [1 / 64, 1 / 128, 1 / 256]; // of the picture's pixels, that a cell gains
const SHADES = ["#fff3a8", "#4f9ac4", "#5b5f9e"];

function render({ model, el }) {
  const stop = root(model, el, "ganlens-brush");
  const canvas = h("canvas", { "aria-hidden": "true" });
  const before = h("img", { alt: "", class: "ganlens-before" });
  const slider = h("input", { type: "range", min: 0, max: 100, value: 0, "aria-label": "Before and after: how much of the original is shown", input: () => cut(Number(slider.value)) });
  const line = h("div", { class: "ganlens-canvas-cut", "aria-hidden": "true" }), grip = h("span", { class: "ganlens-grip", "aria-hidden": "true" }, drawing("M6 4 2.500 8 6 12M10 4l3.500 4L10 12"));
  const chips = [h("span", { class: "ganlens-canvas-chip", style: "left: 6px" }, "before"), h("span", { class: "ganlens-canvas-chip", style: "right: 6px" }, "after")];
  const cursorLabel = h("span", { class: "ganlens-quiet", "aria-live": "polite" });
  const picture = h("div", { class: "ganlens-picture", tabindex: "0", role: "application", "aria-roledescription": "painting" }, canvas);
  const note = h("p", { class: "ganlens-canvas-note", role: "status" });
  const preview = h("img", { alt: "", class: "ganlens-preview", hidden: true }), told = h("span", { class: "ganlens-canvas-chip ganlens-told", hidden: true }, "if you paint here");
  el.append(preview, before, told, picture, line, slider, grip, ...chips, note, cursorLabel);

  let share = 0; // of the picture that shows the original, in percent
  function cut(percent) {
    share = percent;
    slider.value = percent;
    el.style.setProperty("--ganlens-cut", `${percent}%`);
    slider.setAttribute("aria-valuetext", `${percent} % original`);
    el.classList.toggle("ganlens-compared", percent > 0);
  }

  // The slider is as small as its grip, so that one can paint beside it; it is dragged across the whole picture.
  const toPercent = (event) => {
    const box = el.getBoundingClientRect();
    cut(Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width))));
  };
  slider.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    slider.focus({ preventScroll: true });
    slider.setPointerCapture(event.pointerId);
  });
  slider.addEventListener("pointermove", (event) => slider.hasPointerCapture(event.pointerId) && toPercent(event));

  let path = null; // of the stroke being painted
  let pending = new Set(); // cells of strokes whose image is not there yet
  let pointer = null;
  let cursor = null; // the cell that the arrow keys move

  const size = () => model.get("size");
  const grid = () => model.get("grid");
  const radius = () => model.get("radius") * Math.max(...size());
  const color = () => (model.get("tool") === "erase" ? "250, 250, 250" : COLORS[model.get("mode")] ?? COLORS.add);
  const tool = () => model.get("tool");
  const covered = () => (tool() === "box" ? boxed([path[0], path.at(-1)], grid(), size()) : touched(path, radius(), grid(), size()));
  const pasting = () => model.get("mode") === "paste" && model.get("clip").cells?.length;

  const draw = oncePerFrame(() => {
    const [width, height] = size(), ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio))
      Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!path) shade(context, model.get("map"));
    outline(context, pending, color(), 0.18);
    outline(context, new Set(model.get("highlight")), "255, 212, 59", 0.3);
    if (pasting() && pointer) outline(context, moved(model.get("clip"), pointer, grid(), size()).cells, color(), 0.3);
    if (path) {
      outline(context, covered(), color(), 0.22);
      if (tool() !== "box") trace(context);
    } else if (pointer && !pasting() && (tool() === "brush" || tool() === "erase")) ring(context, pointer);
    if (cursor && document.activeElement === picture) outline(context, new Set([cursor[0] * grid()[1] + cursor[1]]), "255, 255, 255", 0);
  });

  function outline(context, cells, rgb, fill) {
    const [rows, columns] = grid(), [width, height] = size();
    const w = width / columns, hgt = height / rows;
    context.beginPath();
    for (const cell of cells) {
      const i = Math.floor(cell / columns), j = cell % columns;
      context.fillStyle = `rgba(${rgb}, ${fill})`;
      context.fillRect(j * w, i * hgt, w, hgt);
      const edge = (near, x0, y0, x1, y1) => near || (context.moveTo(x0, y0), context.lineTo(x1, y1));
      edge(i > 0 && cells.has(cell - columns), j * w, i * hgt, (j + 1) * w, i * hgt);
      edge(i < rows - 1 && cells.has(cell + columns), j * w, (i + 1) * hgt, (j + 1) * w, (i + 1) * hgt);
      edge(j > 0 && cells.has(cell - 1), j * w, i * hgt, j * w, (i + 1) * hgt);
      edge(j < columns - 1 && cells.has(cell + 1), (j + 1) * w, i * hgt, (j + 1) * w, (i + 1) * hgt);
    }
    for (const [line, style] of [[3, "rgba(0, 0, 0, 0.55)"], [1.5, `rgb(${rgb})`]]) {
      Object.assign(context, { lineWidth: line, strokeStyle: style });
      context.stroke();
    }
  }

  /** Say of the cells of a layer how many pixels each would gain: framed, with the number, the others dark. */
  function shade(context, { gains, grid: cells, pixels, clear }) {
    if (!gains || String(cells) !== String(grid())) return;
    const [rows, columns] = cells, [width, height] = size();
    const w = width / columns, tall = height / rows, written = Math.min(w, tall) >= 26;
    Object.assign(context, { textAlign: "center", textBaseline: "middle", font: `600 ${Math.min(14, w / 3)}px system-ui, sans-serif` });
    gains.forEach((gain, cell) => {
      const x = (cell % columns) * w, y = Math.floor(cell / columns) * tall;
      const shadeOf = SHADES[LEAST.findIndex((least) => gain >= least * pixels)];
      if (!shadeOf) {
        context.fillStyle = `rgba(21, 24, 29, ${clear ? 0 : 0.5})`;
        return context.fillRect(x, y, w, tall);
      }
      Object.assign(context, { strokeStyle: shadeOf, lineWidth: 2.5 });
      context.strokeRect(x + 1.5, y + 1.5, w - 3, tall - 3);
      if (!written) return;
      Object.assign(context, { lineWidth: 3, strokeStyle: "rgba(0, 0, 0, 0.8)", fillStyle: "#fff" });
      context.strokeText(`+${gain}`, x + w / 2, y + tall / 2);
      context.fillText(`+${gain}`, x + w / 2, y + tall / 2);
    });
  }

  function trace(context) {
    Object.assign(context, { lineWidth: 2 * radius(), lineCap: "round", lineJoin: "round", strokeStyle: `rgba(${color()}, 0.35)` });
    context.beginPath();
    context.moveTo(...path[0]);
    path.forEach((point) => context.lineTo(...point));
    context.stroke();
  }

  function ring(context, [x, y]) {
    for (const [line, style] of [[3, "rgba(0, 0, 0, 0.5)"], [1.5, `rgb(${color()})`]]) {
      Object.assign(context, { lineWidth: line, strokeStyle: style });
      context.beginPath();
      context.arc(x, y, Math.max(radius(), 2), 0, 7);
      context.stroke();
    }
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect(), [width, height] = size();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };

  function release(cells) {
    if (!cells.size) return;
    pending = new Set([...pending, ...cells]);
    el.classList.add("ganlens-busy");
    model.send({ kind: "stroke", cells: [...cells], grid: grid() }); // the kernel knows what was chosen, maybe before this view does
    draw();
  }

  function paste(point) {
    const { down, right, cells } = moved(model.get("clip"), point, grid(), size());
    if (!cells.size) return;
    pending = cells;
    el.classList.add("ganlens-busy");
    model.send({ kind: "paste", down, right });
    draw();
  }

  function fill([x, y]) {
    el.classList.add("ganlens-busy");
    model.send({ kind: "fill", x: x / size()[0], y: y / size()[1] });
  }

  // ---- what a stroke would do where the brush rests

  let asked = ""; // cells of the stroke that was asked about
  const cellsHere = () => [...touched([pointer], radius(), grid(), size())].sort((a, b) => a - b);
  const ask = afterPause(RESTS, () => {
    if (!pointer || path || pending.size || tool() !== "brush" || !["add", "remove"].includes(model.get("mode"))) return;
    const cells = cellsHere();
    if (!cells.length || String(cells) === asked) return;
    asked = String(cells);
    model.send({ kind: "preview", cells, grid: grid() });
  });
  function showPreview(cells, bytes) {
    if (String(cells) !== asked || path || !pointer) return;
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.src = pictureURL(bytes, "image/png");
    preview.hidden = told.hidden = false;
  }
  function forgetPreview() {
    asked = "";
    preview.hidden = told.hidden = true;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    forgetPreview();
    event.preventDefault(); // no text is selected, no picture is dragged
    picture.focus({ preventScroll: true });
    pointer = at(event);
    if (pasting()) return paste(pointer);
    if (tool() === "fill") return fill(pointer);
    canvas.setPointerCapture(event.pointerId);
    path = [pointer];
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.isPrimary) return;
    pointer = at(event);
    const all = event.getCoalescedEvents?.() ?? []; // what came since the last frame
    if (path) path.push(...(all.length ? all : [event]).map(at));
    else if (event.pointerType !== "touch") {
      if (asked && String(cellsHere()) !== asked) forgetPreview();
      ask();
    }
    draw();
  });
  const finish = () => {
    if (!path) return;
    const cells = covered();
    path = null;
    release(cells);
  };
  canvas.addEventListener("pointerup", (event) => event.isPrimary && finish());
  canvas.addEventListener("lostpointercapture", finish);
  canvas.addEventListener("pointercancel", () => ((path = null), draw()));
  canvas.addEventListener("pointerleave", () => ((pointer = null), forgetPreview(), draw()));

  let held = null; // the share of the original before B was pressed
  const showBefore = (on) => {
    if (on === (held !== null)) return;
    if (on) held = share;
    cut(on ? 100 : held);
    if (!on) held = null;
  };
  const commands = { z: "undo", Z: "redo", y: "redo", n: "next", p: "previous" };
  const modes = { d: "add", r: "remove" };

  picture.addEventListener("keydown", (event) => {
    if (!isPlain(event) && event.key !== "Escape") return; // Tab and all else is the page's
    const step = CURSOR[event.key];
    if (commands[event.key]) model.send({ kind: "key", command: commands[event.key] });
    else if (modes[event.key]) set("mode", modes[event.key]);
    else if (event.key.toLowerCase() === "b") showBefore(true);
    else if (event.key === "[" || event.key === "]") set("radius", Math.min(0.5, Math.max(0.01, model.get("radius") * (event.key === "]" ? 1.25 : 0.8))));
    else if (event.key === "Escape" && path) path = null;
    else if (step) moveCursor(step);
    else if ((event.key === " " || event.key === "Enter") && cursor) useCursor();
    else return;
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  const set = (name, value) => (model.set(name, value), model.save_changes());
  picture.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && showBefore(false));
  picture.addEventListener("blur", () => (showBefore(false), draw()));

  const middle = ([i, j]) => [((j + 0.5) / grid()[1]) * size()[0], ((i + 0.5) / grid()[0]) * size()[1]];
  function moveCursor([down, right]) {
    const [rows, columns] = grid();
    const [i, j] = cursor ?? [Math.floor(rows / 2) - down, Math.floor(columns / 2) - right];
    cursor = [Math.min(rows - 1, Math.max(0, i + down)), Math.min(columns - 1, Math.max(0, j + right))];
    cursorLabel.textContent = `cell row ${cursor[0] + 1} of ${rows}, column ${cursor[1] + 1} of ${columns}`;
  }
  function useCursor() {
    if (pasting()) paste(middle(cursor));
    else if (tool() === "fill") fill(middle(cursor));
    else release(touched([middle(cursor)], radius(), grid(), size()));
  }

  let url = null;
  const showing = {
    before: () => {
      if (url) URL.revokeObjectURL(url);
      url = pictureURL(model.get("before"), "image/png");
      before.src = url;
    },
    size: () => {
      const [width, height] = size();
      el.style.aspectRatio = `${width} / ${height}`;
      draw();
    },
    label: () => picture.setAttribute("aria-label", model.get("label")),
    note: () => {
      note.textContent = model.get("note");
      note.hidden = !model.get("note");
    },
    shown: () => {
      pending = new Set();
      forgetPreview();
      el.classList.remove("ganlens-busy");
      draw();
    },
  };
  for (const name of ["highlight", "clip", "map"]) showing[name] = draw;
  for (const name of ["radius", "mode", "grid", "tool"]) showing[name] = () => (forgetPreview(), draw());
  cut(0);
  showing.pixelated = () => [before, preview].forEach((img) => img.classList.toggle("ganlens-pixelated", model.get("pixelated")));
  for (const [name, show] of Object.entries(showing)) {
    model.on(`change:${name}`, show);
    show();
  }

  const receive = (message, buffers) => {
    if (message.kind === "preview") return showPreview(message.cells, buffers[0]);
    if (message.kind !== "download") return;
    const address = pictureURL(buffers[0], message.type);
    h("a", { href: address, download: message.name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  model.on("msg:custom", receive);

  return () => {
    stop();
    for (const [name, show] of Object.entries(showing)) model.off(`change:${name}`, show);
    model.off("msg:custom", receive);
    if (preview.src) URL.revokeObjectURL(preview.src);
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
