"""The label of a unit, and what units can be ranked by."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ganlens.arguments import short_repr
from ganlens.segmenters.base import Concept

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection

KEPT_RANKINGS = {
    "gradient": "gl.unit_gradients(D)",
    "ace": "gl.optimize_units(D, {concept!r}).alpha, {concept!r}",
}


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


def label_of(D: "Dissection", unit: int, best: int, second: int | None = None) -> UnitLabel:
    """The label of a unit, of its best concept and the second best."""
    iou, iqr = D.iou[unit], D.iqr[unit]
    if D.rule == "quantile":
        interpretable = iou[best] > 0.04
    elif D.rule == "iqr":
        interpretable = iou[best] > 0.05 and iqr[best] > 0.01
    else:
        interpretable = iou[best] > max(0.04, D.chance[best])
    runner_up = None if second is None else D.concepts[second]
    runner_up_iou = 0.0 if second is None else float(iou[second])
    values = float(iou[best]), runner_up, runner_up_iou, float(iqr[best]), float(D.chance[best])
    return UnitLabel(unit, D.concepts[best], *values, bool(interpretable))


def merit_for(D: "Dissection", by: str, index: int) -> np.ndarray:
    """What units (U,) are ranked by for a concept; ValueError if it is not known for all of them."""
    if not isinstance(by, str):
        raise ValueError(f"by={short_repr(by)}: expected the name of a ranking, such as 'iou'")
    if by in ("iou", "iqr"):
        return getattr(D, by)[:, index]
    if by == "effect":
        D.check_effects()
        merit, remedy = np.asarray(D.effects)[:, index], "go on: D.effects = gl.unit_effects(D, known=D.effects)"
    elif by in KEPT_RANKINGS:
        merit = D.rankings.get(by, np.full(D.iou.shape, np.nan))[:, index]
        values = KEPT_RANKINGS[by].format(concept=D.concepts[index].name)
        remedy = f'measure it: D.keep_ranking("{by}", {values})'
    else:
        measured = ", ".join(map(repr, ("effect", *KEPT_RANKINGS)))
        raise ValueError(f"by={by!r}: expected 'iou' or 'iqr', or one that was measured: {measured}")
    unknown = np.count_nonzero(np.isnan(merit))
    if unknown:
        what = f"the {by} of {unknown} of {len(merit)} units of {D.layer} on {D.concepts[index]}"
        raise ValueError(f"{what} is not known; {remedy}")
    return merit
