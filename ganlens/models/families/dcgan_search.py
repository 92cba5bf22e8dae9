"""How the layers of a file are run: found one after the other, as the batch statistics behind each of them say.

A norm's statistics are those of all that training has sent through it: a stride, a padding, an activation in front of it
shows in them. The ways that come closest are followed from layer to layer, the others are left.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ganlens.models.families.dcgan_layers import MOST_PIXELS, Conv, Part, Start, Step, every_step, usual_steps
from ganlens.models.latents import LAWS, drawn

SLOPES = (0.0, 0.2)  # of hidden activations
EPSILONS = (1e-5, 0.8)  # of batch norms; the second one is a slip that many have copied
MODES = ("nearest", "bilinear")  # of doubling
SCREENED = 32  # units that are looked at before all are
FOLLOWED = 12  # ways that are followed
NEAR = 4.0  # times the least error: ways that are worse are left
SAMPLE = 256  # images, or as many as the following allow
SAMPLE_CELLS = 2**23  # so that they take no more memory than there is
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


class Stage(NamedTuple):
    """A layer of the file, and the norm behind it, if there is one."""

    layer: Part
    norm: Part | None
    norms_before: int

    @property
    def informed(self) -> bool:
        """Whether batch statistics tell what stands in front of them."""
        return self.norm is not None and self.norm.trained


class Path(NamedTuple):
    """A way so far, the side of what it gives and the values (N, U, H, W), and its squared errors at the norms."""

    way: Way
    size: int
    values: torch.Tensor | None = None
    errors: tuple[float, ...] = ()
    cost: float = 0.0

    @property
    def error(self) -> float:
        """The mean of the squared errors; see `misfit`."""
        return sum(self.errors) / len(self.errors) if self.errors else 0.0


class Search:
    """All that a file says, and the ways to run it."""

    def __init__(self, parts: list[Part], start: Start):
        self.start = start
        self.stages: list[Stage] = []
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            if part.kind != "norm":
                norm = after if after and after.kind == "norm" else None
                self.stages.append(Stage(part, norm, sum(stage.norm is not None for stage in self.stages)))

    @cached_property
    def even(self) -> bool:
        """Whether kernels of even sides double the maps, so that odd ones are there to refine."""
        return any(s.layer.kind == "conv" and s.layer.shape[2] % 2 == 0 for s in self.stages[1:])

    @cached_property
    def count(self) -> int:
        """Images that are looked at."""
        side, cells, work = self.start.size, 1, 1.0
        for stage in self.stages:
            side *= 2 if stage.layer.kind == "conv" and side > 1 else 1
            side = max(side, stage.layer.shape[-1] if stage.layer.kind == "conv" else 1)
            cells = max(cells, max(stage.layer.shape[:2]) * min(side, MOST_PIXELS) ** 2 // 4)
            work += math.prod(stage.layer.shape) * min(side, MOST_PIXELS) ** 2 / 4
        return int(min(SAMPLE, max(8, min(SAMPLE_CELLS // cells, SAMPLE_WORK // work))))

    @torch.no_grad()
    def paths(self) -> list[Path]:
        """The likeliest ways to an image; without statistics, the most usual ones."""
        paths = [Path(Way(law), self.start.size) for law in self.told(0, LAWS)]
        for number, stage in enumerate(self.stages):
            tried = [(path, r) for before in paths for path, r in self.through(before, number)]
            if stage.informed:
                screened = [path._replace(errors=(*path.errors, misfit(self.values(path, r, number, SCREENED), stage.norm))) for path, r in tried]
        return paths
