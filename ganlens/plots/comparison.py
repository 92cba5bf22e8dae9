"""Figures of dissections side by side, of matched units, and of what a generator draws too little or too much."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ganlens.comparisons.segmentation_distance import SegmentationDistance
from ganlens.comparisons.side_by_side import Comparison
from ganlens.comparisons.unit_matches import UnitMatches
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, WIDTH, check_at_least_one, set_title, short_names
from ganlens.plots.charts import COLORS, MOST_CONCEPTS, add_heat_map, name_columns, new_axes, plain
from ganlens.plots.sheets import sheet
from ganlens.segmenters.base import Concept

UNDER, OVER, UNSURE = COLORS[2], COLORS[0], "#CCCCCC"


def concept_matrix(C: Comparison, limit: int = MOST_CONCEPTS, ax: Axes | None = None) -> Axes:
    """How well the best unit of each dissection matches each concept: IoU as colour, number of units as text.

    Parameters
    ----------
    C : Comparison
        From `ganlens.compare`.
    limit : int
        Concepts to show. Those with the lowest IoU are left out, and the title says so.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Only concepts that a unit draws somewhere are shown. Where no unit draws one, there is no number.
    """
    check_at_least_one(limit=limit)
    drawn = np.flatnonzero(C.unit_counts.any(0))
    if not len(drawn):
        raise ValueError("no unit of these dissections draws a concept: there is nothing to show")
    best = drawn[np.argsort(-C.iou[:, drawn].max(0), kind="stable")][:limit]
    categories = list(dict.fromkeys(concept.category for concept in C.concepts))
    shown = sorted(best, key=lambda c: (categories.index(C.concepts[c].category), -C.iou[:, c].max()))
    width = np.clip(2.2 + 0.75 * len(C), 4.5, WIDTH)
    ax = ax or new_axes(width, 1.2 + 0.27 * len(shown))
    values = C.iou[:, shown].T
    add_heat_map(ax, values, "IoU of the best unit")
    name_columns(ax, range(len(C)), list(C))
    names = short_names(C.concepts)
    ax.set_yticks(range(len(shown)), [names[c] for c in shown], size=9)
    for row, c in enumerate(shown):
        for column, count in enumerate(C.unit_counts[:, c]):
            if count:
                ink = "white" if values[row, column] < 0.6 * values.max() else INK
                ax.text(column, row, str(count), ha="center", va="center_baseline", size=8, color=ink)
    changes = [r for r in range(1, len(shown)) if C.concepts[shown[r]].category != C.concepts[shown[r - 1]].category]
    ax.hlines(np.array(changes) - 0.5, -0.5, len(C) - 0.5, "white", lw=3)
    left = f"; {len(shown)} of {len(drawn)} concepts" if len(shown) < len(drawn) else ""
    set_title(ax, f"best IoU, and how many units draw it{left}")
    return ax


def best_units(C: Comparison, concept: str | Concept, k: int = 8, *, ax: Axes | None = None) -> Axes:
    """The unit of each dissection that matches a concept best, with its top images, lit where it is on.

    Parameters
    ----------
    C : Comparison
        Its dissections with their generators; images may be of unequal size.
    concept : str or Concept
        Which one.
    k : int
        Images in each row.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A name is grey where no unit draws the concept.
    """
    check_at_least_one(k=k)
    best = C.best_units(concept)
    sizes = [C[unit.name].attached("generator").image_shape[1] for unit in best.best]
    factors = [3 * max(sizes) // size for size in sizes]
    found = [C[unit.name].spotlights([unit.unit], k, f)[0] for unit, f in zip(best.best, factors, strict=True)]
    labels = [(u.name, f"unit {u.unit} · IoU {u.iou:.2f}", INK if u.unit_count else GREY) for u in best.best]
    return sheet(found, k, labels, note=f"{best.concept}: the best unit of each", ax=ax)


def match_curves(matches: UnitMatches | Mapping[str, UnitMatches], ax: Axes | None = None) -> Axes:
    """How similar matched units are, the most similar pair first; dashed, what chance gives.

    Parameters
    ----------
    matches : UnitMatches, or dict of str to UnitMatches
        One line for each.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    matches = {"": matches} if isinstance(matches, UnitMatches) else dict(matches)
    if not matches:
        raise ValueError("no matches: expected at least one")
    ax = ax or new_axes(7, 3)
    plain(ax, "y")
    for i, (name, M) in enumerate(matches.items()):
        color = COLORS[i % len(COLORS)]
        share = (np.arange(len(M.values)) + 0.5) / len(M.values)
        ax.plot(share, M.values, color=color, lw=2, label=f"{name}: {M.mean:.2f}" if name else None)
        ax.hlines(M.chance, 0, 1, color, lw=1, ls=(0, (4, 3)))
    ax.set(xlim=(0, 1), ylim=(min(0, *(M.values.min() for M in matches.values())) - 0.05, 1.03))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    what = {"activation": "correlation", "concepts": "similarity of the concepts"}
    ax.set_ylabel(" / ".join(dict.fromkeys(what[M.by] for M in matches.values())), size=9, color=INK)
    ax.set_xlabel(
        "matched pairs, the most similar first; dashed: mean where there is nothing to match", size=9, color=INK
    )
    if any(matches):
        ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    set_title(ax, "similarity of matched units")
    return ax


def area_bars(F: SegmentationDistance, limit: int = 30, ax: Axes | None = None) -> Axes:
    """What the first of two sources of images draws less or more of than the second (Bau et al., ICCV 2019).

    Parameters
    ----------
    F : SegmentationDistance
        From `ganlens.segmentation_distance`.
    limit : int
        Concepts to show. Those that differ least are left out, and the title says so.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Bars show the difference as a share of the area in the second source: -100 % is never drawn. Lines are 99 %
        intervals; bars whose interval holds 0 are grey. What lies beyond +100 % ends in an arrow. On the right, the
        percent of all pixels in both.
    """
    check_at_least_one(limit=limit)
    a, b = F.a.mean(0), F.b.mean(0)
    found = np.flatnonzero((a > 0) | (b > 0))
    shown = found[np.argsort(-abs(F.relative[found]), kind="stable")][:limit]
    shown = shown[np.argsort(F.relative[shown], kind="stable")]
    share, low, high = (values[shown].clip(-1, 1) for values in (F.relative, *F.relative_interval))
    rows = np.arange(len(shown))
    ax = ax or plt.subplots(figsize=(7.5, 1.5 + 0.27 * len(shown)), layout="constrained")[1]
    plain(ax, "x")
    clear = (low > 0) | (high < 0)
    strong = np.where(share < 0, UNDER, OVER)
    ax.barh(rows, share, 0.66, color=np.where(clear, strong, UNSURE))
    ax.hlines(rows, low, high, INK, lw=1.2)
    beyond = rows[F.relative[shown] > 1]
    ax.plot(np.ones(len(beyond)), beyond, ">", color=INK, ms=6, clip_on=False, zorder=4)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set(xlim=(-1.02, 1.02), ylim=(len(shown) - 0.4, -0.6))
    names = short_names(F.concepts)
    ax.set_yticks(rows, [names[c] for c in shown], size=9)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0%}".replace("-", "−").replace("+0%", "0")))
    place: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "xytext": (86, 0), "textcoords": "offset points"}
    options: dict[str, Any] = {"va": "center_baseline", "ha": "right", "size": 9, "color": INK}
    for row, c in zip(rows, shown, strict=True):
        ax.annotate(f"{a[c]:.1f} / {b[c]:.1f} %", (1, row), annotation_clip=False, **place, **options)
    first, second = F.names
    text = f"area in {first}, less or more than in {second}; on the right: percent of all pixels in both"
    images = f"{len(F.a):,} and {len(F.b):,} images; lines: {CONFIDENCE:.0%} interval"
    ax.set_xlabel(f"{text}\n{images}; distance of samples of one source: {F.bias:.2f}", size=9, color=INK)
    left = f"; {len(shown)} of {len(found)} concepts" if len(shown) < len(found) else ""
    set_title(ax, f"Fréchet segmentation distance {F.distance:.2f}{left}")
    return ax
