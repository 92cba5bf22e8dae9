"""One pass over a sample: the networks see each image once, and the statistics of all layers are counted."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ganlens.memory import GRANULE, out_of_memory
from ganlens.models.base import Generator
from ganlens.segmenters.base import Segmenter, check_labels
from ganlens.statistics import Areas, Scale
from ganlens.tallies import Columns, Tally, mended, scales_of

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

    @property
    def seeds(self) -> range:
        """The sample."""
        return range(self.first, self.first + self.n)

    @property
    def pilot(self) -> range:
        """The images that decide the scales."""
        return self.seeds[:PILOT]


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
    generator, segmenter : Generator, Segmenter
        The networks.
    question : Question
        What is counted.
    batch : int
        Images at once; whole granules.

    Attributes
    ----------
    done : list of range
        Seeds that were counted, in order, without gaps in each.
    tallies : dict of str to Tally
        By layer; empty until the scales are set.
    """

    def __init__(self, generator: Generator, segmenter: Segmenter, question: Question, batch: int = GRANULE):
        self.generator, self.segmenter, self.question = generator, segmenter, question
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
            while len(part):
                try:
                    batch = self.look_within_memory(part)
                except Exception:
                    failed(self)
                    raise
                self.take(batch)
                part = part[len(batch.seeds) :]
                if after(self, len(batch.seeds)):
                    return False
        return True

    # ---- the networks

    def look_within_memory(self, seeds: range) -> Batch:
        """Look at the first of some seeds: as many as fit, fewer from then on where memory did not suffice."""
        while True:
            try:
                return self.look(list(seeds[: self.batch]))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.batch <= GRANULE:
                    raise MemoryError(f"out of memory with {GRANULE} images at once, the fewest: {error}") from error
            tried, self.batch = self.batch, self.batch // 2 // GRANULE * GRANULE
            if self.generator.device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(f"out of memory with {tried} images at once; going on with {self.batch}", stacklevel=2)

    def look(self, seeds: list[int]) -> Batch:
        """Generate and segment the images of seeds."""
        padded = seeds + seeds[-1:] * (-len(seeds) % GRANULE)
        with torch.inference_mode():
            images, features = self.generator.read(self.generator.sample(padded), self.question.layers)
            S = self.segmenter
            labels = check_labels(S.labels(images), len(padded), len(S.concepts), S.name)[: len(seeds)]
            if not images.sum().isfinite():
                lost = ~images[: len(seeds)].flatten(1).sum(1).isfinite()
                labels = torch.where(lost[:, None, None, None].to(labels.device), 0, labels)  # nothing to be seen there
            both = {layer: mended(r[: len(seeds)].float()) for layer, r in features.items()}
        features, broken = ({layer: pair[i] for layer, pair in both.items()} for i in range(2))
        return Batch(seeds, features, broken, self.columns.of(labels))

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
        size = tuple(self.waiting[0].planes.shape[2:])
        for layer in self.question.layers:
            first = [r for batch in self.waiting for r in batch.features[layer]][:PILOT]
            self.tallies[layer] = self.tally(scales_of(first, size, self.question.rules, self.question.quantile), size)
        waiting, self.waiting = self.waiting, []
        for batch in waiting:
            self.count(batch)

    def tally(self, scales: dict[str, Scale], size: tuple[int, int]) -> Tally:
        """An empty tally."""
        return Tally(scales, size, self.columns, self.question.quantile, self.question.top)

    def count(self, batch: Batch) -> None:
        parity = torch.tensor(batch.seeds) % 2
        for odd in range(2):
            self.areas[odd].update(batch.planes[parity == odd])
        for layer, tally in self.tallies.items():
            tally.update(batch.features[layer], batch.broken[layer], batch.planes, batch.seeds)

    # ---- the state

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays: of the statistics by "layer's number.statistic.name", and what waits for the scales."""
        state = {"done": np.array([[part.start, part.stop] for part in self.done], np.int64).reshape(-1, 2)}
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
        device = self.generator.device
        for odd, areas in enumerate(self.areas):
            areas.merge(Areas.from_state(part_of(state, f"areas.{odd}."), device))
        for i, layer in enumerate(self.question.layers):
            if f"{i}.size" not in state:
                break
            kinds = {key.split(".")[1] for key in state if key.startswith(f"{i}.") and key.count(".") == 2}
            if layer not in self.tallies:
                scales = {k: Scale.from_state(part_of(state, f"{i}.{k}."), device) for k in kinds & {"levels", "tail"}}
                scales |= {"full": Scale.from_state(part_of(state, f"{i}.even."), device)} if "even" in kinds else {}
                self.tallies[layer] = self.tally(scales, tuple(state[f"{i}.size"].tolist()))
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


def part_of(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The entries whose names begin so, without that beginning."""
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


def split(parts: Sequence[range], count: int) -> list[range]:
    """Ranges of seeds divided into about ``count`` ranges of about equal length, at whole granules of the first."""
    total = sum(map(len, parts))
    found = []
    for part in parts:
        share = max(1, round(count * len(part) / total))
        bounds = [part.start + len(part) * k // share // GRANULE * GRANULE for k in range(share)] + [part.stop]
        found += [range(a, b) for a, b in pairwise(bounds) if a < b]
    return found
