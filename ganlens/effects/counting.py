"""Count the pixels of every concept before and after edits, each unedited image made and segmented once.

Also what counts are compared with: random sets of units, and bootstrap samples of the images.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import MOST_IMAGES, check_image_count, check_sample, short_repr
from ganlens.dissection.result import Dissection, generator_of
from ganlens.measuring import measure
from ganlens.models.editing import Edit
from ganlens.models.network import ImageNetwork
from ganlens.models.opened import OpenedGenerator
from ganlens.progress import steps
from ganlens.segmenters.base import checked_labels
from ganlens.segmenters.labels import pixels_below, tally
from ganlens.shards import Arrays, check_executor

MOST_DRAWS = 1000  # random sets that anything is compared with
BATCH = 32  # images that are resumed together


class Counted(NamedTuple):
    """Pixels of N images before and after each of E edits."""

    before: np.ndarray  # (N, C) pixels of each concept
    after: np.ndarray  # (E, N, C)
    changed: np.ndarray  # (E, N, C) did not show the concept, and show something else than before
    pixels: np.ndarray  # (N,) all that were looked at
    complete: bool


class Unedited(NamedTuple):
    """Images stopped at the layer, and what they show."""

    opened: OpenedGenerator
    labels: torch.Tensor  # (N, L, h, w)
    inside: torch.Tensor  # (N, 1, h, w) pixels that count
    before: np.ndarray  # (N, C) pixels of each concept
    pixels: np.ndarray  # (N,) all that count


def count_under(
    D: Dissection,
    edits: Sequence[Edit | Sequence[Edit]],
    n: int,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    regions: Sequence[np.ndarray] | None = None,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Counted:
    """Count pixels before and after edits; an interrupt gives the batches of images that are finished.

    Parameters
    ----------
    edits : sequence of E
        Each an edit of all images, or N edits, one for each image.
    n, sample
        Size of the sample, and which; by default the one after the dissection's.
    regions : sequence of N arrays (H, W), optional
        Cells of each image under which pixels are counted; all by default.
    executor, shards
        Who works, as for `ganlens.dissect`.
    """
    check_executor(executor, shards)
    for edit in edits:
        for one in [edit] if isinstance(edit, Edit) else edit:
            generator_of(D).check_edit(one)
    seeds, cost = seeds_of(D.sample + 1 if sample is None else sample, n), len(edits) + 1
    edits = [on_levels(generator_of(D), edit) if isinstance(edit, Edit) else edit for edit in edits]
    with steps(progress, n * cost, "edit") as step:
        things = D, edits, regions, seeds.start
        found = measure(count_batch, things, seeds, step, BATCH, executor, shards, cost=cost)
    whole = len(found["before"]) == n
    after, changed = (np.moveaxis(found[name], 1, 0) for name in ("after", "changed"))
    return Counted(found["before"], after, changed, found["pixels"], whole)


def on_levels(G: ImageNetwork, edit: Edit) -> Edit:
    """An edit with its level in numbers where it was named, so that no worker has to find it out."""
    return edit.replace(level=G.level(edit).tolist()) if isinstance(edit.level, str) else edit


def count_batch(D: Dissection, edits: Sequence, regions, first: int, seeds: range, go_on) -> Arrays | None:
    """The fields of `Counted` for one batch of images, images first; None if interrupted before its end."""
    own = slice(seeds[0] - first, seeds[-1] + 1 - first)
    images = unedited(D, seeds, None if regions is None else regions[own])
    after, changed = np.zeros((2, len(seeds), len(edits), len(D.concepts)), int)
    for row, edit in enumerate(edits):
        if not go_on(len(seeds)):
            return None
        counts = count_edit(D, images, edit if isinstance(edit, Edit) else edit[own])
        after[:, row], changed[:, row] = counts
    go_on(len(seeds))
    return {"before": images.before, "after": after, "changed": changed, "pixels": images.pixels}


def unedited(D: Dissection, seeds: range, regions: Sequence[np.ndarray] | None = None) -> Unedited:
    """Make and segment images once, for any number of `count_edit`."""
    opened = generator_of(D).open(D.layer, seeds)
    labels = labels_of(D, opened.image)
    inside = pixels_below(regions, labels)
    before = tally(labels, inside, len(D.concepts)).cpu().numpy()
    return Unedited(opened, labels, inside, before, inside.flatten(1).sum(1).cpu().numpy())


def count_edit(D: Dissection, images: Unedited, edit: Edit | Sequence[Edit]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each concept after an edit (N, C), and those that did not show it and have changed (N, C)."""
    labels = labels_of(D, edited_images(D, images.opened, edit))
    different = (labels != images.labels).any(1, keepdim=True) & images.inside & pixels_below(None, labels)
    changed = different.flatten(1).sum(1, keepdim=True) - tally(images.labels, different, len(D.concepts))
    return tally(labels, images.inside, len(D.concepts)).cpu().numpy(), changed.cpu().numpy()


def edited_images(D: Dissection, opened: OpenedGenerator, edit: Edit | Sequence[Edit]) -> torch.Tensor:
    """Images (N, 3, Y, X) with an edit of the opened layer, or each with its own of N edits."""
    generator = generator_of(D)
    with torch.no_grad():
        if isinstance(edit, Edit):
            return opened.resume(generator.edited_features(opened.features, [edit]))
        pairs = zip(opened.features.split(1), edit, strict=True)
        return opened.resume(torch.cat([generator.edited_features(r, [own]) for r, own in pairs]))


def seeds_of(sample: int, n: int) -> range:
    """The seeds of a sample of n images; ValueError if there is no such sample."""
    n, first = check_image_count(n), check_sample(sample, 0) * MOST_IMAGES
    return range(first, first + n)


def samples(sample: int, n: int, batch: int) -> Iterator[range]:
    """The seeds of a sample of n images, batch by batch; ValueError if there is none."""
    seeds = seeds_of(sample, n)
    yield from (seeds[start : start + batch] for start in range(0, n, batch))


def count_pixels(D: Dissection, x: torch.Tensor) -> np.ndarray:
    """Pixels of each concept (N, C) in images (N, 3, Y, X)."""
    labels = labels_of(D, x)
    return tally(labels, pixels_below(None, labels), len(D.concepts)).cpu().numpy()


def labels_of(D: Dissection, x: torch.Tensor) -> torch.Tensor:
    """Label planes (N, L, h, w) of images (N, 3, Y, X)."""
    return checked_labels(D.attached("segmenter"), x, ignored=True)


# ---- what counts are compared with


def random_sets(D: Dissection, k: int, draws: int) -> list[list[int]]:
    """Random sets of ``k`` units to compare with, always the same."""
    draws = check_draws(draws)
    random = np.random.default_rng(0)
    return [random.choice(len(D.iou), k, replace=False).tolist() for _ in range(draws)]


def check_draws(draws: int) -> int:
    """A number of random sets as an int; ValueError otherwise."""
    if isinstance(draws, bool) or not isinstance(draws, Integral) or not 0 <= draws <= MOST_DRAWS:
        most = f"a number of random sets up to {MOST_DRAWS:,}"
        raise ValueError(f"draws={short_repr(draws)}: expected {most}, or 0 for none")
    return int(draws)
