"""Gallery, heatmap and canvas of one generator, following each other."""

from collections.abc import Mapping

import ipywidgets as w
import numpy as np
import traitlets

from ganlens.dissection.result import Dissection
from ganlens.widgets.canvas import InterventionCanvas
from ganlens.widgets.gallery import UnitGallery
from ganlens.widgets.heatmap import IoUHeatmap
from ganlens.widgets.panel import Panel


class Explorer(Panel, w.VBox):
    """The unit gallery, the IoU heatmap and the intervention canvas, linked.

    What is selected in one is selected in all: units, unit, concept, layer. Units that are found in a painted region
    are shown in the gallery.

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
        self.gallery = UnitGallery(self.dissections)
        self.heatmap = IoUHeatmap(self.dissections)
        self.canvas = InterventionCanvas(self.dissections, seed=seed)
        self.seed = seed
        self.gallery.stands_for = [*self.gallery.stands_for, *self.stands_for]
        for part in (self.gallery, self.heatmap, self.canvas):
            for trait in ("layer", "unit", "units", "concept", "seed", "edits", "found"):
                if part.has_trait(trait):
                    traitlets.link((self, trait), (part, trait))
        self.heatmap.layers = (self.layer,)  # the gallery chooses for all
        self.canvas.auto = False  # the gallery chooses the layer
        for part, flex in ((self.gallery, "3 1 460px"), (self.heatmap, "2 1 340px")):
            part.layout.flex, part.layout.min_width = flex, "0"
        top = w.HBox([self.gallery, self.heatmap], layout=w.Layout(flex_flow="row wrap", grid_gap="12px"))
        self.children = [top, self.canvas]

    def wait(self, seconds: float | None = 60) -> bool:
        """Wait until none of the three computes anything; False if that takes longer."""
        return all([part.wait(seconds) for part in (self.gallery, self.heatmap, self.canvas)])

    def picture(self) -> np.ndarray:
        """The gallery's picture, and below it the canvas's (Y, X, 3)."""
        pictures = [self.gallery.picture(), self.canvas.picture()]
        width = max(picture.shape[1] for picture in pictures)
        padded = [np.pad(p, ((0, 8), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
        return np.concatenate(padded)
