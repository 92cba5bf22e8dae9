"""DCGAN (Radford et al., ICLR 2016) from the files of facebookresearch's GAN zoo.

The zoo shows images of its networks in training mode, normalised by the batch that they are in; here an image is
decided by its seed, and normalised by the statistics in the file.
"""

import itertools
import re

import torch
from torch import nn

from ganlens.models.base import Generator
from ganlens.models.families.assembling import COUNTERS, assembled, counted, numbers, real, sizes
from ganlens.models.families.ganzoo_parts import Attributes, Settings
from ganlens.models.files.reading import check_maps
from ganlens.models.files.states import State

FAMILY = "DCGAN (GAN zoo)"
FORMAT = "DCGAN of the GAN zoo (formatLayer.weight, main.batchNorm0.weight, …, main.outlayer.weight)"
NEEDED = "formatLayer.weight"
KEYS = re.compile(
    r"formatLayer\.weight|main\.(outlayer\.weight|convTranspose\d+\.weight"
    rf"|batchNorm\d+\.(weight|bias|running_mean|running_var|{COUNTERS}))"
)
MOST_DOUBLINGS = 9


class ZooDCGAN(nn.Module):
    """Latents (N, Z), and attributes where there are any, to images (N, C, Y, X)."""

    def __init__(self, attributes: list[int], z_dim: int, units: list[int], colors: int, bounded: bool):
        super().__init__()
        self.bounded = bounded
        self.attributes = Attributes(attributes)
        self.formatLayer = nn.ConvTranspose2d(z_dim + sum(attributes), units[0], 4, bias=False)
        self.main = nn.Sequential()
        self.main.add_module("batchNorm0", nn.BatchNorm2d(units[0]))
        self.main.add_module("relu0", nn.ReLU())
        for i, (inputs, outputs) in enumerate(itertools.pairwise(units), start=1):
            self.main.add_module(f"convTranspose{i}", nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False))
            self.main.add_module(f"batchNorm{i}", nn.BatchNorm2d(outputs))
            self.main.add_module(f"relu{i}", nn.ReLU())
        self.main.add_module("outlayer", nn.ConvTranspose2d(units[-1], colors, 4, 2, 1, bias=False))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        image = self.main(self.formatLayer(self.attributes(z, labels)[..., None, None]))
        return torch.tanh(image) if self.bounded else image


def build(state: State, name: str) -> Generator:
    """The generator of a state dict and of the settings in its file.

    Raises
    ------
    CheckpointError
        Tensors or settings are missing, left over, or do not fit one another.
    """
    settings = Settings(state, FAMILY, "DCGAN")
    settings.warn("tanh at the end, no attributes")
    tensors = real(state.tensors())
    norms = counted(FAMILY, "norms", numbers(r"main\.batchNorm(\d{1,6})\.", tensors), MOST_DOUBLINGS)
    units = [sizes(FAMILY, tensors, f"main.batchNorm{i}.running_mean", 1)[0] for i in range(norms)]
    inputs = sizes(FAMILY, tensors, "formatLayer.weight", 4)[0]
    colors = sizes(FAMILY, tensors, "main.outlayer.weight", 4)[1]
    check_maps(FAMILY, [(n, 4 << i) for i, n in enumerate(units)])
    z_dim, attributes = settings.split(inputs), settings.attributes
    net = assembled(FAMILY, lambda: ZooDCGAN(attributes, z_dim, units, colors, settings.bounded), tensors)
    layers = ["formatLayer", *(f"main.{name}" for name, _ in net.main.named_children())]
    return Generator(net, z_dim, name, layers=layers, classes=sum(attributes) or None, trusted=True)
