"""What was painted: strokes as values, and a history of them that can be undone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral

import numpy as np

from ganlens.arguments import as_list, close_match, short_repr
from ganlens.models.editing import Edit, ablate, insert

DEEPEST = 200  # steps that can be undone

PAINTED = ("remove", "add", "query", "copy")


@dataclass(frozen=True)
class Stroke:
    """An edit, the words that people know it by, and whether it counts."""

    edit: Edit
    label: str
    on: bool = True
    concept: str | None = None  # what was asked for, where it is one

    @property
    def cells(self) -> list[int]:
        """Numbers of the cells that it forces, row by row."""
        return [] if self.edit.region is None else np.flatnonzero(self.edit.region).tolist()


@dataclass
class History:
    """Strokes in their order, and the states before and after that undo and redo lead to.

    Examples
    --------
    >>> history = History()
    >>> history.add(Stroke(Edit("layer4", [3]), "remove tree"))
    >>> history.undo(), history.strokes, history.redo(), len(history.strokes)
    (True, (), True, 1)
    """

    strokes: tuple[Stroke, ...] = ()
    past: list[tuple[Stroke, ...]] = field(default_factory=list)
    future: list[tuple[Stroke, ...]] = field(default_factory=list)

    def become(self, strokes: Iterable[Stroke]) -> None:
        """Take another state; the one before can be had back."""
        self.past = [*self.past[-DEEPEST + 1 :], self.strokes]
        self.future, self.strokes = [], tuple(strokes)

    def add(self, stroke: Stroke) -> None:
        self.become([*self.strokes, stroke])

    def delete(self, index: int) -> None:
        self.become(stroke for i, stroke in enumerate(self.strokes) if i != index)

    def switch(self, index: int) -> None:
        """Switch a stroke off, or on again."""
        self.become(replace(s, on=not s.on) if i == index else s for i, s in enumerate(self.strokes))

    def strengthen(self, index: int, strength: float) -> None:
        """Give a stroke another strength."""
        self.become(
            replace(s, edit=s.edit.replace(strength=strength)) if i == index else s for i, s in enumerate(self.strokes)
        )

    def erase(self, cells: np.ndarray, layer: str) -> None:
        """Take cells (H, W) out of the strokes of a layer; those without a cell are deleted."""
        kept = []
        for stroke in self.strokes:
            if stroke.edit.layer == layer and (stroke.edit.region is None or (cells * stroke.edit.region).any()):
                region = np.ones(cells.shape) if stroke.edit.region is None else np.asarray(stroke.edit.region, float)
                region = np.where(cells > 0, 0, region)
                if not region.any():
                    continue
                stroke = replace(stroke, edit=stroke.edit.replace(region=region))
            kept.append(stroke)
        if kept != list(self.strokes):
            self.become(kept)

    def undo(self) -> bool:
        """Go one state back; False if there is none."""
        return self._go(self.past, self.future)

    def redo(self) -> bool:
        """Go one state forward; False if there is none."""
        return self._go(self.future, self.past)

    def _go(self, source: list, target: list) -> bool:
        if not source:
            return False
        target.append(self.strokes)
        self.strokes = source.pop()
        return True

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits of the strokes that are on."""
        return tuple(stroke.edit for stroke in self.strokes if stroke.on)


@dataclass(frozen=True)
class Copy:
    """What units do in some cells of an image, to be forced upon other cells or another image.

    Attributes
    ----------
    layer, units : str, tuple of int
        Whose.
    maps : array (K, H, W)
        Features of the K units.
    region : array (H, W)
        The cells that were copied.
    """

    layer: str
    units: tuple[int, ...]
    maps: np.ndarray
    region: np.ndarray

    def moved(self, down: int, right: int, strength: float) -> Edit:
        """Force the cells that lie ``down`` rows below and ``right`` columns beside the copied ones."""
        region = shifted(self.region, down, right)
        if not region.any():
            raise ValueError("nothing of what was copied would lie inside the image; paste nearer to its middle")
        return insert(self.layer, self.units, shifted(self.maps, down, right), region=region, strength=strength)

    @property
    def outline(self) -> dict:
        """Its cells and their middle, for the page to draw under the pointer."""
        rows, columns = np.nonzero(self.region)
        middle = [int(rows.mean().round()), int(columns.mean().round())]
        return {"cells": np.flatnonzero(self.region).tolist(), "middle": middle}


def label_of(mode: str, concept: str | None, units: Sequence[int]) -> str:
    """The words that people know a stroke by: its concept, or a few of its units."""
    few = ", ".join(map(str, units[:4])) + (" …" if len(units) > 4 else "")
    return f"{mode} {concept}" if concept else f"{mode} unit{'s' * (len(units) > 1)} {few}"


def check_mode(mode: str) -> str:
    """A mode that `InterventionCanvas.paint` has; ValueError for any other."""
    if mode not in PAINTED:
        raise ValueError(close_match("mode", mode, PAINTED, "paint()") + "; paste() pastes, undo() takes back")
    return mode


def region_of(cells: Sequence[int] | None, shape: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) of the cells of given numbers.

    Raises
    ------
    ValueError
        No cell, or a number that the layer has not.
    """
    given = as_list("cells", cells, "numbers of cells")
    if not all(isinstance(cell, Integral) and not isinstance(cell, bool) for cell in given):
        raise ValueError(f"cells {short_repr(given)}: expected whole numbers")
    numbers = np.array(given, object)
    if not numbers.size or numbers.min() < 0 or numbers.max() >= shape[0] * shape[1]:
        raise ValueError(f"cells {numbers.tolist()[:8]}: expected some of 0 … {shape[0] * shape[1] - 1}")
    region = np.zeros(shape)
    region.flat[numbers.astype(int)] = 1
    return region


def weights_of(cells: Sequence[int] | None, region, shape: tuple[int, int]) -> np.ndarray:
    """Weights (H, W) of the cells of a layer, given as their numbers or as they are; ValueError for anything else."""
    if region is None:
        return region_of(cells, shape)
    if cells is not None:
        raise ValueError("cells and region were both given; give one of them")
    weights = np.array(ablate("", [0], region).region, float)
    if weights.shape != tuple(shape) or not weights.any():
        raise ValueError(f"region of shape {weights.shape}: expected {tuple(shape)}, with some cell in it")
    return weights


def fitted(region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) for a grid of another size (H, W): the cells that it covers by half, or else the most."""
    if region.shape == tuple(shape):
        return region
    fine = [np.lcm(a, b) for a, b in zip(region.shape, shape, strict=True)]
    large = region.repeat(fine[0] // region.shape[0], 0).repeat(fine[1] // region.shape[1], 1)
    share = large.reshape(shape[0], fine[0] // shape[0], shape[1], fine[1] // shape[1]).mean((1, 3))
    return (share >= min(0.5, share.max())).astype(float)


def shifted(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Maps (…, H, W) moved down and to the right; what leaves is lost, what enters is 0."""
    height, width = maps.shape[-2:]
    y, x = np.arange(height) - rows, np.arange(width) - columns
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    return np.where(inside, maps[..., y.clip(0, height - 1)[:, None], x.clip(0, width - 1)], 0)


def union(edits: Sequence[Edit], size: tuple[int, int]) -> np.ndarray:
    """Pixels (Y, X) of a grid of another size that lie in a cell of any of the edits; all where one has no region."""
    pixels = np.zeros(size, bool)
    for edit in edits:
        region = np.ones((1, 1), bool) if edit.region is None else np.asarray(edit.region) > 0
        rows, columns = (np.arange(n) * cells // n for n, cells in zip(size, region.shape, strict=True))
        pixels |= region[rows][:, columns]
    return pixels


DIGITS = 10  # of a number: seeds have as many
MOST_UNITS = 10_000  # that are typed; layers have up to a few thousand


def parse_units(text: str) -> tuple[int, ...]:
    """Unit numbers from what people type: ``"3, 17, 40-43"``; ValueError for anything else."""
    units: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"units {part!r}: expected numbers and ranges, such as 3, 17, 40-43")
        numbers = range(int(first), int(last or first) + 1) if max(len(first), len(last)) <= DIGITS else range(0)
        if not numbers:
            raise ValueError(f"units {part!r}: expected a range from a number up to a larger one, such as 40-43")
        if len(numbers) + len(units) > MOST_UNITS:
            raise ValueError(f"units {part!r}: more than {MOST_UNITS:,} at once; expected a range such as 40-43")
        units += numbers
    return tuple(dict.fromkeys(units))


def write_units(units: Sequence[int]) -> str:
    """Unit numbers as people read them, in their order."""
    return ", ".join(map(str, units))
