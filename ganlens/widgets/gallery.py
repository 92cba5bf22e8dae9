"""All units of a layer with their labels and top images: sort, filter, select, flag, look closer."""

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import numpy as np
import traitlets
from IPython.display import display
from PIL import Image, ImageDraw, ImageFont

from ganlens.arguments import close_match
from ganlens.dissection.ranking import UnitLabel
from ganlens.dissection.result import Dissection
from ganlens.dissection.saved import FLAGS
from ganlens.dissection.unit_tables import spread_of
from ganlens.images import encode
from ganlens.segmenters.base import Concept, known_as
from ganlens.widgets.panel import View, source
from ganlens.widgets.thumbnails import closeups, kept_strips, strips

SORTS = ("iou", "unit", "label", "concept")
BATCH = 4  # units whose strips are made together
CLOSEUPS, BLOCK = 16, 8  # images in the detail view, and how many of them are made together
BARS = 64
PATIENCE = 1.0  # seconds that the display may wait for the pictures of the fallback
NO_IMAGES = (
    "No images: this dissection has no generator at hand. Attach one with gl.Dissection.load(path, generator=G)."
)


class UnitGallery(View):
    """All units of a layer with their labels and top images, to be sorted, filtered, selected and flagged.

    Click a row to select a unit, with Ctrl or Cmd several, with Shift all up to it. Arrows move, Space selects, Enter
    opens the detail view, F and X flag a unit as favourite and as artifact. Flags are kept in the dissection.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        One layer, or several of one generator.
    sort : {"iou", "unit", "label", "concept"}
        Order of the units: the best IoU first, by number, by name, or the best IoU of ``concept`` first.
    k : int
        Top images of each unit.
    search : str
        Show only units whose number is this, or whose label or category contains all of these words.
    minimum : float
        Show only units with at least this IoU: of the concept if one is set, otherwise of the label.
    interpretable_only : bool
        Show no units that draw nothing.
    certain_only : bool
        Show no units whose label may be by chance.

    Attributes
    ----------
    category : str
        Show only units with a label of this category; empty for all.
    labelled_only : bool
        Where a concept is set, show only units with that label.
    flagged : {"", "artifact", "favourite"}
        Show only units with this flag.
    found : tuple of int
        If not empty, show only these units, in this order.
    detail : bool
        Whether the detail view of ``unit`` is open.
    layer, unit, units, concept
        See `ganlens.widgets.panel.Panel`. Setting a concept sorts by it. All attributes can be set at any time.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer4", n=16, progress=False)
    >>> gallery = UnitGallery(D, minimum=0.04)
    >>> gallery.concept = "tree"
    >>> gallery.sort
    'concept'
    >>> gallery.flag(3, "favourite")
    >>> D.flags
    {'favourite': [3]}
    """

    _esm = source("common.js", "gallery-table.js", "gallery-toolbar.js", "gallery-detail.js", "gallery.js")
    _css = source("common.css", "gallery.css")

    sort = traitlets.Unicode("iou").tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    category = traitlets.Unicode("").tag(sync=True)
    minimum = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    interpretable_only = traitlets.Bool(False).tag(sync=True)
    certain_only = traitlets.Bool(False).tag(sync=True)
    labelled_only = traitlets.Bool(False).tag(sync=True)
    flagged = traitlets.Unicode("").tag(sync=True)
    found = traitlets.Tuple().tag(sync=True)
    detail = traitlets.Bool(False).tag(sync=True)
    layers = traitlets.Tuple().tag(sync=True)
    table = traitlets.Dict().tag(sync=True)
    flags = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        dissections: Dissection | Mapping[str, Dissection],
        sort: str = "iou",
        k: int = 8,
        *,
        search: str = "",
        minimum: float = 0.0,
        interpretable_only: bool = False,
        certain_only: bool = False,
    ):
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k
        filters = {"search": search, "minimum": minimum, "interpretable_only": interpretable_only}
        filters |= {"certain_only": certain_only}
        super().__init__(dissections, sort=sort, **filters)

    @classmethod
    def live(cls, **options) -> Callable:
        """For ``gl.dissect(…, watch=gl.UnitGallery.live())``: a gallery that shows labels as they settle.

        It opens when labels are first known, and gets pictures when the dissection is done; ``options`` are those of a
        gallery.
        """
        signature(cls).bind(None, **options)
        opened: list[UnitGallery] = []

        def watch(found: Dissection | Mapping, done: bool) -> None:
            by_layer = of_first_rule(found)
            if not done:  # the generator is at work
                by_layer = {layer: replace(D, generator=None) for layer, D in by_layer.items()}
            if not opened or not opened[-1].is_alike(by_layer):
                opened.append(cls(by_layer, **options))
                display(opened[-1])
            opened[-1].update(by_layer, "" if done else so_far(by_layer))

        return watch

    def update(self, dissections: Dissection | Mapping[str, Dissection], note: str = "") -> None:
        """Show newer dissections of the same layers, under a note; what is chosen, sorted and filtered stays."""
        newer = self.accept(dissections)
        if not self.is_alike(newer):
            raise ValueError(f"dissections of {', '.join(newer)}; expected {', '.join(self.dissections)}, made alike")
        for layer, D in newer.items():
            D.flags = self.dissections[layer].flags | D.flags
        with self.lock:
            self.dissections = newer
            table = tabulate(self.D, self.k)
            self.flags, self.table = self.D.flags, table | {"note": note or table["note"]}
        self.keep_picture()

    def is_alike(self, dissections: Mapping[str, Dissection]) -> bool:
        """Whether dissections are of the same layers, generator and concepts as those on show."""

        def kind(by_layer: Mapping[str, Dissection]) -> dict:
            return {name: (D.concepts, D.origin["generator_fingerprint"]) for name, D in by_layer.items()}

        return kind(dissections) == kind(self.dissections)

    # ---- state

    @traitlets.validate("sort")
    def _check_sort(self, proposal) -> str:
        return one_of("order", proposal["value"], SORTS)

    @traitlets.validate("category")
    def _check_category(self, proposal) -> str:
        return one_of("category", proposal["value"], ("", *categories(self.D)))

    @traitlets.validate("flagged")
    def _check_flagged(self, proposal) -> str:
        return one_of("flag", proposal["value"], ("", *FLAGS))

    @traitlets.validate("found")
    def _check_found(self, proposal) -> tuple[int, ...]:
        return self._check_units(proposal)

    @traitlets.observe("layer")
    def _show_layer(self, change) -> None:
        """Replace everything that belongs to a layer: the same number is another unit there."""
        with self.hold_sync():
            self.units, self.unit, self.found = (), None, ()
            if self.concept not in known_as(self.D.concepts):
                self.concept = None
            if self.category not in categories(self.D):
                self.category = ""
            self.layers, self.flags = tuple(self.dissections), self.D.flags
            self.table = tabulate(self.D, self.k)

    @traitlets.observe("concept")
    def _sort_by_concept(self, change) -> None:
        if self.concept is not None:
            self.sort = "concept"
        elif self.sort == "concept":
            self.sort = "iou"

    def flag(self, unit: int, name: str, flagged: bool = True) -> None:
        """Mark a unit of the layer on show by hand, as `Dissection.flag` does."""
        self.D.flag(unit, name, flagged)
        self.flags = self.D.flags

    # ---- what the page asks for

    def handle(self, message: dict, buffers: list) -> None:
        D, kind = self.D, message["type"]
        if message["layer"] != D.layer:
            return  # asked before the layer changed
        if kind == "flag":
            self.flag(message["unit"], message["name"], message["on"])
        elif kind == "strips":
            self.worker.request(kind, lambda: self._send_strips(D, message["units"]))
        elif kind == "detail":
            unit = message["unit"]
            D.check_units([unit])
            self.send({"type": "numbers", "layer": D.layer, "unit": unit, **numbers(D, unit)})
            if D.generator is not None:
                self.worker.request(kind, lambda: self._send_closeups(D, unit))

    def _send_strips(self, D: Dissection, units: list[int]) -> None:
        D.check_units(units)
        for some in batches(units, BATCH):
            if self.worker.outdated("strips"):
                return
            self.send({"type": "strips", "layer": D.layer, "units": some}, strips(D, some, self.k))

    def _send_closeups(self, D: Dissection, unit: int) -> None:
        for start in range(0, CLOSEUPS, BLOCK):
            if self.worker.outdated("detail"):
                return
            rows, seeds, key = closeups(D, unit, start, BLOCK)
            message = {"type": "closeups", "layer": D.layer, "unit": unit, "start": start, "seeds": seeds, "key": key}
            self.send(message, rows)

    # ---- where no kernel is

    def picture(self) -> np.ndarray:
        """A contact sheet (Y, X, 3) of the best units."""
        best = units_to_show(self.D)
        if self.D.generator is not None:
            strips(self.D, [label.unit for label in best], self.k)
        return contact_sheet(self.D, best, self.k)

    def fallback(self) -> tuple[str, bytes]:
        """The contact sheet with the strips that can be had quickly: a slow generator must not delay the display."""
        D, best = self.D, units_to_show(self.D)
        missing = [label.unit for label in best if (label.unit, self.k) not in kept_strips(D)]
        if missing and D.generator is not None:
            self.worker.request("sheet", lambda: self._make_strips(D, missing))
            self.worker.wait(PATIENCE)
        return "image/jpeg", encode(contact_sheet(D, best, self.k), quality=70)

    def _make_strips(self, D: Dissection, units: list[int]) -> None:
        for some in batches(units, BATCH):
            if self.worker.jobs:  # the page asks for something: that goes first
                self.worker.request("sheet", lambda: self._make_strips(D, units))
                return
            strips(D, some, self.k)
        self.keep_picture()


# ---- numbers


def one_of(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The name, if it is known."""
    if name not in known:
        raise traitlets.TraitError(close_match(kind, name, [name for name in known if name], "the gallery"))
    return name


def batches(units: list[int], size: int) -> list[list[int]]:
    return [units[start : start + size] for start in range(0, len(units), size)]


def categories(D: Dissection) -> list[str]:
    return list(dict.fromkeys(concept.category for concept in D.concepts))


def tabulate(D: Dissection, k: int) -> dict:
    """What the page knows of a layer: numbers and names of its units and concepts."""
    index: dict[Concept | None, int] = {concept: c for c, concept in enumerate(D.concepts)}
    generator = D.generator
    height, width = generator.image_shape[1:] if generator else (1, 1)
    return {
        "layer": D.layer,
        "concepts": [[*concept, name] for concept, name in zip(D.concepts, known_as(D.concepts), strict=True)],
        "iou": (D.iou * 65535).round().astype("<u2").tobytes(),  # (U, C)
        "label": [index[label.concept] for label in D.labels],
        "second": [index.get(label.runner_up, -1) for label in D.labels],
        "interpretable": [int(label.interpretable) for label in D.labels],
        "certain": [] if D.certificates is None else [int(label.certain) for label in D.labels],
        "spread": [spread_of(label) for label in D.labels],
        "images": min(k, D.top.shape[1]) if generator else 0,
        "aspect": width / height,
        "segmented": D.segmenter is not None,
        "note": "" if generator else NO_IMAGES,
    }


def of_first_rule(found: Dissection | Mapping) -> dict[str, Dissection]:
    """Dissections by layer, of what `ganlens.dissect` returns: those of the first rule where there are several."""
    if isinstance(found, Dissection):
        return {found.layer: found}
    by_layer: dict[str, Dissection] = {}
    for part in found.values():
        for layer, D in of_first_rule(part).items():
            by_layer.setdefault(layer, D)
    return by_layer


def so_far(by_layer: Mapping[str, Dissection]) -> str:
    """How far dissections are that go on."""
    n, settled = max(D.n for D in by_layer.values()), min(D.settled for D in by_layer.values())
    return f"{n:,} images so far: {settled:.0%} of the labels are settled. Pictures come with the last image."


def numbers(D: Dissection, unit: int) -> dict:
    """The activation of a unit: its histogram, its threshold, the share of pixels at which it is on; and a sentence."""
    level = float(D.thresholds[unit])
    threshold = level if np.isfinite(level) else None
    found = {"histogram": histogram(D, unit), "threshold": threshold, "on": float(D.achieved[unit])}
    return found | {"sentence": D.describe(unit)}


def histogram(D: Dissection, unit: int) -> dict:
    """How many cells have which activation: the bins of the dissection, some of them together.

    Returns
    -------
    dict
        ``counts`` of at most 64 bars, the ``low`` end of the first one, and the ``width`` of each. What lies below and
        above is counted in the first and in the last bar, which ends at ``highest`` if that is above its nominal end.
    """
    levels = D.levels
    counts, slope = levels.counts[unit].cpu().numpy(), float(levels.scale.slope[unit])
    together = -(-len(counts) // BARS)
    bars = np.add.reduceat(counts, np.arange(0, len(counts), together))
    bars[0] += int(levels.below[unit])
    width = together / slope if slope else 0.0
    low, highest = float(levels.scale.low[unit]), float(levels.highest[unit])
    return {"counts": bars.tolist(), "low": low, "width": width, "highest": highest}


# ---- contact sheet


def units_to_show(D: Dissection) -> list[UnitLabel]:
    """The best unit of each concept, then the next best; where none is interpretable, the highest IoU."""
    return D.best_labels(12) or sorted(D.labels, key=lambda label: -label.iou)[:12]


def contact_sheet(D: Dissection, best: list[UnitLabel], k: int, height: int = 48) -> np.ndarray:
    """Units with their labels and the strips that exist, as a picture (Y, X, 3) on white."""
    kept = kept_strips(D)
    rows = {label.unit: thumbnail(kept[label.unit, k], height) for label in best if (label.unit, k) in kept}
    width = max([420, *(210 + row.width for row in rows.values())])
    step = height + 6 if rows else 34
    sheet = Image.new("RGB", (width + 12, 40 + step * len(best)), "white")
    draw = ImageDraw.Draw(sheet)
    title = f"{D.layer} of {D.origin['generator']}: the best of {len(D.labels)} units"
    draw.text((10, 10), title, "#222222", font(15))
    for i, label in enumerate(best):
        y = 38 + i * step
        draw.text((10, y + step // 2 - 18), cut(label.concept.name, 22), "#222222", font(14))
        draw.text((10, y + step // 2), f"unit {label.unit} · IoU {label.iou:.3f}", "#777777", font(11))
        if label.unit in rows:
            sheet.paste(rows[label.unit], (210, y))
        elif not rows:
            long = 200 * label.iou / max(best[0].iou, 1e-9)
            draw.rectangle((210, y + step // 2 - 5, 210 + long, y + step // 2 + 5), "#4477AA")
    return np.asarray(sheet)


def thumbnail(content: bytes, height: int) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    return picture.resize((picture.width * height // picture.height, height), Image.Resampling.LANCZOS)


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that matplotlib brings along, which knows more letters than Pillow's own."""
    with suppress(OSError, ImportError):
        spec = find_spec("matplotlib")
        if spec and spec.origin:
            return ImageFont.truetype(str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)
    return ImageFont.load_default(size)
