"""What the canvas has done on its worker's thread: images, measurements and maps."""

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ganlens.effects.context import where
from ganlens.images import encode
from ganlens.models.editing import Edit
from ganlens.models.hooks import Abandoned
from ganlens.widgets.canvas_state import Easel
from ganlens.widgets.change_tables import unit_table
from ganlens.widgets.controls import Cancelled
from ganlens.widgets.orders import measure_order
from ganlens.widgets.strokes import Copy

if TYPE_CHECKING:
    from ganlens.widgets.canvas import InterventionCanvas

FOUND = 20  # units that a region query gives
PAUSE = 0.02  # seconds in which an image travels to the page before all that is said about it is worked out


def render(canvas: "InterventionCanvas") -> None:
    """Show the image with its edits, unless a newer one is asked for meanwhile."""
    easel, seed, edits, layer = canvas.easel, canvas.seed, canvas.edits, canvas.layer
    outdated = partial(canvas.worker.outdated, "render")
    try:
        before, canvas.image = easel.paint(seed, edits, layer, outdated)
    except Abandoned:
        return
    if outdated():
        return  # a newer image is asked for
    canvas.screen.show(canvas.image)
    time.sleep(PAUSE)
    canvas.brush.shown += 1
    if before is not canvas.before:
        canvas.before = before
        canvas.brush.before = canvas.original.value = encode(before, "png")
    canvas.controls.say(f"seed {seed} · {1000 * easel.spent:.0f} ms")
    canvas._show_strokes()
    if easel.segmenter is not None:
        canvas.worker.request("measure", lambda: measure(canvas, easel, seed, edits, layer))
    canvas.keep_picture()


def measure(canvas: "InterventionCanvas", easel: Easel, seed: int, edits: tuple[Edit, ...], layer: str) -> None:
    """Say what changed, unless a newer image is asked for meanwhile."""
    if canvas.worker.outdated("render"):
        return
    table = easel.readout(seed, edits, layer)
    if not canvas.worker.outdated("render"):
        canvas.controls.readout.value = table


def learn_order(canvas: "InterventionCanvas") -> None:
    """Measure what the units are to be ranked by, and choose them; the order is IoU again where that fails."""
    D, order = canvas.D, canvas.order
    concept = canvas.concept
    if concept is None:
        return  # was taken back meanwhile
    try:
        with canvas.controls.progress(order) as tell:
            measure_order(D, concept, order, tell)
    except Exception as error:
        canvas.order = "iou"
        if not isinstance(error, Cancelled):
            raise
    canvas._choose_units()


def map_where(canvas: "InterventionCanvas") -> None:
    """Try every cell of the image as it was before the edits."""
    if canvas.concept is None or not canvas.units:
        canvas.controls.where.value = False
        raise ValueError("where can what go? Choose a concept first")
    D = replace(canvas.D, generator=canvas.generator)
    pixels = where(D, canvas.concept, canvas.seed, units=canvas.units, level=canvas.level)
    canvas.brush.map = (pixels / max(pixels.max(), 1)).clip(0, 1).flatten().tolist()


def query(canvas: "InterventionCanvas", region: np.ndarray) -> None:
    """Name the units that are most active in a region."""
    found = canvas.easel.most_active(canvas.seed, canvas.edits, canvas.layer, region, canvas.D.levels, FOUND)
    words = [label.concept.name if label.interpretable else "" for label in (canvas.D.labels[u] for u in found)]
    canvas.controls.answer.value = unit_table(found[:8], words[:8])
    canvas.brush.shown += 1
    canvas.found = found


def copy(canvas: "InterventionCanvas", region: np.ndarray) -> None:
    """Remember what the chosen units do in a region."""
    if not canvas.units:
        raise ValueError("no units to copy: choose a concept, or type unit numbers such as 3, 17, 40-43")
    r = canvas.renderer.features(canvas.seed, canvas.edits, canvas.layer)[0, list(canvas.units)]
    canvas.copied = Copy(canvas.layer, canvas.units, r.cpu().numpy(), region)
    canvas.brush.clip = canvas.copied.outline
    canvas.mode = "paste"
    canvas.brush.shown += 1
