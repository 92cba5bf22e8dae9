"""How the layers of a file are run: found one after the other, as the batch statistics behind each of them say.

A norm's statistics are those of all that training has sent through it: a stride, a padding, an activation in front
of it shows in them. The ways that come closest are followed from layer to layer, the others are left.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple, cast

import torch
from torch.nn import functional as F

from ganlens.models.families.dcgan_layers import (
    MOST_PIXELS,
    USUAL_SIZES,
    Conv,
    Part,
    Start,
    Step,
    as_in_training,
    every_step,
    usual_steps,
)
from ganlens.models.families.plain_fronts import Front
from ganlens.models.latents import drawn

SLOPES = (0.0, 0.2, 0.1, 0.3)  # of hidden activations
ODDNESS = {0.1: 4.0, 0.3: 4.0}  # of some of them
EPSILONS = (1e-5, 0.8)  # of batch norms; the second one is a slip that many have copied, but not for the first norm
MODES = ("nearest", "bilinear")  # of doubling
SCREENED, FEW = 32, 16  # units and images that are looked at before all are
FOLLOWED = 16  # ways that are followed, and how many without statistics
KEPT = 60
MORE = 4  # times the images, where ways are hard to tell apart
NEAR = 4.0  # times the least errors: ways that are worse are left
UNUSUAL = 6.0  # cost of steps that nobody is known to use
TRAINED = 1000  # images whose statistics a norm holds: with the usual momentum those of the last few batches
INFORMED = 8.0  # times less it costs where statistics speak for it
SAMPLE = 128  # images that are looked at, or as many as the following allow
SAMPLE_CELLS = 2**24  # so that they take no more memory than there is
LIKELY_PIXELS = 128  # of images, where memory is estimated
SAMPLE_WORK = 4e9  # multiplications in one pass, so that it takes no more than a moment


@dataclass(frozen=True)
class Way:
    """How the layers of a file are run. None is what nothing has told: no statistics depend on it."""

    law: str | None = None
    convs: tuple[Conv, ...] = ()
    steps: tuple[Step, ...] = ()
    early: bool | None = None  # activations in front of the norms
    bare: bool | None = None  # no activation behind the first layer
    slope: float | None = None  # of activations
    epsilon: float | None = None  # of all norms but the first
    mode: str | None = None  # of doubling

    @property
    def oddness(self) -> float:
        """How unusual activations and norms are."""
        return ODDNESS.get(self.slope or 0.0, 0.0) + 0.5 * bool(self.early)

    @property
    def grows(self) -> bool:
        """Whether a transposed convolution enlarges the maps."""
        return any(conv.transposed and step[0] > 1 for conv, step in zip(self.convs, self.steps, strict=True))


class Stage(NamedTuple):
    """A layer of the file, the norm behind it, if there is one, and how many norms stand in front of it."""

    layer: Part
    norm: Part | None
    norms_before: int

    @property
    def informed(self) -> bool:
        """Whether batch statistics tell what stands in front of them."""
        return self.norm is not None and self.norm.trained


class Misfit(NamedTuple):
    """How far off the statistics of a norm's units are, squared; and how far they would be by chance."""

    units: int
    square: float
    by_chance: float


class Path(NamedTuple):
    """A way so far, the side of the maps it gives, their values (N, U, H, W), and what the norms say of it."""

    way: Way
    size: int
    values: torch.Tensor | None = None
    misfits: tuple[Misfit, ...] = ()
    cost: float = 0.0  # how unusual it is

    @property
    def error(self) -> float:
        """How far off the statistics are, in deviations: a root mean square over the norms."""
        return math.sqrt(sum(m.square for m in self.misfits) / max(len(self.misfits), 1))

    @property
    def times(self) -> float:
        """How many times as far off they are as the right way would be by chance, squared; the mean over the norms."""
        return sum(m.square / m.by_chance for m in self.misfits) / max(len(self.misfits), 1)

    def against(self, scale: float) -> float:
        """What speaks against it, as a logarithm: chance, ``scale`` times as large as it should be, and custom."""
        return self.cost + sum(m.units * m.square / m.by_chance for m in self.misfits) / scale

    def behind(self, values: torch.Tensor, stage: Stage) -> "Path":
        """The same behind a stage that gives these values."""
        misfits = (*self.misfits, misfit(*moments(values), cast(Part, stage.norm))) if stage.informed else self.misfits
        return self._replace(values=values, misfits=misfits)


Tried = tuple[Path, torch.Tensor | None]  # and what enters its last layer


class Search:
    """What a file says of each layer, and the ways to run them; ``fresh`` takes norms as they were in training."""

    def __init__(self, parts: list[Part], start: Start, front: Front | None = None, fresh: bool = False):
        self.slopes: tuple[float, ...] = SLOPES
        self.parts, self.start, self.front = parts, start, front or Front(start.z_dim)
        self.stages: list[Stage] = []
        parts = [as_in_training(part) for part in parts] if fresh else parts
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            if part.kind != "norm":
                norm = after if after and after.kind == "norm" else None
                self.stages.append(Stage(part, norm, sum(stage.norm is not None for stage in self.stages)))
        self.flat = all(stage.layer.kind == "dense" for stage in self.stages)
        self.latents = cache(lambda law, part: self.front.mixed(drawn(self.seeds(part), self.front.z_dim, law)))

    @torch.no_grad()
    def paths(self) -> list[Path]:
        """The ways to an image that come closest; without statistics, the most usual ones of each size."""
        paths = [Path(Way(law), self.start.size) for law in (("normal", "uniform") if self.informed(0) else (None,))]
        for i, stage in enumerate(self.stages):
            tried = [step for path in paths for step in self.ahead(path, i)]
            if self.informed(i):
                kept = likeliest(tried, stage) if stage.informed else plainest(tried)
                paths = [path.behind(run(path.way, cast(torch.Tensor, r), stage), stage) for path, r in kept]
            else:
                paths = [path for path, _ in plainest(tried)]
        return self.sharpened(paths) if paths and self.informed(0) else paths

    def informed(self, number: int) -> bool:
        """Whether statistics depend on a layer, or on one behind it."""
        return any(stage.informed for stage in self.stages[number:])

    @torch.no_grad()
    def sharpened(self, paths: list[Path]) -> list[Path]:
        """The same paths, those that come close measured with more images, where the norms do not tell them apart."""
        least = min(path.times for path in paths)
        near = [p for p in paths if p.times == least or (p.times <= NEAR * least and p.size in USUAL_SIZES)]
        told = {self.told(path.way): path for path in near}
        if len(told) < 2:
            return near
        misfits = {key: self.misfits(path.way) for key, path in told.items()}
        return [path._replace(misfits=misfits[self.told(path.way)]) for path in near]

    def told(self, way: Way) -> Way:
        """The part of a way that stands in front of the last statistics."""
        last = max(i for i, stage in enumerate(self.stages) if stage.informed)
        count = sum(stage.layer.kind == "conv" for stage in self.stages[: last + 1])
        return replace(way, convs=way.convs[:count], steps=way.steps[:count])

    def misfits(self, way: Way) -> tuple[Misfit, ...]:
        """What the norms say of a way, by more images."""
        found: dict[int, list] = {i: [] for i, stage in enumerate(self.stages) if stage.informed}
        for part in range(MORE):
            path = Path(way, self.start.size)
            for i, stage in enumerate(self.stages[: max(found) + 1]):
                path = path._replace(values=run(way, self.entering(path, way, i, part), stage))
                if i in found:
                    found[i].append(moments(cast(torch.Tensor, path.values)))
        pooled = []
        for i, parts in found.items():
            means, squares = (torch.cat(some) for some in zip(*parts, strict=True))
            pooled.append(misfit(means, squares, cast(Part, self.stages[i].norm)))
        return tuple(pooled)

    def seeds(self, part: int) -> range:
        """The images of one part of the sample."""
        return range(self.count * part, self.count * (part + 1))

    def is_usual(self, way: Way) -> bool:
        """Whether the layers are run as layers are as a rule."""
        side, odd = self.start.size, False
        for conv, step in zip(way.convs, way.steps, strict=True):
            odd |= step not in usual_steps(conv, side, way.grows)
            side = conv.reached(side, step)
        return not odd

    def guessed(self, way: Way) -> list[Conv]:
        """The convolutions, but for the last one, that may refine as well as enlarge, and no norm tells."""
        by_name = {stage.layer.name: stage for stage in self.stages}
        return [c for c in way.convs[:-1] if c.shape[2] % 2 and c.shape[2] > 1 and not by_name[c.name].informed]

    # ---- what can follow

    def ahead(self, path: Path, number: int) -> Iterator[Tried]:
        """All ways to run a layer behind a path, with what enters it."""
        for style in self.styles(path.way, number):
            r = self.entering(path, style, number) if self.informed(number) else None
            for way, size, cost in self.runs(style, path.size, number):
                for one in self.orders(way, number):
                    yield Path(one, size, None, path.misfits, path.cost + cost), r

    def styles(self, way: Way, number: int) -> Iterator[Way]:
        """What can stand between the layer before and this one."""
        if not number or not self.informed(number):
            yield way
            return
        before = self.stages[number - 1]
        epsilons: tuple[float | None, ...] = (way.epsilon,)
        if before.norm is not None and way.epsilon is None:
            epsilons = EPSILONS if before.norms_before or self.flat else (None,)
        for epsilon in epsilons:
            styled = replace(way, epsilon=epsilon)
            if before.norm is not None and way.early:
                yield styled
                continue
            if number == 1:
                yield replace(styled, bare=True)
                styled = replace(styled, bare=False)
            yield from (replace(styled, slope=s) for s in (self.slopes if way.slope is None else (way.slope,)))

    def entering(self, path: Path, way: Way, number: int, part: int = 0) -> torch.Tensor:
        """What enters a layer (N, U, H, W), or (N, Z) a linear map."""
        if number == 0:
            r = self.latents(way.law, part)
            return r if self.stages[0].layer.kind == "dense" else r[..., None, None]
        before, r = self.stages[number - 1], cast(torch.Tensor, path.values)
        if before.norm is not None:
            r = normed(r, before.norm, way.epsilon if before.norms_before or self.flat else None)
        if not (before.norm is not None and way.early) and not (number == 1 and way.bare):
            r = activated(r, way.slope)
        if r.ndim == 4 or self.stages[number].layer.kind == "dense":
            return r
        return r.unflatten(1, (self.start.units, self.start.size, self.start.size))

    def runs(self, way: Way, size: int, number: int) -> Iterator[tuple[Way, int, float]]:
        """The strides and paddings of a layer, the side of the maps that it then gives, and how unusual that is."""
        stage = self.stages[number]
        if stage.layer.kind == "dense":
            yield way, size, 0.0
            return
        units = way.convs[-1].outputs if way.convs else self.start.units
        for conv, odd in self.readings(stage.layer, units, size):
            costs = usual_steps(conv, size, way.grows)
            for step in every_step(conv, size) if stage.informed else costs:
                reached = conv.reached(size, step)
                if 0 < reached <= MOST_PIXELS:
                    further = replace(way, convs=(*way.convs, conv), steps=(*way.steps, step))
                    doubled = not conv.transposed and step[0] > 1 and way.mode is None and self.informed(number)
                    cost = odd + costs.get(step, UNUSUAL) / (INFORMED if stage.informed else 1)
                    for mode in MODES if doubled else (way.mode,):
                        yield replace(further, mode=mode), reached, cost

    def readings(self, layer: Part, units: int, size: int) -> Iterator[tuple[Conv, float]]:
        """A convolution, transposed or not as its channels allow, and how unusual that is."""
        kernel = layer.shape[2]
        length = len(layer.tensors["bias"]) if "bias" in layer.tensors else None
        transposed = layer.shape[0] == units
        plain = layer.shape[1] == units and kernel % 2 == 1 and (size > 1 or kernel == 1 != self.start.size)
        both = transposed and plain
        if transposed and length in (None, layer.shape[1]):
            yield Conv(layer.name, layer.shape, True), float(both and self.even)
        if plain and length in (None, layer.shape[0]):
            yield Conv(layer.name, layer.shape, False), float(both and not self.even)

    @cached_property
    def even(self) -> bool:
        """Whether kernels of even sides enlarge the maps, so that odd ones are there to refine."""
        return any(stage.layer.kind == "conv" and stage.layer.shape[2] % 2 == 0 for stage in self.stages[1:])

    def orders(self, way: Way, number: int) -> Iterator[Way]:
        """Whether a layer's activation stands behind its norm or in front of it."""
        if self.stages[number].norm is None or not self.informed(number) or way.early is False:
            yield way
            return
        if way.early is None:
            yield replace(way, early=False)
        yield from (replace(way, early=True, slope=s) for s in (self.slopes if way.slope is None else (way.slope,)))

    @cached_property
    def count(self) -> int:
        """Images that are looked at."""
        side, cells, work = self.start.size, 1, 1
        for stage in self.stages:
            if stage.layer.kind == "conv":
                work += math.prod(stage.layer.shape) * side**2
                side = min(2 * side, LIKELY_PIXELS) if side > 1 else stage.layer.shape[2]
                cells = max(cells, max(stage.layer.shape[:2]) * side**2)
        return int(min(SAMPLE, max(8, min(SAMPLE_CELLS // cells, SAMPLE_WORK // work))))


# ---- how


def run(way: Way, r: torch.Tensor, stage: Stage, units: int | None = None) -> torch.Tensor:
    """What a layer gives, or its first units; behind the activation, where that stands in front of the norm."""
    weight, bias = stage.layer.tensors["weight"], stage.layer.tensors.get("bias")
    if stage.layer.kind == "dense":
        r = F.linear(r, weight, bias)
        if stage.norm is not None and stage.norm.size < r.shape[1]:
            r = r.unflatten(1, (stage.norm.size, -1))
    else:
        conv, (stride, padding, more) = next(
            run for run in zip(way.convs, way.steps, strict=True) if run[0].name == stage.layer.name
        )
        bias = bias if bias is None else bias[:units]
        if conv.transposed:
            r = F.conv_transpose2d(r, weight[:, :units], bias, stride, padding, more)
        else:
            if stride > 1:
                smooth = {} if way.mode == "nearest" else {"align_corners": False}
                r = F.interpolate(r, scale_factor=stride, mode=cast(str, way.mode), **smooth)
            r = F.conv2d(r, weight[:units], bias, padding=padding)
    return activated(r, way.slope) if stage.norm is not None and way.early else r


def activated(r: torch.Tensor, slope: float | None) -> torch.Tensor:
    return F.leaky_relu(r, slope) if slope else r.relu()


def normed(r: torch.Tensor, norm: Part, epsilon: float | None) -> torch.Tensor:
    tensors = norm.tensors
    scale = tensors.get("weight"), tensors.get("bias")
    if r.ndim == 3:
        r = r.unflatten(2, (math.isqrt(r.shape[2]), -1))
    return F.batch_norm(r, tensors["running_mean"], tensors["running_var"], *scale, eps=epsilon or EPSILONS[0])


def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and mean square of each unit in each image (N, U), (N, U), of values (N, U, …)."""
    values = values.flatten(2) if values.ndim > 2 else values[..., None]
    return values.mean(2), values.square().mean(2)


def misfit(means: torch.Tensor, squares: torch.Tensor, norm: Part) -> Misfit:
    """How far the moments of images are from a norm's statistics: the mean over units of two squares.

    They are those of the distance of the means in running deviations, and of the logarithm of the ratio of the
    deviations. The variance hardly tells a ReLU from a leaky one, the mean does. What chance does follows from how
    images differ, in the sample and in the training.
    """
    mean, variance = (norm.tensors[f"running_{what}"][: means.shape[1]] for what in ("mean", "var"))
    variance, found = variance.clamp(min=1e-12), means.mean(0)
    spread = (squares - 2 * found * means + found**2).clamp(min=0)  # (N, U), around the mean
    shift = (found - mean) / variance.sqrt()
    ratio = (spread.mean(0).clamp(min=1e-12) / variance).log() / 2
    of_shift, of_ratio = means.var(0) / variance, spread.var(0) / (2 * variance).square()
    chance = (of_shift + of_ratio).clamp(max=25).mean().item() * (1 / len(means) + 1 / TRAINED)
    return Misfit(len(variance), (shift**2 + ratio**2).clamp(max=25).mean().item(), max(chance, 1e-9))


def likeliest(tried: list[Tried], stage: Stage) -> list[Tried]:
    """The ways that come closest, by the first units of a layer with a norm: first in a few images, then in all."""
    for images in (FEW, None):
        paths = [
            path.behind(run(path.way, cast(torch.Tensor, r)[:images], stage, SCREENED), stage) for path, r in tried
        ]
        order = sorted(range(len(tried)), key=lambda i: paths[i].times)[:FOLLOWED]
        tried = [tried[i] for i in order if paths[i].times <= NEAR * paths[order[0]].times]
    return tried


def plainest(tried: list[Tried]) -> list[Tried]:
    """Of each size, style and error the two ways that are the most usual."""
    kept: dict[tuple, list[Tried]] = {}
    for path, r in sorted(tried, key=lambda step: (step[0].cost, step[0].way.steps)):
        style = replace(path.way, convs=(), steps=())
        kept.setdefault((path.size, style, path.misfits), []).append((path, r))
    few = [step for steps in kept.values() for step in steps[:2]]
    return sorted(few, key=lambda step: (step[0].times, step[0].cost, step[0].way.steps))[:KEPT]
