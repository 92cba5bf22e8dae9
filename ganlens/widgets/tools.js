const TOOLS = { brush: "Brush", box: "Box", fill: "Fill", erase: "Eraser" };
const TIPS = {
  brush: "paint cells",
  box: "drag a rectangle of cells",
  fill: "click on a thing: all cells of it, as the segmenter sees it",
  erase: "take cells out of what was painted",
};
const ICONS = {
  brush: "M13.5 2.5 7 9M6.8 8.8c-2-.6-3.4.7-3.6 2.4-.1 1-.6 1.6-1.2 2 2 .9 5.6.5 6.3-2.3z",
  box: "M2.5 3.5h11v9h-11z",
  fill: "M3 9l5-5 5 5-5 4.500zM8 4 6.500 2.500M14 12.500c0 .8-.4 1.200-.8 1.200s-.8-.4-.8-1.200l.8-1.500z",
  erase: "M6 13.500 2.500 10 9 3.500 13.500 8 8 13.500zM5.500 7l4.500 4.500",
};

function render({ model, el }) {
  const stop = root(model, el, "ganlens-canvas-tools");
  const bar = h("div", { role: "toolbar", "aria-label": "Tools" });
  const buttons = Object.entries(TOOLS).map(([tool, name]) =>
    h("button", { type: "button", class: "ganlens-button", title: TIPS[tool], "data-tool": tool, click: () => set("tool", tool) }, drawing(ICONS[tool]), name),
  );
  bar.append(...buttons);
  const size = h("input", { type: "range", min: 0.01, max: 0.5, step: 0.01, "aria-label": "Size of the brush", input: () => set("radius", Number(size.value)) });
  el.append(bar, h("label", { class: "ganlens-size" }, "Size", size));
  const set = (name, value) => (model.set(name, value), model.save_changes());
  function show() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.tool === model.get("tool")));
    buttons[2].hidden = !model.get("segments");
    size.value = model.get("radius");
    size.setAttribute("aria-valuetext", `${Math.round(200 * model.get("radius"))} % of the picture`);
  }
  model.on("change", show);
  show();
  return () => (stop(), model.off("change", show));
}

export default { render };
