"""The canvas as somebody meets it who has never seen it; and whether everybody can use it: in a real browser."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from lab import ask_kernel, page, run_cells, show_theme, tell_kernel, write_notebook
from test_canvas_in_lab import as_image, paint, pixels, wait_for_change

import ganlens as gl

pytestmark = pytest.mark.browser

SETUP = """
import torch
torch.set_num_threads(1)
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
D = gl.dissect(G, S, "layer4", n=64, progress=False)
both = gl.dissect(G, S, ["layer4", "layer6"], n=64, progress=False)
"""
WIDGETS = {
    "canvas": "gl.InterventionCanvas(both, seed=3, concept='tree')",
    "gallery": "gl.UnitGallery(D)",
    "heatmap": "gl.IoUHeatmap(D)",
    "explorer": "gl.Explorer(both)",
    "comparison": "gl.ComparisonView(both)",
}


VIOLATIONS = """async () => {
    const options = { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], resultTypes: ['violations'] };
    const { violations } = await axe.run([...document.querySelectorAll('.jp-OutputArea')].at(-1), options);
    const words = ({ html, failureSummary }) => html.slice(0, 160) + ' | ' + failureSummary;
    return violations.map(({ id, nodes }) => [id, nodes.map(words)]);
}"""


WATCH = """
from ganlens.widgets import canvas_page
added, asked = [], []
add, obey = canvas.history.add, canvas_page.obey
canvas.history.add = lambda stroke: (added.append(stroke), add(stroke))

def watched(canvas, message, buffers=()):
    paints = message["kind"] in ("stroke", "fill") and canvas.tool != "erase" and canvas.mode in ("add", "remove")
    before = len(added) + len(canvas.waiting)
    obey(canvas, message, buffers)
    if paints:
        asked.append(len(added) + len(canvas.waiting) - before)

canvas_page.obey = watched
"""


@pytest.fixture(scope="module")
def axe():
    """The source of the accessibility checker axe-core."""
    import axe_core_python

    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()


def trees(S, picture) -> int:
    return int((S.labels(as_image(picture))[0, 0] == S.index("tree") + 1).sum())


def test_a_tree_goes_and_another_comes_by_three_clicks_and_a_drag(address, folder, tree_cells, D, S, pictures):
    write_notebook(folder / "first.ipynb", SETUP, "canvas = gl.InterventionCanvas(D, seed=33)\ncanvas")
    gains = gl.where(D, "tree", 33)
    gains.flat[tree_cells] = 0
    place = int(gains.argmax())
    with page(address, "first.ipynb") as lab:
        run_cells(lab, 2)
        whole = pixels(lab)
        lab.get_by_role("radio", name="tree").click()  # the first click
        paint(lab, tree_cells)  # the drag
        gone = wait_for_change(lab, whole)
        lab.get_by_role("radio", name="Draw").click()  # the second
        box = lab.locator(".ganlens-picture").bounding_box()
        row, column = divmod(place, 8)
        lab.mouse.click(box["x"] + box["width"] * (column + 0.5) / 8, box["y"] + box["height"] * (row + 0.5) / 8)
        come = wait_for_change(lab, gone)
        assert trees(S, gone) < 0.3 * trees(S, whole)
        assert trees(S, come) > trees(S, gone) + 15
        lab.wait_for_function("document.querySelector('.ganlens-result').innerText.startsWith('tree +')")
        assert lab.locator(".ganlens-history li").all_inner_texts()[0].startswith("add tree")
        lab.screenshot(path=pictures / "first-sight.png")
        assert lab.locator(".ganlens-failure").count() == 0


@pytest.mark.parametrize("name", WIDGETS)
def test_everybody_can_use_it(address, folder, axe, name):
    """No violation of WCAG 2.1, level A or AA, in both themes, with the fold open."""
    write_notebook(folder / f"checked-{name}.ipynb", SETUP, f"widget = {WIDGETS[name]}\nwidget")
    with page(address, f"checked-{name}.ipynb") as lab:
        lab.set_viewport_size({"width": 1400, "height": 1600})
        run_cells(lab, 2)
        lab.locator(".ganlens").first.wait_for()
        tell_kernel(
            lab,
            "getattr(widget, 'canvas', widget).wait(); "
            "getattr(getattr(widget, 'canvas', widget), 'background', widget.worker).wait(60)",
        )
        lab.wait_for_timeout(1500)
        for fold in lab.locator(".ganlens-fold summary").all():
            fold.click()
        lab.evaluate(axe)
        for theme in ("Light", "Dark"):
            show_theme(lab, theme)
            found = lab.evaluate(VIOLATIONS)
            ours = [(id_, [html for html in nodes if "lm-Widget" not in html.split(" | ")[0]]) for id_, nodes in found]
            assert [(id_, nodes) for id_, nodes in ours if nodes] == [], theme


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_monkeys(address, folder, seed):
    """300 random clicks, drags, keys, traits from Python, also while the kernel is busy: nothing is lost or wrong."""
    monkey = random.Random(seed)
    write_notebook(folder / f"monkey-{seed}.ipynb", SETUP, "canvas = gl.InterventionCanvas(both, seed=3)\ncanvas")
    errors = []
    with page(address, f"monkey-{seed}.ipynb", lambda p: p.on("pageerror", lambda e: errors.append(str(e)))) as lab:
        run_cells(lab, 2)
        lab.get_by_role("radio", name="tree").wait_for()
        box = lab.locator(".ganlens-picture").bounding_box()
        tell_kernel(lab, WATCH)

        def anywhere():
            return box["x"] + monkey.uniform(2, box["width"] - 2), box["y"] + monkey.uniform(2, box["height"] - 50)

        def drag():
            lab.mouse.move(*anywhere())
            lab.mouse.down()
            lab.mouse.move(*anywhere(), steps=monkey.randint(1, 4))
            lab.mouse.up()

        def press():
            lab.locator(".ganlens-picture").focus()
            lab.keyboard.press(
                monkey.choice(["z", "Z", "n", "p", "d", "r", "[", "]", "ArrowUp", "ArrowLeft", " ", "b"])
            )

        def choose():
            lab.locator(".ganlens-panel button:visible:not([disabled]):not([title*='clipboard'])").nth(
                monkey.randrange(24)
            ).dispatch_event("click")

        def tell():
            tell_kernel(lab, monkey.choice([
                "canvas.concept = 'door'", "canvas.concept = 'cloud'", "canvas.mode = 'add'", "canvas.mode = 'remove'",
                "canvas.layer = 'layer4'", "canvas.layer = 'layer6'", "canvas.strength = 0.5", "canvas.seed = 5",
                "import time; time.sleep(0.7)", "canvas.k = 10", "canvas.tool = 'brush'",
            ]))  # fmt: skip

        tell_kernel(lab, "canvas.concept = 'tree'")
        for _ in range(300):
            monkey.choices((drag, press, choose, tell), (8, 4, 4, 3))[0]()
        lab.wait_for_timeout(500)
        tell_kernel(lab, "assert canvas.wait(120)")
        assert errors == []
        assert ask_kernel(lab, "canvas.failure") == ""
        assert lab.locator(".ganlens-failure").count() == 0
        painted = ask_kernel(lab, "asked")
        assert len(painted) > 20
        assert set(painted) == {1}  # each stroke is one more, at once or waiting
        tell_kernel(lab, "import numpy as np; assert np.array_equal(canvas.image, gl.replay(canvas.recipe, G))")
        shown = np.array(json.loads(json.dumps(ask_kernel(lab, "canvas.image.tolist()"))), np.uint8)
        assert np.array_equal(pixels(lab), shown)
