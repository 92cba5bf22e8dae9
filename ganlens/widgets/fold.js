function render({ model, el }) {
  const stop = root(model, el, "ganlens-fold");
  const set = (name, value) => model.send({ kind: "set", name, value });
  const act = (command) => () => model.send({ kind: "act", command });
  const button = (text, tip, click) => h("button", { type: "button", class: "ganlens-button ganlens-soft", title: tip, click }, text);
  let fields = 0;
  const field = (label, control) => {
    control.id = `${model.get("name")}-${fields++}`;
    return [h("label", { for: control.id }, label), control];
  };
  const choice = (name, number = false) => h("select", { change: (event) => set(name, number && event.target.value !== "" ? Number(event.target.value) : event.target.value) });
  const text = (name, attributes = {}) => {
    const input = h("input", { type: "text", ...attributes });
    const take = () => input.value !== String(model.get("state")[name]) && set(name, input.type === "number" ? Number(input.value) : input.value);
    input.addEventListener("change", take);
    input.addEventListener("keydown", (event) => event.key === "Enter" && take()); // some pages take this key away
    return input;
  };
  const numeric = (name, attributes) => text(name, { type: "number", ...attributes });
  const range = (name) => h("input", { type: "range", min: 0, max: 1, step: 0.05, input: (event) => set(name, Number(event.target.value)) });

  const layer = choice("layer"), concept = choice("concept"), order = choice("order"), k = numeric("k", { min: 1, step: 1 });
  const units = text("units", { spellcheck: "false" }), level = text("level", { spellcheck: "false", title: "a quantile of each unit such as q0.995, mean, or a number" });
  const strength = range("strength"), smooth = choice("smooth"), truncation = range("truncation"), label = choice("label", true);
  const query = button("Which units?", "paint a region to see which units are most active there", act("query"));
  const copy = button("Copy", "remember what the units do where you paint", act("copy"));
  const paste = button("Paste", "put what was remembered somewhere else, in this image or another", act("paste"));
  const use = button("Paint with these", "make them the units that are forced", act("use"));
  const answer = h("div", { class: "ganlens-answer", role: "status" });
  const cells = h("span", { class: "ganlens-canvas-row" }, query, copy, paste);
  const optional = { truncation: field("Truncation", truncation), label: field("Class", label) };
  const switches = section("What the brush switches", h("div", { class: "ganlens-form" },
    ...field("Layer", layer), ...field("Units of", concept), ...field("Units by", order), ...field("How many", k), ...field("Units", units),
    ...field("Level", level), ...field("Strength", strength), ...optional.truncation, ...optional.label,
    h("span", {}, "Cells"), cells, ...field("Picture", smooth)), answer);

  const where = h("button", { type: "button", class: "ganlens-button ganlens-soft", title: "light up the cells in which adding the units would draw the concept", click: () => set("where", !model.get("state").where) }, "Where can it go?");
  const legend = h("div", { class: "ganlens-legend" }), about = h("p", { class: "ganlens-faint" });
  const file = h("input", { type: "file", accept: ".json", hidden: true, "aria-label": "a recipe to open", change: async () => {
    const [chosen] = file.files;
    if (chosen) model.send({ kind: "open" }, undefined, [await chosen.arrayBuffer()]);
    file.value = "";
  } });
  const code = h("code", { class: "ganlens-code", tabindex: 0, "aria-label": "this picture in Python" });
  const copied = h("span", { class: "ganlens-faint", role: "status" });
  const share = section("Keep and share", h("div", { class: "ganlens-canvas-row" },
    button("Copy picture", "to the clipboard", act("copy picture")), button("Save PNG", "download the picture", act("png")),
    button("Save recipe", "download the edits, to replay them in Python", act("recipe")), button("Open recipe", "show a saved recipe", () => file.click()), file,
    button("Copy as Python", "to the clipboard", () => clip(code.textContent))), code, copied);
  const map = section("Where can it go?", h("div", { class: "ganlens-canvas-row" }, where), legend, about);
  const readout = h("div", { class: "ganlens-readout" });
  const changes = section("What changed", readout);
  const progress = h("progress", { max: 100, "aria-label": "measuring" }), said = h("span", {});
  const long = h("div", { class: "ganlens-canvas-row", role: "status" }, said, progress, button("Cancel", "stop this", act("cancel")));
  const summary = h("summary", {}, h("b", {}, "More"), h("span", { class: "ganlens-faint" }));
  const details = h("details", {}, summary, h("div", { class: "ganlens-columns" }, switches, h("div", {}, map, share), changes));
  el.append(long, details);

  function section(title, ...children) {
    return h("section", { "aria-label": title }, h("h3", {}, title), ...children);
  }

  async function clip(words) {
    await navigator.clipboard.writeText(words);
    copied.textContent = "copied";
    setTimeout(() => (copied.textContent = ""), 3000);
  }

  function fill(select, options, value) {
    const wanted = JSON.stringify(options);
    if (select.dataset.options !== wanted) {
      select.replaceChildren(...options.map(([name, key]) => h("option", { value: key }, name)));
      select.dataset.options = wanted;
    }
    select.value = value;
  }

  function show() {
    const state = model.get("state");
    if (!("layer" in state)) return;
    fill(layer, state.layers, state.layer);
    fill(concept, state.concepts, state.concept);
    fill(order, state.orders, state.order);
    fill(smooth, [["smooth", "smooth"], ["pixels", "pixels"]], state.smooth);
    k.value = state.k;
    if (document.activeElement !== units) units.value = state.units;
    if (document.activeElement !== level) level.value = state.level;
    strength.value = state.strength;
    strength.setAttribute("aria-valuetext", state.strength.toFixed(2));
    for (const [name, parts] of Object.entries(optional)) parts.forEach((part) => (part.hidden = !(name in state.settings)));
    if ("truncation" in state.settings) truncation.value = state.settings.truncation;
    if ("label" in state.settings) fill(label, state.classes, state.settings.label);
    for (const [element, name] of [[query, "query"], [copy, "copy"], [paste, "paste"]]) element.setAttribute("aria-pressed", String(state.mode === name));
    paste.disabled = !state.copied;
    where.setAttribute("aria-pressed", String(state.where));
    legend.replaceChildren(...state.legend.map(([name, color]) => h("span", {}, Object.assign(h("i", {}), { style: `background:${color}` }), name)));
    about.textContent = state.about;
    readout.innerHTML = state.readout;
    answer.innerHTML = state.answer;
    if (state.found) answer.append(use);
    code.textContent = state.python;
    summary.lastChild.textContent = ` ${state.summary}`;
    long.hidden = !state.long;
    if (state.long) {
      said.textContent = state.long[0];
      progress.value = state.long[1];
    }
  }

  const message = async (content, buffers) => {
    if (content.kind === "picture") {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([buffers[0]], { type: "image/png" }) })]);
      copied.textContent = "copied";
    }
  };
  const draw = oncePerFrame(show);
  model.on("change:state", draw);
  model.on("msg:custom", message);
  show();
  return () => (stop(), model.off("change:state", draw), model.off("msg:custom", message));
}

export default { render };
