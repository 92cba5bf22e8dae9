"""What the files of genforce's code bases (github.com/genforce: GenForce, SeFa, InterFaceGAN) have in common."""

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import Dense
from ganlens.models.families.assembling import counted, numbers, sizes
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.stylegan2 import unit_square
from ganlens.models.files.reading import CheckpointError

MOST_BLOCKS, MOST_DENSE, MLP_RATE = 10, 64, 0.01  # 2048 px


def shifted_sums(weight: torch.Tensor) -> torch.Tensor:
    """Kernels (…, k, k), laid four times over one another, shifted by a cell each: (…, k + 1, k + 1).

    A transposed convolution by it with stride 2 doubles by nearest neighbours and convolves at once.
    """
    wide = F.pad(weight, (1, 1, 1, 1))
    return wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]


class Mapping8(nn.Module):
    """Latents z (N, Z), beside an embedding of their classes where there are any, to w (N, W).

    Latent and embedding are scaled to a mean square of 1 together, unlike in NVIDIA's networks.
    """

    def __init__(self, widths: list[int], classes: int | None, z_dim: int, gain: float):
        super().__init__()
        self.gain = gain
        self.label_weight = None if classes is None else nn.Parameter(torch.zeros(classes, z_dim))
        self.count = len(widths) - 1
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            self.add_module(f"dense{i}", Dense(inputs, outputs))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.label_weight is not None and labels is not None:
            hot = labels if labels.ndim == 2 else F.one_hot(labels, len(self.label_weight))
            z = torch.cat([z, hot.to(z) @ self.label_weight], 1)
        z = unit_square(z)
        for i in range(self.count):
            z = F.leaky_relu(self.get_submodule(f"dense{i}")(z), 0.2) * self.gain
        return z


def mapping_of(
    state: Mapping[str, torch.Tensor], family: str, weights: float, biases: float, gain: float
) -> tuple[Callable[[], Mapping8], dict[str, torch.Tensor], int, int | None]:
    """How to make the mapping network, its tensors without their constant factors, Z, and the number of classes.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``mapping.dense0.weight`` (V, Z), ….
    family : str
        For messages.
    weights, biases : float
        Their factors; that of weights is divided by the root of their inputs.
    gain : float
        Factor of what each leaky ReLU gives.
    """
    count = counted(family, "dense layers", numbers(r"mapping\.dense(\d{1,6})\.", state), MOST_DENSE)
    shapes = [sizes(family, state, f"mapping.dense{i}.weight", 2) for i in range(count)]
    widths = [shapes[0][1], *(outputs for outputs, _ in shapes)]
    classes, z_dim = None, widths[0]
    if "mapping.label_weight" in state:
        classes, z_dim = sizes(family, state, "mapping.label_weight", 2)
        if widths[0] != 2 * z_dim:
            raise CheckpointError(f"closest to {family}, but mapping.dense0 takes {widths[0]} numbers, not 2 x {z_dim}")
    scaled = {name: x for name, x in state.items() if name.startswith("mapping.")}
    for i, inputs in enumerate(widths[:-1]):
        name = f"mapping.dense{i}"
        scaled[f"{name}.weight"] = scaled[f"{name}.weight"] * (weights / math.sqrt(inputs))
        if f"{name}.bias" in scaled:
            scaled[f"{name}.bias"] = scaled[f"{name}.bias"] * biases
    return lambda: Mapping8(widths, classes, z_dim, gain), scaled, z_dim, classes


class Fading(nn.Module):
    """Blocks of two layers that grow the maps, and images painted from them, faded as far as the network was trained.

    Parameters
    ----------
    blocks : int
        How many resolutions there are, from 4 x 4 on.
    lod : float
        How many doublings were still to come; between whole numbers one was being faded in. Blocks that lie beyond do
        not run, and the image is enlarged (Karras et al., ICLR 2018, figure 2).
    """

    def __init__(self, blocks: int, lod: float):
        super().__init__()
        self.blocks, self.lod = blocks, lod

    def runs(self, i: int) -> bool:
        return self.lod < self.blocks - i

    def paints(self, i: int) -> bool:
        return self.runs(i) and self.lod > self.blocks - 2 - i

    def painted(self, layer: Callable[[int, torch.Tensor | None], torch.Tensor]) -> torch.Tensor:
        """The image; ``layer(n, r)`` runs layer n behind features r."""
        r: torch.Tensor | None = None
        image = torch.empty(0)
        for i in range(self.blocks):
            if not self.runs(i):
                image = doubled(image)
                continue
            r = layer(2 * i + 1, layer(2 * i, r))
            if self.paints(i):
                new, below = self.get_submodule(f"output{i}")(r), image
                share = min(1.0, self.blocks - i - self.lod)  # 1 but for the block that is being faded in
                image = new if share == 1 else new * share + doubled(below) * (1 - share)
        return image

    def names(self, prefix: str = "") -> list[str]:
        """The layers and the paints that run, in their order."""
        return [
            f"{prefix}{part}"
            for i in range(self.blocks)
            for part in (f"layer{2 * i}", f"layer{2 * i + 1}", f"output{i}")
            if (self.paints(i) if part.startswith("output") else self.runs(i))
        ]


def lod_of(state: Mapping[str, torch.Tensor], key: str, blocks: int, family: str) -> float:
    """What a file says of how far its network was trained."""
    sizes(family, state, key, 0)
    lod = float(state[key])
    if not 0 <= lod <= blocks - 1:
        raise CheckpointError(f"closest to {family}, but {key} is {lod:g}; expected 0 … {blocks - 1}")
    return lod


def faded(lod: float, blocks: int) -> str:
    """What is to be said of a network that was not trained to its full size."""
    size = 4 * 2 ** (blocks - 1)
    return f"trained to lod {lod:g}: images of {size} x {size} pixels are enlarged from smaller ones" if lod else ""
