"""Figures of artifact units: which they are, what the images are without them, and what that is worth."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ganlens.dissection.result import generator_of
from ganlens.effects.artifacts import Artifacts
from ganlens.images import grid, strip, to_uint8
from ganlens.intervals import CONFIDENCE
from ganlens.plots.axes import GREY, INK, WIDTH, check_at_least_one, set_title
from ganlens.plots.charts import COLORS, FAINT, new_axes, plain


def distance_bars(found: Artifacts, ax: Axes | None = None) -> Axes:
    """The distance to reference images before, with the worst units switched off, and with random ones.

    Parameters
    ----------
    found : Artifacts
        From `ganlens.find_artifacts`, with reference images.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Lines are 99 % intervals. They cover what the bars have in common, so two of them may overlap and the verdict,
        which is taken on the differences, be a gain all the same.
    """
    if found.distances is None:
        raise ValueError(f"no distances to draw, {found.verdict}: give ganlens.find_artifacts(…) reference images")
    ax = ax or new_axes(7.5, 1.5 + 0.27 * (2 + len(found.random)))
    values, (low, high) = found.distances[0], found.intervals.T
    rows = np.arange(len(values)) + 0.5 * (np.arange(len(values)) > 1)
    ax.barh(rows, values, 0.66, color=[GREY, COLORS[0], *[FAINT] * len(found.random)])
    ax.hlines(rows, low.clip(0), high, INK, lw=1.2)
    plain(ax, "x")
    right = max(high.max(), values.max())
    ax.set(xlim=(0, right * 1.12), ylim=(rows[-1] + 0.6, -0.6))
    for row, value in zip(rows, values, strict=True):
        ax.text(right * 1.12, row, f"{value:.3g}", va="center_baseline", ha="right", size=9, color=INK)
    names = [
        "unedited",
        f"without the {len(found.units)} worst",
        *[f"without {len(found.units)} random"] * len(found.random),
    ]
    ax.set_yticks(rows, names, size=9)
    sizes = f"{found.images:,} generated, {found.references:,} reference images"
    ax.set_xlabel(f"{found.distance} ({found.extractor})\n{sizes}; lines: {CONFIDENCE:.0%} interval", size=9, color=INK)
    set_title(ax, found.verdict)
    return ax


def artifact_repair(found: Artifacts, unit_count: int = 4, k: int = 8) -> np.ndarray:
    """The worst units' top images, images before and after they are switched off, and what it does to the distance.

    Parameters
    ----------
    found : Artifacts
        From `ganlens.find_artifacts`, its dissection with the generator.
    unit_count : int
        How many of the units to show.
    k : int
        Images in a row.

    Returns
    -------
    array of Axes
        Top images, lit where the unit is on; the images that activate the units most, before and after; and, where
        they were measured, `distance_bars`.
    """
    check_at_least_one(unit_count=unit_count, k=k)
    D, shown = found.dissection, list(found.units[:unit_count])
    generator = generator_of(D)
    seeds = strongest_seeds(D, found.units, k)
    before, after = (to_uint8(generator.generate(seeds, edits)) for edits in ((), [found.edit]))
    strips = [strip(row) for row in D.spotlights(shown, k)]
    labels = [D.labels[unit] for unit in shown]
    names = [f"unit {b.unit}\n{b.concept if b.interpretable else ''}".rstrip() for b in labels]
    sheets = [strips, [grid(pictures, k, gap=1) for pictures in (before, after)]]
    measured = found.distances is not None
    across = WIDTH - 1.2
    heights = [sum(1.04 * across * len(s) / s.shape[1] for s in sheet) + 0.4 for sheet in sheets]
    heights += [1.1 + 0.24 * (2 + len(found.random))] * measured
    axes = plt.subplots(len(heights), figsize=(WIDTH, sum(heights)), height_ratios=heights, layout="constrained")[1]
    stack(axes[0], sheets[0], names, f"{found.layer}: the worst units by {found.method}, and their top images")
    stack(
        axes[1],
        sheets[1],
        ["before", "after"],
        "images that activate them most, before and after they are switched off",
    )
    if measured:
        distance_bars(found, axes[2])
    return axes


# ---- how it is drawn


def strongest_seeds(D, units, k: int) -> list[int]:
    """Seeds of k different images: the top image of each unit, then the second one of each."""
    seeds = dict.fromkeys(seed for column in D.top[list(units)].T.tolist() for seed in column if seed >= 0)
    return list(seeds)[:k]


def stack(ax: Axes, rows: list[np.ndarray], names: list[str], title: str) -> None:
    """Pictures of any size below each other, all as wide as the widest, each with its name on the left."""
    width, y, middles = max(row.shape[1] for row in rows), 0.0, []
    for row in rows:
        height = len(row) * width / row.shape[1]
        ax.imshow(row, extent=(0, width, y + height, y), interpolation="nearest")
        middles.append(y + height / 2)
        y += height * 1.04
    ax.set(xlim=(0, width), ylim=(y, 0), aspect="equal", anchor="NW")
    plain(ax)
    ax.set_xticks([])
    ax.set_yticks(middles, names, size=9)
    set_title(ax, title)
