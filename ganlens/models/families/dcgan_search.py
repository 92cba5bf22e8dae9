"""How the convolutions of a file are run, found one after the other: the norm behind each says which steps it had."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ganlens.models.families.dcgan_layers import MOST_PIXELS, USUAL_SIZES, Conv

Step = tuple[int, int, int]  # stride, padding, output padding
MOST_STRIDE = 3
WIDTH = 6  # ways that are followed


class Found(NamedTuple):
    """Steps of the convolutions so far, the side of what they give, and how far the statistics behind each are off."""

    steps: tuple[Step, ...]
    size: int
    errors: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return sum(self.errors) / len(self.errors) if self.errors else 0.0

    @property
    def oddness(self) -> tuple[bool, int]:
        """What speaks against a way beside its error: an unusual size of the image, and output paddings."""
        return self.size not in USUAL_SIZES, sum(more > 0 for _, _, more in self.steps)


def searched(
    convs: list[Conv], size: int, norms: list[int | None], error_of: Callable[[list[Step], int], float], clearly: float
) -> Found | None:
    """The plainest of the ways that the statistics do not clearly tell from the best one; None if there is none.

    Parameters
    ----------
    size : int
        Side of the maps in front of the first convolution.
    norms : list of int or None
        How many trained norms there are up to the one behind each convolution; None where there is none behind it.
    error_of : callable
        From steps and a number of norms to how far the statistics of the last of these are off.
    clearly : float
        Times another error: what is better than that is clearly better.
    """
    plain = [(1, conv.shape[2] // 2, 0) for conv in convs]
    ways = [Found((), size)]
    for i, (conv, upto) in enumerate(zip(convs, norms, strict=True)):
        further = []
        for way in ways:
            options = [step for step in every_step(conv, way.size) if 0 < conv.reached(way.size, step) <= MOST_PIXELS]
            for step in options if upto is not None or i == len(convs) - 1 else conv.options(way.size)[:1]:
                steps = (*way.steps, step)
                errors = way.errors
                if upto is not None:
                    errors = (*errors, error_of([*steps, *plain[i + 1 :]], upto))
                further.append(Found(steps, conv.reached(way.size, step), errors))
        further.sort(key=lambda way: (way.error, way.oddness))
        ways = [way for way in further if way.error * clearly <= further[0].error][: WIDTH if upto else None]
    return min(ways, key=lambda way: (way.oddness, way.error), default=None)


def every_step(conv: Conv, size: int) -> Iterator[Step]:
    """All strides and paddings that a convolution of its kernel may have; on one cell, all strides are one."""
    kernel = conv.shape[2]
    if not conv.transposed:
        yield from {(1, padding, 0): None for padding in (kernel // 2, 0)}
        return
    for stride in range(1, (min(MOST_STRIDE, kernel) if size > 1 else 1) + 1):
        for padding in range(kernel // 2 + 1):
            yield from ((stride, padding, more) for more in range(stride if padding else 1))
