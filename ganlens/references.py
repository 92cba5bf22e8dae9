"""Real images that generated ones are compared with: paintings, a folder, or a tensor."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ganlens.models.base import Generator
from ganlens.models.photographs import image_files, read_picture
from ganlens.models.scenes import SceneGenerator
from ganlens.scenes.evaluation import HELD_OUT, as_images
from ganlens.scenes.painter import paint_many

BATCH = 32


class Pictures(NamedTuple):
    """Images that are read or painted when they are asked for, batch by batch."""

    count: int
    batches: Iterator[torch.Tensor]


def reference_images(G: Generator, reference, n: int) -> Pictures | None:
    """The reference images that are meant; None where there are none. ValueError if they do not fit the generator."""
    size = tuple(G.image_shape[1:])
    if reference is None:
        if not isinstance(G.net, SceneGenerator):
            return None
        seeds = (range(HELD_OUT + i, HELD_OUT + min(i + BATCH, n)) for i in range(0, n, BATCH))
        return Pictures(n, (as_images(paint_many(some, size[0])[0]) for some in seeds))
    if isinstance(reference, str | Path):
        paths = image_files(Path(reference))
        parts = (paths[i : i + BATCH] for i in range(0, len(paths), BATCH))
        return Pictures(len(paths), (as_images(np.stack([read_reference(p, size) for p in some])) for some in parts))
    x = reference
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] == 3:
        x = as_images(x)
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or x.shape[1] != 3 or not len(x):
        shape = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise ValueError(
            f"reference images {shape}: expected (M, 3, Y, X) in [-1, 1], uint8 (M, Y, X, 3), or the path of a folder"
        )
    if not x.abs().max() <= 1:  # not a number either
        raise ValueError(
            f"reference images with values up to {x.abs().max():g}: expected [-1, 1], or uint8 (M, Y, X, 3)"
        )
    check_size("reference images", tuple(x.shape[2:]), size)
    return Pictures(len(x), iter(x.float().split(BATCH)))


def read_reference(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A picture (Y, X, 3) of a file; ValueError that names the file if it is none, or of another size."""
    picture = read_picture(path)
    check_size(str(path), picture.shape[:2], size)
    return picture


def check_size(what: str, given: tuple, expected: tuple) -> None:
    if tuple(given) != tuple(expected):
        raise ValueError(
            f"{what} of {given[0]} x {given[1]} pixels, generated images of {expected[0]} x {expected[1]}: resize them "
            "first; how it is done changes the distance"
        )
