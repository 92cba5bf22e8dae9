"""What the files of StyleGAN (Karras et al., CVPR 2019) have in common, whoever wrote the code."""

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.bit_exact import Dense


def normalized(r: torch.Tensor, eps: float) -> torch.Tensor:
    """Maps r (N, U, H, W), each with a mean of 0 and a mean square of 1 over its cells."""
    r = r - r.mean((2, 3), keepdim=True)
    return r * torch.rsqrt(r.square().mean((2, 3), keepdim=True) + eps)


def blurred(r: torch.Tensor) -> torch.Tensor:
    """Maps r (N, U, H, W), smoothed by 1 2 1 along both axes, with zeros around them."""
    row = torch.tensor([0.25, 0.5, 0.25], device=r.device, dtype=r.dtype).expand(r.shape[1], 1, 3)
    r = F.conv2d(r, row[..., None], padding=(1, 0), groups=r.shape[1])
    return F.conv2d(r, row[:, :, None], padding=(0, 1), groups=r.shape[1])


class Styled(nn.Module):
    """Adaptive instance norm: each map of r gets a mean and a deviation that follow from w; equation 1 of the paper.

    The style goes by the name of this module and ``.style``: U factors (``plus`` is added to each), then U offsets.
    """

    def __init__(self, width: int, units: int, eps: float, plus: float):
        super().__init__()
        self.style, self.eps, self.plus = Dense(width, 2 * units), eps, plus

    def forward(self, r: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        factor, offset = self.style(w)[..., None, None].chunk(2, 1)
        return normalized(r, self.eps) * (factor + self.plus) + offset


def drawn_towards(mean: torch.Tensor, w: torch.Tensor, truncation: float) -> torch.Tensor:
    """W, drawn towards its mean by the factor ``truncation``; 1 is not at all."""
    return mean + truncation * (w - mean)
