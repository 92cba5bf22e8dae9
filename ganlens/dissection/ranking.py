"""The label of a unit, and what units can be ranked by."""

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from ganlens.arguments import short_repr
from ganlens.segmenters.base import Concept

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection

KEPT_RANKINGS = {
    "gradient": "gl.unit_gradients(D)",
    "ace": "gl.optimize_units(D, {concept!r}).alpha, {concept!r}",
}


CELLS = ("pearson", "cosine", "average_precision")  # measures of cells, see `Certificates`


class UnitLabel(NamedTuple):
    """What one unit draws, if anything."""

    unit: int
    concept: Concept
    iou: float
    runner_up: Concept | None
    runner_up_iou: float
    iqr: float
    chance: float
    interpretable: bool
    low: float | None = None  # ends of the 95 % interval of the IoU
    high: float | None = None
    q: float | None = None  # false discovery rate at which it is certain
    certain: bool = False  # not by chance


def label_of(D: "Dissection", unit: int, best: int, second: int | None = None) -> UnitLabel:
    """The label of a unit, of its best concept and the second best."""
    iou, iqr = D.iou[unit], D.iqr[unit]
    if D.rule == "quantile":
        interpretable = iou[best] > 0.04
    elif D.rule == "iqr":
        interpretable = iou[best] > 0.05 and iqr[best] > 0.01
    else:
        interpretable = iou[best] > max(0.04, D.chance[best])
    if D.control is not None:
        interpretable = interpretable and iou[best] > D.control[best]
    runner_up = None if second is None else D.concepts[second]
    runner_up_iou = 0.0 if second is None else float(iou[second])
    values = float(iou[best]), runner_up, runner_up_iou, float(iqr[best]), float(D.chance[best])
    label = UnitLabel(unit, D.concepts[best], *values, bool(interpretable))
    known = D.certificates
    if known is None:
        return label
    low, high, q = (float(array[unit, best]) for array in (known.low, known.high, known.q))
    label = label._replace(q=q, certain=bool(known.certain[unit, best]))
    return label if np.isnan(low) else label._replace(low=low, high=high)


def bar_of(D: "Dissection", concept: np.ndarray) -> np.ndarray:
    """IoU above which units draw their concepts (U,)."""
    bar = np.full(len(concept), 0.05 if D.rule == "iqr" else 0.04)
    bar = np.maximum(bar, D.chance[concept]) if D.rule == "iou" else bar
    return bar if D.control is None else np.maximum(bar, D.control[concept])


def settled(D: "Dissection") -> float:
    """Probability that a unit's label, or that it has none, is that of all images; the mean over the units.

    Of the intervals of its two best concepts, taken as normal: that the best one is above the bar, or below it, and, if
    it is above, better than the second.
    """
    if D.certificates is None or np.isnan(D.certificates.low).any():
        return 0.0
    units, order = np.arange(len(D.iou)), np.argsort(-D.merit, axis=1, kind="stable")
    best, spread = order[:, 0], (D.certificates.high - D.certificates.low) / (2 * ndtri(0.975))
    iou, own = D.iou[units, best], spread[units, best]
    above = normal((iou - bar_of(D, best)), own)
    if order.shape[1] > 1:
        second = order[:, 1]
        first = normal(iou - D.iou[units, second], np.hypot(own, spread[units, second]))
    else:
        first = np.ones(len(iou))
    interpretable = np.array([label.interpretable for label in D.labels])
    return float(np.where(interpretable, above * first, 1 - above).mean())


def normal(distance: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Probability that a normal number of that mean and spread is above 0."""
    return ndtr(distance / np.maximum(spread, 1e-12))


def check_control(D: "Dissection", untrained: "Dissection") -> None:
    """ValueError unless a control was dissected in the same way."""
    for what in ("layer", "rule", "concepts", "quantile", "within_category"):
        if getattr(untrained, what) != getattr(D, what):
            raise ValueError(f"the control has another {what}: {getattr(untrained, what)!r}; dissect it alike")
    if untrained.origin["generator_fingerprint"] == D.origin["generator_fingerprint"]:
        raise ValueError("the control is of the very same network; give one of G.untrained()")
    if 2 * untrained.n < D.n:
        words = (
            f"the control saw {untrained.n:,} images, {D.n:,} were dissected: the fewer, the higher its IoUs by chance"
        )
        warnings.warn(words, stacklevel=3)


def merit_for(D: "Dissection", by: str, index: int) -> np.ndarray:
    """What units (U,) are ranked by for a concept; ValueError if it is not known for all of them."""
    if not isinstance(by, str):
        raise ValueError(f"by={short_repr(by)}: expected the name of a ranking, such as 'iou'")
    if by in ("iou", "iqr"):
        return getattr(D, by)[:, index]
    if by == "f1":
        return 2 * D.iou[:, index] / (1 + D.iou[:, index])
    if by in CELLS:
        if D.certificates is None:
            raise ValueError(f"by={by!r}: this dissection is of an older version and does not know it; dissect again")
        return getattr(D.certificates, by)[:, index]
    if by == "effect":
        D.check_effects()
        merit, remedy = np.asarray(D.effects)[:, index], "go on: D.effects = gl.unit_effects(D, known=D.effects)"
    elif by in KEPT_RANKINGS:
        merit = D.rankings.get(by, np.full(D.iou.shape, np.nan))[:, index]
        values = KEPT_RANKINGS[by].format(concept=D.concepts[index].name)
        remedy = f'measure it: D.keep_ranking("{by}", {values})'
    else:
        measured = ", ".join(map(repr, ("effect", *KEPT_RANKINGS)))
        listed = ", ".join(map(repr, ("iou", "iqr", "f1", *CELLS)))
        raise ValueError(f"by={by!r}: expected {listed}, or one that was measured: {measured}")
    unknown = np.count_nonzero(np.isnan(merit))
    if unknown:
        what = f"the {by} of {unknown} of {len(merit)} units of {D.layer} on {D.concepts[index]}"
        raise ValueError(f"{what} is not known; {remedy}")
    return merit
