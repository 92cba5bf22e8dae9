"""The intervention canvas: a generated image, and a brush that switches units off and on."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import ipywidgets as w
import numpy as np
import traitlets

from ganlens.arguments import check_integer, check_number
from ganlens.dissection.result import Dissection, generator_of
from ganlens.images import grid, resize
from ganlens.models.base import Generator
from ganlens.models.editing import Edit
from ganlens.recipe import Recipe, Renderer, as_recipe
from ganlens.segmenters.base import concept_index
from ganlens.widgets import canvas_jobs as jobs
from ganlens.widgets import canvas_page as page
from ganlens.widgets.canvas_fold import Controls
from ganlens.widgets.canvas_palette import Tried, best_layer
from ganlens.widgets.canvas_parts import Brush, Fold, Palette, Screen, SeedStrip, StrokeList, Tools
from ganlens.widgets.canvas_state import Easel
from ganlens.widgets.canvas_traits import FOLLOWED, SHOWN, CanvasTraits, checked_level
from ganlens.widgets.panel import Panel
from ganlens.widgets.pending import Pending, edit_of
from ganlens.widgets.strokes import Copy, History, Stroke, check_mode, label_of, region_of, weights_of
from ganlens.widgets.worker import Worker


class InterventionCanvas(CanvasTraits, w.VBox):
    """A generated image to paint on: units are switched off or on in the cells that the brush touches.

    Choose *draw* or *remove* and a concept; paint. On release the image is generated again from the layer on, with all
    strokes applied in their order. Units, orders, levels, maps, recipes stand under *More*. Keys over the image: ``D``
    draw, ``R`` remove, ``Z`` undo, ``Shift+Z`` redo, ``N`` and ``P`` next and previous seed, ``[`` and ``]`` brush
    size, ``B`` (held) the image before, arrows and space to paint without a pointer.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        With their generator; with a segmenter, what can be drawn here is measured, and how every concept changed. Of
        several layers, each concept is painted in the one where that was measured to be best.
    seed : int
        Which image.
    concept : str, optional
        Whose units to force.
    k : int
        How many of the concept's units.
    order : {"iou", "effect", "gradient", "ace"}
        What its units are ranked by, see `Dissection.units`; what is not known yet is measured first.
    level : str
        What *add* forces units to: a quantile of theirs, such as ``"q0.995"``, ``"mean"``, or a number.
    width : int
        Pixels of the image's width on the page, at most.

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

    KEPT = "jpeg"

    def __init__(
        self,
        dissections: Dissection | Mapping[str, Dissection],
        seed: int = 0,
        concept: str | None = None,
        *,
        k: int = 20,
        order: str = "iou",
        level: str = "q0.995",
        width: int = 432,
    ):
        Panel.__init__(self, dissections)
        with self.closed_on_error():
            self.easel, level = Easel(generator_of(self.D), self.D.segmenter), checked_level(level)
            self.history, self.tried = History(), Tried()
            self.arranged: dict[str, list[str]] = {}  # names of the tiles, by mode
            self.auto = len(self.dissections) > 1  # the layer follows from the concept
            self.waiting: list[Pending] = []  # what was painted while the units were being measured
            self.chosen: tuple[int, ...] = ()  # the units that were chosen last; others were typed
            self.changes: dict[int, tuple[Edit, str]] = {}  # by identity of the edit, what it changed
            self.copied: Copy | None = None
            self.painted = -np.inf  # when the last stroke came
            self.image: np.ndarray | None = None
            self.before: np.ndarray | None = None
            for name, value in self.generator.settings.items():
                self.set_trait(name, value)
            self.long_worker = Worker(self.show_error)  # for what takes long; painting goes on meanwhile
            self.background = Worker(self.show_error)  # for what nobody waits for
            height, length = self.generator.image_shape[1:]
            size = check_integer("width", width, 1, 10_000), round(height * width / length)
            self.screen = Screen((height, length), size)
            self.brush = Brush(size=size, radius=self.radius, stands_for=self.stands_for)
            self.palette, self.list, self.strip = Palette(), StrokeList(), SeedStrip(self.generator, self.worker)
            self.tools = Tools(segments=self.D.segmenter is not None)
            self.fold, self.controls = Fold(name=f"ganlens-{self.model_id}"), Controls(self)
            self.children = page.arranged(self)
            self.add_class("ganlens-panel")
            self._listen()
            self.level, self.order = level, order
            self.set_trait("k", k)
            self.seed, self.concept = seed, concept
            self._show_layer()
            page.show_smooth(self)
            self.strip.show(seed)
            self._refresh()
            jobs.show_palette(self)
            self.show_fold()

    # ---- what a user calls

    def paint(self, cells: Sequence[int] | None = None, mode: str | None = None, region=None) -> None:
        """Do what a stroke does: force the chosen units in cells, or ask which units are active there.

        Parameters
        ----------
        cells : sequence of int
            Numbers of cells of the layer, row by row.
        mode : {"remove", "add", "query", "copy"}
            By default the mode on show. Whatever is painted while units are being measured waits for them.
        region : array-like (H, W), optional
            Weight of each cell, instead of ``cells``.
        """
        mode = check_mode(self.mode if mode is None else mode)
        with self.lock:
            region = weights_of(cells, region, self.shape)
            if mode == "query":
                self.worker.request("query", partial(jobs.query, self, region))
            elif mode == "copy":
                jobs.copy(self, region)
            elif self.learning and self.units == self.chosen:
                how = self.k, self.order, self.level, self.strength
                self.waiting.append(Pending(self.D, mode, region, cast(str, self.concept), *how))
                self.list.result = ["painted; it waits for the measurement of the units", self.order, False]
                self.brush.shown += 1
            else:
                asked = self._asked()
                self._add(Stroke(self._edit(mode, region), label_of(mode, asked, self.units), concept=asked))

    def fill(self, x: float, y: float, mode: str | None = None) -> None:
        """Paint all cells of the thing at a point of the picture (shares of its width and height), by the segmenter."""
        if self.easel.segmenter is None:
            raise ValueError("fill needs a segmenter, which tells what is where: gl.Dissection.load(…, segmenter=S)")
        x, y = check_number("x", x, 0, 1), check_number("y", y, 0, 1)
        found = self.easel.segment(self.seed, self.edits, self.layer, x, y, self.shape)
        if found is None:
            raise ValueError("there is no concept at this point that could be filled")
        self.paint(mode=mode or (self.verb if self.mode == "paste" else self.mode), region=found[0])

    def erase(self, cells: Sequence[int]) -> None:
        """Take cells out of what was painted in the layer on show; `undo` brings them back."""
        with self.lock:
            region = region_of(cells, self.shape)
            left = [p.without(region) if p.D is self.D else p for p in self.waiting]
            self.waiting = [p for p in left if p is not None]
            self.history.erase(region, self.layer)
            self._take_history()
        self.brush.shown += 1

    def paste(self, down: int, right: int) -> None:
        """Force what was copied upon cells that lie ``down`` rows below and ``right`` columns beside it."""
        if self.copied is None:
            raise ValueError("nothing was copied yet: choose copy, and paint over what the units do")
        if self.copied.layer != self.layer:
            raise ValueError(f"what was copied is of {self.copied.layer}, on show is {self.layer}; copy something here")
        most = max(self.shape)
        down, right = (check_integer(name, n, -most, most) for name, n in (("down", down), ("right", right)))
        edit = self.copied.moved(down, right, self.strength)
        self._add(Stroke(edit, f"paste of {len(edit.units)} units"))

    def step(self, distance: int) -> None:
        """Go to the next seed, or to another one by its distance."""
        self.seed = max(0, self.seed + distance)

    def undo(self) -> None:
        """Take the last stroke, or the last change of strokes, back."""
        with self.lock:
            if self.waiting:
                self.waiting.pop()
            else:
                self.history.undo()
            self._take_history()

    def redo(self) -> None:
        """Do again what was undone."""
        with self.lock:
            self.history.redo()
            self._take_history()

    def reset(self) -> None:
        """Delete all strokes; `undo` brings them back."""
        with self.lock:
            self.waiting.clear()
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
        self.waiting.clear()
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

    @property
    def learning(self) -> bool:
        """Whether the units of the concept on show are still being measured."""
        return self.concept is not None and not self.D.ranks(self.concept, self.order)

    def wait(self, seconds: float | None = 60) -> bool:
        """Wait until the image stands, with all that was asked for; False if that takes longer."""
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
        large = [resize(picture, (height, width), smooth=self.smooth) for picture in pictures]
        return grid(np.stack(large), gap=8)

    # ---- from what is asked for to edits

    def _edit(self, mode: str, region: np.ndarray) -> Edit:
        if not self.units:
            raise ValueError("no units to paint with: choose a concept, or type unit numbers such as 3, 17, 40-43")
        return edit_of(self.D, mode, region, self.units, self.level, self.strength)

    def _asked(self) -> str | None:
        """The concept whose units are forced, if they are those of one."""
        concept = self.concept
        known = concept is not None and self.D.ranks(concept, self.order) and self.units == self._units_of(concept)
        return concept if known else None

    def _units_of(self, concept: str) -> tuple[int, ...]:
        return tuple(self.D.units(concept, self.k, by=self.order))

    def _add(self, stroke: Stroke) -> None:
        self.generator.check_edit(stroke.edit)
        self.painted = time.monotonic()
        with self.lock:
            self.history.add(stroke)
            self._take_history()

    def _take_history(self) -> None:
        before, self.edits = self.edits, self.history.edits
        if before == self.edits:
            self._refresh()  # a list that changed without another image, or a stroke that is to be confirmed

    # ---- reactions

    def _listen(self) -> None:
        for part in (self.brush, self.list, self.strip, self.fold):
            part.on_msg(lambda _, message, buffers: self._receive(message, buffers))
        self.list.observe(lambda change: self._highlight(change["new"]), "hovered")
        for name, traits in FOLLOWED.items():
            for trait in traits:
                traitlets.link((self, trait), (getattr(self, name), trait))
        traitlets.link((self, "failure"), (self.fold, "failure"))
        self.observe(lambda change: vars(self.controls).update(answer=""), ["mode", "seed", "layer"])
        self.observe(lambda change: self.choose_layer(), "concept")
        self.observe(lambda change: self.choose_layer() if self._asked() else None, "mode")
        self.observe(lambda change: jobs.show_palette(self), ["mode", "layer", "seed", "k", "level"])
        self.observe(lambda change: page.show_smooth(self), "smooth")
        self.observe(lambda change: self.show_fold(), SHOWN)
        self.observe(lambda change: self._choose_units(), ["concept", "k", "order"])
        self.observe(lambda change: self._show_layer(), "layer")
        self.observe(lambda change: self._take_edits(), "edits")
        self.observe(lambda change: jobs.show_where(self), ["seed", "units", "concept", "layer", "where", "level"])
        self.observe(lambda change: self.strip.show(self.seed), "seed")
        self.observe(lambda change: self._refresh(), "seed")
        self.observe(lambda change: self._take_settings(), ["truncation", "label"])

    def _receive(self, message: dict, buffers: Sequence = ()) -> None:
        if message["kind"] == "preview":  # no act: it changes nothing that is on show
            return jobs.ask_preview(self, message)
        with self.lock, self.showing_errors():  # messages come on several threads, and none may undo what another did
            try:
                page.obey(self, message, buffers)
            except Exception:
                self.brush.shown += 1  # what the page drew of a stroke that failed goes away
                self.strip.refused += 1
                self.show_fold(fresh=True)
                raise

    def _take_edits(self) -> None:
        if self.edits != self.history.edits:  # they came from outside
            self.history.become(Stroke(edit, repr(edit).partition(":")[2].strip(" >")) for edit in self.edits)
        self._refresh()

    def _take_settings(self) -> None:
        settings = {name: getattr(self, name) for name in self.generator.settings}
        self.easel = Easel(self.generator.variant(**settings), self.D.segmenter)
        self.strip.become(self.generator)
        jobs.show_where(self)
        jobs.show_palette(self)
        self._refresh()

    def _choose_units(self) -> None:
        if self.concept is None or any(pending.concept != self.concept for pending in self.waiting):
            self.paint_what_waits()
        if self.concept is None:
            return
        if not self.D.ranks(self.concept, self.order):
            self.long_worker.request("order", partial(jobs.learn_order, self))
            return
        self.chosen = self._units_of(self.concept)
        self.units = self.chosen
        self.unit = self.units[0]
        self.paint_what_waits()

    def paint_what_waits(self) -> None:
        """Paint what was painted while units were being measured; with those of highest IoU if they are not known."""
        while self.waiting:
            self._add(self.waiting.pop(0).stroke())

    def choose_layer(self) -> None:
        """Go to the layer in which the concept can best be painted, where that is to be chosen and was measured."""
        if self.auto and self.concept is not None and self.mode in ("add", "remove"):
            layer = best_layer(self, concept_index(self.D.concepts, self.concept, "this vocabulary"))
            self.layer = layer or self.layer

    def _show_layer(self) -> None:
        self.brush.grid = self.shape
        if self.units and max(self.units) >= len(self.D.iou):
            self.units, self.unit = (), None
        self._choose_units()

    def _highlight(self, index: int | None) -> None:
        strokes = self.history.strokes
        self.brush.highlight = strokes[index].cells if index is not None and index < len(strokes) else []

    def _refresh(self) -> None:
        self.failure = ""
        self.worker.request("render", partial(jobs.render, self))

    def show_fold(self, fresh: bool = False) -> None:
        """Show in the fold what is chosen and measured; ``fresh`` also where the page alone has changed it."""
        if fresh:
            self.fold.state = {}
        self.fold.state = self.controls.state()
