"""How fast the widgets are in real JupyterLab and Chromium: ``python tests/widgets/measure_widgets.py``.

Times are of this machine; what counts stands beside them: the same work without a browser, in the same run.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share

from lab import ask_kernel, jupyterlab, page, run_cells, write_notebook
from test_gallery import RUN as RUN_GALLERY
from test_heatmap import CENTRE
from test_heatmap import SHOW as RUN_HEATMAP

SETUP = """
import time, torch; torch.set_num_threads(1)
import ganlens as gl
from ganlens.images import encode
G, S = gl.load_generator(), gl.load_segmenter()
D = gl.dissect(G, S, "layer4", n=64, progress=False)
"""
CANVAS = "canvas = gl.InterventionCanvas(D, seed=3, concept='tree'); canvas.mode = 'add'; canvas"
# A generator that takes 0.4 s from the layer on.
SLOW = """
import copy
net = copy.deepcopy(G.net)
usual = net.layer6.forward
net.layer6.forward = lambda r: (time.sleep(0.4), usual(r))[1]
D.generator = gl.Generator.wrap(net, G.z_dim)
"""
# What one stroke's work takes in the kernel alone: resuming the generator from the layer, encoding the image.
ALONE = """
def alone(n=30):
    times = []
    for i in range(n):
        edit = gl.ablate("layer4", canvas.units, region=[[float(i % 8 == j) for j in range(8)] for _ in range(8)])
        start = time.perf_counter()
        picture = canvas.renderer.render(3, [edit])[1]
        encode(picture, "png")
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[n // 2]
"""
# Notes when the button is released and when the picture under the brush is another one; `changes` are all changes.
WATCH = """() => {
    const canvas = document.querySelector('.ganlens-panel canvas');
    const brush = document.querySelector('.ganlens-brush canvas');
    const small = Object.assign(document.createElement('canvas'), { width: 32, height: 32 });
    const context = small.getContext('2d', { willReadFrequently: true });
    const look = () => {
        context.drawImage(canvas, 0, 0, 32, 32);
        return context.getImageData(0, 0, 32, 32).data.join();
    };
    window.seen = { released: 0, changes: [], moves: 0, drawn: [] };
    let last = look();
    brush.addEventListener('pointerup', () => (seen.released = performance.now()), true);
    brush.addEventListener('pointermove', () => seen.moves++, true);
    const tick = () => {
        const now = look();
        if (now !== last) seen.changes.push(performance.now());
        last = now;
        requestAnimationFrame(tick);
    };
    tick();
}"""
FLOOD = """async ({ strokes, moves, seconds }) => {
    const brush = document.querySelector('.ganlens-brush canvas'), box = brush.getBoundingClientRect();
    const send = (type, t) => brush.dispatchEvent(new PointerEvent(type, {
        bubbles: true, isPrimary: true, button: 0, pointerId: 1, buttons: 1,
        clientX: box.left + box.width * (0.5 + 0.4 * Math.cos(9 * t)),
        clientY: box.top + box.height * (0.5 + 0.4 * Math.sin(7 * t)),
    }));
    brush.setPointerCapture = () => {};
    const start = performance.now();
    for (let i = 0; i < moves; i++) {
        const t = i / moves;
        if (i % (moves / strokes) === 0) send('pointerdown', t);
        send('pointermove', t);
        if ((i + 1) % (moves / strokes) === 0) send('pointerup', t);
        const wait = start + (1000 * seconds * (i + 1)) / moves - performance.now();
        if (wait > 0) await new Promise(done => setTimeout(done, wait));
    }
    return performance.now() - start;
}"""


# Whether the canvas has a picture, and tiles stand beside it.
DRAWN = """() => {
    const canvas = document.querySelector('.ganlens-panel canvas');
    if (!canvas || !canvas.width || !document.querySelector('.ganlens-tile')) return false;
    return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value);
}"""


class Traffic:
    """Frames and bytes of a page's websockets."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        self.sent = self.bytes = 0

    def watch(self, lab) -> None:
        lab.on("websocket", lambda socket: (socket.on("framesent", self.note), socket.on("framereceived", self.weigh)))

    def note(self, frame) -> None:
        self.sent += 1

    def weigh(self, frame) -> None:
        self.bytes += len(frame)


def open_canvas(lab, cells: int):
    """Run the cells and wait until the canvas stands; gives the place of its image."""
    run_cells(lab, cells)
    lab.wait_for_function("document.querySelectorAll('.ganlens-seeds img').length == 8")
    lab.locator(".ganlens-brush").scroll_into_view_if_needed()
    lab.wait_for_timeout(1000)
    lab.evaluate(WATCH)
    return lab.locator(".ganlens-brush canvas").bounding_box()


def paint_row(lab, box, row: int, points: int = 40) -> None:
    """Paint along a row of cells with the mouse."""
    y = box["y"] + box["height"] * (row + 0.5) / 8
    left, width = box["x"] + 60, box["width"] - 80  # beside the grip of the slider
    lab.mouse.move(left, y)
    lab.mouse.down()
    for i in range(points):
        lab.mouse.move(left + i * width / points, y)
    lab.mouse.up()


def measure_first_sight(address: str) -> dict[str, float]:
    """From the start of the cell to the picture on the canvas, the palette beside it."""
    times = []
    with page(address, "first.ipynb") as lab:
        run_cells(lab, 1)
        for _ in range(5):
            lab.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
            lab.wait_for_function("!document.querySelector('.ganlens-panel')")
            start = time.perf_counter()
            lab.evaluate(
                """() => {
                    jupyterapp.shell.currentWidget.content.activeCellIndex = 1;
                    jupyterapp.commands.execute('notebook:run-cell');
                }"""
            )
            lab.wait_for_function(DRAWN, polling=10)
            times.append(1000 * (time.perf_counter() - start))
    return {"first sight: cell to picture and tiles, ms (median of 5; asked 1000)": median(times)}


def measure_strokes(address: str) -> dict[str, float]:
    traffic = Traffic()
    with page(address, "strokes.ipynb", traffic.watch) as lab:
        box = open_canvas(lab, 3)
        alone, times, sent, size = [ask_kernel(lab, "alone()")], [], [], []
        for i in range(24):
            if i and i % 8 == 0:
                lab.get_by_role("button", name="Reset", exact=True).click()
                lab.wait_for_timeout(500)
            lab.evaluate("seen.changes = []")
            traffic.clear()
            paint_row(lab, box, i % 8)
            lab.wait_for_function("seen.changes.length && seen.changes.at(-1) > seen.released")
            lab.wait_for_timeout(300)
            times.append(lab.evaluate("seen.changes.find(t => t > seen.released) - seen.released"))
            sent.append(traffic.sent)
            size.append(traffic.bytes)
        alone.append(ask_kernel(lab, "alone()"))
    return {
        "release to new image, ms (median of 24)": median(times),
        "asked at most, ms: 1.5 x alone + 30": 1.5 * median(alone) + 30,
        "alone, ms: resume from the layer, encode": median(alone),
        "messages to the kernel per stroke of 40 points (most)": max(sent),
        "kB back per stroke (most)": max(size) / 1000,
    }


def measure_flood(address: str) -> dict[str, float]:
    with page(address, "flood.ipynb") as lab:
        open_canvas(lab, 3)
        lab.evaluate("seen.changes = []")
        took = lab.evaluate(FLOOD, {"strokes": 3, "moves": 450, "seconds": 4})
        lab.wait_for_timeout(3000)
        last = lab.evaluate("seen.changes.at(-1) - seen.released")
        right = ask_kernel(lab, "bool((gl.replay(canvas.recipe, D.generator) == canvas.image).all())")
        count = lab.evaluate("seen.changes.length")
    return {
        "flood: 450 moves and 3 strokes in, s": took / 1000,
        "last release to final image, s (render 0.4; asked 0.7)": last / 1000,
        "images shown": count,
        "final image is that of all strokes": right,
    }


# 512 units, 150 concepts; eight images for each unit, whose thumbnails exist.
LARGE = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[i]) for i in range(2)]!r}
from test_gallery import synthetic
import ipywidgets, traitlets
import ganlens as gl
D = synthetic()
"""
SORT = """async () => {
    const times = [], control = document.querySelector('[aria-label="Order of the units"]');
    for (const order of ['unit', 'label', 'iou', 'label']) {
        const start = performance.now();
        control.value = order;
        control.dispatchEvent(new Event('change', { bubbles: true }));
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        times.push(performance.now() - start);
    }
    return Math.max(...times);
}"""
LINKED = """
gallery, heatmap = gl.UnitGallery(D), gl.IoUHeatmap(D)
for trait in ("unit", "units", "concept"):
    traitlets.link((gallery, trait), (heatmap, trait))
ipywidgets.VBox([heatmap, gallery])
"""
# Notes when the mouse is pressed, and when the gallery's selection is another one.
FOLLOW = """() => {
    const row = () => document.querySelector('.ganlens-gallery [aria-selected=true]')?.getAttribute('aria-label');
    window.seen = { pressed: 0, followed: 0 };
    let last = row();
    addEventListener('click', () => (seen.pressed = performance.now()), true);
    new MutationObserver(() => {
        if (row() !== last) seen.followed = performance.now();
        last = row();
    }).observe(document.querySelector('.ganlens-gallery'), { attributes: true, childList: true, subtree: true });
}"""


def measure_gallery(address: str) -> dict[str, float]:
    traffic = Traffic()
    with page(address, "gallery.ipynb", traffic.watch) as lab:
        run_cells(lab, 1)
        traffic.clear()
        found = lab.evaluate(RUN_GALLERY, 1)
        lab.wait_for_timeout(500)
        size = traffic.bytes
        sorting = lab.evaluate(SORT)
        models = ask_kernel(lab, "len(ipywidgets.widgets.widget._instances)")
    return {
        "gallery of 512 units: pictures visible, ms (asked 1000)": found["pictures"],
        "kB sent before scrolling (asked 500)": size / 1000,
        "slowest sort, ms (asked 200)": sorting,
        "widget models (asked 10)": models,
    }


def measure_heatmap(address: str) -> dict[str, float]:
    traffic = Traffic()
    with page(address, "heatmap.ipynb", traffic.watch) as lab:
        run_cells(lab, 1)
        seconds = lab.evaluate(RUN_HEATMAP)
        run_cells(lab, 3)
        lab.locator(".ganlens-gallery [role=row]").first.wait_for()
        view = lab.locator(".ganlens-heatmap").last
        view.scroll_into_view_if_needed()
        lab.wait_for_timeout(1000)
        lab.evaluate(FOLLOW)
        traffic.clear()
        cells = [view.evaluate(CENTRE, [10 + i, 3 * i, 512, 150]) for i in range(30)]
        for cell in cells:
            lab.mouse.move(cell["left"], cell["top"])
        hovers, times = traffic.sent, []
        for cell in cells[:12]:
            lab.mouse.click(cell["left"], cell["top"])
            lab.wait_for_timeout(300)
            times.append(lab.evaluate("seen.followed - seen.pressed"))
    return {
        "heatmap of 512 x 150: visible, ms (asked 1000)": 1000 * seconds,
        "messages for 30 hovers (asked 0)": hovers,
        "click to selection in a linked gallery, ms (median; asked 150)": median(times),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_notebook(folder / "first.ipynb", SETUP, "gl.InterventionCanvas(D)")
        write_notebook(folder / "strokes.ipynb", SETUP, CANVAS, ALONE)
        write_notebook(folder / "flood.ipynb", SETUP, SLOW, CANVAS)
        write_notebook(folder / "gallery.ipynb", LARGE, "gl.UnitGallery(D)")
        write_notebook(folder / "heatmap.ipynb", LARGE, "gl.IoUHeatmap(D)", LINKED)
        with jupyterlab(folder) as address:
            for measure in (measure_first_sight, measure_strokes, measure_flood, measure_gallery, measure_heatmap):
                for what, value in measure(address).items():
                    print(f"{what:60} {value:8.2f}" if isinstance(value, float) else f"{what:60} {value!s:>8}")


if __name__ == "__main__":
    main()
