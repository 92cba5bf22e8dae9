"""Progressive GAN (Karras et al., ICLR 2018), the architecture of the GAN Dissection papers."""

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.scenes import pixel_norm

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}


class ProgressiveLayer(nn.Module):
    """Pixel norm, doubling where ``up``, 3x3 convolution (4x4 in the first layer), scale and bias, leaky ReLU."""

    def __init__(self, inputs: int, units: int, first: bool = False, up: bool = False):
        super().__init__()
        self.up, size = up, 4 if first else 3
        self.conv = nn.Conv2d(inputs, units, size, padding=3 if first else 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(units))
        self.scale = 2**0.5 / (size * inputs**0.5)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = pixel_norm(r)
        if self.up:
            r = F.interpolate(r, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.conv(r) * self.scale + self.bias[:, None, None], 0.2)


class ProgressiveGenerator(nn.Sequential):
    """Latents (N, 512) to images (N, 3, R, R), R a power of two; ``layer1`` and ``layer2`` at 4x4, two more per doubling."""

    def __init__(self, resolution: int = 256, z_dim: int = 512):
        super().__init__()
        self.add_module("flat", nn.Unflatten(1, (z_dim, 1, 1)))
        units, size, number = z_dim, 4, 1
        while size <= resolution:
            for second in (False, True):
                layer = ProgressiveLayer(units, CHANNELS[size], first=number == 1, up=not second and number > 1)
                self.add_module(f"layer{number}", layer)
                units, number = CHANNELS[size], number + 1
            size *= 2
        self.add_module("output", nn.Conv2d(units, 3, 1))
