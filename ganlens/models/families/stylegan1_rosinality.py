"""StyleGAN (Karras et al., CVPR 2019) from the files of github.com/rosinality/style-based-gan-pytorch.

A file has the blocks for all sizes up to 1024 pixels and does not say how far it was trained: blocks that never ran
still have noise strengths and biases of exactly 0. Noise is drawn anew in each pass there; here there is none.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, Pointwise
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes, without
from ganlens.models.families.genforce_parts import MOST_BLOCKS, shifted_sums
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.stylegan1_parts import Styled, blurred, drawn_towards
from ganlens.models.families.stylegan2 import unit_square
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "StyleGAN (rosinality)"
FORMAT = "StyleGAN of rosinality (style.1.linear.weight_orig, generator.progression.0.conv1.input, …)"
KEYS = re.compile(
    r"style\.\d+\.linear\.(weight_orig|bias)|generator\.to_rgb\.\d+\.conv\.(weight_orig|bias)"
    r"|generator\.progression\.\d+\.(conv1\.input|conv1\.\d\.(conv\.(weight_orig|bias)|weight|bias|weight_flip)"
    r"|conv2\.conv\.(weight_orig|bias)|noise[12]\.weight_orig|adain[12]\.style\.linear\.(weight_orig|bias))"
)
EPSILON, SLOPE, MEAN_OF = 1e-5, 0.2, 10_240


class UnitSquare(nn.Module):
    """Latents with a mean square of 1."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return unit_square(z)


class Growing(nn.Module):
    """Doubling, convolution and blur; as one transposed convolution in front of the blur where ``fused``."""

    def __init__(self, inputs: int, units: int, fused: bool):
        super().__init__()
        self.fused = fused
        self.weight = nn.Parameter(torch.zeros((inputs, units, 3, 3) if fused else (units, inputs, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        if self.fused:
            weight = shifted_sums(self.weight) / 4
            return blurred(F.conv_transpose2d(r, weight, self.bias, stride=2, padding=1))
        return blurred(F.conv2d(doubled(r), self.weight, self.bias, padding=1))


class Start(nn.Module):
    """The constant (1, U, 4, 4) with which every image starts."""

    def __init__(self, units: int):
        super().__init__()
        self.input = nn.Parameter(torch.zeros(1, units, 4, 4))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.input.expand(len(w), -1, -1, -1)


class Block(nn.Module):
    """Two layers of one resolution: convolution, leaky ReLU, style."""

    def __init__(self, inputs: int, units: int, width: int, kind: str):
        super().__init__()
        self.conv1 = Start(units) if kind == "start" else Growing(inputs, units, kind == "fused")
        self.adain1 = Styled(width, units, EPSILON, plus=0)
        self.conv2 = nn.Conv2d(units, units, 3, padding=1)
        self.adain2 = Styled(width, units, EPSILON, plus=0)

    def forward(self, r: torch.Tensor | None, w: torch.Tensor) -> torch.Tensor:
        r = self.adain1(F.leaky_relu(self.conv1(w if r is None else r), SLOPE), w)
        return self.adain2(F.leaky_relu(self.conv2(r), SLOPE), w)


class RosinalityStyle(nn.Module):
    """Latents (N, Z) to images (N, C, Y, X)."""

    mean: torch.Tensor | None

    def __init__(self, dense: int, width: int, units: Sequence[int], kinds: Sequence[str], colors: int):
        super().__init__()
        steps: list[nn.Module] = [UnitSquare()]
        for _ in range(dense):
            steps += [Dense(width, width), nn.LeakyReLU(SLOPE)]
        self.style = nn.Sequential(*steps)
        blocks = [Block(a, b, width, kind) for a, b, kind in zip((0, *units), units, kinds, strict=False)]
        self.generator = nn.Module()
        self.generator.progression = nn.ModuleList(blocks)
        self.generator.to_rgb = nn.ModuleDict({str(len(units) - 1): Pointwise(units[-1], colors)})
        self.register_buffer("mean", None, persistent=False)

    def forward(self, z: torch.Tensor, labels: None = None, truncation: float = 1.0) -> torch.Tensor:
        w = self.style(z)
        w = w if self.mean is None else drawn_towards(self.mean, w, truncation)
        r = None
        for block in self.generator.progression:  # type: ignore[union-attr]
            r = block(r, w)
        (paint,) = self.generator.to_rgb.values()  # type: ignore[operator]
        return paint(r)


def build(state: State, name: str) -> Generator:
    """The generator of a state dict, up to the last block that was trained.

    Truncation is towards the mean of 10,240 fixed samples, as the published code samples it.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another; or no block was ever trained.
    """
    tensors = real(state.tensors())
    blocks = counted(FAMILY, "blocks", numbers(r"generator\.progression\.(\d{1,6})\.", tensors), MOST_BLOCKS)
    reached = max((i for i in range(blocks) if is_trained(tensors, i)), default=-1)
    if reached < 0:
        raise CheckpointError(f"closest to {FAMILY}, but none of its {blocks} blocks was ever trained")
    kept = scaled(without(tensors, unused(reached, blocks)))
    dense = numbers(r"style\.(\d{1,6})\.", kept)
    if dense != list(range(1, 2 * len(dense), 2)) or not dense:
        raise CheckpointError(f"closest to {FAMILY}, but its dense layers have the numbers {dense[:12]}")
    units = [sizes(FAMILY, kept, f"generator.progression.{i}.conv2.weight", 4)[0] for i in range(reached + 1)]
    fused = [f"generator.progression.{i}.conv1.0.weight" in tensors for i in range(reached + 1)]
    kinds = ["fused" if is_fused else "grown" if i else "start" for i, is_fused in enumerate(fused)]
    width = sizes(FAMILY, kept, "style.1.weight", 2)[0]
    check_maps(FAMILY, [(n, 4 << i) for i, n in enumerate(units)])
    colors = sizes(FAMILY, kept, f"generator.to_rgb.{reached}.weight", 4)[0]
    net = assembled(FAMILY, lambda: RosinalityStyle(len(dense), width, units, kinds, colors), kept)
    z = np.random.RandomState(0).standard_normal((MEAN_OF, width)).astype(np.float32)
    with torch.no_grad():
        net.mean = net.style(torch.from_numpy(z)).mean(0)
    parts = [f"generator.progression.{i}" for i in range(reached + 1)]
    layers = [f"{key}{part}" for key in parts for part in (".conv1", ".adain1", ".conv2", "")]
    layers = [*layers[1:], f"generator.to_rgb.{reached}"]
    vectors = [*(f"style.{i}" for i in dense), "style", *(f"{key}.adain{n}.style" for key in parts for n in (1, 2))]
    G = Generator(net, width, name, layers=layers, truncates=True, vectors=vectors, trusted=True)
    if reached + 1 < blocks:
        G.about = f"trained to {4 << reached} x {4 << reached} pixels; the blocks behind are as they were made"
    return G


def is_trained(state: Mapping[str, torch.Tensor], i: int) -> bool:
    """Whether a block has ever run in training."""
    names = (f"progression.{i}.noise1.weight_orig", f"progression.{i}.noise2.weight_orig", f"to_rgb.{i}.conv.bias")
    return any(f"generator.{name}" in state and bool(state[f"generator.{name}"].any()) for name in names)


def unused(reached: int, blocks: int) -> str:
    """Names of what is not needed: blocks behind the last trained one, earlier colours, blurs, noise strengths."""
    beyond = "|".join(str(i) for i in range(reached + 1, blocks)) or "none"
    others = "|".join(str(i) for i in range(blocks) if i != reached) or "none"
    return (
        rf"generator\.(progression\.({beyond})\..*|to_rgb\.({others})\..*"
        r"|progression\.\d+\.(conv1\.\d\.(weight|weight_flip)(?<!conv1\.0\.weight)|noise[12]\.weight_orig))"
    )


def scaled(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict under plain names, its weights with their constant factors."""
    found = {}
    for key, x in state.items():
        fused = re.fullmatch(r"generator\.progression\.\d+\.conv1\.0\.weight", key)
        if fused or key.endswith("weight_orig"):
            inputs = x.shape[0 if fused else 1] if x.ndim > 1 else 1
            x = x * math.sqrt(2 / max(1, inputs * math.prod(x.shape[2:])))
        plain = re.sub(r"(conv1)\.\d\.", r"\1.", key).replace(".conv.", ".").replace(".linear.", ".")
        found[plain.replace("weight_orig", "weight")] = x
    return found
