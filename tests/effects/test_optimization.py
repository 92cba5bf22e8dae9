"""Optimised strengths and minimal sets, on a generator whose wiring is known."""

import dataclasses

import numpy as np
import planted
import pytest
import torch
from test_ablation import interrupting

from ganlens.dissection.dissect import dissect
from ganlens.effects.ablation import ablation_effect
from ganlens.effects.minimal_units import minimal_units
from ganlens.effects.optimization import optimize_units
from ganlens.effects.single_units import unit_effects
from ganlens.models.base import Generator
from ganlens.segmenters.base import Segmenter


@pytest.fixture(scope="module")
def wired():
    S = Segmenter.wrap(planted.channels, planted.COLORS)
    S.level = 0.5
    D = dissect(Generator.wrap(planted.Wiring(), 64), S, "layer", n=64, progress=False)
    D.effects = unit_effects(D, progress=False)
    return D


@pytest.fixture(scope="module", params=["l2", "l1"])
def found(wired, request):
    return optimize_units(wired, "red", request.param, n=64, progress=False)


def test_the_causes_and_not_the_decoy(wired, found):
    assert sorted(found.order[:2]) == [1, 4]
    assert found.start[0] == 1
    assert found.alpha[0] < 0.05
    assert found.effect > found.history[0, 1] + 0.2
    assert found.complete
    by_ace, by_iou = (
        ablation_effect(wired, "red", units, n=32, draws=0, progress=False).removed[0]
        for units in (found.order[:2], wired.units("red", 2))
    )
    assert by_ace == 1
    assert by_iou <= 0.6


def test_lasso_leaves_nothing_but_the_causes(wired):
    found = optimize_units(wired, "red", "l1", penalty_weight=0.05, n=64, progress=False)
    assert sorted(found.units) == [1, 4]


def test_units_that_act_only_together(wired):
    found = optimize_units(wired, "green", n=64, progress=False)
    assert sorted(found.order[:2]) == [2, 3]
    assert found.effect > 0.6


def test_ties_are_reported(found):
    equal = dataclasses.replace(found, alpha=np.array([0, 1, 0.5, 1, 0, 0.5, 0.7, 0]), start=np.arange(8.0))
    assert equal.ties == [[1, 3], [2, 5]]
    assert equal.order[:5] == [3, 1, 6, 5, 2]
    assert equal.units == equal.order[:5]
    assert "5 of 8 units above 0, 4 of them tied" in repr(equal)


def test_same_seed_same_strengths(wired):
    a, b = (optimize_units(wired, "blue", n=16, steps=5, batch_size=4, progress=False) for _ in range(2))
    assert (a.alpha == b.alpha).all()
    assert (a.history == b.history).all()
    assert a.history[:, 0].tolist() == [0, 5]


def test_ranking_by_ace(wired, found):
    D = dataclasses.replace(wired)
    D.keep_ranking("ace", found.alpha, "red")
    assert D.units("red", None, by="ace") == found.order


def test_interrupt_returns_the_best_so_far(wired, untouched):
    untouched(wired.generator.net)
    part = optimize_units(wired, "red", n=32, progress=interrupting(at=30))
    assert not part.complete
    assert part.history[:, 0].tolist() == [0, 20, 30]
    assert "incomplete: 30 steps" in repr(part)
    assert all(parameter.grad is None for parameter in wired.generator.net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": "l3"}, "expected 'l2', as published"),
        ({"penalty_weight": -1.0}, "0 or more"),
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"n": 2}, "n=2: expected at least 4"),
        ({"patch": 9}, "from 1 to 8"),
        ({"concept": "rde"}, "did you mean 'red'"),
    ],
)
def test_bad_input(wired, arguments, message):
    with pytest.raises(ValueError, match=message):
        optimize_units(wired, **{"concept": "red", "progress": False} | arguments)


def test_segmenters_without_scores(wired):
    def labels(x):
        return (x > 0).int() * torch.tensor([1, 2, 3])[:, None, None]

    S = Segmenter.wrap(labels, planted.COLORS)
    with pytest.raises(TypeError, match="labels only, no differentiable scores; use a segmenter that has scores"):
        optimize_units(dataclasses.replace(wired, segmenter=S), "red", progress=False)
    S = Segmenter.wrap(torch.no_grad()(planted.channels), planted.COLORS)
    with pytest.raises(ValueError, match=r"cannot be differentiated: compute them without torch.no_grad"):
        optimize_units(dataclasses.replace(wired, segmenter=S), "red", progress=False)
    S = Segmenter.wrap(lambda x: x[:, :1] - 9, ["never"])
    with pytest.raises(ValueError, match=r"never is in 0 of 64 images: take more"):
        optimize_units(dissect(wired.generator, S, "layer", n=16, progress=False), "never", n=8, progress=False)


# ---- minimal sets


def test_smallest_sets(wired):
    whole = minimal_units(wired, "red", remove=0.95, collateral=1, k=6, n=32, progress=False)
    assert whole.possible
    assert sorted(whole.units) == [1, 4]
    assert minimal_units(wired, "green", remove=1, collateral=0, k=6, n=32, progress=False).units == (2, 3)


def test_units_that_are_not_needed_are_left_out(wired):
    D = dataclasses.replace(wired)
    D.keep_ranking("ace", np.array([9.0, 8, 0, 0, 7, 0, 0, 0]), "red")  # the decoy first
    found = minimal_units(D, "red", remove=0.95, collateral=1, k=3, n=32, by=["ace"], progress=False)
    assert sorted(found.units) == [1, 4]


def test_what_is_not_possible_is_said(wired):
    """All red goes only with unit 4, which takes the blue away."""
    found = minimal_units(wired, "red", remove=0.95, collateral=0.05, k=6, n=32, progress=False)
    assert not found.possible
    assert found.units == (1,)
    assert found.effect.elsewhere == 0
    assert [choice.collateral for choice in found.frontier] == sorted(choice.collateral for choice in found.frontier)
    assert found.frontier[-1].removed == 1
    assert "not possible" in repr(found)


def test_interrupted_search(wired, untouched):
    untouched(wired.generator.net)
    found = minimal_units(wired, "red", remove=0.1, collateral=1, k=4, n=32, progress=interrupting(at=100))
    assert not found.complete
    assert found.effect.n == 32


def test_bad_share(wired):
    for arguments in ({"remove": 1.5}, {"collateral": -0.1}):
        with pytest.raises(ValueError, match="expected a share from 0 to 1"):
            minimal_units(wired, "red", **arguments)
    with pytest.raises(ValueError, match="k=0"):
        minimal_units(wired, "red", k=0)
