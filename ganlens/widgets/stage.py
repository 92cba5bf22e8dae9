"""The parts of the intervention canvas that the page draws: screen, brush, list of strokes, strip of seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import anywidget
import ipycanvas
import numpy as np
import traitlets
from ipycanvas.canvas import COMMANDS

from ganlens.images import encode
from ganlens.widgets.panel import source

SHARP = 2  # images that are enlarged at least so much show their pixels as squares
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
    _css = source("common.css", "canvas.css")


class Brush(Part):
    """Lies over the image: strokes are drawn in the page, and sent when they end."""

    _esm = source("common.js", "brush.js")
    size = traitlets.Tuple((1, 1)).tag(sync=True)
    grid = traitlets.Tuple((1, 1)).tag(sync=True)
    radius = traitlets.Float(0.08).tag(sync=True)
    mode = traitlets.Unicode("remove").tag(sync=True)
    highlight = traitlets.List().tag(sync=True)
    clip = traitlets.Dict().tag(sync=True)
    before = traitlets.Bytes().tag(sync=True)
    pixelated = traitlets.Bool().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Int().tag(sync=True)


class StrokeList(Part):
    """What was painted, with switches."""

    _esm = source("common.js", "history.js")
    rows = traitlets.List().tag(sync=True)
    hovered = traitlets.Int(None, allow_none=True).tag(sync=True)


class SeedStrip(Part):
    """Small images to choose from."""

    _esm = source("common.js", "seeds.js")
    seeds = traitlets.List().tag(sync=True)
    pictures = traitlets.List().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    pixelated = traitlets.Bool().tag(sync=True)
