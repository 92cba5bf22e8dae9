"""Figures show the numbers and pixels that they were given, in order, and their texts are readable."""

from itertools import combinations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens import plots
from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import Effect
from ganlens.intervals import CONFIDENCE
from ganlens.segmenters.base import Concept, Segmenter


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (7, 16, 12, 3), np.uint8)


def made_up(units: int, concepts: int, shown: float = 0.7, longest: int = 12) -> Dissection:
    """A dissection of random integer counts; a share ``shown`` of the units draws a concept."""
    rng = np.random.default_rng(units)
    vocabulary = tuple(
        Concept(f"{'name ' * (i % longest)}{i}", ("object", "part", "color")[i % 3]) for i in range(concepts)
    )
    overlap = rng.integers(0, 9, (units, concepts))
    rows = np.flatnonzero(rng.random(units) < shown)
    overlap[rows, (rng.random(len(rows)) ** 3 * concepts).astype(int)] = rng.integers(100, 600, len(rows))
    fields = ["thresholds_by_concept", "valid", "top", "top_values"]
    return Dissection(
        layer="layer4",
        concepts=vocabulary,
        rule="quantile",
        quantile=0.01,
        n=10,
        sample=0,
        complete=True,
        within_category=False,
        shape=(8, 8, 64, 64),
        on=np.full((units, concepts), 1000),
        overlap=overlap,
        area=np.full(concepts, 700),
        scope=np.full(concepts, 40960),
        levels=None,
        origin={"generator": "made up", "segmenter": "made up"},
        **{name: np.ones((units, concepts), int) for name in fields},
    )


def made_up_effect(concepts: int, target: int, sets: int = 3, n: int = 50) -> Effect:
    """An effect of random pixel counts: some concepts shrink, some grow, few of them much."""
    rng = np.random.default_rng(concepts)
    vocabulary = made_up(1, concepts).concepts
    before = rng.integers(1, 100, (n, concepts))
    after, random = (before * rng.uniform(0.4, 1.3, (k, 1, concepts)) for k in (1, sets))
    counts = {"before": before, "after": after[0], "random_after": random}
    return Effect(layer="layer4", units=(3, 5), concept=vocabulary[target], concepts=vocabulary, **counts)


# ---- what can be read


def texts(figure):
    """Every text that is drawn: titles, names of axes and of ticks inside the view, keys, notes."""
    for ax in figure.axes:
        yield from (*ax.texts, ax._left_title)
        yield from ax.get_legend().get_texts() if ax.get_legend() else ()
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            yield from (tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)
            yield from (tick.label2 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)


def drawn_boxes(figure):
    figure.draw_without_rendering()
    shown = [text for text in texts(figure) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


def overlaps(a, b) -> bool:
    """Two boxes share more than half a pixel in both directions."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5


def assert_readable(drawn):
    figure = np.ravel(drawn)[0].figure
    boxes = drawn_boxes(figure)
    assert [(a, b) for (a, x), (b, y) in combinations(boxes, 2) if overlaps(x, y)] == []
    page = figure.bbox
    cut = [a for a, x in boxes if x.x0 < -1 or x.y0 < -1 or x.x1 > page.width + 1 or x.y1 > page.height + 1]
    assert cut == []


@pytest.mark.parametrize(("units", "concepts"), [(3, 3), (60, 13), (512, 13), (512, 150)])
class TestNumbersAreReadable:
    def test_concept_bars(self, units, concepts):
        assert_readable(plots.concept_bars(made_up(units, concepts, 1)))

    def test_layers_bars(self, units, concepts):
        assert_readable(plots.layers_bars({f"layer{i}": made_up(units + i, concepts, 1) for i in range(9)}))

    def test_iou_matrix(self, units, concepts):
        assert_readable(plots.iou_matrix(made_up(units, concepts), range(units)))

    def test_effect_bars(self, units, concepts):
        assert_readable(plots.effect_bars(made_up_effect(concepts, 1)))


def test_pictures_are_readable(D, G, S):
    x = G.generate(range(5))
    assert_readable(plots.images(x, ["a title that is far too long for a small picture"] * 5, columns=5))
    assert_readable(plots.before_after(x, x, ["1", "22", "333", "4444", "55555"], columns=3))
    assert_readable(plots.segmentation(x, S, columns=2))
    assert_readable(plots.unit_strips(D, range(9), k=8))
    assert_readable(plots.unit_maps(D, 0, k=3))


# ---- pictures


def test_images_show_every_pixel(pictures):
    ax = plots.images(pictures, columns=4)
    assert [image.get_array().tolist() for image in ax.images] == pictures.tolist()
    ax.figure.canvas.draw()
    screen = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]
    for image, picture in zip(ax.images, pictures, strict=True):
        box = image.get_window_extent()
        left, top = round(box.x0), round(len(screen) - box.y1)
        assert box.width % 12 == pytest.approx(0, abs=1e-6)
        factor = round(box.width / 12)
        seen = screen[top : top + 16 * factor, left : left + 12 * factor]
        np.testing.assert_array_equal(seen, picture.repeat(factor, 0).repeat(factor, 1))


def test_images_are_converted():
    x = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    black, white = plots.images(x).images
    assert (black.get_array() == 0).all()
    assert (white.get_array() == 255).all()


def test_images_stand_in_rows(pictures):
    boxes = [image.get_window_extent() for image in plots.images(pictures, columns=3).images]
    order = sorted(range(7), key=lambda i: (-round(boxes[i].y0), boxes[i].x0))
    assert order == list(range(7))
    assert len({round(box.y0) for box in boxes}) == 3


def test_titles_belong_to_their_pictures(pictures):
    ax = plots.images(pictures, titles="abcdefg", columns=3)
    for text, image in zip(ax.texts, ax.images, strict=True):
        box, frame = text.get_window_extent(), image.get_window_extent()
        assert frame.x0 - 1 <= box.x0 <= box.x1 <= frame.x1
        assert 0 <= box.y0 - frame.y1 < 10
    assert "".join(text.get_text() for text in ax.texts) == "abcdefg"


def test_difference_is_that_of_the_channel_that_differs_most(pictures):
    after = pictures.copy()
    after[2, 5, 6] = pictures[2, 5, 6] ^ [0, 128, 0]
    after[3, 1, 1] = pictures[3, 1, 1] ^ [16, 0, 32]
    ax = plots.before_after(pictures, after, columns=7)
    shown = np.array([image.get_array() for image in ax.images])
    np.testing.assert_array_equal(shown[:7], pictures)
    np.testing.assert_array_equal(shown[7:14], after)
    light = shown[14:].astype(int).sum(3)
    nothing = light.min()
    assert light[2, 5, 6] > light[3, 1, 1] > nothing
    assert (light > nothing).sum() == 2
    assert "up to 50%" in [text.get_text() for text in ax.texts]


def test_segmentation_has_the_colours_of_its_key(pictures):
    concepts = ["a", "b", "c", "d"]
    planes = torch.zeros(2, 1, 16, 12, dtype=torch.int64)
    planes[0, 0, :5], planes[1, 0, 3:, :4] = 4, 2
    S = Segmenter.wrap(lambda x: planes, concepts)
    x = torch.zeros(2, 3, 16, 12)
    ax = plots.segmentation(x, S)
    legend = ax.get_legend()
    key = {t.get_text(): p.get_facecolor()[:3] for t, p in zip(legend.get_texts(), legend.get_patches(), strict=True)}
    assert list(key) == ["d", "b"]  # the largest first, and only those that occur
    for image, plane in zip(ax.images[2:], planes[:, 0].numpy(), strict=True):
        shown = image.get_array() / 255
        for name, color in key.items():
            assert np.isclose(shown, color).all(2).tolist() == (plane == concepts.index(name) + 1).tolist()
    with pytest.raises(ValueError, match="plane=1"):
        plots.segmentation(x, S, plane=1)


def test_strips_are_the_spotlights_in_the_order_asked_for(D):
    units = [7, 3, 150]
    ax = plots.unit_strips(D, units, k=2)
    expected = np.concatenate(D.spotlights(units, 2))
    np.testing.assert_array_equal([image.get_array() for image in ax.images], expected)
    rows = {row["unit"]: row for row in D.rows()}
    told = [text.get_text() for text in ax.texts]
    for unit, name, numbers in zip(units, told[::2], told[1::2], strict=True):
        assert name == rows[unit]["concept"]
        assert numbers == f"unit {unit} · IoU {rows[unit]['iou']:.2f}"


def test_strips_say_how_many_are_left_out(D):
    ax = plots.unit_strips(D, range(45), k=1)
    assert len(ax.images) == 40
    assert "40 of 45" in ax.get_title("left")


def test_maps_are_brightest_where_the_unit_is(D, G):
    unit, k = int(np.argmax(D.top_values[:, 0])), 3
    images = plots.unit_maps(D, unit, k).images
    x, features = G.read(G.latents(D.top[unit, :k].tolist()), ["layer4"])
    np.testing.assert_array_equal([i.get_array() for i in images[:k]], gl.images.to_uint8(x))
    for image, r in zip(images[k : 2 * k], features["layer4"][:, unit], strict=True):
        heat = np.asarray(image.get_array(), int)
        white = (heat == 255).all(2)
        light = np.where(white, 0, heat.sum(2))
        y, x = np.unravel_index(light.argmax(), light.shape)
        cell = r.argmax().item()
        assert abs(y / 24 - cell // 8 - 0.5) < 1
        assert abs(x / 24 - cell % 8 - 0.5) < 1
        assert white.any()


# ---- numbers


def heights(ax):
    return [bar.get_height() for bar in ax.containers[0]]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def D60():
    return made_up(60, 9, longest=3)


def count(D, **wanted):
    return sum(row["interpretable"] and all(row[k] == v for k, v in wanted.items()) for row in D.rows())


def test_concept_bars_count_units(D60):
    ax = plots.concept_bars(D60)
    names = ticks(ax.xaxis)
    assert heights(ax) == [count(D60, concept=name) for name in names]
    assert set(names) == {row["concept"] for row in D60.rows() if row["interpretable"]}
    assert f"{count(D60)} of 60 units draw one of {len(names)} concepts" in ax.get_title("left")
    categories = [c.category for name in names for c in D60.concepts if c.name == name]
    assert categories == sorted(categories, key=["object", "part", "color"].index)
    for category in set(categories):
        group = [h for h, c in zip(heights(ax), categories, strict=True) if c == category]
        assert group == sorted(group, reverse=True)
    assert [text.get_text() for text in ax.texts] == [str(h) for h in heights(ax)]


def test_concept_bars_say_how_many_are_left_out(D60):
    ax = plots.concept_bars(D60, limit=2)
    everything = sorted(heights(plots.concept_bars(D60)), reverse=True)
    assert sorted(heights(ax), reverse=True) == everything[:2]
    assert f"{len(everything) - 2} of them not shown" in ax.get_title("left")


def test_concept_bars_of_nothing():
    assert plots.concept_bars(made_up(5, 3, shown=0)).get_title("left") == "layer4: 0 of 5 units draw one of 0 concepts"


def test_layers_bars_stack_categories(D60):
    several = {"first": D60, "second": made_up(40, 9)}
    units, distinct = plots.layers_bars(several)
    for category, bars, kinds in zip(("object", "part", "color"), units.containers, distinct.containers, strict=True):
        assert [bar.get_height() for bar in bars] == [count(D, category=category) for D in several.values()]
        found = [
            {row["concept"] for row in D.rows() if row["interpretable"] and row["category"] == category}
            for D in several.values()
        ]
        assert [bar.get_height() for bar in kinds] == [len(names) for names in found]
    assert [text.get_text() for text in units.texts] == [str(count(D)) for D in several.values()]


def test_iou_matrix_orders_units_by_concept(D60):
    ax = plots.iou_matrix(D60)
    rows = [row for row in D60.rows() if row["interpretable"]]
    names = [c.name for c in D60.concepts]
    units = [row["unit"] for row in sorted(rows, key=lambda row: (names.index(row["concept"]), -row["iou"]))]
    np.testing.assert_array_equal(ax.images[0].get_array(), D60.iou[units])
    assert ticks(ax.xaxis) == names
    assert ticks(ax.yaxis) == [f"unit {unit}" for unit in units]


def test_iou_matrix_of_many_names_groups():
    D = made_up(512, 13)
    ax = plots.iou_matrix(D)
    assert len(ax.images[0].get_array()) == len(D.interpretable)
    best = [row["concept"] for row in D.rows() if row["interpretable"]]
    for label in ticks(ax.yaxis):
        name, number = label.rsplit(" (", 1)
        full = [c.name for c in D.concepts if c.name.startswith(name.rstrip("…"))]
        assert best.count(full[0]) == int(number[:-1]) or len(full) > 1


def test_effect_bars_show_the_target_first():
    effect = made_up_effect(6, target=2)
    ax = plots.effect_bars(effect)
    others = sorted(set(range(6)) - {2}, key=lambda c: -abs(effect.removed[c]))
    order = [2, *others]
    assert [bar.get_width() for bar in ax.containers[0]] == pytest.approx(effect.removed[order])
    places = ax.get_yticks()
    assert sorted(places) == list(places)
    assert ax.yaxis_inverted()
    lines = [tuple(path.vertices[:, 0]) for path in ax.collections[0].get_paths()]
    assert lines == [pytest.approx(pair) for pair in zip(effect.low[order], effect.high[order], strict=True)]
    assert f"lines: {CONFIDENCE:.0%} interval" in ax.get_xlabel()
    dots = ax.collections[1].get_offsets()
    assert sorted(map(tuple, dots)) == sorted(zip(effect.random[:, order].ravel(), [*places] * 3, strict=True))


def test_effects_beyond_the_edge_are_marked_and_told():
    effect = made_up_effect(4, target=0)
    effect.after[:, 1] = 3.4 * effect.before[:, 1]
    ax = plots.effect_bars(effect)
    assert ax.get_xlim()[0] >= -1.1
    assert ax.containers[0][1].get_width() == -1
    arrows = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "<"]
    assert arrows == [[[-1, ax.get_yticks()[1]]]]
    assert "−240%" in [text.get_text() for text in ax.texts]


def test_effect_bars_say_how_many_are_left_out():
    ax = plots.effect_bars(made_up_effect(150, target=7), limit=5)
    assert len(ax.containers[0]) == 5
    assert "145 other concepts" in ax.get_title("left")


def test_concepts_that_are_not_in_the_images_have_no_bar():
    effect = made_up_effect(5, target=2)
    effect.before[:, [0, 4]] = 0
    ax = plots.effect_bars(effect)
    shown = [effect.concepts[c].name for c in (2, *sorted((1, 3), key=lambda c: -abs(effect.removed[c])))]
    assert ticks(ax.yaxis) == shown
    assert ax.get_title("left").endswith("not in the images: 2")
    effect.before[:, 2] = 0
    ax = plots.effect_bars(effect)
    assert ticks(ax.yaxis) == shown[1:]
    assert f"{effect.concept} is not in the images" in ax.get_title("left")
    assert_readable(ax)
    effect.before[:] = 0
    with pytest.raises(ValueError, match="no concept is in the 50 images"):
        plots.effect_bars(effect)


def test_effect_of_an_ablation_is_drawn(D):
    assert_readable(plots.effect_bars(gl.ablation_effect(D, "tree", k=5, n=8, draws=1, progress=False)))


# ---- manners


def test_given_axes_are_used_and_nothing_else_is_changed(D60, pictures):
    before = dict(mpl.rcParams)
    _, ax = plt.subplots()
    assert plots.images(pictures, ax=ax) is ax
    assert plots.concept_bars(D60, ax=plt.figure().add_subplot()) in plt.gcf().axes
    plots.iou_matrix(D60, ax=plt.figure().add_subplot())
    plots.effect_bars(made_up_effect(3, 0), ax=plt.figure().add_subplot())
    assert len(plt.get_fignums()) == 4
    assert dict(mpl.rcParams) == before


def test_new_figures_belong_to_pyplot(D60, pictures):
    """So a notebook shows each of them once, and `plt.show` and `plt.close` know them."""
    plots.images(pictures)
    plots.concept_bars(D60)
    plots.layers_bars({"one": D60})
    assert len(plt.get_fignums()) == 3


def test_empty_input_raises(D60, D, pictures):
    nothing = pictures[:0]
    for draw in (
        lambda: plots.images(nothing),
        lambda: plots.images(torch.zeros(0, 3, 4, 4)),
        lambda: plots.before_after(nothing, nothing),
        lambda: plots.unit_strips(D, []),
        lambda: plots.unit_strips(D, [0], k=0),
        lambda: plots.unit_maps(D, 0, k=0),
        lambda: plots.concept_bars(D60, limit=0),
        lambda: plots.layers_bars({}),
        lambda: plots.iou_matrix(D60, []),
        lambda: plots.iou_matrix(made_up(5, 3, shown=0)),
        lambda: plots.effect_bars(made_up_effect(3, 0), limit=0),
        lambda: plots.images(pictures, columns=0),
    ):
        with pytest.raises(ValueError, match=r"no |at least"):
            draw()
    assert plt.get_fignums() == []


def test_wrong_input_raises(D, pictures):
    with pytest.raises(ValueError, match="2 titles for 7"):
        plots.images(pictures, ["a", "b"])
    with pytest.raises(ValueError, match="same number"):
        plots.before_after(pictures, pictures[:3])
    with pytest.raises(ValueError, match="unit 999"):
        plots.unit_maps(D, 999)
    with pytest.raises(ValueError, match="unit 999"):
        plots.iou_matrix(D, [999])
    with pytest.raises(ValueError, match="expected"):
        plots.images(pictures[0])
