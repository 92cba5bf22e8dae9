"""What units do: how many of a concept's pixels disappear when units are switched off.

All effects are measured on images that the dissection has not seen, by resuming the generator behind the edited layer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ganlens.dissection import Dissection
from ganlens.instrument import Edit, ablate
from ganlens.progress import progress_bar
from ganlens.segmenters.base import Concept, concept_index

CONFIDENCE = 0.99


@dataclass(frozen=True, eq=False)
class Effect:
    """The effect of an edit on every concept, with random edits of the same size beside it.

    N images, C concepts, R random sets. The share removed is 1 - (pixels after) / (pixels before), both summed over all
    images (Bau et al., 2019); negative where the concept grows.

    Attributes
    ----------
    layer, units : str, tuple of int
        What was edited.
    concept, concepts : Concept, tuple of Concept
        The concept asked for, and the vocabulary.
    before, after : arrays (N, C)
        Pixels of each concept in each image.
    random_after : array (R, N, C)
        The same as ``after`` for random sets of as many units.
    """

    layer: str
    units: tuple[int, ...]
    concept: Concept
    concepts: tuple[Concept, ...]
    before: np.ndarray
    after: np.ndarray
    random_after: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.before)

    @property
    def removed(self) -> np.ndarray:
        """Share of each concept's pixels that is removed (C,)."""
        return share_removed(self.before.sum(0), self.after.sum(0))

    @property
    def random(self) -> np.ndarray:
        """The same for each random set (R, C)."""
        return share_removed(self.before.sum(0), self.random_after.sum(1))

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``removed`` (C,), (C,): bootstrap over images, 1,000 draws from a fixed seed."""
        draws = np.random.default_rng(0).multinomial(self.n, np.full(self.n, 1 / self.n), 1000)
        removed = share_removed(draws @ self.before, draws @ self.after)
        tail = (1 - CONFIDENCE) / 2
        return np.quantile(removed, tail, 0), np.quantile(removed, 1 - tail, 0)

    @property
    def low(self) -> np.ndarray:
        """Lower end of `interval` (C,)."""
        return self.interval[0]

    @property
    def high(self) -> np.ndarray:
        """Upper end of `interval` (C,)."""
        return self.interval[1]

    @property
    def collateral(self) -> float:
        """Share of all pixels of the other concepts that is removed or added, concept by concept."""
        others = np.array([c != self.concept for c in self.concepts])
        before, after = self.before.sum(0)[others], self.after.sum(0)[others]
        return float(np.abs(after - before).sum() / before.sum())

    def __repr__(self) -> str:
        i = self.concepts.index(self.concept)
        random = ", ".join(f"{r:.0%}" for r in self.random[:, i])
        low, high = self.low[i], self.high[i]
        return (
            f"{len(self.units)} units of {self.layer} switched off remove {self.removed[i]:.0%} of {self.concept} "
            f"({low:.0%} … {high:.0%}, {self.n} images); as many random units: {random}"
        )


def share_removed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 - after / before, and 0 where there was nothing before; arrays broadcast."""
    before, after = np.broadcast_arrays(np.asarray(before, float), np.asarray(after, float))
    return np.divide(before - after, before, out=np.zeros(before.shape), where=before > 0)


def ablation_effect(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    k: int = 20,
    n: int = 200,
    to: str = "zero",
    region=None,
    draws: int = 3,
    seed: int | None = None,
    progress: bool = True,
) -> Effect:
    """Switch units off and count which pixels of which concept disappear.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    concept : str or Concept
        The concept asked for.
    units : sequence of int, optional
        By default the ``k`` units with the highest IoU.
    k, n, draws : int
        Number of units, of images, and of random sets of as many units to compare with.
    to : {"zero", "mean"}
        Level of the ablation. Units that write colour tint the picture when set to zero.
    region : array-like (H, W), optional
        Cells in which units are switched off; everywhere by default.
    seed : int, optional
        Which sample; by default the one after the dissection's, so that no image has been seen before.

    Returns
    -------
    Effect
        On this and on all other concepts.
    """
    concept = D.concepts[concept_index(D.concepts, concept, D.origin["segmenter"])]
    units = list(D.units(concept, k) if units is None else units)
    D.check_units(units)
    random = np.random.default_rng(0)
    sets = [units] + [random.choice(len(D.iou), len(units), replace=False).tolist() for _ in range(draws)]
    edits = [ablate(D.layer, some, region, to) for some in sets]
    before, after = pixels_under(D, edits, n, seed, progress)
    return Effect(D.layer, tuple(units), concept, D.concepts, before, after[0], after[1:])


def unit_effects(
    D: Dissection,
    units: Sequence[int] | None = None,
    n: int = 32,
    to: str = "zero",
    seed: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> np.ndarray:
    """Share of each concept's pixels (U, C) that each unit removes when it alone is switched off.

    The dissection keeps what ``D.effects = gl.unit_effects(D)`` gives it: ``D.units(concept, by="effect")`` then ranks
    units by what they cause.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    units : sequence of int, optional
        All units by default.
    n : int
        Number of images.
    seed : int, optional
        Which sample; by default the one two after the dissection's, so that rankings can be judged on other images.
    progress : bool or callable
        A bar, nothing, or a function of (images done, of how many), called after each step; to stop, it may raise.
    """
    units = range(len(D.iou)) if units is None else units
    D.check_units(units)
    edits = [ablate(D.layer, [unit], to=to) for unit in units]
    before, after = pixels_under(D, edits, n, D.seed + 2 if seed is None else seed, progress)
    return share_removed(before.sum(0), after.sum(1))


def pixels_under(
    D: Dissection,
    edits: Sequence[Edit],
    n: int,
    seed: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    batch: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each concept before (N, C) and after each of E edits (E, N, C); unedited images are made once."""
    before, after = [], [[] for _ in edits]
    with progress_bar(progress, n * (len(edits) + 1), "edit") as done:
        for seeds in samples(D.seed + 1 if seed is None else seed, n, batch):
            opened = D.attached("generator").open(D.layer, seeds)
            before.append(count_pixels(D, opened.image))
            done(len(seeds))
            for edit, parts in zip(edits, after, strict=True):
                with torch.inference_mode():
                    x = opened.resume(D.generator.edited(opened.features, [edit]))
                parts.append(count_pixels(D, x))
                done(len(seeds))
    return np.concatenate(before), np.stack([np.concatenate(parts) for parts in after])


def samples(seed: int, n: int, batch: int) -> Iterator[range]:
    """The seeds of a sample of n images, batch by batch."""
    first = seed * 1_000_000
    for start in range(first, first + n, batch):
        yield range(start, min(start + batch, first + n))


def count_pixels(D: Dissection, x: torch.Tensor) -> np.ndarray:
    """Pixels of each concept (N, C) in images (N, 3, Y, X)."""
    with torch.inference_mode():
        labels = D.attached("segmenter").labels(x).long().flatten(1)
        counts = torch.zeros(len(x), len(D.concepts) + 1, dtype=torch.int64, device=labels.device)
        counts.scatter_add_(1, labels, torch.ones_like(labels))
    return counts[:, 1:].cpu().numpy()
