"""The benchmark runs, and its numbers mean what they say."""

import json

import pytest

from ganlens.benchmark import measure_causal, measure_networks
from ganlens.cli import main
from ganlens.models.progan import ProgressiveGenerator


def test_rows(capsys):
    assert main(["bench", "-n", "24", "--rounds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    alone, *others = rows
    assert alone["case"] == "networks alone"
    assert alone["overhead"] == 1
    assert len(others) == 3
    for row in others:
        assert row["overhead"] == pytest.approx(row["ms_per_image"] / alone["ms_per_image"])


def test_causal_rows(G, S):
    rows = measure_causal(G, S, "layer4", rounds=1, count=1, steps=2, n=16, seen=1)
    cases = ["context, 64 cells, 1 image", "unit_effects, 1 unit", "optimize_units, 2 steps"]
    assert [row["case"] for row in rows] == cases
    for row in rows:
        assert 0 < row["overhead"] < 5
        assert row["ms_per_image"] > 0


def test_rows_of_networks():
    plain, fast, half, *behind = measure_networks(ProgressiveGenerator((8, 8, 8, 8, 8), z_dim=8), rounds=1, n=2)
    assert (plain["case"], plain["overhead"]) == ("plain", 1)
    assert (fast["case"], half["case"]) == ("rewritten", "rewritten, bfloat16")
    assert [row["case"] for row in behind] == ["plain, behind layer4"]
