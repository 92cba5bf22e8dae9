"""The embedded generator: 64x64 painted scenes from 128 latent numbers."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import dense

WEIGHTS = Path(__file__).with_name("scenes.safetensors")

UNITS = (256, 256, 192, 192, 160, 160, 64, 64, 32)


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


class DoublingConvolution(nn.Module):
    """Doubling and 3x3 convolution in one step at the lower resolution, then smoothing (Karras et al., CVPR 2020).

    A doubling by nearest neighbours would cost four times the products and leave steps of two pixels in flat areas.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, units, 3, 3) * (2 / (9 * inputs)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = F.pad(r, (1, 1, 1, 1), mode="replicate")
        bias = self.bias.to(r.dtype) / 4  # smoothing multiplies by 4 what is constant
        r = F.conv_transpose2d(r, self.weight.to(r.dtype), bias, stride=2, padding=1)  # (N, U, 2 H + 3, 2 W + 3)
        return Smoothing.apply(r)


class Smoothing(torch.autograd.Function):
    """Each unit's map smoothed by (1, 3, 3, 1) / 4 along both axes; the sides lose three cells.

    The factor of 4 makes up for the zeros between the cells of a doubled map. The gradient is written out because the
    library's own, of a grouped convolution, is several times slower.
    """

    @staticmethod
    def forward(context, r: torch.Tensor) -> torch.Tensor:
        return smooth(r, padding=0)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        return smooth(gradient.contiguous(memory_format=torch.channels_last), padding=3)


def smooth(r: torch.Tensor, padding: int) -> torch.Tensor:
    along = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=r.dtype, device=r.device)
    kernel = (along[:, None] * along).expand(r.shape[1], 1, 4, 4)
    return F.conv2d(r, kernel, padding=padding, groups=r.shape[1])


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
    """Pixel norm, convolution, doubling where ``up``, leaky ReLU: as in Progressive GAN (Karras et al., ICLR 2018)."""

    def __init__(self, inputs: int, units: int, up: bool):
        super().__init__()
        self.conv = DoublingConvolution(inputs, units) if up else Convolution(inputs, units)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.conv(pixel_norm(r)), 0.2)


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
    net = SceneGenerator().requires_grad_(False).eval()
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    layers = [name for name, _ in net.named_children() if name != "output"]
    return Generator(net, z_dim=net.get_parameter("layer1.weight").shape[1], name="scenes", layers=layers, trusted=True)
