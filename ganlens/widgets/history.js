const LEVELS = [["low", 0.35], ["medium", 0.65], ["high", 1]];

function render({ model, el }) {
  const stop = root(model, el, "ganlens-history");
  const main = h("p", { class: "ganlens-main" }), rest = h("p", { class: "ganlens-faint" });
  const result = h("div", { class: "ganlens-result", role: "status" }, main, rest);
  const send = (kind, more = {}) => () => model.send({ kind, ...more });
  const command = (name, text, tip) => h("button", { type: "button", class: "ganlens-button", click: send("key", { command: name }), title: tip }, text);
  const undo = command("undo", "Undo", "take the last change back (Z)"), redo = command("redo", "Redo", "do it again (Shift+Z)");
  const reset = command("reset", "Reset", "delete all strokes; Undo brings them back");
  const list = h("ol", { "aria-label": "strokes, the newest first" });
  el.append(result, h("div", { class: "ganlens-head" }, h("h3", {}, "Strokes"), h("span", {}, undo, redo, reset)), list);

  function show() {
    const rows = model.get("rows"), [head, more, warns] = model.get("result");
    main.textContent = head;
    rest.textContent = more;
    result.classList.toggle("ganlens-warn", Boolean(warns));
    undo.disabled = !model.get("undoable");
    redo.disabled = !model.get("redoable");
    reset.disabled = !rows.length;
    const nothing = h("li", { class: "ganlens-faint" }, "nothing painted yet");
    list.replaceChildren(...(rows.length ? rows.map(row).reverse() : [nothing]));
  }

  function row({ label, on, cells, detail, change, strength, color }, index) {
    const hover = (value) => () => (model.set("hovered", value), model.save_changes());
    const flip = h("button", {
      type: "button", role: "switch", class: "ganlens-switch", "aria-checked": String(on), "aria-label": `${label}: switched on`,
      title: "switch this stroke off or on", click: send("switch", { index }),
    });
    const much = h("select", { "aria-label": `strength of ${label}`, title: "strength of this stroke", change: () => model.send({ kind: "strength", index, value: Number(much.value) }) });
    const known = LEVELS.some(([, value]) => Math.abs(value - strength) < 0.001) ? LEVELS : [...LEVELS, [strength.toFixed(2), strength]];
    much.append(...known.map(([name, value]) => h("option", { value, selected: Math.abs(value - strength) < 0.001 }, name)));
    const dot = h("span", { class: "ganlens-dot" });
    dot.style.setProperty("--ganlens-concept", color || "transparent");
    const words = h("span", { class: "ganlens-words" }, label, h("small", {}, ` ${cells} ${cells === 1 ? "cell" : "cells"} · ${detail}`));
    const remove = h("button", { type: "button", class: "ganlens-button", click: send("delete", { index }), title: "delete this stroke", "aria-label": `delete ${label}` }, "×");
    return h(
      "li",
      { mouseenter: hover(index), mouseleave: hover(null), focusin: hover(index), focusout: hover(null), class: on ? "" : "ganlens-off" },
      flip, dot, words, h("span", { class: "ganlens-number" }, change), much, remove,
    );
  }

  model.on("change:rows change:result change:undoable change:redoable", show);
  show();
  return () => (stop(), model.off("change:rows change:result change:undoable change:redoable", show));
}

export default { render };
