"""Sanity checks of measures: each measure against its definition, and what must and must not notice wrong labels."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import ganlens as gl
from ganlens.dissection.sanity import PUBLISHED, Ranked, places_of, with_more, without_half


@pytest.fixture(scope="module")
def checked(D):
    return gl.sanity_checks(D, n=128, progress=False)


def by_definition(a: np.ndarray, on: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """Every measure, spelt out."""
    found, of = [], np.flatnonzero(there)
    for level in sorted({*a}, reverse=True):
        chosen = a >= level
        found.append(((chosen & there).sum() / there.sum(), there[chosen].mean()))
    recalls = [0, *(recall for recall, _ in found)]
    pairs = [(a[i] > a[j]) + (a[i] == a[j]) / 2 for i, j in product(of, np.flatnonzero(~there))]
    precision, recall = there[on].mean(), on[there].mean()
    return {
        "iou": (on & there).sum() / (on | there).sum(),
        "f1": 2 * precision * recall / (precision + recall),
        "average_precision": sum((b - a) * p for a, b, (_, p) in zip(recalls, recalls[1:], found, strict=False)),
        "pearson": np.corrcoef(a, there)[0, 1],
        "cosine": a @ there / np.linalg.norm(a) / np.linalg.norm(there),
        "auc": np.mean(pairs),
        "recall": recall,
        "precision": precision,
        "mean_difference": a[there].mean() - a[~there].mean(),
    }


@pytest.mark.parametrize("seed", range(8))
def test_measures_are_those_of_the_definitions(seed):
    random = np.random.default_rng(seed)
    there = random.random(60) < 0.3
    a = np.round(random.normal(size=60) + there, seed % 3)  # with equal ones
    unit = Ranked.of(a, a > 0.5)
    wanted = by_definition(a, a > 0.5, there)
    assert dict(zip(PUBLISHED, unit.scores(there), strict=True)) == pytest.approx({k: wanted[k] for k in PUBLISHED})


def test_labels_are_taken_away_and_added():
    random = np.random.default_rng(0)
    there = random.random(20_000) < 0.2
    less, more = without_half(there, random), with_more(there, random)
    assert not (less & ~there).any()
    assert not (there & ~more).any()
    assert less.sum() / there.sum() == pytest.approx(0.5, abs=0.03)
    assert more.sum() / there.sum() == pytest.approx(2, abs=0.05)


def test_the_usual_measures_notice_and_the_poor_ones_do_not(checked):
    assert {"iou", "f1", "pearson", "cosine"} <= {*checked.noticing}
    assert not {"recall", "precision", "mean_difference"} & {*checked.noticing}
    shares = dict(zip(checked.measures, zip(checked.missing, checked.extra, strict=True), strict=True))
    assert shares["precision"][1] < 0.1  # the more labels, the better it looks
    assert 0.3 < shares["recall"][0] < 0.7  # it goes by chance


def test_places_that_count_nowhere_are_left_out(G):
    """Half of each picture is not labelled; the unit follows the concept in the other half."""

    def half(x):
        labels = (x[:, 0] > 0).int()
        labels[..., 32:] = 255
        return labels

    S = gl.Segmenter.wrap(half, ["red"], ignore=255)
    D = gl.dissect(G, S, "layer9", n=32, rule="iou", progress=False)
    label = max(D.labels, key=lambda label: label.iou)
    on, shown = places_of(D, list(range(32)), [label.unit], [0])[1:]
    assert on.shape == (1, 32 * 16 * 8)
    iou = (on[0] & shown[0]).sum() / (on[0] | shown[0]).sum()
    assert iou > 0.6 * label.iou


def test_the_table(checked, D):
    rows = {row["measure"]: row for row in checked.rows()}
    assert rows["iou"]["published"] == "93.6 / 99.8"
    assert rows["auc"]["published"] == "fails"
    assert checked.units == len(D.interpretable)
    assert "average_precision" in repr(checked)
    assert "notices both" in checked._repr_html_()


def test_an_interrupt_gives_what_was_seen(D):
    def press(done, total):
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        assert gl.sanity_checks(D, n=128, progress=press).n == 32


def test_nothing_to_score(D):
    with pytest.raises(ValueError, match="no unit of layer4 is interpretable"):
        gl.sanity_checks(replace(D, on=D.on, overlap=0 * D.overlap), progress=False)
