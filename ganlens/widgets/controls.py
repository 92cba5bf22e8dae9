"""The controls around the intervention canvas, and where they stand."""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import ipywidgets as w

from ganlens.images import encode
from ganlens.widgets.orders import ORDERS
from ganlens.widgets.strokes import parse_units, write_units

MODES = {"remove": "remove", "add": "add", "which units?": "query", "copy": "copy", "paste": "paste"}
TIPS = [
    "switch the units off where you paint",
    "switch the units on where you paint",
    "paint a region to see which units are most active there",
    "remember what the units do where you paint",
    "put what was remembered somewhere else, in this image or another",
]
NONE = ""  # the value of a choice that stands for None, which a dropdown shows as an empty field


class Cancelled(Exception):
    """Somebody pressed Cancel."""


class Controls:
    """What stands around the image. Each control follows a trait of the canvas, and sets it.

    Parameters
    ----------
    canvas : InterventionCanvas
        Whose traits they are.
    """

    def __init__(self, canvas):
        self.canvas = canvas
        concepts = [("choose …", NONE), *((str(c), str(c)) for c in canvas.D.concepts)]
        self.cancelled = Event()
        self.modes = w.ToggleButtons(options=list(MODES.items()), tooltips=TIPS)
        self.modes.style.button_width = "auto"
        self.layer = field("layer", w.Dropdown(options=list(canvas.dissections)), "the layer whose units are forced")
        self.concept = field("units of", w.Dropdown(options=concepts), "the concept whose best units are forced")
        self.k = field("how many", w.BoundedIntText(min=1, max=10**6), "how many of the concept's units", 60)
        self.order = field("with", w.Dropdown(options=list(ORDERS.items())), "what the concept's units are ranked by")
        self.units = field("units", w.Text(continuous_update=False), "the units that are forced, such as 3, 17, 40-43")
        self.strength = field(
            "strength", w.FloatSlider(min=0, max=1, step=0.05), "1 forces units fully, 0 not at all", 130
        )
        self.radius = field(
            "brush",
            w.FloatSlider(min=0.01, max=0.5, step=0.01, readout=False),
            "radius of the brush, of the image's side",
            150,
        )
        self.seed = field("seed", w.BoundedIntText(min=0, max=2**32 - 1), "which image", 100)
        self.truncation = field(
            "truncation",
            w.FloatSlider(min=0, max=1, step=0.05, continuous_update=False),
            "1: images as varied as in training; towards 0 all are drawn to the mean image",
            170,
        )
        classes = canvas.generator.classes or 0
        self.label = field(
            "class",
            w.Dropdown(options=[("by seed", NONE), *((str(c), c) for c in range(classes))]),
            "the class that is drawn",
        )
        self._make_buttons(canvas)
        self.status = w.HTML()
        self.failure, self.readout, self.answer = w.HTML(), w.HTML(), w.HTML()
        self._bind()

    def _make_buttons(self, canvas) -> None:
        self.undo = button("undo", "take the last change back (Z)", canvas.undo, canvas)
        self.redo = button("redo", "do it again (Y)", canvas.redo, canvas)
        self.reset = button("reset", "delete all strokes", canvas.reset, canvas)
        self.earlier = button("‹", "previous seed (P)", lambda: canvas.step(-1), canvas)
        self.later = button("›", "next seed (N)", lambda: canvas.step(1), canvas)
        self.aside = w.ToggleButton(description="side by side", tooltip="show the image without edits beside it")
        self.where = w.ToggleButton(
            description="where can it go?",
            tooltip="light up the cells in which adding the units would draw the concept",
        )
        self.png = button("save PNG", "download the image", self._save_png, canvas)
        self.json = button("save recipe", "download the edits, to replay them in Python", self._save_recipe, canvas)
        self.upload = w.FileUpload(accept=".json", description="open recipe", tooltip="show a saved recipe")
        self.bar, self.stop = w.IntProgress(max=100), button("cancel", "stop this", self.cancelled.set, canvas)
        self.long = w.HBox([self.bar, self.stop], layout=w.Layout(display="none"))
        for one in (self.undo, self.redo, self.reset, self.png, self.json, self.upload, self.aside, self.where):
            one.layout.width = "auto"

    def _bind(self) -> None:
        self._follow("mode", self.modes)
        for trait in ("layer", "k", "order", "strength", "radius", "seed", "truncation"):
            self._follow(trait, getattr(self, trait))
        for trait in ("concept", "label"):
            self._follow(
                trait,
                getattr(self, trait),
                lambda value: NONE if value is None else value,
                lambda value: None if value == NONE else value,
            )
        self._follow("units", self.units, write_units, parse_units)
        self.canvas.observe(lambda change: setattr(self.failure, "value", change["new"]), "failure")
        self.where.observe(lambda change: self.canvas.show_where(), "value")
        self.aside.observe(lambda change: self._put_aside(change["new"]), "value")
        self.upload.observe(lambda change: self._open_recipe(), "value")

    def _follow(
        self, trait: str, control, to_control: Callable = lambda v: v, to_trait: Callable = lambda v: v
    ) -> None:
        """Keep a control and a trait equal; a value that the trait refuses is shown as an error and taken back."""
        canvas = self.canvas

        def show(change=None):
            control.value = to_control(getattr(canvas, trait))

        def take(change):
            with canvas.showing_errors():
                try:
                    setattr(canvas, trait, to_trait(change["new"]))
                except Exception:
                    show()
                    raise

        show()
        canvas.observe(show, trait)
        control.observe(take, "value")

    def _put_aside(self, on: bool) -> None:
        self.canvas.original.layout.display = "" if on else "none"

    def _save_png(self) -> None:
        content = encode(self.canvas.rendered()[1], "png")
        self._download(f"{self._name()}.png", "image/png", content)

    def _save_recipe(self) -> None:
        self._download(f"{self._name()}.json", "application/json", self.canvas.recipe.to_json().encode())

    def _name(self) -> str:
        return f"{self.canvas.layer}-seed-{self.canvas.seed}"

    def _download(self, name: str, kind: str, content: bytes) -> None:
        self.canvas.brush.send({"kind": "download", "name": name, "type": kind}, [content])

    def _open_recipe(self) -> None:
        if self.upload.value:
            with self.canvas.showing_errors():
                try:
                    text = bytes(self.upload.value[0]["content"]).decode()
                except UnicodeDecodeError:
                    raise ValueError("not a recipe: the file is no text; expected what “save recipe” writes") from None
                finally:
                    self.upload.value = ()
                self.canvas.load(text if text.lstrip().startswith("{") else "{" + text)

    def say(self, text: str) -> None:
        """Show a line of text below the image."""
        self.status.value = f"<small class='ganlens-faint'>{html.escape(text)}</small>"

    @contextmanager
    def progress(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar; gives a function to be told of progress, which raises `Cancelled` when that was asked for."""
        self.bar.description, self.bar.value = name, 0

        def tell(done: int, total: int) -> None:
            if self.cancelled.is_set():
                raise Cancelled
            self.bar.value = 100 * done // total

        self.long.layout.display = ""
        try:
            yield tell
        finally:
            self.long.layout.display = "none"

    def arrange(self) -> list[w.Widget]:
        """The rows of the canvas."""
        canvas, (width, height) = self.canvas, self.canvas.brush.size
        pixels = {"width": f"{width}px", "height": f"{height}px"}
        stage = w.GridBox(
            [canvas.screen.canvas, canvas.brush],
            layout=w.Layout(grid_template_areas='"stage"', flex="0 0 auto", overflow="hidden", **pixels),
        )
        for child in stage.children:
            child.layout.grid_area = "stage"
        canvas.original.layout.width, canvas.original.layout.height = pixels.values()
        canvas.original.layout.flex = "0 0 auto"
        for one in (canvas.original, canvas.screen.canvas):
            one.add_class("ganlens-pixelated" if canvas.brush.pixelated else "ganlens-smooth")
        for table in (self.readout, self.answer):
            table.add_class("ganlens-readout")
        choice = [self.layer] if len(canvas.dissections) > 1 else []
        side = w.VBox(
            [
                self.modes,
                row(*choice, self.concept, self.k, self.order),
                self.units,
                row(self.radius, self.strength),
                row(self.undo, self.redo, self.reset, self.where),
                canvas.list,
                self.answer,
                self.readout,
                self.long,
            ],
            layout=w.Layout(flex="1 1 340px", min_width="300px", overflow="visible"),
        )
        settings = [getattr(self, name) for name in canvas.generator.settings]
        image = row(self.earlier, self.seed, self.later, *settings, self.aside)
        files = row(image, self.png, self.json, self.upload, self.status)
        top = row(stage, canvas.original, side, gap="12px")
        top.layout.align_items = "flex-start"
        return [self.failure, top, files, canvas.strip]


def field(label: str, control, tip: str, width: int | None = None):
    """A control with its label before it, which screen readers read too."""
    control.description, control.tooltip = label, tip
    control.style.description_width = "auto"
    control.layout.width = "auto"
    if width:
        control.layout.width = f"{width + 8 * len(label)}px"
    return control


def button(label: str, tip: str, act: Callable[[], None], canvas) -> w.Button:
    """A button whose errors are shown in the canvas."""
    made = w.Button(description=label, tooltip=tip, layout=w.Layout(width="auto"))

    def press(_):
        with canvas.showing_errors():
            act()

    made.on_click(press)
    return made


def row(*children, gap: str = "6px") -> w.HBox:
    """Widgets side by side, on further lines where the page is narrow."""
    return w.HBox(
        children, layout=w.Layout(flex_flow="row wrap", align_items="center", grid_gap=gap, overflow="visible")
    )
