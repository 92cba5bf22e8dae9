function render({ model, el }) {
  const stop = root(model, el, "ganlens-tabs");
  const names = model.get("names");
  const choose = (i) => (model.set("chosen", (i + names.length) % names.length), model.save_changes());
  const tabs = names.map((name, i) => h("button", { type: "button", role: "tab", click: () => choose(i) }, name));
  const list = h("div", { role: "tablist", "aria-label": "what is shown of the units" }, ...tabs);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !isPlain(event)) return;
    event.preventDefault();
    choose(model.get("chosen") + step);
    tabs[(model.get("chosen") + names.length) % names.length].focus();
  });
  el.append(list);
  const show = () =>
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === model.get("chosen")));
      tab.tabIndex = i === model.get("chosen") ? 0 : -1;
    });
  model.on("change:chosen", show);
  show();
  return () => (stop(), model.off("change:chosen", show));
}

export default { render };
