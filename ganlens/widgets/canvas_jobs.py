"""What the canvas has done on its worker's thread: images, measurements and maps."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ganlens.effects.context import where
from ganlens.effects.paintable import Start, paint
from ganlens.images import encode
from ganlens.models.editing import Edit
from ganlens.models.hooks import Abandoned
from ganlens.segmenters.base import known_as
from ganlens.widgets.canvas_fold import Cancelled
from ganlens.widgets.canvas_page import show_strokes
from ganlens.widgets.canvas_palette import Tried, crops, shown_concepts, tiles
from ganlens.widgets.canvas_state import Easel, on_levels
from ganlens.widgets.canvas_words import result_of, signed
from ganlens.widgets.change_tables import unit_table
from ganlens.widgets.orders import measure_order
from ganlens.widgets.pending import edit_of
from ganlens.widgets.strokes import Copy, fitted, region_of

if TYPE_CHECKING:
    from ganlens.widgets.canvas import InterventionCanvas

FOUND = 20  # units that a region query gives
QUIET = 2.0  # seconds after a stroke, in which nothing is measured that nobody has asked for
FAST = 0.25  # seconds that an image takes at most, so that strokes are tried where the brush rests
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
        canvas.brush.before = encode(before, "png")
    if canvas.brush.map:
        canvas.brush.map = canvas.brush.map | {"clear": bool(edits)}
    show_strokes(canvas)
    canvas.strip.edit(edits)
    if not canvas.palette.crops:
        canvas.worker.request("crops", lambda: cut_crops(canvas))
    if easel.segmenter is not None:
        canvas.worker.request("measure", lambda: measure(canvas, easel, seed, edits, layer))
    canvas.show_fold()
    canvas.keep_picture()


def ask_preview(canvas: "InterventionCanvas", message: dict) -> None:
    """Have a picture made of what a stroke would do, where that is fast and nothing else is asked for."""
    with canvas.lock:
        ready = canvas.units and not canvas.waiting and canvas.mode in ("add", "remove") and canvas.tool == "brush"
        if ready and canvas.easel.spent <= FAST:
            cells = message["cells"]
            region = fitted(region_of(cells, message["grid"]), canvas.shape)
            edits = *canvas.edits, edit_of(canvas.D, canvas.mode, region, canvas.units, canvas.level, canvas.strength)
            canvas.worker.request("preview", partial(preview, canvas, cells, canvas.seed, edits, canvas.edits))


def preview(
    canvas: "InterventionCanvas", cells: list[int], seed: int, edits: tuple[Edit, ...], painted: tuple[Edit, ...]
) -> None:
    """Send the picture of edits that were not made, unless something was painted meanwhile."""
    with suppress(Abandoned):
        image = canvas.renderer.render(seed, edits, lambda: canvas.worker.outdated("render"))[1]
        if (seed, painted) == (canvas.seed, canvas.edits):
            canvas.brush.send({"kind": "preview", "cells": cells}, [encode(image, "png")])


def measure(canvas: "InterventionCanvas", easel: Easel, seed: int, edits: tuple[Edit, ...], layer: str) -> None:
    """Say what changed, and what the last stroke did, unless a newer image is asked for meanwhile."""
    if canvas.worker.outdated("render"):
        return
    table = easel.readout(seed, edits, layer)
    last = next((s for s in reversed(canvas.history.strokes) if s.on), None)
    if edits and last is not None and last.edit is edits[-1]:
        before, after = (easel.counts(seed, some, layer) for some in (edits[:-1], edits))
        names = known_as(canvas.D.concepts)
        concept = names.index(last.concept) if last.concept in names else None
        result = result_of(names, concept, before, after, canvas.pixels)
        if canvas.worker.outdated("render"):
            return
        canvas.list.result = list(result)
        if concept is not None:
            text = signed(100 * (after - before)[concept] / canvas.pixels)
            canvas.changes = {**dict(list(canvas.changes.items())[-200:]), id(last.edit): (last.edit, text)}
            show_strokes(canvas)
    if not canvas.worker.outdated("render"):
        canvas.controls.readout = table
        canvas.show_fold()


def show_palette(canvas: "InterventionCanvas") -> None:
    """Show what can be drawn or removed in this image, and have it measured where it is not known."""
    question = canvas.seed, canvas.k, canvas.level, tuple(sorted(canvas.generator.chosen.items()))
    if canvas.tried.question != question:
        canvas.tried = Tried(question)
    canvas.palette.tiles, canvas.palette.why = tiles(canvas)
    if canvas.easel.segmenter is not None and not canvas.tried.complete:
        canvas.background.request("palette", partial(try_concepts, canvas))


def show_where(canvas: "InterventionCanvas") -> None:
    """Light up the cells in which adding the units would draw the concept, if that is asked for."""
    canvas.brush.map, canvas.brush.note = {}, ""
    if canvas.where and canvas.easel.segmenter is None:
        canvas.where = False
        raise ValueError("where can what go? That needs a segmenter: gl.Dissection.load(…, segmenter=S)")
    if canvas.where:
        canvas.long_worker.request("where", partial(map_where, canvas))


def cut_crops(canvas: "InterventionCanvas") -> None:
    """Make the pictures of the tiles."""
    canvas.palette.crops = crops(canvas.D)


def try_concepts(canvas: "InterventionCanvas") -> None:
    """Try what can be drawn and removed in the image on show, concept by concept; everything else goes first."""
    tried, G, seed = canvas.tried, canvas.generator, canvas.seed
    Ds = {layer: replace(D, generator=G) for layer, D in canvas.dissections.items()}
    starts: dict[str, Start] = {}
    jobs = [(layer, c) for c in shown_concepts(canvas.D) for layer in canvas.dissections]

    def may_go_on() -> bool:
        """Wait while somebody paints; False if it is not wanted any more."""
        while canvas.tried is tried and not canvas.background.stopped:
            quiet = canvas.worker.idle and canvas.long_worker.idle
            if quiet and time.monotonic() - canvas.painted >= QUIET:
                return True
            time.sleep(PAUSE)
        return False

    for number, (layer, c) in enumerate(jobs):
        if (layer, c) in tried.found:
            continue
        if not may_go_on():
            return
        D = Ds[layer]
        if D.iou[:, c].any():
            if layer not in starts:
                starts[layer] = Start.of(D, seed)
            units = D.units(D.concepts[c], canvas.k)
            tried.found[layer, c] = paint(D, starts[layer], c, units, on_levels(D, units, canvas.level), may_go_on)
        done = f"measuring what can be painted here: {100 * number // len(jobs)} %"
        canvas.palette.tiles, canvas.palette.why = tiles(canvas)
        canvas.palette.measuring = done
    if canvas.tried is tried:
        tried.complete = True
        canvas.palette.measuring = ""
        canvas.palette.tiles, canvas.palette.why = tiles(canvas)
        if not canvas.edits and canvas._asked():  # units that were typed stay
            canvas.choose_layer()


def learn_order(canvas: "InterventionCanvas") -> None:
    """Measure what the units are to be ranked by, and choose them; the order is IoU again where that fails."""
    D, order = canvas.D, canvas.order
    concept = canvas.concept
    if concept is None:
        return  # was taken back meanwhile
    try:
        with canvas.controls.progress(f"measuring: {order} of the units") as tell:
            measure_order(D, concept, order, tell)
    except Exception as error:
        canvas.order = "iou"
        if not isinstance(error, Cancelled):
            raise
    if canvas.units == canvas.chosen:
        canvas._choose_units()
    canvas.paint_what_waits()


def map_where(canvas: "InterventionCanvas") -> None:
    """Try every cell of the image as it was before the edits."""
    if canvas.concept is None or not canvas.units:
        canvas.where = False
        raise ValueError("where can what go? Choose a concept first, with units that are switched")
    D, concept = replace(canvas.D, generator=canvas.generator), canvas.concept
    with canvas.controls.progress(f"trying all cells for {concept}"):
        gains = where(D, concept, canvas.seed, units=canvas.units, level=on_levels(D, canvas.units, canvas.level))
    if canvas.long_worker.outdated("where") or not canvas.where:
        return
    least, best = max(1, round(canvas.pixels / 256)), int(gains.max())
    good = int((gains >= least).sum())
    words = f"drawing {concept}: the best cell gains {best} of {canvas.pixels:,} pixels"
    several = "hardly anywhere by one cell; a stroke over several may do more"
    words += f"; {good} cell{'s' * (good > 1)} gain{'s' * (good == 1)} {least} or more" if good else f": {several}"
    shape = list(gains.shape)
    canvas.brush.note = words
    canvas.brush.map = {
        "gains": gains.astype(int).flatten().tolist(),
        "grid": shape,
        "pixels": canvas.pixels,
        "clear": bool(canvas.edits),
    }


def query(canvas: "InterventionCanvas", region: np.ndarray) -> None:
    """Name the units that are most active in a region."""
    found = canvas.easel.most_active(canvas.seed, canvas.edits, canvas.layer, region, canvas.D.levels, FOUND)
    words = [label.concept.name if label.interpretable else "" for label in (canvas.D.labels[u] for u in found)]
    canvas.controls.answer = unit_table(found[:8], words[:8])
    canvas.brush.shown += 1
    canvas.found = found
    canvas.show_fold()


def copy(canvas: "InterventionCanvas", region: np.ndarray) -> None:
    """Remember what the chosen units do in a region."""
    if not canvas.units:
        raise ValueError("no units to copy: choose a concept, or type unit numbers such as 3, 17, 40-43")
    r = canvas.renderer.features(canvas.seed, canvas.edits, canvas.layer)[0, list(canvas.units)]
    canvas.copied = Copy(canvas.layer, canvas.units, r.cpu().numpy(), region)
    canvas.brush.clip = canvas.copied.outline
    canvas.mode = "paste"
    canvas.brush.shown += 1
