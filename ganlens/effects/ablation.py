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

from ganlens.arguments import as_list, check_image_count, check_sample, short_repr
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.effects.counting import BATCH, count_pixels, count_under, edited, random_sets, samples
from ganlens.intervals import middle_of, resamples
from ganlens.measuring import measure
from ganlens.models.editing import Edit, ablate, as_array, as_units, insert
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, concept_index
from ganlens.shards import Arrays, check_executor


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
    progress: bool = True,
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


# ---- every unit alone


def unit_effects(
    D: Dissection,
    units: Sequence[int] | None = None,
    n: int = 32,
    *,
    to: str = "zero",
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    known: np.ndarray | None = None,
    executor: Executor | None = None,
    shards: int | None = None,
) -> np.ndarray:
    """Share of each concept's pixels (U, C) that each unit removes when it alone is switched off.

    The dissection keeps what ``D.effects = gl.unit_effects(D)`` gives it: ``D.units(concept, by="effect")`` then ranks
    units by what they cause. An interrupt returns what was measured so far, with nan in the rows of all other units;
    ``D.effects = gl.unit_effects(D, known=D.effects)`` goes on from there.

    Parameters
    ----------
    D, to
        As for `ablation_effect`.
    units : sequence of int, optional
        All units by default.
    n : int
        Number of images; their features are kept in memory until the end.
    sample : int, optional
        Which sample; by default the one two after the dissection's, so that rankings can be judged on other images.
    progress : bool or callable
        A bar, nothing, or a function of (images done, of how many), called after each step; to stop, it may raise.
    known : array (U, C), optional
        An earlier result with the same ``units``, ``n``, ``to`` and ``sample``; only its rows with nan are measured.
    executor, shards
        Who works, as for `ganlens.dissect`; shards are sets of units, and the result is the same to the bit.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer9", n=16, progress=False)
    >>> gl.unit_effects(D, [3, 7], n=2, progress=False).shape
    (2, 13)
    """
    n = check_image_count(n)
    units = list(range(len(check_dissection(D).iou))) if units is None else as_units_of(D, units)
    effects = as_known(known, (len(units), len(D.concepts)))
    left = np.flatnonzero(np.isnan(effects).any(1))
    if not len(left):
        return effects
    check_executor(executor, shards)
    rows, sample = {units[row]: row for row in left}, check_sample(sample, D.sample + 2)
    level = D.attached("generator").level(ablate(D.layer, list(rows), to=to)).cpu().numpy()  # of each, or 0 of all
    levels = dict(zip(rows, np.broadcast_to(level, len(rows)).tolist(), strict=True))
    with steps(progress, n * (len(left) + (executor is None)), "edit") as step:
        things = D, n, levels, sample
        found = measure(
            effects_alone, things, list(rows), step, None, executor, shards, cost=n, smallest=8, gaps=True, what="units"
        )
    for unit, effect in zip(found["units"].tolist(), found["effects"], strict=True):
        effects[rows[unit]] = effect
    return effects


def effects_alone(
    D: Dissection, n: int, levels: Mapping[int, float], sample: int, units: Sequence[int], go_on
) -> Arrays:
    """Share of each concept's pixels (M, C) that each of M units removes at its level; of those that were finished.

    The images are made once for all units, up to the layer.
    """
    count = len(D.concepts)
    batches, before, rows = [], np.zeros(count, int), np.empty((0, count))
    for seeds in samples(sample, n, BATCH):
        batches.append(D.attached("generator").open(D.layer, seeds))
        before = before + count_pixels(D, batches[-1].image).sum(0)
        go_on(len(seeds))
    for unit in units:
        if not go_on():
            break
        after, edit = np.zeros(count, int), insert(D.layer, [unit], levels[unit])
        for opened in batches:
            after = after + count_pixels(D, edited(D, opened, edit)).sum(0)
            go_on(len(opened.image))
        rows = np.vstack([rows, share_removed(before, after)])
    return {"units": np.array(units[: len(rows)], int), "effects": rows}


def as_known(known: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """A copy of earlier effects (U, C), or nan; ValueError if they are of another shape."""
    known = np.full(shape, np.nan) if known is None else as_array("known effects", known).copy()
    if known.shape != shape:
        raise ValueError(f"known effects of shape {known.shape}: expected {shape}, from the same units and concepts")
    return known


def pixels_under(
    D: Dissection,
    edits: Sequence[Edit],
    n: int,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each concept before (N, C) and after each of E edits (E, N, C); unedited images are made once."""
    counted = count_under(D, edits, n, sample, progress)
    return counted.before, counted.after
