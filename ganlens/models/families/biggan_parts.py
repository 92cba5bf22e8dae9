"""What the two code bases of BigGAN (Brock et al., ICLR 2019) have in common."""

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import pointwise


def attended(theta: torch.Tensor, phi: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Each cell's mean of g (N, V, H, W) over the cells of ``phi`` that its ``theta`` (N, K, H, W) is like.

    ``phi`` and ``g`` are taken as maxima over 2 x 2 cells (Zhang et al., SAGAN, ICML 2019, as released).
    """
    keys, values = (F.max_pool2d(x, 2).flatten(2) for x in (phi, g))
    weights = torch.softmax(theta.flatten(2).transpose(1, 2) @ keys, -1)  # (N, H W, H W / 4)
    return (values @ weights.transpose(1, 2)).unflatten(2, theta.shape[2:])


class Attention(nn.Module):
    """Self-attention, added to its input by a learned share; the names of its maps differ from code to code."""

    def __init__(self, channels: int, names: tuple[str, str, str, str], scalar: bool):
        super().__init__()
        self.names = names
        inner, half = channels // 8, channels // 2
        for name, (inputs, units) in zip(
            names, ((channels, inner), (channels, inner), (channels, half), (half, channels)), strict=True
        ):
            self.add_module(name, nn.Conv2d(inputs, units, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(() if scalar else 1))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        theta, phi, g, last = (self.get_parameter(f"{name}.weight") for name in self.names)
        found = attended(*(pointwise(r, weight) for weight in (theta, phi, g)))
        return self.gamma * pointwise(found, last) + r
