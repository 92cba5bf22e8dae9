"""The parts of the intervention canvas that the page draws: screen, brush, tools, palette, strokes, seeds, fold."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import anywidget
import ipycanvas
import numpy as np
import traitlets
from ipycanvas.canvas import COMMANDS

from ganlens.images import encode, resize, to_uint8
from ganlens.models.base import Generator
from ganlens.models.editing import Edit
from ganlens.widgets.panel import source
from ganlens.widgets.worker import Worker

PER_PAGE = 8  # seeds on the strip
THUMBNAIL = 104  # pixels of its pictures' longer side, at most
EXACT = 96 * 96  # images up to this many pixels are sent as PNG, larger ones as JPEG
_DRAWING = RLock()  # ipycanvas has one queue of commands for all canvases, and it is not safe for threads


@contextmanager
def batch(fresh: bool = False) -> Iterator:
    """Send what is drawn meanwhile as one message; nothing of it after an error.

    A page that was loaded anew (``fresh``) does not know which canvas was drawn on last.
    """
    with _DRAWING:
        manager = ipycanvas.canvas._CANVAS_MANAGER
        if fresh:
            manager._current_canvas = None
        manager._caching = True
        try:
            yield manager
            manager.flush()
        except BaseException:
            manager._commands_cache, manager._buffers_cache, manager._current_canvas = [], [], None
            raise
        finally:
            manager._caching = False


class Screen:
    """An image on an ipycanvas canvas, pixel by pixel, drawn again whenever a page asks for it.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the images.
    size : (int, int)
        Width and height on the page, which scales the canvas.
    """

    def __init__(self, shape: tuple[int, int], size: tuple[int, int]):
        self.canvas = ipycanvas.Canvas(width=shape[1], height=shape[0])
        self.canvas.layout.width, self.canvas.layout.height = (f"{length}px" for length in size)
        self.content = b""
        self.canvas.on_client_ready(lambda: self.redraw(fresh=True))

    def show(self, picture: np.ndarray) -> None:
        """Show a picture (Y, X, 3), uint8."""
        pixels = picture.shape[0] * picture.shape[1]
        self.content = encode(picture, "png" if pixels <= EXACT else "jpeg")
        self.redraw()

    def redraw(self, fresh: bool = False) -> None:
        """Draw again what was drawn last."""
        if self.content:
            with batch(fresh) as manager:
                # put_image_data would encode an array its own way; the page takes any picture's bytes.
                manager.send_draw_command(self.canvas, COMMANDS["putImageData"], [0, 0], [self.content])


class Part(anywidget.AnyWidget):
    """A part of the canvas that is drawn in JavaScript and sends messages."""

    failure = traitlets.Unicode().tag(sync=True)
    stands_for: traitlets.List = traitlets.List().tag(sync=True)  # marks of the saved pictures that the view hides
    _css = source("common.css", "canvas.css")


class Brush(Part):
    """Lies over the image: strokes are drawn in the page, and sent when they end."""

    _esm = source("common.js", "brush.js")
    size = traitlets.Tuple((1, 1)).tag(sync=True)
    grid = traitlets.Tuple((1, 1)).tag(sync=True)
    radius = traitlets.Float(0.08).tag(sync=True)
    mode = traitlets.Unicode("remove").tag(sync=True)
    highlight: traitlets.List = traitlets.List().tag(sync=True)
    clip = traitlets.Dict().tag(sync=True)
    map = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    tool = traitlets.Unicode("brush").tag(sync=True)
    before = traitlets.Bytes().tag(sync=True)
    pixelated = traitlets.Bool().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Int().tag(sync=True)


class Tools(Part):
    """What the pointer does, and how large the brush is."""

    _esm = source("common.js", "tools.js")
    tool = traitlets.Unicode("brush").tag(sync=True)
    radius = traitlets.Float(0.08).tag(sync=True)
    segments = traitlets.Bool().tag(sync=True)


class Palette(Part):
    """Draw or remove, how strongly, and a tile for each concept."""

    _esm = source("common.js", "palette.js")
    mode = traitlets.Unicode("remove").tag(sync=True)
    strength = traitlets.Float(1.0).tag(sync=True)
    concept = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    tiles: traitlets.List = traitlets.List().tag(sync=True)
    crops = traitlets.Dict().tag(sync=True)
    why = traitlets.Unicode().tag(sync=True)
    measuring = traitlets.Unicode().tag(sync=True)


class Fold(Part):
    """Everything that a first stroke does not need."""

    _esm = source("common.js", "fold.js")
    name = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)


class StrokeList(Part):
    """What the last stroke did, and what was painted, with switches."""

    _esm = source("common.js", "history.js")
    rows: traitlets.List = traitlets.List().tag(sync=True)
    result: traitlets.List = traitlets.List(["", "", False]).tag(sync=True)
    undoable = traitlets.Bool().tag(sync=True)
    redoable = traitlets.Bool().tag(sync=True)
    hovered = traitlets.Int(None, allow_none=True).tag(sync=True)


class SeedStrip(Part):
    """Small images to choose from, a page of seeds at a time.

    Parameters
    ----------
    generator : Generator
        Draws them.
    worker : Worker
        On whose thread it draws.
    """

    _esm = source("common.js", "seeds.js")
    seeds: traitlets.List = traitlets.List().tag(sync=True)
    pictures: traitlets.List = traitlets.List().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    pixelated = traitlets.Bool().tag(sync=True)
    edited = traitlets.Bool().tag(sync=True)
    painted = traitlets.Bool().tag(sync=True)
    refused = traitlets.Int().tag(sync=True)

    def __init__(self, generator: Generator, worker: Worker):
        self.generator, self.worker = generator, worker
        self.edits: tuple[Edit, ...] = ()
        super().__init__()
        self.observe(lambda change: self.again(), "edited")

    def show(self, seed: int) -> None:
        """Mark a seed, on its page."""
        self.seed = seed
        if seed not in self.seeds:
            self._open(seed // PER_PAGE * PER_PAGE)

    def edit(self, edits: tuple[Edit, ...]) -> None:
        """Take the edits that are shown where the same edit is asked for on all."""
        self.edits, self.painted = edits, bool(edits)
        if self.edited:
            self.again()

    def again(self) -> None:
        """Draw the images again."""
        if self.seeds:
            self._open(self.seeds[0])

    def become(self, generator: Generator) -> None:
        """Show the same seeds of another generator."""
        self.generator = generator
        self._open(self.seeds[0])

    def turn(self, pages: int) -> None:
        """Turn to later or earlier pages."""
        self._open(self.seeds[0] + PER_PAGE * pages)

    def _open(self, first: int) -> None:
        first = min(max(first, 0), 2**32 - PER_PAGE)
        seeds = list(range(first, first + PER_PAGE))
        if seeds != list(self.seeds):
            self.seeds, self.pictures = seeds, []
        self.worker.request("seeds", lambda: self._draw([]))

    def _draw(self, drawn: list[bytes]) -> None:
        """Draw one image, and ask for the next one: other jobs come in between."""
        seeds, generator, edits = list(self.seeds), self.generator, self.edits if self.edited else ()
        picture = to_uint8(generator.generate(seeds[len(drawn)], edits))[0]
        scale = THUMBNAIL / max(picture.shape[:2])
        if scale < 1:
            picture = resize(picture, (round(picture.shape[0] * scale), round(picture.shape[1] * scale)), smooth=True)
        drawn = [*drawn, encode(picture)]
        if seeds != list(self.seeds) or generator is not self.generator or self.worker.outdated("seeds"):
            return
        self.pictures = [*drawn, *self.pictures[len(drawn) :]]
        if len(drawn) < len(seeds):
            self.worker.request("seeds", lambda: self._draw(drawn))
