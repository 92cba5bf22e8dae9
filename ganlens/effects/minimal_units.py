"""The smallest set of units that removes a concept and leaves everything else as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ganlens.arguments import MOST_IMAGES, as_list, check_image_count, check_integer, check_number
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.effects.ablation import Effect, check_present
from ganlens.effects.counting import BATCH, count_edit, count_under, samples, unedited
from ganlens.effects.single_units import unit_effects
from ganlens.models.editing import ablate
from ganlens.progress import Steps, steps
from ganlens.segmenters.base import Concept, concept_index

FINALISTS = 5  # sets that keep to the limits and are judged on held-out images


class Choice(NamedTuple):
    """A set of units, and what switching it off does."""

    units: tuple[int, ...]
    removed: float  # share of the concept's pixels
    collateral: float  # share of the other pixels that change


@dataclass(frozen=True, eq=False, kw_only=True)
class MinimalUnits:
    """The smallest set of units that removes a concept and changes little else; ``possible`` says whether there is one.

    Attributes
    ----------
    concept : Concept
        What was to be removed.
    remove, collateral : float
        The least share to remove, and the largest share of all other pixels that may change.
    possible : bool
        Whether a set was found that keeps to both on held-out images.
    effect : Effect
        Of that set on held-out images; where it is not possible, of the one that removes most within the limit, or
        that changes least.
    frontier : tuple of Choice
        The sets that no other beats in both, on held-out images, from the gentlest to the one that removes most.
    complete : bool
        False where an interrupt cut the search or the measurement short.
    """

    concept: Concept
    remove: float
    collateral: float
    possible: bool
    effect: Effect
    frontier: tuple[Choice, ...]
    complete: bool = True

    @property
    def units(self) -> tuple[int, ...]:
        """The units of ``effect``."""
        return self.effect.units

    def __repr__(self) -> str:
        asked = f"{self.remove:.0%} of {self.concept} at no more than {self.collateral:.0%} of everything else"
        head = f"{asked}: {'possible' if self.possible else 'not possible'} in {self.effect.layer}; {self.effect!r}"
        shown = self.frontier[:: -(-len(self.frontier) // 8)]
        rows = [f"  {len(c.units):3d} units: {c.removed:4.0%}, {c.collateral:4.0%} of everything else" for c in shown]
        return "\n".join([head, f"{len(shown)} of {len(self.frontier)} sets that no other beats:", *rows])


def minimal_units(
    D: Dissection,
    concept: str | Concept,
    remove: float = 0.8,
    *,
    collateral: float = 0.05,
    k: int = 20,
    n: int = 200,
    to: str = "zero",
    by: Sequence[str] | None = None,
    tries: int = 48,
    progress: bool | Callable[[int, int], None] = True,
) -> MinimalUnits:
    """Search the smallest set of units that removes a share of a concept and changes little else.

    The first 1, 2, …, k units of several rankings are tried on one sample, and units that are not needed are taken out
    of the smallest set that will do. All sets that are not beaten are then measured on held-out images. The search is
    not exhaustive: a smaller set may exist. An interrupt ends the search; what it found is measured all the same.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    concept : str or Concept
        What is to be removed.
    remove : float
        Least share of its pixels.
    collateral : float
        Largest share of the pixels that did not show the concept and may change; what replaces it is not counted.
    k : int
        Largest set, or fewer where the layer has fewer units.
    n, tries : int
        Held-out images, and images of the search, from the sample that ranks units.
    to : {"zero", "mean"}
        Level of the ablation.
    by : sequence of str, optional
        Rankings; by default IoU, effect (measured if it is not set), effect minus the effect on everything else, and
        those that `Dissection.keep_ranking` knows.

    Returns
    -------
    MinimalUnits

    Raises
    ------
    ValueError
        No image shows the concept, or a share is outside 0 … 1.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> gl.minimal_units(D, "tree", k=2, n=4, tries=4, by=["iou"], progress=False).possible
    False
    """
    i = concept_index(check_dissection(D).concepts, concept, D.origin["segmenter"])
    remove, collateral = check_number("remove", remove, 0, 1), check_number("collateral", collateral, 0, 1)
    n, tries, k = check_image_count(n), check_integer("tries", tries, 1, MOST_IMAGES), check_integer("k", k)
    orders = [order[:k] for order in orders_for(D, i, to, by, progress)]
    search = Search(D, i, to, tries)
    sets = dict.fromkeys(tuple(order[:size]) for order in orders for size in range(1, len(order) + 1))
    with steps(progress, len(sets) * tries, "search") as step:
        for units in sets:
            search.look(units)
            if not step.go_on(tries):
                break
        good = search.within(remove, collateral)
        if good and not step.stopped:
            search.leave_out(good[0], remove, collateral, step)
    return judge(D, search, remove, collateral, n, not step.stopped, progress)


class Search:
    """What sets of units do in the sample that ranks units, whose images are made once."""

    def __init__(self, D: Dissection, i: int, to: str, n: int):
        self.D, self.i, self.to = D, i, to
        self.images = [unedited(D, seeds) for seeds in samples(D.sample + 2, n, BATCH)]
        self.before = sum(part.before[:, i].sum() for part in self.images)
        self.others = sum(part.pixels.sum() for part in self.images) - self.before
        check_present(D.concepts[i], self.before, n)
        self.choices: list[Choice] = []

    def look(self, units: tuple[int, ...]) -> Choice:
        """Measure a set and remember it."""
        edit = ablate(self.D.layer, units, to=self.to)
        counts = [count_edit(self.D, part, edit) for part in self.images]
        after, changed = (sum(part[which][:, self.i].sum() for part in counts) for which in (0, 1))
        self.choices.append(Choice(units, float(1 - after / self.before), float(changed / max(self.others, 1))))
        return self.choices[-1]

    def within(self, remove: float, collateral: float) -> list[Choice]:
        """Give the sets that keep to the limits, the smallest first."""
        good = [choice for choice in self.choices if keeps(choice, remove, collateral)]
        return sorted(good, key=lambda choice: (len(choice.units), choice.collateral))

    def leave_out(self, choice: Choice, remove: float, collateral: float, step: Steps) -> None:
        """Take one unit after the other out of a set, the last first, where it still keeps to the limits."""
        for unit in reversed(choice.units):
            fewer = tuple(other for other in choice.units if other != unit)
            if fewer and step.go_on():
                smaller = self.look(fewer)
                choice = smaller if keeps(smaller, remove, collateral) else choice


def orders_for(D: Dissection, i: int, to: str, by: Sequence[str] | None, progress) -> list[list[int]]:
    """Rankings of units for a concept, best first; by default also one by the effect minus that on everything else."""
    if by is not None:
        return [D.units(D.concepts[i], None, name) for name in as_list("by", by, "rankings, for example ['iou']")]
    alone = unit_effects(D, to=to, known=D.effects, progress=progress)
    if np.isnan(alone).any():
        raise KeyboardInterrupt  # there and then, for a ranking of a part would be another ranking
    others = np.where(np.arange(len(D.concepts)) == i, 0, D.area) / max(D.area.sum(), 1)
    merits = alone[:, i], alone[:, i] - np.abs(alone) @ others
    known = [name for name, values in D.rankings.items() if not np.isnan(values[:, i]).any()]
    by_effect = [np.argsort(-merit, kind="stable").tolist() for merit in merits]
    return [*by_effect, *(D.units(D.concepts[i], None, name) for name in ("iou", *known))]


def keeps(choice: Choice, remove: float, collateral: float) -> bool:
    return choice.removed >= remove and choice.collateral <= collateral


def unbeaten(choices: Sequence[Choice]) -> list[Choice]:
    """Those for which no other removes as much, changes as little and is better in one; the gentlest first."""
    best, found = -np.inf, []
    for choice in sorted(choices, key=lambda c: (c.collateral, -c.removed, len(c.units))):
        if choice.removed > best:
            best = choice.removed
            found.append(choice)
    return found


def judge(
    D: Dissection, search: Search, remove: float, collateral: float, n: int, complete: bool, progress
) -> MinimalUnits:
    """Measure on held-out images what kept to the limits and what was not beaten, and choose."""
    candidates = [*search.within(remove, collateral)[:FINALISTS], *unbeaten(search.choices)]
    sets = list(dict.fromkeys(choice.units for choice in candidates))
    effects = held_out(D, search, sets, n, progress)
    choices = [Choice(e.units, float(e.removed[search.i]), e.elsewhere) for e in effects]
    able = [choice for choice in choices if keeps(choice, remove, collateral)]
    gentle = [choice for choice in choices if choice.collateral <= collateral]
    if able:
        chosen = min(able, key=lambda choice: len(choice.units))
    elif gentle:
        chosen = max(gentle, key=lambda choice: choice.removed)
    else:
        chosen = min(choices, key=lambda choice: choice.collateral)
    effect = effects[choices.index(chosen)]
    return MinimalUnits(
        concept=D.concepts[search.i],
        remove=remove,
        collateral=collateral,
        possible=bool(able),
        effect=effect,
        frontier=tuple(unbeaten(choices)),
        complete=complete and effect.complete,
    )


def held_out(D: Dissection, search: Search, sets: Sequence[tuple[int, ...]], n: int, progress) -> list[Effect]:
    """Effects of sets of units on images that the search has not seen."""
    counted = count_under(D, [ablate(D.layer, units, to=search.to) for units in sets], n, None, progress)
    concept, none = D.concepts[search.i], counted.after[:0]
    check_present(concept, counted.before[:, search.i].sum(), n)
    return [
        Effect(
            layer=D.layer,
            units=units,
            concept=concept,
            concepts=D.concepts,
            before=counted.before,
            after=after,
            random_after=none,
            pixels=counted.pixels,
            changed=changed,
            random_changed=none,
            complete=counted.complete,
        )
        for units, after, changed in zip(sets, counted.after, counted.changed, strict=True)
    ]
