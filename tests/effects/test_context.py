"""Where concepts can go, on generators in which that is known."""

import dataclasses
import os
import signal

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from planted import TWO_PLANES, Between, Lattice, two_planes
from test_plots import assert_readable
from torch import nn

import ganlens as gl
from ganlens import plots
from ganlens.dissection.dissect import dissect
from ganlens.dissection.result import Dissection
from ganlens.effects.context import context, most_frequent, neighbourhood, tried, where
from ganlens.effects.context_result import Context
from ganlens.effects.insertion import presence_levels
from ganlens.models.base import Generator
from ganlens.models.editing import Edit, insert
from ganlens.segmenters.base import Concept, Segmenter

FLOWER, GRASS = 1, 2  # labels


class Meadow(nn.Module):
    """Unit 0 draws a flower, but only where unit 1 has put grass; units 2 … 5 do nothing."""

    def __init__(self):
        super().__init__()
        self.layer = Between()

    def forward(self, z):
        pattern = torch.stack([z.roll(k, 1) for k in range(6)], 1).unflatten(2, (4, 4))
        level = torch.tensor([1.5, 0.0, 1, 1, 1, 1])[:, None, None]
        r = self.layer((pattern > level).float())
        flower, grass = r[:, 0] * r[:, 1], r[:, 1] * (1 - r[:, 0])
        x = torch.stack([flower, grass, torch.zeros_like(grass)], 1) * 2 - 1
        return x.repeat_interleave(4, 2).repeat_interleave(4, 3)


def by_color(x):
    return ((x[:, :2] > 0) * torch.tensor([FLOWER, GRASS])[:, None, None]).sum(1, keepdim=True)


@pytest.fixture(scope="module")
def D():
    return dissect(
        Generator.wrap(Meadow(), 16), Segmenter.wrap(by_color, ["flower", "grass"]), "layer", n=64, progress=False
    )


@pytest.fixture(scope="module")
def C(D):
    return context(D, "flower", [0], n=30, progress=False)


def test_sentence(C, D):
    assert C.sentence() == "Switched on in one cell, it brings flower where grass was, not where nothing was."
    assert D.describe(0, context=C).endswith(C.sentence())
    with pytest.raises(ValueError, match="without unit 3"):
        D.describe(3, context=C)
    with pytest.raises(ValueError, match="expected a Context"):
        D.describe(0, context="flower")
    nowhere = context(D, "flower", [4, 5], n=30, progress=False)
    assert nowhere.sentence() == "Switched on in one cell with another one, it brings no flower to speak of."


@pytest.fixture(scope="module")
def lattice():
    G = Generator.wrap(Lattice(), 4, layers=["layer"])
    return dissect(G, Segmenter.wrap(two_planes, TWO_PLANES), "layer", n=64, progress=False)


# ---- the truth


def test_a_flower_grows_where_grass_is_and_nowhere_else(C):
    rows = {row["before"]: row for row in C.rows()}
    assert rows["grass"] | {"trials": 0, "images": 0} == {
        "before": "grass",
        "category": "object",
        "trials": 0,
        "images": 0,
        "gained": 16.0,
        "low": 16.0,
        "high": 16.0,
        "random": 0.0,
        "random_low": 0.0,
        "random_high": 0.0,
        "appears": 1.0,
        "gained_in_image": 16.0,
        "change_of_others": 16.0,
    }
    for name in ("nothing", "flower"):
        assert [rows[name][k] for k in ("gained", "low", "high", "appears", "change_of_others")] == [0] * 5
    assert next(iter(rows)) == "grass"
    assert sum(row["trials"] for row in rows.values()) == 30 * 16
    assert (C.maps == 16 * (C.before[..., 0] == GRASS)).all()
    assert C.changes()[GRASS].tolist() == [16, -16]


def test_units_that_do_nothing_change_nothing(D):
    C = context(D, "flower", [2, 3], n=8, progress=False)
    assert not C.gained.any()
    assert not C.change.any()


def test_random_units_take_turns(D, C):
    """Three sets of one unit, of which none is the flower; then sets that are, in every third image."""
    assert len(C.random_units) == 3
    assert not {unit for units in C.random_units for unit in units} & {0}
    assert not C.random_gained.any()
    assert C.random[GRASS] == 0
    several = context(D, "grass", [2, 3], n=8, draws=5, progress=False)
    for i in range(8):
        units = several.random_units[i % 5]
        assert (several.random_gained[i] == where(D, "grass", 1_000_000 + i, units=units)).all()
    assert several.random_gained.any()
    assert several.random[0] == pytest.approx(several.random_gained[several.before[..., 0] == 0].mean())
    none = context(D, "flower", [0], n=2, draws=0, progress=False)
    assert none.random_units == ()
    assert np.isnan([none.random, *none.random_interval]).all()
    assert "100%" in repr(none)
    with pytest.raises(ValueError, match="draws=-1: expected a number of random sets"):
        context(D, "flower", [0], draws=-1, progress=False)


def test_the_map_of_one_image_says_where_before_painting(D):
    G = D.generator
    for seed in (3, 4):
        grass = by_color(G.generate(seed))[0, 0, ::4, ::4].numpy() == GRASS
        assert (where(D, "flower", seed, units=[0]) == 16 * grass).all()


def test_images_are_new_and_maps_are_those_of_single_images(D, C):
    assert not set(D.top.ravel()) & set(range(1_000_000, 1_000_030))
    assert (C.maps[7] == where(D, "flower", 1_000_007, units=[0])).all()
    assert C.map.tolist() == C.maps.mean(0).tolist()
    assert (
        context(D, "flower", [0], n=3, sample=5, progress=False).maps[2] == where(D, "flower", 5_000_002, units=[0])
    ).all()


def test_the_layer_in_front_is_not_run_again(D):
    D.generator.net.layer.calls = 0
    context(D, "flower", [0], n=3, progress=False)
    assert D.generator.net.layer.calls == 3


# ---- the definition


def by_definition(D, edit: Edit, target: int, seed: int):
    """Full passes of the generator with an edit of one cell, and counts by Python's sums."""
    (height, width), (h, w) = D.shape[:2], D.shape[2:]
    G, S = D.generator, D.segmenter
    before = S.labels(G.generate([seed]))[0].numpy()
    majority, gained, change = [], [], []
    for y in range(height):
        for x in range(width):
            region = np.zeros((height, width))
            region[y, x] = 1
            after = S.labels(G.generate([seed], edit.replace(region=region)))[0].numpy()
            cell = before[:, y * h // height : (y + 1) * h // height, x * w // width : (x + 1) * w // width]
            majority.append([np.bincount(plane.ravel()).argmax() for plane in cell])
            rows = slice(max(0, (y - 1) * h // height), (y + 2) * h // height)
            columns = slice(max(0, (x - 1) * w // width), (x + 2) * w // width)
            near = (after[:, rows, columns] == target + 1).sum() - (before[:, rows, columns] == target + 1).sum()
            gained.append(near)
            change.append([(after == c + 1).sum() - (before == c + 1).sum() for c in range(len(D.concepts))])
    return majority, gained, change


def assert_equals_definition(D, C):
    for i in range(C.n):
        majority, gained, change = by_definition(D, C.edit, C.target, 1_000_000 + i)
        np.testing.assert_array_equal(C.before[i].reshape(-1, C.before.shape[-1]), majority)
        np.testing.assert_allclose(C.gained[i].ravel(), gained, atol=1e-5)
        np.testing.assert_allclose(C.change[i].reshape(-1, len(D.concepts)), change, atol=1e-5)


def test_equals_full_passes_with_two_label_planes(lattice):
    C = context(lattice, "above", [2, 3, 7], n=4, level=[1.5, 1, 3], progress=False)
    assert C.before.shape == (4, 4, 6, 2)
    assert C.gained.any()
    assert C.change.any((0, 1, 2)).sum() >= 4  # of both planes
    assert_equals_definition(lattice, C)


def test_equals_full_passes_of_the_embedded_generator(G, S):
    D = dissect(G, S, "layer1", n=32, progress=False)  # 4 x 4 cells
    C = context(D, "tree", n=1, progress=False)
    assert C.edit.level == tuple(D.levels.quantile(0.995)[D.units("tree")].tolist())
    assert C.gained.any()
    assert_equals_definition(D, C)


def test_by_what_was_there_counts_one_concept_of_every_plane(lattice):
    C = context(lattice, "hot", [3, 5, 6], n=5, level=1.0, progress=False)
    assert C.trials[1:4].sum() + (C.before[..., 0] == 0).sum() == C.gained.size
    assert C.trials[4:].sum() + (C.before[..., 1] == 0).sum() == C.gained.size
    assert C.trials[0] == (C.before == 0).all(-1).sum()
    for label in range(1, 6):
        trials = (C.before == label).any(-1)
        assert C.trials[label] == trials.sum()
        assert C.images[label] == trials.any((1, 2)).sum()
        if trials.any():
            assert C.gain[label] == pytest.approx(C.gained[trials].mean())
            assert C.appears(3)[label] == pytest.approx((C.gained[trials] >= 3).mean())
            assert C.everywhere[label] == pytest.approx(C.change[trials][:, 3].mean())
            others = np.abs(C.change[trials][:, [0, 1, 2, 4]]).sum(1)
            assert C.collateral[label] == pytest.approx(others.mean())


def test_majority_of_grids_that_do_not_fit():
    labels = torch.tensor([[0, 0, 1, 1, 2], [0, 2, 1, 2, 2], [2, 2, 0, 0, 0]])[None]
    assert most_frequent(labels, 2, (3, 5))[0].tolist() == labels[0].tolist()
    assert most_frequent(labels, 2, (1, 1))[0].tolist() == [[0]]
    assert most_frequent(labels, 2, (6, 5))[0, ::2].tolist() == labels[0].tolist()  # cells smaller than pixels


def test_what_is_near():
    assert neighbourhood(4, 8).astype(int).tolist() == [
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]
    assert neighbourhood(8, 4)[3].tolist() == [False, True, True, False]
    assert neighbourhood(1, 3).all()


def test_strides(D, C):
    for stride, rows in ((2, [1, 3]), (3, [1, 3]), (4, [2])):
        assert tried(4, stride).tolist() == rows
        some = context(D, "flower", [0], n=4, stride=stride, progress=False)
        assert (some.gained == C.gained[:4][:, rows][:, :, rows]).all()
        assert (some.before == C.before[:4][:, rows][:, :, rows]).all()
        assert some.maps.shape == (4, 4, 4)
        assert (some.maps[:, rows][:, :, rows] == some.gained).all()


# ---- exactness, statistics


def same(a: Context, b: Context) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("before", "gained", "change", "random_gained")
    )


def test_the_batch_changes_nothing(lattice, D):
    for dissection, concept, unit in ((lattice, "above", 3), (D, "flower", 0)):
        found = [context(dissection, concept, [unit], n=2, batch_size=size, progress=False) for size in (1, 9, 16, 500)]
        assert all(same(found[0], other) for other in found[1:])


def test_the_batch_changes_nothing_in_the_embedded_generator(G, S):
    D = dissect(G, S, "layer2", n=32, progress=False)
    found = [context(D, "dome", n=2, batch_size=size, progress=False) for size in (8, 16, 40)]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_the_interval_covers_the_truth_as_often_as_it_says(C):
    """Trials of one image resemble each other; still the 99 % interval contains the true mean nearly always."""
    random, inside = np.random.default_rng(0), 0
    for _ in range(200):
        image = random.normal(5, 2, (80, 1, 1))
        gained = np.round(100 * (image + random.normal(0, 3, (80, 3, 3)))).astype(int)
        made_up = dataclasses.replace(C, before=np.full((80, 3, 3, 1), GRASS), gained=gained)
        low, high = (end[GRASS] for end in made_up.interval)
        inside += low <= 500 <= high
    assert 0.96 <= inside / 200 <= 1


def test_no_interval_of_one_image(C):
    low, high = dataclasses.replace(C, before=C.before[:1], gained=C.gained[:1], change=C.change[:1]).interval
    assert np.isnan([low, high]).all()


# ---- manners


def test_an_interrupt_keeps_what_was_done(D, C, untouched):
    untouched(D.generator.net)

    def stop(done, total):
        assert total == 30
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    some = context(D, "flower", [0], n=30, progress=stop)
    assert (some.n, some.complete) == (3, False)
    assert (some.gained == C.gained[:3]).all()
    assert "3 images (incomplete)" in repr(some)
    assert C.complete


def test_an_error_leaves_nothing_behind(D, untouched):
    untouched(D.generator.net)

    def fail(x):
        raise RuntimeError("as asked")

    broken = dataclasses.replace(D, segmenter=Segmenter.wrap(fail, ["flower", "grass"]))
    with pytest.raises(RuntimeError, match="as asked"):
        context(broken, "flower", [0], n=2, progress=False)


def test_files_keep_everything(C, tmp_path):
    C.save(tmp_path / "c.npz")
    again = Context.load(tmp_path / "c.npz")
    assert same(C, again)
    for field in dataclasses.fields(Context):
        if field.name not in ("before", "gained", "change", "random_gained"):
            assert getattr(again, field.name) == getattr(C, field.name)
    assert repr(again) == repr(C)
    dataclasses.replace(C, random_units=(), random_gained=None).save(tmp_path / "c.npz")
    assert Context.load(tmp_path / "c.npz").random_gained is None


def test_damaged_files_are_refused(D, C, tmp_path):
    path = tmp_path / "c.npz"
    D.save(path)
    with pytest.raises(ValueError, match="damaged or no context"):
        Context.load(path)
    for damaged in ({"change": C.change[:2]}, {"random_gained": C.gained[:2]}, {"before": C.before[..., 0]}):
        dataclasses.replace(C, **damaged).save(path)
        with pytest.raises(ValueError, match="do not fit"):
            Context.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"c.npz is damaged or no context"):
        Context.load(path)


def test_a_loaded_dissection_knows_the_levels(D, tmp_path):
    """Levels come with the dissection: no further pass is made for them."""
    D.save(tmp_path / "d.npz")
    again = Dissection.load(tmp_path / "d.npz", Generator.wrap(Meadow(), 16), D.segmenter)
    assert same(context(again, "flower", n=2, k=1, progress=False), context(D, "flower", n=2, k=1, progress=False))
    assert not again.generator._known.levels


def test_it_reads_well(C):
    lines = repr(C).split("\n")
    assert lines[0] == "flower into layer of Meadow: 1 units switched on in one of 4 x 4 cells at a time, 30 images"
    gained, random = ["16.0", "(16.0", "…", "16.0)"], ["0.0", "(0.0", "…", "0.0)"]
    assert lines[2].split() == ["grass", *gained, *random, "100%", f"{C.trials[2]}", "in", "30", "images"]
    assert C.table().loc["grass", "gained"] == 16


def test_the_name_is_the_function():
    assert gl.context is context
    assert gl.where is where
    assert gl.Context is Context


def test_the_level_where_the_concept_is(D):
    C = context(D, "grass", [1, 2], n=1, level="presence", draws=1, progress=False)
    levels = presence_levels(D, C.concept)
    assert C.edit.level == tuple(levels[[1, 2]].tolist())
    assert levels.argmax() == 1
    random = insert("layer", C.random_units[0], levels[list(C.random_units[0])])
    assert (C.random_gained[0] == where(D, "grass", 1_000_000, units=random.units, level=random.level)).all()


def test_the_edit_can_be_painted(C):
    region = np.eye(4)
    assert C.edit.replace(region=region) == insert("layer", [0], C.edit.level, region=region)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "flwoer"}, "did you mean 'flower'"),
        ({"units": [6]}, "unit 6 is out of range"),
        ({"k": 0}, "k=0: layer has 6 units; expected at least 1"),
        ({"k": 7}, "k=7: layer has 6 units"),
        ({"n": 0}, "n=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"stride": 0}, "stride=0"),
        ({"stride": 1.5}, "stride=1.5: expected a whole number"),
        ({"stride": 5}, "stride=5: layer has 4 x 4 cells"),
        ({"level": "high"}, "level 'high'"),
        ({"level": [1.0, 2.0], "units": [0]}, r"level of shape \(2,\) for 1 units"),
        ({"level": np.ones((1, 3, 3)), "units": [0]}, r"level maps of shape \(3, 3\): layer has 4 x 4 cells"),
        ({"sample": 5000}, "outside 0"),
    ],
)
def test_bad_input(D, arguments, message):
    with pytest.raises(ValueError, match=message):
        context(D, **{"concept": "flower", "k": 1, "progress": False} | arguments)


def test_a_concept_that_never_appears(D):
    silent = dataclasses.replace(D, area=np.array([0, 9]))
    with pytest.raises(ValueError, match=r"flower is in none of the 64 images .*units=\[…\]"):
        context(silent, "flower", k=1, progress=False)
    with pytest.raises(ValueError, match="flower is in none"):
        where(silent, "flower", seed=0, k=1)


@pytest.mark.parametrize("what", ["generator", "segmenter"])
def test_without_networks(D, what):
    with pytest.raises(ValueError, match=rf"no {what} at hand; load it with Dissection.load\(path, {what}=…\)"):
        context(dataclasses.replace(D, **{what: None}), "flower", [0], progress=False)


# ---- figures


@pytest.fixture
def close_figures():
    yield
    plt.close("all")


def made_up(concepts: int, n: int = 30) -> Context:
    """A context of random numbers; every fifth concept is in one image only."""
    random = np.random.default_rng(concepts)
    before = random.integers(0, concepts + 1, (n, 8, 8, 1))
    before[1:][before[1:] % 5 == 1] = 2
    gained = np.round(random.normal(40 / before[..., 0].clip(1), 8)).astype(int)
    change = random.integers(-30, 30, (n, 8, 8, concepts))
    vocabulary = tuple(Concept(f"{'name ' * (i % 9)}{i}") for i in range(concepts))
    settings = {"grid": (8, 8), "size": (64, 64), "stride": 1, "sample": 1, "complete": True}
    origin = {"generator": "made up", "segmenter": "made up"}
    edit = insert("layer4", range(20))
    settings |= {"random_units": ((1, 2), (3, 4)), "random_gained": random.integers(-9, 12, gained.shape)}
    arrays = {"before": before, "gained": gained, "change": change}
    return Context(edit=edit, concepts=vocabulary, target=1, origin=origin, **arrays, **settings)


@pytest.mark.parametrize("concepts", [2, 13, 150])
def test_bars_are_readable(concepts, close_figures):
    assert_readable(plots.context_bars(made_up(concepts)))


def test_bars_are_the_gains_in_their_order(C, close_figures):
    some = made_up(7)
    ax = plots.context_bars(some, limit=5)
    rows = some.rows()
    assert [bar.get_width() for bar in ax.containers[0]] == pytest.approx([row["gained"] for row in rows[:5]], abs=1e-3)
    assert [label.get_text() for label in ax.get_yticklabels()] == [row["before"] for row in rows[:5]]
    lines = [tuple(path.vertices[:, 0]) for path in ax.collections[0].get_paths() if len(path.vertices)]
    known = [(row["low"], row["high"]) for row in rows[:5] if row["images"] > 1]
    np.testing.assert_allclose([line for line in lines if not np.isnan(line).any()], known, atol=1e-3)
    (dots,) = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_xdata(), [row["random"] for row in rows[:5]], atol=1e-3)
    assert "grey: as many random units" in ax.get_xlabel()
    alone = plots.context_bars(dataclasses.replace(some, random_units=(), random_gained=None))
    assert_readable(alone)
    assert "random" not in alone.get_xlabel()
    written = [text.get_text() for text in ax.texts]
    assert written == [
        "gained",
        *(f"{row['gained']:.1f}".replace("-", "−") for row in rows[:5]),
        "cells tried",
        *(f"{row['trials']:,}" for row in rows[:5]),
    ]
    assert f"the {len(rows) - 5} others gain less" in ax.get_title("left")
    assert "incomplete" in plots.context_bars(dataclasses.replace(C, complete=False)).get_xlabel()


def test_maps_are_bright_where_it_appears(D, C, close_figures):
    seeds = range(1_000_000, 1_000_003)
    x = D.generator.generate(seeds)
    ax = plots.context_map(C.maps[:3], x, titles="abc")
    assert_readable(ax)
    assert [image.get_array().tolist() for image in ax.images[:3]] == gl.images.to_uint8(x).tolist()
    for image, cells in zip(ax.images[3:], C.maps, strict=False):
        lit = image.get_array()[2::4, 2::4]
        assert ((lit[..., 0] > lit[..., 2]) == (cells > 0)).all()
    assert "0 … 16 pixels gained" in [text.get_text() for text in ax.texts]


def test_one_map_for_all_images(D, C, close_figures):
    x = D.generator.generate(range(2))
    assert_readable(plots.context_map(C, x))
    assert "where flower appears" in [text.get_text() for text in plots.context_map(C, x).texts]
    assert len(plots.context_map(where(D, "flower", 0, units=[0]), x[:1]).images) == 2
    nothing = plots.context_map(np.zeros((4, 4)), x).images[2].get_array()
    assert (nothing[..., 0] == nothing[..., 2]).all()


def test_figures_of_wrong_input(C, close_figures):
    with pytest.raises(ValueError, match=r"maps of shape \(3, 4, 4\) for 2 images"):
        plots.context_map(C.maps[:3], np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="limit=0"):
        plots.context_bars(C, limit=0)
