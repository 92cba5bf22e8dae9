"""Layers that several families share."""

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import dense


def doubled(r: torch.Tensor) -> torch.Tensor:
    """Maps r (N, U, H, W), doubled by nearest neighbours."""
    return F.interpolate(r, scale_factor=2.0, mode="nearest")


class Table(nn.Module):
    """A row of a weight (classes, U) for each class; weights of classes (N, classes) give a mixture of rows."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return dense(weights, self.weight.T)
