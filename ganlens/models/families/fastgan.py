"""FastGAN (Liu et al., "Towards Faster and Stabilized GAN Training", ICLR 2021) from its authors' files.

Noise is drawn anew in each pass there; here there is none. Batch norms use the statistics in the file.
"""

import re
from collections.abc import Mapping

import torch
from torch import nn

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Pointwise
from ganlens.models.families.assembling import COUNTERS, assembled, real, sizes, without
from ganlens.models.families.spectral_norm import settled
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.records import Stored
from ganlens.models.files.states import State

FAMILY = "FastGAN"
FORMAT = "FastGAN (init.init.0.weight_orig, feat_8.1.weight_orig, se_64.main.1.weight_orig, …)"
WEIGHT = r"(weight|weight_orig|weight_u|weight_v)"
KEYS = re.compile(
    rf"init\.init\.(0\.{WEIGHT}|1\.(weight|bias|running_mean|running_var|{COUNTERS}))|to_(128|big)\.{WEIGHT}"
    rf"|feat_\d+\.\d\.({WEIGHT}|bias|running_mean|running_var|{COUNTERS})|se_\d+\.main\.[13]\.{WEIGHT}"
)
BUFFERS = ("running_mean", "running_var", COUNTERS, "weight_u", "weight_v")
DOUBLE = (8, 32, 128, 512)  # sizes whose blocks have two convolutions
GATES = {64: 4, 128: 8, 256: 16, 512: 32}  # which maps open and close the units of which


class Gate(nn.Module):
    """Maps, each unit times a number in 0 … 1 that follows from smaller maps (skip-layer excitation)."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(inputs, units, 4, bias=False),
            nn.SiLU(),
            Pointwise(units, units, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, small: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return r * self.main(small)


class Start(nn.Module):
    """Latents (N, Z) to the first maps (N, U, 4, 4)."""

    def __init__(self, z_dim: int, units: int):
        super().__init__()
        self.init = nn.Sequential(
            nn.ConvTranspose2d(z_dim, 2 * units, 4, bias=False), nn.BatchNorm2d(2 * units), nn.GLU(1)
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.init(z[..., None, None])


def growing(inputs: int, units: int, double: bool) -> nn.Sequential:
    """Doubling, and one or two convolutions with gates of their own; under the numbers that they have in the files."""
    block = nn.Sequential()
    block.add_module("0", nn.Upsample(scale_factor=2.0, mode="nearest"))
    place = 1
    for a in (inputs, units) if double else (inputs,):
        block.add_module(f"{place}", nn.Conv2d(a, 2 * units, 3, padding=1, bias=False))
        place += 2 if double else 1  # behind it is the noise
        block.add_module(f"{place}", nn.BatchNorm2d(2 * units))
        block.add_module(f"{place + 1}", nn.GLU(1))
        place += 2
    return block


class FastGenerator(nn.Module):
    """Latents (N, Z) to images (N, C, Y, X).

    Parameters
    ----------
    z_dim, colors : int
    units : mapping of int to int
        Units of the maps of each size, from 4 on.
    """

    def __init__(self, z_dim: int, units: Mapping[int, int], colors: int):
        super().__init__()
        self.sizes = list(units)[1:]
        self.init = Start(z_dim, units[4])
        for size in self.sizes:
            self.add_module(f"feat_{size}", growing(units[size // 2], units[size], size in DOUBLE))
            if size in GATES:
                self.add_module(f"se_{size}", Gate(units[GATES[size]], units[size]))
        self.to_big = nn.Conv2d(units[self.sizes[-1]], colors, 3, padding=1, bias=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        maps = {4: self.init(z)}
        for size in self.sizes:
            r = self.get_submodule(f"feat_{size}")(maps[size // 2])
            maps[size] = self.get_submodule(f"se_{size}")(maps[GATES[size]], r) if size in GATES else r
        image = self.to_big(maps[self.sizes[-1]])
        return torch.tanh(image) if self.sizes[-1] == 1024 else image


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; of the averaged weights, where they stand beside it as a list.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors, said = averaged(state)
    tensors = without(settled(real(tensors), FAMILY, {"init.init.0"}), r"to_128\..*|feat_(8|32|128|512)\.[26]\.weight")
    largest = next((size for size in (1024, 512, 256) if f"feat_{size}.1.weight" in tensors), 256)
    units = {4: sizes(FAMILY, tensors, "init.init.1.running_mean", 1)[0] // 2}
    size = 8
    while size <= largest:
        units[size] = sizes(FAMILY, tensors, f"feat_{size}.1.weight", 4)[0] // 2
        size *= 2
    check_maps(FAMILY, [(2 * n, size) for size, n in units.items()])
    z_dim = sizes(FAMILY, tensors, "init.init.0.weight", 4)[0]
    colors = sizes(FAMILY, tensors, "to_big.weight", 4)[0]
    net = assembled(FAMILY, lambda: FastGenerator(z_dim, units, colors), tensors)
    layers = [
        "init",
        *(f"{part}_{size}" for size in net.sizes for part in ("feat", "se") if part == "feat" or size in GATES),
    ]
    G = Generator(net, z_dim, name, layers=[*layers, "to_big"], trusted=True)
    G.about = said
    return G


def averaged(state: State) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors, with the averaged weights in place of the live ones where there are any, and what is said of it."""
    tensors = state.tensors()
    average = state.tree.get("g_ema") if isinstance(state.tree, dict) and state.where == "g" else None
    if not isinstance(average, list):
        return tensors, ""
    names = [key for key in tensors if not key.endswith(BUFFERS)]
    shapes = [tuple(x.shape) if isinstance(x, Stored | torch.Tensor) else None for x in average]
    if shapes != [tuple(tensors[key].shape) for key in names]:
        raise CheckpointError(
            f"closest to {FAMILY}, but the list g_ema does not have the shapes of its {len(names)} weights"
        )
    loaded = [x.load() if isinstance(x, Stored) else x for x in average]
    return tensors | dict(
        zip(names, loaded, strict=True)
    ), "the averaged weights of the list g_ema, with g's statistics"
