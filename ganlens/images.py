"""Pure pixels: conversion, encoding, resizing, colouring, overlays, outlines, grids.

Pictures are uint8 arrays (Y, X, 3), batches (N, Y, X, 3), masks are boolean (Y, X). Nothing here knows of generators
or notebooks.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

OUTLINE = (255, 212, 59)
CALM = np.frombuffer(  # after P. Tol's light and muted schemes
    bytes.fromhex(
        "77AADD DDDDDD EECC55 44AA99 BBCC33 EE8866 117733 FFAABBCC6677 AA4499 882255 332288 99DDFF 999933 661100 4477AA"
    ),
    np.uint8,
).reshape(16, 3)


def to_uint8(x) -> np.ndarray:
    """Turn images in [-1, 1] (N, 3, Y, X) into pictures (N, Y, X, 3), uint8; values beyond the range are clipped.

    Images of other than 3 channels (N, C, Y, X) are maps of classes: the strongest channel is shown by its colour.
    """
    x = x.detach().cpu().float().numpy() if hasattr(x, "detach") else np.asarray(x, np.float32)
    if x.ndim != 4 or x.shape[1] < 2 or (x.shape[1] != 3 and x.shape[3] == 3):
        raise ValueError(f"images of shape {x.shape}: expected (N, 3, Y, X) with values in [-1, 1]")
    if x.shape[1] != 3:
        return palette(x.shape[1])[x.argmax(1)]
    return np.moveaxis(np.clip(x * 127.5 + 128, 0, 255).astype(np.uint8), 1, -1)


def from_uint8(pictures: np.ndarray) -> "torch.Tensor":
    """Turn pictures (N, Y, X, 3), uint8, into images (N, 3, Y, X) in [-1, 1]."""
    import torch  # whoever only shows pictures does not wait for it

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, 3, 1))).float() / 127.5 - 1


def as_images(x) -> "torch.Tensor | None":
    """Images (N, 3, Y, X) in [-1, 1] of an array or tensor in a usual form; None where it is in none.

    Real numbers are images (N, 3, Y, X); uint8 is pictures (N, Y, X, 3) or (N, 3, Y, X). Grey ones have one channel in
    place of three, or no axis for it.
    """
    import torch

    try:
        if isinstance(x, list | tuple) and x and isinstance(x[0], torch.Tensor):
            x = torch.stack(list(x))
        x = torch.as_tensor(np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x)  # views may run backwards
    except (TypeError, ValueError, RuntimeError):
        return None
    if x.dtype == torch.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        x = x.movedim(3, 1)
    elif x.ndim == 3 and x.dtype == torch.uint8:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        return None
    x = x.detach()
    x = x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x.float()
    return x.expand(-1, 3, -1, -1).contiguous() if x.shape[1] == 1 else x


def as_pictures(x) -> np.ndarray:
    """Pictures (N, Y, X, 3) as they are, images in [-1, 1] (N, 3, Y, X) turned into pictures; at least one of them."""
    if not len(x):
        raise ValueError("no images: expected at least one")
    known = isinstance(x, np.ndarray) and x.dtype == np.uint8
    if known and (x.ndim != 4 or x.shape[3] != 3):
        raise ValueError(f"pictures of shape {x.shape}: expected (N, Y, X, 3), uint8")
    return x if known else to_uint8(x)


def resize(picture: np.ndarray, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Scale a picture (Y, X, 3) or (Y, X) to (height, width), pixel by pixel or smoothly."""
    method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize(size[::-1], method))


def enlarge(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel of pictures (…, Y, X, 3) ``factor`` times in both directions."""
    return pictures.repeat(factor, -3).repeat(factor, -2)


def encode(picture: np.ndarray, kind: str = "jpeg", quality: int = 90) -> bytes:
    """A picture as the bytes of a file: ``"jpeg"`` (full colour resolution), ``"png"`` (exact), ``"webp"`` (small)."""
    buffer = io.BytesIO()
    options = {"jpeg": {"quality": quality, "subsampling": 0}, "png": {"compress_level": 1}}
    options["webp"] = {"quality": quality, "method": 4}
    if kind not in options:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(options)}")
    Image.fromarray(picture).save(buffer, kind, **options[kind])
    return buffer.getvalue()


def data_uri(picture: np.ndarray, kind: str = "jpeg", quality: int = 90) -> str:
    """A picture as an address that can stand in HTML."""
    return f"data:image/{kind};base64,{base64.b64encode(encode(picture, kind, quality)).decode()}"


def dilate(mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels above, below, left and right of it."""
    padded = np.pad(mask, 1)
    near = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return near.astype(bool)


def outline(picture: np.ndarray, mask: np.ndarray, color: Sequence[int] = OUTLINE) -> np.ndarray:
    """Draw a line around the mask, one pixel wide and just outside of it."""
    result = picture.copy()
    result[dilate(mask) & ~mask] = color
    return result


def spotlight(picture: np.ndarray, mask: np.ndarray, factor: int = 3, dim: float = 0.4) -> np.ndarray:
    """A picture enlarged ``factor`` times, lit inside the mask, with an outline around it, dimmed elsewhere."""
    picture, mask = enlarge(picture, factor), enlarge(mask[..., None], factor)[..., 0]
    dimmed = (picture * np.float32(dim) + 255 * np.float32(0.08)).astype(np.uint8)
    return outline(np.where(mask[..., None], picture, dimmed), mask)


def shrunk(pictures: np.ndarray, height: int) -> np.ndarray:
    """Pictures (N, Y, X, 3) at most so high; the lines around regions keep their strength."""
    factor = pictures.shape[1] / height
    if factor <= 1:
        return pictures
    size = height, max(1, round(pictures.shape[2] / factor))
    return np.stack([resize(thickened(picture, int(factor)), size, smooth=True) for picture in pictures])


def thickened(picture: np.ndarray, times: int) -> np.ndarray:
    """A picture whose lines around regions are ``times`` pixels wider to each side."""
    line = (picture == OUTLINE).all(2)
    for _ in range(times):
        line = dilate(line)
    return np.where(line[..., None], np.array(OUTLINE, np.uint8), picture)


def overlay(picture: np.ndarray, values: np.ndarray, opacity: float = 0.65) -> np.ndarray:
    """Lay a map of values (Y, X) in [0, 1] over a picture as light of one colour, black where the value is 0."""
    weight = np.clip(values, 0, 1)[..., None] * opacity
    grey = picture.mean(2, keepdims=True) * 0.6
    return (grey * (1 - weight) + np.array(OUTLINE) * weight).astype(np.uint8)


def palette(count: int) -> np.ndarray:
    """Calm colours (count, 3), uint8, for segmentations: 16 chosen for the colour-blind too, then any number."""
    hue = np.arange(count) * 0.618034 % 1
    ring = np.clip(np.abs((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    light = np.where(np.arange(count) % 2, 0.9, 0.65)[:, None]
    colors = (255 * light * (0.4 + 0.6 * ring)).astype(np.uint8)
    colors[: len(CALM)] = CALM[:count]
    return colors


def colorize(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Labels (Y, X), 0 = none, as a picture: label v gets ``colors[v - 1]``, none gets grey."""
    return np.concatenate([np.full((1, 3), 128, np.uint8), colors])[labels]


def strip(pictures: np.ndarray, gap: int = 3) -> np.ndarray:
    """Pictures (N, Y, X, 3) in one row."""
    return grid(pictures, columns=len(pictures), gap=gap)


def grid(pictures: np.ndarray, columns: int = 8, gap: int = 2, background: int = 255) -> np.ndarray:
    """Put pictures (N, Y, X, 3) side by side in rows of ``columns``, with ``gap`` pixels between them."""
    n, height, width, channels = pictures.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), background, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet
