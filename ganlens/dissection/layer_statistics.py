"""The statistics of one layer: what is counted in a pass, and what thresholds and counts follow from it."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch

from ganlens.dissection.blocks import FULL_LEVELS, LEAST, MOST, TAIL_LEVELS, BlockCounts, block_size
from ganlens.dissection.cells import RANKS, Cells
from ganlens.segmenters.base import Concept
from ganlens.statistics import (
    BINS,
    Areas,
    JointCounts,
    Levels,
    Scale,
    Statistic,
    TopImages,
    from_above,
    information_quality,
    sample_upsampled,
    tail_level,
)

RULES = ("quantile", "iqr", "iou")  # by which thresholds are chosen
MOST_COLUMNS = 2**15 - 1  # columns are kept as numbers of 16 bits
FREQUENT = 1e-3  # share of the pixels that a concept must have for the rule "iqr"
MOST_AT_ONCE = 2**21  # candidates for which numbers are at hand together
CANDIDATES = np.logspace(-3, 0, 100)  # tail fractions that "iqr" and "iou" choose from


class Columns:
    """The columns of the tables: one per concept and, for counting within categories, one per category.

    Parameters
    ----------
    concepts : tuple of Concept
        The vocabulary, C of them.
    within_category : bool
        Whether the pixels of an image count for a concept only if the image shows its category.
    """

    def __init__(self, concepts: Sequence[Concept], within_category: bool):
        names = list(dict.fromkeys(concept.category for concept in concepts))
        self.within_category, self.concepts = within_category, len(concepts)
        self.category = [names.index(concept.category) for concept in concepts]
        self.count = len(concepts) + (len(names) if within_category else 0)
        if self.count > MOST_COLUMNS:
            raise ValueError(f"{len(concepts):,} concepts: at most {MOST_COLUMNS:,}, categories included, are counted")

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """Columns (N, L', h, w), int16, of label planes (N, L, h, w); -1 is none, -2 counts nowhere."""
        planes = [labels.to(torch.int16) - 1]
        for column in range(self.concepts, self.count):
            members = [c for c, k in enumerate(self.category) if k == column - self.concepts]
            present = torch.isin(planes[0], torch.tensor(members, device=labels.device)).flatten(1).any(1)
            shown = present[:, None, None, None] & (planes[0][:, :1] >= -1)
            planes.append(torch.where(shown, column, -1).to(torch.int16))
        return torch.cat(planes, 1)

    def on(self, marginal: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Pixels (U, C, M) that count for each concept and have the unit on, from (U, M) and (U, K, M)."""
        if self.within_category:
            return counts[:, [self.concepts + k for k in self.category]]
        return np.broadcast_to(marginal[:, None], (len(marginal), self.concepts, marginal.shape[1]))

    def scope(self, *areas: Areas) -> np.ndarray:
        """Pixels (C,) that count for each concept."""
        if self.within_category:
            return pixels(areas)[[self.concepts + k for k in self.category]]
        return np.full(self.concepts, sum(a.counted for a in areas))

    def area(self, *areas: Areas) -> np.ndarray:
        """Pixels (C,) of each concept."""
        return pixels(areas)[: self.concepts]


def pixels(areas: Sequence[Areas]) -> np.ndarray:
    """Pixels (K,) of each column."""
    return to_numpy(cast(torch.Tensor, sum(a.counts for a in areas)))


def table_bytes(units: int, concepts: Sequence[Concept], rules, quantile: float, within_category: bool) -> int:
    """How much the joint tables of a layer take."""
    columns = Columns(concepts, within_category).count + 2  # the marginal counts are twice as wide
    bins = tail_bins(quantile) * ("quantile" in rules) + 2 * BINS * bool(set(rules) - {"quantile"})
    blocks = LEAST * len(FULL_LEVELS) * len({rule == "quantile" for rule in rules})
    return 4 * units * columns * (bins + blocks + 2 * RANKS)


def tail_bins(quantile: float) -> int:
    return 8192 if quantile > 0.02 else 1024


def tail_scale(pilot: list[torch.Tensor], sample: torch.Tensor, quantile: float) -> Scale:
    """Bins for the highest values only, where the threshold must lie: 1,024 within the top 3 % are as 34,000 over all.

    They reach to the highest value of the pilot, because a unit that is rarely on may miss the sample's pixels; for
    large quantiles to a level of the sample, so that a long tail does not make them coarse. A unit that is at its
    highest value at more pixels than the rule asks for is on at all of them.
    """
    lowest = torch.stack([r.amin((1, 2)) for r in pilot]).amin(0)
    highest = torch.stack([r.amax((1, 2)) for r in pilot]).amax(0)
    low = tail_level(sample, min(3 * quantile, 1.0))
    saturated = (low >= highest) & (lowest < highest)
    low = torch.where(saturated, torch.nextafter(highest, lowest), low)
    if quantile > 0.02:
        return Scale(low, tail_level(sample, quantile / 16), tail_bins(quantile))
    return Scale(low, highest, tail_bins(quantile))


class Reading(NamedTuple):
    """Thresholds and the counts at these thresholds, as `Dissection` holds them."""

    thresholds_by_concept: np.ndarray
    on: np.ndarray
    overlap: np.ndarray
    area: np.ndarray
    scope: np.ndarray
    valid: np.ndarray


class NonFinite(Statistic):
    """In how many images each unit (U,) gave NaN or infinity.

    Parameters
    ----------
    units : int
        Number of units U.
    """

    merges: ClassVar = {"images": torch.add}

    def __init__(self, units: int, device: torch.device | str = "cpu"):
        self.images = torch.zeros(units, dtype=torch.int64, device=device)

    def update(self, broken: torch.Tensor) -> None:
        """Take in which units broke in which images (N, U), boolean."""
        self.images += broken.sum(0)

    @property
    def units(self) -> list[int]:
        """Numbers of the units that broke at least once."""
        return self.images.nonzero()[:, 0].tolist()


def mended(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, U, H, W) with 0 for a unit in an image where it is not finite, and where that is (N, U)."""
    if features.device.type == "cpu":  # asking another device would mean waiting for it
        sums = features.sum((2, 3))
        if sums.isfinite().all():
            return features, torch.zeros_like(sums, dtype=torch.bool)
    broken = ~features.isfinite().flatten(2).all(2)
    return torch.where(broken[..., None, None], 0, features), broken


def scales_of(pilot: list[torch.Tensor], size: tuple[int, int], rules, quantile: float) -> dict[str, Scale]:
    """The bins of each statistic of a layer, from the features (U, H, W) of the first images."""
    sample = sample_upsampled(pilot, size)
    cells = sample_upsampled(pilot, tuple(pilot[0].shape[1:]))
    scales = {"levels": Scale.of_sample(cells, 1.0, 0.0005)}
    if "quantile" in rules:
        scales["tail"] = tail_scale(pilot, sample, quantile)
    if set(rules) - {"quantile"}:
        scales["full"] = Scale.of_sample(sample, 1.0, 0.0005, BINS)
    return scales


class Tally:
    """The statistics of one layer.

    Parameters
    ----------
    scales : dict of str to Scale
        From `scales_of`.
    grid, size : (int, int)
        Height and width of the layer, and of the segmentation.
    columns : Columns
        What is counted.
    quantile, top : float, int
        As `ganlens.dissect` takes them.
    sample, blocks : range, int
        All seeds, and of how many blocks of them certificates are made, at most.
    """

    def __init__(
        self,
        scales: dict[str, Scale],
        grid: tuple[int, int],
        size: tuple[int, int],
        columns: Columns,
        quantile: float,
        top: int,
        sample: range,
        blocks: int = MOST,
    ):
        self.scales, self.size, self.columns, self.quantile = scales, size, columns, quantile
        low = scales["levels"].low
        self.first, self.block_size = sample.start, block_size(len(sample), len(low), columns.count, blocks)
        blocks = -(-len(sample) // self.block_size)
        self.levels, self.top = Levels(scales["levels"]), TopImages(len(low), top, low.device)
        self.broken = NonFinite(len(low), low.device)
        self.cells = Cells(scales["levels"], tested(scales), grid, size, columns.concepts, blocks)
        self.tail = JointCounts(scales["tail"], columns.count) if "tail" in scales else None
        both = range(2) if "full" in scales else ()
        self.full = [JointCounts(scales["full"], columns.count) for _ in both]  # of even and odd seeds
        self.tail_blocks = BlockCounts(self.tail, TAIL_LEVELS, blocks) if self.tail else None
        self.odd_blocks = BlockCounts(self.full[1], FULL_LEVELS, blocks) if self.full else None

    @property
    def statistics(self) -> dict[str, Statistic]:
        """All of them by name."""
        found: dict[str, Statistic] = {"levels": self.levels, "top": self.top, "broken": self.broken}
        found |= {"cells": self.cells}
        if self.tail and self.tail_blocks:
            found |= {"tail": self.tail, "tail_blocks": self.tail_blocks}
        if self.odd_blocks:
            found |= {"even": self.full[0], "odd": self.full[1], "odd_blocks": self.odd_blocks}
        return found

    def update(self, features: torch.Tensor, broken: torch.Tensor, planes: torch.Tensor, seeds: list[int]) -> None:
        """Take in mended features (N, U, H, W), which were broken (N, U), label columns (N, L, h, w), and seeds."""
        self.levels.update(features)
        self.top.update(features, seeds)
        self.broken.update(broken)
        numbers = [(seed - self.first) // self.block_size for seed in seeds]
        for block in sorted({*numbers}):
            rows = [i for i, number in enumerate(numbers) if number == block]
            whole = len(rows) == len(seeds)
            parts = (features, planes) if whole else (features[rows], planes[rows])
            self.update_block(*parts, [seeds[i] for i in rows], block)

    def update_block(self, features: torch.Tensor, planes: torch.Tensor, seeds: list[int], block: int) -> None:
        """Take in images of one block."""
        self.cells.update(features, planes, block)
        if self.tail_blocks:
            self.tail_blocks.update(features, planes, block)
        if self.odd_blocks:
            even, odd = by_parity(seeds, features.device)
            self.full[0].update(features[even], planes[even])
            self.odd_blocks.update(features[odd], planes[odd], block)

    def close(self) -> None:
        """End the open blocks, before counts are merged."""
        for blocks in (self.tail_blocks, self.odd_blocks):
            if blocks:
                blocks.close()

    def read(self, rule: str, areas: list[Areas]) -> Reading:
        """Thresholds under a rule, and the counts at these; broken units are on nowhere."""
        reading = self.by_quantile(areas) if rule == "quantile" else self.by_information(rule, areas)
        units = self.broken.units
        if units:
            reading = reading._replace(**{name: getattr(reading, name).copy() for name in ("on", "overlap", "valid")})
            reading.on[units], reading.overlap[units], reading.valid[units] = 0, 0, False
        return reading

    def by_quantile(self, areas: list[Areas]) -> Reading:
        """Thresholds that a share ``quantile`` of all pixels exceeds, as nearly as an edge of the bins does."""
        wanted = self.quantile * (areas[0].counted + areas[1].counted)
        tail = cast(JointCounts, self.tail)
        bins = (from_above(tail.marginal) - wanted).abs().argmin(1, keepdim=True)
        marginal, counts = map(to_numpy, tail.above(bins))
        on, overlap = self.columns.on(marginal, counts)[..., 0], counts[:, : self.columns.concepts, 0]
        thresholds = np.broadcast_to(to_numpy(tail.scale.edge(bins)), on.shape)
        sizes = self.columns.area(*areas), self.columns.scope(*areas)
        return Reading(thresholds, on, overlap, *sizes, np.ones(on.shape, bool))

    def by_information(self, rule: str, areas: list[Areas]) -> Reading:
        """Thresholds of the highest information quality ratio, or IoU, on even seeds; counts on odd seeds."""
        even, odd = self.full
        every = from_above(even.marginal)
        wanted = CANDIDATES * areas[0].counted
        bins = middle_nearest(every, wanted)  # (U, M)
        levels = to_numpy(even.scale.edge(bins))
        area, scope = (part(areas[0]) for part in (self.columns.area, self.columns.scope))
        parts = []
        step = max(1, MOST_AT_ONCE // (self.columns.count * len(CANDIDATES)))
        for units in (slice(start, start + step) for start in range(0, len(bins), step)):
            best, valid = self.best_candidates(rule, units, bins[units], levels[units], area, scope)
            thresholds = np.take_along_axis(levels[units, None], best, 2)
            on, overlap = (np.take_along_axis(x, best, 2) for x in self.counts_above(odd, units, bins[units]))
            parts.append([x[..., 0] for x in (thresholds, on, overlap, valid)])
        thresholds, on, overlap, valid = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Reading(thresholds, on, overlap, self.columns.area(areas[1]), self.columns.scope(areas[1]), valid)

    def best_candidates(
        self, rule: str, units: slice, bins: torch.Tensor, levels: np.ndarray, area: np.ndarray, scope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best candidate of some units for each concept (U, C, 1) by even seeds, and whether it may be chosen."""
        on, overlap = self.counts_above(self.full[0], units, bins)
        best, valid = np.zeros((*on.shape[:2], 1), np.int64), np.zeros((*on.shape[:2], 1), bool)
        worth = possible_concepts(rule, area, scope)  # others have no valid candidate: the first one stands for all
        if len(worth):
            sizes = area[worth, None], scope[worth, None]
            merit, may = merit_of(rule, on[:, worth], overlap[:, worth], *sizes, levels[:, None])
            best[:, worth] = np.where(may, merit, -1).argmax(2)[..., None]
            valid[:, worth] = np.take_along_axis(may, best[:, worth], 2)
        return best, valid

    def counts_above(self, joint: JointCounts, units: slice, bins: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """On and overlap (U, C, M) of some units in the given bins (U, M) or above."""
        marginal, counts = map(to_numpy, joint.above(bins, units))
        return self.columns.on(marginal, counts), counts[:, : self.columns.concepts]


def tested(scales: dict[str, Scale]) -> torch.Tensor:
    """Levels (U, T) above which a unit is on in the test against chance: of the quantile rule, then of the others.

    From three times its quantile on; and from a quarter, a half, three quarters of the range on.
    """
    levels = [scales["tail"].low[:, None]] if "tail" in scales else []
    if "full" in scales:
        full = scales["full"]
        bins = torch.tensor([0.25, 0.5, 0.75], device=full.low.device) * full.bins
        levels.append(full.low[:, None] + (bins / full.slope[:, None]).nan_to_num(posinf=0.0))
    return torch.cat(levels, 1)


def by_parity(seeds: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    """Places of the even and of the odd seeds, on a device, which is not waited for."""
    places = ([i for i, seed in enumerate(seeds) if seed % 2 == odd] for odd in range(2))
    return [torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True) for rows in places]


def middle_nearest(every: torch.Tensor, wanted: np.ndarray) -> torch.Tensor:
    """Bins (U, M) whose falling counts ``every`` (U, B) are nearest to each of M numbers: the middle one of equals."""
    rising = every.flip(1).double()
    sought = torch.as_tensor(wanted, device=every.device).expand(len(every), -1).contiguous()
    place, last = torch.searchsorted(rising, sought), every.shape[1] - 1
    lower, upper = (rising.gather(1, p.clamp(0, last)) for p in (place - 1, place))
    below, above = (sought - lower).abs(), (upper - sought).abs()
    least = torch.where(below <= above, lower, upper)  # the least and the largest of the counts that are nearest
    largest = torch.where(above <= below, upper, lower)
    first = last + 1 - torch.searchsorted(rising, largest, right=True)
    middle = (first + last - torch.searchsorted(rising, least)) // 2
    return torch.where(largest == 0, first, middle)


def merit_of(rule: str, on, overlap, area, scope, levels) -> tuple[np.ndarray, np.ndarray]:
    """How good each candidate threshold is, and whether it may be chosen; arrays broadcast to (U, C, M)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if rule == "iou":
            return np.nan_to_num(overlap / (on + area - overlap)), np.full(overlap.shape, True)
        agreement = (scope - on - area + 2 * overlap) / scope
        together = overlap * scope.astype(float) > on * area.astype(float)
        valid = (agreement > 0.8) & (levels > 0) & (area / scope >= FREQUENT) & together
    return information_quality(on, overlap, area, scope), valid


def possible_concepts(rule: str, area: np.ndarray, scope: np.ndarray) -> np.ndarray:
    """Places of the concepts that a rule can choose a threshold for: "iqr" asks for a frequency."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.flatnonzero(area / scope >= FREQUENT) if rule == "iqr" else np.arange(len(area))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


class Counts(NamedTuple):
    """The integers that everything else is computed from, in pixels of the segmentation's grid."""

    on: np.ndarray  # (U, C) the unit is on
    overlap: np.ndarray  # (U, C) the unit is on and the concept is there
    area: np.ndarray  # (C,) the concept is there
    scope: np.ndarray  # (C,) all pixels that count for the concept
