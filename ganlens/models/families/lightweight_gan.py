"""Lucidrains' lightweight-gan, after FastGAN (Liu et al., ICLR 2021), from its checkpoints.

A file has the live network as ``G`` and the averaged one, which is shown, as ``GE``. Noise is drawn anew in each pass
there; here there is none. Images are in [0, 1].
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Pointwise
from ganlens.models.families.assembling import (
    COUNTERS,
    assembled,
    counted,
    numbers,
    real,
    share_of_names,
    sizes,
    without,
)
from ganlens.models.families.lucidrains_parts import HEAD, ChannelNorm, Separable, linear_attention, shown, smoothed
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "lightweight-gan"
FORMAT = "lightweight-gan of lucidrains (GE.initial_conv.0.weight, GE.layers.0.0.0.net.0.weight, …)"
NORM = rf"(weight|bias|running_mean|running_var|{COUNTERS})"
PARTS = (
    rf"(initial_conv\.(0\.(weight|bias)|1\.{NORM})|out_conv\.(weight|bias)"
    rf"|layers\.\d+\.(0\.(0\.net\.0\.(weight|bias)|1\.f|2\.1\.(weight|bias)|3\.weight|4\.{NORM})"
    r"|1\.(to_k\.(weight|bias)|dct_weights|net\.[02]\.(weight|bias))|2\.(norm\.[gb]|fn\.to_\w+(\.net\.[01])?\.(weight|bias))))"
)
KEYS = re.compile(rf"GE\.{PARTS}|(G|D|D_aug)\..*")
BARE = re.compile(PARTS)
MOST_LAYERS = 9
GATES = {4: 128, 5: 256, 6: 512, 7: 1024}  # maps of 2^n cells a side gate maps of so many


@dataclass(frozen=True)
class Stage:
    """One layer: units, kind, units and hidden units of its gate if it has one, heads of attention."""

    inputs: int
    units: int
    gate: str | None
    gated: int
    hidden: int
    heads: int


class PixelShuffle(nn.Module):
    """Doubling by a linear map to four cells each."""

    def __init__(self, units: int):
        super().__init__()
        self.net = nn.Sequential(Pointwise(units, 4 * units), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.net(r)


class Blur(nn.Module):
    """Smoothing by 1 2 1, mirrored at the borders."""

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return smoothed(r)


class Gate(nn.Module):
    """From maps (N, U, H, W) to a number in 0 … 1 for each unit of larger maps, (N, V, 1, 1)."""

    def __init__(self, inputs: int, hidden: int, units: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, units, 1), nn.Sigmoid()
        )


class Context(Gate):
    """By a mean over cells with learned weights (Cao et al., GCNet, 2019)."""

    def __init__(self, inputs: int, hidden: int, units: int):
        super().__init__(inputs, hidden, units)
        self.to_k = Pointwise(inputs, 1)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        weights = self.to_k(r).flatten(2).softmax(-1)
        return self.net((r.flatten(2) @ weights.transpose(1, 2))[..., None])


class Frequency(Gate):
    """By sums over cells, weighted by cosines (Qin et al., FcaNet, ICCV 2021)."""

    dct_weights: torch.Tensor

    def __init__(self, inputs: int, hidden: int, units: int, side: int):
        super().__init__(inputs, hidden, units)
        self.register_buffer("dct_weights", torch.zeros(1, inputs, side, side))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.net((r * self.dct_weights).sum((2, 3), keepdim=True))


class Attention(nn.Module):
    """Efficient attention over all cells beside full attention over 3 x 3 of them."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        inner = heads * HEAD
        self.to_lin_q, self.to_q = (Pointwise(channels, inner, bias=False) for _ in range(2))
        self.to_lin_kv, self.to_kv = Separable(channels, 2 * inner), Pointwise(channels, 2 * inner, bias=False)
        self.to_out = Pointwise(2 * inner, channels)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        everywhere = F.gelu(linear_attention(self.to_lin_q(r), *self.to_lin_kv(r).chunk(2, 1)))
        k, v = self.to_kv(r).chunk(2, 1)
        q = self.to_q(r).flatten(2).unflatten(1, (-1, HEAD)) * HEAD**-0.5  # (N, heads, 64, H W)
        k, v = (F.unfold(x, 3, padding=1).unflatten(1, (-1, HEAD, 9)) for x in (k, v))  # (N, heads, 64, 9, H W)
        weights = (q[:, :, :, None] * k).sum(2, keepdim=True).softmax(3)
        near = (weights * v).sum(3).flatten(1, 2)
        return self.to_out(torch.cat([everywhere, near], 1).unflatten(2, r.shape[2:]))


class Normed(nn.Module):
    """Attention behind a norm."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm, self.fn = ChannelNorm(channels), Attention(channels, heads)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.fn(self.norm(r))


class Averaged(nn.Module):
    """The network that is shown: latents (N, Z) to images (N, C, Y, X) in [0, 1]."""

    def __init__(self, z_dim: int, stages: Sequence[Stage], colors: int):
        super().__init__()
        self.initial_conv = nn.Sequential(nn.ConvTranspose2d(z_dim, 2 * z_dim, 4), nn.BatchNorm2d(2 * z_dim), nn.GLU(1))
        self.layers = nn.ModuleList(layer_of(stage, 8 << i) for i, stage in enumerate(stages))
        self.out_conv = nn.Conv2d(stages[-1].units, colors, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        r = F.normalize(self.initial_conv(z[..., None, None]), dim=1)
        gates: dict[int, torch.Tensor] = {}
        for i, layer in enumerate(self.layers):
            parts = dict(layer.named_children())
            r = r + parts["2"](r) if "2" in parts else r
            r = parts["0"](r)
            if "1" in parts:
                gates[GATES[i + 3]] = parts["1"](r)
            side = 8 << i
            r = r * gates[side] if side in gates else r
        return self.out_conv(r)


def layer_of(stage: Stage, side: int) -> nn.Module:
    """The parts of a layer under the numbers that they have in the files: growing, gate, attention."""
    growing = nn.Sequential(
        PixelShuffle(stage.inputs),
        Blur(),
        nn.Sequential(nn.ZeroPad2d((2, 1, 2, 1)), nn.Conv2d(stage.inputs, 2 * stage.units, 4)),
        nn.Identity(),  # noise
        nn.BatchNorm2d(2 * stage.units),
        nn.GLU(1),
    )
    layer = nn.Module()
    layer.add_module("0", growing)
    if stage.gate == "context":
        layer.add_module("1", Context(stage.units, stage.hidden, stage.gated))
    elif stage.gate == "frequency":
        layer.add_module("1", Frequency(stage.units, stage.hidden, stage.gated, side))
    if stage.heads:
        layer.add_module("2", Normed(stage.inputs, stage.heads))
    return layer


class LightweightGenerator(nn.Module):
    """Latents (N, Z) to images (N, 3, Y, X) in [-1, 1]."""

    def __init__(self, *sizes):
        super().__init__()
        self.GE = Averaged(*sizes)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return shown(self.GE(z))


def likeness(state: State) -> float:
    """Share of the names that this family has; a little less for the network alone."""
    if "GE.initial_conv.0.weight" in state.items:
        return share_of_names(KEYS, state.items)
    return 0.9 * share_of_names(BARE, state.items) if "initial_conv.0.weight" in state.items else 0.0


def build(state: State, name: str) -> Generator:
    """The generator of a state dict.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors = real(state.tensors())
    if "GE.initial_conv.0.weight" not in tensors:
        tensors = {f"GE.{key}": x for key, x in tensors.items()}
    tensors = without(tensors, r"(G|D|D_aug)\..*|GE\.layers\.\d+\.0\.(1\.f|3\.weight)")
    count = counted(FAMILY, "layers", numbers(r"GE\.layers\.(\d{1,6})\.", tensors), MOST_LAYERS)
    stages = [stage_of(tensors, i) for i in range(count)]
    check_gates(stages)
    check_maps(FAMILY, [(max(2 * stage.units, 9 * HEAD * stage.heads), 8 << i) for i, stage in enumerate(stages)])
    z_dim = sizes(FAMILY, tensors, "GE.initial_conv.0.weight", 4)[0]
    colors = sizes(FAMILY, tensors, "GE.out_conv.weight", 4)[0]
    net = assembled(FAMILY, lambda: LightweightGenerator(z_dim, stages, colors), tensors)
    layers = ["GE.initial_conv", *(f"GE.layers.{i}.0" for i in range(count)), "GE.out_conv"]
    vectors = [f"GE.layers.{i}.1" for i, stage in enumerate(stages) if stage.gate]
    attention = [f"GE.layers.{i}.2" for i, stage in enumerate(stages) if stage.heads]
    return Generator(net, z_dim, name, layers=[*layers, *attention], vectors=vectors, trusted=True)


def stage_of(state: Mapping[str, torch.Tensor], i: int) -> Stage:
    """What the shapes tell of a layer."""
    key = f"GE.layers.{i}"
    doubled, inputs = sizes(FAMILY, state, f"{key}.0.2.1.weight", 4)[:2]
    gate = next((kind for part, kind in (("to_k.weight", "context"), ("dct_weights", "frequency"))
                 if f"{key}.1.{part}" in state), None)  # fmt: skip
    hidden = sizes(FAMILY, state, f"{key}.1.net.0.weight", 4)[0] if gate else 0
    gated = sizes(FAMILY, state, f"{key}.1.net.2.weight", 4)[0] if gate else 0
    inner = sizes(FAMILY, state, f"{key}.2.fn.to_q.weight", 4)[0] if f"{key}.2.fn.to_q.weight" in state else 0
    if inner % HEAD:
        raise CheckpointError(f"closest to {FAMILY}, but the heads of its attention do not have {HEAD} channels each")
    return Stage(inputs, doubled // 2, gate, gated, hidden, inner // HEAD)


def check_gates(stages: Sequence[Stage]) -> None:
    """CheckpointError where gates are not those of the maps that the code has them for."""
    for i, stage in enumerate(stages):
        larger = {8 << j: other.units for j, other in enumerate(stages)}
        wanted = larger.get(GATES.get(i + 3, 0))
        if (stage.gated or None) != wanted:
            raise CheckpointError(
                f"closest to {FAMILY}, but layer {i} gates {stage.gated} units, not {wanted or 'none'}"
            )
