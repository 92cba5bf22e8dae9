"""What units draw where they are switched on: gains of concepts in chosen or random cells, beside random units."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from ganlens.arguments import check_image_count, check_sample, short_repr
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.ablation import units_or_best
from ganlens.effects.counting import BATCH, check_draws, count_under, labels_of, random_sets, seeds_of
from ganlens.intervals import middle_of, resamples
from ganlens.measuring import measure
from ganlens.models.editing import Edit, ablate, as_region, insert
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, concept_index
from ganlens.shards import Arrays
from ganlens.statistics import upsample


@dataclass(frozen=True, eq=False, kw_only=True)
class Gain:
    """Pixels of every concept that units switched on bring, per pixel under the cells where they are switched on.

    N images, C concepts, R random sets. The gain is Σ (pixels with - pixels without) / Σ (pixels under the cells), over
    all images: 1 where as much of the concept appears as there was room for, negative where the concept shrinks.

    Attributes
    ----------
    layer, units : str, tuple of int
        What was edited.
    concept, concepts : Concept, tuple of Concept
        The concept asked for, and the vocabulary.
    area : array (N,)
        Pixels under the cells of each image.
    without, present : arrays (N, C)
        Pixels of each concept without the units (unedited, or switched off: see ``against``), and with them.
    random_without, random_present : arrays (R, N, C)
        The same for random sets of as many units, in the same cells.
    against : {"unedited", "ablated"}
        What the images with the units are compared with.
    complete : bool
        False where an interrupt left some of the images out.
    """

    layer: str
    units: tuple[int, ...]
    concept: Concept
    concepts: tuple[Concept, ...]
    area: np.ndarray
    without: np.ndarray
    present: np.ndarray
    random_without: np.ndarray
    random_present: np.ndarray
    against: str
    complete: bool = True

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.area)

    @property
    def gained(self) -> np.ndarray:
        """Gain of each concept (C,)."""
        return (self.present - self.without).sum(0) / self.area.sum()

    @property
    def random(self) -> np.ndarray:
        """The same for each random set (R, C)."""
        return (self.random_present - self.random_without).sum(1) / self.area.sum()

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``gained`` (C,), (C,): bootstrap over images, 1,000 draws from a fixed seed."""
        draws = resamples(self.n)
        return middle_of((draws @ (self.present - self.without)) / (draws @ self.area)[:, None])

    def __repr__(self) -> str:
        i = self.concepts.index(self.concept)
        low, high = (end[i] for end in self.interval)
        random = ", ".join(f"{r:+.2f}" for r in self.random[:, i])
        random = f"; as many random units: {random}" if random else ""
        images = f"{self.n} images" + ("" if self.complete else ", incomplete")
        return (
            f"{len(self.units)} units of {self.layer} switched on, against {self.against}: {self.gained[i]:+.2f} of "
            f"{self.concept} per pixel edited ({low:+.2f} … {high:+.2f}, {images}){random}"
        )


def insertion_effect(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    *,
    k: int = 20,
    n: int = 200,
    level: float | str = "q0.995",
    region=None,
    patch: int | None = None,
    draws: int = 3,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Gain:
    """Switch units on in some cells, and count which pixels of which concept appear anywhere in the image.

    Random units at a high level are no neutral control: they add texture that may read as this or that concept. Look
    at several draws, and at the units of other concepts: ``insertion_effect(D, "tree", D.units("door"))``.

    Parameters
    ----------
    D, concept, units, k, n, draws, sample, executor, shards
        As for `ablation_effect`; the places follow from the sample, too.
    level : float or str
        What units are forced to: a number, ``"mean"``, a quantile of each unit, or ``"presence"``, the mean of each
        unit where the concept is present.
    region : array-like (H, W), optional
        Cells in which units are switched on, in all images alike.
    patch : int, optional
        Where no region is given: side of a square of cells, at a random place in each image; a quarter of the layer's
        side by default. One cell alone, as published, does little where its neighbours outvote it.

    Returns
    -------
    Gain
        Of this and of all other concepts, against the unedited images.

    Raises
    ------
    ValueError
        More units than the layer has; a region or patch that does not fit it; or a concept that the dissection's images
        do not show, where units or level follow from them.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> gl.insertion_effect(D, "tree", k=5, n=4, patch=3, draws=2, progress=False).gained.shape
    (13,)
    """
    i, sets, levels = prepare(D, concept, units, k, draws, level)
    regions = places(D, n, region, patch, sample)
    edits = [inserted(D.layer, some, levels, regions) for some in sets]
    counted = count_under(D, edits, n, sample, progress, None, executor, shards)
    before, after = counted.before, counted.after
    random_before = np.broadcast_to(before, (draws, *before.shape))
    per_cell = counted.pixels / regions[0].size
    area = np.array([np.count_nonzero(region) for region in regions[: len(before)]]) * per_cell
    return Gain(
        layer=D.layer,
        units=tuple(sets[0]),
        concept=D.concepts[i],
        concepts=D.concepts,
        area=area,
        without=before,
        present=after[0],
        random_without=random_before,
        random_present=after[1:],
        against="unedited",
        complete=counted.complete,
    )


def average_causal_effect(
    D: Dissection,
    concept: str | Concept,
    units: Sequence[int] | None = None,
    *,
    k: int = 20,
    n: int = 200,
    level: float | str = "q0.995",
    region=None,
    patch: int | None = None,
    draws: int = 3,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Gain:
    """Measure the average causal effect of units on concepts (Bau et al., ICLR 2019, eq. 5 and 6).

    E[s(units forced on at P)] - E[s(units forced to zero at P)], over images and places P, where s says which pixels
    show the concept. Both are read where the edit is: at the pixels under P.

    Parameters
    ----------
    D, concept, units, k, n, level, region, patch, draws, sample, executor, shards
        As for `insertion_effect`.

    Returns
    -------
    Gain
        The effect on every concept, from -1 to 1: ``present`` with the units on, ``without`` with the units off.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> effect = gl.average_causal_effect(D, "tree", k=5, n=4, draws=0, progress=False)
    >>> effect.against, bool(abs(effect.gained).max() <= 1)
    ('ablated', True)
    """
    i, sets, levels = prepare(D, concept, units, k, draws, level)
    regions = places(D, n, region, patch, sample)
    edits = [inserted(D.layer, some, levels, regions) for some in sets]
    edits += [[ablate(D.layer, some, where) for where in regions] for some in sets]
    counted = count_under(D, edits, n, sample, progress, regions, executor, shards)
    on, off = np.split(counted.after, 2)
    return Gain(
        layer=D.layer,
        units=tuple(sets[0]),
        concept=D.concepts[i],
        concepts=D.concepts,
        area=counted.pixels,
        without=off[0],
        present=on[0],
        random_without=off[1:],
        random_present=on[1:],
        against="ablated",
        complete=counted.complete,
    )


def prepare(D: Dissection, concept, units, k, draws, level) -> tuple[int, list[list[int]], np.ndarray]:
    """The concept's index, the set of units and random ones of its size, and the levels of all units (U,)."""
    i = concept_index(check_dissection(D).concepts, concept, D.origin["segmenter"])
    draws = check_draws(draws)
    units = units_or_best(D, D.concepts[i], units, k)
    return i, [units, *random_sets(D, len(units), draws)], levels_for(D, D.concepts[i], level)


def inserted(layer: str, units: list[int], levels: np.ndarray, regions: Sequence[np.ndarray]) -> list[Edit]:
    """One edit for each image, in its own region."""
    edit = insert(layer, units, levels[units])
    return [edit.replace(region=region) for region in regions]


def places(D: Dissection, n: int, region, patch: int | None, sample: int | None) -> list[np.ndarray]:
    """Cells (H, W) of each of n images: the given region, or a square of ``patch`` cells a side at a random place."""
    _, height, width = generator_of(D).check_layer(D.layer)
    n, sample = check_image_count(n), check_sample(sample, D.sample + 1)
    if region is not None:
        region = np.array(as_region(region))
        if np.shape(region) != (height, width):
            raise ValueError(f"region of shape {np.shape(region)}: {D.layer} has {height} x {width} cells")
        if not np.any(region):
            raise ValueError("region has no cell: expected at least one weight above 0")
        return [region] * n
    patch = patch_side(D, patch)
    random = np.random.default_rng([sample, patch])
    corners = random.integers(0, [height - patch + 1, width - patch + 1], (n, 2))
    regions = np.zeros((n, height, width))
    for where, (y, x) in zip(regions, corners, strict=True):
        where[y : y + patch, x : x + patch] = 1
    return list(regions)


def patch_side(D: Dissection, patch: int | None) -> int:
    """Side of a square of cells, by default a quarter of the layer's; ValueError if it does not fit."""
    smaller = min(generator_of(D).check_layer(D.layer)[1:])
    if patch is not None and (isinstance(patch, bool) or not isinstance(patch, Integral) or not 1 <= patch <= smaller):
        side = f"from 1 to {smaller}, the side of {D.layer}"
        raise ValueError(f"patch={short_repr(patch)}: expected a number of cells {side}")
    return max(1, smaller // 4) if patch is None else patch


def levels_for(D: Dissection, concept: Concept, level: float | str) -> np.ndarray:
    """The level (U,) that stands behind a number, a name, or "presence"."""
    if isinstance(level, str) and level == "presence":
        return presence_levels(D, concept)
    units = range(len(D.iou))
    return np.broadcast_to(generator_of(D).level(insert(D.layer, units, level)).cpu().numpy(), len(units))


def presence_levels(
    D: Dissection, concept: Concept, n: int = 256, progress: bool | Callable[[int, int], None] = False
) -> np.ndarray:
    """Mean of each upsampled unit (U,) over the pixels that show a concept, in the dissection's first ``n`` images."""
    i, n = concept_index(D.concepts, concept, D.origin["segmenter"]), min(n, D.n)
    D.attached("segmenter")
    with steps(progress, n, "presence") as step:
        found = measure(presence_of_units, (D, i), seeds_of(D.sample, n), step, BATCH)
        if step.stopped:
            raise KeyboardInterrupt  # a level of a part of the images would be another level
    pixels = found["pixels"].sum()
    if not pixels:
        raise ValueError(f"{concept} is in none of the {n} images: give a level, for example 'q0.995'")
    return (found["activation"].sum(0) / pixels).astype(np.float32)


@torch.no_grad()
def presence_of_units(D: Dissection, i: int, seeds: Sequence[int], go_on) -> Arrays:
    """Activation (1, U) summed over the pixels that show concept i, and their number (1,), in a batch of images."""
    generator = generator_of(D)
    x, features = generator.read(generator.latents(seeds), [D.layer])
    shown = (labels_of(D, x) == i + 1).any(1, keepdim=True)  # (N, 1, h, w)
    _, _, *grid = features[D.layer].shape
    cells = downsampled(shown, (grid[0], grid[1]))
    activation = (features[D.layer] * cells).double().sum((0, 2, 3), keepdim=True)[..., 0, 0]
    go_on(len(seeds))
    return {"activation": activation.cpu().numpy(), "pixels": shown.sum()[None].cpu().numpy()}


def downsampled(mask: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
    """The adjoint of `ganlens.statistics.upsample`: how much each cell (N, 1, H, W) counts in the pixels of a mask."""
    rows, columns = (
        upsample(torch.eye(count, device=mask.device)[None, None], (pixels, count))[0, 0]
        for count, pixels in zip(cells, mask.shape[2:], strict=True)
    )
    return rows.T @ mask.float() @ columns
