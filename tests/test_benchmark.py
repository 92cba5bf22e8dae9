"""The benchmark runs, and its numbers mean what they say."""

import json

import pytest

from ganlens.benchmark import measure_causal
from ganlens.cli import main


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
    rows = measure_causal(G, S, "layer9", rounds=1, count=3, steps=2, n=16)
    assert [row["case"] for row in rows] == ["unit_effects, 3 units", "optimize_units, 2 steps"]
    for row in rows:
        assert 0 < row["overhead"] < 5
        assert row["ms_per_image"] > 0
