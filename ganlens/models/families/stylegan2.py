"""StyleGAN2 (Karras et al., CVPR 2020) and StyleGAN2-ADA (NeurIPS 2020), in plain PyTorch.

The formulas are those of the papers; names, paddings and gains are facts taken from the published code,
github.com/rosinality/stylegan2-pytorch and github.com/NVlabs/stylegan2-ada-pytorch, so that their files fit.

A layer that is modulated by a style yields feature maps (N, U, H, W) under the name that it has in the file, and its
style, one number per input channel, as (N, C, 1, 1) under that name and ``.style``: both can be dissected and edited.
So can the layers of the mapping network, ``mapping.layers.0`` …. Listed are the feature maps; the others go by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import dense, pointwise

EPSILON = 1e-8


def unit_square(x: torch.Tensor) -> torch.Tensor:
    """Scale x (N, C, …) to a mean square of 1 over its channels."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


def activated(r: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(r, 0.2) * 2**0.5


def default_kernel() -> torch.Tensor:
    """The smoothing kernel (4, 4), scaled for pictures in which three of four cells are zero."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(row, row) / 16


def smoothed(r: torch.Tensor, kernel: torch.Tensor, side: int) -> torch.Tensor:
    """Smooth r (N, U, 2H+1, 2W+1), the transposed convolution by ``side`` cells, to (N, U, 2H, 2W)."""
    extra = len(kernel) - 2 - (side - 1)
    before, after = (extra + 1) // 2 + 1, extra // 2 + 1
    weight = kernel.flip(0, 1).expand(r.shape[1], 1, -1, -1)  # each unit by itself
    return F.conv2d(F.pad(r, (before, after, before, after)), weight, groups=r.shape[1])


def doubled(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Images (N, C, Y, X), doubled and smoothed to (N, C, 2Y, 2X)."""
    n, c, y, x = image.shape
    start = len(kernel) - 2 - (len(kernel) - 1) // 2
    big = F.conv_transpose2d(image.flatten(0, 1)[:, None], kernel[None, None], stride=2)
    return big[..., start : start + 2 * y, start : start + 2 * x].unflatten(0, (n, c)).squeeze(2)


class Dense(nn.Module):
    """Linear map with equalised learning rate: weights times rate / sqrt(fan-in), biases times rate."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, rate: float = 1.0, active: bool = False):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.rate, self.active = rate, active

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = dense(x, self.weight * (self.rate / self.weight.shape[1] ** 0.5), self.bias * self.rate)
        return activated(x) if self.active else x


class Style(Dense):
    """The style of a layer, as maps of one cell: w (N, W) to (N, C, 1, 1)."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return super().forward(w)[..., None, None]


class Constant(nn.Module):
    """The learned constant (C, H, W) with which every image starts."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(w), -1, -1, -1)


class Layer(nn.Module):
    """Modulated and demodulated convolution, noise, bias, leaky ReLU.

    Instead of one convolution per image with its own weights, the input is scaled by the style and the output by the
    demodulation, which is the same (Karras et al., CVPR 2020, section 2.2).

    Parameters
    ----------
    weight : Tensor (U, C, k, k)
    style : Style
        Gives one number per input channel.
    bias : Tensor (U,)
    noise : Tensor (H, W)
        Fixed noise, its strength included.
    kernel : Tensor (L, L), optional
        Where given, the layer doubles the resolution and smooths with it.
    scale : float
        Constant factor of the weights.
    clamp : float, optional
        Largest absolute value of the output, before ``gain``.
    gain : float
        Factor of the output.
    """

    noise: torch.Tensor
    kernel: torch.Tensor | None

    def __init__(
        self, weight, style: Style, bias, noise, kernel=None, scale: float = 1.0, clamp: float | None = None, gain=1.0
    ):
        super().__init__()
        self.weight, self.style, self.bias = nn.Parameter(weight), style, nn.Parameter(bias)
        self.register_buffer("noise", noise)
        self.register_buffer("kernel", kernel)
        self.scale, self.clamp, self.gain = scale, clamp, gain

    def forward(self, r: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        s = self.style(w)  # (N, C, 1, 1)
        weight = self.weight * self.scale
        size = dense(s[..., 0, 0].square(), weight.square().sum((2, 3)))
        r, side = r * s, weight.shape[-1]
        if self.kernel is None:
            r = F.conv2d(r, weight, padding=side // 2)
        else:
            r = smoothed(F.conv_transpose2d(r, weight.transpose(0, 1), stride=2), self.kernel, side)
        r = r * torch.rsqrt(size + EPSILON)[..., None, None] + self.noise
        r = activated(r + self.bias[:, None, None])
        r = r if self.clamp is None else r.clamp(-self.clamp, self.clamp)
        return r if self.gain == 1 else r * self.gain


class Shortcut(nn.Module):
    """Linear map past two layers, doubled; what they yield is added to it (Karras et al., CVPR 2020, figure 7c)."""

    gain = 0.5**0.5  # of both, so that the sum is as large as each
    kernel: torch.Tensor

    def __init__(self, weight, kernel):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("kernel", kernel)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return doubled(pointwise(r, self.weight * (self.gain / self.weight.shape[1] ** 0.5)), self.kernel)


class Paint(nn.Module):
    """Modulated linear map from features to colours, added to ``below`` where that is given."""

    kernel: torch.Tensor

    def __init__(self, weight, style: Style, bias, kernel, clamp: float | None = None):
        super().__init__()
        self.weight, self.style, self.bias = nn.Parameter(weight), style, nn.Parameter(bias)
        self.register_buffer("kernel", kernel)
        self.clamp = clamp

    def forward(self, r: torch.Tensor, w: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        r = pointwise(r * self.style(w), self.weight / self.weight.shape[1] ** 0.5, self.bias)
        r = r if self.clamp is None else r.clamp(-self.clamp, self.clamp)
        return r if below is None else r + below


class StyleMapping(nn.Module):
    """Latents z (N, Z), and classes (N,) or weights (N, classes) where ``embed`` is given, to w (N, W)."""

    def __init__(self, layers: Sequence[Dense], embed: Dense | None = None):
        super().__init__()
        self.layers, self.embed = nn.Sequential(*layers), embed

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        x = unit_square(z)
        if self.embed is not None:
            labels = cast(torch.Tensor, labels)  # a network with an embedding is called with labels
            weights = labels if labels.ndim == 2 else F.one_hot(labels, self.embed.weight.shape[1])
            x = torch.cat([x, unit_square(self.embed(weights.to(z)))], 1)
        return self.layers(x)


class StyleGenerator(nn.Module):
    """Latents (N, Z) to images (N, C, Y, X); w is drawn towards its mean by the factor ``truncation``, 1 is not at all.

    Parameters
    ----------
    mapping : StyleMapping
    mean : Tensor (W,)
        Mean of w.
    modules : mapping of str to Module
        By dotted name and in their order: one `Constant`, then `Layer` s, and a `Paint` for each resolution or only the
        last one; perhaps a `Shortcut` in front of two layers.
    sums : bool
        Whether the output of a `Paint` includes what was painted before it, as in rosinality's code; in NVIDIA's the
        sum is taken outside of it.
    """

    mean: torch.Tensor

    def __init__(self, mapping, mean, modules: Mapping[str, nn.Module], sums: bool = True):
        super().__init__()
        self.mapping, self.sums = mapping, sums
        self.register_buffer("mean", mean)
        self.names = list(modules)
        for name, module in modules.items():
            place_module(self, name, module)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0) -> torch.Tensor:
        w = self.mean + truncation * (self.mapping(z, labels) - self.mean)
        r = past = None
        image: Any = None
        for name in self.names:
            module = self.get_submodule(name)
            if isinstance(module, Constant):
                r = module(w)
            elif isinstance(module, Shortcut):
                past = module(r)
            elif isinstance(module, Layer):
                r = module(r, w)
                if past is not None and module.kernel is None:
                    r, past = past + r, None
            elif isinstance(module, Paint):
                below = None if image is None else doubled(image, module.kernel)
                image = module(r, w, below) if self.sums or below is None else module(r, w) + below
        return image


def place_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Add a module under a dotted name; what lies between becomes empty modules."""
    *folders, last = name.split(".")
    for folder in folders:
        if folder not in root._modules:
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    root.add_module(last, module)


def mean_of(mapping: StyleMapping, z_dim: int) -> torch.Tensor:
    """Mean of w over 4096 fixed latents of all classes, for files that do not say it."""
    z = np.random.RandomState(0).standard_normal((4096, z_dim)).astype(np.float32)
    labels = None if mapping.embed is None else torch.arange(4096) % mapping.embed.weight.shape[1]
    with torch.no_grad():
        return mapping(torch.from_numpy(z), labels).mean(0)


def fixed_noise(index: int, size: int) -> torch.Tensor:
    """Noise (H, W) for files that contain none; numpy keeps these numbers."""
    return torch.from_numpy(np.random.RandomState(index).standard_normal((size, size)).astype(np.float32))
