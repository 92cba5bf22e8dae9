"""The embedded generator: 64x64 painted scenes from 128 latent numbers."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import dense

WEIGHTS = Path(__file__).with_name("scenes.safetensors")

UNITS = (256, 256, 192, 192, 128, 128, 64, 64, 32)


def pixel_norm(r: torch.Tensor) -> torch.Tensor:
    """Scale each cell of ``r`` (N, U, H, W) to a mean square of 1 over its units."""
    return r * torch.rsqrt(r.square().mean(1, keepdim=True) + 1e-8)


class Convolution(nn.Module):
    """3x3 convolution whose border repeats the outermost cells, so that no unit can tell the border by zeros."""

    def __init__(self, inputs: int, units: int, gain: float = 2**0.5):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(units, inputs, 3, 3) * gain / (9 * inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = F.pad(r, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(r, self.weight.to(r.dtype), self.bias.to(r.dtype))


class Dense(nn.Module):
    """The first layer: latents (N, Z) to features (N, U, 4, 4)."""

    def __init__(self, z_dim: int, units: int, size: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(units * size * size, z_dim) * (2 / z_dim) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(units))
        self.size = size

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        r = dense(pixel_norm(z), self.weight.to(z.dtype))
        r = r.unflatten(1, (-1, self.size, self.size)) + self.bias.to(z.dtype)[:, None, None]
        return F.leaky_relu(r, 0.2)


class Layer(nn.Module):
    """Pixel norm, doubling where ``up``, convolution, leaky ReLU: as in Progressive GAN (Karras et al., ICLR 2018)."""

    def __init__(self, inputs: int, units: int, up: bool):
        super().__init__()
        self.up = up
        self.conv = Convolution(inputs, units)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = pixel_norm(r)
        if self.up:
            r = F.interpolate(r, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.conv(r), 0.2)


class Output(nn.Module):
    """The only place where features become colour: (N, U, Y, X) to images (N, 3, Y, X)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv = Convolution(inputs, 3, gain=1.0)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.conv(pixel_norm(r))


class SceneGenerator(nn.Sequential):
    """A chain of ``layer1`` (4x4) … ``layer9`` (64x64) and ``output``; a layer's features alone determine the image.

    Parameters
    ----------
    z_dim : int
        Length of the latent.
    units : tuple of int
        Units of each layer; from ``layer3`` on, odd layers double the resolution.
    """

    def __init__(self, z_dim: int = 128, units: tuple[int, ...] = UNITS):
        super().__init__()
        self.add_module("layer1", Dense(z_dim, units[0]))
        for i in range(1, len(units)):
            self.add_module(f"layer{i + 1}", Layer(units[i - 1], units[i], up=i >= 2 and i % 2 == 0))
        self.add_module("output", Output(units[-1]))


def load(path: Path = WEIGHTS) -> Generator:
    """The embedded generator, or one of the same architecture from another safetensors file."""
    net = SceneGenerator().requires_grad_(False)
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    net.to(memory_format=torch.channels_last)
    layers = [name for name, _ in net.named_children() if name != "output"]
    return Generator(net, z_dim=net.layer1.weight.shape[1], name="scenes", layers=layers)
