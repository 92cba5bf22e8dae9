function render({ model, el }) {
  const stop = root(model, el, "ganlens-seeds");
  const strip = h("div", { role: "group", "aria-label": "seeds to choose from" });
  el.append(strip);
  let addresses = [];

  function show() {
    addresses.forEach((address) => URL.revokeObjectURL(address));
    addresses = model.get("pictures").map((bytes) => pictureURL(bytes));
    const turn = (by, name, sign) =>
      h("button", { click: () => model.send({ kind: "page", by }), title: name, "aria-label": name, class: "ganlens-turn" }, sign);
    const thumbnails = model.get("seeds").map((seed, i) =>
      h(
        "button",
        { click: () => model.send({ kind: "seed", seed }), title: `seed ${seed}`, "aria-label": `seed ${seed}`, "data-seed": seed },
        addresses[i] ? h("img", { src: addresses[i], alt: "", class: model.get("pixelated") ? "ganlens-pixelated" : "" }) : "…",
        h("small", {}, String(seed)),
      ),
    );
    strip.replaceChildren(turn(-1, "earlier seeds", "‹"), ...thumbnails, turn(1, "later seeds", "›"));
    mark();
  }

  function mark() {
    for (const button of strip.querySelectorAll("[data-seed]"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.seed) === model.get("seed")));
  }

  const seen = { pictures: show, seed: mark };
  for (const [name, act] of Object.entries(seen)) model.on(`change:${name}`, act);
  show();
  return () => {
    stop();
    for (const [name, act] of Object.entries(seen)) model.off(`change:${name}`, act);
    addresses.forEach((address) => URL.revokeObjectURL(address));
  };
}

export default { render };
