"""The intervention canvas as people use it: real JupyterLab, real kernel, real Chromium."""

import base64
import hashlib
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from lab import ask_kernel, page, run_cells, show_theme, write_notebook

import ganlens as gl
from ganlens.images import dilate

SETUP = """
import hashlib, torch
torch.set_num_threads(1)
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
D = gl.dissect(G, S, "layer4", n=64, progress=False)
"""
CANVAS = "canvas = gl.InterventionCanvas(D, seed=SEED, concept='tree'); canvas"
BRUSH = ".ganlens-brush canvas"
# Pixels of the n-th ipycanvas canvas, row by row; empty while it is blank.
PIXELS = """n => {
    const panel = document.querySelectorAll('.ganlens-panel')[n];
    const canvas = [...(panel?.querySelectorAll('canvas') ?? [])].find(c => !c.closest('.ganlens-brush'));
    const data = canvas ? [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data] : [];
    return data.some(value => value) ? data : [];
}"""

pytestmark = pytest.mark.browser


def pixels(lab, n: int = 0) -> np.ndarray:
    """The picture (Y, X, 3) on the n-th canvas, once there is one."""
    lab.wait_for_function(f"n => ({PIXELS})(n).length > 0", arg=n)
    return np.array(lab.evaluate(PIXELS, n), np.uint8).reshape(64, 64, 4)[..., :3]


def wait_for_change(lab, before: np.ndarray, n: int = 0) -> np.ndarray:
    """The picture on the n-th canvas, once it is another one and stands."""
    for _ in range(100):
        lab.wait_for_timeout(100)
        now = pixels(lab, n)
        if not np.array_equal(now, before):
            lab.wait_for_timeout(200)
            return pixels(lab, n)
    return pytest.fail("the picture did not change within 10 s")


def paint(lab, cells, n: int = 0) -> None:
    """Drag the mouse over cells of the n-th canvas, as a person would."""
    brush = lab.locator(BRUSH).nth(n)
    brush.scroll_into_view_if_needed()
    box = brush.bounding_box()
    points = [
        (box["x"] + box["width"] * (c % 8 + 0.5) / 8, box["y"] + box["height"] * (c // 8 + 0.5) / 8) for c in cells
    ]
    lab.mouse.move(*points[0])
    lab.mouse.down()
    for point in points:
        lab.mouse.move(*point, steps=3)
    lab.mouse.up()


def cells_of(lab) -> int:
    return lab.evaluate("jupyterapp.shell.currentWidget.content.widgets.length")


def test_paint_a_tree_away(address, folder, pictures, tree_cells, G, S):
    write_notebook(folder / "paint.ipynb", SETUP, CANVAS.replace("SEED", "33"))
    with page(address, "paint.ipynb") as lab:
        run_cells(lab, 2)
        before = pixels(lab)
        drawn = gl.plots.sheets.as_pictures(G.generate([33]))[0]
        assert np.abs(before.astype(int) - drawn).max() <= 2
        paint(lab, tree_cells)
        after = wait_for_change(lab, before)
        lab.wait_for_timeout(500)
        lab.screenshot(path=pictures / "canvas-tree-removed.png")

        inside = np.zeros((8, 8), bool)
        edits = ask_kernel(lab, "[edit.to_json() for edit in canvas.edits]")
        inside |= np.asarray(gl.Edit.from_json(edits[0]).region) > 0
        assert set(tree_cells) <= set(np.flatnonzero(inside))
        far = ~dilate(dilate(inside)).repeat(8, 0).repeat(8, 1)
        inside = inside.repeat(8, 0).repeat(8, 1)
        change = np.abs(after.astype(int) - before).mean(2)
        assert change[inside].mean() > 8 * change[~inside].mean()
        assert change[inside].mean() > 20 * change[far].mean()
        trees = [S.labels(as_image(picture))[0, 0] == S.index("tree") + 1 for picture in (before, after)]
        assert trees[1].sum() < 0.3 * trees[0].sum()
        lab.wait_for_function("document.querySelector('.ganlens-result').innerText.startsWith('tree −')")
        lab.locator(".ganlens-fold summary").first.click()
        assert "in the strokes" in lab.locator(".ganlens-readout").last.inner_text()

        recipe = ask_kernel(lab, "canvas.recipe.to_json()")
        shown = ask_kernel(lab, "hashlib.sha256(canvas.image.tobytes()).hexdigest()")
        replayed = gl.replay(recipe, G)
        assert hashlib.sha256(replayed.tobytes()).hexdigest() == shown
        assert np.array_equal(replayed, after)

        lab.get_by_role("button", name="Undo", exact=True).click()
        assert np.array_equal(wait_for_change(lab, after), before)
        lab.get_by_role("button", name="Redo", exact=True).click()
        assert np.array_equal(wait_for_change(lab, before), after)
        switch = lab.locator(".ganlens-history [role=switch]")
        switch.click()
        assert np.array_equal(wait_for_change(lab, after), before)
        lab.locator(".ganlens-history [role=switch]").click()
        wait_for_change(lab, before)

        keys_stay_inside(lab)
        other_keys_pass(lab)
        wheel_and_tab_pass(lab)
        before_while_key_is_held(lab, pictures)
        reload_brings_all_back(lab, after, pictures)
        saved_notebook_has_a_picture(lab, folder, pictures)


def as_image(picture):
    """A picture (Y, X, 3), as a segmenter wants it."""
    import torch

    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def keys_stay_inside(lab):
    count = cells_of(lab)
    for place in (lab.get_by_role("button", name="Reset", exact=True), lab.locator(".ganlens-picture").first):
        place.focus()
        for key in "abddxm":
            lab.keyboard.press(key)
    lab.wait_for_timeout(300)
    assert cells_of(lab) == count
    kinds = "jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)"
    assert set(lab.evaluate(kinds)) == {"code"}


def other_keys_pass(lab):
    """Ctrl+S saves, Ctrl+Z is the page's, Shift+Enter runs the cell below, though a widget has the focus."""
    lab.evaluate(
        """() => {
            window.passed = [];
            jupyterapp.commands.commandExecuted.connect((_, { id }) => window.passed.push(id));
        }"""
    )
    strokes = ask_kernel(lab, "len(canvas.history.strokes)")
    for place in (lab.locator(".ganlens-picture").first, lab.get_by_role("button", name="Reset", exact=True)):
        place.focus()
        for key in ("Control+s", "Control+z", "Control+b"):
            lab.keyboard.press(key)
    lab.wait_for_timeout(300)
    passed = lab.evaluate("window.passed")
    assert passed.count("docmanager:save") == 2
    assert passed.count("application:toggle-left-area") == 2
    assert ask_kernel(lab, "len(canvas.history.strokes)") == strokes


def wheel_and_tab_pass(lab):
    box = lab.locator(BRUSH).bounding_box()
    lab.set_viewport_size({"width": 1280, "height": 500})
    lab.mouse.move(box["x"] + 50, min(box["y"] + 50, 300))
    top = "document.querySelector('.jp-WindowedPanel-outer').scrollTop"
    before = lab.evaluate(top)
    lab.mouse.wheel(0, 120 if before < 50 else -120)
    lab.wait_for_timeout(400)
    assert lab.evaluate(top) != before
    lab.set_viewport_size({"width": 1280, "height": 1000})
    lab.locator(".ganlens-picture").focus()
    lab.keyboard.press("Tab")
    assert not lab.evaluate("document.activeElement.matches('.ganlens-picture')")


def before_while_key_is_held(lab, pictures):
    lab.locator(".ganlens-picture").focus()
    shown = "document.querySelector('.ganlens-brush input').getAttribute('aria-valuetext')"
    assert lab.evaluate(shown) == "0 % original"
    lab.keyboard.down("b")
    assert lab.evaluate(shown) == "100 % original"
    lab.keyboard.up("b")
    assert lab.evaluate(shown) == "0 % original"
    slider = lab.locator(".ganlens-brush input")
    box, whole = slider.bounding_box(), lab.locator(".ganlens-picture").bounding_box()
    middle = box["y"] + box["height"] / 2
    lab.mouse.move(box["x"] + 19, middle)
    lab.mouse.down()
    lab.mouse.move(whole["x"] + whole["width"] / 2, middle, steps=8)
    lab.mouse.up()
    assert 35 <= int(lab.evaluate(shown).split()[0]) <= 65
    lab.screenshot(path=pictures / "canvas-before-after.png")
    slider.fill("0")


def reload_brings_all_back(lab, after, pictures):
    lab.evaluate("jupyterapp.commands.execute('docmanager:save')")
    lab.wait_for_timeout(1000)
    lab.reload()
    assert np.array_equal(pixels(lab), after)
    lab.locator(".ganlens-history [role=switch]").wait_for()
    assert "remove tree" in lab.locator(".ganlens-history").inner_text()
    assert lab.get_by_role("radio", name="tree").get_attribute("aria-checked") == "true"
    lab.screenshot(path=pictures / "canvas-after-reload.png")
    paint(lab, [0, 1, 2])  # it still works
    lab.wait_for_function("document.querySelectorAll('.ganlens-history [role=switch]').length === 2")
    lab.get_by_role("button", name="Undo", exact=True).click()
    lab.wait_for_function("document.querySelectorAll('.ganlens-history [role=switch]').length === 1")


def saved_notebook_has_a_picture(lab, folder, pictures):
    lab.evaluate("jupyterapp.commands.execute('docmanager:save')")
    lab.wait_for_timeout(1000)
    notebook = nbformat.read(folder / "paint.ipynb", as_version=4)
    picture = notebook.cells[1].outputs[0].data["image/jpeg"]
    assert base64.b64decode(picture)[:2] == b"\xff\xd8"
    convert = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", str(folder / "paint.ipynb")]
    subprocess.run(convert, check=True, capture_output=True)
    assert picture.replace("\n", "")[:200] in (folder / "paint.html").read_text().replace("\n", "")


def test_two_canvases_and_two_views(address, folder, pictures):
    first = CANVAS.replace("SEED", "3")
    second = first.replace("canvas", "other").replace("3", "5")
    write_notebook(folder / "two.ipynb", SETUP, first, second, "canvas")
    with page(address, "two.ipynb") as lab:
        run_cells(lab, 4)
        one, two, again = (pixels(lab, n) for n in range(3))
        assert np.array_equal(one, again)
        assert not np.array_equal(one, two)
        ask_kernel(lab, "setattr(canvas, 'mode', 'add')")
        paint(lab, [50, 51, 52])
        painted = wait_for_change(lab, one)
        assert np.array_equal(pixels(lab, 2), painted)
        assert np.array_equal(pixels(lab, 1), two)
        assert ask_kernel(lab, "[len(canvas.edits), len(other.edits)]") == [1, 0]
        paint(lab, [50, 51, 52], n=1)
        wait_for_change(lab, two, n=1)
        assert np.array_equal(pixels(lab, 0), painted)

        # An error is shown, and the page goes on.
        lab.locator(".ganlens-fold summary").first.click()
        units = lab.get_by_label("Units", exact=True).first
        units.fill("3, x")
        units.press("Enter")
        failure = lab.locator(".ganlens-failure").first
        failure.wait_for()
        assert "expected numbers and ranges" in failure.inner_text()
        lab.screenshot(path=pictures / "canvas-error.png")
        units.fill("3")
        units.press("Enter")
        lab.wait_for_function("document.querySelectorAll('.ganlens-failure').length === 0")
        paint(lab, [0, 1, 2])
        wait_for_change(lab, painted)


def test_pen_and_keyboard(address, folder, pictures):
    write_notebook(folder / "keys.ipynb", SETUP, CANVAS.replace("SEED", "3"))
    with page(address, "keys.ipynb") as lab:
        run_cells(lab, 2)
        before = pixels(lab)
        ask_kernel(lab, "setattr(canvas, 'mode', 'add')")
        lab.wait_for_timeout(300)
        lab.locator(".ganlens-picture").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowLeft", " "):
            lab.keyboard.press(key)
        after = wait_for_change(lab, before)
        assert "row 6 of 8, column 4 of 8" in lab.locator(".ganlens-quiet").first.inner_text()
        assert ask_kernel(lab, "canvas.history.strokes[0].cells") == [43]
        lab.keyboard.press("z")
        assert np.array_equal(wait_for_change(lab, after), before)
        lab.keyboard.press("n")
        wait_for_change(lab, before)
        assert ask_kernel(lab, "canvas.seed") == 4
        lab.evaluate(
            """selector => {
                const brush = document.querySelector(selector), box = brush.getBoundingClientRect();
                brush.setPointerCapture = () => {};
                const send = (type, x, y) => brush.dispatchEvent(new PointerEvent(type, {
                    bubbles: true, isPrimary: true, pointerType: 'pen', pointerId: 7, button: 0,
                    clientX: box.left + box.width * x, clientY: box.top + box.height * y,
                }));
                send('pointerdown', 0.05, 0.05); send('pointermove', 0.3, 0.05); send('pointerup', 0.3, 0.05);
            }""",
            BRUSH,
        )
        lab.wait_for_function("document.querySelectorAll('.ganlens-history [role=switch]').length === 1")
        assert ask_kernel(lab, "canvas.history.strokes[0].cells") == [0, 1, 2]
        radius = ask_kernel(lab, "canvas.radius")
        lab.locator(".ganlens-picture").focus()
        lab.keyboard.press("]")
        lab.wait_for_timeout(300)
        assert ask_kernel(lab, "canvas.radius") > radius
        lab.locator(".ganlens-picture").focus()
        lab.keyboard.press("Shift+Enter")  # runs the cell and goes to the next one, as everywhere in a notebook
        lab.wait_for_function("jupyterapp.shell.currentWidget.content.widgets.length === 3")
        show_theme(lab, "Dark")
        lab.screenshot(path=pictures / "canvas-dark.png")


def test_what_a_stroke_would_do_where_the_brush_rests(address, folder, pictures, tree_cells):
    write_notebook(folder / "rests.ipynb", SETUP, CANVAS.replace("SEED", "33"))
    with page(address, "rests.ipynb") as lab:
        run_cells(lab, 2)
        before = pixels(lab)
        ask_kernel(lab, "setattr(canvas, 'radius', 0.3)")
        lab.wait_for_timeout(1000)
        box = lab.locator(".ganlens-picture").bounding_box()
        cell = tree_cells[len(tree_cells) // 2]
        x, y = box["x"] + (cell % 8 + 0.5) * box["width"] / 8, box["y"] + (cell // 8 + 0.5) * box["height"] / 8
        lab.mouse.move(x - 2, y)
        lab.mouse.move(x, y)
        lab.locator(".ganlens-preview").wait_for()
        lab.screenshot(path=pictures / "canvas-preview.png")
        assert lab.evaluate("document.querySelector('.ganlens-preview').naturalWidth") == 64
        assert ask_kernel(lab, "len(canvas.edits)") == 0
        assert np.array_equal(pixels(lab), before)
        lab.mouse.down()
        lab.mouse.up()
        wait_for_change(lab, before)
        assert lab.locator(".ganlens-preview").is_hidden()
        lab.mouse.move(box["x"] - 30, y)
        lab.wait_for_timeout(400)
        assert lab.locator(".ganlens-preview").is_hidden()


def test_touch_and_a_narrow_page(address, folder, pictures):
    """A finger paints and does not scroll the page; everything fits a notebook of 480 pixels."""
    write_notebook(folder / "touch.ipynb", SETUP, CANVAS.replace("SEED", "3"))
    with page(address, "touch.ipynb") as lab:
        run_cells(lab, 2)
        before = pixels(lab)
        lab.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        lab.set_viewport_size({"width": 596, "height": 1400})
        lab.wait_for_timeout(500)
        output = "document.querySelector('.ganlens-picture').closest('.jp-OutputArea-output')"
        shown, needed = lab.evaluate(f"[{output}.clientWidth, {output}.scrollWidth]")
        assert needed <= shown <= 480
        ask_kernel(lab, "setattr(canvas, 'mode', 'add')")
        lab.wait_for_timeout(300)
        box = lab.locator(".ganlens-picture").bounding_box()
        devtools = lab.context.new_cdp_session(lab)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]
            devtools.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})

        touch("Start", (0.3, 0.2))
        for y in (0.3, 0.4, 0.5):
            touch("Move", (0.3, y))
        touch("End")
        wait_for_change(lab, before)
        assert ask_kernel(lab, "canvas.history.strokes[0].cells") == [10, 18, 26, 34]
        assert lab.locator(".ganlens-picture").bounding_box() == box
        lab.screenshot(path=pictures / "canvas-narrow.png")
