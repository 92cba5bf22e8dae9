const CURSOR = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const COLORS = { remove: "255, 140, 0", add: "0, 200, 220", query: "250, 250, 250", copy: "190, 120, 255", paste: "190, 120, 255" };

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

function render({ model, el }) {
  const stop = root(model, el, "ganlens-brush");
  const canvas = h("canvas", {});
  const before = h("img", { alt: "the image before the edits", class: "ganlens-before" });
  const compare = h("button", { class: "ganlens-compare", title: "Hold to see the image without edits (key B)", tabindex: "-1" }, "before");
  const cursorLabel = h("span", { class: "ganlens-quiet", "aria-live": "polite" });
  el.append(before, canvas, compare, cursorLabel);
  el.setAttribute("tabindex", "0");
  el.setAttribute("role", "application");

  let path = null; // of the stroke being painted
  let pending = new Set(); // cells of strokes whose image is not there yet
  let pointer = null;
  let cursor = null; // the cell that the arrow keys move

  const size = () => model.get("size");
  const grid = () => model.get("grid");
  const radius = () => model.get("radius") * Math.max(...size());
  const color = () => COLORS[model.get("mode")] ?? COLORS.add;
  const pasting = () => model.get("mode") === "paste" && model.get("clip").cells?.length;

  const draw = oncePerFrame(() => {
    const [width, height] = size(), ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio))
      Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    shade(context, model.get("map"));
    outline(context, pending, color(), 0.18);
    outline(context, new Set(model.get("highlight")), "255, 212, 59", 0.3);
    if (pasting() && pointer) outline(context, moved(model.get("clip"), pointer, grid(), size()).cells, color(), 0.3);
    if (path) {
      outline(context, touched(path, radius(), grid(), size()), color(), 0.22);
      trace(context);
    } else if (pointer && !pasting()) ring(context, pointer);
    if (cursor && document.activeElement === el) outline(context, new Set([cursor[0] * grid()[1] + cursor[1]]), "255, 255, 255", 0);
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

  /** Lay a map of values in [0, 1] over the picture, dark where nothing would happen, and frame its best cells. */
  function shade(context, map) {
    if (!map.length) return;
    const [rows, columns] = grid(), [width, height] = size();
    map.forEach((value, cell) => {
      context.fillStyle = `rgba(0, 0, 0, ${0.65 * (1 - value)})`;
      const x = ((cell % columns) / columns) * width, y = (Math.floor(cell / columns) / rows) * height;
      context.fillRect(x, y, width / columns, height / rows);
    });
    outline(context, new Set(map.flatMap((value, cell) => (value >= 0.5 ? [cell] : []))), "0, 200, 220", 0);
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
    model.send({ kind: "stroke", mode: model.get("mode"), cells: [...cells] });
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

  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault(); // no text is selected, no picture is dragged
    el.focus({ preventScroll: true });
    pointer = at(event);
    if (pasting()) return paste(pointer);
    canvas.setPointerCapture(event.pointerId);
    path = [pointer];
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.isPrimary) return;
    pointer = at(event);
    const all = event.getCoalescedEvents?.() ?? []; // what came since the last frame
    if (path) path.push(...(all.length ? all : [event]).map(at));
    draw();
  });
  const finish = () => {
    if (!path) return;
    const cells = touched(path, radius(), grid(), size());
    path = null;
    release(cells);
  };
  canvas.addEventListener("pointerup", (event) => event.isPrimary && finish());
  canvas.addEventListener("lostpointercapture", finish);
  canvas.addEventListener("pointercancel", () => ((path = null), draw()));
  canvas.addEventListener("pointerleave", () => ((pointer = null), draw()));

  const showBefore = (on) => before.classList.toggle("ganlens-shown", on);
  compare.addEventListener("pointerdown", (event) => (event.preventDefault(), showBefore(true)));
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) compare.addEventListener(end, () => showBefore(false));

  function keyToCommand(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) return { z: event.shiftKey ? "redo" : "undo", y: "redo" }[key];
    if (event.altKey) return undefined;
    return { z: "undo", y: "redo", n: "next", p: "previous" }[key];
  }

  el.addEventListener("keydown", (event) => {
    const command = keyToCommand(event);
    const step = CURSOR[event.key];
    if (command) model.send({ kind: "key", command });
    else if (event.key.toLowerCase() === "b") showBefore(true);
    else if (event.key === "[" || event.key === "]") {
      model.set("radius", Math.min(0.5, Math.max(0.01, model.get("radius") * (event.key === "]" ? 1.25 : 0.8))));
      model.save_changes();
    } else if (event.key === "Escape" && path) path = null;
    else if (step) moveCursor(step);
    else if ((event.key === " " || event.key === "Enter") && cursor) useCursor();
    else return; // Tab and all else stays the page's
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  el.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && showBefore(false));
  el.addEventListener("blur", () => (showBefore(false), draw()));

  const middle = ([i, j]) => [((j + 0.5) / grid()[1]) * size()[0], ((i + 0.5) / grid()[0]) * size()[1]];
  function moveCursor([down, right]) {
    const [rows, columns] = grid();
    const [i, j] = cursor ?? [Math.floor(rows / 2) - down, Math.floor(columns / 2) - right];
    cursor = [Math.min(rows - 1, Math.max(0, i + down)), Math.min(columns - 1, Math.max(0, j + right))];
    cursorLabel.textContent = `cell row ${cursor[0] + 1} of ${rows}, column ${cursor[1] + 1} of ${columns}`;
  }
  function useCursor() {
    if (pasting()) paste(middle(cursor));
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
      Object.assign(el.style, { width: `${width}px`, height: `${height}px` });
      draw();
    },
    label: () => el.setAttribute("aria-label", model.get("label")),
    shown: () => {
      pending = new Set();
      el.classList.remove("ganlens-busy");
      draw();
    },
  };
  for (const name of ["highlight", "clip", "map", "radius", "mode", "grid"]) showing[name] = draw;
  showing.pixelated = () => before.classList.toggle("ganlens-pixelated", model.get("pixelated"));
  for (const [name, show] of Object.entries(showing)) {
    model.on(`change:${name}`, show);
    show();
  }

  const download = (message, buffers) => {
    if (message.kind !== "download") return;
    const address = pictureURL(buffers[0], message.type);
    h("a", { href: address, download: message.name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  model.on("msg:custom", download);

  // The keys of the whole panel stay inside, not only those over the picture; it exists once this view is on the page.
  let unmark = () => {};
  const attached = new ResizeObserver(() => {
    const panel = el.closest(".ganlens-panel");
    if (!panel) return;
    unmark = keepKeys(panel);
    attached.disconnect();
  });
  attached.observe(el);

  return () => {
    stop();
    for (const [name, show] of Object.entries(showing)) model.off(`change:${name}`, show);
    model.off("msg:custom", download);
    attached.disconnect();
    unmark();
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
