"""Match every unit of a layer with the concepts of a segmenter, in one pass over a sample of images."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ganlens.models.base import Generator
from ganlens.dissection import Dissection, information_quality
from ganlens.segmenters.base import Segmenter
from ganlens.statistics import Areas, JointCounts, Levels, Scale, TopImages, upsample

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
    check_arguments(generator, names, n, rules, quantile, seed)
    pass_ = Pass(generator, segmenter, names, rules, quantile, within_category, top)
    batch = batch_size or default_batch(generator, names)
    first = seed * SEEDS_PER_SAMPLE
    complete = pass_.run(range(first, first + n), batch, progress)
    settings = {"quantile": quantile, "seed": seed, "complete": complete, "within_category": within_category}
    found = {layer: {r: pass_.result(layer, r, settings) for r in rules} for layer in names}
    if isinstance(rule, str):
        found = {layer: by_rule[rule] for layer, by_rule in found.items()}
    return found[layers] if isinstance(layers, str) else found


def check_arguments(generator, layers, n, rules, quantile, seed) -> None:
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
        self.quantile, self.within_category, self.top = quantile, within_category, top
        self.categories = list(dict.fromkeys(concept.category for concept in segmenter.concepts))
        self.columns = len(segmenter.concepts) + (len(self.categories) if within_category else 0)
        self.areas = [Areas(self.columns, generator.device) for _ in range(2)]  # of even and odd seeds
        self.tallies: dict[str, Tally] = {}
        self.pilot: list[Batch] = []
        self.seen = 0

    def run(self, seeds: range, batch_size: int, progress) -> bool:
        """Look at all images; False if interrupted before the end."""
        size = -(-batch_size // GRANULE) * GRANULE
        with progress_bar(progress, len(seeds)) as done, interrupt_between_steps() as interrupted:
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
        return Batch(seeds, features, self.as_columns(labels))

    def check_labels(self, labels: torch.Tensor, n: int) -> torch.Tensor:
        name, concepts = self.segmenter.name, len(self.segmenter.concepts)
        if labels.ndim != 4 or len(labels) != n or labels.is_floating_point():
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

    def as_columns(self, labels: torch.Tensor) -> torch.Tensor:
        """Label planes as columns of the tables: concepts, then categories where they are counted."""
        planes = [labels.to(torch.int16) - 1]
        for k, category in enumerate(self.categories if self.within_category else ()):
            members = [c for c, concept in enumerate(self.segmenter.concepts) if concept.category == category]
            present = torch.isin(planes[0], torch.tensor(members, device=labels.device)).any(3).any(2).any(1)
            column = torch.where(present, len(self.segmenter.concepts) + k, -1).to(torch.int16)
            planes.append(column[:, None, None, None].expand_as(planes[0][:, :1]))
        return torch.cat(planes, 1)

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
            first = PilotFeatures([batch.features[layer] for batch in self.pilot], PILOT)
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
        return self.tallies[layer].read_out(rule, self, layer, settings)


class PilotFeatures:
    """Features of the first images of a sample, always the same ones, whatever the batch size."""

    def __init__(self, parts: list[torch.Tensor], images: int):
        self.features = torch.cat(parts)[:images]  # (N, U, H, W)

    def cells(self) -> torch.Tensor:
        """All features of each unit (U, P)."""
        return self.features.transpose(0, 1).flatten(1)

    def pixels(self, size: tuple[int, int]) -> torch.Tensor:
        """A regular subset of the upsampled features of each unit (U, P)."""
        step = max(1, round((size[0] * size[1] / 256) ** 0.5))
        parts = [upsample(r, size)[..., step // 2 :: step, step // 2 :: step] for r in self.features.split(8)]
        return torch.cat(parts).transpose(0, 1).flatten(1)


class Tally:
    """The statistics of one layer."""

    def __init__(self, pilot: PilotFeatures, size: tuple[int, int], columns: int, rules, quantile: float, top: int):
        self.size, self.rules, self.quantile = tuple(size), rules, quantile
        self.cells = tuple(pilot.features.shape[2:])
        sample = pilot.pixels(size)
        self.levels = Levels(Scale.of_sample(pilot.cells(), 1.0, 0.0005))
        self.top = TopImages(len(sample), top)
        self.tail = self.full = None
        if "quantile" in rules:
            self.tail = JointCounts(Scale.of_sample(sample, min(8 * quantile, 1.0), quantile / 16), columns)
        if set(rules) - {"quantile"}:
            scale = Scale.of_sample(sample, 1.0, 0.0005, bins=1024)
            self.full = [JointCounts(scale, columns) for _ in range(2)]  # of even and odd seeds

    def update(self, features: torch.Tensor, planes: torch.Tensor, seeds: list[int]) -> None:
        self.levels.update(features)
        self.top.update(features, seeds)
        if self.tail:
            self.tail.update(features, planes)
        if self.full:
            parity = torch.tensor(seeds) % 2
            for odd, counts in enumerate(self.full):
                counts.update(features[parity == odd], planes[parity == odd])

    def read_out(self, rule: str, pass_: Pass, layer: str, settings: dict) -> Dissection:
        read = self.by_quantile if rule == "quantile" else self.by_information
        concepts = pass_.segmenter.concepts
        category = [pass_.categories.index(concept.category) for concept in concepts]
        thresholds, on, overlap, areas, pixels, chosen = read(rule, pass_.areas, len(concepts))
        if pass_.within_category:
            on, overlap = overlap[:, len(concepts) :][:, category], overlap[:, : len(concepts)]
        settings = {k: v for k, v in settings.items() if k != "quantile"} | {"rule": rule, "n": pass_.seen}
        return Dissection(
            layer=layer,
            concepts=concepts,
            thresholds_by_concept=thresholds,
            on=on,
            overlap=overlap[:, : len(concepts)],
            area=areas[: len(concepts)],
            pixels=pixels,
            valid=chosen,
            top=self.top.seeds,
            top_values=self.top.values,
            levels=self.levels,
            shape=(*self.cells, *self.size),
            quantile=self.quantile,
            generator=pass_.generator,
            segmenter=pass_.segmenter,
            **settings,
        )

    def by_quantile(self, rule: str, areas: list[Areas], concepts: int):
        """Thresholds that a share ``quantile`` of all pixels exceeds, as nearly as one of 4,096 edges does."""
        pixels = int(areas[0].pixels + areas[1].pixels)
        every = from_top(self.tail.marginal)
        bins = (every - self.quantile * pixels).abs().argmin(1, keepdim=True)
        on, overlap = self.tail.above(bins)
        thresholds = self.tail.scale.edge(bins).expand(-1, concepts)
        area = areas[0].counts + areas[1].counts
        on = on.expand(-1, concepts)
        return (
            *map(to_numpy, (thresholds, on, overlap[..., 0], area)),
            pixels,
            np.ones(overlap.shape[:1] + (concepts,), bool),
        )

    def by_information(self, rule: str, areas: list[Areas], concepts: int):
        """Thresholds of the highest information quality ratio, or IoU, on even seeds; counts on odd seeds."""
        choose, score = self.full
        pixels = int(areas[0].pixels)
        every = from_top(choose.marginal)  # (U, B)
        wanted = torch.from_numpy(CANDIDATES * pixels).to(every.device)
        bins = torch.stack([(every - w).abs().argmin(1) for w in wanted], 1)  # (U, M)
        on, overlap = choose.above(bins)
        on, overlap, area = to_numpy(on)[:, None], to_numpy(overlap)[:, :concepts], to_numpy(areas[0].counts)[:concepts]
        levels = to_numpy(choose.scale.edge(bins))
        merit, valid = merit_of(rule, on, overlap, area[:, None], pixels, levels[:, None])
        best = np.where(valid, merit, -1).argmax(2)  # (U, C)
        rows = np.arange(len(bins))[:, None]
        score_on, score_overlap = (to_numpy(counts) for counts in score.above(bins))
        columns = np.arange(score_overlap.shape[1])
        best_of_column = np.concatenate([best, np.zeros((len(best), len(columns) - concepts), int)], 1)
        overlap = score_overlap[rows, columns, best_of_column]
        chosen = valid[rows, columns[:concepts], best]
        return (
            levels[rows, best],
            score_on[rows, best],
            overlap,
            to_numpy(areas[1].counts),
            int(areas[1].pixels),
            chosen,
        )


def merit_of(rule: str, on, overlap, area, pixels: int, levels) -> tuple[np.ndarray, np.ndarray]:
    """How good each candidate threshold is, and whether it may be chosen; arrays broadcast to (U, C, M)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if rule == "iou":
            return np.nan_to_num(overlap / (on + area - overlap)), np.broadcast_to(True, overlap.shape)
        agreement = (overlap + (pixels - on - area + overlap)) / pixels
        together = overlap * float(pixels) > on * area.astype(float)
        valid = (agreement > 0.8) & (levels > 0) & (area / pixels >= 1e-3) & together
    return information_quality(on, overlap, area, pixels), valid


def from_top(counts: torch.Tensor) -> torch.Tensor:
    return counts.flip(-1).cumsum(-1, dtype=torch.int64).flip(-1)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


@contextmanager
def progress_bar(progress: bool | Callable[[int, int], None], total: int) -> Iterator[Callable[[int], None]]:
    """A function to be told of each step's images: a bar, the caller's function, or nothing."""
    if progress is True:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc="dissect", unit="img") as bar:
            yield bar.update
    elif callable(progress):
        done = 0

        def tell(images: int) -> None:
            nonlocal done
            done += images
            progress(done, total)

        yield tell
    else:
        yield lambda images: None


@contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until the step is done; a second one interrupts at once. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = []
    usual = signal.getsignal(signal.SIGINT)

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, usual)
