"""Progressive GAN (Karras et al., ICLR 2018), the architecture of the GAN Dissection papers."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import convolution, pointwise
from ganlens.models.families.rewriting import Rewritable, doubling
from ganlens.models.families.scenes import pixel_norm
from ganlens.models.files.reading import CheckpointError, check_maps, fit
from ganlens.models.files.states import State

FAMILY = "Progressive GAN"
FORMAT = "Progressive GAN of gandissect (layer1.conv.weight, …, output_32x32.conv.weight; or features.0.conv.weight, …)"
KEYS = re.compile(r"(layer|features\.)(\d+)\.(conv\.weight|wscale\.b)|output(_\d+x\d+)?\.(conv\.weight|wscale\.b)")
MOST_LAYERS = 20  # 2048 px

UNITS_256 = (512, 512, 512, 512, 512, 512, 256, 256, 128, 128, 64, 64, 32, 32)


class Scaled(nn.Module):
    """Convolution without bias, then a constant scale, gain / sqrt(fan-in), and a bias."""

    def __init__(self, inputs: int, units: int, size: int, padding: int, gain: float):
        super().__init__()
        self.conv = convolution(inputs, units, size, padding, bias=False)
        self.bias = nn.Parameter(torch.zeros(units))
        self.scale = gain / (size * inputs**0.5)
        nn.init.normal_(self.conv.weight)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.conv(r) * self.scale + self.bias[:, None, None]


class ProgressiveLayer(Rewritable):
    """Pixel norm, doubling where ``up``, scaled convolution, leaky ReLU."""

    def __init__(self, inputs: int, units: int, first: bool, up: bool):
        super().__init__()
        self.up = up
        self.scaled = Scaled(inputs, units, 4 if first else 3, padding=3 if first else 1, gain=2**0.5)

    def folded(self) -> torch.Tensor:
        weight = self.scaled.conv.weight * self.scaled.scale
        return doubling(weight) if self.up else weight

    def rewritten(self, r: torch.Tensor) -> torch.Tensor:
        r, bias = pixel_norm(r), self.scaled.bias.to(r.dtype)
        if self.up:
            r = F.conv_transpose2d(r, self.kernel, bias, stride=2, padding=1)
        else:
            r = F.conv2d(r, self.kernel, bias, padding=cast(tuple, self.scaled.conv.padding))
        return F.leaky_relu(r, 0.2, inplace=True)

    def plain(self, r: torch.Tensor) -> torch.Tensor:
        r = pixel_norm(r)
        if self.up:
            r = F.interpolate(r, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.scaled(r), 0.2)


class Output(Rewritable):
    """Pixel norm and a linear map to colours."""

    def __init__(self, inputs: int, colors: int = 3):
        super().__init__()
        self.scaled = Scaled(inputs, colors, 1, padding=0, gain=1.0)

    def folded(self) -> torch.Tensor:
        return self.scaled.conv.weight * self.scaled.scale

    def rewritten(self, r: torch.Tensor) -> torch.Tensor:
        return pointwise(pixel_norm(r), self.kernel, self.scaled.bias.to(r.dtype)).float()

    def plain(self, r: torch.Tensor) -> torch.Tensor:
        return self.scaled(pixel_norm(r))


class ProgressiveGenerator(nn.Sequential):
    """Latents (N, Z) to images (N, 3, Y, X), with random weights; ``layer1``, ``layer2``, … and ``output_YxX``.

    Parameters
    ----------
    units : sequence of int
        Units of each layer: two layers at 4x4, and two more for every doubling. The published 256-pixel networks
        have ``UNITS_256``.
    z_dim : int
        Length of the latent.
    colors : int
        Channels of the image.
    """

    def __init__(self, units: Sequence[int] = UNITS_256, z_dim: int = 512, colors: int = 3):
        super().__init__()
        self.add_module("latent", nn.Unflatten(1, (z_dim, 1, 1)))
        for i, (inputs, outputs) in enumerate(zip((z_dim, *units), units, strict=False)):
            layer = ProgressiveLayer(inputs, outputs, first=i == 0, up=i >= 2 and i % 2 == 0)
            self.add_module(f"layer{i + 1}", layer)
        size = 4 * 2 ** ((len(units) - 1) // 2)
        self.add_module(f"output_{size}x{size}", Output(units[-1], colors))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict."""
    return from_state(state.tensors(), name)


def from_state(state: Mapping[str, torch.Tensor], name: str | None = None) -> Generator:
    """The generator of a state dict of gandissect (Bau et al., ICLR 2019), in its newer or older key style.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``layer1.conv.weight`` (C, Z, 4, 4), ``layer1.wscale.b`` (C,), …, ``output_YxX.conv.weight`` (3, C, 1, 1), or
        the same as ``features.0.…`` and ``output.…``. All sizes are those of the tensors.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    old = any(key.startswith("features.") for key in state)
    count = sum(key.endswith(".conv.weight") and not key.startswith("output") for key in state)
    layers = [f"features.{i}" if old else f"layer{i + 1}" for i in range(count)]
    outputs = [key.removesuffix(".conv.weight") for key in state if re.fullmatch(r"output.*\.conv\.weight", key)]
    size = 4 * 2 ** (max(0, count - 1) // 2)
    theirs = [*layers, outputs[0] if len(outputs) == 1 else f"output_{size}x{size}"]
    found = {key: state[f"{key}.conv.weight"].shape for key in theirs if f"{key}.conv.weight" in state}
    if not 1 <= count <= MOST_LAYERS or any(len(shape) != 4 for shape in found.values()):
        raise CheckpointError(f"closest to {FAMILY}, but it has {count} layers, or a weight that is no convolution")
    z_dim = found[theirs[0]][1] if theirs[0] in found else 0
    units = [found[key][0] if key in found else 0 for key in theirs]
    wanted: dict[str, tuple[int, ...]] = {}
    for key, inputs, outs, i in zip(theirs, [z_dim, *units], units, range(count + 1), strict=False):
        side = 4 if i == 0 else 1 if i == count else 3
        wanted |= {f"{key}.conv.weight": (outs, inputs, side, side), f"{key}.wscale.b": (outs,)}
    fit(FAMILY, wanted, state)
    check_maps(FAMILY, [(outs, 4 * 2 ** (i // 2)) for i, outs in enumerate(units[:-1])])
    net = ProgressiveGenerator(units[:-1], z_dim, units[-1]).requires_grad_(False).eval()
    ours = [*(f"layer{i + 1}" for i in range(count)), f"output_{size}x{size}"]
    parts = (("conv.weight", "conv.weight"), ("bias", "wscale.b"))
    net.load_state_dict(
        {f"{a}.scaled.{p}": state[f"{b}.{q}"].float() for a, b in zip(ours, theirs, strict=True) for p, q in parts}
    )
    return Generator(net, z_dim, name or FAMILY, layers=ours, trusted=True)
