"""The figure that shows where a concept can go: single cells of images, before and after."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from ganlens.dissection.result import Dissection, generator_of
from ganlens.effects.context import most_frequent
from ganlens.effects.counting import labels_of
from ganlens.images import enlarge, outline, to_uint8
from ganlens.models.editing import insert
from ganlens.plots.sheets import sheet
from ganlens.segmenters.base import Concept, concept_index

ENLARGED = 3  # so that lines around cells are thin
PALE = 0.25  # of a picture without such a cell
Cell = tuple[int, int]


def context_sheet(
    D: Dissection,
    concept: str | Concept,
    maps: np.ndarray,
    *,
    seeds: Sequence[int],
    units: Sequence[int] | None = None,
    k: int = 20,
    level="q0.995",
    elsewhere: Sequence[str | Concept] = ("sky", "tree"),
    ax: Axes | None = None,
) -> Axes:
    """Where a concept can go, and what happens there and elsewhere: one column for each image.

    Parameters
    ----------
    D, concept, units, k, level
        As for `ganlens.where`.
    maps : array (N, H, W)
        Pixels gained near each cell, from `ganlens.where`.
    seeds : sequence of int
        The N images.
    elsewhere : sequence of str or Concept
        What the cells of the last rows show before.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        In the first row, lines are around the cells that gain a quarter of a cell or more. Below, the units are
        switched on in one cell, which has a frame: the best one; of those that show the same concept as the best, the
        one where least is gained; and one of each concept in ``elsewhere``, where most is gained. On the left are the
        pixels gained there, a mean over the images; an image is pale where it has no such cell.
    """
    generator, seeds, maps = generator_of(D), list(seeds), np.asarray(maps)
    grid, size = D.shape[:2], D.shape[2:]
    if maps.shape != (len(seeds), *grid):
        raise ValueError(f"maps of shape {maps.shape} for {len(seeds)} images: expected {(len(seeds), *grid)}")
    edit = insert(D.layer, D.units(concept, k) if units is None else units, level)
    wanted = [concept_index(D.concepts, one, D.origin["segmenter"]) + 1 for one in elsewhere]
    x = generator.generate(seeds)
    labels = [most_frequent(planes, len(D.concepts), grid) for planes in labels_of(D, x).clamp(min=0)]  # N of (L, H, W)
    cells = [chosen_cells(*pair, wanted) for pair in zip(maps, labels, strict=True)]
    least = max(1, size[0] * size[1] // (4 * grid[0] * grid[1]))
    pictures = enlarged(x)
    rows = [[framed(*pair) for pair in zip(pictures, maps >= least, strict=True)]]
    kinds = ["in the best cell", "in another one\nof what that shows", *(f"in one of {one}" for one in elsewhere)]
    said = [("where it can go", f"{least} pixels or more")]
    for row, kind in enumerate(kinds):
        column = [some[row] for some in cells]
        gained = [values[cell] for values, cell in zip(maps, column, strict=True) if cell is not None]
        said.append((kind, f"{np.mean(gained):+.0f} pixels".replace("-", "−") if gained else "none"))
        rows.append([])
        for seed, cell, picture in zip(seeds, column, pictures, strict=True):
            if cell is None:
                rows[-1].append((255 - (255 - picture.astype(float)) * PALE).astype(np.uint8))
                continue
            region = np.zeros(grid)
            region[cell] = 1
            (after,) = enlarged(generator.generate([seed], edit.replace(region=region)))
            rows[-1].append(framed(after, region > 0))
    return sheet([np.stack(row) for row in rows], len(seeds), said, [f"seed {seed}" for seed in seeds], ax=ax)


def chosen_cells(values: np.ndarray, labels: np.ndarray, wanted: Sequence[int]) -> list[Cell | None]:
    """The best cell of a map (H, W); the worst that shows the same; the best one of each label that is wanted."""
    best = np.unravel_index(values.argmax(), values.shape)
    there = labels[:, best[0], best[1]]
    same = np.isin(labels, there[there > 0]).any(0)
    sets = [(same & (values < values.max()), values)] + [((labels == label).any(0), -values) for label in wanted]
    found = [np.unravel_index(np.where(inside, order, np.inf).argmin(), order.shape) for inside, order in sets]
    others = [cell if inside.any() else None for cell, (inside, _) in zip(found, sets, strict=True)]
    return [None if cell is None else (int(cell[0]), int(cell[1])) for cell in (best, *others)]


def enlarged(x: torch.Tensor) -> list[np.ndarray]:
    """Images as pictures, enlarged."""
    return [enlarge(picture, ENLARGED) for picture in to_uint8(x)]


def framed(picture: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """A picture with a line around cells (H, W)."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(picture.shape[:2], cells.shape, strict=True))
    return outline(picture, cells[rows[:, None], columns])
