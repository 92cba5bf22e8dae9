"""Linear maps that round an image alike, wherever it stands in a batch of whatever size.

The libraries behind torch choose their order of summation by the shape of all of a batch: a matrix product of few rows,
and a convolution of 1x1, give an image other last bits alone than among others. These do not.
"""

import torch
from torch import nn
from torch.nn import functional as F

GRANULE = 8  # rows; networks, too, run on whole multiples of this many images where it matters


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The linear map of rows x (N, C) by a weight (U, C): (N, U), one matrix product for each granule of rows."""
    rows = F.pad(x, (0, 0, 0, -len(x) % GRANULE))
    return torch.cat([F.linear(some, weight, bias) for some in rows.split(GRANULE)])[: len(x)]


def pointwise(r: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The 1x1 convolution of r (N, C, H, W) by a weight (U, C, 1, 1): one matrix product for each image."""
    r = (weight[..., 0, 0] @ r.flatten(2)).unflatten(2, r.shape[2:])
    return r if bias is None else r + bias[:, None, None]


class Dense(nn.Linear):
    """A linear map of rows; see `dense`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dense(x, self.weight, self.bias)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution; see `pointwise`."""

    def __init__(self, inputs: int, units: int, bias: bool = True):
        super().__init__(inputs, units, 1, bias=bias)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return pointwise(r, self.weight, self.bias)


def convolution(inputs: int, units: int, side: int, padding: int, bias: bool) -> nn.Conv2d:
    """A convolution that is `Pointwise` where it has one cell."""
    if side == 1 and not padding:
        return Pointwise(inputs, units, bias)
    return nn.Conv2d(inputs, units, side, padding=padding, bias=bias)
