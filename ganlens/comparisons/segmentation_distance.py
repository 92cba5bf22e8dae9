"""What images show, as percent of their pixels, and how far two sources of images differ in it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ganlens.arguments import LAST_SAMPLE, as_list, check_image_count, check_integer, check_kind, short_repr
from ganlens.comparisons.distances import check_enough, frechet_distance
from ganlens.comparisons.image_sources import BATCH, Pictures, Source, check_same_size, open_source
from ganlens.intervals import CONFIDENCE, middle_of
from ganlens.measuring import measure
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, Segmenter, checked_labels
from ganlens.segmenters.labels import pixels_below, tally
from ganlens.shards import Arrays, check_executor
from ganlens.tables import Tabular, html_table

DRAWS = 400  # of resampled images


@dataclass(eq=False, repr=False, kw_only=True)
class SegmentationDistance(Tabular):
    """How far two sources of images differ in what they show. Made by `segmentation_distance`.

    N and M images, C concepts.

    Attributes
    ----------
    names : tuple of two str
        Of the sources.
    concepts : tuple of Concept
        The segmenter's vocabulary.
    a, b : arrays (N, C), (M, C)
        Percent of each image's pixels that show each concept.
    segmenter : str
        Its name.
    complete : bool
        False where an interrupt left some of the images out.
    """

    index: ClassVar[str] = "concept"

    names: tuple[str, str]
    concepts: tuple[Concept, ...]
    a: np.ndarray
    b: np.ndarray
    segmenter: str
    complete: bool = True

    @cached_property
    def distance(self) -> float:
        """Fréchet distance of the two samples of percentages; larger by about `bias` than that of the sources."""
        return frechet_distance(self.a, self.b)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """99 % interval of ``distance``: bootstrap over the images of both, from a fixed seed.

        Resampling adds noise of its own to a Fréchet distance, so the draws are moved until their mean is ``distance``.
        """
        random = np.random.default_rng(0)
        draws = np.array([frechet_distance(resampled(self.a, random), resampled(self.b, random)) for _ in range(DRAWS)])
        low, high = middle_of(draws - draws.mean() + self.distance)
        return max(float(low), 0.0), float(high)

    @cached_property
    def noise(self) -> np.ndarray:
        """Distances (2 draws,) of two samples of these sizes from one source, first of ``a``, then of ``b``."""
        random = np.random.default_rng(1)
        sizes = len(self.a), len(self.b)
        return np.array(
            [
                frechet_distance(*(resampled(source, random, size) for size in sizes))
                for source in (self.a, self.b)
                for _ in range(DRAWS // 2)
            ]
        )

    @property
    def bias(self) -> float:
        """Mean of the noise: what remains where there is no difference. It halves when both samples are doubled."""
        return float(self.noise.mean())

    @property
    def differ(self) -> bool:
        """Whether ``distance`` is above 99 % of the noise."""
        return bool(self.distance > np.quantile(self.noise, CONFIDENCE))

    # ---- concept by concept

    @property
    def difference(self) -> np.ndarray:
        """Mean percent of pixels in ``a`` less that in ``b`` (C,): above 0 where ``a`` draws too much."""
        return self.a.mean(0) - self.b.mean(0)

    @property
    def relative(self) -> np.ndarray:
        """The difference as a share of the area in ``b`` (C,): -1 where ``a`` draws nothing, inf where ``b`` does."""
        return relative(self.a.mean(0), self.b.mean(0))

    @cached_property
    def resampled_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean percent of pixels (draws, C), (draws, C) of both, bootstrapped over the images from a fixed seed."""
        random = np.random.default_rng(2)
        weights = [random.multinomial(n, np.full(n, 1 / n), 1000) / n for n in (len(self.a), len(self.b))]
        return weights[0] @ self.a, weights[1] @ self.b

    @property
    def difference_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``difference`` (C,), (C,)."""
        a, b = self.resampled_means
        return middle_of(a - b)

    @property
    def relative_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``relative`` (C,), (C,)."""
        return middle_of(np.minimum(relative(*self.resampled_means), np.finfo(float).max))

    def missing(self, below: float = 0.5) -> list[Concept]:
        """Concepts of which ``a`` draws less than a share ``below`` of the area in ``b``; the least drawn first."""
        clearly = self.difference_interval[1] < 0
        order = np.argsort(self.relative, kind="stable")
        return [self.concepts[c] for c in order if self.relative[c] < below - 1 and clearly[c]]

    def rows(self) -> list[dict]:
        """One dict per concept that occurs, what ``a`` lacks most first.

        Percent of pixels in both, their difference and its interval, the difference as a share of ``b``, and the share
        of images with at least one pixel of the concept.
        """
        low, high = self.difference_interval
        means = self.a.mean(0), self.b.mean(0)
        shown = [(areas > 0).mean(0) for areas in (self.a, self.b)]
        order = np.argsort(self.relative, kind="stable")
        return [
            {
                "concept": self.concepts[c].name,
                "category": self.concepts[c].category,
                "percent_a": round(float(means[0][c]), 4),
                "percent_b": round(float(means[1][c]), 4),
                "difference": round(float(self.difference[c]), 4),
                "low": round(float(low[c]), 4),
                "high": round(float(high[c]), 4),
                "relative": round(float(self.relative[c]), 4),
                "images_a": round(float(shown[0][c]), 4),
                "images_b": round(float(shown[1][c]), 4),
            }
            for c in order
            if shown[0][c] or shown[1][c]
        ]

    def __repr__(self) -> str:
        low, high = self.interval
        images = f"{len(self.a):,} and {len(self.b):,} images" + ("" if self.complete else ", incomplete")
        same = f"two samples of one source: {self.bias:.2f}, at most {np.quantile(self.noise, CONFIDENCE):.2f}"
        verdict = "" if self.differ else "; no difference can be told"
        return (
            f"Fréchet segmentation distance of {self.names[0]} and {self.names[1]}: {self.distance:.2f} "
            f"({low:.2f} … {high:.2f}; {images}; {same}{verdict})"
        )

    def _repr_html_(self) -> str:
        rows = self.rows()
        columns = {
            "concept": [row["concept"] for row in rows],
            f"% of pixels, {self.names[0]}": [f"{row['percent_a']:.2f}" for row in rows],
            f"% of pixels, {self.names[1]}": [f"{row['percent_b']:.2f}" for row in rows],
            "difference": [f"{row['difference']:+.2f} ({row['low']:+.2f} … {row['high']:+.2f})" for row in rows],
            "relative": [f"{row['relative']:+.0%}" for row in rows],
            "images that show it": [f"{row['images_a']:.0%} – {row['images_b']:.0%}" for row in rows],
        }
        return html_table(repr(self), columns)


def segmentation_distance(
    a: Source,
    b: Source,
    segmenter: Segmenter,
    *,
    n: int = 1000,
    sample: int = 0,
    names: Sequence[str] | None = None,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> SegmentationDistance:
    """Measure how far two sources of images differ in what they show, and what one of them draws too little or never.

    The Fréchet segmentation distance (Bau et al., ICCV 2019): every image becomes one vector, the percent of its pixels
    that each concept has, and two normal distributions fitted to these vectors are compared. Distances compare with
    one another only for the same segmenter and the same numbers of images.

    Parameters
    ----------
    a, b : Generator, Tensor, array, path or callable
        A generator, whose images of the sample are taken; images (N, 3, Y, X) in [-1, 1] or uint8 pictures
        (N, Y, X, 3); a folder of image files of equal size; or a function from seeds to images or pictures, such as
        the painter's.
    segmenter : Segmenter
        What names the pixels of both.
    n : int
        Images of each; of given images and folders the first ``n``, or as many as there are.
    sample : int
        The sample of ``a``; ``b`` gets the next one, so that a generator can be compared with itself.
    names : tuple of two str, optional
        What the sources are called.
    progress : bool or callable
        A progress bar, or a function called with (images done, of how many): of the source that has more.
    executor, shards
        Who works, as for `ganlens.dissect`; the result is the same to the bit.

    Returns
    -------
    SegmentationDistance
        After an interrupt that of the images seen so far, marked as incomplete.

    Raises
    ------
    ValueError
        Fewer images than the covariance of the concepts needs, images of unequal size, no images.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> F = gl.segmentation_distance(G, G, S, n=32, progress=False)
    >>> F.differ
    False
    """
    check_executor(executor, shards)
    check_kind("segmenter", segmenter, Segmenter, "one from gl.load_segmenter or gl.Segmenter.wrap")
    n, sample = check_image_count(n), check_integer("sample", sample, 0, LAST_SAMPLE - 1)
    names = names if names is None else tuple(as_list("names", names, "two texts"))
    if names is not None and (len(names) != 2 or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"names={short_repr(names)}: expected two texts")
    sources = [open_source(source, start * 1_000_000, n) for source, start in ((a, sample), (b, sample + 1))]
    first, second = names or (name_of(a, "a"), name_of(b, "b"))
    both = first, second
    for source, name in zip(sources, both, strict=True):
        check_enough(source.count, len(segmenter.concepts), f"images of {name}", "give more images (n=…)")
    longer = max(source.count for source in sources)
    with steps(progress, longer, "segment") as step:
        things = sources, both, segmenter
        found = measure(areas_of_both, things, range(longer), step, BATCH, executor, shards)
    check_same_size(found["size"], both)
    a, b = found["a"], found["b"]
    complete = [len(a), len(b)] == [source.count for source in sources]
    if not complete and min(len(a), len(b)) < 2:
        raise KeyboardInterrupt
    return SegmentationDistance(
        names=both, concepts=segmenter.concepts, a=a, b=b, segmenter=segmenter.name, complete=complete
    )


def areas_of_both(
    sources: list[Pictures], names: tuple[str, str], segmenter: Segmenter, numbers: range, go_on
) -> Arrays:
    """Percent of pixels (N, C), (M, C) of the same numbers of both sources, and the sizes (S, 2) of their images."""
    found, sizes = [], []
    for source in sources:
        some = numbers[: max(source.count - numbers.start, 0)]
        x = source.read(some) if some else None
        found.append(np.empty((0, len(segmenter.concepts))) if x is None else areas_of(segmenter, x))
        sizes += [] if x is None else [tuple(x.shape[2:])]
    check_same_size(sizes, names)
    go_on(len(numbers))
    return {"a": found[0], "b": found[1], "size": np.array(sizes)}


@torch.no_grad()
def areas_of(segmenter: Segmenter, x: torch.Tensor) -> np.ndarray:
    """Percent of the pixels (N, C) of images (N, 3, Y, X) that show each concept."""
    labels = checked_labels(segmenter, x, ignored=True)
    inside = pixels_below(None, labels)
    pixels = inside.flatten(1).sum(1, keepdim=True).clamp(min=1)
    return tally(labels, inside, len(segmenter.concepts)).cpu().numpy() * (100 / pixels.cpu().numpy())


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share (a - b) / b; inf where b is 0 and a is not, 0 where both are."""
    otherwise = np.where(a > 0, np.inf, 0.0)
    return np.divide(a - b, b, out=otherwise, where=b > 0)


def resampled(areas: np.ndarray, random: np.random.Generator, size: int | None = None) -> np.ndarray:
    """As many rows drawn with replacement, or ``size`` of them."""
    return areas[random.integers(0, len(areas), size or len(areas))]


def name_of(source: Source, letter: str) -> str:
    """What a source is called where no name was given."""
    if isinstance(source, str | Path):
        return Path(source).name
    return getattr(source, "name", None) or getattr(source, "__name__", None) or f"images {letter}"
