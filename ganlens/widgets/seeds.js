function render({ model, el }) {
  const stop = root(model, el, "ganlens-seeds");
  const strip = h("div", { class: "ganlens-canvas-strip" });
  const number = h("input", { type: "number", min: 0, max: 2 ** 32 - 1, step: 1, "aria-label": "Seed", change: () => takeSeed(), keydown: (event) => event.key === "Enter" && takeSeed() });
  const takeSeed = () => Number(number.value) !== model.get("seed") && model.send({ kind: "seed", seed: Number(number.value) });
  const every = h("button", { type: "button", class: "ganlens-button", title: "show the edit in these eight images, too", click: () => (model.set("edited", !model.get("edited")), model.save_changes()) }, "Same edit on all eight");
  el.append(strip, h("div", { class: "ganlens-head" }, h("label", { class: "ganlens-faint" }, "Seed ", number), every));
  let addresses = [];

  function show() {
    addresses.forEach((address) => URL.revokeObjectURL(address));
    addresses = model.get("pictures").map((bytes) => pictureURL(bytes));
    const focused = strip.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const turn = (by, name, sign) => h("button", { type: "button", click: () => model.send({ kind: "page", by }), title: name, "aria-label": name, class: "ganlens-button ganlens-turn" }, sign);
    const thumbnails = model.get("seeds").map((seed, i) =>
      h(
        "button",
        { type: "button", click: () => model.send({ kind: "seed", seed }), title: `seed ${seed}`, "aria-label": `seed ${seed}`, "data-seed": seed, class: "ganlens-seed" },
        addresses[i] ? h("img", { src: addresses[i], alt: "", class: model.get("pixelated") ? "ganlens-pixelated" : "" }) : "…",
        h("span", { "aria-hidden": "true" }, String(seed)),
      ),
    );
    strip.replaceChildren(turn(-1, "earlier seeds", "‹"), h("div", { role: "group", "aria-label": "seeds to choose from" }, ...thumbnails), turn(1, "later seeds", "›"));
    if (focused) strip.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    mark();
  }

  function mark() {
    for (const button of strip.querySelectorAll("[data-seed]"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.seed) === model.get("seed")));
    number.value = model.get("seed");
    every.setAttribute("aria-pressed", String(model.get("edited")));
    every.disabled = !model.get("painted") && !model.get("edited");
  }

  const seen = { pictures: show, pixelated: show, seed: mark, edited: mark, painted: mark, refused: mark };
  for (const [name, act] of Object.entries(seen)) model.on(`change:${name}`, act);
  show();
  return () => {
    stop();
    for (const [name, act] of Object.entries(seen)) model.off(`change:${name}`, act);
    addresses.forEach((address) => URL.revokeObjectURL(address));
  };
}

export default { render };
