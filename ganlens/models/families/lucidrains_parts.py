"""What the files of lucidrains' generators (stylegan2-pytorch, lightweight-gan) have in common."""

from math import sqrt

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import Pointwise
from ganlens.models.image_ranges import RANGES

EPSILON = 1e-5
HEAD = 64  # channels of a head of attention


def smoothed(r: torch.Tensor) -> torch.Tensor:
    """Maps r (N, U, H, W), smoothed by 1 2 1 along both axes, mirrored at their borders."""
    row = torch.tensor([0.25, 0.5, 0.25], device=r.device, dtype=r.dtype).expand(r.shape[1], 1, 3)
    r = F.pad(r, (1, 1, 1, 1), mode="reflect")
    r = F.conv2d(r, row[..., None], groups=r.shape[1])
    return F.conv2d(r, row[:, :, None], groups=r.shape[1])


def shown(image: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] of images (N, C, Y, X) in [0, 1]; a fourth channel is opacity, and they are laid over white."""
    return RANGES["rgba in [0,1]"](image) if image.shape[1] == 4 else 2 * image - 1


class ChannelNorm(nn.Module):
    """Each cell with a mean of 0 and a deviation of 1 over its channels, then factors and offsets."""

    def __init__(self, channels: int):
        super().__init__()
        self.g, self.b = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        deviation = (r.var(1, unbiased=False, keepdim=True) + EPSILON).sqrt()
        return (r - r.mean(1, keepdim=True)) / deviation * self.g + self.b


class Separable(nn.Module):
    """A convolution of each channel by itself, then a linear map."""

    def __init__(self, channels: int, units: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            Pointwise(channels, units, bias=False),
        )

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.net(r)


def linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Efficient attention (Shen et al., WACV 2021) over all cells of (N, heads x 64, H, W), not yet bent by GELU."""
    q, k, v = (x.flatten(2).unflatten(1, (-1, HEAD)) for x in (q, k, v))  # (N, heads, 64, H W)
    context = k.softmax(-1) @ v.transpose(2, 3)
    found = context.transpose(2, 3) @ (q.softmax(2) / sqrt(HEAD))
    return found.flatten(1, 2)
