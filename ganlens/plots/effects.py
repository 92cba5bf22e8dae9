"""Figures of causes: what rankings of units remove, and which units match without cause."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import Effect
from ganlens.effects.rankings import match_and_cause
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, check_at_least_one, set_title
from ganlens.plots.charts import COLORS, FAINT, new_axes, plain
from ganlens.segmenters.base import Concept, concept_index

MARKERS = "osD^vP*X"


def ranking_curves(effects: Mapping[str, Effect] | Effect, ax: Axes | None = None) -> Axes:
    """Which share of a concept disappears as more and more units are switched off, for one or several rankings.

    Parameters
    ----------
    effects : dict of str to Effect, or Effect
        From `ganlens.compare_rankings`, or from `ganlens.ablation_effect` with ``curve=True``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A line for each ranking in the band of its interval; thin grey lines are random sets of as many units. At the
        end of each line stand its name and the share of everything else that changes.
    """
    effects = {"effect": effects} if isinstance(effects, Effect) else dict(effects)
    if not effects or not all(effect.curve for effect in effects.values()):
        raise ValueError(
            "no curves: measure them, ganlens.compare_rankings(…) or ganlens.ablation_effect(…, curve=True)"
        )
    first = next(iter(effects.values()))
    target = first.concepts.index(first.concept)
    ax = ax or new_axes(7.5, 3.8)
    draw_random_sets(ax, first, target)
    for place, effect in enumerate(effects.values()):
        draw_curve(ax, effect, target, COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)])
    name_ends(ax, effects, target)
    plain(ax, "y")
    ax.axhline(0, color=INK, lw=0.8)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    sets = f"; thin grey: {len(first.random)} random sets of as many units" if len(first.random) else ""
    ax.set_xlabel(f"units switched off\n{first.n} images; bands: {CONFIDENCE:.0%} interval{sets}", size=9, color=INK)
    set_title(ax, f"{first.layer}: share of {first.concept} removed")
    return ax


def correlation_vs_cause(
    D: Dissection,
    concept: str | Concept,
    match: float = 0.04,
    *,
    cause: float = 0.02,
    limit: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """IoU against effect of all units: those that match a concept without causing it, and the other way round.

    Parameters
    ----------
    D : Dissection
        With ``effects``.
    concept : str or Concept
        A word of the vocabulary.
    match, cause : float
        See `ganlens.match_and_cause`, which lists the units.
    limit : int
        Units of each kind that are named.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Circles match and cause, triangles are decoys, squares hidden causes, small dots do neither.
    """
    check_at_least_one(limit=limit)
    found = match_and_cause(D, concept, match, cause=cause)
    i = concept_index(D.concepts, concept, D.origin["segmenter"])
    iou, removed = D.iou[:, i], np.asarray(D.effects)[:, i]
    ax = ax or new_axes(7.5, 4.2)
    ax.scatter(iou, removed, 6, FAINT, lw=0)
    kinds = (("causes", "o", COLORS[0]), ("decoys", "v", COLORS[2]), ("hidden causes", "s", COLORS[1]))
    named: list[np.ndarray] = []
    for (name, marker, color), units in zip(kinds, found, strict=True):
        listed = ", ".join(map(str, units[:limit])) + (" …" if len(units) > limit else "")
        text = f"{len(units)} {name}" + (f": {listed}" if units else "")
        ax.scatter(iou[units], removed[units], 24, color, marker=marker, edgecolors="white", lw=0.5, label=text)
        name_points(ax, units[:limit], np.stack([iou, removed], 1), named)
    ax.axvline(max(match, D.chance[i]), color=GREY, lw=0.8, ls=":")
    ax.axhline(cause, color=GREY, lw=0.8, ls=":")
    plain(ax)
    ax.axhline(0, color=INK, lw=0.8)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel(f"IoU with {D.concepts[i]}", size=9, color=INK)
    ax.set_ylabel("removed by the unit alone", size=9, color=INK)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", bbox_to_anchor=(0, -0.16), borderpad=0)
    set_title(ax, f"{D.layer}: what matches {D.concepts[i]}, and what causes it")
    return ax


# ---- how it is drawn


def sizes_of(effect: Effect) -> list[int]:
    """Numbers of units along a curve, from nothing."""
    return [0, *(len(part.units) for part in effect.curve)]


def draw_random_sets(ax: Axes, effect: Effect, target: int) -> None:
    """One thin line for each random set."""
    for row in range(len(effect.random_after)):
        shares = [0, *(part.random[row, target] for part in effect.curve)]
        ax.plot(sizes_of(effect), shares, color=GREY, lw=0.7, zorder=1)


def draw_curve(ax: Axes, effect: Effect, target: int, color: str, marker: str) -> None:
    """A line through the shares removed, in the band of the interval."""
    sizes = sizes_of(effect)
    removed, low, high = zip(*[(p.removed, *p.interval) for p in effect.curve], strict=True)
    removed, low, high = ([0, *(share[target] for share in part)] for part in (removed, low, high))
    ax.fill_between(sizes, low, high, color=color, alpha=0.15, lw=0)
    ax.plot(sizes, removed, color=color, lw=1.6, marker=marker, ms=4, zorder=3)


def name_ends(ax: Axes, effects: Mapping[str, Effect], target: int) -> None:
    """Beside the end of each line its name, its share and the change of everything else, in the order of the lines."""
    ends = {name: effect.removed[target] for name, effect in effects.items()}
    low, high = ax.get_ylim()
    apart = (high - low) * 15 / (72 * ax.bbox.height / ax.figure.dpi)
    places: dict[str, float] = {}
    for name in sorted(ends, key=lambda name: ends[name]):
        places[name] = max(ends[name], max(places.values(), default=-np.inf) + apart)
    ax.set_ylim(low, max(high, max(places.values()) + apart / 2))
    last = max(sizes_of(effect)[-1] for effect in effects.values())
    for place, (name, effect) in enumerate(effects.items()):
        others = "" if effect.changed is None else f", {effect.elsewhere:.0%} of the rest"
        style: dict[str, Any] = {"size": 9, "color": INK, "va": "center"}
        ax.text(last * 1.07, places[name], f"{name}: {ends[name]:.0%}{others}".replace("-", "−"), **style)
        ax.plot(last * 1.045, places[name], MARKERS[place % len(MARKERS)], color=COLORS[place % len(COLORS)], ms=5)
    ax.set_xlim(-0.02 * last, last * 1.5)
    ax.set_xticks([tick for tick in MaxNLocator(6, integer=True).tick_values(0, last) if 0 <= tick <= last])


def name_points(ax: Axes, units: Sequence[int], points: np.ndarray, named: list[np.ndarray]) -> None:
    """Numbers beside the points (U, 2) of units, but not where another number, of those ``named``, already stands."""
    ax.autoscale_view()
    for unit in units:
        place = ax.transData.transform(points[unit]) * 72 / ax.figure.dpi
        if all((abs(place - other) > (22, 11)).any() for other in named):
            named.append(place)
            ax.annotate(str(unit), points[unit], (4, 3), textcoords="offset points", size=8, color=INK)
