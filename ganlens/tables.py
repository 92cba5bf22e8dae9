"""Rows of a result as a DataFrame, as CSV, as text and as HTML."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ganlens.files import write_atomically
from ganlens.markup import Markup, h

if TYPE_CHECKING:  # the command line makes tables of text, and shall start without numpy
    import numpy as np
    import pandas

CELL = "text-align:left;padding:2px 10px;color:inherit"


class Tabular:
    """A result that is rows of equal keys: gives it a table and a CSV file."""

    index: ClassVar[str | None] = None  # the key that names a row
    heads: ClassVar[tuple[str, ...]] = ()  # of all rows, where there may be none

    def rows(self) -> list[dict]:
        """One dict per row."""
        raise NotImplementedError

    def table(self) -> "pandas.DataFrame | list[dict]":
        """`rows` as a pandas DataFrame when pandas is installed, otherwise as they are."""
        return as_table(self.rows(), self.index, self.heads)

    def to_csv(self, path: str | Path) -> None:
        """Write `rows` as CSV; OSError where that is not possible, and an older file stays as it was."""
        write_csv(path, self.rows(), self.heads)


FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: str | Path, rows: Sequence[Mapping], keys: Sequence[str] = ()) -> None:
    """Write rows of equal keys as CSV, under their keys; ``keys`` are these where there may be no row.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; halves of characters are spelt out.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else keys)
    writer.writeheader()
    writer.writerows({key: inert(value) for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def inert(value):
    """A value of a table, a text such that a spreadsheet does not run it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def as_table(rows: list[dict], index: str | None = None, keys: Sequence[str] = ()) -> "pandas.DataFrame | list[dict]":
    """Rows of equal keys as a pandas DataFrame where pandas is installed, otherwise as they are."""
    try:
        import pandas
    except ImportError:
        return rows
    frame = pandas.DataFrame(rows, columns=None if rows else list(keys))
    return frame if index is None else frame.set_index(index)


def text_table(rows: Sequence[Mapping]) -> str:
    """Rows of equal keys as aligned columns: numbers to the right, text to the left.

    Examples
    --------
    >>> print(text_table([{"unit": 7, "draws": "tree"}, {"unit": 12, "draws": "cloud"}]))
    unit  draws
       7  tree
      12  cloud
    """
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    lines = [list(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [isinstance(value, int | float) for value in rows[0].values()]
    aligned = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def html_table(
    title: str, columns: Mapping[str, Sequence[str]], pictures: "Sequence[np.ndarray] | None" = None, caption: str = ""
) -> Markup:
    """A table with one picture per row, readable on light and dark pages, without scripts."""
    from ganlens.images import data_uri

    rows = [h("tr", *(h("th", head, style=CELL) for head in [*columns, *([] if pictures is None else [caption])]))]
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        cells = [h("td", value, style=CELL) for value in row]
        if pictures is not None:
            size, alt = "height:72px;max-width:none", f"{caption}: {', '.join(row)}"
            picture = h("img", src=data_uri(pictures[i], quality=80), alt=alt, style=size)
            cells.append(h("td", picture, style=CELL))
        rows.append(h("tr", *cells))
    head = h("p", h("b", title), style="margin:4px 0")
    return Markup(head + h("table", *rows, style="background:transparent"))
