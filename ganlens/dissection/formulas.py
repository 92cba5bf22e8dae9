"""What units draw in the words of a formula, such as "tree or hill", where one concept does not say it."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ganlens.markup import h
from ganlens.tables import Tabular, html_table, text_table

SHOWN = 12  # formulas in a text


class UnitFormula(NamedTuple):
    """A formula that goes with a unit better than any single concept does; all numbers are of held-out images.

    Attributes
    ----------
    unit : int
        Its number.
    formula : str
        Up to three concepts with "and", "or" and "not".
    iou : float
        IoU of the unit with the formula.
    concept, concept_iou : str, float
        The single concept of the highest IoU.
    gain, low, high : float
        What the formula gains over that concept, with the 95 % interval.
    chance : float
        What the best formula gains when the unit's maps are matched with the labels of other images.
    q : float
        False discovery rate at which the gain is certain, and larger than that.
    """

    unit: int
    formula: str
    iou: float
    concept: str
    concept_iou: float
    gain: float
    low: float
    high: float
    chance: float
    q: float


@dataclass(frozen=True, eq=False, repr=False)
class Formulas(Tabular):
    """The units that a formula describes better than one concept; made by `ganlens.unit_formulas`.

    Attributes
    ----------
    found : tuple of UnitFormula
        Most gain first.
    n : int
        Images: on half of them formulas were searched, on the others judged.
    units : int
        How many units were looked at.
    """

    index: ClassVar[str] = "unit"
    heads: ClassVar[tuple[str, ...]] = UnitFormula._fields

    found: tuple[UnitFormula, ...]
    n: int
    units: int

    def of(self, unit: int) -> UnitFormula | None:
        """The formula of a unit, if it has one."""
        return next((one for one in self.found if one.unit == unit), None)

    def rows(self) -> list[dict]:
        """One dict per unit that has a formula."""
        return [one._asdict() for one in self.found]

    def state(self) -> dict:
        """Everything as plain values, for a file."""
        return {"n": self.n, "units": self.units, "found": [list(one) for one in self.found]}

    @classmethod
    def from_state(cls, state: dict) -> "Formulas":
        """Rebuild from `state`."""
        return cls(tuple(UnitFormula(*row) for row in state["found"]), state["n"], state["units"])

    @property
    def title(self) -> str:
        """What was found, in one line."""
        return (
            f"{len(self.found)} of {self.units} units follow a formula better than any one concept "
            f"({self.n:,} images, half of them held out)"
        )

    def lines(self) -> list[dict[str, str]]:
        """The lines of a table, in words."""
        return [
            {
                "unit": str(one.unit),
                "formula": one.formula,
                "IoU": f"{one.iou:.3f}",
                "one concept": f"{one.concept} {one.concept_iou:.3f}",
                "gain": f"{one.gain:.3f}",
                "95 %": f"{one.low:.3f} … {one.high:.3f}",
                "by chance": f"{one.chance:.3f}",
            }
            for one in self.found
        ]

    def __repr__(self) -> str:
        lines, more = self.lines(), len(self.found) - SHOWN
        text = [self.title, text_table(lines[:SHOWN]) if lines else ""]
        return "\n".join(filter(None, [*text, f"… and {more} more; .table() has all" if more > 0 else ""]))

    def _repr_html_(self) -> str:
        lines = self.lines()
        if not lines:
            return h("p", self.title)
        return html_table(self.title, {head: [line[head] for line in lines] for head in lines[0]})
