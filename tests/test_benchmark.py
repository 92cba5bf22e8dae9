"""The benchmark runs, and its numbers mean what they say."""

import json

import pytest

from ganlens.benchmark import main


def test_rows(capsys):
    assert main(["-n", "24", "--rounds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    alone, *others = rows
    assert alone["case"] == "networks alone"
    assert alone["overhead"] == 1
    for row in others:
        assert row["overhead"] == pytest.approx(row["ms_per_image"] / alone["ms_per_image"])


def test_table(capsys):
    main(["-n", "8", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].split()[-1] == "overhead"
