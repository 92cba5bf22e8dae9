"""What each unit alone does: which share of a concept's pixels disappears when it is switched off."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from ganlens.arguments import check_image_count, check_sample
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.ablation import as_units_of, share_removed
from ganlens.effects.counting import BATCH, count_pixels, edited_images, samples
from ganlens.measuring import measure
from ganlens.models.editing import ablate, as_array, insert
from ganlens.progress import steps
from ganlens.shards import Arrays, check_executor


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
    units by what they cause. An interrupt returns what was measured so far, with nan in the rows of all other units and
    a warning; rankings refuse such rows. ``D.effects = gl.unit_effects(D, known=D.effects)`` goes on from there.

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
    level = generator_of(D).level(ablate(D.layer, list(rows), to=to)).cpu().numpy()  # of each, or 0 of all
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
        batches.append(generator_of(D).open(D.layer, seeds))
        before = before + count_pixels(D, batches[-1].image).sum(0)
        go_on(len(seeds))
    for unit in units:
        if not go_on():
            break
        after, edit = np.zeros(count, int), insert(D.layer, [unit], levels[unit])
        for opened in batches:
            after = after + count_pixels(D, edited_images(D, opened, edit)).sum(0)
            go_on(len(opened.image))
        rows = np.vstack([rows, share_removed(before, after)])
    return {"units": np.array(units[: len(rows)], int), "effects": rows}


def as_known(known: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """A copy of earlier effects (U, C), or nan; ValueError if they are of another shape."""
    known = np.full(shape, np.nan) if known is None else as_array("known effects", known).copy()
    if known.shape != shape:
        raise ValueError(f"known effects of shape {known.shape}: expected {shape}, from the same units and concepts")
    return known
