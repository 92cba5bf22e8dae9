"""Match every unit of a layer with the concepts of a segmenter, in one pass over a sample of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ganlens.dissection import Dissection
from ganlens.models.base import Generator
from ganlens.progress import interrupt_between_steps, progress_bar
from ganlens.segmenters.base import Concept, Segmenter
from ganlens.statistics import (
    Areas,
    JointCounts,
    Levels,
    Scale,
    TopImages,
    from_above,
    information_quality,
    sample_upsampled,
    tail_level,
)

RULES = ("quantile", "iqr", "iou")
SEEDS_PER_SAMPLE = 1_000_000  # sample s is images s * 10^6, s * 10^6 + 1, …
PILOT = 64  # images that decide the scales of activation
GRANULE = 8  # networks run on multiples of this many images, so that every image is rounded alike
CANDIDATES = np.logspace(-3, 0, 100)  # tail fractions that "iqr" and "iou" choose from


def dissect(
    generator: Generator,
    segmenter: Segmenter,
    layers: str | Sequence[str],
    n: int = 1000,
    rule: str | Sequence[str] = "quantile",
    quantile: float = 0.01,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    within_category: bool = False,
    top: int = 32,
) -> "Dissection | dict":
    """Find out what the units of a layer draw.

    Every image is generated and segmented once, for all layers and rules together. The result does not depend on the
    batch size. An interrupt returns what was seen so far, marked as incomplete.

    Parameters
    ----------
    generator : Generator
        From `ganlens.load_generator` or `Generator.wrap`.
    segmenter : Segmenter
        From `ganlens.load_segmenter` or `Segmenter.wrap`.
    layers : str or sequence of str
        One layer, or several from the same pass.
    n : int
        Size of the sample.
    rule : {"quantile", "iqr", "iou"} or a sequence of these
        How a unit's threshold is set. ``"quantile"``: the level that the unit exceeds at a share ``quantile`` of all
        pixels (Bau et al., PNAS 2020). ``"iqr"``, ``"iou"``: for each concept the level, of 100 candidates, with the
        highest information quality ratio (Bau et al., ICLR 2019) or IoU, chosen on the images of even seeds and scored
        on those of odd seeds.
    quantile : float
        Share of the pixels at which a unit is on, under the quantile rule.
    seed : int
        Which sample: images seed · 10⁶ … seed · 10⁶ + n - 1; samples do not overlap.
    batch_size : int, optional
        Images per pass; by default what keeps features and images near 64 MB.
    progress : bool or callable
        A progress bar, or a function called with (images done, n).
    within_category : bool
        Count a unit's area only over images in which the concept's category is present (ICLR 2019).
    top : int
        How many top images to keep for each unit.

    Returns
    -------
    Dissection, or a dict
        By layer where a sequence of layers is given, by rule where a sequence of rules is given (layer first).

    Raises
    ------
    ValueError
        Unknown layer, empty sample, label planes of the wrong shape or range, features that are not finite.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> gl.dissect(G, S, "layer4", n=16, progress=False).iou.shape
    (192, 13)
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    rules = [rule] if isinstance(rule, str) else list(rule)
    check_arguments(generator, names, n, rules, quantile, seed, batch_size, top)
    pass_ = Pass(generator, segmenter, names, rules, quantile, within_category, top)
    batch = batch_size or default_batch(generator, names)
    first = seed * SEEDS_PER_SAMPLE
    complete = pass_.run(range(first, first + n), batch, progress)
    settings = {"seed": int(seed), "complete": complete, "within_category": bool(within_category)}
    found = {layer: {r: pass_.result(layer, r, settings) for r in rules} for layer in names}
    if isinstance(rule, str):
        found = {layer: by_rule[rule] for layer, by_rule in found.items()}
    return found[layers] if isinstance(layers, str) else found


def check_arguments(generator, layers, n, rules, quantile, seed, batch_size, top) -> None:
    if not layers:
        raise ValueError(f"no layer given; {generator.name} has {', '.join(generator.layers)}")
    for layer in layers:
        generator.check_layer(layer)
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    if not rules:
        raise ValueError(f"no rule given; expected one or more of {', '.join(RULES)}")
    if not 1 <= n <= SEEDS_PER_SAMPLE:
        raise ValueError(f"n={n}: a sample has 1 … {SEEDS_PER_SAMPLE} images; 1000 is a good start")
    if n == 1 and set(rules) - {"quantile"}:
        raise ValueError(f"n=1: rule {rules[-1]!r} chooses on images of even seeds and scores on odd ones; give n >= 2")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1, or None")
    if top < 1:
        raise ValueError(f"top={top}: expected at least 1 image for each unit")
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile}: expected a share between 0 and 1, such as 0.01")
    if not 0 <= seed < 2**32 // SEEDS_PER_SAMPLE:
        raise ValueError(f"seed={seed}: expected 0 … {2**32 // SEEDS_PER_SAMPLE - 1}")


def default_batch(generator: Generator, layers: Sequence[str]) -> int:
    """Images whose features and pixels take about 64 MB, in whole granules."""
    numbers = sum(int(np.prod(generator.layers[layer])) for layer in layers) + 4 * int(np.prod(generator.image_shape))
    return int(np.clip(2**24 // numbers // GRANULE * GRANULE, GRANULE, 32))


@dataclass
class Batch:
    """What one pass of the networks yields: features by layer, and label columns."""

    seeds: list[int]
    features: dict[str, torch.Tensor]
    planes: torch.Tensor  # (N, L, h, w) int16, -1 for no column


class Pass:
    """One pass over a sample: runs the networks and keeps the statistics of all layers."""

    def __init__(self, generator, segmenter, layers, rules, quantile, within_category, top):
        self.generator, self.segmenter, self.layers, self.rules = generator, segmenter, layers, rules
        self.quantile, self.top = quantile, top
        self.origin = origin_of(generator, segmenter)
        self.columns = Columns(segmenter.concepts, within_category)
        self.areas = [Areas(self.columns.count, generator.device) for _ in range(2)]  # of even and odd seeds
        self.tallies: dict[str, Tally] = {}
        self.pilot: list[Batch] = []
        self.seen = 0

    def run(self, seeds: range, batch_size: int, progress) -> bool:
        """Look at all images; False if interrupted before the end."""
        size = -(-batch_size // GRANULE) * GRANULE
        with progress_bar(progress, len(seeds), "dissect") as done, interrupt_between_steps() as interrupted:
            for start in range(0, len(seeds), size):
                batch = self.look(list(seeds[start : start + size]))
                self.take(batch, PILOT if len(seeds) > PILOT else len(seeds))
                done(len(batch.seeds))
                if interrupted():
                    break
        self.settle()
        return self.seen == len(seeds)

    def look(self, seeds: list[int]) -> Batch:
        """Generate and segment the images of seeds."""
        padded = seeds + seeds[-1:] * (-len(seeds) % GRANULE)
        with torch.inference_mode():
            images, features = self.generator.read(self.generator.sample(padded), self.layers)
            labels = self.check_labels(self.segmenter.labels(images), len(padded))[: len(seeds)]
            features = {layer: r[: len(seeds)].float() for layer, r in features.items()}
        self.check_finite(features)
        return Batch(seeds, features, self.columns.of(labels))

    def check_labels(self, labels: torch.Tensor, n: int) -> torch.Tensor:
        name, concepts = self.segmenter.name, len(self.segmenter.concepts)
        if not isinstance(labels, torch.Tensor):
            raise ValueError(f"segmenter {name} returned {type(labels).__name__}; expected a tensor ({n}, L, h, w)")
        if labels.ndim != 4 or len(labels) != n or not labels.numel() or labels.is_floating_point():
            raise ValueError(
                f"segmenter {name} returned {labels.dtype} {tuple(labels.shape)} for {n} images; "
                f"expected integer label planes ({n}, L, h, w)"
            )
        low, high = labels.aminmax()
        if low < 0 or high > concepts:
            raise ValueError(f"segmenter {name} returned labels {low} … {high}; expected 0 … {concepts}, 0 for none")
        return labels

    def check_finite(self, features: dict[str, torch.Tensor]) -> None:
        for layer, r in features.items():
            wrong = ~r.sum((0, 2, 3)).isfinite()
            if wrong.any():
                units = ", ".join(str(int(u)) for u in wrong.nonzero()[:5, 0])
                raise ValueError(
                    f"{layer} of {self.generator.name} has features that are not finite (units {units} …); "
                    "check the weights, or run the network in float32"
                )

    def take(self, batch: Batch, pilot: int) -> None:
        """Count a batch; the first ones are kept until they suffice to set the scales."""
        self.seen += len(batch.seeds)
        if self.tallies:
            self.count(batch)
            return
        self.pilot.append(batch)
        if self.seen >= pilot:
            self.settle()

    def settle(self) -> None:
        """Set the scales from the images seen so far, and count these."""
        if not self.pilot:
            return
        size = self.pilot[0].planes.shape[2:]
        for layer in self.layers:
            first = [r for batch in self.pilot for r in batch.features[layer]][:PILOT]
            self.tallies[layer] = Tally(first, size, self.columns, self.rules, self.quantile, self.top)
        pilot, self.pilot = self.pilot, []
        for batch in pilot:
            self.count(batch)

    def count(self, batch: Batch) -> None:
        parity = torch.tensor(batch.seeds) % 2
        for odd in range(2):
            self.areas[odd].update(batch.planes[parity == odd])
        for layer, tally in self.tallies.items():
            tally.update(batch.features[layer], batch.planes, batch.seeds)

    def result(self, layer: str, rule: str, settings: dict) -> Dissection:
        tally = self.tallies[layer]
        read = tally.by_quantile if rule == "quantile" else tally.by_information
        return Dissection(
            layer=layer,
            concepts=self.segmenter.concepts,
            rule=rule,
            quantile=float(self.quantile),
            n=self.seen,
            shape=(*tally.cells, *tally.size),
            top=tally.top.seeds,
            top_values=tally.top.values,
            levels=tally.levels,
            origin=self.origin,
            generator=self.generator,
            segmenter=self.segmenter,
            **read(rule, self.areas)._asdict(),
            **settings,
        )


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

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """Columns (N, L', h, w), int16, of label planes (N, L, h, w); -1 is none."""
        planes = [labels.to(torch.int16) - 1]
        for column in range(self.concepts, self.count):
            members = [c for c, k in enumerate(self.category) if k == column - self.concepts]
            present = torch.isin(planes[0], torch.tensor(members, device=labels.device)).flatten(1).any(1)
            plane = torch.where(present, column, -1).to(torch.int16)
            planes.append(plane[:, None, None, None].expand_as(planes[0][:, :1]))
        return torch.cat(planes, 1)

    def on(self, marginal: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Pixels (U, C, M) that count for each concept and have the unit on, from (U, M) and (U, K, M)."""
        if self.within_category:
            return counts[:, [self.concepts + k for k in self.category]]
        return np.broadcast_to(marginal[:, None], (len(marginal), self.concepts, marginal.shape[1]))

    def scope(self, *areas: Areas) -> np.ndarray:
        """Pixels (C,) that count for each concept."""
        if self.within_category:
            return to_numpy(sum(a.counts for a in areas))[[self.concepts + k for k in self.category]]
        return np.full(self.concepts, int(sum(a.pixels for a in areas)))

    def area(self, *areas: Areas) -> np.ndarray:
        """Pixels (C,) of each concept."""
        return to_numpy(sum(a.counts for a in areas))[: self.concepts]


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
        return Scale(low, tail_level(sample, quantile / 16), bins=8192)
    return Scale(low, highest, bins=1024)


class Reading(NamedTuple):
    """Thresholds and the counts at these thresholds, as `Dissection` holds them."""

    thresholds_by_concept: np.ndarray
    on: np.ndarray
    overlap: np.ndarray
    area: np.ndarray
    scope: np.ndarray
    valid: np.ndarray


class Tally:
    """The statistics of one layer."""

    def __init__(self, pilot: list[torch.Tensor], size: tuple[int, int], columns: Columns, rules, quantile, top):
        self.size, self.columns, self.quantile = tuple(size), columns, quantile
        self.cells = tuple(pilot[0].shape[1:])
        sample = sample_upsampled(pilot, size)
        self.levels = Levels(Scale.of_sample(sample_upsampled(pilot, self.cells), 1.0, 0.0005))
        self.top = TopImages(len(sample), top)
        self.tail = self.full = None
        if "quantile" in rules:
            self.tail = JointCounts(tail_scale(pilot, sample, quantile), columns.count)
        if set(rules) - {"quantile"}:
            scale = Scale.of_sample(sample, 1.0, 0.0005, bins=1024)
            self.full = [JointCounts(scale, columns.count) for _ in range(2)]  # of even and odd seeds

    def update(self, features: torch.Tensor, planes: torch.Tensor, seeds: list[int]) -> None:
        self.levels.update(features)
        self.top.update(features, seeds)
        if self.tail:
            self.tail.update(features, planes)
        if self.full:
            parity = torch.tensor(seeds) % 2
            for odd, counts in enumerate(self.full):
                counts.update(features[parity == odd], planes[parity == odd])

    def by_quantile(self, rule: str, areas: list[Areas]) -> Reading:
        """Thresholds that a share ``quantile`` of all pixels exceeds, as nearly as an edge of the bins does."""
        wanted = self.quantile * int(areas[0].pixels + areas[1].pixels)
        bins = (from_above(self.tail.marginal) - wanted).abs().argmin(1, keepdim=True)
        marginal, counts = map(to_numpy, self.tail.above(bins))
        on, overlap = self.columns.on(marginal, counts)[..., 0], counts[:, : self.columns.concepts, 0]
        thresholds = np.broadcast_to(to_numpy(self.tail.scale.edge(bins)), on.shape)
        sizes = self.columns.area(*areas), self.columns.scope(*areas)
        return Reading(thresholds, on, overlap, *sizes, np.ones(on.shape, bool))

    def by_information(self, rule: str, areas: list[Areas]) -> Reading:
        """Thresholds of the highest information quality ratio, or IoU, on even seeds; counts on odd seeds."""
        even, odd = self.full
        every = from_above(even.marginal)
        wanted = CANDIDATES * int(areas[0].pixels)
        bins = torch.stack([middle_nearest(every, w) for w in wanted], 1)  # (U, M)
        levels = to_numpy(even.scale.edge(bins))
        on, overlap = self.counts_above(even, bins)
        sizes = (part(areas[0])[:, None] for part in (self.columns.area, self.columns.scope))
        merit, valid = merit_of(rule, on, overlap, *sizes, levels[:, None])
        best = np.where(valid, merit, -1).argmax(2)[..., None]  # (U, C, 1)
        thresholds = np.take_along_axis(levels[:, None], best, 2)
        chosen = (np.take_along_axis(counts, best, 2) for counts in (*self.counts_above(odd, bins), valid))
        on, overlap, valid = (counts[..., 0] for counts in chosen)
        return Reading(
            thresholds[..., 0], on, overlap, self.columns.area(areas[1]), self.columns.scope(areas[1]), valid
        )

    def counts_above(self, joint: JointCounts, bins: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """On and overlap (U, C, M) in the given bins (U, M) or above."""
        marginal, counts = map(to_numpy, joint.above(bins))
        return self.columns.on(marginal, counts), counts[:, : self.columns.concepts]


def middle_nearest(every: torch.Tensor, wanted: float) -> torch.Tensor:
    """Bin (U,) whose count of ``every`` (U, B) is nearest to ``wanted``: the middle one where gaps make many equal."""
    distance = (every - wanted).abs()
    first, last = distance.argmin(1), distance.shape[1] - 1 - distance.flip(1).argmin(1)
    empty = every.gather(1, first[:, None])[:, 0] == 0
    return torch.where(empty, first, (first + last) // 2)


def merit_of(rule: str, on, overlap, area, scope, levels) -> tuple[np.ndarray, np.ndarray]:
    """How good each candidate threshold is, and whether it may be chosen; arrays broadcast to (U, C, M)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if rule == "iou":
            return np.nan_to_num(overlap / (on + area - overlap)), np.full(overlap.shape, True)
        agreement = (scope - on - area + 2 * overlap) / scope
        together = overlap * scope.astype(float) > on * area.astype(float)
        valid = (agreement > 0.8) & (levels > 0) & (area / scope >= 1e-3) & together
    return information_quality(on, overlap, area, scope), valid


def origin_of(generator: Generator, segmenter: Segmenter) -> dict[str, str]:
    """Names and fingerprints, as `Dissection.origin` holds them."""
    both = (("generator", generator), ("segmenter", segmenter))
    return {what: live.name for what, live in both} | {f"{what}_fingerprint": live.fingerprint for what, live in both}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
