function render({ model, el }) {
  const stop = root(model, el, "ganlens-offer");
  const words = h("span", {}), use = h("button", { type: "button", class: "ganlens-button", click: () => model.send({ kind: "use" }) });
  el.append(h("div", { role: "status" }, words, use));
  const show = () => {
    [words.textContent, use.textContent] = model.get("offer");
    use.hidden = !use.textContent;
    el.hidden = !words.textContent;
  };
  model.on("change:offer", show);
  show();
  return () => (stop(), model.off("change:offer", show));
}

export default { render };
