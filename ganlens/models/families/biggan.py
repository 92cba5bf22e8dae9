"""BigGAN and BigGAN-deep (Brock et al., ICLR 2019) from the files of github.com/ajbrock/BigGAN-PyTorch.

Its spectral norm makes one step of the power iteration in every pass, also in evaluation, from vectors in the file that
stay as they are; so the step is made once, when loaded.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, convolution
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes
from ganlens.models.families.biggan_parts import Attention
from ganlens.models.families.shared_layers import Table, doubled
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "BigGAN (BigGAN-PyTorch)"
FORMAT = "BigGAN and BigGAN-deep of BigGAN-PyTorch (linear.weight, blocks.0.0.bn1.gain.weight, output_layer.0.gain, …)"
WEIGHT = r"(weight|bias|u\d|sv\d)"
STATISTICS = r"(bn\.)?(stored_mean|stored_var|running_mean|running_var|accumulation_counter|num_batches_tracked)"
KEYS = re.compile(
    rf"shared\.weight|linear\.{WEIGHT}|output_layer\.(0\.(gain|bias|{STATISTICS})|2\.{WEIGHT})"
    rf"|blocks\.\d+\.\d+\.((conv[1-4]|conv_sc)\.{WEIGHT}|bn[1-4]\.({STATISTICS}|(gain|bias)\.{WEIGHT})"
    rf"|gamma|(theta|phi|g|o)\.{WEIGHT})"
)
MOST_BLOCKS = 48
DEEP_WIDTHS = ((16, 16, 8, 8, 4, 2, 1), (16, 16, 8, 4, 2, 1), (16, 16, 8, 4, 2), (4, 4, 4, 4))  # of 256 … 32 pixels


@dataclass(frozen=True)
class Plan:
    """What the shapes tell of a network.

    Attributes
    ----------
    deep, shared, chunked : bool
        Whether blocks are bottlenecks; whether classes have one embedding for all norms; whether a latent is cut into
        pieces, one for each block.
    channels : sequence of (int, int)
        Into and out of each block.
    doubling, shortcut, attention : sequence of bool
        For each block.
    classes, width, piece, side, colors : int
        How many classes; what a norm is conditioned on; how long a piece of the latent is; side of the first maps;
        channels of the image.
    """

    deep: bool
    shared: bool
    chunked: bool
    channels: Sequence[tuple[int, int]]
    doubling: Sequence[bool]
    shortcut: Sequence[bool]
    attention: Sequence[bool]
    classes: int
    embedding: int
    width: int
    piece: int
    side: int
    colors: int

    @property
    def z_dim(self) -> int:
        return self.piece * (len(self.channels) + 1 if self.chunked else 1)


class Norm(nn.Module):
    """Batch norm, then a gain and a bias that follow from a condition."""

    stored_mean: torch.Tensor
    stored_var: torch.Tensor

    def __init__(self, units: int, width: int, shared: bool):
        super().__init__()
        self.gain, self.bias = (
            Dense(width, units, bias=False) if shared else Table(torch.empty(width, units)) for _ in range(2)
        )
        self.register_buffer("stored_mean", torch.zeros(units))
        self.register_buffer("stored_var", torch.ones(units))

    def forward(self, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r = F.batch_norm(r, self.stored_mean, self.stored_var)
        return r * (1 + self.gain(y))[..., None, None] + self.bias(y)[..., None, None]


class LastNorm(nn.Module):
    """Batch norm with a gain and a bias of its own."""

    stored_mean: torch.Tensor
    stored_var: torch.Tensor

    def __init__(self, units: int):
        super().__init__()
        self.gain, self.bias = (nn.Parameter(torch.ones(units)) for _ in range(2))
        self.register_buffer("stored_mean", torch.zeros(units))
        self.register_buffer("stored_var", torch.ones(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(r, self.stored_mean, self.stored_var, self.gain, self.bias)


class Block(nn.Module):
    """Norms, rectifiers and convolutions, and a shortcut past them."""

    def __init__(self, plan: Plan, i: int):
        super().__init__()
        inputs, units = plan.channels[i]
        self.deep, self.up, self.units = plan.deep, plan.doubling[i], units
        middle = inputs // 4
        shapes = [(inputs, units, 3), (units, units, 3)]
        if plan.deep:
            shapes = [(inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, units, 1)]
        self.count = len(shapes)
        for n, (a, b, k) in enumerate(shapes, start=1):
            self.add_module(f"conv{n}", convolution(a, b, k, k // 2, bias=True))
            self.add_module(f"bn{n}", Norm(a, plan.width, plan.shared))
        self.conv_sc = convolution(inputs, units, 1, 0, bias=True) if plan.shortcut[i] else None

    def forward(self, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        past = r[:, : self.units] if self.deep else r
        past = doubled(past) if self.up else past
        for n in range(1, self.count + 1):
            r = F.relu(self.get_submodule(f"bn{n}")(r, y))
            r = doubled(r) if self.up and n == (2 if self.deep else 1) else r
            r = self.get_submodule(f"conv{n}")(r)
        return r + (past if self.conv_sc is None else self.conv_sc(past))


class BigGAN(nn.Module):
    """Latents (N, Z) and classes (N,), or weights of them (N, classes), to images (N, C, Y, X) in [-1, 1]."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.shared = Table(torch.empty(plan.classes, plan.embedding)) if plan.shared else None
        first, last = plan.channels[0][0], plan.channels[-1][1]
        joined = plan.deep and plan.shared
        self.linear = Dense(plan.piece + (plan.embedding if joined else 0), first * plan.side**2)
        names = ("theta", "phi", "g", "o")
        self.blocks = nn.ModuleList(
            nn.ModuleList([Block(plan, i), *([Attention(units, names, scalar=True)] if plan.attention[i] else [])])
            for i, (_, units) in enumerate(plan.channels)
        )
        self.output_layer = nn.Sequential(LastNorm(last), nn.ReLU(), nn.Conv2d(last, plan.colors, 3, padding=1))

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        plan = self.plan
        hot = (labels if labels.ndim == 2 else F.one_hot(labels, plan.classes)).to(z)
        y = hot if self.shared is None else self.shared(hot)
        first, *rest = z.split(plan.piece, 1)
        if plan.deep and plan.shared:
            first = y = torch.cat([y, z], 1)
        r = self.linear(first).unflatten(1, (-1, plan.side, plan.side))
        for i, parts in enumerate(self.blocks):
            block, *attention = parts.children()
            r = block(r, torch.cat([y, rest[i]], 1) if plan.chunked else y)
            for module in attention:
                r = module(r)
        return torch.tanh(self.output_layer(r))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict, whose shapes tell all but how many blocks of BigGAN-deep share a resolution.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors = normalized(real(state.tensors()))
    plan = plan_of(tensors)
    side, maps = plan.side, []
    for (inputs, units), up in zip(plan.channels, plan.doubling, strict=True):
        side *= 2 if up else 1
        maps.append((max(inputs, units), min(side, 2**15)))
    heads = [(side**2 // 4, side) for (_, side), found in zip(maps, plan.attention, strict=True) if found]
    check_maps(FAMILY, [*maps, *heads])  # attention has a number for each cell and each of a quarter of the cells
    net = assembled(FAMILY, lambda: BigGAN(plan), tensors)
    layers = [f"blocks.{i}.{j}" for i, found in enumerate(plan.attention) for j in range(1 + found)]
    vectors = ["shared", "linear"] if plan.shared else ["linear"]
    return Generator(
        net, plan.z_dim, name, layers=[*layers, "output_layer"], classes=plan.classes, vectors=vectors, trusted=True
    )


def normalized(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict under one kind of name for statistics, with weights divided by their largest singular value."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        parent = key.rpartition(".")[0]
        plain = re.sub(r"\.bn\.(stored|running)_", r".stored_", key)
        counter = state.get(f"{parent}.accumulation_counter")
        if re.search(r"\.(u\d|sv\d|accumulation_counter|num_batches_tracked)$", key):
            continue
        if counter is not None and plain != key and counter.numel() == 1 and counter.item() > 0:
            tensor = tensor / counter.item()  # sums over so many batches
        if key.endswith(".weight") and f"{parent}.u0" in state:
            tensor = tensor / largest(tensor, state[f"{parent}.u0"], parent)
        found[plain] = tensor
    return found


def largest(weight: torch.Tensor, u: torch.Tensor, name: str) -> torch.Tensor:
    """What one step of the power iteration takes for a weight's largest singular value."""
    matrix = weight.flatten(1)
    if tuple(u.shape) != (1, len(matrix)):
        raise CheckpointError(f"closest to {FAMILY}, but {name}.u0 has shape {tuple(u.shape)}, not (1, {len(matrix)})")
    v = F.normalize(u @ matrix, eps=1e-12)
    value = (v @ matrix.T @ F.normalize(v @ matrix.T, eps=1e-12).T).squeeze()
    if not value > 0:
        raise CheckpointError(f"closest to {FAMILY}, but the spectral norm of {name} is {value:g}")
    return value


def plan_of(state: Mapping[str, torch.Tensor]) -> Plan:
    """What the shapes of a state dict tell."""
    count = counted(FAMILY, "blocks", numbers(r"blocks\.(\d{1,6})\.", state), MOST_BLOCKS)
    deep, shared = "blocks.0.0.conv4.weight" in state, "shared.weight" in state
    last = 4 if deep else 2
    channels = [
        (
            sizes(FAMILY, state, f"blocks.{i}.0.conv1.weight", 4)[1],
            sizes(FAMILY, state, f"blocks.{i}.0.conv{last}.weight", 4)[0],
        )
        for i in range(count)
    ]
    outputs, piece = sizes(FAMILY, state, "linear.weight", 2)
    gains, inputs = sizes(FAMILY, state, "blocks.0.0.bn1.gain.weight", 2)
    classes, embedding = sizes(FAMILY, state, "shared.weight", 2) if shared else (gains, 0)
    width = inputs if shared else classes
    chunked = shared and not deep and width > embedding
    if deep and shared:
        piece -= embedding
    if shared and width != embedding + (piece if deep or chunked else 0):
        raise CheckpointError(f"closest to {FAMILY}, but gains take {width} numbers, and classes have {embedding}")
    side = math.isqrt(outputs // channels[0][0])
    if piece < 1 or side < 1 or side * side * channels[0][0] != outputs:
        raise CheckpointError(f"closest to {FAMILY}, but linear.weight ({outputs}, …) does not fit the first block")
    depth = depth_of(channels) if deep else 1
    return Plan(
        deep, shared, chunked, channels, [i % depth == depth - 1 for i in range(count)],
        [f"blocks.{i}.0.conv_sc.weight" in state for i in range(count)],
        [f"blocks.{i}.1.gamma" in state for i in range(count)],
        classes, embedding, width, piece, side, sizes(FAMILY, state, "output_layer.2.weight", 4)[0],
    )  # fmt: skip


def depth_of(channels: Sequence[tuple[int, int]]) -> int:
    """How many blocks of BigGAN-deep share a resolution: two in all published settings.

    The last of them doubles; where it does is seen only where channels change. A number is taken under which channels
    are those of the published code, else two, with a warning.
    """
    known = []
    for depth in (2, 1, 3, 4):
        ends = [channels[0][0], *(units for _, units in channels[depth - 1 :: depth])]
        inside = all(a == b for i, (a, b) in enumerate(channels) if i % depth < depth - 1)
        widths = [w for w in DEEP_WIDTHS if len(w) == len(ends)]
        if (
            inside
            and not len(channels) % depth
            and any(all(n * w[0] == ends[0] * m for n, m in zip(ends, w, strict=False)) for w in widths)
        ):
            known.append(depth)
    if not known:
        warnings.warn(
            "how many blocks share a resolution is not in the file, and its channels are none of the published ones; "
            "two are assumed. If it is otherwise, build the network yourself: Generator.wrap(net, z_dim=…)",
            stacklevel=7,
        )
    return known[0] if known else 2
