"""Figures of causes show the numbers that they were given, and their texts are readable."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_plots import assert_readable, made_up, made_up_effect

import ganlens as gl
from ganlens import plots
from ganlens.effects.ablation import Effect


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up_curve(name: str, sets: int = 3) -> Effect:
    """A made-up effect with the effects of 1, 5 and 20 units on the way."""
    parts = [replace(made_up_effect(5, 1, sets), units=tuple(range(k)), changed=None) for k in (1, 5, 20)]
    for k, part in enumerate(parts):
        part.after[:] = part.before * (0.9 - 0.3 * k - 0.001 * len(name))
    return replace(parts[-1], curve=tuple(parts))


def test_curves_go_through_the_shares():
    effects = {name: made_up_curve(name) for name in ("iou", "effect", "a long name")}
    ax = plots.ranking_curves(effects)
    assert_readable(ax)
    lines = [line for line in ax.lines if line.get_marker() in "osD" and len(line.get_xdata()) > 1]
    for line, effect in zip(lines, effects.values(), strict=True):
        assert line.get_xdata().tolist() == [0, 1, 5, 20]
        assert line.get_ydata() == pytest.approx([0, *(part.removed[1] for part in effect.curve)])
    random = [line for line in ax.lines if line.get_linewidth() == 0.7]
    assert [line.get_ydata()[-1] for line in random] == pytest.approx(effects["iou"].random[:, 1])
    assert [text.get_text().split(":")[0] for text in ax.texts] == list(effects)
    assert "3 random sets" in ax.get_xlabel()
    assert "random" not in plots.ranking_curves(made_up_curve("one", sets=0)).get_xlabel()
    with pytest.raises(ValueError, match="no curves: measure them"):
        plots.ranking_curves(made_up_effect(3, 0))


def test_units_that_match_and_units_that_cause():
    D = made_up(60, 9, longest=3)
    D.effects = np.random.default_rng(1).uniform(-0.05, 0.2, D.iou.shape)
    concept = D.concepts[1]
    found = gl.match_and_cause(D, concept, match=0.2, cause=0.1)
    ax = plots.correlation_vs_cause(D, concept, match=0.2, cause=0.1, limit=3)
    assert_readable(ax)
    everything, *kinds = ax.collections
    np.testing.assert_allclose(everything.get_offsets(), np.stack([D.iou[:, 1], D.effects[:, 1]], 1))
    assert sum(map(len, found)) > 0
    for points, units in zip(kinds, found, strict=True):
        np.testing.assert_allclose(
            points.get_offsets().reshape(-1, 2), np.stack([D.iou[units, 1], D.effects[units, 1]], 1)
        )
        assert points.get_label().startswith(f"{len(units)} ")
        assert ", ".join(map(str, units[:3])) in points.get_label()
    with pytest.raises(ValueError, match="measure them"):
        plots.correlation_vs_cause(made_up(5, 3), made_up(5, 3).concepts[0])
