"""Count labels: the pixels of every concept in images, of all or of those under some cells."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F


def pixels_below(regions: Sequence[np.ndarray] | None, labels: torch.Tensor) -> torch.Tensor:
    """Pixels (N, 1, h, w) of label planes (N, L, h, w) that count, all or those under the cells of regions."""
    counted = labels[:, :1] >= 0  # the others are ignored
    if regions is None:
        return counted
    weights = torch.from_numpy(np.stack(regions)).to(labels.device, torch.float32)
    return F.interpolate(weights[:, None], labels.shape[2:], mode="nearest-exact").gt(0) & counted


def tally(labels: torch.Tensor, inside: torch.Tensor, concepts: int) -> torch.Tensor:
    """Pixels of each concept (N, C) in label planes (N, L, h, w), of those that are ``inside`` (N, 1, h, w)."""
    weights = inside.expand(labels.shape).flatten(1).long()
    counts = torch.zeros(len(labels), concepts + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(1, labels.flatten(1).clamp(min=0), weights)[:, 1:]
