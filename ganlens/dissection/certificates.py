"""How sure each label is: intervals of all IoUs, a test of each against chance, and other measures of the same match.

The test asks whether a unit is on without looking at where the concept is. What both do at each place of the picture in
the mean over all images is taken away first, for both may have habits (domes are always up); what is left, the
covariance of the unit's maps and the labels of the same image, is zero in the mean for such a unit. Images are
independent, so its sums over blocks of images have a t statistic (one-sided) that needs no model of the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np

from ganlens.dissection.blocks import BlockCounts
from ganlens.dissection.cells import Cells
from ganlens.dissection.layer_statistics import Columns, Reading
from ganlens.intervals import resamples

FALSE_DISCOVERIES = 0.05  # share among the labels that are called certain, at most, on average
CONFIDENCE = 0.95  # of the intervals
DRAWS = 200  # of the bootstrap
FEWEST = 8  # blocks; with fewer nothing is certain
AT_ONCE = 2**22  # numbers
TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Certificates:
    """How sure a match of each unit with each concept is; arrays (U, C).

    Attributes
    ----------
    low, high : array
        Ends of the 95 % interval of the IoU, by bootstrap over blocks of images, the choice of a quantile's threshold
        included; nan where there are fewer than 8 blocks. Under the rules "iqr" and "iou" the threshold is the one
        that was chosen on the other half of the images.
    p : array
        Probability of a match as good as this, or better, if the unit did not look at where the concept is.
    pearson, cosine : array
        Correlation and cosine of the activation in a place of the picture with the pixels of the concept there, where
        places are the layer's cells, at most 16 along each side.
    average_precision : array
        Mean precision over the recalls, of places that are ranked by activation.
    """

    names: ClassVar = ("low", "high", "p", "pearson", "cosine", "average_precision")

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    pearson: np.ndarray
    cosine: np.ndarray
    average_precision: np.ndarray

    @cached_property
    def q(self) -> np.ndarray:
        """The least false discovery rate at which each match is certain, over all units and concepts.

        Benjamini and Yekutieli (2001), which holds under any dependence: the concepts of a pixel exclude each other, so
        that their tests are negatively dependent, for which Benjamini and Hochberg's smaller values are not proven.
        """
        return adjusted(self.p)

    @property
    def certain(self) -> np.ndarray:
        """Which matches are not by chance, with false discoveries held at 5 %."""
        return self.q <= FALSE_DISCOVERIES


class Blocks(NamedTuple):
    """The counts of the blocks that have images, as numpy arrays, see `BlockCounts`."""

    above: np.ndarray
    area: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, counts: BlockCounts) -> "Blocks":
        counts.close()
        arrays = [x.cpu().numpy() for x in (counts.above, counts.area, counts.pixels)]
        used = arrays[2] > 0
        return cls(*(arrays if used.all() else [array[used] for array in arrays]))


def certify(
    blocks: BlockCounts,
    cells: Cells,
    thresholds: slice,
    columns: Columns,
    reading: Reading,
    quantile: float | None,
    broken: Sequence[int] = (),
) -> Certificates:
    """Certificates of a layer under a rule.

    Parameters
    ----------
    blocks, cells : BlockCounts, Cells
        What was counted.
    thresholds : slice
        The levels of ``cells`` that the rule is tested at.
    columns : Columns
        What the columns of ``blocks`` are.
    reading : Reading
        The counts at the thresholds of the rule.
    quantile : float or None
        Of the quantile rule; None for thresholds that were chosen on other images.
    broken : sequence of int
        Units that match nothing.
    """
    found = Blocks.of(blocks)
    union = reading.on + reading.area - reading.overlap
    iou = np.divide(reading.overlap, union, out=np.zeros(union.shape), where=union > 0)
    if len(found.pixels) < FEWEST:
        low = high = np.full(iou.shape, np.nan)
    elif quantile is None:
        low, high = intervals_at(found, columns, reading, iou)
    else:
        low, high = intervals_of_quantile(found, columns, quantile, iou)
    p, measures = p_values(cells, thresholds), [cells.pearson(), cells.cosine(), cells.average_precision()]
    for array, worst in zip((p, *measures), (1, 0, 0, 0), strict=True):
        array[list(broken)] = worst
    return Certificates(low, high, p, *measures)


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini and Yekutieli's q of p-values, of any shape."""
    flat, count = p.ravel(), p.size
    order = np.argsort(flat)
    factor = count * (1 / np.arange(1, count + 1)).sum() / np.arange(1, count + 1)
    q = np.empty(count)
    q[order] = np.minimum.accumulate((flat[order] * factor)[::-1])[::-1].clip(max=1)
    return q.reshape(p.shape)


# ---- the test


def p_values(cells: Cells, thresholds: slice) -> np.ndarray:
    """One-sided p (U, C) of units that are on without looking at where concepts are; the least of several thresholds.

    That least one is multiplied by the number of thresholds (Bonferroni), so that the choice among them is paid for.
    """
    from scipy.special import stdtr

    images = cells.images.cpu().numpy().astype(float)
    used = np.flatnonzero(images)
    units, count = cells.both.shape[1], cells.both.shape[3]
    least = np.ones((units, count))
    if len(used) < FEWEST:
        return least
    images, shown = images[used], cells.shown.cpu().numpy()[used].astype(float)  # (B,), (B, C, P)
    usual, step = shown.sum(0) / images.sum(), max(1, AT_ONCE // (len(used) * count))
    levels = range(cells.both.shape[2])[thresholds]
    for t, start in product(levels, range(0, units, step)):
        some = slice(start, start + step)
        on, both = (getattr(cells, name)[:, some, t].cpu().numpy()[used].astype(float) for name in ("on", "both"))
        habit = on.sum(0) / images.sum()  # (u, P)
        expected = images[:, None, None] * (habit @ usual.T)
        sums = both - on @ usual.T - habit @ shown.transpose(0, 2, 1) + expected  # (B, u, C)
        spread = sums.std(0, ddof=1) / np.sqrt(len(used))
        known = spread > 1e-9 * np.abs(both).max(initial=1)
        score = np.divide(sums.mean(0), spread, out=np.zeros(spread.shape), where=known)
        least[some] = np.minimum(least[some], stdtr(len(used) - 1, -score))
    return np.where(least >= 0.5, 1.0, np.minimum(least * len(levels), 1.0))


# ---- the intervals


def intervals_of_quantile(blocks: Blocks, columns: Columns, quantile: float, iou: np.ndarray):
    """Ends of the intervals (U, C), where each resample has its own threshold, which a share of its pixels exceeds."""
    weights = weights_of(len(blocks.pixels))
    wanted, area = quantile * (weights @ blocks.pixels), weights @ blocks.area[:, : columns.concepts]
    units, count, levels = blocks.above.shape[1:]
    ends = np.empty((2, *iou.shape))
    step = max(1, AT_ONCE // (len(weights) * count * levels))
    for some in (slice(start, start + step) for start in range(0, units, step)):
        tables = blocks.above[:, some].astype(np.float32)
        sums = np.tensordot(weights.astype(np.float32), tables, 1)  # (draws, units, 1 + K, L)
        sums = np.concatenate([sums, np.zeros_like(sums[..., :1])], 3)
        place = ((sums[:, :, 0, :-1] >= wanted[:, None, None]).sum(2) - 1).clip(0)[:, :, None, None]
        upper, lower = (np.take_along_axis(sums, place + i, 3)[..., 0] for i in range(2))
        step_size = upper[:, :, 0] - lower[:, :, 0]
        part = np.divide(wanted[:, None] - lower[:, :, 0], step_size, out=np.ones(step_size.shape), where=step_size > 0)
        counts = lower + part.clip(0, 1)[..., None] * (upper - lower)
        on = columns.on(counts[:, :, 0].T, counts[:, :, 1:].transpose(1, 2, 0)).transpose(2, 0, 1)
        overlap = counts[:, :, 1 : 1 + columns.concepts]
        ends[:, some] = ends_of(overlap, on, area[:, None], iou[some], len(blocks.pixels))
    return ends


def intervals_at(blocks: Blocks, columns: Columns, reading: Reading, iou: np.ndarray):
    """Ends of the intervals (U, C) at fixed thresholds; counts between two levels are shared out in proportion."""
    weights = weights_of(len(blocks.pixels))
    area = weights @ blocks.area[:, : columns.concepts]
    ends = np.empty((2, *iou.shape))
    step = max(1, AT_ONCE // (len(weights) * columns.concepts))
    for some in (slice(start, start + step) for start in range(0, len(iou), step)):
        above = np.concatenate([blocks.above[:, some], np.zeros_like(blocks.above[:, some, :, :1])], 3).astype(float)
        marginal, counts = above[:, :, 0], above[:, :, 1:]  # (B, u, L), (B, u, K, L)
        every = columns.on(marginal.sum(0), counts.sum(0))  # (u, C, L)
        place = ((every[..., :-1] >= reading.on[some, :, None]).sum(2) - 1).clip(0)
        of_on = columns.on(marginal.reshape(-1, marginal.shape[2]), counts.reshape(-1, *counts.shape[2:]))
        of_on = of_on.reshape(len(marginal), -1, *of_on.shape[1:])
        on, overlap = (
            between(table, place, total[some])
            for table, total in ((of_on, reading.on), (counts[:, :, : columns.concepts], reading.overlap))
        )
        both, either = (np.tensordot(weights, table, 1) for table in (overlap, on))
        ends[:, some] = ends_of(both, either, area[:, None], iou[some], len(blocks.pixels))
    return ends


def between(table: np.ndarray, place: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Counts (B, U, C) of blocks between two neighbouring levels of a table (B, U, C, L), which add up to a total."""
    index = np.broadcast_to(place[None, ..., None], (*table.shape[:3], 1))
    upper, lower = (np.take_along_axis(table, index + i, 3)[..., 0] for i in range(2))
    size = (upper - lower).sum(0)
    part = np.divide(total - lower.sum(0), size, out=np.zeros(size.shape), where=size > 0).clip(0, 1)
    return lower + part * (upper - lower)


def weights_of(blocks: int) -> np.ndarray:
    """How often each block counts in each resample; once in the first one, which is the sample itself."""
    return np.concatenate([np.ones((1, blocks)), resamples(blocks, DRAWS)])


def ends_of(overlap: np.ndarray, on: np.ndarray, area: np.ndarray, iou: np.ndarray, blocks: int) -> np.ndarray:
    """Ends (2, U, C) about the IoU of the sample, by the spread of bootstrapped log odds of the IoU (draws, U, C)."""
    from scipy.special import expit, logit, stdtrit

    union = on + area - overlap
    draws = np.divide(overlap, union, out=np.zeros(union.shape), where=union > 0)
    with np.errstate(divide="ignore"):
        spread = logit(draws[1:].clip(TINY, 1 - TINY)).std(0, ddof=1) * np.sqrt(blocks / (blocks - 1))
        reach = stdtrit(blocks - 1, (1 + CONFIDENCE) / 2) * spread
        return np.stack([expit(logit(iou) - reach), expit(logit(iou) + reach)])
