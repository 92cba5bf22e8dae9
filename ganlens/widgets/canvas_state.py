"""What stands on the intervention canvas: an image before and after its edits, and what they changed."""

import time
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch

from ganlens.models.base import Generator
from ganlens.models.editing import Edit
from ganlens.recipe import Renderer
from ganlens.segmenters.base import Segmenter, checked_labels
from ganlens.statistics import Levels
from ganlens.widgets.change_tables import change_of, change_table, share_table
from ganlens.widgets.strokes import union

SLOW = 0.05  # seconds; an image that takes longer is given up when a newer one is asked for


class Easel:
    """Makes the pictures of one generator in one setting, and says what edits changed in them.

    Parameters
    ----------
    generator : Generator
        In the setting (truncation, class) that is on show.
    segmenter : Segmenter, optional
        Tells concepts apart.
    """

    def __init__(self, generator: Generator, segmenter: Segmenter | None):
        self.generator, self.segmenter, self.renderer = generator, segmenter, Renderer(generator)
        self.spent = np.inf  # seconds that the last image took
        self._before: tuple[int, np.ndarray] | None = None  # the seed, and its picture without edits
        self._labels: tuple[int, np.ndarray] | None = None  # the seed, and label planes of that picture

    def paint(
        self, seed: int, edits: Sequence[Edit], layer: str, outdated: Callable[[], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (Y, X, 3) before and after edits; `Abandoned` where they take long and nobody wants them any more.

        Parameters
        ----------
        layer : str
            Opened, so that the next edit of it is fast.
        outdated : callable
            Whether a newer picture is asked for.
        """
        start = time.perf_counter()
        stop = outdated if self.spent > SLOW else None  # asking at every module takes time of its own
        if self._before is None or self._before[0] != seed:
            self._before = seed, self.renderer.render(seed, (), stop, layer)[1]
        before = self._before[1]
        image = self.renderer.render(seed, edits, stop)[1] if edits else before
        self.spent = time.perf_counter() - start
        return before, image

    def readout(self, seed: int, edits: Sequence[Edit], layer: str) -> str:
        """What the image shows, or how edits changed it: HTML."""
        segmenter = cast(Segmenter, self.segmenter)  # nobody asks where there is none
        concepts = segmenter.concepts
        if self._labels is None or self._labels[0] != seed:
            self._labels = seed, planes_of(segmenter, self.renderer.render(seed, layer=layer)[0])
        before = self._labels[1]
        if not edits:
            return share_table(before, concepts)
        after = planes_of(segmenter, self.renderer.render(seed, edits)[0])
        change = change_of(before, after, union(edits, before.shape[1:]), len(concepts))
        return change_table(change, concepts, before[0].size)

    def most_active(
        self, seed: int, edits: Sequence[Edit], layer: str, region: np.ndarray, levels: Levels, k: int
    ) -> tuple[int, ...]:
        """The ``k`` units that are most active in a region (H, W), on the way from their mean to their highest."""
        r = self.renderer.features(seed, edits, layer)[0]
        mask = torch.as_tensor(region, dtype=r.dtype, device=r.device)
        inside = ((r * mask).sum((1, 2)) / mask.sum()).cpu()
        usual, highest = levels.mean(), levels.highest
        activity = ((inside - usual) / (highest - usual)).nan_to_num(0.0)
        return tuple(activity.argsort(descending=True)[:k].tolist())


def planes_of(segmenter: Segmenter, x: torch.Tensor) -> np.ndarray:
    """Label planes (L, h, w) of an image (1, 3, Y, X)."""
    return checked_labels(segmenter, x)[0].cpu().numpy()
