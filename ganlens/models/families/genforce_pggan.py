"""Progressive GAN (Karras et al., ICLR 2018) from genforce's files."""

import itertools
import math
import re
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import pointwise
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes
from ganlens.models.families.genforce_parts import (
    MOST_BLOCKS,
    Fading,
    faded,
    lod_of,
    shifted_sums,
)
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.stylegan2 import unit_square
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "Progressive GAN (genforce)"
FORMAT = "Progressive GAN of genforce (lod, layer0.weight, output0.weight, …)"
NEEDED = "lod"
KEYS = re.compile(r"lod|(layer|output)\d+\.(weight|bias)")


class Layer(nn.Module):
    """Pixel norm, doubling where ``up``, convolution, leaky ReLU where ``active``.

    With ``fused`` doubling and convolution are one transposed convolution, whose weight has its inputs first.
    """

    def __init__(self, inputs: int, units: int, side: int, up: bool = False, fused: bool = False, active: bool = True):
        super().__init__()
        self.up, self.fused, self.active = up, fused, active
        self.padding = {4: 3, 3: 1, 1: 0}[side]
        self.weight = nn.Parameter(torch.empty((inputs, units, side, side) if fused else (units, inputs, side, side)))
        self.bias = nn.Parameter(torch.empty(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = unit_square(r)
        if self.fused:
            r = F.conv_transpose2d(r, shifted_sums(self.weight), self.bias, stride=2, padding=1)
        elif self.padding == 0:
            r = pointwise(r, self.weight, self.bias)
        else:
            r = F.conv2d(doubled(r) if self.up else r, self.weight, self.bias, padding=self.padding)
        return F.leaky_relu(r, 0.2) if self.active else r


class GenforceProgressive(Fading):
    """Latents (N, Z) to images (N, C, Y, X)."""

    def __init__(self, z_dim: int, units: Sequence[int], colors: int, fused: bool, lod: float):
        super().__init__(len(units), lod)
        inputs = z_dim
        for i, outputs in enumerate(units):
            first = Layer(inputs, outputs, 3, up=True, fused=fused) if i else Layer(inputs, outputs, 4)
            self.add_module(f"layer{2 * i}", first)
            self.add_module(f"layer{2 * i + 1}", Layer(outputs, outputs, 3))
            self.add_module(f"output{i}", Layer(outputs, colors, 1, active=False))
            inputs = outputs

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = unit_square(z)[..., None, None]
        return self.painted(lambda n, r: self.get_submodule(f"layer{n}")(z if r is None else r))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors = real(state.tensors())
    blocks = counted(FAMILY, "blocks", numbers(r"output(\d{1,6})\.", tensors), MOST_BLOCKS)
    lod = lod_of(tensors, "lod", blocks, FAMILY)
    units = [sizes(FAMILY, tensors, f"layer{2 * i + 1}.weight", 4)[0] for i in range(blocks)]
    z_dim = sizes(FAMILY, tensors, "layer0.weight", 4)[1]
    fused = is_fused(tensors, units)
    check_maps(FAMILY, [(n, 4 << i) for i, n in enumerate(units)])
    colors = sizes(FAMILY, tensors, "output0.weight", 4)[0]
    state_dict = {key: x for key, x in tensors.items() if key != "lod"}
    net = assembled(
        FAMILY, lambda: GenforceProgressive(z_dim, units, colors, fused, lod), scaled(state_dict, fused, units)
    )
    G = Generator(net, z_dim, name, layers=net.names(), trusted=True)
    G.about = faded(lod, blocks)
    return G


def is_fused(state: Mapping[str, torch.Tensor], units: Sequence[int]) -> bool:
    """Whether doubling and convolution are one: then weights have their inputs first, where that can be seen."""
    seen = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(units), start=1):
        shape = sizes(FAMILY, state, f"layer{2 * i}.weight", 4)[:2]
        if inputs != outputs and shape in ((outputs, inputs), (inputs, outputs)):
            seen.append(shape == (inputs, outputs))
    if len(set(seen)) > 1:
        raise CheckpointError(f"closest to {FAMILY}, but some of its layers double in one way and some in the other")
    if not seen and len(units) > 1:
        warnings.warn(
            "whether doubling and convolution are one step is not in the file, as all layers are equally wide; two "
            "steps are assumed, as usual. If it is otherwise, build the network yourself: Generator.wrap(net, z_dim=…)",
            stacklevel=7,
        )
    return bool(seen and seen[0])


def scaled(state: Mapping[str, torch.Tensor], fused: bool, units: Sequence[int]) -> dict[str, torch.Tensor]:
    """The state dict with the constant factors of its weights."""
    found = dict(state)
    for key, weight in state.items():
        if key.endswith(".weight") and weight.ndim == 4:
            up = fused and re.fullmatch(r"layer\d*[02468]\.weight", key) and key != "layer0.weight"
            fan_in = weight.shape[0 if up else 1] * weight.shape[2] * weight.shape[3]
            found[key] = weight * ((1.0 if key.startswith("output") else 2**0.5) / math.sqrt(fan_in))
    return found
