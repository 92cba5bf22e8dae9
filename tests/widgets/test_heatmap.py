"""The IoU heatmap: what it shows and in which order, as a picture, and itself in a real JupyterLab."""

import base64
import inspect
import io
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest
import traitlets
from lab import page, run_cells, show_theme, tell_kernel, write_notebook
from PIL import Image

from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import Concept
from ganlens.widgets.heatmap import COLORS, LINE, ORDERS, IoUHeatmap, encode_iou, neighbours, thinned

UNITS, CONCEPTS = 512, 150


def synthetic(units: int = 512, concepts: int = 150, layer: str = "layer4") -> Dissection:
    """A dissection of made-up counts, without generator: most units have one concept, and a little of the next ones."""
    rng = np.random.default_rng(0)
    nouns = ["tree", "sky", "building", "window", "road", "grass", "person", "car", "lamp", "door", "water", "sand"]
    nouns += ["boat", "chair", "table", "shelf", "curtain", "pillow", "bed", "floor", "ceiling", "wall", "painting"]
    nouns += ["mirror", "stairs", "fence", "rock", "flower", "bridge", "mountain"]
    kinds = ("", "dark ", "small ", "old ", "red ")
    names = [kinds[c // 30] + nouns[c % 30] for c in range(concepts)]
    favourite = (rng.random((units, 1)) ** 2 * concepts).astype(int)
    near = np.exp(-1.5 * np.abs(np.arange(concepts) - favourite))
    overlap = rng.gamma(1, 12, (units, concepts)) + rng.gamma(2, 90, (units, 1)) * near
    kinds = ("object", "part", "color")
    return Dissection(
        layer=layer,
        concepts=tuple(Concept(name, kinds[c % 3]) for c, name in enumerate(names)),
        **{"rule": "quantile", "quantile": 0.01, "n": 100, "sample": 0, "complete": True, "within_category": False},
        shape=(8, 8, 64, 64),
        thresholds_by_concept=np.ones((units, concepts)),
        on=np.full((units, concepts), 1000),
        overlap=overlap.clip(0, 700).astype(int),
        area=np.full(concepts, 700),
        scope=np.full(concepts, 40960),
        valid=np.ones((units, concepts), bool),
        top=np.zeros((units, 4), int),
        top_values=np.ones((units, 4)),
        levels=None,
        origin={"generator": "made up", "segmenter": "made up", "generator_fingerprint": "0"},
    )


@pytest.fixture(scope="module")
def large():
    return synthetic(UNITS, CONCEPTS)


@pytest.fixture
def heatmap(D):
    return IoUHeatmap(D)


@pytest.fixture
def twins():
    """Two concepts called glass."""
    D = synthetic(6, 3)
    concepts = (Concept("glass", "object"), Concept("glass", "material"), Concept("tree", "plant"))
    return IoUHeatmap(replace(D, concepts=concepts))


# ---- order and filters


def codes(D):
    """IoU as it is sent: with 16 bits."""
    return np.floor(D.iou * 65535 + 0.5)


class TestOrder:
    def test_by_concept(self, D, heatmap):
        units, concepts, best = heatmap.arrangement()
        assert sorted(units) == list(range(len(D.iou)))
        assert [D.concepts[c] for c in best] == [D.labels[unit].concept for unit in units]
        peaks = codes(D).max(0)[concepts]
        assert sorted(peaks, reverse=True) == peaks.tolist()
        groups = [concept for concept, _ in groupby(best)]
        assert groups == [c for c in concepts if c in groups]
        for (unit, concept), (other, next_) in pairwise(zip(units, best, strict=True)):
            assert concept != next_ or (-codes(D)[unit, concept], unit) < (-codes(D)[other, next_], other)

    def test_by_iou(self, D, heatmap):
        heatmap.order = "IoU"
        units, concepts, _ = heatmap.arrangement()
        assert units == sorted(range(len(D.iou)), key=lambda unit: -codes(D)[unit].max())
        assert concepts == sorted(range(len(D.concepts)), key=lambda c: -codes(D)[:, c].max())

    def test_by_number(self, D, heatmap):
        heatmap.order = "unit"
        units, concepts, _ = heatmap.arrangement()
        assert units == list(range(len(D.iou)))
        assert concepts == list(range(len(D.concepts)))

    def test_clustered_puts_alike_units_together(self, D, heatmap):
        heatmap.order = "clustered"
        units, concepts, _ = heatmap.arrangement()
        assert sorted(units) == list(range(len(D.iou)))
        assert sorted(concepts) == list(range(len(D.concepts)))

        def likeness(order):
            rows = D.iou[order] / np.linalg.norm(D.iou[order], axis=1, keepdims=True)
            return (rows[1:] * rows[:-1]).sum(1).mean()

        assert likeness(units) > likeness(list(range(len(units)))) + 0.2
        best = [units.index(D.iou[:, c].argmax()) for c in concepts]
        assert best == sorted(best)

    def test_clusters_that_were_planted_stay_together(self):
        rng = np.random.default_rng(0)
        kind = rng.permutation(np.repeat(range(5), 12))
        iou = np.eye(5)[kind] + rng.uniform(0, 0.2, (60, 5))
        assert len(list(groupby(kind[neighbours(iou)]))) == 5

    def test_dead_units_and_single_units(self):
        assert sorted(neighbours(np.array([[0, 0], [0, 0.3], [0, 0], [0.1, 0]]))) == [0, 1, 2, 3]
        assert neighbours(np.zeros((1, 3))) == [0]
        D = synthetic(1, 1)
        for order in ORDERS:
            assert IoUHeatmap(D, order).arrangement() == ([0], [0], [0])


class TestFilters:
    def test_interpretable_only(self, D, heatmap):
        heatmap.interpretable_only = True
        assert sorted(heatmap.arrangement().units) == D.interpretable
        assert 0 < len(D.interpretable) < len(D.iou)

    def test_minimum(self, D, heatmap):
        heatmap.minimum = 0.1
        assert sorted(heatmap.arrangement().units) == [label.unit for label in D.labels if label.iou >= 0.1]

    def test_minimum_keeps_the_unit_that_just_reaches_it(self, D, heatmap):
        heatmap.minimum = float(D.labels[7].iou)
        assert 7 in heatmap.arrangement().units

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("search", ["tree", " TREE ,sky", "part", "red tree:"])
    def test_search(self, large, search, order):
        heatmap = IoUHeatmap(large, order, search=search)
        words = [word.strip().lower() for word in search.split(",")]
        found = {i for i, c in enumerate(large.concepts) if any(w in f"{c.name}:{c.category}" for w in words)}
        units, concepts, best = heatmap.arrangement()
        assert 0 < len(concepts) < CONCEPTS
        assert set(concepts) == found
        assert len(units) == UNITS
        iou, label = codes(large), [large.concepts.index(label.concept) for label in large.labels]
        for unit, concept in zip(units, best, strict=True):
            assert concept == label[unit] if label[unit] in found else iou[unit, concept] == iou[unit, concepts].max()

    def test_minimum_counts_the_concepts_on_show(self, large):
        tree = large.concepts.index(("tree", "object"))
        units, concepts, _ = IoUHeatmap(large, search="red tree, tree:object", minimum=0.1).arrangement()
        assert tree in concepts
        assert len(units) > 10
        assert sorted(units) == np.flatnonzero(codes(large)[:, concepts].max(1) >= 6554).tolist()

    def test_labels_by_information(self, D):
        """Under the rule "iqr" the label need not have the highest IoU; it is the unit's concept all the same."""
        told = replace(D, rule="iqr", valid=np.ones_like(D.valid))
        units, _, best = IoUHeatmap(told, "unit").arrangement()
        assert [told.concepts[c] for c in best] == [told.labels[unit].concept for unit in units]

    def test_nothing_left(self, heatmap):
        heatmap.search = "zebra"
        assert heatmap.arrangement() == ([], [], [])
        assert heatmap.picture().shape[2] == 3
        heatmap.search, heatmap.minimum = "", 1.0
        assert heatmap.arrangement().units == []
        assert heatmap.picture().shape[2] == 3


# ---- traits


class TestTraits:
    def test_numbers_are_sent_compactly(self, large):
        table = IoUHeatmap(large).table
        assert len(table["iou"]) == 2 * UNITS * CONCEPTS
        sent = np.frombuffer(table["iou"], "<u2").reshape(UNITS, CONCEPTS) / 65535
        np.testing.assert_allclose(sent, large.iou, atol=0.5 / 65535)
        assert encode_iou(1.0) == 65535

    def test_equal_names_carry_their_category(self, twins):
        assert twins.table["names"] == ["glass:object", "glass:material", "tree"]
        for name in [*twins.table["names"], "tree:plant", None]:
            twins.concept = name
        with pytest.raises(traitlets.TraitError, match="ambiguous"):
            twins.concept = "glass"

    def test_bad_input(self, D, heatmap):
        with pytest.raises(traitlets.TraitError, match=r"no order 'concepts' in the heatmap; did you mean 'concept'\?"):
            heatmap.order = "concepts"
        with pytest.raises(traitlets.TraitError, match="no order 'best'"):
            IoUHeatmap(D, order="best")
        with pytest.raises(traitlets.TraitError, match=r"no layer 'layer44' in .*; did you mean 'layer4'\?"):
            heatmap.layer = "layer44"
        with pytest.raises(traitlets.TraitError, match=r"unit 192 is out of range: layer4 has units 0 … 191"):
            heatmap.unit = 192
        with pytest.raises(traitlets.TraitError, match="unit -1 is out of range"):
            heatmap.units = (3, -1)
        with pytest.raises(traitlets.TraitError, match=r"no concept 'treee' .* did you mean 'tree'\?"):
            heatmap.concept = "treee"
        for name, value in {"minimum": 1.5, "zoom": 0, "search": None}.items():
            with pytest.raises(traitlets.TraitError):
                setattr(heatmap, name, value)
        with pytest.raises(TypeError, match="interpretable"):
            IoUHeatmap(D, interpretable=True)
        with pytest.raises(TypeError, match="expected a Dissection"):
            IoUHeatmap(D.iou)

    def test_layers(self):
        few = replace(synthetic(20, 5, "layer5"), concepts=tuple(map(Concept, ["a", "b", "c", "d", "tree"])))
        heatmap = IoUHeatmap({D.layer: D for D in (synthetic(60, 12), few)})
        assert heatmap.layers == ("layer4", "layer5")
        heatmap.unit, heatmap.units, heatmap.concept = 30, (30, 7), "tree"
        heatmap.layer = "layer5"
        assert (heatmap.unit, heatmap.units, heatmap.concept) == (None, (7,), "tree")
        assert len(heatmap.table["iou"]) == 2 * 20 * 5
        heatmap.layer = "layer4"
        heatmap.unit, heatmap.concept = 19, "sky"
        heatmap.layer = "layer5"
        assert (heatmap.unit, heatmap.concept) == (19, None)
        assert len(heatmap.arrangement().units) == 20


# ---- picture


def colours_of(iou, peak):
    return COLORS[np.round(iou * 255 / peak).astype(int)]


def corner_of(picture):
    """Where the colours begin: text is grey."""
    colourful = np.ptp(picture.astype(int), axis=2) > 0
    return colourful.any(1).argmax(), colourful.any(0).argmax()


class TestPicture:
    def test_shows_every_cell(self, D):
        heatmap = IoUHeatmap(D, "unit", search="tree, sky, water")
        units, concepts, _ = heatmap.arrangement()
        picture = heatmap.picture()
        y, x = corner_of(picture)
        expected = colours_of(D.iou[np.ix_(units, concepts)], D.iou.max())
        certain = D.certificates.certain[np.ix_(units, concepts)][..., None]
        assert 0 < certain.mean() < 1
        expected = np.where(certain, expected, (expected.astype(int) + 3 * 255) // 4)  # pale
        height, width = 480 // len(units), 56
        shown = picture[y : y + height * len(units), x : x + width * len(concepts)]
        np.testing.assert_array_equal(shown, expected.repeat(height, 0).repeat(width, 1))

    def test_large_layers_keep_their_peaks(self):
        D = synthetic(2048, 30)
        picture = IoUHeatmap(D, "unit").picture()
        assert picture.shape[0] < 1100
        y, x = corner_of(picture)
        width, thirds = 800 // 30, D.iou[:2046].reshape(-1, 3, 30).max(1)
        shown = picture[y : y + len(thirds), x : x + 30 * width : width]
        np.testing.assert_array_equal(shown, colours_of(thirds, D.iou.max()))

    def test_marks_what_is_selected(self, D, heatmap):
        before = heatmap.picture()
        heatmap.unit, heatmap.concept = 11, "tree"
        changed = (before != heatmap.picture()).any(2)
        units, concepts, _ = heatmap.arrangement()
        y, x = corner_of(before)
        row = y + 480 // len(units) * units.index(11)
        column = x + 56 * [D.concepts[c].name for c in concepts].index("tree")
        lines, columns = changed.mean(1) > 0.5, changed.mean(0) > 0.5
        assert np.flatnonzero(lines).tolist() == [row - 2, row - 1, row + 2, row + 3]
        assert np.flatnonzero(columns).tolist() == [column - 2, column - 1, column + 56, column + 57]

    def test_names_are_a_line_apart(self):
        kept = thinned({3.0 * i: str(i) for i in range(50)})
        assert list(kept) == [15.0 * i for i in range(10)]
        assert LINE == 14

    def test_stays_in_the_notebook(self, heatmap):
        data, _ = heatmap.saved.bundle()
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
        np.testing.assert_array_equal(picture, heatmap.picture())
        shown, _ = heatmap._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in shown
        assert shown["text/plain"] == "<IoUHeatmap layer4 of scenes>"


# ---- in JupyterLab

SETUP = """
import time
import numpy as np
from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import Concept
from ganlens.widgets.heatmap import IoUHeatmap
"""
RESET = """
with heatmap.hold_sync():
    heatmap.order, heatmap.search, heatmap.minimum, heatmap.interpretable_only = "concept", "", 0, False
    heatmap.zoom = 1
    heatmap.unit, heatmap.units, heatmap.concept = None, (), None
"""
KERNEL = "jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
SHOW = """async () => {
    jupyterapp.shell.currentWidget.content.activeCellIndex = 1;
    const start = performance.now();
    jupyterapp.commands.execute('notebook:run-cell');
    const canvas = () => document.querySelector('.ganlens-heatmap canvas');
    while (!canvas()?.getContext('2d').getImageData(9, 9, 1, 1).data[3]) await new Promise(requestAnimationFrame);
    return (performance.now() - start) / 1000;
}"""
AGAIN = """async () => {
    jupyterapp.shell.currentWidget.content.activeCellIndex = 2;
    await jupyterapp.commands.execute('notebook:run-cell');
}"""
LISTEN = f"""() => {{
    window.messages = [];
    {KERNEL}.anyMessage.connect((_, {{ direction, msg }}) => window.messages.push([direction, msg.header.msg_type]));
}}"""
DRAWN = "() => new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 40))"
CENTRE = """(view, [row, column, rows, columns]) => {
    const scroll = view.querySelector('.ganlens-heatmap-scroll');
    const [box, all] = [scroll, scroll.firstElementChild].map(element => element.getBoundingClientRect());
    const x = ((column + 0.5) * all.width) / columns - scroll.scrollLeft;
    const y = ((row + 0.5) * all.height) / rows - scroll.scrollTop;
    return { x, y, left: box.left + x, top: box.top + y, inside: x > 0 && x < box.width && y > 0 && y < box.height };
}"""
SCROLL = """async (scroll, pixels) => {
    scroll.scrollTo(pixels, pixels);
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))));
}"""
COLOUR = """(canvas, { x, y }) => {
    const ratio = canvas.width / parseFloat(canvas.style.width);
    return [...canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data];
}"""
BOXES = """(part) => {
    return [...part.querySelectorAll('span')].map(label => {
        const { left, right, top, bottom } = label.getBoundingClientRect();
        return { text: label.textContent, x: [left, right], y: [top, bottom] };
    });
}"""


@pytest.fixture(scope="module")
def lab(address, folder):
    """A page with the heatmap of 512 units and 150 concepts, shown twice."""
    cells = [SETUP + inspect.getsource(synthetic) + "\n\nD = synthetic()"]
    cells += ["heatmap = IoUHeatmap(D)\nheatmap", "heatmap"]
    write_notebook(folder / "heatmap.ipynb", *cells)
    with page(address, "heatmap.ipynb") as lab:
        problems = []
        lab.on("pageerror", lambda error: problems.append(str(error)))
        lab.add_style_tag(content=".Toastify { display: none }")
        run_cells(lab, 1)
        lab.evaluate(SHOW)
        lab.evaluate(AGAIN)
        lab.locator(".ganlens-heatmap canvas").nth(1).wait_for()
        lab.evaluate(LISTEN)
        yield lab
        assert problems == []


class Shown:
    """One of the two views, and the heatmap as it should be."""

    def __init__(self, lab, number: int = 0):
        self.lab, self.view = lab, lab.locator(".ganlens-heatmap").nth(number)
        self.canvas, self.tip = self.view.locator("canvas"), self.view.locator(".ganlens-heatmap-tip")
        self.D = synthetic()
        self.names = [concept.name for concept in self.D.concepts]
        self.set()

    def set(self, code: str = "", **traits) -> None:
        """Set traits in the kernel, and here."""
        self.ask("\n".join([RESET, *(f"heatmap.{name} = {value!r}" for name, value in traits.items()), code]))
        self.scroll(0)
        self.expect(**traits)

    def expect(self, **traits) -> None:
        settings = {k: v for k, v in traits.items() if k in ("order", "search", "minimum", "interpretable_only")}
        self.units, self.concepts, _ = IoUHeatmap(self.D, **settings).arrangement()

    def ask(self, code: str) -> str:
        """What the kernel prints, when the page has drawn what it was told."""
        text = tell_kernel(self.lab, code)
        self.lab.evaluate(DRAWN)
        return text

    def scroll(self, pixels: int) -> None:
        self.view.locator(".ganlens-heatmap-scroll").evaluate(SCROLL, pixels)

    def traits(self) -> str:
        return self.ask("print(heatmap.unit, heatmap.units, heatmap.concept)")

    def assert_traits(self, expected: str) -> None:
        """The kernel has, or soon hears, what was selected on the page; the beginning of what it then prints."""
        for _ in range(20):
            if (found := self.traits()).startswith(expected):
                return
            self.lab.wait_for_timeout(250)  # messages of the page come when the kernel is free
        assert found.startswith(expected), found

    def cell(self, row: int, column: int) -> dict:
        """Where the centre of a cell is, in the view and on the page."""
        return self.view.evaluate(CENTRE, [row, column, len(self.units), len(self.concepts)])

    def hover(self, row: int, column: int) -> str:
        """Move the mouse to a cell; what the tooltip says."""
        place = self.cell(row, column)
        self.lab.mouse.move(place["left"], place["top"])
        return self.tip.locator("b").inner_text()

    def text(self, row: int, column: int) -> str:
        unit, concept = self.units[row], self.concepts[column]
        return f"unit {unit}, {self.names[concept]}, IoU {codes(self.D)[unit, concept] / 65535:.3f}"

    def readout(self) -> str:
        return self.view.locator(".ganlens-heatmap-readout").inner_text()

    def labels(self, part: str) -> list[dict]:
        boxes = self.view.locator(f".ganlens-heatmap-{part}").evaluate(BOXES)
        return sorted(boxes, key=lambda box: box["x" if part == "head" else "y"])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.lab.keyboard.press(key)


@pytest.fixture
def shown(lab):
    shown = Shown(lab)
    shown.view.scroll_into_view_if_needed()
    lab.mouse.move(5, 5)
    return shown


@pytest.mark.browser
class TestPage:
    def test_hovering_asks_the_kernel_nothing(self, shown, lab):
        before = lab.evaluate("messages.length")
        rng = np.random.default_rng(0)
        for row, column in zip(rng.integers(0, 130, 30), rng.integers(0, CONCEPTS, 30), strict=True):
            assert shown.hover(int(row), int(column)) == shown.text(row, column)
        lab.wait_for_timeout(300)
        assert lab.evaluate("messages.length") == before
        lab.mouse.move(5, 5)
        assert not shown.tip.is_visible()

    def test_tooltip_stays_inside_the_window(self, shown, lab):
        for column in (0, CONCEPTS - 1):
            shown.hover(100, column)
            box, window = shown.tip.bounding_box(), lab.viewport_size
            assert 0 <= box["x"] <= window["width"] - box["width"]
            assert 0 <= box["y"] <= window["height"] - box["height"]

    def test_click_selects_unit_and_concept(self, shown, lab):
        other = Shown(lab, 1)
        for row, column in ((20, 7), (57, 140)):
            lab.evaluate("messages.length = 0")
            shown.hover(row, column)
            place = shown.cell(row, column)
            lab.mouse.click(place["left"], place["top"])
            lab.wait_for_function("messages.some(([way]) => way === 'send')")
            unit, name = shown.units[row], shown.names[shown.concepts[column]]
            shown.assert_traits(f"{unit} ({unit},) {name}")
            assert [kind for way, kind in lab.evaluate("messages") if way == "send"] == ["comm_msg", "execute_request"]
            for view in (shown, other):
                assert view.readout() == f"Selected: {shown.text(row, column)}"
                assert view.view.locator(".ganlens-heatmap-head .on").inner_text() == name

    def test_clicks_reach_the_kernel_while_no_cell_runs(self, shown, lab):
        shown.ask("arrived = []; heatmap.observe(lambda change: arrived.append(change['new']), 'unit')")
        place = shown.cell(10, 10)
        lab.mouse.click(place["left"], place["top"])
        lab.wait_for_timeout(200)
        assert shown.ask("print(arrived)") == f"[{shown.units[10]}]"

    def test_keys(self, shown, lab):
        place = shown.cell(3, 2)
        lab.mouse.click(place["left"], place["top"])
        shown.press("ArrowDown", "ArrowDown", "ArrowRight")
        grid = shown.view.get_by_role("application")
        assert shown.text(5, 3) in grid.get_attribute("aria-label")
        assert shown.readout() == shown.text(5, 3)
        assert shown.tip.locator("b").inner_text() == shown.text(5, 3)
        shown.press("Escape")
        assert not shown.tip.is_visible()
        shown.press("ArrowLeft", "ArrowUp", "Enter")
        shown.assert_traits(f"{shown.units[4]} ({shown.units[4]},) {shown.names[shown.concepts[2]]}")
        shown.press("Control+End", "End", " ")
        shown.assert_traits(f"{shown.units[-1]} ")
        assert shown.cell(UNITS - 1, CONCEPTS - 1)["inside"]
        assert shown.readout() == f"Selected: {shown.text(UNITS - 1, CONCEPTS - 1)}"
        shown.press("Control+Home", "Home", "PageDown", "PageUp", "ArrowUp", "Enter")
        assert shown.readout() == f"Selected: {shown.text(0, 0)}"

    def test_keys_do_not_leave(self, shown, lab):
        cells = "jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(cell => cell.getSource())"
        before = lab.evaluate(cells)
        place = shown.cell(3, 2)
        lab.mouse.click(place["left"], place["top"])
        shown.press(*"abddxmy", "ArrowDown", "Enter", "+", "-", "0")
        assert lab.evaluate(cells) == before
        shown.press("Shift+Tab")
        assert lab.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Fill the width")
        lab.wait_for_timeout(300)  # until the zoom is in the kernel

    @pytest.mark.parametrize("order", ORDERS)
    def test_order_is_that_of_python(self, shown, lab, order):
        for filters in ({}, {"search": "tree, sky, material", "minimum": 0.03}, {"interpretable_only": True}):
            shown.set(order=order, zoom=6, **filters)
            units = [str(unit) for unit in shown.units]
            names = [shown.names[concept] for concept in shown.concepts]
            rows, columns = shown.labels("side"), shown.labels("head")
            assert [row["text"] for row in rows] == units[: len(rows)]
            assert [column["text"] for column in columns] == names[: len(columns)]
            assert min(len(rows), len(columns)) >= 9
            shown.scroll(100_000)
            rows, columns = shown.labels("side"), shown.labels("head")
            assert [row["text"] for row in rows] == units[-len(rows) :]
            assert [column["text"] for column in columns] == names[-len(columns) :]

    @pytest.mark.parametrize("order", ["concept", "IoU"])
    def test_labels_do_not_overlap(self, shown, order):
        for zoom in (0.4, 1, 4, 30):
            shown.set("heatmap.units, heatmap.unit, heatmap.concept = (3, 4, 5), 3, 'tree'", order=order, zoom=zoom)
            for part, axis in (("head", "x"), ("side", "y")):
                boxes = shown.labels(part)
                assert boxes
                for one, next_ in pairwise(boxes):
                    assert one[axis][1] <= next_[axis][0] + 0.5, (zoom, one, next_)

    def test_controls(self, shown, lab):
        counts = shown.view.locator(".ganlens-heatmap-faint")
        assert counts.inner_text() == "512 of 512 units × 150 of 150 concepts"
        shown.view.get_by_role("checkbox", name="interpretable only").check()
        shown.view.get_by_role("slider", name="IoU").fill("0.2")
        shown.view.get_by_role("combobox", name="units").select_option("IoU")
        shown.view.get_by_role("searchbox", name="concepts").press_sequentially("red")
        shown.expect(order="IoU", minimum=0.2, interpretable_only=True, search="red")
        assert 0 < len(shown.units) < 100
        assert counts.inner_text() == f"{len(shown.units)} of 512 units × 30 of 150 concepts"
        assert shown.readout() == "Click a cell to select its unit and its concept."
        lab.wait_for_timeout(300)
        state = shown.ask("print(heatmap.order, heatmap.minimum, heatmap.interpretable_only, heatmap.search)")
        assert state == "IoU 0.2 True red"
        other = lab.locator(".ganlens-heatmap").nth(1)
        assert other.get_by_role("searchbox").input_value() == "red"
        assert other.locator(".ganlens-heatmap-faint").inner_text() == counts.inner_text()
        shown.view.get_by_role("searchbox").fill("zebra")
        assert "No concept matches “zebra”." in shown.view.inner_text()
        shown.view.get_by_role("button", name="Show all").click()
        assert counts.inner_text() == "512 of 512 units × 150 of 150 concepts"
        lab.wait_for_timeout(300)

    def test_zoom(self, shown, lab):
        said = shown.hover(40, 70)
        lab.keyboard.down("Control")
        for _ in range(4):
            lab.mouse.wheel(0, -200)
        lab.keyboard.up("Control")
        lab.wait_for_timeout(400)
        zoom = float(shown.ask("print(heatmap.zoom)"))
        assert 5 < zoom < 9
        place = shown.cell(40, 70)
        assert place["inside"]
        lab.mouse.move(place["left"], place["top"] + 1)
        assert shown.tip.locator("b").inner_text() == said
        shown.view.get_by_role("button", name="Fill the width").click()
        for _ in range(3):
            if shown.view.get_by_role("button", name="Zoom out").is_enabled():
                shown.view.get_by_role("button", name="Zoom out").click()
        assert shown.cell(400, 0)["inside"]
        assert shown.view.get_by_role("button", name="Zoom out").is_disabled()
        lab.wait_for_timeout(300)

    def test_follows_the_kernel(self, shown, lab):
        shown.ask("heatmap.units, heatmap.unit, heatmap.concept = (400, 3), 400, 'red lamp:color'")
        row, column = shown.units.index(400), shown.concepts.index(shown.names.index("red lamp"))
        place = shown.cell(row, column)
        assert place["inside"]
        assert shown.view.locator(".ganlens-heatmap-side .on").all_inner_texts() == ["unit 400"]
        assert shown.view.locator(".ganlens-heatmap-head .on").inner_text() == "red lamp"
        assert shown.readout() == f"Selected: {shown.text(row, column)}, and 1 more unit"
        white = shown.canvas.evaluate(COLOUR, {"x": 100, "y": round(place["y"]) - 3})
        assert white == [255, 255, 255, 255]
        shown.ask("heatmap.search = 'tree'")
        assert shown.readout() == "Selected: unit 400, red lamp, and 1 more unit (left out by the filters)"

    @pytest.mark.parametrize("ratio", [1, 2])
    def test_pixels(self, shown, lab, ratio):
        screen = {"width": 1280, "height": 1000, "deviceScaleFactor": ratio, "mobile": False}
        devtools = lab.context.new_cdp_session(lab)
        devtools.send("Emulation.setDeviceMetricsOverride", screen)
        try:
            shown.set(order="unit", zoom=6)
            iou = codes(shown.D)
            for row, column in ((0, 0), (5, 3), (12, 9), (20, 17), (8, 1)):
                place = shown.cell(row, column)
                assert place["inside"]
                expected = colours_of(iou[row, column], iou.max()).tolist()
                assert shown.canvas.evaluate(COLOUR, place)[:3] == expected
            size = shown.canvas.evaluate("canvas => [canvas.width, canvas.getBoundingClientRect().width]")
            assert size[0] == pytest.approx(ratio * size[1], abs=1)
        finally:
            devtools.send("Emulation.clearDeviceMetricsOverride")

    @pytest.mark.parametrize("theme", ["Dark", "Light"])
    def test_themes(self, shown, lab, pictures, theme):
        show_theme(lab, theme)
        shown.set("heatmap.units, heatmap.unit, heatmap.concept = D.units('tree', 12), D.units('tree')[4], 'tree'")
        assert shown.hover(45, 60) == shown.text(45, 60)
        colour = shown.view.evaluate("view => getComputedStyle(view).color")
        assert (min(int(part) for part in colour.strip("rgba()").split(",")[:3]) > 128) == (theme == "Dark")
        lab.screenshot(path=pictures / f"heatmap-{theme.lower()}.png")

    def test_comes_back_after_a_reload(self, shown, lab):
        shown.set("heatmap.unit = 77", order="IoU", search="red", zoom=6)
        lab.evaluate("jupyterapp.commands.execute('docmanager:save')")
        lab.reload()
        lab.locator(".ganlens-heatmap-side .on").first.wait_for(timeout=60_000)
        lab.wait_for_function(f"{KERNEL}.status === 'idle'")
        assert shown.view.get_by_role("searchbox").input_value() == "red"
        assert shown.cell(shown.units.index(77), 0)["inside"]
        assert shown.view.locator(".ganlens-heatmap-side .on").inner_text() == "77"
