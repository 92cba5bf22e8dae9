"""Rows as HTML, CSV and text."""

import csv

import numpy as np

from ganlens.tables import html_table, write_csv


def test_html_table_escapes():
    html = html_table("<script>", {"a&b": ["<i>", "x"]}, [np.zeros((4, 4, 3), np.uint8)] * 2, 'say "hi"')
    assert "<script" not in html
    assert "<i>" not in html
    assert "a&amp;b" in html
    assert html.count("<img") == 2


def test_csv_parses_back(tmp_path):
    rows = [{"a, b": 'say "é"\n', "c": 0.1}, {"a, b": "", "c": -1e-300}]
    write_csv(tmp_path / "file", rows)
    with open(tmp_path / "file", newline="", encoding="utf-8") as file:
        assert [row | {"c": float(row["c"])} for row in csv.DictReader(file)] == rows
