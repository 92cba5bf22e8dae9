"""What stands in the fold of the canvas: everything that a first stroke does not need."""

from collections.abc import Callable
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from ganlens.images import encode
from ganlens.segmenters.base import known_as
from ganlens.widgets.orders import ORDERS
from ganlens.widgets.strokes import parse_units, write_units

if TYPE_CHECKING:
    from ganlens.widgets.canvas import InterventionCanvas

SHADES = ("#2b2f36", "#5b5f9e", "#4f9ac4", "#fff3a8")  # of the map: under the least, and from each of the others on
NONE = ""  # the value of a choice that stands for None
AUTO = ""  # the layer that was measured to be best


class Cancelled(Exception):
    """Somebody pressed Cancel."""


class Controls:
    """What the fold shows, as a value for the page, and what its messages do.

    Parameters
    ----------
    canvas : InterventionCanvas
        Whose traits they are.
    """

    def __init__(self, canvas: "InterventionCanvas"):
        self.canvas = canvas
        self.cancelled = Event()
        self.readout = self.answer = ""  # HTML
        self.about = (
            "Pixels of the concept that the untouched picture gains near a cell, if this cell alone is painted."
        )
        self.long: tuple[str, int] | None = None  # what is measured, and how many percent of it are done

    def state(self) -> dict:
        """All that the page shows."""
        canvas = self.canvas
        D, settings = canvas.D, {name: getattr(canvas, name) for name in canvas.generator.settings}
        several = len(canvas.dissections) > 1
        best = [[f"best measured: {canvas.layer}", AUTO]] if several else []
        concept = canvas.concept or NONE
        words = f"{len(canvas.units)} unit{'s' * (len(canvas.units) > 1)}" + (f" of {concept}" if concept else "")
        words += f" · level {canvas.level}" if canvas.mode == "add" else ""
        return {
            "layers": best + [[layer, layer] for layer in canvas.dissections],
            "layer": AUTO if several and canvas.auto else canvas.layer,
            "concepts": [["choose …", NONE], *([name, name] for name in known_as(D.concepts))],
            "concept": concept,
            "orders": [list(pair) for pair in ORDERS.items()],
            "settings": {name: NONE if value is None else value for name, value in settings.items()},
            "classes": [["by seed", NONE], *([str(c), c] for c in range(canvas.generator.classes or 0))],
            "units": write_units(canvas.units),
            "smooth": "smooth" if canvas.smooth else "pixels",
            "copied": canvas.copied is not None,
            "legend": self.legend(),
            "about": self.about,
            "readout": self.readout,
            "answer": self.answer,
            "found": bool(canvas.found),
            "python": python_of(canvas),
            "summary": f"{canvas.layer} · {words}" if canvas.units else canvas.layer,
            "long": None if self.long is None else list(self.long),
            **{name: getattr(canvas, name) for name in ("order", "k", "level", "strength", "mode", "where")},
        }

    def legend(self) -> list[list[str]]:
        """The colours of the map, with the numbers of pixels that they stand for."""
        least = [max(1, round(self.canvas.pixels / share)) for share in (256, 128, 64)]
        texts = [f"under {least[0]}", f"{least[0]} to {least[1] - 1}", f"{least[1]} to {least[2] - 1}"]
        return [[text, color] for text, color in zip([*texts, f"{least[2]} or more"], SHADES, strict=True)]

    def obey(self, message: dict, buffers: list) -> None:
        """Do what the page asks for."""
        if message["kind"] == "set":
            self.set(message["name"], message["value"])
        elif message["kind"] == "open":
            self.open_recipe(bytes(buffers[0]))
        else:
            getattr(self, f"act_{message['command'].replace(' ', '_')}")()

    def set(self, name: str, value) -> None:
        """Set a trait of the canvas to what was typed or chosen."""
        canvas = self.canvas
        if name == "layer":
            canvas.auto = value == AUTO
            if value != AUTO:
                canvas.layer = value
            canvas.choose_layer()
        elif name == "units":
            canvas.units = parse_units(value)
        elif name == "smooth":
            canvas.smooth = value == "smooth"
        elif name in ("concept", "label"):
            setattr(canvas, name, None if value == NONE else value)
        elif name in ("order", "k", "level", "strength", "truncation", "where"):
            setattr(canvas, name, value)

    def act_query(self) -> None:
        self.canvas.mode = "query"

    def act_copy(self) -> None:
        self.canvas.mode = "copy"

    def act_paste(self) -> None:
        self.canvas.mode = "paste"

    def act_use(self) -> None:
        """Force the units that were found in a region."""
        self.canvas.units = self.canvas.found
        self.canvas.mode = "remove"

    def act_cancel(self) -> None:
        self.cancelled.set()

    def act_png(self) -> None:
        self.download("png", "image/png", encode(self.canvas.rendered()[1], "png"))

    def act_recipe(self) -> None:
        self.download("json", "application/json", self.canvas.recipe.to_json().encode())

    def act_copy_picture(self) -> None:
        self.canvas.fold.send({"kind": "picture"}, [encode(self.canvas.rendered()[1], "png")])

    def download(self, ending: str, kind: str, content: bytes) -> None:
        name = f"{self.canvas.layer}-seed-{self.canvas.seed}.{ending}"
        self.canvas.brush.send({"kind": "download", "name": name, "type": kind}, [content])

    def open_recipe(self, content: bytes) -> None:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ValueError("not a recipe: the file is no text; expected what “Save recipe” writes") from None
        self.canvas.load(text if text.lstrip().startswith("{") else "{" + text)

    @contextmanager
    def progress(self, name: str):
        """Show a bar; gives a function to be told of progress, which raises `Cancelled` when that was asked for."""
        self.cancelled.clear()
        self.long = (name, 0)
        self.canvas.show_fold()

        def tell(done: int, total: int) -> None:
            if self.cancelled.is_set() or self.canvas.long_worker.stopped:
                raise Cancelled
            percent = 100 * done // max(total, 1)
            if self.long != (name, percent):
                self.long = (name, percent)
                self.canvas.show_fold()

        yield_: Callable[[int, int], None] = tell
        try:
            yield yield_
        finally:
            self.long = None
            self.canvas.show_fold()


def python_of(canvas: "InterventionCanvas") -> str:
    """The picture on show as one line of Python."""
    recipe = " ".join(canvas.recipe.to_json().split())
    return f"gl.replay({recipe!r})" if canvas.generator.name == "scenes" else f"gl.replay({recipe!r}, G)"
