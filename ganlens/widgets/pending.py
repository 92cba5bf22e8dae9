"""A stroke that waits for its units: all that was chosen when it was painted, to be made an edit later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ganlens.dissection.result import Dissection
from ganlens.models.editing import Edit, ablate, insert
from ganlens.widgets.canvas_state import on_levels
from ganlens.widgets.strokes import Stroke


@dataclass(frozen=True)
class Pending:
    """What was painted, where, and for which concept; the units are those that a ranking will give."""

    D: Dissection
    mode: str
    region: np.ndarray
    concept: str
    k: int
    order: str
    level: str
    strength: float

    def __post_init__(self):
        edit_of(self.D, self.mode, self.region, (0,), self.level, self.strength)  # it is refused now, or never

    def stroke(self) -> Stroke:
        """The stroke, with the units of highest IoU if their order is not known."""
        known = self.D.ranks(self.concept, self.order)
        units = self.D.units(self.concept, self.k, by=self.order if known else "iou")
        edit = edit_of(self.D, self.mode, self.region, units, self.level, self.strength)
        return Stroke(edit, f"{self.mode} {self.concept}", concept=self.concept)

    def without(self, cells: np.ndarray) -> "Pending | None":
        """The same without some cells (H, W); None if none is left."""
        region = np.where(cells > 0, 0, self.region)
        return replace(self, region=region) if region.any() else None


def edit_of(D: Dissection, mode: str, region: np.ndarray, units: Sequence[int], level: str, strength: float) -> Edit:
    """The edit of a stroke that removes or adds."""
    if mode == "remove":
        return ablate(D.layer, units, region, strength=strength)
    return insert(D.layer, units, on_levels(D, units, level), region=region, strength=strength)
