"""Mergeable statistics of features: joint tables with labels, activation quantiles, top images, concept areas.

Each statistic declares its state together with the operation that merges it. Merging is exact and does not depend on
order, so a sample may be split, shuffled and put together again without changing one bit of the result.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

BINS = 1024
STATISTICS = 3  # version of what is counted: to be raised whenever the numbers of a dissection change


class Statistic:
    """State that can be updated, merged, saved and loaded.

    ``merges`` maps the name of each state tensor to the operation that merges two of them. Statistics with a ``scale``
    can be merged only if their scales are equal.
    """

    merges: ClassVar[dict[str, Callable]] = {}
    at_host: ClassVar[tuple[str, ...]] = ()  # what is never on a GPU
    scale: "Scale | None" = None

    def merge(self, other: "Statistic") -> "Statistic":
        """Take in another statistic of the same kind and scale; returns ``self``."""
        if self.scale != other.scale:
            raise ValueError("cannot merge: the two statistics have different scales")
        for name, operation in self.merges.items():
            setattr(self, name, operation(getattr(self, name), getattr(other, name)))
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to be saved; `from_state` is the way back."""
        state = {name: getattr(self, name).cpu().numpy() for name in self.merges}
        return state | (self.scale.state() if self.scale else {})

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: torch.device | str = "cpu") -> "Statistic":
        """Rebuild a statistic from its `state`, on a device."""
        self = cls.__new__(cls)
        if "slope" in state:
            self.scale = Scale.from_state(state, device)
        for name in cls.merges:
            tensor = torch.from_numpy(np.array(state[name]))
            setattr(self, name, tensor if name in cls.at_host else tensor.to(device))
        return self


def sample_upsampled(images: Sequence[torch.Tensor], size: tuple[int, ...], steps: tuple[int, int] = (8, 8)):
    """Upsampled features at a regular subset of the pixels, (U, P), of images' features (U, H, W), without the rest."""
    rows, columns = (
        upsample(torch.eye(cells, device=images[0].device)[None, None], (pixels, cells))[0, 0][middles(pixels, count)]
        for cells, pixels, count in zip(images[0].shape[1:], size, steps, strict=True)
    )
    few = (torch.stack(list(images[i : i + 8])) for i in range(0, len(images), 8))
    return torch.cat([(rows @ r @ columns.T).transpose(0, 1).flatten(1) for r in few], 1)


def middles(length: int, count: int) -> list[int]:
    """Middles of ``count`` equal parts of 0 … length - 1, or all where there are fewer."""
    return sorted({int((i + 0.5) * length / count) for i in range(count)})


def upsample(features: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Features (N, U, H, W) on the segmentation's grid (N, U, h, w): bilinear, half-pixel centres, nothing else."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def tail_level(sample: torch.Tensor, fraction: float) -> torch.Tensor:
    """Level (U,) that a share of each unit's sample (U, P) exceeds."""
    count = sample.shape[1]
    rank = min(max(round((1 - fraction) * count), 1), count)
    return sample.amin(1) if rank == 1 else sample.kthvalue(rank, dim=1).values


class Scale:
    """Evenly spaced bins of activation, for each unit its own: from ``low`` up, the last bin is open.

    Bin b of unit u holds the values v > low[u] with int((v - low[u]) * slope[u]) = b, in float32 arithmetic. This is
    monotonic in v, so each bin has an exact lower edge, and a count of bins is a count of values above that edge.

    Parameters
    ----------
    low, high : Tensor (U,)
        Values up to ``low`` are in no bin; ``high`` is where the last bin begins. Where they are equal (a unit that
        never changes) all values above fall into the first bin.
    bins : int
        Number of bins B.
    """

    def __init__(self, low: torch.Tensor, high: torch.Tensor, bins: int = BINS):
        width = (high - low).float()
        self.low, self.bins = low.float().contiguous(), bins
        self.slope = torch.where(width > 0, (bins - 1) / width, 0).contiguous()

    def state(self) -> dict[str, np.ndarray]:
        """The scale as arrays."""
        return {"low": self.low.cpu().numpy(), "slope": self.slope.cpu().numpy(), "bins": np.array(self.bins)}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: torch.device | str = "cpu") -> "Scale":
        """Rebuild a scale from its `state`, on a device."""
        self = cls.__new__(cls)
        self.low, self.slope = (torch.from_numpy(np.array(state[name])).to(device) for name in ("low", "slope"))
        self.bins = int(state["bins"])
        return self

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scale)
            and self.bins == other.bins
            and torch.equal(self.low, other.low)
            and torch.equal(self.slope, other.slope)
        )

    @classmethod
    def of_sample(cls, sample: torch.Tensor, lowest: float, highest: float, bins: int = BINS) -> "Scale":
        """A scale between the levels that shares ``lowest`` > ``highest`` of a sample (U, P) exceed."""
        return cls(tail_level(sample, lowest), tail_level(sample, highest), bins)

    def place(self, values: torch.Tensor) -> torch.Tensor:
        """Bin of each value (U, P), -1 for none."""
        place = ((values - self.low[:, None]) * self.slope[:, None]).clamp(max=self.bins - 1).long()
        return torch.where(values > self.low[:, None], place, -1)

    def nominal(self) -> torch.Tensor:
        """Lower edges of all bins (U, B), up to rounding."""
        bins = torch.arange(self.bins, device=self.low.device)
        return self.low[:, None] + (bins / self.slope[:, None]).nan_to_num(nan=0.0)

    def edge(self, bins: torch.Tensor) -> torch.Tensor:
        """Exact lower edges of given bins (U, M): v > edge if and only if v lies in that bin or above."""
        below = as_ordered_integer(self.low)[:, None].expand(bins.shape).clone()
        above = torch.full_like(below, as_ordered_integer(torch.tensor(torch.inf)).item())
        while ((above - below) > 1).any():
            middle = (below + above) // 2
            inside = self.place(from_ordered_integer(middle)) >= bins
            above, below = torch.where(inside, middle, above), torch.where(inside, below, middle)
        return from_ordered_integer(below)


def as_ordered_integer(values: torch.Tensor) -> torch.Tensor:
    """Float32 as integers in the same order, neighbours one apart."""
    bits = values.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -(2**31) - bits, bits)


def from_ordered_integer(integers: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_ordered_integer`."""
    bits = torch.where(integers < 0, -(2**31) - integers, integers)
    return bits.to(torch.int32).view(torch.float32)


class JointCounts(Statistic):
    """How often each unit is in each bin of activation, anywhere and at pixels of each column: integer counts.

    A column is a concept, or any other class of pixels. Values up to the low end of the scale are not counted.

    Parameters
    ----------
    scale : Scale
        The bins of U units.
    columns : int
        Number of columns K.
    """

    scale: Scale
    merges: ClassVar = {"pixels": torch.add, "marginal": torch.add, "counts": lambda a, b: narrowed(a.long() + b)}
    at_host: ClassVar = ("pixels",)

    def __init__(self, scale: Scale, columns: int):
        units, device = len(scale.low), scale.low.device
        self.scale = scale
        self.pixels = torch.zeros((), dtype=torch.int64)
        self.marginal = torch.zeros(units, scale.bins, dtype=torch.int64, device=device)
        self.counts = torch.zeros(units, columns, scale.bins, dtype=torch.int32, device=device)  # faster while it fits

    def update(self, features: torch.Tensor, planes: torch.Tensor) -> None:
        """Count features (N, U, H, W) at pixels whose columns are ``planes`` (N, L, h, w), int16, -1 for no column.

        Pixels that have -2 in the first plane are passed over.
        """
        self.pixels = self.pixels + planes.numel()
        if self.pixels > torch.iinfo(torch.int32).max:
            self.counts = self.counts.long()
        if features.device.type == "cpu":
            from ganlens._compiled import count_joint

            count_joint(features, planes, self.scale, self.marginal, self.counts)
        else:
            self.update_by_definition(features, planes)

    def update_by_definition(self, features: torch.Tensor, planes: torch.Tensor) -> None:
        """The same in plain torch: for other devices, and to check the compiled loop. It never waits for a device."""
        units, columns, bins = self.counts.shape
        unit = torch.arange(units, device=features.device)[:, None]
        for r, plane in zip(upsample(features, planes.shape[2:]), planes, strict=True):
            bin_ = torch.where(plane[0].flatten() < -1, -1, self.scale.place(r.flatten(1)))  # (U, P)
            count_each(bin_, self.marginal)
            for column in plane.flatten(1).long():
                inside = (bin_ >= 0) & (column >= 0)
                index = (unit * columns + column.clamp(min=0)) * bins + bin_.clamp(min=0)
                self.counts.view(-1).scatter_add_(0, index.flatten(), inside.flatten().to(self.counts.dtype))

    def above(self, bins: torch.Tensor, units: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels of some units in given bins (U, M) or above: (U, M) anywhere, (U, K, M) in each column."""
        return from_above(self.marginal[units]).gather(1, bins), sums_from(self.counts[units], bins)


def narrowed(counts: torch.Tensor) -> torch.Tensor:
    """Counts as int32 where they fit."""
    return counts.int() if counts.max() <= torch.iinfo(torch.int32).max else counts


def from_above(counts: torch.Tensor) -> torch.Tensor:
    """Sums of the last axis from each position to its end."""
    return counts.flip(-1).cumsum(-1, dtype=torch.int64).flip(-1)


def sums_from(counts: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Sums (U, K, M) of counts (U, K, B) from each of M bins (U, M) to the end."""
    if counts.device.type == "cpu":
        from ganlens._compiled import add_up

        return add_up(counts, bins)
    tables = [from_above(table)[:, some] for table, some in zip(counts, bins, strict=True)]
    return torch.stack(tables)


def count_each(bins: torch.Tensor, counts: torch.Tensor) -> None:
    """Add bins (U, P), -1 for none, to counts (U, B), in plain torch."""
    padded = torch.zeros(counts.shape[0], counts.shape[1] + 1, dtype=torch.int64, device=counts.device)
    counts += padded.scatter_add_(1, bins + 1, torch.ones_like(bins))[:, 1:]


class Levels(Statistic):
    """Quantiles and mean of each unit's features over all cells; the mean is exact to 2^-16, quantiles to one bin.

    Parameters
    ----------
    scale : Scale
        The bins of U units.
    """

    scale: Scale
    merges: ClassVar = {
        "counts": torch.add,
        "below": torch.add,
        "total": torch.add,
        "cells": torch.add,
        "lowest": torch.minimum,
        "highest": torch.maximum,
    }

    def __init__(self, scale: Scale):
        units, device = len(scale.low), scale.low.device
        self.scale = scale
        self.counts = torch.zeros(units, scale.bins, dtype=torch.int64, device=device)
        self.below = torch.zeros(units, dtype=torch.int64, device=device)
        self.total = torch.zeros(units, dtype=torch.int64, device=device)
        self.cells = torch.zeros((), dtype=torch.int64, device=device)
        self.lowest = torch.full((units,), torch.inf, device=device)
        self.highest = torch.full((units,), -torch.inf, device=device)

    def update(self, features: torch.Tensor) -> None:
        """Take in features (N, U, H, W)."""
        if features.device.type == "cpu":
            from ganlens._compiled import count_levels

            sums, lowest, highest = count_levels(features, self.scale, self.counts, self.below)
        else:
            sums, lowest, highest = self.count_by_definition(features)
        self.total += (sums * 2**16).round().long().sum(0)
        self.cells += features[:, 0].numel()
        self.lowest, self.highest = torch.minimum(self.lowest, lowest), torch.maximum(self.highest, highest)

    def count_by_definition(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The counting in plain torch: for other devices, and to check the compiled loop."""
        values = features.transpose(0, 1).flatten(1)
        bins = self.scale.place(values)
        self.below += (bins < 0).sum(1)
        count_each(bins, self.counts)
        return features.flatten(2).double().sum(2), *values.aminmax(dim=1)

    def mean(self) -> torch.Tensor:
        """Mean feature of each unit (U,)."""
        return (self.total.double() / 2**16 / self.cells).float()

    def quantile(self, q: float) -> torch.Tensor:
        """Level (U,) below which a share ``q`` of the cells lies, linear within a bin."""
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q} is outside [0, 1]; 0.99 is the level that 1 % of the cells exceed")
        low, high = self.lowest[:, None], self.highest[:, None]
        edges = torch.cat([low, self.scale.nominal(), high], 1).double().clamp(low, high)
        counts = torch.cat([self.below[:, None], self.counts], 1)
        reached = counts.cumsum(1)
        rank = q * self.cells
        bin_ = (reached < rank).sum(1, keepdim=True).clamp(max=counts.shape[1] - 1)
        before, here = (reached - counts).gather(1, bin_), counts.gather(1, bin_)
        inside = (rank - before) / here.clamp(min=1)
        start = torch.where(before == 0, low.double(), edges.gather(1, bin_))
        stop = torch.where(before + here == self.cells, high.double(), edges.gather(1, bin_ + 1))
        return (start + (stop - start) * inside.clamp(0, 1))[:, 0].float()


class TopImages(Statistic):
    """The ``k`` images of each unit with the highest maximum: (U, k) values and seeds, best first, ties by seed.

    Parameters
    ----------
    units : int
        Number of units U.
    k : int
        Images kept for each unit.
    """

    merges: ClassVar = {"best": lambda a, b: best_of(torch.cat([a, b], 1), a.shape[1])}

    def __init__(self, units: int, k: int = 32, device: torch.device | str = "cpu"):
        none = torch.tensor([-torch.inf, -1], dtype=torch.float64, device=device)
        self.best = none.repeat(units, k, 1)  # (U, k, value and seed)

    def update(self, features: torch.Tensor, seeds: Sequence[int]) -> None:
        """Take in the maxima of features (N, U, H, W) of the images ``seeds`` (N,)."""
        values = features.amax((2, 3)).T.double()
        numbers = torch.tensor(seeds, dtype=torch.float64).to(values.device, non_blocking=True)
        pairs = torch.stack([values, numbers.expand_as(values)], 2)
        self.best = best_of(torch.cat([self.best, pairs], 1), self.best.shape[1])

    @property
    def values(self) -> np.ndarray:
        """Maxima (U, k), best first; -inf where fewer images were seen."""
        return self.best[..., 0].float().cpu().numpy()

    @property
    def seeds(self) -> np.ndarray:
        """Seeds (U, k); -1 where fewer images were seen."""
        return self.best[..., 1].long().cpu().numpy()


def best_of(pairs: torch.Tensor, k: int) -> torch.Tensor:
    """The k best of (value, seed) pairs (U, P, 2): by value, ties by the smaller seed."""
    values, seeds = pairs.unbind(2)
    order = as_ordered_integer(values.float()) * 2**32 - seeds.long()  # one number that sorts by both
    return pairs.gather(1, order.topk(k, 1).indices[..., None].expand(-1, -1, 2))


class Areas(Statistic):
    """Pixels of each column (K,), all pixels, and those of them that are ignored."""

    merges: ClassVar = {"counts": torch.add, "pixels": torch.add, "ignored": torch.add}
    at_host: ClassVar = ("pixels",)

    def __init__(self, columns: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(columns, dtype=torch.int64, device=device)
        self.pixels = torch.zeros((), dtype=torch.int64)
        self.ignored = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, planes: torch.Tensor) -> None:
        """Count columns in planes (N, L, h, w); -1 is no column, -2 in the first plane a pixel that counts nowhere."""
        self.pixels += planes[:, 0].numel()
        self.ignored += (planes[:, 0] < -1).sum()
        count_each(planes.flatten()[None].long().clamp(min=-1), self.counts[None])

    @property
    def counted(self) -> int:
        """Pixels that are not ignored."""
        return int(self.pixels) - int(self.ignored)


def information_quality(on, overlap, area, pixels) -> np.ndarray:
    """Mutual information over joint entropy of two binary variables, from their 2x2 table; arrays broadcast.

    Parameters
    ----------
    on, overlap, area : integer arrays
        Pixels where the first, both, the second is true.
    pixels : int or integer array
        All pixels.
    """
    pixels = np.maximum(pixels, 1)
    joint = np.stack(np.broadcast_arrays(overlap, on - overlap, area - overlap, pixels - on - area + overlap)) / pixels
    on, area = np.broadcast_arrays(on / pixels, area / pixels)
    entropy = plogp(joint).sum(0)
    marginal = plogp(np.stack([on, 1 - on])).sum(0) + plogp(np.stack([area, 1 - area])).sum(0)
    return np.divide(marginal - entropy, entropy, out=np.zeros(entropy.shape), where=entropy > 1e-12).clip(0)


def plogp(p: np.ndarray) -> np.ndarray:
    """The terms -p log2 p of an entropy, 0 where p is 0."""
    return -p * np.log2(np.where(p > 0, p, 1.0))
