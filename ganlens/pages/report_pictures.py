"""The top images of units, small enough that those of hundreds of units go into one file."""

import base64
from collections.abc import Callable

import torch

from ganlens.dissection.result import Dissection
from ganlens.images import encode, shrunk

HEIGHT = 128  # pixels of a picture: smaller ones are enlarged, larger ones shrunk
IMAGES = 6
LARGEST = 11_000  # bytes of a unit's pictures: 512 units then take 7.5 MB as text
SMALL = 3_000  # beside a network
QUALITIES = (80, 65, 50, 35, 20, 10)
AT_ONCE = 2**27  # bytes of the pictures that are drawn together


def pictures_of(D: Dissection, tell: Callable[[int], None], small: bool = False) -> dict[int, list[tuple[int, str]]]:
    """For each unit the seeds of its top images, and these images as addresses; nothing where there is no generator."""
    if D.generator is None:
        return {}
    _, rows, columns = D.generator.image_shape
    factor = -(-HEIGHT // rows)
    step = max(1, min(64, AT_ONCE // (3 * rows * columns * factor**2 * IMAGES)))
    units = [unit for unit in range(len(D.top)) if D.top[unit, 0] >= 0]
    found = {}
    for start in range(0, len(units), step):
        some = units[start : start + step]
        with torch.no_grad():
            lit = D.spotlights(some, IMAGES, factor)
        for unit, pictures in zip(some, lit, strict=True):
            seeds = [seed for seed in D.top[unit, :IMAGES].tolist() if seed >= 0]
            found[unit] = list(
                zip(seeds, addresses(shrunk(pictures, HEIGHT), SMALL if small else LARGEST), strict=True)
            )
        tell(sum(map(len, lit)))
    return found


def count(D: Dissection) -> int:
    """How many pictures there will be."""
    return 0 if D.generator is None else int((D.top[:, :IMAGES] >= 0).sum())


def addresses(pictures, largest: int = LARGEST) -> list[str]:
    """Pictures (N, Y, X, 3) as addresses that can stand in HTML, as good as they can be within so many bytes."""
    for quality in QUALITIES:
        files = [encode(picture, "webp", quality) for picture in pictures]
        if sum(map(len, files)) <= largest:
            break
    return [f"data:image/webp;base64,{base64.b64encode(file).decode()}" for file in files]
