"""The best formula of up to three concepts for each unit, by trying all: nothing is pruned, nothing is guessed.

Up to three concepts divide a picture into regions, by which of them are there; a formula holds in some of these. The
pixels of regions follow from those in which one, two or three concepts lie together, by inclusion and exclusion.
"""

from functools import lru_cache
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

from ganlens._compiled import best_of_pairs, best_of_triples

FORMS = (
    "{0}",
    "{0} or {1}",
    "{0} and {1}",
    "{0} and not {1}",
    "{0} or {1} or {2}",
    "{0} and {1} and {2}",
    "({0} or {1}) and {2}",
    "({0} or {1}) and not {2}",
    "({0} and {1}) or {2}",
    "{0} and {1} and not {2}",
    "({0} and not {1}) or {2}",
    "{0} and not ({1} or {2})",
    "{0} and not ({1} and {2})",
    "{0} and not ({1} and not {2})",
)
SIZES = (1, *[2] * 3, *[3] * 10)  # concepts of each


class Formula(NamedTuple):
    """A form, by its number, and the concepts in its places."""

    form: int
    concepts: tuple[int, ...]

    def holds(self, members: np.ndarray) -> np.ndarray:
        """Whether it holds where these concepts are shown: (K,) from ``members`` (K, L)."""
        a, b, c = ((members == concept).any(1) for concept in (*self.concepts, -2, -2)[:3])
        return (
            *(a, a | b, a & b, a & ~b, a | b | c, a & b & c, (a | b) & c, (a | b) & ~c),
            *((a & b) | c, a & b & ~c, (a & ~b) | c, a & ~(b | c), a & ~(b & c), a & ~(b & ~c)),
        )[self.form]


class Together(NamedTuple):
    """Pixels in which concepts a < b < c lie together: (C,), (C, C), (C, C, C); of size 0 where there are none."""

    one: np.ndarray
    two: np.ndarray
    three: np.ndarray


def together(counts: np.ndarray, members: np.ndarray, concepts: int, length: int = 3) -> Together:
    """Of pixels (K,) by the set of concepts that they show, ``members`` (K, L), -1 for none, no concept twice."""
    deep, tables = min(members.shape[1], length), []
    for size in range(1, 4):
        table = np.zeros((concepts if size <= deep else 0,) * size)
        for places in combinations(range(members.shape[1]), size) if size <= deep else ():
            some = np.sort(members[:, places], 1)
            known = some[:, 0] >= 0
            np.add.at(table, tuple(some[known].T), counts[known])
        tables.append(table)
    return Together(*tables)


@lru_cache
def rules_of(size: int) -> tuple[np.ndarray, list[tuple[int, tuple[int, ...]]]]:
    """In which regions formulas of a size hold, (M, 8) boolean, and the form and the order of concepts of each.

    A region is the sum of 1, 2 and 4 for those of a < b < c that are there. The first rule is that of "or".
    """
    members = np.array([[c if region >> c & 1 else -1 for c in range(3)] for region in range(8)])
    found: dict[bytes, tuple[int, tuple[int, ...]]] = {}
    for form in (form for form, own in enumerate(SIZES) if own == size):
        for order in permutations(range(size)):
            found.setdefault(Formula(form, order).holds(members).tobytes(), (form, order))
    return np.array([np.frombuffer(rule, bool) for rule in found]), list(found.values())


def best_formula(on: float, there: Together, area: Together, length: int) -> tuple[Formula, float]:
    """The formula of up to ``length`` concepts that has the highest IoU with a unit, and that; the simplest of equals.

    Parameters
    ----------
    on : float
        Pixels at which the unit is on.
    there, area : Together
        Concepts at these pixels, and at all.
    length : int
        Up to 3.
    """
    on, count = float(on), len(area.one)
    ious = there.one / np.maximum(on + area.one - there.one, 1)
    best, formula = float(ious.max()), Formula(0, (int(ious.argmax()),))
    for size in range(2, min(length, count) + 1):
        rules, names = rules_of(size)
        if size == 2:
            iou, (*concepts, rule) = best_of_pairs(on, *there[:2], *area[:2], rules)
        else:
            iou, (*concepts, rule) = best_of_triples(on, *there, *area, rules)
        if iou > best + 1e-12:
            form, order = names[rule]
            best, formula = iou, Formula(form, tuple(concepts[place] for place in order))
    return formula, best
