"""The painter: scenes that depend on the seed alone, with labels that obey the laws of the place."""

from itertools import pairwise

import numpy as np
import pytest

from ganlens.scenes.canvas import Canvas
from ganlens.scenes.church import plan_church
from ganlens.scenes.painter import CONCEPTS, HELD_OUT, paint, paint_many

VALUES = {name: value for value, (name, _) in enumerate(CONCEPTS, 1)}
# share of the images that show at least eight pixels of the concept
PRESENCE = {
    "sky": (1, 1), "cloud": (0.5, 0.8), "sun": (0.2, 0.45),
    "hill": (0.75, 1), "grass": (1, 1), "path": (0.4, 0.65),
    "tree": (0.55, 0.85), "wall": (0.97, 1), "roof": (0.97, 1), "dome": (0.33, 0.6), "tower": (0.33, 0.6),
    "door": (0.78, 0.92), "window": (0.9, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return paint_many(range(200))


def mean_row(mask):
    return np.nonzero(mask)[0].mean()


def boxes(labels, name):
    """Height and width of the bounding box of a concept in each image that shows it."""
    for mask in labels == VALUES[name]:
        if mask.any():
            rows, cols = np.nonzero(mask)
            yield np.ptp(rows) + 1, np.ptp(cols) + 1


def test_thirteen_concepts_objects_first():
    names, categories = zip(*CONCEPTS, strict=True)
    assert names == tuple(PRESENCE)
    assert categories == ("object",) * 7 + ("part",) * 6


def test_a_seed_is_a_picture_whatever_came_before(scenes):
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    for seed in (7, 199, 0):
        image, labels = paint(seed)
        assert np.array_equal(image, scenes[0][seed])
        assert np.array_equal(labels, scenes[1][seed])


def test_different_seeds_differ(scenes):
    assert len(np.unique(scenes[0].reshape(200, -1), axis=0)) == 200


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_shapes_types_and_labels_everywhere(size):
    image, labels = paint(5, size)
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((size, size), np.uint8)
    assert labels.min() >= 1
    assert labels.max() <= 13


def test_no_seeds_give_empty_arrays():
    images, labels = paint_many([], size=32)
    assert images.shape == (0, 32, 32, 3)
    assert labels.shape == (0, 32, 32)


@pytest.mark.parametrize("name", PRESENCE)
def test_presence(scenes, name):
    low, high = PRESENCE[name]
    share = ((scenes[1] == VALUES[name]).sum((1, 2)) >= 8).mean()
    assert low <= share <= high


@pytest.mark.parametrize(("a", "b"), [("dome", "tower"), ("dome", "tree"), ("cloud", "sun"), ("tree", "path")])
def test_presences_are_nearly_independent(scenes, a, b):
    shown = [(scenes[1] == VALUES[name]).any((1, 2)) for name in (a, b)]
    assert abs(np.corrcoef(shown)[0, 1]) < 0.25


def test_the_door_stands_at_the_foot_of_the_wall_below_the_roof(scenes):
    below, foot = [], []
    for labels in scenes[1]:
        door = labels == VALUES["door"]
        if door.sum() < 20:
            continue
        below.append(mean_row(door) > mean_row(labels == VALUES["roof"]))
        masonry = np.isin(labels, [VALUES["wall"], VALUES["tower"]])
        foot.append(abs(np.nonzero(door)[0].max() - np.nonzero(masonry)[0].max()) <= 2)
    assert np.mean(below) >= 0.99
    assert np.mean(foot) >= 0.95


def test_the_sky_is_above_the_grass(scenes):
    for labels in scenes[1]:
        sky, grass = labels == VALUES["sky"], labels == VALUES["grass"]
        assert np.nonzero(sky)[0].max() <= np.quantile(np.nonzero(grass)[0], 0.2)
        assert sky[0].mean() > 0.3
        assert not sky[-1].any()


def test_the_path_leads_from_the_door_to_the_lower_border(scenes):
    for labels in scenes[1]:
        door, path = labels == VALUES["door"], labels == VALUES["path"]
        if path.sum() < 20:
            continue
        assert path[-1].any()
        if door.sum() >= 40:
            assert np.nonzero(path)[0].min() >= np.nonzero(door)[0].max() - 2


def test_domes_and_towers_rise_above_the_walls(scenes):
    for name in ("dome", "tower"):
        for labels in scenes[1][(scenes[1] == VALUES[name]).sum((1, 2)) >= 20]:
            assert mean_row(labels == VALUES[name]) < mean_row(labels == VALUES["wall"]) + 2


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [("door", 9, 6), ("window", 6, 4), ("dome", 8, 14), ("tower", 12, 8), ("tree", 14, 8)],
)
def test_no_element_is_tiny(scenes, name, height, width):
    sizes = np.array(list(boxes(scenes[1], name)))
    assert (np.quantile(sizes, 0.1, axis=0) >= (height, width)).all()


def test_the_church_fills_the_middle(scenes):
    church = np.isin(scenes[1], [VALUES[n] for n in ("wall", "roof", "tower", "dome", "door", "window")])
    assert 0.18 < church.mean() < 0.4
    assert church[:, 35:50, 20:44].mean() > 0.8


def test_labels_tell_the_colours(scenes):
    """Grass is green, the sun bright, and a door darker than the sun and the clouds."""
    images, labels = scenes
    mean = {name: images[labels == value].mean(0) for name, value in VALUES.items()}
    assert mean["grass"].argmax() == 1
    assert mean["tree"][2] < mean["tree"][1]
    assert mean["sun"].mean() > 170
    assert mean["door"].mean() < 0.6 * min(mean["sun"].mean(), mean["cloud"].mean())


def test_the_same_composition_at_every_size(scenes):
    images, labels = paint_many(range(20), 128)
    assert (labels[:, ::2, ::2] == scenes[1][:20]).mean() >= 0.93
    halved = images.reshape(20, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - scenes[0][:20]).mean() < 4


def test_day_never_night(scenes):
    assert scenes[0].mean((1, 2, 3)).min() > 80


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True])
def test_a_bad_seed_raises(seed):
    with pytest.raises(ValueError, match=r"seed is .* expected an integer"):
        paint(seed)


@pytest.mark.parametrize("size", [0, 16, 50, 64.0, "64", -64])
def test_a_bad_size_raises(size):
    with pytest.raises(ValueError, match=r"size is .* expected a multiple of 16"):
        paint(0, size)
    with pytest.raises(ValueError, match=r"size is .* expected a multiple of 16"):
        paint_many([0], size)


@pytest.fixture(scope="module")
def churches():
    """As `paint` plans them."""
    return [plan_church(Canvas(32, np.random.default_rng(HELD_OUT + i)).rng) for i in range(2000)]


class TestPlaces:
    """Whether there is a door follows from nothing else: paintings that nothing is trained on, as they are planned."""

    def test_every_kind_of_place_may_hold_a_door(self, churches):
        held = {}
        for church in churches:
            for place in church.places:
                held.setdefault(place.kind, []).append(place.holds)
        assert set(held) == {"front", "aisle", "side", "hall", "cube", "tower"}
        for kind, holds in held.items():
            assert 0.3 < holds.count("door") / len(holds) < 0.7, kind
            assert 0.3 < holds.count("door") / (len(holds) - holds.count("window")) < 0.7, kind
            assert 0.15 < holds.count("window") / len(holds) < 0.4, kind

    def test_a_door_follows_from_no_other_place(self, churches):
        pairs = [(a.holds == "door", b.holds == "door") for c in churches for a, b in pairwise(c.places)]
        assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.05

    def test_scenes_have_no_door_or_some(self, churches):
        counts = np.bincount([min(3, len(church.doors)) for church in churches], minlength=4) / len(churches)
        assert (counts >= 0.08).all()

    def test_doors_are_painted_where_they_are_planned(self, churches):
        seen, planned = 0, 0
        for i, church in enumerate(churches[:60]):
            door = paint(HELD_OUT + i)[1] == VALUES["door"]
            for place in church.places:
                x = round(place.x)
                shown = door[round(church.base) - 8 : round(church.base) - 1, max(0, x - 1) : x + 2].mean() > 0.5
                if place.holds == "door":
                    seen, planned = seen + shown, planned + 1
                else:
                    assert not shown
        assert seen / planned > 0.85  # trees stand before some
