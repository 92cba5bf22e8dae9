"""One pass over a sample: the networks see each image once, and the statistics of all layers are counted."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ganlens.arguments import MOST_IMAGES
from ganlens.dissection.blocks import MOST, BlockCounts
from ganlens.dissection.certificates import certify
from ganlens.dissection.layer_statistics import Columns, Tally, by_parity, mended, scales_of
from ganlens.dissection.result import Dissection
from ganlens.measuring import in_batches
from ganlens.models.bit_exact import GRANULE
from ganlens.models.network import ImageNetwork
from ganlens.segmenters.base import Segmenter, checked_labels
from ganlens.shards import Arrays, Packed, Shard, gather, split
from ganlens.statistics import Areas, Scale

PILOT = 64  # images that decide the scales of activation


@dataclass(frozen=True)
class Question:
    """What is asked about two networks: all that decides the answer, and nothing else."""

    layers: tuple[str, ...]
    rules: tuple[str, ...]
    first: int  # seed of the first image
    n: int
    quantile: float
    within_category: bool
    top: int
    half: bool = False  # precision that was asked for, see `Pass.half`
    auto: bool = False  # whether it may end before, see `stages`

    @property
    def seeds(self) -> range:
        """The sample."""
        return range(self.first, self.first + self.n)

    @property
    def pilot(self) -> range:
        """The images that decide the scales."""
        return self.seeds[:PILOT]

    @property
    def stages(self) -> list[range]:
        """Ever larger parts of the sample, after each of which it may end, or be looked at."""
        sizes = [384, 512, 768, 1024, 1536, 2048, 3072]
        return [self.seeds[:size] for size in sizes if size < self.n] + [self.seeds]


@dataclass
class Batch:
    """What one pass of the networks yields: features by layer, and label columns."""

    seeds: list[int]
    features: dict[str, torch.Tensor]
    broken: dict[str, torch.Tensor]  # (N, U) whether a unit was not finite
    planes: torch.Tensor  # (N, L, h, w) int16, -1 for no column


class Pass:
    """One pass over a sample, or over a part of it.

    Parameters
    ----------
    generator, segmenter : Generator (or Classifier), Segmenter
        The networks.
    question : Question
        What is counted.
    batch : int
        Images at once; whole granules.
    half : bool
        Whether the networks compute in half precision: float16 on a GPU, else bfloat16.

    Attributes
    ----------
    done : list of range
        Seeds that were counted, in order, without gaps in each.
    tallies : dict of str to Tally
        By layer; empty until the scales are set.
    """

    def __init__(
        self,
        generator: ImageNetwork,
        segmenter: Segmenter,
        question: Question,
        batch: int = GRANULE,
        half: bool = False,
    ):
        self.generator, self.segmenter, self.question, self.half = generator, segmenter, question, half
        self.batch = -(-batch // GRANULE) * GRANULE
        self.columns = Columns(segmenter.concepts, question.within_category)
        self.areas = [Areas(self.columns.count, generator.device) for _ in range(2)]  # of even and odd seeds
        self.tallies: dict[str, Tally] = {}
        self.waiting: list[Batch] = []  # of the pilot
        self.done: list[range] = []

    @property
    def seen(self) -> int:
        """Number of images that were looked at."""
        return sum(map(len, self.done))

    def missing(self, within: range | None = None) -> list[range]:
        """What was not looked at of the sample, or of a part of it."""
        within = self.question.seeds if within is None else within
        found, start = [], within.start
        for part in [*self.done, range(within.stop, within.stop)]:
            found.append(range(start, min(part.start, within.stop)))
            start = max(start, part.stop)
        return [part for part in found if len(part)]

    def run(self, seeds: range, after: Callable[["Pass", int], bool], failed: Callable[["Pass"], None]) -> bool:
        """Look at the missing images among ``seeds``; False where ``after``, told of each step's images, says stop."""
        for part in self.missing(seeds):
            batches = in_batches(self.look, part, self.batch)
            while True:
                try:
                    batch, self.batch = next(batches)
                except StopIteration:
                    break
                except Exception:
                    failed(self)
                    raise
                self.take(batch)
                if after(self, len(batch.seeds)):
                    return False
        return True

    # ---- the networks

    def look(self, seeds: Sequence[int]) -> Batch:
        """Generate and segment the images of seeds."""
        seeds = list(seeds)
        padded = seeds + seeds[-1:] * (-len(seeds) % GRANULE)
        with torch.no_grad(), self.precision():
            images, features = self.generator.read(self.generator.latents(padded), self.question.layers)
            images = images.float()
            labels = checked_labels(self.segmenter, images, ignored=True)[: len(seeds)]
            self.check_planes(tuple(labels.shape[1:]))
            if images.device.type != "cpu" or not images.sum().isfinite():
                lost = ~images[: len(seeds)].flatten(1).sum(1).isfinite()
                labels = torch.where(lost[:, None, None, None].to(labels.device), 0, labels)  # nothing to be seen there
            both = {layer: mended(r[: len(seeds)].float()) for layer, r in features.items()}
        features, broken = ({layer: pair[i] for layer, pair in both.items()} for i in range(2))
        return Batch(seeds, features, broken, self.columns.of(labels))

    def check_planes(self, shape: tuple[int, ...]) -> None:
        """ValueError if the label planes (L, h, w) are of another shape than those before: pixels would not add up."""
        known = [tally.size for tally in self.tallies.values()] + [batch.planes.shape[2:] for batch in self.waiting]
        if known and tuple(known[0]) != shape[1:]:
            raise ValueError(
                f"segmenter {self.segmenter.name} returned label planes of {shape[1]} x {shape[2]} pixels, before that "
                f"of {known[0][0]} x {known[0][1]}; expected one size for all images"
            )

    def precision(self):
        """What the networks compute in, as a context."""
        device = self.generator.device.type
        return torch.autocast(device, half_type(device)) if self.half else nullcontext()

    # ---- the counts

    def take(self, batch: Batch) -> None:
        """Count a batch; the first ones are kept until they suffice to set the scales."""
        self.mark(batch.seeds[0], batch.seeds[-1] + 1)
        if self.tallies:
            self.count(batch)
            return
        self.waiting.append(batch)
        if self.seen >= len(self.question.pilot):
            self.settle()

    def mark(self, start: int, stop: int) -> None:
        """Note that seeds were looked at."""
        joined: list[range] = []
        for part in sorted([*self.done, range(start, stop)], key=lambda part: part.start):
            if joined and joined[-1].stop == part.start:
                part = range(joined.pop().start, part.stop)
            joined.append(part)
        self.done = joined

    def settle(self) -> None:
        """Set the scales from the images seen so far, and count these."""
        if not self.waiting:
            return
        height, width = self.waiting[0].planes.shape[2:]
        size = height, width
        for layer in self.question.layers:
            first = [r for batch in self.waiting for r in batch.features[layer]][:PILOT]
            scales = scales_of(first, size, self.question.rules, self.question.quantile)
            self.tallies[layer] = self.tally(layer, scales, size)
        waiting, self.waiting = self.waiting, []
        for batch in waiting:
            self.count(batch)

    def tally(self, layer: str, scales: dict[str, Scale], size: tuple[int, int]) -> Tally:
        """An empty tally of a layer."""
        _, *grid = self.generator.check_layer(layer)
        asked, blocks = self.question, 4 * MOST if self.question.auto else MOST  # a part may be all that is seen
        return Tally(scales, (grid[0], grid[1]), size, self.columns, asked.quantile, asked.top, asked.seeds, blocks)

    def count(self, batch: Batch) -> None:
        for areas, rows in zip(self.areas, by_parity(batch.seeds, batch.planes.device), strict=True):
            areas.update(batch.planes[rows])
        for layer, tally in self.tallies.items():
            tally.update(batch.features[layer], batch.broken[layer], batch.planes, batch.seeds)

    # ---- the state

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays: of the statistics by "layer's number.statistic.name", and what waits for the scales."""
        state = {"done": np.array([[part.start, part.stop] for part in self.done], np.int64).reshape(-1, 2)}
        state["half"] = np.array(self.half)
        state |= {f"areas.{odd}.{name}": a for odd in range(2) for name, a in self.areas[odd].state().items()}
        for i, tally in enumerate(self.tallies.values()):
            state[f"{i}.size"] = np.array(tally.size)
            for kind, statistic in tally.statistics.items():
                state |= {f"{i}.{kind}.{name}": array for name, array in statistic.state().items()}
        if self.waiting:
            for what in ("features", "broken"):
                parts = [[getattr(batch, what)[layer] for batch in self.waiting] for layer in self.question.layers]
                state |= {f"waiting.{i}.{what}": torch.cat(part).cpu().numpy() for i, part in enumerate(parts)}
            state["waiting.planes"] = torch.cat([batch.planes for batch in self.waiting]).cpu().numpy()
        return state

    def add(self, state: dict[str, np.ndarray]) -> None:
        """Take in the `state` of a pass over other images; scales must be the same, or not set here."""
        device, self.half = self.generator.device, bool(state["half"])
        for tally in self.tallies.values():
            tally.close()
        for odd, areas in enumerate(self.areas):
            areas.merge(Areas.from_state(part_of(state, f"areas.{odd}."), device))
        for i, layer in enumerate(self.question.layers):
            if f"{i}.size" not in state:
                break
            kinds = {key.split(".")[1] for key in state if key.startswith(f"{i}.") and key.count(".") == 2}
            if layer not in self.tallies:
                scales = {k: Scale.from_state(part_of(state, f"{i}.{k}."), device) for k in kinds & {"levels", "tail"}}
                scales |= {"full": Scale.from_state(part_of(state, f"{i}.even."), device)} if "even" in kinds else {}
                self.tallies[layer] = self.tally(layer, scales, tuple(state[f"{i}.size"].tolist()))
            for kind, statistic in self.tallies[layer].statistics.items():
                statistic.merge(type(statistic).from_state(part_of(state, f"{i}.{kind}."), device))
        if "waiting.planes" in state:
            seeds = [seed for start, stop in state["done"].tolist() for seed in range(start, stop)]
            features, broken = (
                {
                    layer: torch.from_numpy(state[f"waiting.{i}.{what}"]).to(device)
                    for i, layer in enumerate(self.question.layers)
                }
                for what in ("features", "broken")
            )
            self.waiting.append(Batch(seeds, features, broken, torch.from_numpy(state["waiting.planes"]).to(device)))
        for start, stop in state["done"].tolist():
            self.mark(start, stop)


def half_type(device: str) -> torch.dtype:
    """The half precision of a kind of device."""
    return torch.float16 if device == "cuda" else torch.bfloat16


def part_of(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The entries whose names begin so, without that beginning."""
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


def dissection_of(pass_: Pass, layer: str, rule: str, origin: dict, complete: bool = True) -> Dissection:
    """What a pass found in a layer under a rule."""
    tally = pass_.tallies[layer]
    reading = tally.read(rule, pass_.areas)
    blocks = cast(BlockCounts, tally.tail_blocks if rule == "quantile" else tally.odd_blocks)
    quantile = pass_.question.quantile if rule == "quantile" else None
    first = tally.tail is not None
    thresholds = slice(0, 1) if rule == "quantile" else slice(int(first), None)
    return Dissection(
        layer=layer,
        concepts=pass_.segmenter.concepts,
        rule=rule,
        quantile=pass_.question.quantile,
        n=pass_.seen,
        within_category=pass_.question.within_category,
        shape=(*pass_.generator.layers[layer][1:], *tally.size),
        top=tally.top.seeds,
        top_values=tally.top.values,
        levels=deepcopy(tally.levels),  # which go on counting
        broken=tally.broken.units,
        sample=pass_.question.first // MOST_IMAGES,
        complete=complete,
        origin=origin,
        generator=pass_.generator,
        segmenter=pass_.segmenter,
        certificates=certify(blocks, tally.cells, thresholds, tally.columns, reading, quantile, tally.broken.units),
        **reading._asdict(),
    )


# ---- shared out


def count_part(generator, segmenter, question, scales, batch: int, half: bool, seeds: range, go_on) -> Arrays:
    """Count a part of the sample with given scales, (bins by statistic, grid) of each layer: the state of its pass."""
    pass_ = Pass(generator, segmenter, question, batch, half)
    for layer, (by_kind, size) in zip(question.layers, scales, strict=True):
        here = {kind: Scale.from_state(state, generator.device) for kind, state in by_kind.items()}
        pass_.tallies[layer] = pass_.tally(layer, here, size)
    pass_.run(seeds, lambda _, images: not go_on(images), lambda _: None)
    return pass_.state()


def run_on(
    executor: Executor,
    pass_: Pass,
    shards: int | None,
    after: Callable[[Pass, int], bool],
    failed: Callable[[Pass], None],
    interrupted: Callable[[], bool],
) -> None:
    """Look at all images that are missing: the pilot here, the others in shards of at least 64 images.

    Parameters
    ----------
    executor, shards
        Who works, and into how many parts the work is divided; see `split`.
    pass_ : Pass
        Takes in the shards as they come.
    after : callable
        Told of each step's images; says whether to stop.
    failed : callable
        Told before an error is raised.
    interrupted : callable
        Whether to stop.

    Raises
    ------
    RuntimeError, ValueError
        As for `ganlens.shards.gather`.
    """
    if not pass_.tallies and not pass_.run(pass_.question.pilot, after, failed):
        return
    scales = [({k: s.state() for k, s in t.scales.items()}, t.size) for t in pass_.tallies.values()]
    things = Packed(pass_.generator, pass_.segmenter, pass_.question, scales, pass_.batch, pass_.half)
    parts = split(pass_.missing(), shards, PILOT, GRANULE) if pass_.missing() else []

    def take(seeds: Sequence[int], state: Arrays) -> bool:
        pass_.add(state)
        return after(pass_, len(seeds))

    try:
        gather(executor, [Shard(count_part, things, seeds) for seeds in parts], take, interrupted)
    except (RuntimeError, ValueError):
        failed(pass_)
        raise
