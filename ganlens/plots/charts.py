"""Figures of numbers: how many units draw what, how well, and what an edit changes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import Effect
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, WIDTH, add_key, check_at_least_one, set_title, short_names
from ganlens.segmenters.base import Concept

COLORS = ("#4477AA", "#DDAA33", "#BB5566", "#228833", "#66CCEE", "#AA3377", "#999999")  # P. Tol: safe for all eyes
FAINT = "#A9BFD3"
MOST_CONCEPTS = 40


# ---- figures


def concept_bars(D: Dissection, limit: int = MOST_CONCEPTS, ax: Axes | None = None) -> Axes:
    """How many units draw each concept, by category, as in Bau et al. (PNAS 2020).

    Parameters
    ----------
    D : Dissection
        What was found.
    limit : int
        Concepts to show. Those with the fewest units are left out, and the title says so.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    check_at_least_one(limit=limit)
    counts, colors = D.unit_counts, category_colors(D.concepts)
    categories = list(colors)
    shown = sorted(dict(counts.most_common(limit)), key=lambda c: (categories.index(c.category), -counts[c], c))
    names, places = short_names(shown), places_by_category(shown)
    below = 0.075 * max(map(len, names), default=0)
    ax = ax or new_axes(np.clip(1 + 0.42 * len(shown), 5, WIDTH), 2.6 + below)
    bars = ax.bar(places, [counts[c] for c in shown], 0.75, color=[colors[c.category] for c in shown])
    ax.bar_label(bars, size=8, color=INK, padding=1)
    count_axis(ax)
    ax.set_ylabel("units", size=9)
    name_columns(ax, places, names)
    ax.set_xlim(-0.6, max([4, *places]) + 0.6)
    left = f" ({len(counts) - len(shown)} of them not shown)" if len(shown) < len(counts) else ""
    text = f"{D.layer}: {counts.total()} of {len(D.labels)} units draw one of {len(counts)} concepts{left}"
    set_title(ax, text, add_category_key(ax, shown, colors))
    return ax


def layers_bars(dissections: Mapping[str, Dissection]) -> np.ndarray:
    """Layers side by side: units that draw a concept, and distinct concepts, by category.

    Parameters
    ----------
    dissections : dict of str to Dissection
        By layer, as `ganlens.dissect` gives them, or by any other name.

    Returns
    -------
    array of two Axes
    """
    if not dissections:
        raise ValueError("no dissections: expected at least one")
    names = [f"{name}\n{len(D.labels)} units" for name, D in dissections.items()]
    units = [D.unit_counts for D in dissections.values()]
    distinct = [Counter(dict.fromkeys(count, 1)) for count in units]
    colors = category_colors(c for D in dissections.values() for c in D.concepts)
    size = (np.clip(1.6 * len(names), 7, WIDTH), 3.2)
    axes = plt.subplots(1, 2, figsize=size, layout="constrained")[1]
    add_stacks(axes[0], names, units, colors)
    add_stacks(axes[1], names, distinct, colors)
    pad = add_category_key(axes[0], set().union(*units), colors)
    set_title(axes[0], "units that draw a concept", pad)
    set_title(axes[1], "distinct concepts", pad)
    return axes


def iou_matrix(D: Dissection, units: Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
    """IoU of units and concepts as a heat map; rows are ordered by the unit's concept, then by IoU.

    Parameters
    ----------
    D : Dissection
        U units, C concepts.
    units : sequence of int, optional
        By default the interpretable ones.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Where rows are too thin for the units' numbers, concepts and numbers of units stand there. Of more than 40
        concepts, those with the most units are shown.
    """
    units = D.interpretable if units is None else list(units)
    if not units:
        raise ValueError(f"no unit of {D.layer} is interpretable: give units=[…] to see some all the same")
    D.check_units(units)
    best = {unit: D.concepts.index(D.labels[unit].concept) for unit in units}
    units = sorted(units, key=lambda unit: (best[unit], -D.labels[unit].iou))
    drawn = np.bincount(list(best.values()), minlength=len(D.concepts)) + D.iou[units].max(0)
    shown = np.sort(np.argsort(-drawn, kind="stable")[:MOST_CONCEPTS]).tolist()
    names = short_names(D.concepts)
    below = 0.075 * max(len(names[c]) for c in shown)
    ax = ax or new_axes(np.clip(2 + 0.36 * len(shown), 5, WIDTH), below + np.clip(0.6 + 0.17 * len(units), 1.6, 7.4))
    add_heat_map(ax, D.iou[np.ix_(units, shown)], "IoU")
    name_columns(ax, range(len(shown)), [names[c] for c in shown])
    name_rows(ax, units, [names[best[unit]] for unit in units])
    left = f"; {len(shown)} of {len(D.concepts)} concepts" if len(shown) < len(D.concepts) else ""
    set_title(ax, f"{D.layer}: {len(units)} of {len(D.labels)} units{left}")
    return ax


def effect_bars(effect: Effect, limit: int = 20, ax: Axes | None = None) -> Axes:
    """Which share of each concept an edit removes, its interval, and the same for random sets of units.

    Parameters
    ----------
    effect : Effect
        From `ganlens.ablation_effect`.
    limit : int
        Concepts to show: the one asked for, then those that change most.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Bars to the right are pixels removed, to the left pixels added. What lies beyond -100 % ends in an arrow; the
        number on the right tells. A concept that is not in the images has no bar.
    """
    check_at_least_one(limit=limit)
    order = target_first(effect)
    shown, target = order[:limit], effect.concepts.index(effect.concept)
    removed, low, high, random = (a[..., shown] for a in (effect.removed, *effect.interval, effect.random))
    rows = np.arange(len(shown)) + 0.5 * (np.array(shown) != target)
    ax = ax or new_axes(7.5, 1.3 + 0.27 * len(shown))
    ax.barh(rows, removed.clip(-1, 1), 0.66, color=[COLORS[0] if c == target else FAINT for c in shown])
    ax.hlines(rows, low.clip(-1, 1), high.clip(-1, 1), INK, lw=1.2)
    dots: dict[str, Any] = {"edgecolors": "white", "lw": 0.6, "zorder": 3}
    ax.scatter(random.clip(-1, 1), np.tile(rows, (len(random), 1)), 20, GREY, **dots)  # (R, shown)
    beyond = rows[removed < -1]
    ax.plot(np.full(len(beyond), -1), beyond, "<", color=INK, ms=6, clip_on=False, zorder=4)
    share_axis(ax, rows, removed)
    lowest = min(0, *removed, *low, *random.ravel())
    ax.set(xlim=(max(lowest, -1) - 0.03, 1), ylim=(rows[-1] + 0.6, rows[0] - 0.6))
    names = short_names(effect.concepts)
    ax.set_yticks(rows, [names[c] for c in shown], size=9)
    set_title(ax, effect_title(effect, len(order) - len(shown), len(effect.concepts) - len(order)))
    sets = f"; dots: {len(random)} random sets of as many units" if len(random) else ""
    text = f"share of pixels removed\n{effect.n} images; lines: {CONFIDENCE:.0%} interval{sets}"
    ax.set_xlabel(text, size=9, color=INK)
    return ax


# ---- what is in them


def category_colors(concepts: Iterable[Concept]) -> dict[str, str]:
    """A colour for each category, in the order of the vocabulary."""
    categories = dict.fromkeys(concept.category for concept in concepts)
    return {category: COLORS[i % len(COLORS)] for i, category in enumerate(categories)}


def target_first(effect: Effect) -> list[int]:
    """The concepts that are in the images: the one asked for, then those that change most."""
    found = np.flatnonzero(effect.before.sum(0)).tolist()
    if not found:
        raise ValueError(f"no concept is in the {effect.n} images: expected at least one")
    removed, target = effect.removed, effect.concepts.index(effect.concept)
    return sorted(found, key=lambda c: (c != target, -abs(removed[c])))


def effect_title(effect: Effect, left: int, absent: int) -> str:
    """What was done and what it does to the concept asked for; below, how many concepts have no bar, and why."""
    target = effect.concepts.index(effect.concept)
    removed = effect.removed[target]
    does = f"{abs(removed):.0%} of {effect.concept} {'added' if removed < 0 else 'removed'}"
    if not effect.before[:, target].any():
        does = f"{effect.concept} is not in the images"
    notes = {f"the {left} other concepts change less": left, f"not in the images: {absent}": absent}
    below = "; ".join(note for note, count in notes.items() if count)
    return f"{len(effect.units)} units of {effect.layer} switched off: {does}\n{below}".rstrip()


# ---- how it is drawn


def new_axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def places_by_category(concepts: Sequence[Concept]) -> np.ndarray:
    """Where bars stand: one apart, and a gap between categories."""
    changes = [a.category != b.category for a, b in pairwise(concepts)]
    return np.arange(len(concepts)) + 0.6 * np.cumsum([0, *changes])[: len(concepts)]


def plain(ax: Axes, grid: Literal["x", "y"] | None = None) -> None:
    """Without frame and ticks; with faint lines behind the numbers of one axis."""
    ax.spines[:].set_visible(False)
    ax.tick_params(labelsize=9, length=0, labelcolor=INK)
    if grid:
        ax.grid(axis=grid, color="#E6E6E6", lw=0.8)
        ax.set_axisbelow(True)


def count_axis(ax: Axes) -> None:
    """Whole numbers upwards from a line at 0."""
    plain(ax, "y")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.axhline(0, color=INK, lw=0.8)
    ax.margins(y=0.12)


def share_axis(ax: Axes, rows: np.ndarray, shares: np.ndarray) -> None:
    """Percent to both sides of a line at 0; on the right, the shares of the rows as numbers."""
    plain(ax, "x")
    ax.axvline(0, color=INK, lw=0.8)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    options: dict[str, Any] = {"va": "center_baseline", "ha": "right", "size": 9, "color": INK}
    for row, share in zip(rows, shares, strict=True):
        text = f"{share:.0%}".replace("-", "−")
        ax.text(1.09, row, text, transform=ax.get_yaxis_transform(), **options)


def add_category_key(ax: Axes, concepts: Iterable[Concept], colors: Mapping[str, str]) -> float:
    """A key of the categories above the Axes, if there are several; the distance that the title needs."""
    found = {concept.category for concept in concepts}
    key = [Patch(facecolor=color, label=category) for category, color in colors.items() if category in found]
    if len(key) < 2:
        return 6
    add_key(ax, key, len(key), loc="lower left", bbox_to_anchor=(0, 1))
    return 24


def add_stacks(ax: Axes, names: Sequence[str], counts: Sequence[Counter], colors: Mapping[str, str]) -> None:
    """One stack of categories for each name, with the total above."""
    base = np.zeros(len(names), int)
    for category, color in colors.items():
        heights = np.array([sum(n for c, n in count.items() if c.category == category) for count in counts])
        bars = ax.bar(range(len(names)), heights, 0.65, base, color=color)
        base += heights
    ax.bar_label(bars, [str(total) for total in base], size=9, color=INK, padding=1)
    count_axis(ax)
    name_columns(ax, range(len(names)), names)


def add_heat_map(ax: Axes, values: np.ndarray, name: str) -> None:
    """Values (rows, columns) from 0 to the largest, and a bar that explains the colours."""
    picture = ax.imshow(values, aspect="auto", interpolation="nearest", vmin=0)
    bar = ax.figure.colorbar(picture, ax=ax, aspect=40, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, labelcolor=INK)
    bar.set_label(name, size=9)
    plain(ax)


def name_columns(ax: Axes, places: Sequence[float] | np.ndarray, names: Sequence[str]) -> None:
    """Names below columns, upright where the columns are narrower than the names."""
    letters = max((len(line) for name in names for line in name.split("\n")), default=0)
    room = ax.bbox.width / ax.figure.dpi / max(len(names), 1)
    ax.set_xticks(places, names, size=9, rotation=90 if letters * 0.085 > room else 0)


def name_rows(ax: Axes, units: Sequence[int], names: Sequence[str]) -> None:
    """Numbers of the units, or, where rows are thin, the concepts of neighbouring rows and how many there are."""
    height = 72 * ax.bbox.height / ax.figure.dpi / len(units)
    edges = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    if height * len(names) > 8 * (len(edges) - 1):
        ax.hlines(np.array(edges[1:-1]) - 0.5, -0.5, ax.get_xlim()[1], "white", lw=0.6)
    if height >= 9:
        ax.set_yticks(range(len(units)), [f"unit {unit}" for unit in units], size=8)
    else:
        name_groups(ax, edges, names, apart=11 / height)


def name_groups(ax: Axes, edges: Sequence[int], names: Sequence[str], apart: float) -> None:
    """Name and size of each group of rows at its middle, where it is ``apart`` from the last name."""
    ticks: dict[float, str] = {}
    for start, end in pairwise(edges):
        middle = (start + end - 1) / 2
        if not ticks or middle - max(ticks) >= apart:
            ticks[middle] = f"{names[start]} ({end - start})"
    ax.set_yticks(list(ticks), list(ticks.values()), size=8)
