"""Figures of pictures: sheets in which every picture has its place, its label and its pixels."""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ganlens.dissection.result import Dissection
from ganlens.images import as_pictures, colorize, enlarge, outline, palette, resize
from ganlens.plots.axes import GREY, INK, WIDTH, add_key, check_at_least_one, set_title, short_names
from ganlens.segmenters.base import Segmenter, checked_labels
from ganlens.statistics import upsample

MOST_ROWS, MOST_KEYS = 40, 24


# ---- figures


def images(x, titles: Sequence[str] | None = None, columns: int = 8, *, ax: Axes | None = None) -> Axes:
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
    return sheet([as_pictures(x)], columns, titles=titles, ax=ax)


def before_after(
    before, after, titles: Sequence[str] | None = None, *, columns: int = 6, ax: Axes | None = None
) -> Axes:
    """Images before and after an edit, and where they differ.

    Parameters
    ----------
    before, after : Tensors (N, 3, Y, X) in [-1, 1], or uint8 arrays (N, Y, X, 3)
        The same images without and with the edit.
    titles, columns, ax
        As for `images`.

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
    labels = [("before",), ("after",), ("difference", f"up to {largest / 255:.0%}")]
    return sheet([before, after, heat(change / max(largest, 1))], columns, labels, titles, ax=ax)


def segmentation(
    x, S: Segmenter, titles: Sequence[str] | None = None, *, columns: int = 8, plane: int = 0, ax: Axes | None = None
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
    pictures, labels = as_pictures(x), label_plane(x, S, plane)
    return sheet([pictures, in_colors(labels, S, pictures)], columns, titles=titles, key=key_of(labels, S), ax=ax)


def unit_strips(D: Dissection, units: Sequence[int] | None = None, k: int = 8, *, ax: Axes | None = None) -> Axes:
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
    units = [best.unit for best in D.best_labels()] if units is None else list(units)
    if not units:
        raise ValueError(f"no units of {D.layer} to show: give their numbers as units=[…]")
    D.check_units(units)
    check_at_least_one(k=k)
    shown = units[:MOST_ROWS]
    note = f"the first {MOST_ROWS} of {len(units)} units" if len(units) > MOST_ROWS else ""
    return sheet(D.spotlights(shown, k), k, [unit_label(D, unit) for unit in shown], note=note, ax=ax)


def unit_maps(D: Dissection, unit: int, k: int = 6, *, plane: int = 0, ax: Axes | None = None) -> Axes:
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
    check_at_least_one(k=k)
    G, S = D.attached("generator"), D.attached("segmenter")
    x, features = G.read(G.latents([seed for seed in D.top[unit, :k].tolist() if seed >= 0]), [D.layer])
    pictures, labels = as_pictures(x), label_plane(x, S, plane)
    values = upsample(features[D.layer][:, [unit]].detach(), x.shape[2:])[:, 0].cpu().numpy()  # (N, Y, X)
    lit = contoured(heat(values / max(values.max(), 1e-9), pictures), values > D.thresholds[unit])
    rows = [
        ("top images",),
        ("activation", f"0 … {values.max():.2g}, line at {D.thresholds[unit]:.2g}"),
        ("segmentation",),
    ]
    name, detail, _ = unit_label(D, unit)
    note = f"{D.layer}: {name} · {detail}"
    return sheet([pictures, lit, in_colors(labels, S, pictures)], k, rows, key=key_of(labels, S), note=note, ax=ax)


# ---- what is in them


def unit_label(D: Dissection, unit: int) -> tuple[str, str, str]:
    """Name, detail and colour of a unit's row."""
    label = D.labels[unit]
    return short_names([label.concept])[0], f"unit {unit} · IoU {label.iou:.2f}", INK if label.interpretable else GREY


def heat(values: np.ndarray, pictures: np.ndarray | None = None, opacity: float = 0.7) -> np.ndarray:
    """Values (N, Y, X) in [0, 1] in the colours of magma, laid over grey pictures (N, Y, X, 3) if given."""
    colors = mpl.colormaps["magma"](values.clip(0, 1))[..., :3] * 255
    if pictures is not None:
        colors = opacity * colors + (1 - opacity) * pictures.mean(3, keepdims=True)
    return colors.astype(np.uint8)


def contoured(pictures: np.ndarray, masks: np.ndarray, factor: int = 3) -> np.ndarray:
    """Pictures (N, Y, X, 3) enlarged, with a thin white line around masks (N, Y, X)."""
    pictures, masks = enlarge(pictures, factor), enlarge(masks[..., None], factor)[..., 0]
    return np.stack([outline(p, mask, (255, 255, 255)) for p, mask in zip(pictures, masks, strict=True)])


def label_plane(x, S: Segmenter, plane: int) -> np.ndarray:
    """One label plane (N, h, w) of images."""
    labels = checked_labels(S, x)
    if not 0 <= plane < labels.shape[1]:
        raise ValueError(f"plane={plane}: {S.name} has planes 0 … {labels.shape[1] - 1}")
    return labels[:, plane].cpu().numpy()


def in_colors(labels: np.ndarray, S: Segmenter, pictures: np.ndarray) -> np.ndarray:
    """Labels (N, h, w) as pictures of the size of ``pictures``."""
    colors = palette(len(S.concepts))
    return np.stack([resize(colorize(plane, colors), pictures.shape[1:3]) for plane in labels])


def key_of(labels: np.ndarray, S: Segmenter) -> list[Patch]:
    """Colour and name of each concept that occurs in labels (N, h, w), largest first."""
    area = np.bincount(labels.ravel(), minlength=len(S.concepts) + 1)[1:]
    found = [c for c in np.argsort(-area, kind="stable") if area[c]]
    names, colors = short_names(S.concepts), palette(len(S.concepts)) / 255
    key = [Patch(facecolor=colors[c], label=names[c]) for c in found[:MOST_KEYS]]
    left = len(found) - len(key)
    return [*key, Patch(facecolor="none", label=f"and {left} more")] if left else key


# ---- where it stands: the unit of the Axes is a pixel of the screen, rows count downwards


def sheet(sets, columns: int, labels=(), titles=None, key=(), note: str = "", ax: Axes | None = None) -> Axes:
    """Sets of pictures (N, Y, X, 3), one below the other, continued in a further block after ``columns`` pictures.

    ``labels`` (name, detail, colour) stand left of the rows, ``titles`` above the pictures of the first set.
    """
    count, size = max(map(len, sets)), sets[0].shape[1:3]
    check_at_least_one(columns=columns)
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images: expected as many")
    columns, fitted = min(columns, count), ax is None
    ax = plt.figure().add_subplot() if ax is None else ax
    dot = ax.figure.dpi / 100
    height, width = np.multiply(size, scale_of(ax, fitted, columns, size[1], 1.6 if labels else 0))
    gap, y = 4 * dot, 0.0
    for start in range(0, count, columns):
        block = slice(start, start + columns)
        y += 3 * gap * (start > 0)
        if titles is not None:
            y += 16 * dot
            add_titles(ax, titles[block], y - gap, width, gap)
        for row, pictures in enumerate(sets):
            add_row(ax, pictures[block], y, width, height, gap)
            if labels:
                add_label(ax, y + height / 2, *labels[row])
            y += height + gap
    return finish(ax, columns * (width + gap) - gap, y - gap, key, note, fitted)


def scale_of(ax: Axes, fitted: bool, columns: int, width: int, margin: float) -> float:
    """Pixels of the screen for each pixel of a picture; whole numbers where the figure is ours and has the room."""
    room = min(WIDTH - margin, 2.2 * columns) * ax.figure.dpi if fitted else ax.bbox.width
    scale = room / columns / width
    return int(scale + 0.2) if fitted and scale >= 1 else scale


def add_row(ax: Axes, pictures, y: float, width: float, height: float, gap: float) -> None:
    for i, picture in enumerate(pictures):
        left = i * (width + gap)
        extent = (left, left + width, y + height, y)
        ax.imshow(picture, extent=extent, interpolation="nearest" if picture.shape[1] <= width else "auto")


def add_titles(ax: Axes, titles: Sequence[str], y: float, width: float, gap: float) -> None:
    for i, title in enumerate(titles):
        shorten(ax.text(i * (width + gap), y, title, size=9, color=INK), width)


def shorten(text: Text, room: float) -> None:
    """Cut a text until it is at most ``room`` pixels wide."""
    while text.get_window_extent().width > room and len(text.get_text()) > 2:
        text.set_text(text.get_text()[:-2] + "…")


def add_label(ax: Axes, y: float, name: str, detail: str = "", color: str = INK) -> None:
    """A name and, smaller and below it, a detail, left of the Axes at height ``y``."""
    options: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "annotation_clip": False}
    ax.annotate(name, (0, y), (-8, 0), va="bottom" if detail else "center", size=10, color=color, **options)
    ax.annotate(detail, (0, y), (-8, -2), va="top", size=8, color=GREY, **options)


def finish(ax: Axes, width: float, height: float, key: Sequence[Patch], note: str, fitted: bool) -> Axes:
    """Set the limits, the title, the key, and the size of a figure that is ours."""
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.axis("off")
    set_title(ax, note)
    if key:
        each = max(len(str(patch.get_label())) for patch in key) * 6 + 44
        rows = -(-len(key) // max(1, int(100 * width / ax.figure.dpi / each)))
        add_key(ax, key, -(-len(key) // rows), loc="upper left", bbox_to_anchor=(0, 0))
    if fitted:
        fit(ax, width, height)
    return ax


def fit(ax: Axes, width: float, height: float, pad: float = 8) -> None:
    """Give the Axes this size in pixels of the screen, and the figure the room that the texts around it need."""
    figure = cast(Figure, ax.figure)  # no part of another one
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    ax.set_position((0, 0, 1, 1))
    box = cast(Bbox, ax.get_tightbbox())  # whatever is visible has one
    left, bottom = np.ceil((pad - min(box.x0, 0), pad - min(box.y0, 0)))
    across, up = np.ceil((left + max(box.x1, width) + pad, bottom + max(box.y1, height) + pad))
    figure.set_size_inches(across / figure.dpi, up / figure.dpi)
    ax.set_position((left / across, bottom / up, width / across, height / up))
