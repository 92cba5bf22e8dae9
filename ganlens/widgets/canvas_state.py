"""What stands on the intervention canvas: an image before and after its edits, and what they changed."""

import time
from collections.abc import Callable, Sequence
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ganlens.dissection.result import Dissection
from ganlens.models.base import Generator
from ganlens.models.editing import Edit
from ganlens.recipe import Renderer
from ganlens.segmenters.base import Segmenter, checked_labels
from ganlens.statistics import Levels
from ganlens.widgets.change_tables import change_of, change_table, share_table
from ganlens.widgets.strokes import union

KEPT = 6  # pictures whose label planes are remembered
COVERED = 0.3  # of a cell, by a thing that it belongs to
SLOW = 0.05  # seconds; an image that takes longer is given up when a newer one is asked for

_levels: WeakKeyDictionary[Dissection, dict[str, torch.Tensor]] = WeakKeyDictionary()  # of all units, by name


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
        self._planes: list[tuple[int, tuple[Edit, ...], np.ndarray]] = []  # of the last few pictures

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
        before = self.planes(seed, (), layer)
        if not edits:
            return share_table(before, concepts)
        after = self.planes(seed, edits, layer)
        change = change_of(before, after, union(edits, before.shape[1:]), len(concepts))
        return change_table(change, concepts, before[0].size)

    def planes(self, seed: int, edits: Sequence[Edit], layer: str) -> np.ndarray:
        """Label planes (L, h, w) of a picture."""
        edits = tuple(edits)
        for known, of, planes in self._planes:
            if known == seed and of == edits:
                return planes
        planes = planes_of(cast(Segmenter, self.segmenter), self.renderer.render(seed, edits, layer=layer)[0])
        self._planes = [(seed, edits, planes), *self._planes[:KEPT]]
        return planes

    def counts(self, seed: int, edits: Sequence[Edit], layer: str) -> np.ndarray:
        """Pixels (C,) of each concept in a picture."""
        concepts = len(cast(Segmenter, self.segmenter).concepts)
        return np.bincount(self.planes(seed, edits, layer).ravel(), minlength=concepts + 1)[1:]

    def segment(self, seed: int, edits: Sequence[Edit], layer: str, x: float, y: float, shape: tuple[int, int]):
        """A mask (H, W) of a layer's cells in which the thing at a point lies, and its concept's number; or None."""
        from skimage.measure import label

        planes = self.planes(seed, edits, layer)
        height, width = planes.shape[1:]
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        found = [plane for plane in planes if plane[row, column] > 0]
        if not found:
            return None
        thing = found[0][row, column]
        parts = label(found[0] == thing, connectivity=1)
        inside = torch.from_numpy((parts == parts[row, column]).astype(np.float32))
        share = torch.nn.functional.adaptive_avg_pool2d(inside[None, None], shape)[0, 0].numpy()
        region = share >= min(COVERED, share.max())
        return region.astype(float), int(thing) - 1

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


def on_levels(D: Dissection, units: Sequence[int], level: str) -> list[float]:
    """What *add* forces units to: quantiles or means of theirs, or a number."""
    named = level.removeprefix("q")
    if level == named != "mean":
        return [float(level)] * len(units)
    known = _levels.setdefault(D, {})
    if named not in known:
        known[named] = D.levels.mean() if named == "mean" else D.levels.quantile(float(named))
    return known[named][list(units)].tolist()


def planes_of(segmenter: Segmenter, x: torch.Tensor) -> np.ndarray:
    """Label planes (L, h, w) of an image (1, 3, Y, X)."""
    return checked_labels(segmenter, x)[0].cpu().numpy()
