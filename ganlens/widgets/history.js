function render({ model, el }) {
  const stop = root(model, el, "ganlens-history");
  const list = h("ol", { "aria-label": "strokes, the oldest first" });
  el.append(list);

  function show() {
    const rows = model.get("rows");
    list.replaceChildren(...rows.map(row), ...(rows.length ? [] : [h("li", { class: "ganlens-faint" }, "nothing painted yet")]));
  }

  function row({ label, on, cells }, index) {
    const hover = (value) => () => (model.set("hovered", value), model.save_changes());
    const check = h("input", { type: "checkbox", "aria-label": `${label}: switched on`, title: "switch this stroke off or on" });
    check.checked = on;
    check.addEventListener("change", () => model.send({ kind: "switch", index }));
    const remove = () => model.send({ kind: "delete", index });
    return h(
      "li",
      { mouseenter: hover(index), mouseleave: hover(null), focusin: hover(index), focusout: hover(null), class: on ? "" : "ganlens-faint" },
      check,
      h("span", {}, label, h("small", {}, ` ${cells} ${cells === 1 ? "cell" : "cells"}`)),
      h("button", { click: remove, title: "delete this stroke", "aria-label": `delete ${label}` }, "×"),
    );
  }

  model.on("change:rows", show);
  show();
  return () => (stop(), model.off("change:rows", show));
}

export default { render };
