"""What all widgets have in common: traits to link, errors that can be seen, a picture for where no kernel is."""

import html
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar

import anywidget
import traitlets
from IPython.display import Image, display
from ipywidgets import Widget

from ganlens.arguments import close_match
from ganlens.dissection.result import Dissection
from ganlens.images import encode
from ganlens.segmenters.base import concept_index, known_as
from ganlens.widgets.saved_picture import SavedPicture, marks_of
from ganlens.widgets.worker import Worker, stop_all

HERE = Path(__file__).parent
SHARED = ("comm", "_canvas_manager")  # what a widget has in common with those of others


def source(*names: str) -> str:
    """The text of files beside this one, one after the other: `anywidget` takes one module and one style sheet."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


class Panel(traitlets.HasTraits):
    """Mixed into every widget. Linking traits of equal names is all it takes to make widgets follow each other.

    Attributes
    ----------
    layer : str
        The layer on show, one of ``dissections``.
    unit : int or None
        The unit in focus.
    units : tuple of int
        The units that are selected.
    concept : str or None
        Name of the concept in focus.
    failure : str
        HTML of the last error, empty when all is well.
    dissections : dict of str to Dissection
        By layer.
    """

    KEPT: ClassVar[str] = "png"  # kind of the saved picture
    PICTURED: ClassVar[tuple[str, ...]] = ("layer",)  # traits that the saved picture depends on

    layer = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Int(None, allow_none=True).tag(sync=True)
    units = traitlets.Tuple().tag(sync=True)
    concept = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    failure = traitlets.Unicode().tag(sync=True)
    stands_for: traitlets.List = traitlets.List().tag(sync=True)  # marks of the saved pictures that the view hides

    def __init__(self, dissections: Dissection | Mapping[str, Dissection], **traits):
        self.lock = RLock()
        self.worker = Worker(self.show_error)
        self.dissections = self.accept(dissections)
        enable_in_colab()
        super().__init__(layer=next(iter(self.dissections)), **traits)
        self.saved = SavedPicture(self.model_id, self.fallback, f"picture of {self!r}")  # type: ignore[attr-defined]
        self.stands_for = marks_of(self.saved.name)
        self.observe(lambda change: self.keep_picture(), list(self.PICTURED))

    def accept(self, dissections: Dissection | Mapping[str, Dissection]) -> dict[str, Dissection]:
        """Dissections by the name that ``layer`` calls them; an error if the widget cannot show them."""
        return as_dissections(dissections)

    @property
    def D(self) -> Dissection:
        """The dissection of the layer on show."""
        return self.dissections[self.layer]

    @traitlets.validate("layer")
    def _check_layer(self, proposal) -> str:
        if proposal["value"] not in self.dissections:
            raise traitlets.TraitError(
                close_match("layer", proposal["value"], list(self.dissections), "what was dissected")
            )
        return proposal["value"]

    @traitlets.validate("unit")
    def _check_unit(self, proposal) -> int | None:
        if proposal["value"] is not None:
            self._check_units({"value": [proposal["value"]]})
        return proposal["value"]

    @traitlets.validate("units")
    def _check_units(self, proposal) -> tuple[int, ...]:
        try:
            self.D.check_units(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return tuple(dict.fromkeys(map(int, proposal["value"])))

    @traitlets.validate("concept")
    def _check_concept(self, proposal) -> str | None:
        concept = proposal["value"]
        if concept is not None:
            try:
                return known_as(self.D.concepts)[concept_index(self.D.concepts, concept, "this vocabulary")]
            except ValueError as error:
                raise traitlets.TraitError(str(error)) from None
        return None

    def close(self) -> None:
        """Take the widget off the page for good, and all that it is made of out of the kernel."""
        widgets = widgets_in(self)
        stop_all([value for one in widgets for value in vars(one).values() if isinstance(value, Worker)])
        for widget in widgets:
            widget.unobserve_all()
            Widget.close(widget)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Leave no widget and no thread behind if it cannot be made."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float | None = 60) -> bool:
        """Wait until nothing is computed any more; False if that takes longer."""
        return self.worker.wait(seconds)

    # ---- errors

    @contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Show an exception inside the widget; without one, take the last one away."""
        try:
            yield
        except Exception as error:
            self.show_error(error)
        else:
            self.failure = ""

    def show_error(self, error: BaseException) -> None:
        """Show an exception inside the widget, its traceback folded."""
        trace = "".join(traceback.format_exception(error))
        name = "" if isinstance(error, ValueError | traitlets.TraitError) else f"{type(error).__name__}: "
        self.failure = (
            f"<div role='alert' class='ganlens-failure'><b>{html.escape(name + str(error))}</b>"
            f"<details><summary>traceback</summary><pre>{html.escape(trace)}</pre></details></div>"
        )

    # ---- where no kernel is

    def picture(self):
        """The widget's state as a picture (Y, X, 3), uint8."""
        raise NotImplementedError

    def fallback(self) -> tuple[str, bytes]:
        """What a saved notebook shows without a kernel: the kind of the picture, and its bytes."""
        return f"image/{self.KEPT}", encode(self.picture(), self.KEPT)

    def snapshot(self) -> Image:
        """The widget as it is now, as a picture that stays in the notebook."""
        return Image(data=encode(self.picture(), "png"))

    def _repr_mimebundle_(self, include=None, exclude=None, **options):
        bundle = super()._repr_mimebundle_(include=include, exclude=exclude, **options)  # type: ignore[misc]
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data is None:
            return None
        data["text/plain"] = repr(self)
        return data, metadata | colab_metadata()

    def _ipython_display_(self, **options) -> None:
        """Show the picture that stays in the notebook, and the live widget, which hides it while there is a kernel."""
        with self.showing_errors():
            self.saved.show()
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)

    def keep_picture(self) -> None:
        """Have the picture in the notebook made again soon, as something has changed."""
        self.saved.update_soon(lambda update: self.worker.request("picture", update))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.layer} of {self.D.origin['generator']}>"


class View(Panel, anywidget.AnyWidget):
    """A panel that draws itself in JavaScript."""

    def __init__(self, dissections: Dissection | Mapping[str, Dissection], **traits):
        super().__init__(dissections, **traits)
        self.on_msg(self._receive)

    def _receive(self, widget, message, buffers) -> None:
        with self.showing_errors():
            self.handle(message, buffers)

    def handle(self, message: dict, buffers: list) -> None:
        """Do what a message from the page asks for."""
        raise NotImplementedError


def widgets_in(widget: Widget) -> list[Widget]:
    """A widget and all that it holds: children, their layouts and styles, and what its parts hold in turn."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [widget]
    while waiting:
        one = waiting.pop()
        ours = type(one).__module__.startswith("ganlens.widgets.")
        if id(one) in found or not (isinstance(one, Widget) or ours):
            continue
        found[id(one)] = one
        held = {name: value for name, value in vars(one).items() if not name.startswith("_")}
        held |= {name: value for name, value in vars(one).get("_trait_values", {}).items() if name not in SHARED}
        for value in held.values():
            value = list(value.values()) if isinstance(value, dict) else value
            waiting += value if isinstance(value, tuple | list) else [value]
    return [one for one in found.values() if isinstance(one, Widget)]


def as_dissections(dissections: Dissection | Mapping[str, Dissection]) -> dict[str, Dissection]:
    """Dissections by layer, in their order; all of one generator."""
    if isinstance(dissections, Dissection):
        return {dissections.layer: dissections}
    if not isinstance(dissections, Mapping) or not dissections:
        raise TypeError(f"{type(dissections).__name__} given; expected a Dissection, or a dict of them by layer")
    for layer, D in dissections.items():
        if not isinstance(D, Dissection):
            hint = "; choose one rule: {layer: by_rule['quantile'] …}" if isinstance(D, Mapping) else ""
            raise TypeError(f"{layer!r} is a {type(D).__name__}; expected a Dissection{hint}")
    by_layer = {D.layer: D for D in dissections.values()}
    origins = [D.origin for D in by_layer.values()]
    if len({(origin["generator_fingerprint"], str(origin.get("generator_settings"))) for origin in origins}) > 1:
        raise ValueError("the dissections are of different generators, or settings of one; give each its own widget")
    if len(by_layer) < len(dissections):
        raise ValueError("two of the dissections are of the same layer; a widget shows one for each layer")
    return by_layer


def in_colab() -> bool:
    return "google.colab" in sys.modules


def enable_in_colab() -> None:
    """Switch on what Colab needs to show other widgets than its own, once, and say so."""
    if not in_colab() or getattr(enable_in_colab, "done", False):
        return
    with suppress(ImportError, AttributeError):
        from google.colab import output

        output.enable_custom_widget_manager()
        enable_in_colab.done = True  # type: ignore[attr-defined]
        print("ganlens: switched on Colab's custom widget manager.")


def colab_metadata() -> dict:
    """What tells Colab where to load the widgets from."""
    if not in_colab():
        return {}
    with suppress(ImportError, AttributeError):
        from google.colab import output

        url = output._widgets._installed_url
        return {"application/vnd.jupyter.widget-view+json": {"colab": {"custom_widget_manager": {"url": url}}}}
    return {}
