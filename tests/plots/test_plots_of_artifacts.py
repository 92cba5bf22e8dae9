"""Figures of artifact units show the numbers and images that they were given, and their texts are readable."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_plots import assert_readable

import ganlens as gl
from ganlens import plots
from ganlens.effects.artifacts import Artifacts
from ganlens.images import grid, to_uint8


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(D, k: int, draws: int, drop: float = 4.0) -> Artifacts:
    """A result of random numbers: the distance drops from about 20 by ``drop``."""
    random = np.random.default_rng(k)
    whole = np.array([20, 20 - drop, *random.uniform(19, 24, draws)])
    units = tuple(random.choice(len(D.iou), k, replace=False).tolist())
    return Artifacts(
        layer=D.layer,
        method="distance",
        units=units,
        scores=random.uniform(size=len(D.iou)),
        edit=gl.ablate(D.layer, units),
        distances=np.stack([whole, *(whole + random.normal(0, 0.1, (10, len(whole))))]),
        distance="Fréchet distance",
        extractor="bottleneck of scenes",
        images=1000,
        references=1000,
        complete=True,
        dissection=D,
    )


@pytest.mark.parametrize("draws", [1, 3, 12])
@pytest.mark.parametrize("drop", [4.0, 0.1, -3.0])
def test_bars_are_the_distances(D, draws, drop):
    found = made_up(D, 20, draws, drop)
    ax = plots.distance_bars(found)
    assert_readable(ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(found.distances[0])
    lines = [segment[:, 0] for segment in ax.collections[0].get_segments()]
    assert np.array(lines) == pytest.approx(found.intervals)
    assert [text.get_text() for text in ax.texts] == [f"{value:.3g}" for value in found.distances[0]]
    assert ax.get_title(loc="left") == found.verdict
    assert "1,000 generated, 1,000 reference images" in ax.get_xlabel()


def test_nothing_measured_is_no_bar(D):
    found = replace(made_up(D, 3, 2), distances=None, references=0)
    with pytest.raises(ValueError, match="no distances to draw, not measured: there are no reference images"):
        plots.distance_bars(found)
    assert len(plots.artifact_repair(found, unit_count=2, k=2)) == 2


@pytest.mark.parametrize(("count", "units", "k"), [(20, 4, 8), (2, 4, 3)])
def test_repair_shows_images_before_and_after(D, G, count, units, k):
    found = made_up(D, count, 3)
    axes = plots.artifact_repair(found, units, k)
    assert_readable(axes)
    strips, pairs, bars = axes
    assert len(strips.images) == min(count, units)
    assert strips.get_yticklabels()[0].get_text().split("\n")[0] == f"unit {found.units[0]}"
    seeds = list(dict.fromkeys(D.top[list(found.units)].T.ravel().tolist()))[:k]
    for image, edits in zip(pairs.images, ([], [found.edit]), strict=True):
        expected = grid(to_uint8(G.generate(seeds, edits)), k, gap=1)
        assert (np.asarray(image.get_array()) == expected).all()
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(found.distances[0])


def test_needs_something_to_show(D):
    with pytest.raises(ValueError, match="unit_count=0"):
        plots.artifact_repair(made_up(D, 3, 1), unit_count=0)
