"""What can be painted: how much of each concept a stroke adds or removes, layer by layer, and what it spoils.

A stroke that adds covers one of `PLACES` x `PLACES` parts of the picture; all are tried, and the best one counts. A
stroke that removes covers the whole picture. The edits are those of the canvas.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import check_image_count, check_sample, short_repr
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.context import named_levels
from ganlens.effects.counting import count_pixels, seeds_of
from ganlens.models.editing import ablate, insert
from ganlens.models.opened import OpenedGenerator
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, concept_index
from ganlens.tables import Tabular, text_table

PLACES = 4  # parts of the picture along each side that a stroke may cover
DRAWN = 0.25, 0.125, 0.0625  # of a place's pixels that are gained: well, fairly, a little
REMOVED = 0.6, 0.3, 0.1  # of the concept's pixels that go


class Start(NamedTuple):
    """An image before any stroke: stopped at the layer, and the pixels (C,) of each concept."""

    opened: OpenedGenerator
    counts: np.ndarray

    @classmethod
    def of(cls, D: Dissection, seed: int) -> "Start":
        opened = generator_of(D).open(D.layer, seed)
        return cls(opened, count_pixels(D, opened.image)[0])


class Paint(NamedTuple):
    """What strokes of one concept's units in one layer do to one image, in pixels.

    ``gained`` (PLACES, PLACES) of the concept, by the place that is painted; ``beside`` of other concepts that turn
    into others at the best place; ``before`` and ``left`` of the concept with its units on and off, ``spoiled`` of
    others that turn into others meanwhile.
    """

    gained: np.ndarray
    beside: int
    before: int
    left: int
    spoiled: int


@dataclass(frozen=True, eq=False)
class Paintable(Tabular):
    """What can be painted, by layer and concept.

    Attributes
    ----------
    layers : tuple of str
        The layers that were tried.
    concepts : tuple of Concept
        The vocabulary.
    gained : array (L, C)
        Share of the best place's pixels that adding turns into the concept, the mean over the images; nan where no unit
        matches the concept.
    beside : array (L, C)
        Share of a place's pixels in which other concepts turn into others meanwhile.
    removed : array (L, C)
        Share of the concept's pixels that removing takes away; nan where no image shows it.
    spoiled : array (L, C)
        Share of the picture's pixels in which other concepts turn into others meanwhile.
    n, k : int
        Images, and units of each concept.
    complete : bool
        False after an interrupt: the means are of fewer images, and nan where none was tried.
    """

    layers: tuple[str, ...]
    concepts: tuple[Concept, ...]
    gained: np.ndarray
    beside: np.ndarray
    removed: np.ndarray
    spoiled: np.ndarray
    n: int
    k: int
    complete: bool = True

    def layer_for(self, concept: str | Concept, mode: str = "add") -> str:
        """The layer in which a concept can best be added, or removed: most of it, less what is spoiled."""
        if mode not in ("add", "remove"):
            raise ValueError(f"mode {short_repr(mode)}: expected 'add' or 'remove'")
        values = self.gained - self.beside if mode == "add" else self.removed - self.spoiled
        column = values[:, concept_index(self.concepts, concept, "this table")]
        if np.isnan(column).all():
            raise ValueError(
                f"it is not known where {concept} can be painted: no unit matches it, or no image shows it"
            )
        return self.layers[int(np.nanargmax(column))]

    def rows(self) -> list[dict]:
        """One dict per layer and concept."""
        names = "gained", "beside", "removed", "spoiled"
        return [
            {"layer": layer, "concept": concept.name, "category": concept.category}
            | {name: float(getattr(self, name)[i, c]) for name in names}
            for i, layer in enumerate(self.layers)
            for c, concept in enumerate(self.concepts)
        ]

    def __repr__(self) -> str:
        head = f"painting with {self.k} units of each concept, {self.n} images" + ", incomplete" * (not self.complete)
        head += "\nadds: share of a stroke's pixels that become it; removes: share of its pixels that go"
        rows = []
        for c, concept in enumerate(self.concepts):
            row = {"concept": concept.name}
            for i, layer in enumerate(self.layers):
                row |= {f"{layer} adds": share(self.gained[i, c]), f"{layer} removes": share(self.removed[i, c])}
            rows.append(row)
        return f"{head}\n\n{text_table(rows)}"


def paintable(
    dissections: Dissection | Mapping[str, Dissection],
    n: int = 4,
    *,
    k: int = 20,
    level="q0.995",
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> Paintable:
    """Which concepts can be added and removed, and in which layer best.

    What was measured stays with each dissection, in its file too, and answers the same question at once.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        Of one generator, with it and the segmenter.
    n, sample
        Images, and which sample; by default the one after the dissection's.
    k : int
        Units of each concept, those with the highest IoU.
    level : str or float
        What adding forces them to, see `ganlens.insert`.
    progress : bool or callable
        As for `ganlens.dissect`.

    Returns
    -------
    Paintable
        ``gl.plots.paintable(…)`` draws it. An interrupt returns what was tried, marked as incomplete.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, ["layer4", "layer5"], n=32, progress=False)
    >>> found = gl.paintable(D, n=1, progress=False)
    >>> found.layers, found.gained.shape
    (('layer4', 'layer5'), (2, 13))
    """
    given = [*dissections.values()] if isinstance(dissections, Mapping) and dissections else [dissections]
    Ds = [check_dissection(D) for D in given]
    first, n = Ds[0], check_image_count(n)
    if len({D.origin["generator_fingerprint"] for D in Ds}) > 1 or len({D.layer for D in Ds}) < len(Ds):
        raise ValueError(
            "the dissections are of several generators, or two of one layer; expected layers of one generator"
        )
    if any(D.concepts != first.concepts for D in Ds):
        raise ValueError("the dissections have different vocabularies; give each of them to paintable alone")
    sample = check_sample(sample, first.sample + 1)
    names = "gained", "beside", "removed", "spoiled"
    values = {name: np.full((len(Ds), len(first.concepts)), np.nan) for name in names}
    settings = {"n": n, "k": k, "level": level, "sample": sample}
    known = [D.painting and {name: D.painting[name] for name in settings} == settings for D in Ds]
    tried = [(i, c) for i, D in enumerate(Ds) for c in matched(D) if not known[i]]
    found: dict[tuple[int, int], list[Paint]] = {pair: [] for pair in tried}
    with steps(progress, len(tried) * n, "paint") as step:
        for i, start, c in begun(Ds, known, seeds_of(sample, n)):
            found[i, c].append(paint(Ds[i], start, c, Ds[i].units(Ds[i].concepts[c], k), level))
            if not step.go_on(1):
                break
    for (i, c), parts in found.items():
        if parts:
            for name, value in zip(names, shares(parts, Ds[i]), strict=True):
                values[name][i, c] = value
    complete = step.count == len(tried) * n
    for i, D in enumerate(Ds):
        if known[i]:
            for name in names:
                values[name][i] = D.painting[name]
        elif complete and isinstance(level, str | int | float):
            D.painting = settings | {name: values[name][i] for name in names}
    layers = tuple(D.layer for D in Ds)
    return Paintable(layers, first.concepts, **values, n=n, k=k, complete=complete)


def matched(D: Dissection) -> list[int]:
    """The concepts that any unit goes with at all."""
    return np.flatnonzero(D.iou.any(0)).tolist()


def begun(Ds: Sequence[Dissection], known: Sequence, seeds: Iterable[int]) -> Iterator[tuple[int, "Start", int]]:
    """Each image, stopped at each layer that is not known, once for each concept: layer's number, start, concept."""
    for seed in seeds:
        for i, D in enumerate(Ds):
            if known[i]:
                continue
            start = Start.of(D, seed)
            for c in matched(D):
                yield i, start, c


def shares(found: Sequence[Paint], D: Dissection) -> tuple[float, float, float, float]:
    """What `Paintable` says of a layer and a concept, of what strokes do to each image."""
    picture = D.shape[2] * D.shape[3]
    gained = np.mean([one.gained.max() for one in found]) * PLACES**2 / picture
    beside = np.mean([one.beside for one in found]) * PLACES**2 / picture
    before, left = sum(one.before for one in found), sum(one.left for one in found)
    removed = 1 - left / before if before else np.nan
    return float(gained), float(beside), removed, float(np.mean([one.spoiled for one in found])) / picture


def paint(
    D: Dissection,
    start: Start,
    concept: int,
    units: Sequence[int],
    level,
    pause: Callable[[], object] = lambda: None,
) -> Paint:
    """What adding in each place, and removing everywhere, do to an image; ``pause`` is called between passes."""
    named = named_levels(D, D.concepts[concept], level) if isinstance(level, str) else None
    on = insert(D.layer, units, level if named is None else named[list(units)])
    G, opened, before = generator_of(D), start.opened, start.counts
    r = opened.features
    with torch.no_grad():
        mask = places(*D.shape[:2]).to(r.device)
        added = opened.resume(torch.where(mask, G.edited_features(r, [on]), r))
        pause()
        without = opened.resume(G.edited_features(r, [ablate(D.layer, units)]))
        pause()
        after, left = count_pixels(D, added), count_pixels(D, without)[0]
    change = after - before  # (places, C)
    gained = change[:, concept]
    spoiled = [moved(x, concept) for x in (change[gained.argmax()], left - before)]
    pixels = before[concept], left[concept]
    return Paint(gained.reshape(PLACES, PLACES), spoiled[0], *pixels, spoiled[1])


def places(height: int, width: int) -> torch.Tensor:
    """Masks (PLACES², 1, H, W) of the cells of each place; where there are fewer cells, the nearest ones."""
    rows, columns = (nearest(cells) for cells in (height, width))
    return torch.from_numpy((rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, 1, height, width))


def nearest(cells: int) -> np.ndarray:
    """Which cells (PLACES, cells) lie in each part of a row."""
    part = (np.arange(cells) * PLACES) // cells
    own = np.arange(PLACES)[:, None]
    inside = part == own
    return np.where(inside.any(1, keepdims=True), inside, np.arange(cells) == own * cells // PLACES)


def moved(change: np.ndarray, concept: int) -> int:
    """Pixels in which other concepts turn into others, by what each gains (C,): what the concept takes is left out."""
    others = np.delete(change, concept)
    return min(others.clip(0).sum(), (-others).clip(0).sum())


def share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")
