// What all views share. The files of a widget are joined into one module, so names are in one scope.

/** An element with attributes (functions are listeners, undefined is left out) and children. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A line drawing of 16 x 16. */
function drawing(path) {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  for (const [name, value] of [["viewBox", "0 0 16 16"], ["aria-hidden", "true"], ["class", "ganlens-canvas-icon"]]) picture.setAttribute(name, value);
  picture.append(line);
  return picture;
}

/** Whether a key is typed or moves something; all others, and those with Ctrl, Cmd, Alt or Shift+Enter, are the page's. */
function isPlain(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter")) return false;
  return event.key.length === 1 || /^(Arrow|Page|Home|End|Enter|Delete|Backspace)/.test(event.key);
}

/** Keep plain keys that are pressed inside an element from being taken for commands: in JupyterLab dd deletes a cell. */
function keepKeys(element) {
  // JupyterLab looks for this mark at the focused element alone, when a key reaches the document: the window is asked before.
  const mark = (event) => element.contains(event.target) && event.target.toggleAttribute("data-lm-suppress-shortcuts", isPlain(event));
  window.addEventListener("keydown", mark, true);
  return () => window.removeEventListener("keydown", mark, true);
}

/** Make an element the root of a widget: its keys stay inside, its last error is shown at the top. */
function root(model, el, ...classes) {
  el.classList.add("ganlens", ...classes);
  const release = keepKeys(el);
  const failure = h("div"), gone = h("p", { class: "ganlens-gone", role: "alert", hidden: true });
  const hide = h("style");
  const show = () => {
    failure.innerHTML = model.get("failure");
    hide.textContent = model.get("stands_for").map(hiding).join("\n");
  };
  const live = () => {
    gone.textContent = "The kernel is gone: run the cell again.";
    gone.hidden = false;
  };
  // A kernel that is shut down tells nobody: where the page can be asked for its kernel, it is, now and then.
  const asks = setInterval(() => kernelIsGone(model) && live(), 2000);
  model.on("change:failure change:stands_for", show);
  model.on("comm_live_update", live);
  show();
  el.append(hide, gone, failure);
  return () => {
    release();
    clearInterval(asks);
    model.off("change:failure change:stands_for", show);
    model.off("comm_live_update", live);
  };
}

/** Whether JupyterLab says that the notebook has no kernel; elsewhere nobody knows. */
function kernelIsGone(model) {
  const manager = model.widget_manager;
  if (!manager || !("kernel" in manager)) return false;
  return !manager.kernel || manager.kernel.isDisposed || manager.kernel.status === "dead";
}

/** A rule that hides the picture that was saved in the notebook, by a mark in its address. */
function hiding(mark) {
  const picture = `img[src*="${mark}"]`;
  return `.jp-OutputArea-child:has(${picture}), .jp-OutputArea-child:has(${picture}) + *:has(.ganlens-saved), ${picture} { display: none !important; }`;
}

/** Call `act` with the last arguments, at most once per frame. */
function oncePerFrame(act) {
  let waiting = null;
  return (...values) => {
    if (waiting === null)
      requestAnimationFrame(() => {
        const last = waiting;
        waiting = null;
        act(...last);
      });
    waiting = values;
  };
}

/** Call `act` when there was no call for some milliseconds. */
function afterPause(milliseconds, act) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), milliseconds);
  };
}

/** The value of a CSS variable at an element, for drawing on a canvas in the notebook's colours. */
function themed(element, name, otherwise) {
  return getComputedStyle(element).getPropertyValue(name).trim() || otherwise;
}

/** Call `act` when the notebook's theme changes; returns how to stop. */
function onThemeChange(act) {
  const watcher = new MutationObserver(act);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  return () => watcher.disconnect();
}

/** Bytes of a message or trait as a typed array of their own, whatever their offset. */
function typed(view, Type) {
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  return new Type(bytes.slice().buffer);
}

/** An address for the bytes of a picture; to be given back with URL.revokeObjectURL. */
function pictureURL(bytes, kind = "image/jpeg") {
  return URL.createObjectURL(new Blob([bytes], { type: kind }));
}
