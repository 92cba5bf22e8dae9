"""What can be chosen on the canvas, and what it is checked for."""

import re
from contextlib import nullcontext

import traitlets

from ganlens.arguments import check_integer, check_number
from ganlens.models.base import Generator
from ganlens.models.editing import Edit, insert
from ganlens.widgets.orders import ORDERS
from ganlens.widgets.panel import Panel
from ganlens.widgets.strokes import History

MODES = ("remove", "add", "query", "copy", "paste")
TOOLS = ("brush", "box", "fill", "erase")
NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?")


FOLLOWED = {  # traits of the canvas that parts follow, and set
    "brush": ("radius", "mode", "tool"),
    "tools": ("radius", "tool"),
    "palette": ("mode", "strength", "concept"),
}
# traits that the fold shows
SHOWN = ["layer", "units", "concept", "k", "order", "level", "strength", "smooth", "mode", "where"]
SHOWN += ["truncation", "label", "found"]


class CanvasTraits(Panel):
    """The traits of the canvas; a value that does not fit is refused with the reason."""

    history: History

    @property
    def generator(self) -> Generator:
        """The generator in the setting on show."""
        raise NotImplementedError

    @property
    def pixels(self) -> int:
        """Pixels in which concepts are counted."""
        return self.D.shape[2] * self.D.shape[3]

    @property
    def verb(self) -> str:
        """What the palette is about: "add" or "remove"."""
        return "remove" if self.mode == "remove" else "add"

    seed = traitlets.Int(0)
    edits = traitlets.Tuple()
    found = traitlets.Tuple()
    k = traitlets.Int(20)
    order = traitlets.Enum(tuple(ORDERS.values()), "iou")
    level = traitlets.Unicode("q0.995")
    mode = traitlets.Enum(MODES, "remove")
    tool = traitlets.Enum(TOOLS, "brush")
    strength = traitlets.Float(1.0)
    radius = traitlets.Float(0.08)
    smooth = traitlets.Bool(True)
    where = traitlets.Bool(False)
    truncation = traitlets.Float(1.0)
    label = traitlets.Int(None, allow_none=True)

    def __setattr__(self, name: str, value) -> None:
        with self.__dict__.get("lock") or nullcontext():  # a stroke must not fall between a layer and its units
            super().__setattr__(name, value)

    @traitlets.validate("seed")
    def _check_seed(self, proposal) -> int:
        return self._whole("seed", proposal["value"], 0, 2**32 - 1)

    def _whole(self, name: str, value, least: int, most: int | None = None) -> int:
        try:
            return check_integer(name, value, least, most)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("truncation", "label")
    def _check_setting(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if value != getattr(self, name):
            try:
                self.generator.variant(**{name: value})
            except ValueError as error:
                raise traitlets.TraitError(str(error)) from None
        return value

    @traitlets.validate("strength", "radius")
    def _check_share(self, proposal) -> float:
        try:
            return check_number(proposal["trait"].name, proposal["value"], 0, 1)
        except ValueError as error:  # nan, for one, would be linked back and forth for ever
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("edits")
    def _check_edits(self, proposal) -> tuple[Edit, ...]:
        if proposal["value"] == self.history.edits:
            return proposal["value"]  # they were checked when they were painted
        try:
            for edit in proposal["value"]:
                self.generator.check_edit(edit)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.validate("level")
    def _check_level(self, proposal) -> str:
        try:
            return checked_level(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("k")
    def _check_k(self, proposal) -> int:
        return self._whole("k", proposal["value"], 1)


def checked_level(level: str | float) -> str:
    """A level as text; ValueError if it is none."""
    text = str(level).strip()
    insert("", [0], float(text) if NUMBER.fullmatch(text) else text)
    return text
