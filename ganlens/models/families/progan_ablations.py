"""The networks between a plain GAN and Progressive GAN, from the ablation of its paper (Karras et al., ICLR 2018)."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import convolution
from ganlens.models.families.progan import MOST_LAYERS
from ganlens.models.families.scenes import pixel_norm
from ganlens.models.files.reading import CheckpointError, check_maps, fit
from ganlens.models.files.states import State

FAMILY = "Progressive GAN ablation"
FORMAT = "an ablation of Progressive GAN (features.0.conv.weight, … with conv.bias, wscale.scale or norm.weight)"
NORM = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
KINDS = {  # what follows a convolution without a bias of its own, by the tensors that it has
    "norm": NORM,  # batch norm, ReLU, no pixel norm
    "scale": ("wscale.scale", "wscale.b"),  # a learned scale, leaky ReLU, pixel norms
    "bias": ("conv.bias",),  # nothing, leaky ReLU, a pixel norm of the latent
}
KEYS = re.compile(r"(features\.\d+|output)\.(conv\.weight|conv\.bias|wscale\.(scale|b)|norm\.\w+)")


class Scale(nn.Module):
    """One learned number for all units, and a bias for each."""

    def __init__(self, units: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.b = nn.Parameter(torch.zeros(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r * self.scale + self.b[:, None, None]


class Layer(nn.Module):
    """Pixel norm where ``normed``, doubling where ``up``, convolution, what the kind adds, and a rectifier."""

    def __init__(self, kind: str, inputs: int, units: int, side: int, up: bool, normed: bool, linear: bool = False):
        super().__init__()
        self.up, self.normed = up, normed
        self.slope = 1.0 if linear else 0.0 if kind == "norm" else 0.2
        self.conv = convolution(inputs, units, side, {4: 3, 3: 1, 1: 0}[side], bias=kind == "bias")
        if kind == "scale":
            self.wscale = Scale(units)
        elif kind == "norm":
            self.norm = nn.BatchNorm2d(units)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = pixel_norm(r) if self.normed else r
        r = F.interpolate(r, scale_factor=2.0, mode="nearest") if self.up else r
        r = self.conv(r)
        r = self.wscale(r) if hasattr(self, "wscale") else self.norm(r) if hasattr(self, "norm") else r
        return r if self.slope == 1 else F.leaky_relu(r, self.slope)


def kind_of(names: Iterable[str]) -> str | None:
    """Which of the ``KINDS`` a state dict is, by its first layer."""
    names = set(names)
    return next((kind for kind, own in KINDS.items() if f"features.0.{own[0]}" in names), None)


def likeness(state: State) -> float:
    """Share of the names that this family has."""
    hits = [KEYS.fullmatch(name) is not None for name in state.items]
    return sum(hits) / len(hits) if kind_of(state.items) else 0.0


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; see `from_state` for what the name says."""
    return from_state(state.tensors(), name)


def from_state(state: Mapping[str, torch.Tensor], name: str | None = None) -> Generator:
    """The generator of a state dict of gandissect's ablation models.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``features.0.conv.weight`` (C, Z, 4, 4), …, ``output.conv.weight`` (3, C, 1, 1), and for each of them a bias, a
        learned scale and a bias, or a batch norm.
    name : str, optional
        Networks with learned scales have pixel norms in all layers. Only "equalized-learning-rate" has them at two
        places alone, at the latent and before the output; its tensors do not show that, so its name must contain these
        words.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    count = sum(re.fullmatch(r"features\.\d+\.conv\.weight", key) is not None for key in state)
    keys = [*(f"features.{i}" for i in range(count)), "output"]
    shapes = [tuple(state[f"{key}.conv.weight"].shape) for key in keys if f"{key}.conv.weight" in state]
    kind = kind_of(state)
    if kind is None or not 1 <= count <= MOST_LAYERS or len(shapes) <= count or any(len(s) != 4 for s in shapes):
        raise CheckpointError(f"closest to {FAMILY}, but it has {count} layers, or a weight that is no convolution")
    last = "bias" if kind == "norm" else kind
    units = [shape[0] for shape in shapes]
    z_dim = shapes[0][1]
    wanted: dict[str, tuple[int, ...]] = {}
    for i, (key, inputs, outs) in enumerate(zip(keys, [z_dim, *units], units, strict=False)):
        side = 4 if i == 0 else 1 if i == count else 3
        own = KINDS[last if i == count else kind]
        wanted |= {f"{key}.conv.weight": (outs, inputs, side, side)}
        wanted |= {f"{key}.{part}": (1,) if part == "wscale.scale" else (outs,) for part in own}
    fit(FAMILY, wanted, state, optional=[f"{key}.norm.num_batches_tracked" for key in keys])
    check_maps(FAMILY, [(outs, 4 * 2 ** (i // 2)) for i, outs in enumerate(units[:-1])])

    everywhere = kind == "scale" and "equalized-learning-rate" not in (name or "")
    net = nn.Sequential()
    net.add_module("latent", nn.Unflatten(1, (z_dim, 1, 1)))
    size = 4 * 2 ** ((count - 1) // 2)
    ours = [*(f"layer{i + 1}" for i in range(count)), f"output_{size}x{size}"]
    for i, (layer, key) in enumerate(zip(ours, keys, strict=True)):
        first, output = i == 0, i == count
        side, up = (4 if first else 1 if output else 3), i >= 2 and i % 2 == 0 and not output
        normed = everywhere or (first and kind != "norm") or (output and kind == "scale")
        module = Layer(last if output else kind, [z_dim, *units][i], units[i], side, up, normed, linear=output)
        parts = "conv.weight", *KINDS[last if output else kind]
        weights = {part: state[f"{key}.{part}"].float() for part in parts}
        module.load_state_dict(weights, strict=False)  # how often a batch norm was updated is not in all files
        net.add_module(layer, module)
    return Generator(net.requires_grad_(False).eval(), z_dim, name or FAMILY, layers=ours, trusted=True)
