"""The best units of every dissection of a comparison for one concept, side by side."""

from collections.abc import Mapping

import numpy as np
import traitlets
from PIL import Image, ImageDraw

from ganlens.comparisons.side_by_side import Comparison, compare
from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import concept_index, known_as
from ganlens.widgets.gallery import cut, font, thumbnail
from ganlens.widgets.panel import View, source
from ganlens.widgets.thumbnails import strips

HEIGHT = 64  # of a strip in the picture


class ComparisonView(View):
    """Choose a concept, and see the units of every dissection that match it best, with their top images.

    Click a unit, or go to it with the arrows and press Enter, to select it.

    Parameters
    ----------
    dissections : Comparison, or dict of str to Dissection
        What `ganlens.compare` gives or takes.
    concept : str, optional
        Which concept first; by default the one that is matched best.
    best : int
        Units of each dissection.
    k : int
        Top images of each unit.

    Attributes
    ----------
    layer : str
        The name of the dissection in focus. Link it with other widgets where these names are layers.
    unit, units, concept
        See `ganlens.widgets.panel.Panel`; units are those of the dissection in focus.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> C = gl.compare(gl.dissect(G, S, ["layer4", "layer5"], n=16, progress=False))
    >>> view = ComparisonView(C, concept="tree")
    >>> view.pick("layer5", 19)
    >>> view.layer, view.unit, view.units
    ('layer5', 19, (19,))
    """

    _esm = source("common.js", "comparison.js")
    _css = source("common.css", "comparison.css")

    PICTURED = ("concept",)

    table = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        dissections: Comparison | Mapping[str, Dissection],
        concept: str | None = None,
        best: int = 3,
        *,
        k: int = 3,
    ):
        for name, number in (("best", best), ("k", k)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        self.comparison = dissections if isinstance(dissections, Comparison) else compare(dissections)
        self.best, self.k = best, k
        first = known_as(self.comparison.concepts)[self.comparison.iou.max(0).argmax()]
        super().__init__(self.comparison, concept=first if concept is None else concept)
        self.table = tabulate(self.comparison, best, k)

    def accept(self, dissections: Dissection | Mapping[str, Dissection]) -> dict[str, Dissection]:
        return self.comparison.dissections

    @traitlets.observe("layer")
    def _leave_units(self, change) -> None:
        """The same number is another unit there."""
        self.units, self.unit = (), None

    def pick(self, name: str, unit: int) -> None:
        """Select a unit of a dissection."""
        self.layer = name
        self.units, self.unit = (unit,), unit

    def handle(self, message: dict, buffers: list) -> None:
        if message["type"] == "pick":
            self.pick(message["name"], message["unit"])
        elif message["type"] == "strips":
            self.worker.request("strips", lambda: self._send_strips(message["concept"]))

    def _send_strips(self, concept: str) -> None:
        for name, D in self.dissections.items():
            if self.worker.outdated("strips"):
                return
            if D.generator is not None:
                units = D.units(concept, self.best)
                self.send({"type": "strips", "concept": concept, "name": name}, strips(D, units, self.k))

    def picture(self) -> np.ndarray:
        """The best unit of each dissection for the concept, as a picture (Y, X, 3) on white."""
        concept = self.concept or self.comparison.concepts[0]
        rows = []
        for found in self.comparison.best_units(concept).best:
            D = self.dissections[found.name]
            shown = D.generator is not None
            rows.append((found, thumbnail(strips(D, [found.unit], self.k)[0], HEIGHT) if shown else None))
        width = max([420, *(230 + strip.width for _, strip in rows if strip)])
        sheet = Image.new("RGB", (width, 40 + (HEIGHT + 6) * len(rows)), "white")
        draw = ImageDraw.Draw(sheet)
        draw.text((10, 10), f"{concept}: the best unit of each", "#222222", font(15))
        for i, (found, strip) in enumerate(rows):
            y = 38 + i * (HEIGHT + 6)
            draw.text((10, y + 12), cut(found.name, 26), "#222222" if found.unit_count else "#777777", font(14))
            draw.text((10, y + 33), f"unit {found.unit} · IoU {found.iou:.3f}", "#777777", font(11))
            if strip:
                sheet.paste(strip, (220, y))
        return np.asarray(sheet)


def tabulate(C: Comparison, best: int, k: int) -> dict:
    """What the page knows: names, concepts, and for each concept the best units of each dissection with their IoU."""
    known = known_as(C.concepts)
    rows = {}
    for name in known:
        index = concept_index(C.concepts, name, "this comparison")
        units = [D.units(C.concepts[index], best) for D in C.values()]
        rows[name] = [
            {
                "draw": int(count),
                "units": [[unit, round(float(D.iou[unit, index]), 4)] for unit in some],
            }
            for D, some, count in zip(C.values(), units, C.unit_counts[:, index], strict=True)
        ]
    return {
        "names": list(C),
        "concepts": [[concept.category, name] for concept, name in zip(C.concepts, known, strict=True)],
        "rows": rows,
        "images": [k if D.generator is not None else 0 for D in C.values()],
    }
