"""The benchmark runs, and its numbers mean what they say."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ganlens import benchmark, cli
from ganlens.benchmark import MEASURES, causal_rows, measure, network_rows, ratios, taking_turns
from ganlens.models.families.progan import ProgressiveGenerator


def test_the_command_knows_all_measures():
    assert list(MEASURES) == list(cli.MEASURES)
    for name in MEASURES:
        assert f"\n      {name} " in cli.bench.__doc__


def test_ratios_are_taken_round_by_round():
    """A machine that slows down changes the times, and not the ratios."""
    ticks = itertools.accumulate(itertools.chain.from_iterable((0, t) for t in (9, 9, 2, 3, 4, 6, 20, 30)))
    sizes = {"a": [], "b": []}
    times = taking_turns({k: sizes[k].append for k in "ab"}, 100, 3, False, clock=lambda: next(ticks), first=7)
    assert times == {"a": [2, 4, 20], "b": [3, 6, 30]}
    assert sizes == {"a": [7, 100, 100, 100], "b": [7, 100, 100, 100]}
    rows = ratios(times, 100)
    assert rows == [{"case": "a", "ms_per_image": 40, "ratio": 1}, {"case": "b", "ms_per_image": 60, "ratio": 1.5}]


@pytest.mark.slow
def test_dissection(threads):
    threads(2)
    alone, *others = measure("dissection", 24, 1, progress=False)
    assert (alone["case"], alone["ratio"]) == ("networks alone", 1)
    cases = ["layer4", "layer4, all rules", "all 9 layers", "layer4, half precision"]
    assert [row["case"] for row in others] == cases
    for row in others:
        assert row["ratio"] == pytest.approx(row["ms_per_image"] / alone["ms_per_image"])
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_causal(D):
    rows = causal_rows(D, "tree", seen=1, count=2, steps=2, rounds=1, progress=False, n=16)
    assert [row["case"] for row in rows] == ["context, 1 images", "unit_effects, 2 units", "optimize_units, 2 steps"]
    for row in rows:
        assert 0 < row["ratio"] < 5
        assert row["ms_per_image"] > 0


def test_networks():
    rows = network_rows(ProgressiveGenerator((8, 8, 8, 8, 8), z_dim=8), 2, 1, progress=False)
    assert [row["case"] for row in rows] == ["plain", "rewritten", "rewritten, bfloat16", "plain, behind layer4"]
    assert rows[0]["ratio"] == 1


@pytest.mark.slow
def test_shards():
    rows = measure("shards", 80, 1, progress=False)
    assert [row["case"] for row in rows] == ["1 process", "2 processes"]


@pytest.mark.slow
def test_memory():
    """In megabytes: torch alone takes more than a hundred, and no small process takes a hundred thousand."""
    rows = measure("memory", 8, progress=False)
    assert [row["case"] for row in rows] == ["8 images", "80 images"]
    for row in rows:
        assert 100 < row["MB"] < 10_000
        assert row["ratio"] == row["MB"] / rows[0]["MB"]


def test_most_memory_counts_what_was_given_back():
    before = benchmark.most_memory()
    size = before + 10**8
    assert len(b"x" * size) == size
    assert size < benchmark.most_memory() < size + before + 10**7


def test_an_interrupt_ends_it(D):
    """A case that was cut short would look fast."""
    cut = dataclasses.replace(D, complete=False)
    for result in (cut, {"layer4": {"iou": cut}}, np.array([[0.5], [np.nan]])):
        with pytest.raises(KeyboardInterrupt):
            taking_turns({"a": lambda n, result=result: result}, 1, 1, False)
    assert taking_turns({"a": lambda n: D, "b": lambda n: {"c": D}, "c": lambda n: None}, 1, 1, False)
