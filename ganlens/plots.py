"""Matplotlib figures of images, units, concepts and effects.

A function draws into ``ax``, or into a new figure where none is given, and returns the Axes; one that needs several
Axes returns a Figure, which a notebook shows when it is the last line of a cell. Nothing is measured here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ganlens.dissection import Dissection
from ganlens.images import as_pictures, colorize, enlarge, outline, palette, resize
from ganlens.segmenters.base import Concept, Segmenter
from ganlens.statistics import upsample

WIDTH = 9.5  # inches that a notebook shows without scaling
COLORS = ("#4477AA", "#DDAA33", "#BB5566", "#228833", "#66CCEE", "#AA3377", "#999999")  # P. Tol: safe for all eyes
INK, GREY = "#222222", "#777777"
MOST_ROWS, MOST_CONCEPTS, MOST_KEYS = 40, 40, 24


# ---- pictures


def images(x, titles: Sequence[str] | None = None, columns: int = 8, ax: Axes | None = None) -> Axes:
    """Images in rows.

    Parameters
    ----------
    x : Tensor (N, 3, Y, X) in [-1, 1], or uint8 array (N, Y, X, 3)
        Small images are enlarged by a whole number: every pixel is a square.
    titles : sequence of str, optional
        One for each image.
    columns : int
        Images per row.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = images(np.zeros((3, 8, 8, 3), np.uint8), titles=["a", "b", "c"])
    >>> len(ax.images)
    3
    >>> plt.close(ax.figure)
    """
    return _sheet([as_pictures(x)], columns, titles=titles, ax=ax)


def before_after(
    before, after, titles=None, columns: int = 6, names: Sequence[str] = ("before", "after"), ax: Axes | None = None
) -> Axes:
    """Images before and after an edit, and where they differ.

    Parameters
    ----------
    before, after : Tensors (N, 3, Y, X) in [-1, 1], or uint8 arrays (N, Y, X, 3)
        The same images without and with the edit.
    titles, columns, ax
        As for `images`.
    names : tuple of two str
        What the rows are called.

    Returns
    -------
    Axes
        The third row shows the channel that differs most. Its scale ends at the largest difference of all images,
        which stands beside it in percent of the full range.
    """
    before, after = as_pictures(before), as_pictures(after)
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} before, {after.shape} after: expected the same number and size")
    change = np.abs(after.astype(int) - before).max(3)  # (N, Y, X)
    largest = change.max()
    labels = [(names[0],), (names[1],), ("difference", f"up to {largest / 255:.0%}")]
    return _sheet([before, after, _heat(change / max(largest, 1))], columns, labels, titles, ax=ax)


def segmentation(
    x, S: Segmenter, titles: Sequence[str] | None = None, columns: int = 8, plane: int = 0, ax: Axes | None = None
) -> Axes:
    """Images, below each its segmentation, and a key of the concepts that occur.

    Parameters
    ----------
    x : Tensor (N, 3, Y, X) in [-1, 1]
        The images.
    S : Segmenter
        Each of its concepts has the same colour in every figure.
    titles, columns, ax
        As for `images`.
    plane : int
        Which of the segmenter's label planes.

    Returns
    -------
    Axes
    """
    pictures = as_pictures(x)
    labels = _plane(x, S, plane)
    return _sheet([pictures, _colored(labels, S, pictures)], columns, titles=titles, key=_key(labels, S), ax=ax)


def unit_strips(D: Dissection, units: Sequence[int] | None = None, k: int = 8, ax: Axes | None = None) -> Axes:
    """One row for each unit: what it draws, and its top images, lit where the unit is on.

    Parameters
    ----------
    D : Dissection
        With its generator.
    units : sequence of int, optional
        By default the best unit of each concept, then the next best; 40 at most are shown.
    k : int
        Images per unit.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The concept is grey where the unit is not interpretable.
    """
    units = [best.unit for best in D.best()] if units is None else list(units)
    if not units:
        raise ValueError(f"no units of {D.layer} to show: give their numbers as units=[…]")
    D.check_units(units)
    _at_least_one(k=k)
    shown, left = units[:MOST_ROWS], units[MOST_ROWS:]
    note = f"the first {MOST_ROWS} of {len(units)} units" if left else ""
    return _sheet(D.spotlights(shown, k), k, [_unit_label(D, unit) for unit in shown], note=note, ax=ax)


def unit_maps(D: Dissection, unit: int, k: int = 6, plane: int = 0, ax: Axes | None = None) -> Axes:
    """Top images of a unit, how active it is in them, and their segmentation.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    unit : int
        Which unit.
    k : int
        How many of its top images.
    plane : int
        Which of the segmenter's label planes.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The heat maps end at the highest activation of all images; the line is the unit's threshold.
    """
    D.check_units([unit])
    _at_least_one(k=k)
    G, S = D.attached("generator"), D.attached("segmenter")
    x, features = G.read(G.sample([seed for seed in D.top[unit, :k].tolist() if seed >= 0]), [D.layer])
    x, features = x.detach(), features[D.layer][:, [unit]].detach()
    values = upsample(features, x.shape[2:])[:, 0].cpu().numpy()  # (N, Y, X)
    pictures, labels = as_pictures(x), _plane(x, S, plane)
    heat = _contoured(_heat(values / max(values.max(), 1e-9), pictures), values > D.thresholds[unit])
    name, detail, _ = _unit_label(D, unit)
    scale = f"0 … {values.max():.2g}, line at {D.thresholds[unit]:.2g}"
    rows = [("top images",), ("activation", scale), ("segmentation",)]
    note = f"{D.layer}: {name} · {detail}"
    return _sheet([pictures, heat, _colored(labels, S, pictures)], k, rows, key=_key(labels, S), note=note, ax=ax)


def _unit_label(D: Dissection, unit: int) -> tuple[str, str, str]:
    label = D.labels[unit]
    return _names([label.concept])[0], f"unit {unit} · IoU {label.iou:.2f}", INK if label.interpretable else GREY


def _heat(values: np.ndarray, pictures: np.ndarray | None = None, opacity: float = 0.7) -> np.ndarray:
    """Values (N, Y, X) in [0, 1] in the colours of magma, laid over grey pictures (N, Y, X, 3) if given."""
    colors = plt.colormaps["magma"](values.clip(0, 1))[..., :3] * 255
    if pictures is not None:
        colors = opacity * colors + (1 - opacity) * pictures.mean(3, keepdims=True)
    return colors.astype(np.uint8)


def _contoured(pictures: np.ndarray, masks: np.ndarray, factor: int = 3) -> np.ndarray:
    """Pictures (N, Y, X, 3) enlarged, with a thin white line around masks (N, Y, X)."""
    pictures, masks = enlarge(pictures, factor), enlarge(masks[..., None], factor)[..., 0]
    return np.stack([outline(p, mask, (255, 255, 255)) for p, mask in zip(pictures, masks, strict=True)])


def _plane(x, S: Segmenter, plane: int) -> np.ndarray:
    """One label plane (N, h, w) of images."""
    labels = S.labels(x)
    if not 0 <= plane < labels.shape[1]:
        raise ValueError(f"plane={plane}: {S.name} has planes 0 … {labels.shape[1] - 1}")
    return labels[:, plane].cpu().numpy()


def _colored(labels: np.ndarray, S: Segmenter, pictures: np.ndarray) -> np.ndarray:
    """Labels (N, h, w) as pictures of the size of ``pictures``."""
    colors = palette(len(S.concepts))
    return np.stack([resize(colorize(plane, colors), pictures.shape[1:3]) for plane in labels])


def _key(labels: np.ndarray, S: Segmenter) -> list[Patch]:
    """Colour and name of each concept that occurs in labels (N, h, w), largest first."""
    area = np.bincount(labels.ravel(), minlength=len(S.concepts) + 1)[1:]
    found = [c for c in np.argsort(-area, kind="stable") if area[c]]
    names, colors = _names(S.concepts), palette(len(S.concepts)) / 255
    key = [Patch(facecolor=colors[c], label=names[c]) for c in found[:MOST_KEYS]]
    left = len(found) - len(key)
    return [*key, Patch(facecolor="none", label=f"and {left} more")] if left else key


def _sheet(sets, columns: int, labels=(), titles=None, key=(), note="", ax: Axes | None = None) -> Axes:
    """Sets of pictures (N, Y, X, 3), one below the other, continued in a further block after ``columns`` pictures.

    ``labels`` (name, detail, colour) stand left of the rows, ``titles`` above the pictures of the first set. The unit
    of the Axes is a pixel of the screen.
    """
    count, size = max(map(len, sets)), sets[0].shape[1:3]
    _at_least_one(columns=columns)
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images: expected as many")
    columns, fitted = min(columns, count), ax is None
    ax = plt.figure().add_subplot() if fitted else ax
    scale, dot = _scale(ax, fitted, columns, size[1], 1.6 if labels else 0), ax.figure.dpi / 100
    height, width = np.multiply(size, scale)
    gap, y = 4 * dot, 0.0
    for start in range(0, count, columns):
        block = slice(start, start + columns)
        y += 3 * gap * (start > 0)
        if titles is not None:
            y += 16 * dot
            _titles(ax, titles[block], y, width, gap)
        for row, pictures in enumerate(sets):
            _row(ax, pictures[block], y, width, height, gap)
            if labels:
                _label(ax, y + height / 2, *labels[row])
            y += height + gap
    return _finish(ax, columns * (width + gap) - gap, y - gap, key, note, fitted)


def _scale(ax: Axes, fitted: bool, columns: int, width: int, margin: float) -> float:
    """Pixels of the screen for each pixel of a picture; whole numbers where the figure is ours and has the room."""
    room = min(WIDTH - margin, 2.2 * columns) * ax.figure.dpi if fitted else ax.bbox.width
    scale = room / columns / width
    return int(scale + 0.2) if fitted and scale >= 1 else scale


def _row(ax: Axes, pictures, y: float, width: float, height: float, gap: float) -> None:
    for i, picture in enumerate(pictures):
        left = i * (width + gap)
        extent = (left, left + width, y + height, y)
        ax.imshow(picture, extent=extent, interpolation="nearest" if picture.shape[1] <= width else "auto")


def _titles(ax: Axes, titles: Sequence[str], y: float, width: float, gap: float) -> None:
    for i, title in enumerate(titles):
        _shorten(ax.text(i * (width + gap), y - gap, title, size=9, color=INK), width)


def _shorten(text: Text, room: float) -> None:
    """Cut a text until it is at most ``room`` pixels wide."""
    while text.get_window_extent().width > room and len(text.get_text()) > 2:
        text.set_text(text.get_text()[:-2] + "…")


def _label(ax: Axes, y: float, name: str, detail: str = "", color: str = INK) -> None:
    """A name and, smaller and below it, a detail, left of the Axes at height ``y``."""
    options = {"textcoords": "offset points", "ha": "right", "annotation_clip": False}
    ax.annotate(name, (0, y), (-8, 0), va="bottom" if detail else "center", size=10, color=color, **options)
    ax.annotate(detail, (0, y), (-8, -2), va="top", size=8, color=GREY, **options)


def _finish(ax: Axes, width: float, height: float, key, note: str, fitted: bool) -> Axes:
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.axis("off")
    _title(ax, note)
    if key:
        each = max(len(patch.get_label()) for patch in key) * 6 + 44
        rows = -(-len(key) // max(1, int(100 * width / ax.figure.dpi / each)))
        _legend(ax, key, -(-len(key) // rows), loc="upper left", bbox_to_anchor=(0, 0))
    if fitted:
        _fit(ax, width, height)
    return ax


def _fit(ax: Axes, width: float, height: float, pad: float = 8) -> None:
    """Give the Axes this size in pixels of the screen, and the figure the room that the texts around it need."""
    figure = ax.figure
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    ax.set_position((0, 0, 1, 1))
    box = ax.get_tightbbox()
    left, bottom = np.ceil((pad - min(box.x0, 0), pad - min(box.y0, 0)))
    across, up = np.ceil((left + max(box.x1, width) + pad, bottom + max(box.y1, height) + pad))
    figure.set_size_inches(across / figure.dpi, up / figure.dpi)
    ax.set_position((left / across, bottom / up, width / across, height / up))


# ---- numbers


def concept_bars(
    D: Dissection | Mapping[str, Dissection], limit: int = MOST_CONCEPTS, ax: Axes | None = None
) -> Axes | Figure:
    """How many units draw each concept, by category, as in Bau et al. (PNAS 2020).

    Parameters
    ----------
    D : Dissection, or dict of str to Dissection
        Several are drawn one below the other, with the same concepts in the same places.
    limit : int
        Concepts to show. Those with the fewest units are left out, and the title says so.
    ax : Axes, optional
        Where to draw a single dissection.

    Returns
    -------
    Axes, or Figure for a dict
    """
    _at_least_one(limit=limit)
    several = list(D.values()) if isinstance(D, Mapping) else [D]
    if not several:
        raise ValueError("no dissections: expected at least one")
    colors = _colors([c for one in several for c in one.concepts])
    order = _order(several, limit, list(colors))
    width, height = _bars_size(order)
    if not isinstance(D, Mapping):
        return _concept_bars(_axes(ax, width, height), D, D.layer, order, colors)
    if ax is not None:
        raise ValueError("several dissections need several Axes: give no ax, or one dissection")
    figure, axes = _figure(len(D), 1, width, height + 1.8 * (len(D) - 1), sharex=True, sharey=True)
    for i, (name, one) in enumerate(D.items()):
        _concept_bars(axes[i, 0], one, name, order, colors, legend=i == 0)
    return figure


def layers_bars(dissections: Mapping[str, Dissection]) -> Figure:
    """Layers side by side: units that draw a concept, and distinct concepts, by category.

    Parameters
    ----------
    dissections : dict of str to Dissection
        By layer, as `ganlens.dissect` gives them, or by any other name.

    Returns
    -------
    Figure
    """
    if not dissections:
        raise ValueError("no dissections: expected at least one")
    names = [f"{name}\n{len(D.labels)} units" for name, D in dissections.items()]
    units = [_counts(D) for D in dissections.values()]
    distinct = [Counter(dict.fromkeys(count, 1)) for count in units]
    colors = _colors([c for D in dissections.values() for c in D.concepts])
    figure, axes = _figure(1, 2, float(np.clip(1.6 * len(names), 7, WIDTH)), 3.2)
    keyed = _legend_above(axes[0, 0], set().union(*units), colors)
    _stacks(axes[0, 0], names, units, colors)
    _title(axes[0, 0], "units that draw a concept", keyed)
    _stacks(axes[0, 1], names, distinct, colors)
    _title(axes[0, 1], "distinct concepts", keyed)
    return figure


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
    shown = np.sort(np.argsort(-drawn, kind="stable")[:MOST_CONCEPTS])
    names = _names(D.concepts)
    below = 0.075 * max(len(names[c]) for c in shown)
    ax = _axes(ax, np.clip(2 + 0.36 * len(shown), 5, WIDTH), below + np.clip(0.6 + 0.17 * len(units), 1.6, 7.4))
    picture = ax.imshow(D.iou[np.ix_(units, shown)], aspect="auto", interpolation="nearest", vmin=0)
    bar = ax.figure.colorbar(picture, ax=ax, aspect=40, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, labelcolor=INK)
    bar.set_label("IoU", size=9)
    _plain(ax, "none")
    _column_names(ax, range(len(shown)), [names[c] for c in shown])
    _row_names(ax, units, [names[best[unit]] for unit in units])
    rest = f"; {len(shown)} of {len(D.concepts)} concepts" if len(shown) < len(D.concepts) else ""
    _title(ax, f"{D.layer}: {len(units)} of {len(D.labels)} units{rest}")
    return ax


def effect_bars(effect, limit: int = 20, ax: Axes | None = None) -> Axes:
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
        number on the right tells.
    """
    _at_least_one(limit=limit)
    removed, low, high = (np.asarray(values, float) for values in (effect.removed, effect.low, effect.high))
    if not removed.size:
        raise ValueError("the effect has no concepts: expected at least one")
    random = np.asarray(effect.random, float).reshape(-1, len(removed))  # (R, C)
    target = list(effect.concepts).index(effect.concept)
    order = sorted(range(len(removed)), key=lambda c: (c != target, -abs(removed[c])))[:limit]
    rows = np.arange(len(order)) + 0.5 * (np.arange(len(order)) > 0)
    ax = _axes(ax, 7.5, 1.3 + 0.27 * len(order))
    ax.barh(rows, removed[order].clip(-1, 1), 0.66, color=[COLORS[0], *["#A9BFD3"] * (len(order) - 1)])
    ax.hlines(rows, low[order].clip(-1, 1), high[order].clip(-1, 1), INK, lw=1.2)
    dots = {"edgecolors": "white", "lw": 0.6, "zorder": 3}
    ax.scatter(random[:, order].clip(-1, 1), np.tile(rows, (len(random), 1)), 20, GREY, **dots)
    for row in rows[removed[order] < -1]:
        ax.plot(-1, row, "<", color=INK, ms=6, clip_on=False, zorder=4)
    lowest = min(0, *removed[order], *low[order], *random[:, order].ravel())
    ax.set(xlim=(max(lowest, -1) - 0.03, 1), ylim=(rows[-1] + 0.6, -0.6))
    _row_numbers(ax, rows, removed[order])
    ax.set_yticks(rows, [_names(effect.concepts)[c] for c in order], size=9)
    rest = f"\nthe {len(removed) - len(order)} other concepts change less" if len(order) < len(removed) else ""
    share = f"{abs(removed[target]):.0%} of {effect.concept} {'added' if removed[target] < 0 else 'removed'}"
    _title(ax, f"{len(effect.units)} units of {effect.layer} switched off: {share}{rest}")
    sets = f"; dots: {len(random)} random sets of as many units" if len(random) else ""
    ax.set_xlabel(f"share of pixels removed\n{effect.n} images; lines: interval{sets}", size=9, color=INK)
    return ax


def _row_numbers(ax: Axes, rows: np.ndarray, shares: np.ndarray) -> None:
    """Shares in percent on the right, and an axis in percent with a line at 0."""
    options = {"transform": ax.get_yaxis_transform(), "va": "center_baseline", "ha": "right", "size": 9, "color": INK}
    for row, share in zip(rows, shares, strict=True):
        ax.text(1.09, row, f"{share:.0%}".replace("-", "−"), **options)
    _plain(ax, "x")
    ax.axvline(0, color=INK, lw=0.8)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(axis="y", length=0)


def _concept_bars(
    ax: Axes, D: Dissection, name: str, order: list[Concept], colors: Mapping[str, str], legend: bool = True
) -> Axes:
    counts, at = _counts(D), _places(order)
    bars = ax.bar(at, [counts[c] for c in order], 0.75, color=[colors[c.category] for c in order])
    ax.bar_label(bars, [str(counts[c] or "") for c in order], size=8, color=INK, padding=1)
    _plain(ax, "y")
    ax.set_ylabel("units", size=9)
    _column_names(ax, at, _names(order))
    ax.set_xlim(-0.6, max([4, *at]) + 0.6)
    left = len(set(counts) - set(order))
    rest = f" ({left} of them not shown)" if left else ""
    text = f"{name}: {sum(counts.values())} of {len(D.labels)} units draw one of {len(counts)} concepts{rest}"
    _title(ax, text, legend and _legend_above(ax, order, colors))
    return ax


def _stacks(ax: Axes, names: list[str], counts: list[Counter], colors: dict[str, str]) -> None:
    """One stack of categories for each name, with the total above."""
    base = np.zeros(len(names), int)
    for category, color in colors.items():
        heights = np.array([sum(n for c, n in count.items() if c.category == category) for count in counts])
        bars = ax.bar(range(len(names)), heights, 0.65, base, color=color)
        base += heights
    ax.bar_label(bars, [str(total) for total in base], size=9, color=INK, padding=1)
    _plain(ax, "y")
    _column_names(ax, range(len(names)), names)


def _counts(D: Dissection) -> Counter:
    """Interpretable units of each concept."""
    return Counter(label.concept for label in D.labels if label.interpretable)


def _order(dissections: Iterable[Dissection], limit: int, categories: list[str]) -> list[Concept]:
    """The concepts with the most units, by category, then by their number."""
    counts = sum(map(_counts, dissections), Counter())
    return sorted(dict(counts.most_common(limit)), key=lambda c: (categories.index(c.category), -counts[c], c))


def _places(order: list[Concept]) -> np.ndarray:
    """Where bars stand: one apart, and a gap between categories."""
    categories = [concept.category for concept in order]
    changes = [a != b for a, b in pairwise(categories)]
    return np.arange(len(order)) + 0.6 * np.cumsum([0, *changes])[: len(order)]


def _colors(concepts: Iterable[Concept]) -> dict[str, str]:
    """A colour for each category, in the order of the vocabulary."""
    categories = dict.fromkeys(concept.category for concept in concepts)
    return {category: COLORS[i % len(COLORS)] for i, category in enumerate(categories)}


def _names(concepts: Iterable[Concept], longest: int = 24) -> list[str]:
    """Names of concepts, cut if they are long; with the category where a name occurs twice."""
    concepts = list(concepts)
    twice = Counter(concept.name for concept in concepts)
    names = [c.name if twice[c.name] == 1 else f"{c.name} ({c.category})" for c in concepts]
    return [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}: expected at least 1")


# ---- axes


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=(width, height), layout="constrained")[1]


def _figure(rows: int, columns: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure that pyplot forgets at once, so that a notebook does not show it a second time."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options)
    plt.close(figure)
    return figure, axes


def _bars_size(order: list[Concept]) -> tuple[float, float]:
    """Width and height in inches that bars and the upright names below them need."""
    return float(np.clip(1 + 0.42 * len(order), 5, WIDTH)), 2.6 + 0.075 * max(map(len, _names(order)), default=0)


def _plain(ax: Axes, numbers: str) -> None:
    """Only the axis of the numbers ("x", "y" or "none"), and faint lines behind them."""
    ax.spines[:].set_visible(False)
    ax.tick_params(labelsize=9, length=0, labelcolor=INK)
    if numbers != "none":
        ax.grid(axis=numbers, color="#E6E6E6", lw=0.8)
        ax.set_axisbelow(True)
    if numbers == "y":
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.axhline(0, color=INK, lw=0.8)
        ax.margins(y=0.12)


def _title(ax: Axes, text: str, above_legend: bool = False) -> None:
    ax.set_title(text, loc="left", size=10, color=INK, pad=24 if above_legend else 6)


def _legend(ax: Axes, key: list[Patch], columns: int, **place) -> None:
    small = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.4, "borderaxespad": 0.3, "borderpad": 0.3}
    ax.legend(handles=key, ncols=columns, frameon=False, fontsize=9, labelcolor=INK, **small, **place)


def _legend_above(ax: Axes, concepts: Iterable[Concept], colors: dict[str, str]) -> bool:
    """A key of the categories above the Axes, if there are several; whether it was drawn."""
    found = {concept.category for concept in concepts}
    key = [Patch(facecolor=color, label=category) for category, color in colors.items() if category in found]
    if len(key) > 1:
        _legend(ax, key, len(key), loc="lower left", bbox_to_anchor=(0, 1))
    return len(key) > 1


def _column_names(ax: Axes, at: Sequence[float], names: list[str]) -> None:
    """Names below columns, upright where the columns are narrower than the names."""
    letters = max((len(line) for name in names for line in name.split("\n")), default=0)
    room = ax.bbox.width / ax.figure.dpi / max(len(names), 1)
    ax.set_xticks(at, names, size=9, rotation=90 if letters * 0.085 > room else 0)


def _row_names(ax: Axes, units: list[int], names: list[str]) -> None:
    """Numbers of the units, or, where rows are thin, the concepts of neighbouring rows and how many there are."""
    height = 72 * ax.bbox.height / ax.figure.dpi / len(units)
    ends = [i for i in range(1, len(names)) if names[i] != names[i - 1]]
    if height * len(names) > 8 * (len(ends) + 1):
        ax.hlines(np.array(ends) - 0.5, -0.5, ax.get_xlim()[1], "white", lw=0.6)
    if height >= 9:
        ax.set_yticks(range(len(units)), [f"unit {unit}" for unit in units], size=8)
        return
    starts = [0, *ends]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, [*ends, len(names)], strict=True)]
    kept: list[int] = []
    for i, middle in enumerate(middles):
        if not kept or (middle - middles[kept[-1]]) * height >= 11:
            kept.append(i)
    sizes = np.diff([*starts, len(names)])
    ax.set_yticks([middles[i] for i in kept], [f"{names[starts[i]]} ({sizes[i]})" for i in kept], size=8)
