"""Where images come from that are compared: paintings, a folder, a tensor, a generator, a function of seeds."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import short_repr
from ganlens.images import as_images, from_uint8
from ganlens.models.base import Generator
from ganlens.models.classifier import Classifier
from ganlens.models.families.scenes import SceneGenerator
from ganlens.models.photographs import image_files, read_picture
from ganlens.scenes.painter import HELD_OUT, paint_many

BATCH = 32
Source = Generator | Classifier | torch.Tensor | np.ndarray | str | Path | Callable


class Pictures(NamedTuple):
    """Images that are read or painted when they are asked for."""

    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs here
    read: Callable[[range], torch.Tensor]  # images (N, 3, Y, X) in [-1, 1] of some of the numbers 0 … count - 1

    @property
    def batches(self) -> Iterator[torch.Tensor]:
        """All images, batch by batch."""
        return (self.read(range(i, min(i + BATCH, self.count))) for i in range(0, self.count, BATCH))


def reference_images(G: Generator, reference, n: int) -> Pictures | None:
    """The reference images that are meant; None where there are none. ValueError if they do not fit the generator."""
    size = G.image_shape[1], G.image_shape[2]
    if reference is None:
        if not isinstance(G.net, SceneGenerator):
            return None
        return Pictures(n, partial(painted, size[0]))
    if isinstance(reference, str | Path):
        paths = image_files(Path(reference))
        return Pictures(len(paths), partial(read_references, paths, size))
    x = as_images(reference)
    if x is None or not len(x):
        shape = tuple(reference.shape) if hasattr(reference, "shape") else type(reference).__name__
        raise ValueError(
            f"reference images {shape}: expected (M, 3, Y, X) in [-1, 1], uint8 (M, Y, X, 3), or the path of a folder"
        )
    if not x.abs().max() <= 1:  # written so that NaN is refused, too
        raise ValueError(
            f"reference images with values up to {x.abs().max():g}: expected [-1, 1], or uint8 (M, Y, X, 3)"
        )
    check_size("reference images", tuple(x.shape[2:]), size)
    return Pictures(len(x), partial(part_of_images, x))


def painted(size: int, numbers: range) -> torch.Tensor:
    """Paintings that nothing was trained on."""
    return from_uint8(paint_many(range(HELD_OUT + numbers.start, HELD_OUT + numbers.stop), size)[0])


def read_references(paths: Sequence[Path], size: tuple[int, int], numbers: range) -> torch.Tensor:
    """Images of files that must have a size."""
    return from_uint8(np.stack([read_reference(paths[i], size) for i in numbers]))


def part_of_images(x, numbers: range) -> torch.Tensor:
    """Some of given images or pictures."""
    return checked_images(x[numbers.start : numbers.stop])


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


# ---- two sets of images


def open_source(source: Source, first: int, n: int) -> Pictures:
    """The images of a source, at most ``n``; those of generators and functions from seed ``first`` on."""
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2 images; 1000 is a good start")
    if isinstance(source, str | Path):
        files = image_files(Path(source))[:n]
        return Pictures(len(files), partial(read_images, files))
    if isinstance(source, torch.Tensor | np.ndarray):
        if not source.ndim:
            what = short_repr(source)
            raise ValueError(f"{what} given; expected images (N, 3, Y, X), or uint8 pictures (N, Y, X, 3)")
        return Pictures(min(len(source), n), partial(part_of_images, source))
    if isinstance(source, Classifier):
        return Pictures(min(source.count, n), partial(drawn_by, source.latents, first))
    draw = source.generate if isinstance(source, Generator) else source
    if not callable(draw):
        raise TypeError(
            f"{type(source).__name__} given; expected a generator, a classifier, images (N, 3, Y, X), a folder or a "
            "function of seeds"
        )
    return Pictures(n, partial(drawn_by, draw, first))


def drawn_by(draw: Callable, first: int, numbers: range) -> torch.Tensor:
    """Images (N, 3, Y, X) of a function of seeds; ValueError if it is none."""
    try:
        return checked_images(draw([first + i for i in numbers]))
    except TypeError as error:
        raise ValueError(f"{short_repr(draw)} given a list of seeds: {error}; expected a function of seeds") from error


def checked_images(x) -> torch.Tensor:
    """Images (N, 3, Y, X) in [-1, 1], from these or from pictures, or the first of several results; else ValueError."""
    x = x[0] if isinstance(x, tuple) and x else x
    found = as_images(x)
    if found is None or not len(found):
        shape = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise ValueError(f"images of shape {shape}: expected (N, 3, Y, X) in [-1, 1], or uint8 pictures (N, Y, X, 3)")
    return found


def read_images(files: Sequence[Path], numbers: range) -> torch.Tensor:
    """Images (N, 3, Y, X) in [-1, 1] of files of one size."""
    files, pictures = files[numbers.start : numbers.stop], []
    for path in files:
        pictures.append(read_picture(path))
        if pictures[-1].shape != pictures[0].shape:
            size, other = ("x".join(map(str, p.shape[1::-1])) for p in (pictures[0], pictures[-1]))
            raise ValueError(f"{files[0].name} is {size} and {path.name} {other}: bring the images to one size")
    return checked_images(np.stack(pictures))


def check_same_size(sizes: Sequence[Sequence[int]] | np.ndarray, names: tuple[str, str]) -> None:
    """ValueError unless all sizes (rows, columns) of images are one."""
    first = tuple(sizes[0])
    for other in sizes:
        if tuple(other) != first:
            raise ValueError(
                f"{names[0]} and {names[1]}: images of {first[1]}x{first[0]} and of {other[1]}x{other[0]} pixels, "
                "which a segmenter sees differently; bring all to one size"
            )
