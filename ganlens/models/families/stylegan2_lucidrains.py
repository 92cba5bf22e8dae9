"""StyleGAN2 (Karras et al., CVPR 2020) from the checkpoints of lucidrains' stylegan2-pytorch.

It differs from the paper: maps are doubled bilinearly and not smoothed, noise is uniform and goes through linear maps
of its own, latents have length 1, and images are in [0, 1]. A file has the live networks as ``S`` and ``G``, and the
averaged ones, which are shown, as ``SE`` and ``GE``. Noise, drawn anew in each pass there, is at its mean here.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, Pointwise, dense, pointwise
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes, without
from ganlens.models.families.lucidrains_parts import HEAD, ChannelNorm, Separable, linear_attention, shown, smoothed
from ganlens.models.families.stylegan1_parts import drawn_towards
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.records import short
from ganlens.models.files.states import State

FAMILY = "StyleGAN2 (lucidrains)"
FORMAT = "StyleGAN2 of lucidrains (SE.net.0.weight, GE.initial_block, GE.blocks.0.to_style1.weight, …)"
NEEDED = "GE.initial_conv.weight"
KEYS = re.compile(
    r"SE\.net\.\d+\.(weight|bias)|GE\.(initial_block|to_initial_block\.weight|initial_conv\.(weight|bias)"
    r"|blocks\.\d+\.((to_style[12]|to_noise[12]|to_rgb\.to_style)\.(weight|bias)|conv[12]\.weight"
    r"|to_rgb\.(conv\.weight|upsample\.1\.f))|attns\.\d+\.[01]\.fn\.(norm\.[gb]|fn\..*))|(S|G|D|D_aug|D_cl)\..*"
)
EPSILON, NOISE, MEAN_OF, MOST_BLOCKS, MLP_RATE = 1e-8, 0.5, 2000, 10, 0.1


def enlarged(r: torch.Tensor) -> torch.Tensor:
    return F.interpolate(r, scale_factor=2.0, mode="bilinear", align_corners=False)


class StyleNet(nn.Module):
    """Latents (N, Z), scaled to length 1, to w (N, W)."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.net = nn.Sequential()
        for i in range(count):
            self.net.add_module(str(2 * i), Dense(width, width))
            self.net.add_module(str(2 * i + 1), nn.LeakyReLU(0.2))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(F.normalize(z, dim=1))


class Modulated(nn.Module):
    """Convolution of r, its channels scaled by a style plus 1, and scaled back where ``demodulates``."""

    def __init__(self, inputs: int, units: int, side: int, demodulates: bool):
        super().__init__()
        self.weight, self.demodulates = nn.Parameter(torch.zeros(units, inputs, side, side)), demodulates

    def forward(self, r: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        r = r * (style + 1)[..., None, None]
        if not self.demodulates:
            return pointwise(r, self.weight)
        size = dense((style + 1).square(), self.weight.square().sum((2, 3)))
        return F.conv2d(r, self.weight, padding=1) * torch.rsqrt(size + EPSILON)[..., None, None]


class Paint(nn.Module):
    """Modulated linear map to colours, added to ``below``; doubled and smoothed where ``up``."""

    def __init__(self, width: int, inputs: int, colors: int, up: bool):
        super().__init__()
        self.smooth = True
        self.up, self.to_style, self.conv = up, Dense(width, inputs), Modulated(inputs, colors, 1, False)

    def forward(self, r: torch.Tensor, below: torch.Tensor | None, w: torch.Tensor) -> torch.Tensor:
        image = self.conv(r, self.to_style(w))
        image = image if below is None else image + below
        image = enlarged(image) if self.up else image
        return smoothed(image) if self.up and self.smooth else image


class Block(nn.Module):
    """Two modulated layers of one resolution; ``to_rgb`` paints of what they yield."""

    def __init__(self, width: int, inputs: int, units: int, colors: int, first: bool, last: bool):
        super().__init__()
        self.first = first
        self.to_style1, self.to_noise1, self.conv1 = (
            Dense(width, inputs),
            Dense(1, units),
            Modulated(inputs, units, 3, True),
        )
        self.to_style2, self.to_noise2, self.conv2 = (
            Dense(width, units),
            Dense(1, units),
            Modulated(units, units, 3, True),
        )
        self.to_rgb = Paint(width, units, colors, up=not last)

    def forward(self, r: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        r = r if self.first else enlarged(r)
        noise = r.new_full((1, 1), NOISE)
        for style, strength, conv in (
            (self.to_style1, self.to_noise1, self.conv1),
            (self.to_style2, self.to_noise2, self.conv2),
        ):
            r = F.leaky_relu(conv(r, style(w)) + strength(noise)[..., None, None], 0.2)
        return r


class LinearAttention(nn.Module):
    """Efficient attention over all cells."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        inner = heads * HEAD
        self.to_q, self.to_kv = Pointwise(channels, inner, bias=False), Separable(channels, 2 * inner)
        self.to_out = Pointwise(inner, channels)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        found = F.gelu(linear_attention(self.to_q(r), *self.to_kv(r).chunk(2, 1)))
        return self.to_out(found.unflatten(2, r.shape[2:]))


class Past(nn.Module):
    """A module behind a norm, added to its input."""

    def __init__(self, channels: int, inner: nn.Module):
        super().__init__()
        self.fn = nn.Module()
        self.fn.norm, self.fn.fn = ChannelNorm(channels), inner

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r + self.fn.fn(self.fn.norm(r))  # type: ignore[operator]


class Averaged(nn.Module):
    """From w (N, W) to images (N, C, Y, X) in [0, 1]."""

    def __init__(self, width: int, units: Sequence[int], colors: int, constant: bool, heads: Sequence[int]):
        super().__init__()
        first = units[0]
        self.initial_block = nn.Parameter(torch.zeros(1, first, 4, 4)) if constant else None
        self.to_initial_block = None if constant else nn.ConvTranspose2d(width, first, 4, bias=False)
        self.initial_conv = nn.Conv2d(first, first, 3, padding=1)
        last = len(units) - 2
        pairs = list(itertools.pairwise(units))
        self.blocks = nn.ModuleList(Block(width, a, b, colors, i == 0, i == last) for i, (a, b) in enumerate(pairs))
        self.attns = nn.ModuleDict()
        for i, (count, (channels, _)) in enumerate(zip(heads, pairs, strict=True)):
            if count:
                wide = nn.Sequential(
                    Pointwise(channels, 2 * channels), nn.LeakyReLU(0.2), Pointwise(2 * channels, channels)
                )
                inner = (LinearAttention(channels, count), wide)
                self.attns[str(i)] = nn.Sequential(*(Past(channels, module) for module in inner))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        if self.initial_block is not None:
            r = self.initial_block.expand(len(w), -1, -1, -1)
        else:
            r = cast(nn.Module, self.to_initial_block)(w[..., None, None])
        r = self.initial_conv(r)
        image: torch.Tensor | Any = None
        for i, block in enumerate(self.blocks):
            r = self.attns[str(i)](r) if str(i) in self.attns else r
            r = block(r, w)
            image = block.to_rgb(r, image, w)  # type: ignore[operator]
        return image


class LucidrainsStyle(nn.Module):
    """Latents (N, Z) to images (N, 3, Y, X) in [-1, 1]."""

    mean: torch.Tensor | None

    def __init__(self, count: int, width: int, units: Sequence[int], colors: int, constant: bool, heads: Sequence[int]):
        super().__init__()
        self.SE, self.GE = StyleNet(count, width), Averaged(width, units, colors, constant, heads)
        self.register_buffer("mean", None, persistent=False)

    def forward(self, z: torch.Tensor, labels: None = None, truncation: float = 1.0) -> torch.Tensor:
        w = self.SE(z)
        return shown(self.GE(w if self.mean is None else drawn_towards(self.mean, w, truncation)))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; truncation is towards the mean of 2000 fixed samples.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    smooth = any(re.fullmatch(r"GE\.blocks\.\d+\.to_rgb\.upsample\.1\.f", key) for key in state.items)
    tensors = without(real(state.tensors()), r"(S|G|D|D_aug|D_cl)\..*|GE\.blocks\.\d+\.to_rgb\.upsample\.1\.f")
    rate = state.config.get("lr_mlp", MLP_RATE)
    if type(rate) not in (int, float) or not 0 < rate <= 10:
        raise CheckpointError(f"closest to {FAMILY}, but lr_mlp in its settings is {short(rate)}")
    tensors = {key: x * rate if key.startswith("SE.") else x for key, x in tensors.items()}
    dense_layers = numbers(r"SE\.net\.(\d{1,6})\.", tensors)
    blocks = counted(FAMILY, "blocks", numbers(r"GE\.blocks\.(\d{1,6})\.", tensors), MOST_BLOCKS)
    width = sizes(FAMILY, tensors, "SE.net.0.weight", 2)[0]
    shapes = [sizes(FAMILY, tensors, f"GE.blocks.{i}.conv1.weight", 4) for i in range(blocks)]
    units = [shapes[0][1], *(shape[0] for shape in shapes)]
    check_maps(FAMILY, [(max(a, b), 4 << i) for i, (a, b) in enumerate(itertools.pairwise(units))])
    colors = sizes(FAMILY, tensors, "GE.blocks.0.to_rgb.conv.weight", 4)[0]
    queries = [tensors.get(f"GE.attns.{i}.0.fn.fn.to_q.weight") for i in range(blocks)]
    heads = [0 if q is None else len(q) // HEAD for q in queries]
    check_maps(FAMILY, [(2 * HEAD * count, 4 << i) for i, count in enumerate(heads)])
    constant = "GE.initial_block" in tensors
    net = assembled(FAMILY, lambda: LucidrainsStyle(len(dense_layers), width, units, colors, constant, heads), tensors)
    for block in net.GE.blocks:
        block.to_rgb.smooth = smooth or len(units) == 2  # type: ignore[union-attr]
    z = np.random.RandomState(0).standard_normal((MEAN_OF, width)).astype(np.float32)
    with torch.no_grad():
        net.mean = net.SE(torch.from_numpy(z)).mean(0)
    parts = [f"GE.blocks.{i}" for i in range(blocks)]
    layers = ["GE.initial_conv", *(f"{key}{part}" for key in parts for part in (".conv1", ".conv2", "", ".to_rgb"))]
    layers += [f"GE.attns.{i}" for i in net.GE.attns]
    styles = [f"{key}.{part}" for key in parts for part in ("to_style1", "to_style2", "to_rgb.to_style")]
    vectors = [*(f"SE.net.{i}" for i in dense_layers), "SE", *styles]
    G = Generator(net, width, name, layers=layers, truncates=True, vectors=vectors, trusted=True)
    G.about = "" if "lr_mlp" in state.config else f"lr_mlp, which is not in the file, taken as {MLP_RATE:g}, as usual"
    return G
