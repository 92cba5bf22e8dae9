"""BigGAN-deep (Brock et al., ICLR 2019) from the files that Hugging Face published, with their ``config.json``.

The weights stand in the file beside vectors for their spectral norm, and are divided once, when loaded.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, convolution
from ganlens.models.families.assembling import assembled, real, sizes
from ganlens.models.families.biggan_parts import Attention
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.spectral_norm import settled
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.settings import DAMAGED
from ganlens.models.files.states import State

FAMILY = "BigGAN-deep (Hugging Face)"
FORMAT = "BigGAN-deep of Hugging Face (generator.gen_z.weight_orig, …, with its config.json beside it)"
SPECTRAL = r"(bias|weight|weight_orig|weight_u|weight_v)"
KEYS = re.compile(
    rf"embeddings\.weight|generator\.((gen_z|conv_to_rgb)\.{SPECTRAL}|bn\.(weight|bias|running_means|running_vars)"
    rf"|layers\.\d+\.(conv_[0-3]\.{SPECTRAL}|bn_[0-3]\.(running_means|running_vars|(scale|offset)\.{SPECTRAL})"
    rf"|gamma|snconv1x1_(theta|phi|g|o_conv)\.{SPECTRAL}))"
)
ATTENTION = ("snconv1x1_theta", "snconv1x1_phi", "snconv1x1_g", "snconv1x1_o_conv")
SIDE, REDUCTION, MOST_BLOCKS = 4, 4, 40


class Norm(nn.Module):
    """Batch norm with statistics for each of many truncations; scale and offset from a condition, or of its own.

    Between two rows of statistics the published code takes as much of the first as the truncation is past it, the
    other way round than one expects; the networks were published with it.
    """

    running_means: torch.Tensor
    running_vars: torch.Tensor

    def __init__(self, units: int, rows: int, eps: float, condition: int | None):
        super().__init__()
        self.eps, self.conditional = eps, condition is not None
        self.register_buffer("running_means", torch.zeros(rows, units))
        self.register_buffer("running_vars", torch.ones(rows, units))
        if condition is None:
            self.weight, self.bias = (nn.Parameter(torch.ones(units)) for _ in range(2))
        else:
            self.scale, self.offset = (Dense(condition, units, bias=False) for _ in range(2))

    def forward(self, r: torch.Tensor, y: torch.Tensor, truncation: float) -> torch.Tensor:
        mean, variance = (self.row(x, truncation) for x in (self.running_means, self.running_vars))
        if not self.conditional:
            return F.batch_norm(r, mean, variance, self.weight, self.bias, eps=self.eps)
        r = (r - mean[:, None, None]) * torch.rsqrt(variance + self.eps)[:, None, None]
        return r * (1 + self.scale(y))[..., None, None] + self.offset(y)[..., None, None]

    @staticmethod
    def row(rows: torch.Tensor, truncation: float) -> torch.Tensor:
        share, first = math.modf(truncation / (1.0 / (len(rows) - 1)))
        row = rows[int(first)]
        return row * share + rows[min(int(first) + 1, len(rows) - 1)] * (1 - share) if share else row


class Block(nn.Module):
    """Four convolutions in a bottleneck, past which the first of the channels go."""

    def __init__(self, inputs: int, units: int, up: bool, rows: int, eps: float, condition: int):
        super().__init__()
        self.up, self.kept = up, inputs if inputs == units else inputs // 2
        middle = inputs // REDUCTION
        shapes = ((inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, units, 1))
        for i, (a, b, k) in enumerate(shapes):
            self.add_module(f"bn_{i}", Norm(a, rows, eps, condition))
            self.add_module(f"conv_{i}", convolution(a, b, k, k // 2, bias=True))

    def forward(self, r: torch.Tensor, y: torch.Tensor, truncation: float) -> torch.Tensor:
        past = r[:, : self.kept]
        for i in range(4):
            r = F.relu(self.get_submodule(f"bn_{i}")(r, y, truncation))
            r = doubled(r) if self.up and i == 1 else r
            r = self.get_submodule(f"conv_{i}")(r)
        return r + (doubled(past) if self.up else past)


class Painter(nn.Module):
    """From a condition (N, Y) to images (N, 3, Y, X)."""

    def __init__(self, width: int, blocks: Sequence[tuple[bool, int, int]], attention: int, **norms: Any):
        super().__init__()
        condition = norms["condition"]
        self.gen_z = Dense(condition, SIDE * SIDE * blocks[0][1] * width)
        layers: list[nn.Module] = []
        for i, (up, inputs, units) in enumerate(blocks):
            if i == attention:
                layers.append(Attention(width * inputs, ATTENTION, scalar=False))
            layers.append(Block(width * inputs, width * units, up, **norms))
        self.layers = nn.ModuleList(layers)
        last = width * blocks[-1][2]
        self.bn = Norm(last, norms["rows"], norms["eps"], None)
        self.conv_to_rgb = nn.Conv2d(last, last, 3, padding=1)

    def forward(self, y: torch.Tensor, truncation: float) -> torch.Tensor:
        r = self.gen_z(y).unflatten(1, (SIDE, SIDE, -1)).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            r = layer(r) if isinstance(layer, Attention) else layer(r, y, truncation)
        r = F.relu(self.bn(r, y, truncation))
        return torch.tanh(self.conv_to_rgb(r)[:, :3])


class BigGANDeep(nn.Module):
    """Latents (N, Z) and classes (N,), or weights of them (N, classes), to images (N, 3, Y, X) in [-1, 1]."""

    def __init__(self, classes: int, embedding: int, **painter: Any):
        super().__init__()
        self.embeddings = Dense(classes, embedding, bias=False)
        self.generator = Painter(**painter)

    def forward(self, z: torch.Tensor, labels: torch.Tensor, truncation: float = 1.0) -> torch.Tensor:
        hot = labels if labels.ndim == 2 else F.one_hot(labels, self.embeddings.in_features)
        return self.generator(torch.cat([z, self.embeddings(hot.to(z))], 1), truncation)


def build(state: State, name: str) -> Generator:
    """The generator of a state dict and of its settings.

    ``truncation`` chooses the statistics and how far latents reach, as the published examples do.

    Raises
    ------
    CheckpointError
        The settings are missing or do not fit the tensors, or these do not fit one another.
    """
    tensors = settled(real(state.tensors()), FAMILY, ())
    blocks, attention, eps, z_dim = settings_of(state.config)
    embedding, classes = sizes(FAMILY, tensors, "embeddings.weight", 2)
    rows, last = sizes(FAMILY, tensors, "generator.bn.running_means", 2)
    width = last // blocks[-1][2]
    if rows < 2 or width < 1:
        raise CheckpointError(f"closest to {FAMILY}, but its norms have {rows} rows of {last} numbers")
    side, maps = SIDE, []
    for up, inputs, units in blocks:
        side *= 2 if up else 1
        maps += [(width * max(inputs, units), min(side, 2**15))]
    if 0 <= attention < len(maps):
        before = SIDE if attention == 0 else maps[attention - 1][1]
        maps.append((before**2 // 4, before))  # a number for each cell and each of a quarter of the cells
    check_maps(FAMILY, maps)
    norms = {"rows": rows, "eps": eps, "condition": z_dim + embedding}
    net = assembled(
        FAMILY,
        lambda: BigGANDeep(classes, embedding, width=width, blocks=blocks, attention=attention, **norms),
        tensors,
    )
    layers = [f"generator.layers.{i}" for i in range(len(net.generator.layers))]
    return Generator(
        net, z_dim, name, layers=layers, law="truncated", classes=classes, truncates=True,
        vectors=["embeddings", "generator.gen_z"], trusted=True,
    )  # fmt: skip


def settings_of(config: Mapping[str, Any]) -> tuple[list[tuple[bool, int, int]], int, float, int]:
    """Blocks (doubles, channels in, channels out), where attention stands, eps, and Z; CheckpointError if unknown."""
    if DAMAGED in config:
        raise CheckpointError(f"closest to {FAMILY}, but {config[DAMAGED]}")
    if "layers" not in config:
        raise CheckpointError(
            f"closest to {FAMILY}, but where its maps are doubled stands in its config.json alone, which is not beside "
            "it; put it there, under the name config.json or that of the weights"
        )
    blocks, attention = config["layers"], config.get("attention_layer_position", -1)
    eps, z_dim = config.get("eps", 1e-4), config.get("z_dim", 128)
    fits = isinstance(blocks, list) and 0 < len(blocks) <= MOST_BLOCKS
    for block in blocks if fits else ():
        whole = (
            isinstance(block, list) and len(block) == 3 and all(type(n) is int and 1 <= n <= 4096 for n in block[1:])
        )
        fits = fits and whole and isinstance(block[0], bool) and block[2] in (block[1], block[1] // 2)
    joined = fits and all(a[2] == b[1] for a, b in itertools.pairwise(blocks))
    if not joined or type(attention) is not int or type(z_dim) is not int or not 1 <= z_dim <= 2**16:
        raise CheckpointError(f"closest to {FAMILY}, but the layers in its settings do not follow upon one another")
    if type(eps) not in (int, float) or not 0 <= eps < 1:
        raise CheckpointError(f"closest to {FAMILY}, but eps in its settings is no small number")
    return [tuple(block) for block in blocks], attention, float(eps), z_dim
