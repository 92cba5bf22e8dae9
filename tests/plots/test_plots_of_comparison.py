"""Figures of comparisons show the numbers that they were given, and their texts are readable."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_plots import assert_readable, made_up

import ganlens as gl
from ganlens import plots
from ganlens.comparisons.segmentation_distance import SegmentationDistance
from ganlens.comparisons.unit_matches import UnitMatches


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up_comparison(count: int, concepts: int, longest: int = 3) -> gl.Comparison:
    return gl.compare({f"layer{i}": made_up(40 + i, concepts, 0.4, longest) for i in range(count)})


def made_up_distance(concepts: int, seed: int = 0) -> SegmentationDistance:
    """Percentages of which some concepts differ, one is never drawn by the first, and one by the first alone."""
    random = np.random.default_rng(seed)
    a, b = random.uniform(2, 9, (2, 60, concepts))
    a[:, 0] = b[:, 1] = 0
    a[:, 2] *= 5
    return SegmentationDistance(
        names=("generator", "photographs"), concepts=made_up(1, concepts).concepts, a=a, b=b, segmenter="made up"
    )


@pytest.mark.parametrize(("count", "concepts"), [(2, 3), (9, 13), (4, 60)])
class TestMatrix:
    def test_shows_iou_and_counts(self, count, concepts):
        C = made_up_comparison(count, concepts)
        ax = plots.concept_matrix(C, limit=12)
        assert_readable(ax)
        assert_readable(plots.concept_matrix(made_up_comparison(count, concepts, longest=12)))
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        known = [concept.name for concept in C.concepts]
        rows = [known.index(name) for name in names]
        np.testing.assert_allclose(ax.images[0].get_array(), C.iou[:, rows].T)
        found = {(int(t.get_position()[0]), int(t.get_position()[1])): int(t.get_text()) for t in ax.texts}
        counts = C.unit_counts
        assert found == {(k, r): counts[k, c] for k in range(count) for r, c in enumerate(rows) if counts[k, c]}
        drawn = np.flatnonzero(C.unit_counts.any(0))
        left = set(drawn) - set(rows)
        assert len(rows) == min(12, len(drawn))
        assert all(C.iou[:, c].max() <= C.iou[:, rows].max(0).min() for c in left)
        assert ("12 of" in ax.get_title("left")) == bool(left)

    def test_layers_bars_take_a_comparison(self, count, concepts):
        C = made_up_comparison(count, concepts)
        axes = plots.layers_bars(C)
        tops = [[int(text.get_text()) for text in ax.texts] for ax in axes]
        assert tops == [C.unit_counts.sum(1).tolist(), np.count_nonzero(C.unit_counts, 1).tolist()]


def test_nothing_to_show():
    silent = replace(made_up(9, 3), overlap=np.zeros((9, 3), int))
    with pytest.raises(ValueError, match="no unit of these dissections"):
        plots.concept_matrix(gl.compare({"a": silent, "b": silent}))
    with pytest.raises(ValueError, match="no matches"):
        plots.match_curves({})
    with pytest.raises(ValueError, match="limit=0"):
        plots.area_bars(made_up_distance(4), limit=0)


def test_best_units_are_spotlights(G, S):
    C = gl.compare(gl.dissect(G, S, ["layer1", "layer6"], n=24, progress=False))
    ax = plots.best_units(C, "tree", k=3)
    assert_readable(ax)
    assert len(ax.images) == 6
    first, second = (C[name].spotlights([C[name].units("tree", 1)[0]], 3)[0] for name in C)
    shown = [image.get_array() for image in ax.images]
    assert np.array_equal(shown, [*first, *second])
    assert [text.get_text() for text in ax.texts][::2] == ["layer1", "layer6"]


def test_match_curves():
    D = made_up(30, 5)
    similarity = np.random.default_rng(0).uniform(-0.2, 0.9, (2, 30, 30))
    matches = {
        name: UnitMatches(a=D, b=D, by="activation", similarity=s, chance=0.3 + i / 10)
        for i, (name, s) in enumerate(zip("ab", similarity, strict=True))
    }
    ax = plots.match_curves(matches)
    assert_readable(ax)
    for line, M in zip(ax.lines, matches.values(), strict=True):
        assert line.get_ydata() == pytest.approx(M.values)
        assert (np.diff(line.get_ydata()) <= 0).all()
    assert [segments.get_segments()[0][0][1] for segments in ax.collections] == [0.3, 0.4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{name}: {M.mean:.2f}" for name, M in matches.items()
    ]
    assert plots.match_curves(matches["a"]).get_legend() is None


@pytest.mark.parametrize("concepts", [4, 13, 60])
def test_area_bars(concepts):
    F = made_up_distance(concepts)
    ax = plots.area_bars(F, limit=20)
    assert_readable(ax)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(widths)
    order = np.argsort(F.relative, kind="stable")
    kept = [c for c in order if c in np.argsort(-abs(F.relative), kind="stable")[:20]]
    assert widths == pytest.approx(F.relative[kept].clip(-1, 1))
    assert [text.get_text() for text in ax.texts] == [f"{F.a.mean(0)[c]:.1f} / {F.b.mean(0)[c]:.1f} %" for c in kept]
    low, high = F.relative_interval
    colors = [bar.get_facecolor() for bar in ax.patches]
    unsure = mpl.colors.to_rgba("#CCCCCC")
    assert [color == unsure for color in colors] == [bool(low[c] <= 0 <= high[c]) for c in kept]
    assert colors[0] != colors[-1]
    assert len(ax.lines[0].get_xdata()) == 2  # arrows: drawn by the first alone, and more than twice
    assert "photographs" in ax.get_xlabel()
    assert ("20 of 60" in ax.get_title("left")) == (concepts == 60)
