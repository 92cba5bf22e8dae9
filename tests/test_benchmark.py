"""The benchmark runs, and its numbers mean what they say."""

import json

import pytest

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
