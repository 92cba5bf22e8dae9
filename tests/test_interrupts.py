"""Ctrl-C keeps what was done, and leaves the generator as it was; a second one stops at once."""

import dataclasses
import signal

import numpy as np
import planted
import pytest

from ganlens.dissection.dissect import dissect
from ganlens.effects.ablation import ablation_effect
from ganlens.effects.context import context, where
from ganlens.effects.insertion import average_causal_effect, insertion_effect
from ganlens.effects.minimal_units import minimal_units
from ganlens.effects.optimization import optimize_units
from ganlens.effects.rankings import compare_rankings, unit_gradients
from ganlens.effects.single_units import unit_effects
from ganlens.models.base import Generator
from ganlens.progress import IncompleteWarning
from ganlens.segmenters.base import Segmenter


class Bell:
    """Presses Ctrl-C when it has been rung so many times; it is silent until it is set."""

    def __init__(self):
        self.left, self.presses = 0, 0

    def set(self, rings: int, presses: int) -> None:
        self.left, self.presses = rings, presses

    def ring(self) -> None:
        self.left -= 1
        if self.left == 0:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)


class Interrupting(planted.Wiring):
    """Rings in the middle of every pass."""

    def __init__(self, bell: Bell):
        super().__init__()
        self.bell = bell

    def forward(self, z):
        x = super().forward(z)
        self.bell.ring()
        return x


@pytest.fixture(scope="module")
def D():
    """A wired generator; the bell in it, and one in the segmenter."""
    inside, outside = Bell(), Bell()

    def channels(x):
        outside.ring()
        return planted.channels(x)

    S = Segmenter.wrap(channels, planted.COLORS)
    S.level = 0.5
    D = dissect(Generator.wrap(Interrupting(inside), 64), S, "layer", n=32, progress=False)
    D.effects = unit_effects(D, progress=False)
    D.bells = inside, outside
    return D


# What is run, on so many images or steps; the call of the segmenter in which Ctrl-C is pressed; and how many images or
# steps are done by then.
CASES = {
    "ablation_effect": (lambda D, n: ablation_effect(D, "red", [1], n=n, draws=0, progress=False), 96, 3, 32),
    "insertion_effect": (lambda D, n: insertion_effect(D, "red", [1], n=n, draws=1, progress=False), 96, 8, 64),
    "average_causal_effect": (
        lambda D, n: average_causal_effect(D, "red", [1], n=n, draws=0, progress=False),
        96,
        5,
        32,
    ),
    "compare_rankings": (
        lambda D, n: compare_rankings(D, "red", k=2, n=n, draws=0, curve=False, progress=False)["effect"],
        96,
        4,
        32,
    ),
    "context": (lambda D, n: context(D, "red", [1], n=n, draws=1, progress=False), 10, 8, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_images_that_were_done_are_kept(D, name, untouched):
    function, n, call, done = CASES[name]
    untouched(D.generator.net)
    D.bells[1].set(call, presses=1)
    with pytest.warns(IncompleteWarning, match="interrupted after"):
        part = function(D, n)
    whole = function(D, done)
    assert (part.n, part.complete, whole.complete) == (done, False, True)
    for field in dataclasses.fields(part):
        if field.name != "complete":
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name))


def test_units_that_were_done_are_kept(D, untouched):
    untouched(D.generator.net)
    D.bells[1].set(4, presses=1)
    with pytest.warns(IncompleteWarning, match=r"interrupted after 128 of 288 images \(edit\)"):
        part = unit_effects(D, n=32, progress=False)
    assert np.isnan(part).all(1).tolist() == [False] * 3 + [True] * 5
    assert (part[:3] == D.effects[:3]).all()


def test_gradients_of_the_images_seen_are_kept(D, untouched):
    untouched(D.generator.net)
    D.bells[1].set(2, presses=1)
    with pytest.warns(IncompleteWarning, match="interrupted after 32 of 64 images"):
        part = unit_gradients(D, n=64, progress=False)
    np.testing.assert_array_equal(part, unit_gradients(D, n=32, progress=False))


def test_the_best_strengths_so_far_are_kept(D, untouched):
    untouched(D.generator.net)
    D.bells[1].set(20, presses=1)
    part = optimize_units(D, "red", n=16, steps=100, progress=False)
    assert not part.complete
    assert 0 < part.history[-1, 0] < 20
    assert part.effect >= part.history[0, 1]


def test_sets_that_were_tried_are_kept(D, untouched):
    untouched(D.generator.net)
    D.bells[1].set(6, presses=1)
    found = minimal_units(D, "red", remove=0.1, collateral=1, k=4, n=32, tries=32, progress=False)
    assert not found.complete
    assert found.effect.n == 32
    assert 0 < len(found.frontier) <= 6


AT_ONCE = {name: case[0] for name, case in CASES.items()}
AT_ONCE |= {
    "unit_effects": lambda D, n: unit_effects(D, n=32, progress=False),
    "unit_gradients": lambda D, n: unit_gradients(D, n=64, progress=False),
    "optimize_units": lambda D, n: optimize_units(D, "red", n=16, steps=9, progress=False),
    "minimal_units": lambda D, n: minimal_units(D, "red", k=4, n=32, tries=32, progress=False),
    "where": lambda D, n: where(D, "red", 5, units=[1]),
}


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("bell", [0, 1])
@pytest.mark.parametrize("name", AT_ONCE)
def test_a_second_time_stops_at_once(D, name, bell, call, untouched):
    untouched(D.generator.net)
    before = D.generator.generate(range(4))
    handler = signal.getsignal(signal.SIGINT)
    D.bells[bell].set(call, presses=2)
    with pytest.raises(KeyboardInterrupt):
        AT_ONCE[name](D, 64)
    D.bells[bell].set(0, presses=0)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (D.generator.generate(range(4)) == before).all()


def test_one_map_is_made_or_not(D, untouched):
    """There is no part of it to keep."""
    untouched(D.generator.net)
    for bell in D.bells:
        bell.set(2, presses=1)
        with pytest.raises(KeyboardInterrupt):
            where(D, "red", 5, units=[1])
