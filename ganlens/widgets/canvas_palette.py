"""The palette of the canvas: a picture of each concept, how well it can be painted here, and in which layer."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.dissection.result import Dissection
from ganlens.effects.paintable import DRAWN, PLACES, REMOVED, Paint
from ganlens.images import encode, palette, resize, to_uint8
from ganlens.segmenters.base import checked_labels, known_as
from ganlens.widgets.canvas_words import listed

if TYPE_CHECKING:
    from ganlens.widgets.canvas import InterventionCanvas

MOST = 24  # tiles; the others can be chosen in the fold
CROP = 96  # pixels of a tile's picture
LOOKED_AT = 4  # top images of a unit, from which it is cut


@dataclass
class Tried:
    """What was measured of one image in one setting, by layer and concept.

    Attributes
    ----------
    question : tuple
        What it depends on.
    found : dict of (layer, concept) to Paint
        So far.
    complete : bool
        Whether all was tried.
    """

    question: tuple = ()
    found: dict[tuple[str, int], Paint] = field(default_factory=dict)
    complete: bool = False


def in_order(canvas: "InterventionCanvas", rows: list[dict]) -> list[dict]:
    """Tiles by how well they can be painted, once that is known; while one is chosen, all stay where they are."""
    mode = canvas.verb
    if canvas.tried.complete and (canvas.concept is None or mode not in canvas.arranged):
        canvas.arranged[mode] = [row["name"] for row in sorted(rows, key=lambda row: -row["worth"])]
    order = canvas.arranged.get(mode, [row["name"] for row in rows])
    return sorted(rows, key=lambda row: order.index(row["name"]))


def shown_concepts(D: Dissection) -> list[int]:
    """The concepts that have a tile: those that units match best."""
    best = D.iou.max(0)
    return [c for c in np.argsort(-best, kind="stable").tolist() if best[c] > 0][:MOST]


def worth(paint: Paint, mode: str, pixels: int) -> float:
    """Share of the best place's pixels that adding gains, or of the concept that removing takes away."""
    if mode != "remove":
        return float(paint.gained.max()) / (pixels / PLACES**2)
    return float(1 - paint.left / paint.before) if paint.before else 0.0


def best_layer(canvas: "InterventionCanvas", concept: int) -> str | None:
    """The layer in which most of a concept can be added or removed, less what is spoiled; None if none was tried."""
    pixels, mode = canvas.pixels, canvas.verb
    values = {}
    for layer in canvas.dissections:
        paint = canvas.tried.found.get((layer, concept))
        if paint:
            lost = paint.spoiled / pixels if mode == "remove" else paint.beside / (pixels / PLACES**2)
            values[layer] = worth(paint, mode, pixels) - lost
    return max(values, key=lambda layer: values[layer]) if values else None


def tiles(canvas: "InterventionCanvas") -> tuple[list[dict], str]:
    """What the page knows of each tile, and why some are grey."""
    D, mode, pixels = canvas.D, canvas.verb, canvas.pixels
    colors, names = palette(len(D.concepts)), known_as(D.concepts)
    rows, reasons = [], {}
    for c in shown_concepts(D):
        layer = (best_layer(canvas, c) if canvas.auto else None) or canvas.layer
        paint = canvas.tried.found.get((layer, c))
        row = {"name": names[c], "color": "#" + colors[c].tobytes().hex()}
        row |= {"how": None, "reason": "", "detail": "", "worth": -1.0}
        if paint:
            value = worth(paint, mode, pixels)
            row["how"] = sum(value >= least for least in (REMOVED if mode == "remove" else DRAWN))
            row["worth"] = value
            row["detail"] = detail(paint, mode, layer, pixels)
            if not row["how"]:
                row["reason"] = reasons[row["name"]] = reason(paint, mode, pixels)
        rows.append(row)
    return in_order(canvas, rows), why(reasons)


def detail(paint: Paint, mode: str, layer: str, pixels: int) -> str:
    if mode == "remove":
        return f"{layer}: {paint.before - paint.left:+d} of its {paint.before} pixels would go".replace("+", "")
    return f"{layer}: the best of {PLACES**2} places gains {paint.gained.max():d} of {pixels:,} pixels"


def reason(paint: Paint, mode: str, pixels: int) -> str:
    """Why it cannot be done in this picture."""
    if mode == "remove":
        return "not in this picture" if not paint.before else "hardly goes away"
    return "can hardly be drawn in this picture"


def why(reasons: dict[str, str]) -> str:
    """One line about all tiles that are grey."""
    groups: dict[str, list[str]] = {}
    for name, text in reasons.items():
        groups.setdefault(text, []).append(name)
    parts = []
    for text, names in groups.items():
        many = len(names) > 1
        words = {"not in this picture": "are" if many else "is", "hardly goes away": ""}.get(text, "")
        text = text.replace("goes", "go") if many else text
        parts.append(" ".join(filter(None, (listed(names), words, text))))
    return f"{'; '.join(parts)}." if parts else ""


def crops(D: Dissection) -> dict[str, bytes]:
    """A piece of a top image of each concept's best unit, where most of the concept is, as JPEG."""
    G, names, found = D.attached("generator"), known_as(D.concepts), {}
    for c in shown_concepts(D):
        unit = int(D.iou[:, c].argmax())
        seeds = [seed for seed in D.top[unit, :LOOKED_AT].tolist() if seed >= 0]
        if not seeds:
            continue
        with torch.no_grad():
            x, features = G.read(G.latents(seeds), [D.layer])
            if D.segmenter is None:
                there = features[D.layer][:, unit].float()
            else:
                there = (checked_labels(D.segmenter, x) == c + 1).any(1).float()
            near = F.avg_pool2d(there[:, None], max(min(there.shape[1:]) // 2, 1), 1)[:, 0]  # shares of windows
        image, top, left = np.unravel_index(int(near.argmax()), near.shape)
        picture = to_uint8(x)[image]
        scale = picture.shape[0] / there.shape[1]
        found[names[c]] = encode(piece(picture, round(top * scale), round(left * scale)), quality=85)
    return found


def piece(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    """A square of half the size of a picture (Y, X, 3), from a corner on."""
    side = max(min(picture.shape[:2]) // 2, 1)
    top, left = min(top, picture.shape[0] - side), min(left, picture.shape[1] - side)
    return resize(picture[top : top + side, left : left + side], (CROP, CROP), smooth=True)
