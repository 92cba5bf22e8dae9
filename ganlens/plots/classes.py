"""Figures of classifiers: how well classes are told apart without some units."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ganlens.effects.accuracy import ClassAccuracy
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, check_at_least_one, set_title
from ganlens.plots.charts import COLORS, new_axes, plain

LONGEST = 24  # letters of a class's name


def class_bars(result: ClassAccuracy, limit: int = 20, ax: Axes | None = None) -> Axes:
    """Accuracy of each class before and after units are switched off, and with as many random units switched off.

    Parameters
    ----------
    result : ClassAccuracy
        From `ganlens.class_accuracy`, with edits.
    limit : int
        Classes to show: those that lose most.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A row for each class, the one that loses most on top: a ring before, a dot after, between them what is lost;
        the dark line is its interval. Small grey dots are random sets. On the right stands which share of the class's
        own images is recognized: false alarms that come from other classes lower the accuracy, but not this share.
    """
    check_at_least_one(limit=limit)
    if not result.edits:
        raise ValueError("no edits: measure them, ganlens.class_accuracy(D, edits)")
    rows = result.rows()
    shown = [result.class_names.index(row["class"]) for row in rows[:limit]]
    before, after, random = result.before[shown], result.after[shown], result.random[:, shown]
    low, high = (end[shown] for end in result.interval)
    y = np.arange(len(shown))
    ax = ax or new_axes(7.5, 1.5 + 0.36 * len(shown))
    ax.hlines(y, before, after, COLORS[0], lw=7, alpha=0.25)
    ax.hlines(y, before - high, before - low, INK, lw=1.2)
    ax.scatter(random, np.tile(y, (len(random), 1)), 18, GREY, edgecolors="white", lw=0.5, zorder=6)
    ax.scatter(before, y, 44, "white", edgecolors=COLORS[0], lw=1.6, zorder=4)
    ax.scatter(after, y, 44, COLORS[0], zorder=5)
    plain(ax, "x")
    lowest = min(0.5, *after, *before, *random.ravel(), *(before - high))
    ax.set(xlim=(lowest - 0.03, 1.01), ylim=(len(shown) - 0.4, -0.6))
    ax.axvline(0.5, color=GREY, lw=0.8, ls=":")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xticks(np.arange(np.ceil(lowest * 10) / 10, 1.05, 0.1))
    ax.set_yticks(y, [short(result.class_names[c]) for c in shown], size=9)
    known, still = (share[shown] for share in result.recognized)
    write_column(ax, 34, "change", [change_of(a, b) for a, b in zip(before, after, strict=True)])
    write_column(ax, 110, "recognized", [f"{a:.0%} → {b:.0%}" for a, b in zip(known, still, strict=True)])
    sets = f"; small: {len(random)} set{'s' * (len(random) > 1)} of random units" if len(random) else ""
    text = f"{result.n} images; ring: before, dot: after, line: {CONFIDENCE:.0%} interval{sets}"
    ax.set_xlabel(f"accuracy of telling the class from all others, 50% is chance\n{text}", size=9, color=INK)
    units = sum(len(edit.units) for edit in result.edits)
    layers = ", ".join(dict.fromkeys(edit.layer for edit in result.edits))
    left = f"; {len(rows) - len(shown)} classes that lose less are not shown" if len(rows) > len(shown) else ""
    set_title(ax, f"{layers}: {units} unit{'s' * (units > 1)} edited{left}", 18)
    return ax


def write_column(ax: Axes, place: float, head: str, texts: Sequence[str]) -> None:
    """Texts beside the rows that end so many points right of the Axes, and a word above them."""
    where: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    where |= {"ha": "right", "size": 9, "annotation_clip": False}
    for row, text in zip((-0.6, *range(len(texts))), (head, *texts), strict=True):
        top = row < 0
        style: dict[str, Any] = {"va": "bottom", "color": GREY} if top else {"va": "center", "color": INK}
        ax.annotate(text, (1, row), (place, 3 if top else 0), **where, **style)


def change_of(before: float, after: float) -> str:
    """A change in percent, without a sign where there is none."""
    percent = round(100 * (after - before))
    return f"{percent:+d}%".replace("-", "−") if percent else "0%"


def short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
