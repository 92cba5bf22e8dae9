"""The figure of classes shows the numbers that it was given, and its texts are readable."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_plots import assert_readable

import ganlens as gl
from ganlens import plots
from ganlens.effects.accuracy import ClassAccuracy


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(classes: int, sets: int = 2, name: str = "class {}") -> ClassAccuracy:
    """The first classes lose many of their images."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), 20)
    said = np.where(random.random(len(truth)) < 0.8, truth, random.integers(0, classes, len(truth)))
    hit = (truth < classes / 4) & (random.random(len(truth)) < 0.5)
    after = np.where(hit, classes - 1, said)
    names = tuple(name.format(i) for i in range(classes))
    edits = (gl.ablate("layer4", [1, 2, 3]),)
    said = {"said_before": said, "said_after": after, "said_random": np.tile(said, (sets, 1))}
    return ClassAccuracy(edits=edits, class_names=names, seeds=np.arange(len(truth)), truth=truth, **said)


@pytest.mark.parametrize(("classes", "sets", "name"), [(3, 0, "{}"), (6, 1, "class {}"), (40, 3, "{}: " + "long " * 9)])
def test_rows_are_the_classes_that_lose_most(classes, sets, name):
    result = made_up(classes, sets, name)
    ax = plots.class_bars(result, limit=10)
    assert_readable(ax)
    order = np.argsort(-result.drop, kind="stable")[:10]
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert [label[:4] for label in labels] == [result.class_names[c][:4] for c in order]
    random, before, after = (np.asarray(points.get_offsets()) for points in ax.collections[2:])
    assert before[:, 0] == pytest.approx(result.before[order])
    assert after[:, 0] == pytest.approx(result.after[order])
    assert len(random) == sets * len(order)
    low, high = result.interval
    lines = [segment[:, 0] for segment in ax.collections[1].get_segments()]
    assert np.array(lines) == pytest.approx(np.stack([result.before - high, result.before - low], 1)[order])
    text = [text.get_text() for text in ax.texts]
    known, still = result.recognized
    assert f"{known[order[0]]:.0%} → {still[order[0]]:.0%}" in text
    title = ax.get_title("left")
    assert ("30 classes that lose less are not shown" in title) == (classes == 40)
    assert "layer4: 3 units edited" in title


def test_a_change_has_a_sign_where_there_is_one():
    ax = plots.class_bars(made_up(8))
    assert {text.get_text() for text in ax.texts} >= {"0%", "change", "recognized"}
    assert not any(text.get_text() in ("+0%", "−0%") for text in ax.texts)


def test_nothing_to_draw():
    result = made_up(3)
    with pytest.raises(ValueError, match="no edits: measure them"):
        plots.class_bars(replace(result, edits=()))
    with pytest.raises(ValueError, match="limit=0"):
        plots.class_bars(result, limit=0)
