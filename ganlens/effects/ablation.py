"""What units do: how many of a concept's pixels disappear when units are switched off.

All effects are measured on images that the dissection has not seen, by resuming the generator behind the edited layer.
Each unedited image is generated and segmented once, however many edits it is compared with. Where the dissection has
sample s, sample s + 1 measures and sample s + 2 ranks units, so that a ranking is judged on images it has not seen.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from ganlens.arguments import as_list, check_image_count, short_repr
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.effects.counting import count_under, random_sets
from ganlens.intervals import middle_of, resamples
from ganlens.models.editing import ablate, as_units
from ganlens.segmenters.base import Concept, concept_index


@dataclass(frozen=True, eq=False, kw_only=True)
class Effect:
    """The effect of an ablation on every concept, with random ablations of the same size beside it.

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
    pixels : array (N,) or None
        Pixels that were looked at.
    changed, random_changed : arrays (N, C), (R, N, C), or None
        Pixels that did not show the concept before, and whose labels have changed.
    complete : bool
        False where an interrupt left some of the images out.
    curve : tuple of Effect
        The effects of the first units of ``units``, fewest first, where they were asked for; the last is this one.
    """

    layer: str
    units: tuple[int, ...]
    concept: Concept
    concepts: tuple[Concept, ...]
    before: np.ndarray
    after: np.ndarray
    random_after: np.ndarray
    pixels: np.ndarray | None = None
    changed: np.ndarray | None = None
    random_changed: np.ndarray | None = None
    complete: bool = True
    curve: tuple["Effect", ...] = ()

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
        draws = resamples(self.n)
        return middle_of(share_removed(draws @ self.before, draws @ self.after))

    @property
    def random_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of the mean of ``random`` over the sets (C,), (C,); nan where there is no set."""
        if not len(self.random_after):
            return (np.full(len(self.concepts), np.nan),) * 2
        draws = resamples(self.n)
        return middle_of(share_removed(draws @ self.before, draws @ self.random_after.mean(0)))

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
        """Share of all pixels of the other concepts that is removed or added, concept by concept.

        What takes the place of the concept asked for is part of it; `elsewhere` leaves that out.
        """
        others = np.array([c != self.concept for c in self.concepts])
        before, after = self.before.sum(0)[others], self.after.sum(0)[others]
        return float(np.abs(after - before).sum() / max(before.sum(), 1))

    @property
    def elsewhere(self) -> float:
        """Share of the pixels that did not show the concept and show something else than before; nan if not counted."""
        return float(self._elsewhere(self.changed))

    @property
    def random_elsewhere(self) -> np.ndarray:
        """The same for each random set (R,)."""
        return np.full(len(self.random_after), self._elsewhere(self.random_changed))

    def _elsewhere(self, changed: np.ndarray | None) -> np.ndarray | float:
        if changed is None:
            return np.nan
        i = self.concepts.index(self.concept)
        return changed[..., i].sum(-1) / max((self.pixels - self.before[:, i]).sum(), 1)

    def __repr__(self) -> str:
        i = self.concepts.index(self.concept)
        random = ", ".join(f"{r:.0%}" for r in self.random[:, i])
        low, high = self.low[i], self.high[i]
        images = f"{self.n} images" + ("" if self.complete else ", incomplete")
        others = "" if self.changed is None else f"; {self.elsewhere:.0%} of everything else changes"
        random = f"; as many random units: {random}" if random else ""
        return (
            f"{len(self.units)} units of {self.layer} switched off remove {self.removed[i]:.0%} of {self.concept} "
            f"({low:.0%} … {high:.0%}, {images}){others}{random}"
        )


def share_removed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 - after / before, and 0 where there was nothing before; arrays broadcast."""
    before, after = np.broadcast_arrays(np.asarray(before, float), np.asarray(after, float))
    return np.divide(before - after, before, out=np.zeros(before.shape), where=before > 0)


# ---- effects


def ablation_effect(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    *,
    k: int = 20,
    n: int = 200,
    to: str = "zero",
    region=None,
    draws: int = 3,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    curve: bool | Sequence[int] = False,
    inside: bool = False,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Effect:
    """Switch units off and count which pixels of which concept disappear.

    An interrupt returns the effect on the images that were finished, marked as incomplete; where none is, it is raised.

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
    sample : int, optional
        Which sample; by default the one after the dissection's, so that no image has been seen before.
    curve : bool or sequence of int
        Also the effects of the first 1, 2, … units, or of as many as are named, as ``effect.curve``; random sets too.
    inside : bool
        Count only the pixels under the region, not those of the whole image.
    executor, shards
        Who works, as for `ganlens.dissect`; the result is the same to the bit.

    Returns
    -------
    Effect
        On this and on all other concepts.

    Raises
    ------
    ValueError
        The images do not show the concept; more units than the layer has; a region that does not fit the layer.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> effect = gl.ablation_effect(D, "tree", k=4, n=8, draws=2, curve=True, progress=False)
    >>> [len(part.units) for part in effect.curve], effect.random.shape
    ([1, 2, 3, 4], (2, 13))
    """
    concept_index(check_dissection(D).concepts, concept, D.origin["segmenter"])
    n = check_image_count(n)
    orders = {"": units_or_best(D, concept, units, k)}
    sizes = check_steps(curve, len(orders[""]))
    options = {"region": region, "inside": inside, "executor": executor, "shards": shards}
    return effects_of(D, concept, orders, sizes, n, to, draws, sample, progress, **options)[""]


def effects_of(
    D: Dissection,
    concept: str | Concept,
    orders: Mapping[str, list[int]],
    sizes: Sequence[int],
    n: int,
    to: str,
    draws: int,
    sample: int | None,
    progress,
    region=None,
    inside: bool = False,
    executor: Executor | None = None,
    shards: int | None = None,
) -> dict[str, Effect]:
    """Effects of the first units of each order, for each of several sizes, in one pass over the images."""
    n, i = check_image_count(n), concept_index(check_dissection(D).concepts, concept, D.origin["segmenter"])
    for units in orders.values():
        D.check_units(units)
    sets = [*orders.values(), *random_sets(D, max(sizes), draws)]
    edits = [ablate(D.layer, units[:size], region, to=to) for units in sets for size in sizes]
    where = None if region is None or not inside else [np.asarray(edits[0].region)] * n
    counted = count_under(D, edits, n, sample, progress, where, executor, shards)
    check_present(D.concepts[i], counted.before[:, i].sum(), len(counted.before))
    after, changed = (a.reshape(len(sets), len(sizes), *a.shape[1:]) for a in (counted.after, counted.changed))
    found = {}
    for row, (name, units) in enumerate(orders.items()):
        parts = tuple(
            Effect(
                layer=D.layer,
                units=tuple(units[:size]),
                concept=D.concepts[i],
                concepts=D.concepts,
                before=counted.before,
                after=after[row, s],
                random_after=after[len(orders) :, s],
                pixels=counted.pixels,
                changed=changed[row, s],
                random_changed=changed[len(orders) :, s],
                complete=counted.complete,
            )
            for s, size in enumerate(sizes)
        )
        found[name] = replace(parts[-1], curve=parts if len(parts) > 1 else ())
    return found


def units_or_best(D: Dissection, concept: str | Concept, units: Sequence[int] | None, k: int) -> list[int]:
    """The given units, or else the ``k`` with the highest IoU, where the dissection's sample can tell."""
    if units is not None:
        return as_units_of(D, units)
    check_count(D, k)
    i = concept_index(D.concepts, concept, D.origin["segmenter"])
    if not D.area[i]:
        raise ValueError(
            f"{D.concepts[i]} is in none of the {D.n} images of this dissection, so that no unit matches it; "
            "dissect more images, or say which units you mean: units=[…]"
        )
    return D.units(D.concepts[i], k)


def as_units_of(D: Dissection, units: Sequence[int]) -> list[int]:
    """Units of a layer, each once and at least one; ValueError otherwise."""
    units = as_list("units", units, "unit numbers, at least one, for example [3, 17]")
    check_dissection(D).check_units(units)
    return list(as_units(list(map(int, units))))


def check_count(D: Dissection, k: int) -> None:
    """ValueError if a layer has no ``k`` units."""
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= len(D.iou):
        has = f"{D.layer} has {len(D.iou)} units"
        raise ValueError(f"k={short_repr(k)}: {has}; expected at least 1 and no more than that")


def check_steps(curve: bool | Sequence[int], k: int) -> list[int]:
    """Sizes of the sets of a curve, ``k`` last; ValueError if one is not among 1 … k."""
    if isinstance(curve, bool):
        return list(range(1, k + 1)) if curve else [k]
    given = as_list("curve", curve, f"True, False, or numbers of units from 1 to {k}")
    if not all(isinstance(size, Integral) and 1 <= int(size) <= k for size in given):
        raise ValueError(f"curve={short_repr(curve)}: expected numbers of units from 1 to {k}")
    return sorted({*map(int, given), k})


def check_present(concept: Concept, pixels: int, n: int) -> None:
    """ValueError if there is no pixel of a concept."""
    if not pixels:
        raise ValueError(
            f"{concept} is in none of the {n} images: take more (n=…), others (sample=…), or another concept"
        )
