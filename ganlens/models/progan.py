"""Progressive GAN (Karras et al., ICLR 2018), the architecture of the GAN Dissection papers."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.scenes import pixel_norm

UNITS_256 = (512, 512, 512, 512, 512, 512, 256, 256, 128, 128, 64, 64, 32, 32)


class Scaled(nn.Module):
    """Convolution without bias, then a constant scale, gain / sqrt(fan-in), and a bias."""

    def __init__(self, inputs: int, units: int, size: int, padding: int, gain: float):
        super().__init__()
        self.conv = nn.Conv2d(inputs, units, size, padding=padding, bias=False)
        self.bias = nn.Parameter(torch.zeros(units))
        self.scale = gain / (size * inputs**0.5)
        nn.init.normal_(self.conv.weight)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.conv(r) * self.scale + self.bias[:, None, None]


class ProgressiveLayer(nn.Module):
    """Pixel norm, doubling where ``up``, scaled convolution, leaky ReLU."""

    def __init__(self, inputs: int, units: int, first: bool, up: bool):
        super().__init__()
        self.up = up
        self.scaled = Scaled(inputs, units, 4 if first else 3, padding=3 if first else 1, gain=2**0.5)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = pixel_norm(r)
        if self.up:
            r = F.interpolate(r, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.scaled(r), 0.2)


class Output(nn.Module):
    """Pixel norm and a linear map to colours."""

    def __init__(self, inputs: int):
        super().__init__()
        self.scaled = Scaled(inputs, 3, 1, padding=0, gain=1.0)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.scaled(pixel_norm(r))


class ProgressiveGenerator(nn.Sequential):
    """Latents (N, Z) to images (N, 3, Y, X), with random weights; ``layer1``, ``layer2``, … and ``output``.

    Parameters
    ----------
    units : sequence of int
        Units of each layer: two layers at 4x4, and two more for every doubling. The published 256-pixel networks
        have ``UNITS_256``.
    z_dim : int
        Length of the latent.
    """

    def __init__(self, units: Sequence[int] = UNITS_256, z_dim: int = 512):
        super().__init__()
        self.add_module("latent", nn.Unflatten(1, (z_dim, 1, 1)))
        for i, (inputs, outputs) in enumerate(zip((z_dim, *units), units, strict=False)):
            layer = ProgressiveLayer(inputs, outputs, first=i == 0, up=i >= 2 and i % 2 == 0)
            self.add_module(f"layer{i + 1}", layer)
        self.add_module("output", Output(units[-1]))
