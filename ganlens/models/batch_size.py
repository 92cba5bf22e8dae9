"""How many images fit into memory at once."""

import re
from collections.abc import Sequence

import numpy as np
import torch

from ganlens.models.bit_exact import GRANULE
from ganlens.models.network import ImageNetwork

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
SIGNS = ("out of memory", "allocate memory", "not enough memory")


def default_batch(generator: ImageNetwork, layers: Sequence[str]) -> int:
    """Images whose features and pixels take about 64 MB, in whole granules."""
    numbers = sum(int(np.prod(generator.layers[layer])) for layer in layers) + 4 * int(np.prod(generator.image_shape))
    return int(np.clip(2**24 // numbers // GRANULE * GRANULE, GRANULE, 32))


def steady_batch(generator: ImageNetwork, layers: Sequence[str]) -> int:
    """Images at once for a dissection: on a processor one granule, on a GPU `default_batch`.

    In batches that are always alike, all networks round alike, and a processor is not faster with larger ones.
    """
    return GRANULE if generator.device.type == "cpu" else default_batch(generator, layers)


def batch_within(budget: int, fixed: int, generator: ImageNetwork, layers: Sequence[str]) -> int:
    """Images at once within a budget of bytes, of which ``fixed`` are taken; at most 256, in whole granules.

    An image is counted as twice the features that are read, three times the largest layer, and eight pictures.

    Raises
    ------
    ValueError
        Not even one granule fits.
    """
    read = sum(int(np.prod(generator.layers[layer])) for layer in layers)
    largest = max(int(np.prod(shape)) for shape in generator.layers.values()) if generator.layers else read
    image = 4 * (2 * read + 3 * largest + 8 * int(np.prod(generator.image_shape)))
    batch = (budget - fixed) // image // GRANULE * GRANULE
    if batch < GRANULE:
        raise ValueError(
            f"memory={budget}: {said(budget)} is too little; the tables take {said(fixed)} and {GRANULE} images "
            f"{said(GRANULE * image)}; give at least {said(fixed + GRANULE * image)}, or fewer layers or rules"
        )
    return min(batch, 256)


def as_bytes(memory: int | str) -> int:
    """A number of bytes.

    Examples
    --------
    >>> as_bytes("2 GB"), as_bytes("1.5MiB"), as_bytes(10**9)
    (2000000000, 1572864, 1000000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", str(memory).lower())
    if isinstance(memory, bool) or not found or found[2] not in UNITS:
        raise ValueError(f"memory={memory!r}: expected a number of bytes, such as '2 GB', '500 MB' or 2_000_000_000")
    return int(float(found[1]) * UNITS[found[2]])


def said(size: int) -> str:
    """A number of bytes, rounded up, as people say it.

    Examples
    --------
    >>> said(1_230_000_001)
    '1231 MB'
    """
    return f"{-(-size // 10**6)} MB"


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, of a GPU or of the processor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
