"""Between the canvas and its page: what messages ask for, what is shown, and where it stands."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np

from ganlens.arguments import check_number
from ganlens.images import palette
from ganlens.segmenters.base import known_as
from ganlens.widgets.strokes import fitted, region_of

if TYPE_CHECKING:
    from ganlens.widgets.canvas import InterventionCanvas


def obey(canvas: "InterventionCanvas", message: dict, buffers: Sequence = ()) -> None:
    """Do what a message of the page asks for."""
    kind, index = message["kind"], message.get("index", 0)
    if kind == "stroke":  # it may have been drawn on the grid of another layer
        region = fitted(region_of(message["cells"], message.get("grid", canvas.shape)), canvas.shape)
        if canvas.tool == "erase":
            canvas.erase(np.flatnonzero(region).tolist())
        else:
            canvas.paint(mode=message.get("mode"), region=region)
    elif kind == "fill":
        canvas.fill(message["x"], message["y"])
    elif kind in ("set", "act", "open"):
        canvas.controls.obey(message, list(buffers))
    elif kind == "paste":
        canvas.paste(message["down"], message["right"])
    elif kind == "key":
        command, seeds = message["command"], {"next": 1, "previous": -1}
        acts = {"undo": canvas.undo, "redo": canvas.redo, "reset": canvas.reset}
        canvas.step(seeds[command]) if command in seeds else acts[command]()
    elif kind == "seed":
        canvas.seed = message["seed"]
    elif kind == "page":
        canvas.strip.turn(message["by"])
    elif kind in ("switch", "delete") and index < len(canvas.history.strokes):
        getattr(canvas.history, kind)(index)
        canvas._take_history()
    elif kind == "strength" and index < len(canvas.history.strokes):
        canvas.history.strengthen(index, check_number("strength", message["value"], 0, 1))
        canvas._take_history()


def show_strokes(canvas: "InterventionCanvas") -> None:
    """Show what was painted, and what can be undone."""
    strokes, colors = canvas.history.strokes, palette(len(canvas.D.concepts))
    known = {name: "#" + color.tobytes().hex() for name, color in zip(known_as(canvas.D.concepts), colors, strict=True)}
    canvas.list.rows = [
        {
            "label": s.label,
            "on": s.on,
            "cells": len(s.cells),
            "detail": f"{s.edit.layer} · {len(s.edit.units)} unit{'s' * (len(s.edit.units) > 1)}",
            "strength": s.edit.strength,
            "color": known.get(s.concept or "", ""),
            "change": canvas.changes[id(s.edit)][1] if id(s.edit) in canvas.changes else "",
        }
        for s in strokes
    ]
    canvas.list.undoable, canvas.list.redoable = bool(canvas.history.past), bool(canvas.history.future)
    if not canvas.edits:
        what = "Drag over the cells." if canvas.units else "Choose what to draw or remove, then drag over the cells."
        canvas.list.result = ["Paint on the picture", what, False]
    verb = "draw" if canvas.mode == "add" else canvas.mode
    painted = f"{len(canvas.edits)} edit{'s' * (len(canvas.edits) != 1)}"
    canvas.brush.label = f"generated image, seed {canvas.seed}, {painted}; paint to {verb}"


def show_smooth(canvas: "InterventionCanvas") -> None:
    """Show smooth pictures, or pixels."""
    canvas.brush.pixelated = canvas.strip.pixelated = not canvas.smooth
    canvas.screen.canvas.remove_class("ganlens-pixelated")
    if not canvas.smooth:
        canvas.screen.canvas.add_class("ganlens-pixelated")


def arranged(canvas: "InterventionCanvas") -> list[w.Widget]:
    """The parts of the canvas, for the style sheet to put into places."""
    stage, side = w.Box([canvas.screen.canvas, canvas.brush]), w.Box([canvas.palette, canvas.list])
    for child in stage.children:
        child.layout.grid_area = "stage"
    stage.layout.display, stage.layout.grid_template_areas = "grid", '"stage"'
    frame = w.Box([stage, canvas.tools, side, canvas.strip, canvas.fold])
    for box, name in ((stage, "stage"), (side, "side"), (frame, "frame")):
        box.add_class(f"ganlens-{name}")
    return [frame]
