const MODES = { add: "Draw", remove: "Remove" };
const SIGNS = { add: "M8 3v10M3 8h10", remove: "M3 8h10" };
const STRENGTHS = { Low: 0.35, Medium: 0.65, High: 1 };
const HOW = ["hardly", "a little", "fairly well", "well"];

/** A group of radio buttons: one stop for Tab, arrows move and choose. `choose(value)` is called for the chosen one. */
function radios(label, entries, choose, refuse = () => {}) {
  const buttons = entries.map(({ value, content, ...attributes }) => h("button", { type: "button", role: "radio", "data-value": value, ...attributes }, ...content));
  const usable = (button) => button.getAttribute("aria-disabled") !== "true";
  const group = h("div", { role: "radiogroup", "aria-label": label }, ...buttons);
  const pick = (button) => {
    button.focus();
    buttons.forEach((other) => (other.tabIndex = other === button ? 0 : -1));
    (usable(button) ? choose : refuse)(button.dataset.value);
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => pick(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      pick(buttons[(i + step + buttons.length) % buttons.length]);
    });
  });
  group.mark = (value) => {
    buttons.forEach((button) => button.setAttribute("aria-checked", String(button.dataset.value === String(value))));
    const stop = buttons.find((button) => button.dataset.value === String(value)) ?? buttons[0];
    buttons.forEach((button) => (button.tabIndex = button === stop ? 0 : -1));
  };
  return group;
}

function render({ model, el }) {
  const stop = root(model, el, "ganlens-palette");
  const set = (name, value) => (model.set(name, value), model.save_changes());
  const mode = radios("What the brush does", Object.keys(MODES).map((value) => ({ value, content: [drawing(SIGNS[value]), MODES[value]] })), (value) => set("mode", value));
  mode.classList.add("ganlens-segments", "ganlens-modes");
  const strength = radios("Strength", Object.entries(STRENGTHS).map(([name, value]) => ({ value, content: [name] })), (value) => set("strength", Number(value)));
  strength.classList.add("ganlens-segments");
  const head = h("h3", {}), key = h("div", { class: "ganlens-canvas-key", "aria-hidden": "true" });
  for (const [count, name] of [[3, "well"], [2, "fairly"], [1, "a little"]]) key.append(bars(count), name);
  const place = h("div", {}), why = h("p", { class: "ganlens-why", role: "status" });
  const measuring = h("p", { class: "ganlens-why ganlens-measuring" });
  el.append(
    h("div", { class: "ganlens-top" }, mode, h("div", { class: "ganlens-strength" }, h("span", { class: "ganlens-faint" }, "Strength"), strength)),
    h("div", { class: "ganlens-head" }, head, key), place, why, measuring,
  );
  let addresses = {};

  function bars(count) {
    return h("span", { class: "ganlens-how" }, ...[0, 1, 2].map((i) => h("i", { class: i < count ? "on" : "" })));
  }

  function tile({ name, color, how, reason, detail }) {
    const crop = h("span", { class: "ganlens-crop" });
    if (addresses[name]) crop.style.backgroundImage = `url(${addresses[name]})`;
    const says = how === null ? "not measured yet" : reason || `can be ${model.get("mode") === "remove" ? "removed" : "drawn"} ${HOW[how]}`;
    const dot = h("span", { class: "ganlens-dot" });
    dot.style.setProperty("--ganlens-concept", color);
    return {
      value: name, class: "ganlens-tile", "aria-label": `${name}: ${says}`, title: detail || says, "aria-disabled": how === 0 ? "true" : "false",
      content: [crop, h("span", { class: "ganlens-canvas-name" }, dot, name), how === null ? h("span", { class: "ganlens-how" }) : bars(how)],
    };
  }

  /** Say why a grey tile cannot be chosen. */
  function refused(name) {
    const { reason, detail } = model.get("tiles").find((data) => data.name === name);
    why.textContent = `${name} ${reason}${detail ? ` (${detail})` : ""}.`;
    why.hidden = false;
  }

  function renew(button, { content, value, ...attributes }) {
    for (const [name, text] of Object.entries(attributes)) button.setAttribute(name, text);
    button.replaceChildren(...content);
  }

  let tiles = null, arranged = "";
  function show() {
    const { mode: now, strength: much, concept } = Object.fromEntries(["mode", "strength", "concept"].map((name) => [name, model.get(name)]));
    mode.mark(now);
    const nearest = Object.values(STRENGTHS).reduce((a, b) => (Math.abs(b - much) < Math.abs(a - much) ? b : a));
    strength.mark(nearest);
    head.textContent = now === "remove" ? "What to remove" : "What to draw";
    const all = model.get("tiles"), order = JSON.stringify([head.textContent, all.map(({ name }) => name)]);
    if (order !== arranged) {
      const focused = place.contains(document.activeElement) && document.activeElement.dataset.value;
      tiles = radios(head.textContent, all.map(tile), (name) => set("concept", name), refused);
      tiles.classList.add("ganlens-tiles");
      place.replaceChildren(tiles);
      if (focused) tiles.querySelector(`[data-value="${CSS.escape(focused)}"]`)?.focus();
      arranged = order;
    } else all.forEach((data, i) => renew(tiles.children[i], tile(data))); // a click may be under way: the tile stays
    tiles.mark(concept);
    why.textContent = model.get("why");
    why.hidden = !model.get("why");
    measuring.textContent = model.get("measuring");
  }

  function crops() {
    Object.values(addresses).forEach((address) => URL.revokeObjectURL(address));
    addresses = Object.fromEntries(Object.entries(model.get("crops")).map(([name, bytes]) => [name, pictureURL(bytes)]));
    show();
  }

  const draw = oncePerFrame(show);
  model.on("change:mode change:strength change:concept change:tiles change:why change:measuring", draw);
  model.on("change:crops", crops);
  crops();
  return () => {
    stop();
    model.off("change:mode change:strength change:concept change:tiles change:why change:measuring", draw);
    model.off("change:crops", crops);
    Object.values(addresses).forEach((address) => URL.revokeObjectURL(address));
  };
}

export default { render };
