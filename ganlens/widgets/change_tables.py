"""What an edit did to the concepts in an image: numbers, and a small table of them."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ganlens.segmenters.base import Concept

MOST_ROWS = 9


class Change(NamedTuple):
    """Pixels of each concept (C,), before and after, inside and outside the painted region."""

    inside_before: np.ndarray
    inside_after: np.ndarray
    outside_before: np.ndarray
    outside_after: np.ndarray

    @property
    def collateral(self) -> np.ndarray:
        """Pixels that each concept gained or lost outside."""
        return self.outside_after - self.outside_before


def change_of(before: np.ndarray, after: np.ndarray, region: np.ndarray, concepts: int) -> Change:
    """Count label planes (L, h, w), 0 = none, before and after, inside and outside a region (h, w)."""

    def count(labels, mask):
        return np.bincount(labels[:, mask].ravel(), minlength=concepts + 1)[1:]

    return Change(*(count(labels, mask) for mask in (region, ~region) for labels in (before, after)))


def change_table(change: Change, concepts: Sequence[Concept], pixels: int) -> str:
    """The change as an HTML table, in percent of the image; the concepts that changed most first."""
    moved = np.abs(change.inside_after - change.inside_before) + np.abs(change.collateral)
    shown = [c for c in np.argsort(-moved, kind="stable") if moved[c] >= 0.0005 * pixels][:MOST_ROWS]
    if not shown:
        return "<p class='ganlens-faint'>No concept changed.</p>"
    heads = "<tr><th></th><th colspan=2>in the strokes</th><th colspan=2>elsewhere</th></tr>"
    rows = []
    for c in shown:
        numbers = [100 * counts[c] / pixels for counts in change]
        cells = "".join(
            f"<td>{before:.1f} → {after:.1f}</td><td>{emphasis(after - before)}</td>"
            for before, after in (numbers[:2], numbers[2:])
        )
        rows.append(f"<tr><th>{html.escape(str(concepts[c]))}</th>{cells}</tr>")
    return f"<table><thead>{heads}</thead><tbody>{''.join(rows)}</tbody></table>{caption('% of the image')}"


def share_table(labels: np.ndarray, concepts: Sequence[Concept]) -> str:
    """What an image shows: shares of label planes (L, h, w) as HTML."""
    counts = np.bincount(labels.ravel(), minlength=len(concepts) + 1)[1:]
    shown = [c for c in np.argsort(-counts, kind="stable") if counts[c]][:MOST_ROWS]
    pixels = labels[0].size
    rows = "".join(
        f"<tr><th>{html.escape(str(concepts[c]))}</th><td>{100 * counts[c] / pixels:.1f}</td></tr>" for c in shown
    )
    return f"<table><tbody>{rows}</tbody></table>{caption('% of the image')}"


def unit_table(units: Sequence[int], words: Sequence[str]) -> str:
    """The units that are most active in a region, as HTML."""
    rows = "".join(
        f"<tr><th>unit {unit}</th><td>{html.escape(word)}</td></tr>" for unit, word in zip(units, words, strict=True)
    )
    return f"<table><tbody>{rows}</tbody></table>{caption('most active in the region')}"


def emphasis(difference: float) -> str:
    """A difference with its sign; in bold where it is worth a look."""
    text = f"{difference:+.1f}".replace("-", "−") if abs(difference) >= 0.05 else "0"
    return f"<b>{text}</b>" if abs(difference) >= 1 else text


def caption(text: str) -> str:
    return f"<small class='ganlens-faint'>{text}</small>"
