"""Where a concept can go: its units are switched on in one cell after another, and what appears is counted.

What the canvas paints into a cell and what is measured here is the same edit, applied by the same code.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from numbers import Integral

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.arguments import MOST_IMAGES, check_image_count, check_integer, check_sample, short_repr
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.ablation import units_or_best
from ganlens.effects.context_result import ARRAYS, Context, on_all_cells
from ganlens.effects.counting import check_draws, labels_of, random_sets, seeds_of
from ganlens.effects.insertion import presence_levels
from ganlens.measuring import measure
from ganlens.models.bit_exact import GRANULE
from ganlens.models.editing import Edit, insert, quantile_of
from ganlens.models.latents import grown
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, concept_index
from ganlens.segmenters.labels import pixels_below, tally
from ganlens.shards import Arrays, check_executor

REACH = 1  # cells on each side of the edited one that count as near it


def context(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    *,
    k: int = 20,
    n: int = 200,
    level="q0.995",
    sample: int | None = None,
    stride: int = 1,
    batch_size: int = 32,
    progress: bool | Callable[[int, int], None] = True,
    draws: int = 3,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Context:
    """Where can it go? Switch a concept's units on in one cell at a time, and count what appears (Bau et al., 2020).

    An interrupt returns the images that were done, marked as incomplete.

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
        What the units are forced to: numbers; or, in the dissection's sample, a quantile of each unit, its ``"mean"``,
        or by ``"presence"`` its mean where the concept is present.
    sample : int, optional
        Which sample; by default the one after the dissection's, so that no image has been seen before.
    stride : int
        Try every ``stride``-th row and column of cells only.
    batch_size : int
        Trials per pass.
    progress : bool or callable
        A bar, nothing, or a function of (images done, of how many), called after each image.
    draws : int
        Sets of as many random units to compare with; they take turns, one in each image, which doubles the trials. 0
        for none.
    executor, shards
        Who works, as for `ganlens.dissect`; shards are ranges of images, and the result is the same to the bit.

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
    check_numbers(n=n, batch_size=batch_size)
    n, sample = check_image_count(n), check_sample(sample, check_dissection(D).sample + 1)
    check_executor(executor, shards)
    (edit, *random), target = insertions(D, concept, units, k, level, stride, draws)
    with steps(progress, n, "context") as step:
        things = D, edit, random, target, stride, batch_size
        found = measure(tried_in, things, seeds_of(sample, n), step, 1, executor, shards)
    before, gained, change = (found[name] for name in ARRAYS)
    return Context(
        edit=edit,
        concepts=D.concepts,
        target=target,
        grid=D.shape[:2],
        size=D.shape[2:],
        stride=int(stride),
        sample=int(sample),
        complete=len(before) == n,
        origin=D.origin,
        before=before,
        gained=gained[:, 0],
        change=change[:, 0],
        random_units=tuple(other.units for other in random),
        random_gained=gained[:, 1] if draws else None,
    )


def where(
    D: Dissection,
    concept: str | Concept,
    seed: int,
    *,
    units: Sequence[int] | None = None,
    k: int = 20,
    level="q0.995",
    stride: int = 1,
    batch_size: int = 32,
) -> np.ndarray:
    """Say of one image, before painting, where the concept will appear.

    Parameters
    ----------
    seed : int
        Which image.
    D, concept, units, k, level, stride, batch_size
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
    check_numbers(batch_size=batch_size)
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    edits, target = insertions(D, concept, units, k, level, stride)
    return on_all_cells(trials(D, edits, target, stride, seed, batch_size)[1][0], D.shape[:2], stride)


# ---- trials: an edit of one cell of one image after another


def insertions(D: Dissection, concept, units, k: int, level, stride: int, draws: int = 0) -> tuple[list[Edit], int]:
    """Edits of all cells, of the concept's units and of random sets, and the concept's place in the vocabulary.

    ValueError if they cannot be made.
    """
    check_dissection(D).attached("segmenter")
    draws = check_draws(draws)
    target = concept_index(D.concepts, concept, D.origin["segmenter"])
    check_numbers(stride=stride)
    if stride > min(D.shape[:2]):
        raise ValueError(f"stride={stride}: {D.layer} has {D.shape[0]} x {D.shape[1]} cells; expected less")
    units = units_or_best(D, D.concepts[target], units, k)
    named = named_levels(D, D.concepts[target], level) if isinstance(level, str) else None
    sets = [units, *random_sets(D, len(units), draws)]
    edits = [insert(D.layer, some, level if named is None else named[some]) for some in sets]
    generator_of(D).check_edit(edits[0])
    return edits, target


def named_levels(D: Dissection, concept: Concept, level: str) -> np.ndarray | torch.Tensor:
    """The level (U,) behind a name, in the dissection's sample."""
    if level == "presence":
        return presence_levels(D, concept)
    q = quantile_of(level)
    return D.levels.mean() if q is None else D.levels.quantile(q)


def check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name}={short_repr(number)}: expected a whole number, at least 1")


def trials(
    D: Dissection, edits: Sequence[Edit], target: int, stride: int, seed: int, batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What appears in one image under each of E edits (all of one layer) of one cell at a time.

    ``before`` (R, Q, L), ``gained`` (E, R, Q) and ``change`` (E, R, Q, C), as `ganlens.effects.context.Context` has
    them. The image is made and segmented once.
    """
    G, grid = generator_of(D), D.shape[:2]
    rows, columns = (tried(cells, stride) for cells in grid)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    found = []
    with torch.no_grad():
        opened = G.open(D.layer, seed)
        labels = labels_of(D, grown(opened.image))[:1].clamp(min=0)
        for edit in edits:
            forced, parts = G.edited_features(opened.features, [edit]), []
            for some in in_granules(len(y), batch):
                image = opened.resume(in_one_cell(forced, opened.features, y[some], x[some]))
                parts.append(
                    count(labels_of(D, image).clamp(min=0), labels, len(D.concepts), target, grid, y[some], x[some])
                )
            found.append([np.concatenate(part)[: len(y)] for part in zip(*parts, strict=True)])
    gained, change = (np.stack(part) for part in zip(*found, strict=True))
    shape = len(edits), len(rows), len(columns)
    before = most_frequent(labels[0], len(D.concepts), grid)[:, rows][:, :, columns]
    return np.moveaxis(before, 0, -1), gained.reshape(shape), change.reshape(*shape, -1)


def tried_in(
    D: Dissection, edit: Edit, random: list[Edit], target: int, stride: int, batch: int, seeds: Sequence[int], go_on
) -> Arrays:
    """What `trials` finds in an image under an edit and, in turns, under one of the random ones."""
    (seed,) = seeds
    edits = [edit, random[seed % MOST_IMAGES % len(random)]] if random else [edit]
    found = trials(D, edits, target, stride, seed, batch)
    go_on(1)
    return {name: array[None] for name, array in zip(ARRAYS, found, strict=True)}


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

    Of the target near the cell (M,), of all concepts in the image (M, C).
    """
    both = [torch.from_numpy(neighbourhood(*pair)).to(after.device) for pair in zip(grid, after.shape[2:], strict=True)]
    near = both[0][y][:, :, None] & both[1][x][:, None]  # (M, h, w)
    target += 1
    there, was = ((labels == target).any(1) & near for labels in (after, before))
    gained = there.sum((1, 2)) - was.sum((1, 2))
    after, before = (tally(labels.long(), pixels_below(None, labels), concepts) for labels in (after, before))
    return gained.int().cpu().numpy(), (after - before).int().cpu().numpy()


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
