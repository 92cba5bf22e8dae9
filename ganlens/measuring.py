"""The one way to measure: look at a sample batch by batch, here or on an executor, until done or interrupted."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np
import torch

from ganlens.models.batch_size import out_of_memory
from ganlens.models.bit_exact import GRANULE
from ganlens.progress import Steps
from ganlens.shards import Arrays, Packed, Shard, gather, split

Found = TypeVar("Found")


def measure(
    look: Callable[..., Arrays | None],
    things: tuple,
    items: Sequence[int],
    steps: Steps,
    batch: int | None = None,
    executor: Executor | None = None,
    shards: int | None = None,
    *,
    cost: int = 1,
    smallest: int = 1,
    gaps: bool = False,
    what: str = "images",
) -> Arrays:
    """Look at items batch by batch, and join what was found in them.

    The batches are the same wherever the work is done, so that the result is the same to the bit. Where memory does not
    suffice, batches are halved.

    Parameters
    ----------
    look : callable
        ``look(*things, batch, go_on)`` gives arrays with one row per item of the batch, or None where it was
        interrupted in between. It calls ``go_on(images)`` after each step, which says whether there is a next one.
    things : tuple
        What it needs besides; sent to the workers once.
    items : sequence of int
        Seeds, units, or whatever the work consists of.
    steps : Steps
        The bar and the interrupt, from `ganlens.progress.steps`.
    batch : int, optional
        Items that are looked at together; by default all that one worker has.
    executor, shards
        Who works, and into how many parts the work is divided; see `ganlens.shards.split`.
    cost : int
        Images on the bar for each item.
    smallest : int
        Fewest items that are worth being sent.
    gaps : bool
        Whether an interrupt may leave out items between others; otherwise only the first ones are kept.
    what : str
        What the items are, for messages.

    Returns
    -------
    dict of str to array
        Joined along the first axis, in the order of the items.

    Raises
    ------
    KeyboardInterrupt
        Interrupted before anything was found.
    MemoryError
        Not even one granule of items fits into memory.
    RuntimeError, ValueError
        As for `ganlens.shards.gather`.
    """
    if executor is None:
        return joined([look_at(look, things, batch, items, steps.go_on)])
    parts = split([items], shards, max(smallest, batch or 1), batch or 1)
    places, packed = {id(some): place for place, some in enumerate(parts)}, Packed(look, things, batch)
    found: dict[int, Arrays] = {}

    def take(some: Sequence[int], arrays: Arrays) -> bool:
        found[places[id(some)]] = arrays  # by the part itself, for an item may be asked for twice
        return not steps.go_on(cost * len(some))

    gather(executor, [Shard(look_at, packed, some, what) for some in parts], take, lambda: not steps.go_on())
    first_gap = next((place for place in range(len(parts)) if place not in found), len(parts))
    return joined([found[place] for place in sorted(found) if gaps or place < first_gap])


def look_at(look: Callable, things: tuple, batch: int | None, items: Sequence[int], go_on: Callable) -> Arrays:
    """What ``look`` finds in items, batch by batch, until interrupted; {} where nothing was finished."""
    parts, told = [], Told(go_on)
    for part, _ in in_batches(
        lambda some: told.of(lambda: look(*things, some, told.go_on)), items, batch or len(items)
    ):
        if part is not None:
            parts.append(part)
        if part is None or not go_on():
            break
    return joined(parts) if parts else {}


class Told:
    """Tells a bar of each image once, also of those that are looked at again because memory did not suffice."""

    def __init__(self, go_on: Callable):
        self.tell, self.images, self.again = go_on, 0, 0

    def of(self, look: Callable[[], Found]) -> Found:
        """What ``look`` finds; if it fails, the images that it told of will be told of again."""
        self.images = 0
        try:
            return look()
        except (RuntimeError, MemoryError):
            self.again += self.images
            raise

    def go_on(self, images: int = 0) -> bool:
        """Tell of images, if they are new."""
        self.images += images
        known = min(self.again, images)
        self.again -= known
        return self.tell(images - known)


def in_batches(look: Callable[[Sequence[int]], Found], items: Sequence[int], batch: int) -> Iterator[tuple[Found, int]]:
    """What ``look`` finds in each batch of items, and how many make one: half as many where memory does not suffice.

    Raises
    ------
    MemoryError
        Not even one granule of items fits.
    """
    while len(items):
        some = items[:batch]
        try:
            found = look(some)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            batch = halved(min(batch, len(items)), error)
            continue
        yield found, batch
        items = items[len(some) :]


def halved(batch: int, error: Exception) -> int:
    """Half a batch that memory did not suffice for, with a warning; MemoryError if it was one granule."""
    if batch <= GRANULE:
        raise MemoryError(f"out of memory with {batch} images at once, the fewest: {error}") from error
    smaller = max(batch // 2 // GRANULE, 1) * GRANULE
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"out of memory with {batch} images at once; going on with {smaller}", stacklevel=3)
    return smaller


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Arrays of several parts as one, by name; KeyboardInterrupt where nothing was found."""
    parts = [part for part in parts if part]
    if not parts:
        raise KeyboardInterrupt
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
