"""The intervention canvas: a generated image, and a brush that switches units off and on."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import ipywidgets as w
import numpy as np
import torch
import traitlets

from ganlens.arguments import check_integer, check_number
from ganlens.dissection.result import Dissection, generator_of
from ganlens.images import grid, resize
from ganlens.models.base import Generator
from ganlens.models.editing import Edit, ablate, insert
from ganlens.recipe import Recipe, Renderer, as_recipe
from ganlens.widgets import canvas_jobs as jobs
from ganlens.widgets.canvas_parts import SHARP, Brush, Screen, SeedStrip, StrokeList
from ganlens.widgets.canvas_state import Easel
from ganlens.widgets.controls import MODES, Controls
from ganlens.widgets.orders import ORDERS
from ganlens.widgets.panel import Panel
from ganlens.widgets.strokes import Copy, History, Stroke, check_mode, region_of
from ganlens.widgets.worker import Worker


class InterventionCanvas(Panel, w.VBox):
    """A generated image to paint on: units are switched off or on in the cells that the brush touches.

    Choose a concept, or type unit numbers; choose *remove* or *add*; paint. On release the image is generated again
    from the layer on, with all strokes applied in their order. Keys over the image: ``Z`` undo, ``Y`` redo, ``N`` and
    ``P`` next and previous seed, ``[`` and ``]`` brush size, ``B`` (held) the image before, arrows and space to paint
    without a pointer.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        With their generator; with a segmenter, a table says how every concept changed.
    seed : int
        Which image.
    concept : str, optional
        Whose units to force.
    k : int
        How many of the concept's units.
    order : {"iou", "effect", "gradient", "ace"}
        What its units are ranked by, see `Dissection.units`; what is not known yet is measured first.
    level : str
        What *add* forces units to: a quantile of theirs, such as ``"q0.995"``.
    width : int
        Pixels of the image's longer side on the page.

    Attributes
    ----------
    seed, layer, concept, units, edits, found : traits
        Shared with other widgets. ``edits`` are those of the strokes that are on; ``found`` are the units that a region
        query gave.
    truncation, label : traits
        Psi, where 1 is none, and the class, where None lets the seed decide; for generators that have them.
    image : array (Y, X, 3), uint8
        The picture on show.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer4", n=16, progress=False)
    >>> canvas = gl.InterventionCanvas(D, seed=3, concept="tree")
    >>> canvas.paint(cells=[20, 21, 28, 29], mode="remove")
    >>> canvas.edits
    (<Edit layer4: units ... to 0.0 in 4 cells>,)
    >>> picture = gl.replay(canvas.recipe)
    """

    seed = traitlets.Int(0)
    edits = traitlets.Tuple()
    found = traitlets.Tuple()
    k = traitlets.Int(20)
    order = traitlets.Enum(tuple(ORDERS.values()), "iou")
    mode = traitlets.Enum(tuple(MODES.values()), "remove")
    strength = traitlets.Float(1.0)
    radius = traitlets.Float(0.08)
    truncation = traitlets.Float(1.0)
    label = traitlets.Int(None, allow_none=True)

    def __init__(
        self,
        dissections: Dissection | Mapping[str, Dissection],
        seed: int = 0,
        concept: str | None = None,
        *,
        k: int = 20,
        order: str = "iou",
        level: str = "q0.995",
        width: int = 384,
    ):
        Panel.__init__(self, dissections)
        self.easel = Easel(generator_of(self.D), self.D.segmenter)
        insert(self.layer, [0], level)  # a wrong level is found before anything is painted
        self.level, self.history = level, History()
        self.copied: Copy | None = None
        self.image: np.ndarray | None = None
        self.before: np.ndarray | None = None
        for name, value in self.generator.settings.items():
            self.set_trait(name, value)
        self.on_levels: dict[str, torch.Tensor] = {}  # by layer, what *add* forces its units to
        self.long_worker = Worker(self.show_error)  # for what takes long; painting goes on meanwhile
        height, length = self.generator.image_shape[1:]
        scale = check_integer("width", width, 1, 10_000) / max(height, length)
        size = round(length * scale), round(height * scale)
        self.screen, self.original = Screen((height, length), size), w.Image(layout=w.Layout(display="none"))
        self.brush = Brush(size=size, radius=self.radius, pixelated=scale >= SHARP)
        self.brush.stands_for = self.stands_for
        self.list, self.strip = StrokeList(), SeedStrip(self.generator, self.worker, self.brush.pixelated)
        self.controls = Controls(self)
        self.children = self.controls.arrange()
        self.add_class("ganlens-panel")
        self._listen()
        self.order = order
        self.set_trait("k", k)
        self.seed, self.concept = seed, concept
        self._show_layer()
        self.strip.show(seed)
        self._refresh()

    # ---- what a user calls

    def paint(self, cells: Sequence[int] | None = None, mode: str | None = None, region=None) -> None:
        """Do what a stroke does: force the chosen units in cells, or ask which units are active there.

        Parameters
        ----------
        cells : sequence of int
            Numbers of cells of the layer, row by row.
        mode : {"remove", "add", "query", "copy"}
            By default the mode on show.
        region : array-like (H, W), optional
            Weight of each cell, instead of ``cells``.
        """
        mode = check_mode(self.mode if mode is None else mode)
        region = region_of(cells, self.shape) if region is None else np.asarray(region, float)
        if mode == "query":
            self.worker.request("query", partial(jobs.query, self, region))
        elif mode == "copy":
            jobs.copy(self, region)
        else:
            self._add(Stroke(self._edit(mode, region), self._label(mode)))

    def paste(self, down: int, right: int) -> None:
        """Force what was copied upon cells that lie ``down`` rows below and ``right`` columns beside it."""
        if self.copied is None:
            raise ValueError("nothing was copied yet: choose copy, and paint over what the units do")
        if self.copied.layer != self.layer:
            raise ValueError(f"what was copied is of {self.copied.layer}, on show is {self.layer}; copy something here")
        edit = self.copied.moved(down, right, self.strength)
        self._add(Stroke(edit, f"paste of {len(edit.units)} units"))

    def undo(self) -> None:
        """Take the last stroke, or the last change of strokes, back."""
        self.history.undo()
        self._take_history()

    def redo(self) -> None:
        """Do again what was undone."""
        self.history.redo()
        self._take_history()

    def reset(self) -> None:
        """Delete all strokes; `undo` brings them back."""
        if self.history.strokes:
            self.history.become(())
        self._take_history()

    @property
    def generator(self) -> Generator:
        """The generator in the setting on show."""
        return self.easel.generator

    @property
    def renderer(self) -> Renderer:
        """What makes the images."""
        return self.easel.renderer

    @property
    def recipe(self) -> Recipe:
        """The image on show as a value: save it, send it, and `ganlens.replay` it."""
        return Recipe.of(self.generator, self.seed, self.edits)

    def load(self, recipe: Recipe | str | Path) -> None:
        """Show a recipe, its JSON or its file; what was painted can be had back with `undo`.

        Raises
        ------
        ValueError
            It is no recipe, or one of another generator; then everything stays as it is.
        """
        recipe = as_recipe(recipe)
        recipe.check(self.generator)
        for name, value in (self.generator.defaults | recipe.settings).items():
            setattr(self, name, value)
        self.seed, self.edits = recipe.seed, recipe.edits

    @property
    def shape(self) -> tuple[int, int]:
        """Cells of the layer (H, W)."""
        _, height, width = self.generator.layers[self.layer]
        return height, width

    def rendered(self) -> tuple[np.ndarray, np.ndarray]:
        """Pictures before and after (Y, X, 3), uint8, at the generator's size; made now if they are not at hand."""
        before = self.renderer.render(self.seed, layer=self.layer)[1]
        return before, self.renderer.render(self.seed, self.edits)[1] if self.edits else before

    def wait(self, seconds: float | None = 60) -> bool:
        """Wait until the image stands and nothing is measured any more; False if that takes longer."""
        end = np.inf if seconds is None else time.monotonic() + seconds
        while not (self.long_worker.idle and self.worker.idle):  # either may give the other something to do
            left = None if seconds is None else end - time.monotonic()
            if not (self.long_worker.wait(left) and self.worker.wait(left)):
                return False
        return True

    def picture(self) -> np.ndarray:
        """The image, and before it that without edits where there are any (Y, X, 3)."""
        width, height = self.brush.size
        pictures = self.rendered() if self.edits else self.rendered()[:1]
        large = [resize(picture, (height, width), smooth=not self.brush.pixelated) for picture in pictures]
        return grid(np.stack(large), gap=8)

    # ---- from what is asked for to edits

    def _edit(self, mode: str, region: np.ndarray) -> Edit:
        if not self.units:
            raise ValueError("no units to paint with: choose a concept, or type unit numbers such as 3, 17, 40-43")
        if mode == "remove":
            return ablate(self.layer, self.units, region, strength=self.strength)
        if self.layer not in self.on_levels:
            levels, quantile = self.D.levels, self.level.removeprefix("q")
            self.on_levels[self.layer] = levels.mean() if quantile == "mean" else levels.quantile(float(quantile))
        on = self.on_levels[self.layer][list(self.units)]
        return insert(self.layer, self.units, on.tolist(), region=region, strength=self.strength)

    def _label(self, mode: str) -> str:
        if self.concept and self.units == self._units_of(self.concept):
            return f"{mode} {self.concept}"
        few = ", ".join(map(str, self.units[:4])) + (" …" if len(self.units) > 4 else "")
        return f"{mode} unit{'s' * (len(self.units) > 1)} {few}"

    def _units_of(self, concept: str) -> tuple[int, ...]:
        return tuple(self.D.units(concept, self.k, by=self.order))

    def _add(self, stroke: Stroke) -> None:
        self.generator.check_edit(stroke.edit)
        self.history.add(stroke)
        self._take_history()

    def _take_history(self) -> None:
        before, self.edits = self.edits, self.history.edits
        if before == self.edits:
            self._refresh()  # a list that changed without another image, or a stroke that is to be confirmed

    # ---- reactions

    def _listen(self) -> None:
        self.brush.on_msg(lambda _, message, buffers: self._receive(message))
        self.list.on_msg(lambda _, message, buffers: self._receive(message))
        self.strip.on_msg(lambda _, message, buffers: self._receive(message))
        self.list.observe(lambda change: self._highlight(change["new"]), "hovered")
        for trait in ("radius", "mode"):
            traitlets.link((self, trait), (self.brush, trait))
        self.observe(lambda change: setattr(self.controls.answer, "value", ""), ["mode", "seed", "layer"])
        self.observe(lambda change: self._choose_units(), ["concept", "k", "order"])
        self.observe(lambda change: self._show_layer(), "layer")
        self.observe(lambda change: self._take_edits(), "edits")
        self.observe(lambda change: self.show_where(), ["seed", "units", "concept", "layer"])
        self.observe(lambda change: self._show_seed(), "seed")
        self.observe(lambda change: self._take_settings(), ["truncation", "label"])

    def _receive(self, message: dict) -> None:
        with self.showing_errors():
            try:
                self._obey(message)
            except Exception:
                self.brush.shown += 1  # what the page drew of a stroke that failed goes away
                raise

    def _obey(self, message: dict) -> None:
        kind, index = message["kind"], message.get("index", 0)
        if kind == "stroke":
            self.paint(message["cells"], message["mode"])
        elif kind == "paste":
            self.paste(message["down"], message["right"])
        elif kind == "key":
            command, seeds = message["command"], {"next": 1, "previous": -1}
            self.step(seeds[command]) if command in seeds else {"undo": self.undo, "redo": self.redo}[command]()
        elif kind == "seed":
            self.seed = message["seed"]
        elif kind == "page":
            self.strip.turn(message["by"])
        elif kind in ("switch", "delete") and index < len(self.history.strokes):
            getattr(self.history, kind)(index)
            self._take_history()

    def step(self, distance: int) -> None:
        """Go to the next seed, or to another one by its distance."""
        self.seed = max(0, self.seed + distance)

    @traitlets.validate("seed")
    def _check_seed(self, proposal) -> int:
        if not 0 <= proposal["value"] < 2**32:
            raise traitlets.TraitError(f"seed {proposal['value']} is outside 0 … 2^32 - 1")
        return proposal["value"]

    @traitlets.validate("truncation", "label")
    def _check_setting(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if value != getattr(self, name):
            try:
                self.generator.variant(**{name: value})
            except ValueError as error:
                raise traitlets.TraitError(str(error)) from None
        return value

    @traitlets.validate("strength", "radius")
    def _check_share(self, proposal) -> float:
        try:
            return check_number(proposal["trait"].name, proposal["value"], 0, 1)
        except ValueError as error:  # nan, for one, would be linked back and forth for ever
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("edits")
    def _check_edits(self, proposal) -> tuple[Edit, ...]:
        if proposal["value"] == self.history.edits:
            return proposal["value"]  # they were checked when they were painted
        try:
            for edit in proposal["value"]:
                self.generator.check_edit(edit)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.validate("k")
    def _check_k(self, proposal) -> int:
        if proposal["value"] < 1:
            raise traitlets.TraitError(f"k={proposal['value']}: expected at least 1 unit")
        return proposal["value"]

    def _take_edits(self) -> None:
        if self.edits != self.history.edits:  # they came from outside
            self.history.become(Stroke(edit, repr(edit).partition(":")[2].strip(" >")) for edit in self.edits)
        self._refresh()

    def _take_settings(self) -> None:
        settings = {name: getattr(self, name) for name in self.generator.settings}
        self.easel = Easel(self.generator.variant(**settings), self.D.segmenter)
        self.strip.become(self.generator)
        self.show_where()
        self._refresh()

    def _choose_units(self) -> None:
        if self.concept is None:
            return
        if not self.D.ranks(self.concept, self.order):
            self.controls.cancelled.clear()
            self.long_worker.request("order", partial(jobs.learn_order, self))
            return
        self.units = self._units_of(self.concept)
        self.unit = self.units[0]

    def _show_layer(self) -> None:
        self.brush.grid = self.shape
        if self.units and max(self.units) >= len(self.D.iou):
            self.units, self.unit = (), None
        self._choose_units()

    def _show_seed(self) -> None:
        self.strip.show(self.seed)
        self._refresh()

    def _highlight(self, index: int | None) -> None:
        strokes = self.history.strokes
        self.brush.highlight = strokes[index].cells if index is not None and index < len(strokes) else []

    def _refresh(self) -> None:
        """Have the image made, and then all that is said about it."""
        self.worker.request("render", partial(jobs.render, self))

    def _show_strokes(self) -> None:
        strokes, past, future = self.history.strokes, self.history.past, self.history.future
        self.list.rows = [{"label": s.label, "on": s.on, "cells": len(s.cells)} for s in strokes]
        self.controls.undo.disabled, self.controls.redo.disabled = not past, not future
        self.brush.label = f"generated image, seed {self.seed}, {len(self.edits)} edits; paint to {self.mode}"

    def show_where(self) -> None:
        """Light up the cells in which adding the units would draw the concept, if that is asked for."""
        if self.controls.where.value:
            self.long_worker.request("where", partial(jobs.map_where, self))
        else:
            self.brush.map = []
