"""Where a concept can go: its units are switched on in one cell after another, and what appears is counted.

What the canvas paints into a cell and what is measured here is the same edit, applied by the same code.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.dissection import Dissection
from ganlens.files import read_arrays, write_atomically
from ganlens.instrument import Edit, insert, quantile_of
from ganlens.models.base import grown
from ganlens.progress import interrupt_between_steps, progress_bar
from ganlens.segmenters.base import Concept, concept_index

FORMAT = 1
CONFIDENCE = 0.99
REACH = 1  # cells on each side of the edited one that count as near it
GRANULE = 8  # networks run on multiples of this many images, so that every image is rounded alike
NOTHING = Concept("nothing", "")
HEADER = ("concepts", "target", "grid", "size", "stride", "seed", "complete", "origin")


@dataclass(frozen=True, eq=False, repr=False)
class Context:
    """What appears when the units of a concept are switched on in one cell, by what was there before.

    N images, L label planes, C concepts; H x W cells, of which R x Q were tried. A trial is one cell of one image. Made
    by `ganlens.context`.

    Attributes
    ----------
    edit : Edit
        What was done in each cell, as an edit of all cells: ``edit.on(region=…)`` does it elsewhere.
    concepts, target : tuple of Concept, int
        The vocabulary, and the place of the concept in it.
    grid, size : (H, W), (h, w)
        Cells of the layer, pixels of the segmentation.
    stride : int
        Of the cells, every ``stride``-th row and column was tried.
    seed, complete : int, bool
        Which sample, and whether it was seen to its end.
    origin : dict
        Name and fingerprint of generator and segmenter.
    before : integer array (N, R, Q, L)
        The most frequent label of the cell's pixels in the unedited image, 0 for none.
    gained : integer array (N, R, Q)
        Pixels of the concept gained near the cell: in it, and in those that touch it.
    change : integer array (N, R, Q, C)
        Pixels of each concept gained in the whole image; negative where they are lost.
    """

    edit: Edit
    concepts: tuple[Concept, ...]
    target: int
    grid: tuple[int, int]
    size: tuple[int, int]
    stride: int
    seed: int
    complete: bool
    origin: dict[str, str]
    before: np.ndarray
    gained: np.ndarray
    change: np.ndarray

    @property
    def concept(self) -> Concept:
        """What was inserted."""
        return self.concepts[self.target]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.before)

    # ---- by place

    @property
    def map(self) -> np.ndarray:
        """Pixels of the concept gained near each cell (H, W), mean over the images."""
        return self.maps.mean(0)

    @property
    def maps(self) -> np.ndarray:
        """The same for each image (N, H, W); a cell that was not tried has the number of one beside it that was."""
        return on_all_cells(self.gained, self.grid, self.stride)

    # ---- by what was there: all arrays have C + 1 rows, the first for cells in which nothing was labelled

    @cached_property
    def was(self) -> np.ndarray:
        """Which concept each trial's cell had before (N, R·Q, C + 1), boolean; one of every label plane."""
        labels = self.before.reshape(self.n, -1, self.before.shape[-1])
        found = np.zeros((*labels.shape[:2], len(self.concepts) + 1), bool)
        for plane in np.moveaxis(labels, -1, 0):
            np.put_along_axis(found, plane[..., None].astype(np.int64), True, 2)
        found[..., 0] = (labels == 0).all(2)
        return found

    @property
    def trials(self) -> np.ndarray:
        """Number of trials (C + 1,)."""
        return self.was.sum((0, 1))

    @property
    def images(self) -> np.ndarray:
        """Number of images with such trials (C + 1,)."""
        return self.was.any(1).sum(0)

    @property
    def gain(self) -> np.ndarray:
        """Pixels of the concept gained near the cell (C + 1,), mean over the trials; nan without trials."""
        return self.mean(self.gained)

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``gain`` (C + 1,), (C + 1,); nan where fewer than two images have trials.

        Bootstrap over images, 1,000 draws from a fixed seed.
        """
        draws = np.random.default_rng(0).multinomial(self.n, np.full(self.n, 1 / self.n), 1000)
        gains = ratio(draws @ self.sums(self.gained), draws @ self.was.sum(1))  # (draws, C + 1)
        ends = np.full((2, len(self.concepts) + 1), np.nan)
        known, tail = self.images > 1, (1 - CONFIDENCE) / 2
        ends[:, known] = np.nanquantile(gains[:, known], (tail, 1 - tail), axis=0)
        return ends[0], ends[1]

    def appears(self, least: int | None = None) -> np.ndarray:
        """Share of the trials (C + 1,) in which at least so many pixels are gained near the cell.

        Parameters
        ----------
        least : int, optional
            By default a quarter of a cell.
        """
        return self.mean(self.gained >= (self.quarter if least is None else least))

    @property
    def quarter(self) -> int:
        """Pixels in a quarter of a cell, at least 1."""
        return max(1, self.size[0] * self.size[1] // (4 * self.grid[0] * self.grid[1]))

    @property
    def everywhere(self) -> np.ndarray:
        """Pixels of the concept gained in the whole image (C + 1,), mean over the trials."""
        return self.mean(self.change[..., self.target])

    @property
    def collateral(self) -> np.ndarray:
        """Pixels of the other concepts that come or go in the whole image (C + 1,), those replaced included."""
        return self.mean(np.abs(np.delete(self.change, self.target, -1)).sum(-1))

    def changes(self) -> np.ndarray:
        """Pixels of each concept gained in the whole image, by what was there (C + 1, C), mean over the trials."""
        return np.stack([self.mean(self.change[..., c]) for c in range(len(self.concepts))], 1)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the trials of values (N, R, Q), by what was there: (C + 1,)."""
        return ratio(self.sums(values).sum(0), self.trials)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each image's trials of values (N, R, Q), by what was there: (N, C + 1)."""
        return np.einsum("nk,nkc->nc", values.reshape(self.n, -1).astype(float), self.was)

    # ---- tables

    def rows(self) -> list[dict]:
        """One dict for each concept that was there before, the one where most is gained first."""
        (low, high), gain, appears = self.interval, self.gain, self.appears()
        everywhere, collateral = self.everywhere, self.collateral
        names = (NOTHING, *self.concepts)
        found = sorted(np.flatnonzero(self.trials).tolist(), key=lambda v: -gain[v])
        return [
            {
                "before": names[v].name,
                "category": names[v].category,
                "trials": int(self.trials[v]),
                "images": int(self.images[v]),
                "gained": round(float(gain[v]), 3),
                "low": round(float(low[v]), 3),
                "high": round(float(high[v]), 3),
                "appears": round(float(appears[v]), 4),
                "gained_in_image": round(float(everywhere[v]), 3),
                "change_of_others": round(float(collateral[v]), 3),
            }
            for v in found
        ]

    def table(self):
        """One row per concept that was there: a DataFrame when pandas is installed, otherwise a list of dicts."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows()).set_index("before")

    def __repr__(self) -> str:
        seen = f"{self.n:,} images" + ("" if self.complete else " (incomplete)")
        rows, columns = self.gained.shape[1:]
        cells = f"{rows} x {columns}" + (f" (of {self.grid[0]} x {self.grid[1]})" if self.stride > 1 else "")
        units = f"{len(self.edit.units)} units switched on in one of {cells} cells at a time"
        title = f"{self.concept} into {self.edit.layer} of {self.origin['generator']}: {units}, {seen}"
        head = f"  {'there before':<16} {'pixels gained near it':<24} {f'≥ {self.quarter}':>6}  trials"
        return "\n".join([title, head, *map(line, self.rows())])

    # ---- files

    def save(self, path: str | Path) -> None:
        """Write everything to an ``.npz`` file, whole or not at all."""
        header = {"format": FORMAT, "edit": self.edit.to_json()} | {name: getattr(self, name) for name in HEADER}
        arrays = {"before": self.before, "gained": self.gained, "change": self.change}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Context":
        """Read a file written by `save`; ValueError if it is damaged or no context."""
        header, arrays = read_arrays(Path(path), "context")
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            found = header.get("format") if isinstance(header, dict) else None
            raise ValueError(f"{path} has format version {found}; this ganlens reads version {FORMAT}")
        try:
            fields = {name: header[name] for name in HEADER} | {"edit": Edit.from_json(header["edit"])}
            fields |= {name: tuple(header[name]) for name in ("grid", "size")}
            fields |= {"concepts": tuple(Concept(*pair) for pair in header["concepts"])}
            fields |= {name: arrays[name] for name in ("before", "gained", "change")}
            expected = *fields["gained"].shape, len(fields["concepts"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no context ({error!r})") from error
        if fields["change"].shape != expected or fields["before"].shape[:-1] != expected[:-1]:
            raise ValueError(f"{path} is damaged: its arrays do not fit each other")
        return cls(**fields)


def line(row: dict) -> str:
    """A row of the table as a line of text."""
    interval = "" if np.isnan(row["low"]) else f"({row['low']:.1f} … {row['high']:.1f})"
    gained = f"{row['gained']:7.1f}  {interval}"
    return f"  {row['before']:<16} {gained:<24} {row['appears']:>6.0%}  {row['trials']:,} in {row['images']:,} images"


# ---- measuring


def context(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    k: int = 20,
    n: int = 200,
    level="q0.995",
    seed: int | None = None,
    stride: int = 1,
    batch: int = 32,
    progress: bool | Callable[[int, int], None] = True,
) -> Context:
    """Where can it go? Switch a concept's units on in one cell at a time, and count what appears (Bau et al., 2020).

    Every image is generated and segmented once unedited; each trial runs what lies behind the layer, and the segmenter.
    The result does not depend on the batch size. An interrupt returns what was done, image by image, marked as
    incomplete.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    concept : str or Concept
        What to insert.
    units : sequence of int, optional
        By default the ``k`` units with the highest IoU.
    k, n : int
        Number of units, and of images.
    level : float, array-like (K,) or (K, H, W), or str
        What the units are forced to: numbers, ``"mean"``, or a quantile of each unit in the dissection's sample.
    seed : int, optional
        Which sample; by default the one after the dissection's, so that no image has been seen before.
    stride : int
        Try every ``stride``-th row and column of cells only.
    batch : int
        Trials per pass.
    progress : bool or callable
        A bar, nothing, or a function of (images done, of how many), called after each image.

    Returns
    -------
    Context

    Raises
    ------
    ValueError
        The concept is unknown, or the dissection's sample shows none of it; there are not so many units; a number is
        out of range; the dissection has no generator or segmenter at hand.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer4", n=16, progress=False)
    >>> C = gl.context(D, "tree", n=2, stride=4, progress=False)
    >>> C.map.shape, C.gained.shape
    ((8, 8), (2, 2, 2))
    """
    check_numbers(n=n, batch=batch)
    seed = D.seed + 1 if seed is None else seed
    edit, target = insertion(D, concept, units, k, level, stride)
    first, parts = seed * 1_000_000, []
    with progress_bar(progress, n, "context") as done, interrupt_between_steps() as interrupted:
        for image in range(first, first + n):
            parts.append(trials(D, edit, target, stride, image, batch))
            done(1)
            if interrupted():
                break
    before, gained, change = map(np.stack, zip(*parts, strict=True))
    grid, size = D.shape[:2], D.shape[2:]
    settings = {"stride": int(stride), "seed": int(seed), "complete": len(parts) == n, "origin": D.origin}
    return Context(edit, D.concepts, target, grid, size, **settings, before=before, gained=gained, change=change)


def where(
    D: Dissection,
    concept: str | Concept,
    seed: int,
    units: Sequence[int] | None = None,
    k: int = 20,
    level="q0.995",
    stride: int = 1,
    batch: int = 32,
) -> np.ndarray:
    """Say of one image, before painting, where the concept will appear.

    Parameters
    ----------
    D : Dissection
        With its generator and segmenter.
    concept : str or Concept
        What would be painted.
    seed : int
        Which image.
    units, k, level, stride, batch
        As for `context`; a larger ``stride`` gives a coarser map sooner.

    Returns
    -------
    array (H, W)
        Pixels of the concept that would be gained near each cell, if it alone were painted.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer4", n=16, progress=False)
    >>> gl.where(D, "tree", seed=7, stride=4).shape
    (8, 8)
    """
    check_numbers(batch=batch)
    edit, target = insertion(D, concept, units, k, level, stride)
    return on_all_cells(trials(D, edit, target, stride, seed, batch)[1], D.shape[:2], stride)


def insertion(D: Dissection, concept, units, k: int, level, stride: int) -> tuple[Edit, int]:
    """The edit, of all cells, and the place of its concept in the vocabulary; ValueError if it cannot be made."""
    D.attached("segmenter")
    target = concept_index(D.concepts, concept, D.origin["segmenter"])
    check_numbers(stride=stride)
    if stride > min(D.shape[:2]):
        raise ValueError(f"stride={stride}: {D.layer} has {D.shape[0]} x {D.shape[1]} cells; expected less")
    if units is None:
        units = best_units(D, target, k)
    D.check_units(units)
    if isinstance(level, str):
        q = quantile_of(level)
        level = (D.levels.mean() if q is None else D.levels.quantile(q))[list(units)]
    edit = insert(D.layer, units, level)
    D.attached("generator").check_edit(edit)
    return edit, target


def best_units(D: Dissection, target: int, k: int) -> list[int]:
    """The ``k`` units with the highest IoU, where the sample can tell."""
    check_numbers(k=k)
    if k > len(D.iou):
        raise ValueError(f"k={k}: {D.layer} has {len(D.iou)} units; expected at most as many")
    if not D.area[target]:
        name = D.concepts[target]
        raise ValueError(
            f"{name} is in none of the {D.n} images of this dissection, so that no unit matches it; "
            "dissect more images, or say which units to switch on: units=[…]"
        )
    return D.units(D.concepts[target], k)


def check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name}={number}: expected a whole number, at least 1")


def trials(
    D: Dissection, edit: Edit, target: int, stride: int, seed: int, batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``before`` (R, Q, L), ``gained`` (R, Q) and ``change`` (R, Q, C) of one image, as `Context` has them."""
    G, S, grid = D.attached("generator"), D.attached("segmenter"), D.shape[:2]
    rows, columns = (tried(cells, stride) for cells in grid)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    with torch.inference_mode():
        opened = G.open(edit.layer, seed)
        labels = S.labels(grown(opened.image))[:1]
        forced = G.edited(opened.features, [edit])
        parts = []
        for some in in_granules(len(y), batch):
            image = opened.resume(in_one_cell(forced, opened.features, y[some], x[some]))
            parts.append(count(S.labels(image), labels, len(D.concepts), target, grid, y[some], x[some]))
    shape = len(rows), len(columns)
    near, change = (np.concatenate(part)[: len(y)].reshape(*shape, -1) for part in zip(*parts, strict=True))
    before = most_frequent(labels[0], len(D.concepts), grid)[:, rows][:, :, columns]
    return np.moveaxis(before, 0, -1), near[..., 0], change


def in_granules(count: int, batch: int) -> Iterator[np.ndarray]:
    """Numbers 0 … count - 1 in whole granules; the last number fills up the last granule."""
    size = -(-batch // GRANULE) * GRANULE
    for start in range(0, count, size):
        stop = min(start + size, -(-count // GRANULE) * GRANULE)
        yield np.minimum(np.arange(start, stop), count - 1)


def in_one_cell(forced: torch.Tensor, features: torch.Tensor, y: np.ndarray, x: np.ndarray) -> torch.Tensor:
    """Features (M, U, H, W) that are ``forced`` (1, U, H, W) in one cell each, and else ``features`` (1, U, H, W)."""
    at = torch.zeros(len(y), 1, *features.shape[2:], dtype=torch.bool)
    at[np.arange(len(y)), 0, y, x] = True
    return torch.where(at.to(features.device), forced, features)


def count(
    after: torch.Tensor, before: torch.Tensor, concepts: int, target: int, grid: tuple, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels gained from labels ``before`` (1, L, h, w) to ``after`` (M, L, h, w), edited in cells (y, x).

    Of the target near the cell (M, 1), of all concepts in the image (M, C).
    """
    near = [torch.from_numpy(neighbourhood(*pair)).to(after.device) for pair in zip(grid, after.shape[2:], strict=True)]
    near = near[0][y][:, :, None] & near[1][x][:, None]  # (M, h, w)
    target += 1
    there, was = ((labels == target).any(1) & near for labels in (after, before))
    gained = there.sum((1, 2)) - was.sum((1, 2))
    change = pixels(after, concepts) - pixels(before, concepts)
    return gained[:, None].int().cpu().numpy(), change.int().cpu().numpy()


def pixels(labels: torch.Tensor, concepts: int) -> torch.Tensor:
    """Pixels of each concept (N, C) in labels (N, L, h, w)."""
    labels = labels.long().flatten(1)
    counts = torch.zeros(len(labels), concepts + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(1, labels, torch.ones_like(labels))[:, 1:]


def neighbourhood(cells: int, size: int) -> np.ndarray:
    """Which of ``size`` pixels in a row are near each cell (cells, size), boolean: `REACH` cells more on each side."""
    cell, pixel = np.arange(cells)[:, None], np.arange(size)
    return (pixel >= (cell - REACH) * size // cells) & (pixel < -(-(cell + 1 + REACH) * size // cells))


def most_frequent(labels: torch.Tensor, concepts: int, grid: tuple[int, int]) -> np.ndarray:
    """The most frequent label (L, H, W) of each cell's pixels, 0 for none; of equally frequent ones the smallest."""
    planes = F.one_hot(labels.long(), concepts + 1).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(planes, grid).cpu().numpy().argmax(1).astype(np.int16)


def tried(cells: int, stride: int) -> np.ndarray:
    """The middle one of every ``stride`` cells in a row."""
    return np.minimum(np.arange(0, cells, stride) + stride // 2, cells - 1)


def on_all_cells(values: np.ndarray, grid: tuple[int, int], stride: int) -> np.ndarray:
    """Values (…, R, Q) of the cells that were tried as values of all cells (…, H, W)."""
    return values.repeat(stride, -2).repeat(stride, -1)[..., : grid[0], : grid[1]]


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums over counts, nan where the count is 0."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=np.asarray(counts) > 0)
