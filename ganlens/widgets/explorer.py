"""Gallery, heatmap and canvas of one generator, following each other."""

from collections.abc import Mapping

import ipywidgets as w
import numpy as np
import traitlets

from ganlens.dissection.result import Dissection
from ganlens.widgets.canvas import InterventionCanvas
from ganlens.widgets.canvas_parts import Part
from ganlens.widgets.gallery import UnitGallery
from ganlens.widgets.heatmap import IoUHeatmap
from ganlens.widgets.panel import Panel, source


class Tabs(Part):
    """Which of several things is shown."""

    _esm, _css = source("common.js", "tabs.js"), source("common.css", "explorer.css")
    names: traitlets.List = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)


class Offer(Part):
    """A line about what is selected, and a button for it."""

    _esm, _css = source("common.js", "offer.js"), source("common.css", "explorer.css")
    offer: traitlets.List = traitlets.List(["", ""]).tag(sync=True)


class Explorer(Panel, w.VBox):
    """The unit gallery, the IoU heatmap and the intervention canvas, linked.

    Layer and concept are the same in all. Units that are selected in the gallery or the heatmap are offered to the
    brush; those that it switches are selected, and those that are found in a painted region are shown in the gallery.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        Several layers of one generator can be chosen from; with generator, and segmenter if there is one.
    seed : int
        Which image the canvas shows first.

    Attributes
    ----------
    gallery, heatmap, canvas : UnitGallery, IoUHeatmap, InterventionCanvas
        The three.
    layer, unit, units, concept, found, seed, edits : traits
        Shared by all that have them.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, ["layer4", "layer5"], n=16, progress=False)
    >>> explorer = gl.Explorer(D)
    >>> explorer.layer = "layer5"
    >>> explorer.gallery.layer, explorer.canvas.layer
    ('layer5', 'layer5')
    """

    PICTURED = ("layer", "seed", "edits")

    seed = traitlets.Int(0)
    edits = traitlets.Tuple()
    found = traitlets.Tuple()

    def __init__(self, dissections: Dissection | Mapping[str, Dissection], seed: int = 0):
        Panel.__init__(self, dissections)
        with self.closed_on_error():
            self.gallery = UnitGallery(self.dissections)
            self.heatmap = IoUHeatmap(self.dissections)
            self.canvas = InterventionCanvas(self.dissections, seed=seed)
            self.seed = seed
            self.tabs, self.offer = Tabs(names=["Units", "Heatmap"], stands_for=self.stands_for), Offer()
            for part in (self.gallery, self.heatmap, self.canvas):
                for trait in ("layer", "concept", "seed", "edits", "found"):
                    if part.has_trait(trait):
                        traitlets.link((self, trait), (part, trait))
            for trait in ("unit", "units"):
                for part in (self.gallery, self.heatmap):
                    traitlets.link((self, trait), (part, trait))
                traitlets.dlink((self.canvas, trait), (self, trait))  # what is looked at is not painted with unasked
            self.heatmap.layers = (self.layer,)  # the gallery chooses for all
            self.canvas.auto = False  # the gallery chooses the layer
            self.canvas.show_fold()
            left = w.VBox([self.tabs, self.gallery, self.heatmap, self.offer])
            both = w.Box([left, self.canvas])
            for box, name in ((self, "explorer"), (both, "both"), (left, "canvas-left")):
                box.add_class(f"ganlens-{name}")
            self.children = [both]
            self.tabs.observe(lambda change: self._show_tab(), "chosen")
            self.offer.on_msg(lambda _, message, buffers: self.use())
            self.observe(lambda change: self._offer(), ["units", "unit"])
            self.canvas.observe(lambda change: self._offer(), "units")
            self._show_tab()

    @traitlets.validate("seed", "edits", "found")
    def _check_shared(self, proposal):
        canvas = vars(self).get("canvas")
        return proposal["value"] if canvas is None else proposal["trait"]._validate(canvas, proposal["value"])

    def use(self) -> None:
        """Paint with the units that are selected."""
        with self.canvas.showing_errors():
            self.canvas.units = self.units

    def _show_tab(self) -> None:
        for i, part in enumerate((self.gallery, self.heatmap)):
            part.layout.display = "" if i == self.tabs.chosen else "none"

    def _offer(self) -> None:
        """Say whether what is selected is what the brush switches, and offer it."""
        selected, painting = set(self.units), self.canvas.units
        if not selected or selected == set(painting):
            self.offer.offer = ["", ""]
        elif len(selected) == 1:
            (unit,) = selected
            where = "one of" if unit in painting else "not among"
            words = f"Unit {unit} is {where} the {len(painting)} that the brush switches."
            self.offer.offer = [words if painting else f"Unit {unit} is selected.", "Use it alone"]
        else:
            self.offer.offer = [f"{len(selected)} units are selected; the brush switches {len(painting)}.", "Use these"]

    def wait(self, seconds: float | None = 60) -> bool:
        """Wait until none of the three computes anything; False if that takes longer."""
        return all([part.wait(seconds) for part in (self.gallery, self.heatmap, self.canvas)])

    def picture(self) -> np.ndarray:
        """The gallery's picture, and below it the canvas's (Y, X, 3)."""
        pictures = [self.gallery.picture(), self.canvas.picture()]
        width = max(picture.shape[1] for picture in pictures)
        padded = [np.pad(p, ((0, 8), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
        return np.concatenate(padded)
