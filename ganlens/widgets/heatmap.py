"""Units x concepts as one picture: where the IoU is high, one click away from both."""

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import numpy as np
import traitlets
from PIL import Image, ImageDraw, ImageFont

from ganlens.arguments import close_match
from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import concept_index, known_as
from ganlens.widgets.panel import View, source

ORDERS = ("concept", "IoU", "unit", "clustered")
ONE = 65535  # code of an IoU of 1
STOPS = (
    "440154 48186A 472D7B 424086 3B528B 33638D 2C728E 26828E 21908C 1F9F88 27AD81 3EBC74 5CC863 82D34D AADC32 D5E21A"
)
VIRIDIS = np.frombuffer(bytes.fromhex(STOPS + "FDE725"), np.uint8).reshape(17, 3)  # every 16th of its colours
COLORS = np.stack([np.interp(np.linspace(0, 16, 256), range(17), channel) for channel in VIRIDIS.T], 1)
COLORS = (COLORS + 0.5).astype(np.uint8)  # (256, 3)
INK = (34, 34, 34)
FONT = ImageFont.load_default(12)
LINE = 14  # pixels from one line of names to the next
KEY = 120  # height of the key of colours


class Arrangement(NamedTuple):
    """What is on show, in its order."""

    units: list[int]
    concepts: list[int]  # positions in the vocabulary
    best: list[int]  # the concept of each unit


class IoUHeatmap(View):
    """Units x concepts, coloured by IoU; a click selects a unit and a concept.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        One layer, or several of one generator.
    order : {"concept", "IoU", "unit", "clustered"}
        Units grouped by their concept, by their IoU, by number, or so that neighbours are alike.
    interpretable_only : bool
        Leave out units that draw nothing.
    minimum : float
        Leave out units whose IoU with their concept is lower.
    search : str
        Leave out concepts whose name and category do not contain this, or one of several words with commas between.

    Attributes
    ----------
    zoom : float
        Size of the cells; at 1, the columns fill the width.
    layer, unit, units, concept
        See `ganlens.widgets.panel.Panel`. These and all parameters are traits.

    Notes
    -----
    A unit's concept is that of its label; if that one is left out, the one with the highest IoU of those on show.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer4", n=16, progress=False)
    >>> heatmap = IoUHeatmap(D, order="unit", search="tree, sky")
    >>> units, concepts, best = heatmap.arrangement()
    >>> units[:3], [D.concepts[c].name for c in concepts]
    ([0, 1, 2], ['sky', 'tree'])
    """

    _esm = source("common.js", "heatmap-table.js", "heatmap.js")
    _css = source("common.css", "heatmap.css")

    PICTURED = ("layer", "order", "interpretable_only", "minimum", "search", "unit", "concept")

    order = traitlets.Unicode("concept").tag(sync=True)
    interpretable_only = traitlets.Bool(False).tag(sync=True)
    minimum = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    zoom = traitlets.Float(1.0, min=0.1, max=32.0).tag(sync=True)
    colors = traitlets.Bytes(COLORS.tobytes()).tag(sync=True)
    layers = traitlets.Tuple().tag(sync=True)
    table = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        dissections: Dissection | Mapping[str, Dissection],
        order: str = "concept",
        interpretable_only: bool = False,
        *,
        minimum: float = 0.0,
        search: str = "",
    ):
        filters = {"interpretable_only": interpretable_only, "minimum": minimum, "search": search}
        super().__init__(dissections, order=order, **filters)
        self.layers = tuple(self.dissections)

    @traitlets.validate("order")
    def _check_order(self, proposal) -> str:
        if proposal["value"] not in ORDERS:
            raise traitlets.TraitError(close_match("order", proposal["value"], ORDERS, "the heatmap"))
        return proposal["value"]

    @traitlets.observe("layer")
    def _show_layer(self, change) -> None:
        """Send the layer's numbers, and let go of units and of a concept that it does not have."""
        with self.hold_sync():
            self.table = tabulate(self.D)
            units = range(len(self.D.iou))
            self.units = tuple(unit for unit in self.units if unit in units)
            self.unit = self.unit if self.unit in units else None
            self.concept = self.concept if self._column() is not None else None

    def _column(self) -> int | None:
        """Position of the concept in focus in the vocabulary."""
        with suppress(ValueError):
            return concept_index(self.D.concepts, self.concept or "", "this vocabulary")
        return None

    def arrangement(self) -> Arrangement:
        """Which units and concepts are on show, in which order."""
        return arrange(self.table, self.order, self.interpretable_only, self.minimum, self.search)

    def picture(self) -> np.ndarray:
        """What is on show, on white: a picture (Y, X, 3)."""
        units, concepts, best = self.arrangement()
        names = [cut(name) for name in self.table["names"]]
        counts = f"{len(units)} of {len(self.D.iou)} units, {len(concepts)} of {len(names)} concepts"
        title = f"{self.layer} of {self.D.origin['generator']}: {counts}"
        if not units:
            return draw(np.full((1, 1, 3), 255), {}, {}, title, 0)
        values, share = pooled(self.D.iou[np.ix_(units, concepts)])
        height, width = np.clip([480 // len(values), 800 // len(concepts)], 1, [18, 56]).tolist()
        peak = float(self.D.iou.max())
        heat = COLORS[np.round(values * (255 / (peak or 1))).astype(int)]
        if self.D.certificates is not None:
            certain, _ = pooled(self.D.certificates.certain[np.ix_(units, concepts)])
            heat = np.where(certain[..., None], heat, paled(heat))
        heat = heat.repeat(height, 0).repeat(width, 1)
        if self.unit in units:
            frame(heat, units.index(self.unit) // share * height, height, 0)
        column = self._column()
        if column in concepts:
            frame(heat, concepts.index(column) * width, width, 1)
        rows = {(i + 0.5) * height / share: str(unit) for i, unit in enumerate(units)}
        if self.order == "concept" and height / share < LINE:
            drawing = [self.D.labels[unit].interpretable for unit in units]
            rows = {y * height / share: text for y, text in group_names([names[c] for c in best], drawing).items()}
        columns = {(i + 0.5) * width: names[c] for i, c in enumerate(concepts)}
        return draw(heat, rows, columns, title, peak)


# ---- numbers


def tabulate(D: Dissection) -> dict:
    """What the page has to know of a dissection."""
    units = neighbours(D.iou)
    return {
        "iou": encode_iou(D.iou).astype("<u2").tobytes(),
        "names": known_as(D.concepts),
        "categories": [concept.category for concept in D.concepts],
        "best": [D.concepts.index(label.concept) for label in D.labels],
        "interpretable": [label.interpretable for label in D.labels],
        "certain": b"" if D.certificates is None else D.certificates.certain.astype("u1").tobytes(),  # (U, C)
        "units_clustered": units,
        "concepts_clustered": np.argsort(D.iou[units].argmax(0), kind="stable").tolist(),
    }


def encode_iou(iou):
    """IoU as whole numbers, 0 … 65535."""
    return np.floor(np.multiply(iou, ONE) + 0.5).astype(int)


def neighbours(iou: np.ndarray) -> list[int]:
    """An order of the rows (R, …) in which neighbours are alike.

    It begins with the row of the highest value; the next one is always the most similar of those left, by the cosine.

    Examples
    --------
    >>> neighbours(np.array([[0.1, 0.8], [0.3, 0], [0.1, 0.9], [0.4, 0]]))
    [2, 0, 1, 3]
    """
    rows = iou / np.maximum(np.linalg.norm(iou, axis=1, keepdims=True), 1e-12)
    similarity = rows @ rows.T
    order = [int(iou.max(1).argmax())]
    while len(order) < len(iou):
        similarity[:, order[-1]] = -np.inf
        order.append(int(similarity[order[-1]].argmax()))
    return order


def arrange(table: dict, order: str, interpretable_only: bool, minimum: float, search: str) -> Arrangement:
    """Choose and sort units and concepts; `arrange` of heatmap-table.js does the same in the page."""
    iou = np.frombuffer(table["iou"], "<u2").astype(int).reshape(-1, len(table["names"]))
    shown = [c for c in range(len(table["names"])) if fits_search(table, c, search)]
    if not shown:
        return Arrangement([], [], [])
    label = np.array(table["best"])
    best = np.where(np.isin(label, shown), label, np.array(shown)[iou[:, shown].argmax(1)])
    value = iou[np.arange(len(iou)), best]
    peak = iou.max(0)
    concepts = sorted(shown, key=lambda c: -peak[c]) if order in ("concept", "IoU") else shown
    if order == "clustered":
        concepts = [c for c in table["concepts_clustered"] if c in shown]
    units = {
        "concept": np.lexsort((-value, np.array([concepts.index(c) for c in best]))),
        "IoU": np.argsort(-value, kind="stable"),
        "unit": np.arange(len(iou)),
        "clustered": np.array(table["units_clustered"]),
    }[order]
    keep = value >= encode_iou(minimum)
    if interpretable_only:
        keep &= np.array(table["interpretable"])
    units = units[keep[units]]
    return Arrangement(units.tolist(), concepts, best[units].tolist())


def fits_search(table: dict, concept: int, search: str) -> bool:
    """Whether one of the words searched for is in the concept's name or category."""
    words = [word.strip().lower() for word in search.split(",") if word.strip()]
    text = f"{table['names'][concept]}:{table['categories'][concept]}".lower()
    return not words or any(word in text for word in words)


# ---- picture: without a plotting library, since one is made whenever the widget is shown


def cut(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def pooled(values: np.ndarray, most: int = 900) -> tuple[np.ndarray, int]:
    """At most so many rows, each the highest values of its share of the rows; and how many that are."""
    share = -(-len(values) // most)
    return np.maximum.reduceat(values, np.arange(0, len(values), share), 0), share


def paled(colors: np.ndarray) -> np.ndarray:
    """Colours (…, 3) of matches that may be by chance: three quarters on the way to white; `pale` in heatmap.js."""
    return (colors.astype(int) + 3 * 255) // 4


def frame(heat: np.ndarray, start: int, size: int, axis: int) -> None:
    """White lines, with dark ones outside of them, around some rows (axis 0) or columns (axis 1)."""
    lines = heat.swapaxes(0, axis)
    lines[[max(start - 2, 0), min(start + size + 1, len(lines) - 1)]] = 0
    lines[[max(start - 1, 0), min(start + size, len(lines) - 1)]] = 255


def group_names(names: list[str], drawing: list[bool]) -> dict[float, str]:
    """Runs of equal names: where their middles are, and how many of their units draw the concept."""
    middles, start = {}, 0
    for name, run in groupby(names):
        count = len(list(run))
        draw = sum(drawing[start : start + count])
        middles[start + count / 2] = f"{name} ({draw})" if draw == count else f"{name} ({draw} of {count})"
        start += count
    return middles


def thinned(places: dict[float, str]) -> dict[float, str]:
    """Only the names that are a line apart from the one before."""
    kept: dict[float, str] = {}
    for place, name in places.items():
        if not kept or place - next(reversed(kept)) >= LINE:
            kept[place] = name
    return kept


def draw(heat: np.ndarray, rows: dict[float, str], columns: dict[float, str], title: str, peak: float) -> np.ndarray:
    """A heat map (Y, X, 3) with the names of rows and columns by place, a title, and a key of the colours."""
    width = heat.shape[1] / max(len(columns), 1)
    above = [write(name) for name in columns.values()]
    if max((name.width for name in above), default=0) + 6 > width:
        columns = thinned(columns)
        above = [write(name).rotate(90, expand=True) for name in columns.values()]
    beside = {y: write(name) for y, name in thinned(rows).items()}
    left = max((name.width for name in beside.values()), default=0) + 18
    top = max((name.height for name in above), default=0) + 38
    right = max(heat.shape[1] + 76, write(title).width)
    page = Image.new("RGB", (left + right + 12, top + max(len(heat), KEY if rows else 0) + 12), "white")
    page.paste(INK, (left, 10), write(title))
    page.paste(Image.fromarray(heat.astype(np.uint8)), (left, top))
    for x, name in zip(columns, above, strict=True):
        page.paste(INK, (round(left + x - name.width / 2), top - name.height - 4), name)
    for y, name in beside.items():
        page.paste(INK, (left - name.width - 6, round(top + y - name.height / 2)), name)
    if rows:
        scale = Image.fromarray(COLORS[::-1, None].repeat(14, 1)).resize((14, KEY))
        page.paste(scale, (left + heat.shape[1] + 16, top))
        for y, text in ((0, f"{peak:.2f}"), (KEY // 2 - 8, "IoU"), (KEY - 16, "0")):
            page.paste(INK, (left + heat.shape[1] + 36, top + y), write(text))
    return np.asarray(page)


def write(text: str) -> Image.Image:
    """A line of text as a mask."""
    mask = Image.new("L", (math.ceil(FONT.getlength(text)), 16))
    ImageDraw.Draw(mask).text((0, 13), text, 255, FONT, anchor="ls")
    return mask
