"""Units and labels in places of the picture: what correlations, precisions and the test against chance come from."""

from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.statistics import Scale, Statistic

MOST_PLACES = 16  # along each side of the picture
RANKS = 32  # bins of activation, for the average precision
FIXED = 2**20  # numbers of a sum are integers of this part, so that no order of adding matters


class Cells(Statistic):
    """Activations in the places of a picture, beside the pixels of each concept there: integers that can be added.

    Places are the cells of the layer; of a layer with more than 16 along a side, the means of several. Activations are
    taken in parts of their range: times the slope of the scale, over its bins.

    Parameters
    ----------
    scale : Scale
        Of the levels of U units.
    thresholds : Tensor (U, T)
        Levels above which a unit counts as on in the test against chance.
    grid, size : (int, int)
        Cells of the layer, and pixels of the label planes.
    concepts, blocks : int
        Number of concepts C, and of blocks B of images.

    Attributes
    ----------
    sums, squares, dots : Tensor (U,), (U,), (U, C)
        Sums of activations, of their squares, and of their products with the pixels of each concept.
    pixels, pixels_squared : Tensor (C,)
        Sums over the places of the pixels of each concept, and of their squares.
    ranked, ranked_all : Tensor (U, C, 32), (U, 32)
        Pixels of each concept, and of all, by the activation of the place that they lie in.
    images : Tensor (B,)
        Images of each block.
    on, shown, both : Tensor (B, U, T, P), (B, C, P), (B, U, T, C)
        By block: in how many images a unit is on in each of P places (in any of their cells), pixels of each concept in
        each place, and, summed over images and places, the product of both in the same image.
    """

    scale: Scale
    merges: ClassVar = dict.fromkeys(
        (
            *("sums", "squares", "dots", "pixels", "pixels_squared", "ranked", "ranked_all"),
            *("images", "on", "shown", "both"),
        ),
        torch.add,
    )

    def __init__(
        self,
        scale: Scale,
        thresholds: torch.Tensor,
        grid: tuple[int, int],
        size: tuple[int, int],
        concepts: int,
        blocks: int,
    ):
        (units, levels), device = thresholds.shape, scale.low.device
        self.scale, self.thresholds, self.concepts = scale, thresholds.float().contiguous(), concepts
        rows, columns = (min(cells, n, MOST_PLACES) for cells, n in zip(grid, size, strict=True))
        self.places, count = (rows, columns), rows * columns
        down, right = (torch.arange(n, device=device) * p // n for p, n in zip(self.places, size, strict=True))
        self.place_of_pixel = down[:, None] * columns + right  # (h, w)

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.sums, self.squares, self.dots = zeros(units), zeros(units), zeros(units, concepts)
        self.pixels, self.pixels_squared = zeros(concepts), zeros(concepts)
        self.ranked, self.ranked_all = zeros(units, concepts, RANKS), zeros(units, RANKS)
        self.images = zeros(blocks)
        self.on, self.shown = zeros(blocks, units, levels, count).int(), zeros(blocks, concepts, count)
        self.both = zeros(blocks, units, levels, concepts)

    def update(self, features: torch.Tensor, planes: torch.Tensor, block: int) -> None:
        """Take in features (N, U, H, W) and label columns (N, L, h, w) of images of one block."""
        self.images[block] += len(features)
        if tuple(features.shape[2:]) == self.places:
            means = highest = features
        else:
            pools = F.adaptive_avg_pool2d, F.adaptive_max_pool2d
            means, highest = (pool(features, self.places) for pool in pools)
        means, highest = means.flatten(2), highest.flatten(2)
        if features.device.type == "cpu":
            from ganlens._compiled import count_cells

            count_cells(means, highest, planes, self, block)
        else:
            self.update_by_definition(means, highest, planes, block)

    def update_by_definition(
        self, means: torch.Tensor, highest: torch.Tensor, planes: torch.Tensor, block: int
    ) -> None:
        """The same in plain torch, of means and maxima (N, U, P): for other devices, and to check the compiled loop."""
        labels, counted = self.pixels_in_places(planes)
        parts = (means * (self.scale.slope / self.scale.bins)[:, None]).double()
        shown = labels.double()
        self.sums += (parts.sum(2) * FIXED).round().long().sum(0)
        self.squares += (parts.square().sum(2) * FIXED).round().long().sum(0)
        self.dots += (torch.einsum("nup,ncp->nuc", parts, shown) * FIXED).round().long().sum(0)
        self.pixels += labels.sum((0, 2))
        self.pixels_squared += labels.square().sum((0, 2))
        rank = torch.stack([self.scale.place(v) for v in means]).clamp(min=0) * RANKS // self.scale.bins
        for r, those, some in zip(rank, labels, counted, strict=True):  # (U, P), (C, P), (P,)
            for c, row in enumerate(those):
                self.ranked[:, c].scatter_add_(1, r, row.expand_as(r))
            self.ranked_all.scatter_add_(1, r, some.expand_as(r))
        on = highest[:, :, None] > self.thresholds[None, :, :, None]  # (N, U, T, P)
        self.on[block] += on.sum(0, dtype=torch.int32)
        self.shown[block] += labels.sum(0)
        self.both[block] += torch.einsum("nutp,ncp->utc", on.double(), shown).round().long()

    def pixels_in_places(self, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels of each concept (N, C, P), and all that are counted (N, P), in each place."""
        places, shape = self.place_of_pixel.flatten(), (len(planes), self.places[0] * self.places[1])
        found = torch.zeros(shape[0], self.concepts + 1, shape[1], dtype=torch.int64, device=planes.device)
        counted = (planes[:, 0] > -2).flatten(1).long()
        for plane in planes.unbind(1):
            column = plane.flatten(1).long()
            inside = (column >= 0) & (column < self.concepts) & (counted > 0)
            index = torch.where(inside, column, self.concepts) * shape[1] + places
            found.view(shape[0], -1).scatter_add_(1, index, inside.long())
        whole = torch.zeros(shape, dtype=torch.int64, device=planes.device)
        return found[:, :-1], whole.scatter_add_(1, places.expand(shape[0], -1), counted)

    # ---- what follows

    def pearson(self) -> np.ndarray:
        """Correlation (U, C) of a place's activation with its pixels of the concept; 0 where one is constant."""
        r, rr, rs, s, ss, count = self.moments()
        spread = (count * rr - r**2)[:, None] * (count * ss - s**2)
        return ratio_of_root(count * rs - r[:, None] * s, spread)

    def cosine(self) -> np.ndarray:
        """Cosine (U, C) of all activations and all places' pixels of the concept, about zero."""
        _, rr, rs, _, ss, _ = self.moments()
        return ratio_of_root(rs, rr[:, None] * ss)

    def moments(self) -> tuple:
        """Sums of activations (U,), squares (U,), products (U, C), pixels (C,), their squares, number of places."""
        r, rr, rs = (getattr(self, name).cpu().numpy() / FIXED for name in ("sums", "squares", "dots"))
        s, ss = (getattr(self, name).cpu().numpy().astype(float) for name in ("pixels", "pixels_squared"))
        return r, rr, rs, s, ss, float(int(self.images.sum()) * self.places[0] * self.places[1])

    def average_precision(self) -> np.ndarray:
        """Mean precision (U, C) over the recalls, where places are ranked by activation, in 32 steps.

        What a ranking without any knowledge reaches is the concept's share of the pixels.
        """
        found = np.empty((len(self.ranked), self.concepts))
        for u, (table, every) in enumerate(zip(self.ranked.cpu().numpy(), self.ranked_all.cpu().numpy(), strict=True)):
            hits, chosen = table[:, ::-1].cumsum(1), every[::-1].cumsum()
            precision = hits / np.maximum(chosen, 1)
            found[u] = (precision * table[:, ::-1]).sum(1) / np.maximum(hits[:, -1], 1)
        return found


def ratio_of_root(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above`` over the root of ``below``, within -1 … 1; 0 where there is nothing below but what rounding leaves."""
    root = np.sqrt(np.maximum(below, 0))
    some = root > 1e-9 * np.maximum(np.abs(above), 1e-30)
    return np.divide(above, root, out=np.zeros(np.shape(above)), where=some).clip(-1, 1)
