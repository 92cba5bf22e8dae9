"""StyleGAN (Karras et al., CVPR 2019) from genforce's files."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, Pointwise
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes, without
from ganlens.models.families.genforce_parts import (
    MLP_RATE,
    MOST_BLOCKS,
    Fading,
    Mapping8,
    faded,
    lod_of,
    mapping_of,
    shifted_sums,
)
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.stylegan1_parts import blurred, drawn_towards, normalized
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "StyleGAN (genforce)"
FORMAT = "StyleGAN of genforce (mapping.dense0.weight, synthesis.layer0.const, synthesis.lod, …)"
NEEDED = "synthesis.lod"
KEYS = re.compile(
    r"mapping\.(label_weight|dense\d+\.(weight|bias))|truncation\.w_avg|synthesis\.(lod|output\d+\.(weight|bias)"
    r"|layer\d+\.(const|weight|bias|apply_noise\.(weight|noise)|style\.(weight|bias)|blur\.kernel))"
)
FUSED_FROM = 128  # pixels: from there on doubling and convolution are one step, as in the original code
EPSILON = 1e-8


class Noise(nn.Module):
    """The file's noise (1, 1, H, W), by a learned strength for each unit."""

    noise: torch.Tensor

    def __init__(self, units: int, side: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(units))
        self.register_buffer("noise", torch.zeros(1, 1, side, side))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r + self.noise * self.weight[:, None, None]


class Layer(nn.Module):
    """Convolution (or the constant), blur behind a doubling, noise, bias, leaky ReLU, instance norm, style."""

    def __init__(self, inputs: int, units: int, side: int, width: int, kind: str):
        super().__init__()
        self.kind, self.side = kind, side
        self.bias = nn.Parameter(torch.zeros(units))
        if kind == "const":
            self.const = nn.Parameter(torch.zeros(1, units, side, side))
        else:
            self.weight = nn.Parameter(torch.zeros(units, inputs, 3, 3))
        self.apply_noise = Noise(units, side)
        self.style = Dense(width, 2 * units)

    def forward(self, r: torch.Tensor | None, w: torch.Tensor) -> torch.Tensor:
        r = self.apply_noise(self.drawn(r, len(w))) + self.bias[:, None, None]
        factor, offset = self.style(w)[..., None, None].chunk(2, 1)
        return normalized(F.leaky_relu(r, 0.2), EPSILON) * (factor + 1) + offset

    def drawn(self, r: torch.Tensor | None, n: int) -> torch.Tensor:
        if r is None:
            return self.const.expand(n, -1, -1, -1)
        if self.kind == "up" and self.side >= FUSED_FROM:
            return blurred(F.conv_transpose2d(r, shifted_sums(self.weight).transpose(0, 1), stride=2, padding=1))
        r = F.conv2d(doubled(r) if self.kind == "up" else r, self.weight, padding=1)
        return blurred(r) if self.kind == "up" else r


class Synthesis(Fading):
    """From w (N, W) to images (N, C, Y, X)."""

    def __init__(self, width: int, units: Sequence[int], colors: int, lod: float):
        super().__init__(len(units), lod)
        inputs = units[0]
        for i, outputs in enumerate(units):
            side = 4 << i
            self.add_module(f"layer{2 * i}", Layer(inputs, outputs, side, width, "up" if i else "const"))
            self.add_module(f"layer{2 * i + 1}", Layer(outputs, outputs, side, width, "same"))
            self.add_module(f"output{i}", Pointwise(outputs, colors))
            inputs = outputs

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.painted(lambda n, r: self.get_submodule(f"layer{n}")(r, w))


class GenforceStyle(nn.Module):
    """Latents (N, Z), and classes where there are any, to images (N, C, Y, X)."""

    def __init__(self, mapping: Mapping8, synthesis: Synthesis, width: int):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self.truncation = nn.Module()
        self.truncation.register_buffer("w_avg", torch.zeros(width))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0) -> torch.Tensor:
        mean = self.truncation.get_buffer("w_avg")
        return self.synthesis(drawn_towards(mean, self.mapping(z, labels), truncation))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; ``truncation`` is for all layers.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors = without(real(state.tensors()), r"synthesis\.layer\d+\.blur\.kernel")
    blocks = counted(FAMILY, "blocks", numbers(r"synthesis\.output(\d{1,6})\.", tensors), MOST_BLOCKS)
    lod = lod_of(tensors, "synthesis.lod", blocks, FAMILY)
    mapping, mapped, z_dim, classes = mapping_of(tensors, FAMILY, 2**0.5 * MLP_RATE, MLP_RATE, 1.0)
    units = [sizes(FAMILY, tensors, f"synthesis.layer{2 * i + 1}.weight", 4)[0] for i in range(blocks)]
    width = sizes(FAMILY, tensors, "truncation.w_avg", 1)[0]
    if width != sizes(FAMILY, tensors, "synthesis.layer0.style.weight", 2)[1]:
        raise CheckpointError(f"closest to {FAMILY}, but its w differ from layer to layer, or in length")
    check_maps(FAMILY, [(n, 4 << i) for i, n in enumerate(units)])
    colors = sizes(FAMILY, tensors, "synthesis.output0.weight", 4)[0]
    state_dict = without(scaled(tensors), r"synthesis\.lod") | mapped
    net = assembled(FAMILY, lambda: GenforceStyle(mapping(), Synthesis(width, units, colors, lod), width), state_dict)
    layers = net.synthesis.names("synthesis.")
    styles = [f"{key}.style" for key in layers if ".layer" in key]
    vectors = [*(f"mapping.dense{i}" for i in range(net.mapping.count)), "mapping", *styles]
    G = Generator(net, z_dim, name, layers=layers, classes=classes, truncates=True, vectors=vectors, trusted=True)
    G.about = faded(lod, blocks)
    return G


def scaled(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the constant factors of the synthesis network's weights."""
    found = dict(state)
    for key, weight in state.items():
        if re.fullmatch(r"synthesis\.(layer|output)\d+(\.style)?\.weight", key) and weight.ndim in (2, 4):
            gain = 1.0 if weight.ndim == 2 or "output" in key else 2**0.5
            found[key] = weight * (gain / math.sqrt(weight[0].numel()))
    return found
