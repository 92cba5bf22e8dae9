"""Figures of where a concept can go: by what was there before, and as a map over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ganlens.effects.context_result import NOTHING, Context
from ganlens.images import as_pictures, overlay, resize
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, check_at_least_one, set_title, short_names
from ganlens.plots.charts import COLORS, FAINT, new_axes, plain
from ganlens.plots.sheets import sheet


def context_bars(context: Context, limit: int = 20, ax: Axes | None = None) -> Axes:
    """How much of a concept appears where its units are switched on, by what was there before.

    Parameters
    ----------
    context : Context
        From `ganlens.context`.
    limit : int
        Rows to show, those with the most gained pixels.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Bars are pixels gained near the edited cell, lines their intervals; a bar is faint where the interval includes
        0 or is unknown. Grey dots and lines are the same for as many random units. On the right: the numbers of the
        bars, and how many cells were tried.
    """
    check_at_least_one(limit=limit)
    gain, (low, high), trials = context.gain, context.interval, context.trials
    order = sorted(np.flatnonzero(trials).tolist(), key=lambda v: -gain[v])
    shown = order[:limit]
    rows, gain, low, high, trials = np.arange(len(shown)), gain[shown], low[shown], high[shown], trials[shown]
    ax = ax or new_axes(7.5, 1.5 + 0.27 * len(shown))
    ax.barh(rows, gain, 0.58, color=np.where((low > 0) | (high < 0), COLORS[0], FAINT))
    ax.hlines(rows, low, high, INK, lw=1.2)
    random, (random_low, random_high) = context.random[shown], (end[shown] for end in context.random_interval)
    ax.hlines(rows + 0.38, random_low, random_high, GREY, lw=1)
    ax.plot(random, rows + 0.38, "o", color=GREY, ms=4, mec="white", mew=0.6)
    plain(ax, "x")
    ax.axvline(0, color=INK, lw=0.8)
    left, right = np.nanmin([0, *gain, *low, *random_low]), np.nanmax([1, *gain, *high, *random_high])
    ax.set(xlim=(left - 0.03 * (right - left), right), ylim=(len(shown) - 0.4, -0.6))
    names = short_names((NOTHING, *context.concepts))
    ax.set_yticks(rows, [names[v] for v in shown], size=9)
    add_column(ax, 42, "gained", [f"{g:.1f}".replace("-", "−") for g in gain], INK)
    add_column(ax, 104, "cells tried", [f"{t:,}" for t in trials], GREY)
    set_title(ax, bars_title(context, len(order) - len(shown)), 16)
    seen = f"{context.n:,} images" + ("" if context.complete else " (incomplete)")
    sets = "; grey: as many random units" if context.random_units else ""
    text = f"pixels of {context.concept} gained near the cell, by what was there before"
    ax.set_xlabel(f"{text}\n{seen}; lines: {CONFIDENCE:.0%} interval{sets}", size=9, color=INK)
    return ax


def context_map(
    values: Context | np.ndarray, x, titles: Sequence[str] | None = None, *, columns: int = 6, ax: Axes | None = None
) -> Axes:
    """Images, and below each where a concept appears if its units are switched on there.

    Parameters
    ----------
    values : array (H, W) or (N, H, W), or Context
        Pixels gained near each cell: maps from `ganlens.where`, one for each image or one for all. Of a Context, the
        mean over its images.
    x : Tensor (N, 3, Y, X) in [-1, 1], or uint8 array (N, Y, X, 3)
        The images; their cells are the squares of the map.
    titles, columns, ax
        As for `images`.

    Returns
    -------
    Axes
        The brightest cell of all images gains as many pixels as stands beside the maps; dark ones gain none.
    """
    pictures = as_pictures(x)
    maps = np.asarray(values.map if isinstance(values, Context) else values, np.float32)
    maps = np.broadcast_to(maps, (len(pictures), *maps.shape)) if maps.ndim == 2 else maps
    if maps.ndim != 3 or len(maps) != len(pictures):
        raise ValueError(f"maps of shape {maps.shape} for {len(pictures)} images: expected (H, W), or one for each")
    largest = max(float(maps.max()), 0.0)
    shares = [resize(cells / max(largest, 1e-9), pictures.shape[1:3]) for cells in maps]
    lit = np.stack([overlay(*pair, opacity=0.9) for pair in zip(pictures, shares, strict=True)])
    what = str(values.concept) if isinstance(values, Context) else "it"
    labels = [("images",), (f"where {what} appears", f"0 … {largest:.0f} pixels gained")]
    return sheet([pictures, lit], columns, labels, titles, ax=ax)


def bars_title(context: Context, left: int) -> str:
    """What was done; below, how many rows are left out."""
    count = len(context.edit.units)
    units = f"{count} unit{'s' * (count > 1)} of {context.edit.layer}"
    below = f"\nthe {left} others gain less" if left else ""
    return f"{context.concept}: {units} switched on in one cell at a time{below}"


def add_column(ax: Axes, place: float, name: str, texts: Sequence[str], color: str) -> None:
    """Texts that end ``place`` points right of the Axes, one in each row, and their name above them."""
    options: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    options |= {"ha": "right", "color": color}
    ax.annotate(name, (1, -0.75), (place, 0), va="bottom", size=8, **options)
    for row, text in enumerate(texts):
        ax.annotate(text, (1, row), (place, 0), va="center_baseline", size=9, **options)
