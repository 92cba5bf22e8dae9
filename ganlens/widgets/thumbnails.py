"""The top images of units as JPEG bytes: strips, kept for as long as their dissection lives, and close-ups."""

from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ganlens.dissection.result import Dissection
from ganlens.images import (
    colorize,
    encode,
    enlarge,
    grid,
    outline,
    palette,
    resize,
    shrunk,
    spotlight,
    to_uint8,
)
from ganlens.segmenters.base import checked_labels
from ganlens.statistics import upsample

HEIGHT = (64, 96)  # pixels of a picture in a strip: smaller ones are enlarged, larger ones shrunk
CLOSE = (128, 192)  # the same for close-ups
GAP, GROUND = 2, 24
MAGMA = np.frombuffer(  # every 32nd colour of matplotlib's magma
    bytes.fromhex("000004 1D1147 51127C 822681 B63679 E65164 FB8861 FEC287 FCFDBF"), np.uint8
).reshape(9, 3)
HEAT = np.stack([np.interp(np.linspace(0, 8, 256), range(9), channel) for channel in MAGMA.T], 1)  # (256, 3)

_kept: WeakKeyDictionary[Dissection, dict[tuple[int, int], bytes]] = WeakKeyDictionary()
_lock = Lock()


# ---- strips


def kept_strips(D: Dissection) -> dict[tuple[int, int], bytes]:
    """The strips that were made so far, by unit and number of images."""
    with _lock:
        return _kept.setdefault(D, {})


def strips(D: Dissection, units: list[int], k: int = 8) -> list[bytes]:
    """The ``k`` top images of each unit in a row, lit where it is on, as JPEG; made together and only once."""
    kept = kept_strips(D)
    missing = [unit for unit in units if (unit, k) not in kept]
    if missing:
        with torch.no_grad():
            rows = D.spotlights(missing, k, enlargement(D, HEIGHT))
        kept |= {(unit, k): in_a_row(row, HEIGHT) for unit, row in zip(missing, rows, strict=True)}
    return [kept[unit, k] for unit in units]


def in_a_row(pictures: np.ndarray, heights: tuple[int, int]) -> bytes:
    """Pictures (N, Y, X, 3) side by side, as JPEG."""
    row = shrunk(pictures, heights[1])
    return encode(grid(row, len(row), GAP, GROUND), quality=85)


def enlargement(D: Dissection, heights: tuple[int, int]) -> int:
    """How many times the generator's images are to be enlarged."""
    return -(-heights[0] // D.attached("generator").image_shape[1])


# ---- close-ups


def closeups(D: Dissection, unit: int, start: int, count: int) -> tuple[list[bytes], list[int], list[list[str]]]:
    """Some of a unit's top images from near.

    Returns
    -------
    rows : list of bytes
        JPEG strips: lit where the unit is on, its activation, and, where there is a segmenter, the segmentation.
    seeds : list of int
        The images.
    key : list of [name, color]
        The concepts in the segmentation, the largest first.
    """
    G, S = D.attached("generator"), D.segmenter
    seeds = [seed for seed in D.top[unit, start : start + count].tolist() if seed >= 0]
    if not seeds:
        return [], [], []
    with torch.no_grad():
        x, features = G.read(G.latents(seeds), [D.layer])
        values = upsample(features[D.layer][:, [unit]].float(), tuple(x.shape[2:]))[:, 0].cpu().numpy()  # (N, Y, X)
        i = D.concepts.index(D.labels[unit].concept)
        labels = None if S is None else plane_of(checked_labels(S, x).cpu().numpy(), i)
    pictures, factor = to_uint8(x), enlargement(D, CLOSE)
    masks = values > D.thresholds[unit]
    highest = max(float(D.top_values[unit, 0]), 1e-9)
    rows = [
        [spotlight(picture, mask, factor) for picture, mask in zip(pictures, masks, strict=True)],
        [heated(*each, factor) for each in zip(pictures, values / highest, masks, strict=True)],
    ]
    if labels is not None:
        colors = palette(len(D.concepts))
        rows.append([resize(colorize(plane, colors), rows[0][0].shape[:2]) for plane in labels])
    return [in_a_row(np.stack(row), CLOSE) for row in rows], seeds, [] if labels is None else key_of(D, labels)


def heated(picture: np.ndarray, values: np.ndarray, mask: np.ndarray, factor: int, opacity: float = 0.6) -> np.ndarray:
    """A grey picture enlarged, values (Y, X) in [0, 1] as heat upon it, and a line around the mask (Y, X)."""
    heat = HEAT[(values.clip(0, 1) * 255).astype(np.uint8)]
    blend = opacity * heat + (1 - opacity) * picture.mean(2, keepdims=True)
    mask = enlarge(mask[..., None], factor)[..., 0]
    return outline(enlarge(blend.astype(np.uint8), factor), mask, (255, 255, 255))


def plane_of(labels: np.ndarray, concept: int) -> np.ndarray:
    """Of label planes (N, L, h, w) the one that shows a concept most, (N, h, w); the first where none does."""
    return labels[:, (labels == concept + 1).sum((0, 2, 3)).argmax()]


def key_of(D: Dissection, labels: np.ndarray) -> list[list[str]]:
    """Name and colour of the concepts in labels (N, h, w), the largest first."""
    colors, area = palette(len(D.concepts)), np.bincount(labels.ravel(), minlength=len(D.concepts) + 1)[1:]
    found = [c for c in np.argsort(-area, kind="stable") if area[c]]
    return [[D.concepts[c].name, "#" + colors[c].tobytes().hex()] for c in found]
