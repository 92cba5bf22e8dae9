"""Which unit of one network is which unit of another: an optimal one-to-one assignment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ganlens import arguments
from ganlens.arguments import MOST_IMAGES, close_match
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.images import strip
from ganlens.measuring import measure
from ganlens.progress import steps
from ganlens.shards import Arrays
from ganlens.statistics import upsample
from ganlens.tables import Tabular, html_table

BATCH = 16
NUMBERS = 2**23  # that are held in double precision at a time
WAYS = ("activation", "concepts")


class CrossMoments:
    """Sums from which the correlation of every unit of one layer with every unit of another follows.

    U and V units. The same images are paired, and for a level of chance each image with another one of its batch. Sums
    of real numbers are merged up to rounding, which is no `ganlens.statistics.Statistic`.
    """

    SUMS = ("count", "sum_a", "sum_b", "square_a", "square_b", "both", "apart")

    def __init__(self, units_a: int, units_b: int):
        self.count = torch.zeros((), dtype=torch.int64)
        self.sum_a, self.square_a = torch.zeros(2, units_a, dtype=torch.float64)
        self.sum_b, self.square_b = torch.zeros(2, units_b, dtype=torch.float64)
        self.both, self.apart = torch.zeros(2, units_a, units_b, dtype=torch.float64)

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take in features (N, U, H, W) and (N, V, H', W') of the same images; the coarser ones are upsampled."""
        size = max(a.shape[2], b.shape[2]), max(a.shape[3], b.shape[3])
        together = max(1, NUMBERS // ((a.shape[1] + 2 * b.shape[1]) * size[0] * size[1]))
        for some in zip(*(r.split(together) for r in (a, b, b.roll(1, 0))), strict=True):
            self._add(*(in_columns(r, size) for r in some))

    def _add(self, a: torch.Tensor, b: torch.Tensor, other: torch.Tensor) -> None:
        """Take in values (U, P), (V, P) of the same pixels, and those (V, P) of other images."""
        self.count += a.shape[1]
        for name, values in (("sum_a", a), ("sum_b", b), ("square_a", a.square()), ("square_b", b.square())):
            getattr(self, name).add_(values.sum(1))
        self.both += a @ b.T
        self.apart += a @ other.T

    def merge(self, other: "CrossMoments") -> "CrossMoments":
        """Take in the sums of other images; returns ``self``."""
        for name in self.SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def correlation(self, products: torch.Tensor) -> np.ndarray:
        """Correlation (U, V) from sums of products (U, V); 0 for units that never change."""
        count = max(int(self.count), 1)
        variances = []
        for total, square in ((self.sum_a, self.square_a), (self.sum_b, self.square_b)):
            variance = square - total.square() / count
            variances.append(torch.where(variance > 1e-10 * square, variance, torch.inf))
        covariance = products - self.sum_a[:, None] * self.sum_b / count
        return (covariance / (variances[0][:, None] * variances[1]).sqrt()).clamp(-1, 1).numpy()


def in_columns(features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Features (N, U, H, W) on a grid of this size, as one row of values (U, P) for each unit."""
    r = features.float() if tuple(features.shape[2:]) == size else upsample(features.float(), size)
    return r.double().transpose(0, 1).flatten(1).cpu()


@dataclass(eq=False, repr=False, kw_only=True)
class UnitMatches(Tabular):
    """Units of two layers, matched one to one. Made by `match_units`.

    U and V units, K = min(U, V) pairs.

    Attributes
    ----------
    a, b : Dissection
        Of the two layers.
    by : {"activation", "concepts"}
        What their similarity is.
    similarity : array (U, V)
        Of every unit of one with every unit of the other.
    chance : float
        Mean similarity of matched pairs where there is nothing to match: between different images by activation, of
        all pairs of units by concepts.
    n, complete : int, bool
        Images seen, 0 by concepts, and whether these are all that were asked for.
    moments : CrossMoments or None
        The sums, to go on from.
    """

    a: Dissection
    b: Dissection
    by: str
    similarity: np.ndarray
    chance: float
    n: int = 0
    complete: bool = True
    moments: CrossMoments | None = None
    sample: int | None = None

    @cached_property
    def pairs(self) -> np.ndarray:
        """Matched units (K, 2), the most similar pair first: the assignment with the highest total similarity."""
        rows, columns = assign(self.similarity)
        order = np.argsort(-self.similarity[rows, columns], kind="stable")
        return np.stack([rows, columns], 1)[order]

    @property
    def values(self) -> np.ndarray:
        """Similarity of the matched pairs (K,), in their order."""
        return self.similarity[self.pairs[:, 0], self.pairs[:, 1]]

    @property
    def mean(self) -> float:
        """Mean similarity of the matched pairs."""
        return float(self.values.mean())

    @property
    def same(self) -> float:
        """Share of the pairs with an interpretable unit whose two labels are the same concept; nan without any."""
        judged = [row["same"] for row in self.rows() if row["same"] is not None]
        return float(np.mean(judged)) if judged else float("nan")

    def partner(self, unit: int) -> int | None:
        """The unit of ``b`` that a unit of ``a`` is matched with; None where it is left over."""
        self.a.check_units([unit])
        found = self.pairs[self.pairs[:, 0] == unit, 1]
        return int(found[0]) if len(found) else None

    def rows(self) -> list[dict]:
        """One dict per pair, the most similar first: units, similarity, what they draw, and whether it is the same.

        ``same`` is None where neither unit is interpretable.
        """
        rows = []
        for (i, j), value in zip(self.pairs.tolist(), self.values, strict=True):
            one, other = self.a.labels[i], self.b.labels[j]
            draws = [label.concept if label.interpretable else None for label in (one, other)]
            rows.append(
                {
                    "unit_a": i,
                    "unit_b": j,
                    "similarity": round(float(value), 6),
                    "draws_a": str(draws[0] or ""),
                    "draws_b": str(draws[1] or ""),
                    "same": draws[0] == draws[1] if any(draws) else None,
                }
            )
        return rows

    def __repr__(self) -> str:
        names = [f"{D.layer} of {D.origin['generator']}" for D in (self.a, self.b)]
        seen = f"{self.n} images" + ("" if self.complete else ", incomplete") if self.by == "activation" else "IoU"
        same = "" if np.isnan(self.same) else f"; {self.same:.0%} of the interpretable ones draw the same"
        what = "correlation" if self.by == "activation" else "similarity of the concepts"
        return (
            f"{len(self.pairs)} units of {names[0]} matched with {names[1]}: mean {what} {self.mean:.2f} "
            f"(chance {self.chance:.2f}; {seen}){same}"
        )

    def _repr_html_(self) -> str:
        rows = [row for row in self.rows() if row["same"] is not None][:8]
        columns = {
            "units": [f"{row['unit_a']} – {row['unit_b']}" for row in rows],
            "similarity": [f"{row['similarity']:.3f}" for row in rows],
            "draw": [" – ".join(dict.fromkeys([row["draws_a"] or "?", row["draws_b"] or "?"])) for row in rows],
        }
        pictures = None
        if rows and self.a.generator and self.b.generator:
            sides = ((self.a, "unit_a"), (self.b, "unit_b"))
            lit = [D.spotlights([row[key] for row in rows], 3, factor=2) for D, key in sides]
            pictures = [strip(np.concatenate(pair)) for pair in zip(*lit, strict=True)]
        return html_table(repr(self), columns, pictures, "top images of both")


def match_units(
    a: Dissection,
    b: Dissection,
    by: str | None = None,
    *,
    n: int = 256,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    known: UnitMatches | None = None,
) -> UnitMatches:
    """Match the units of two layers one to one, so that their total similarity is as high as possible.

    Parameters
    ----------
    a, b : Dissection
        Of two layers, of one or of two generators.
    by : {"activation", "concepts"}, optional
        ``"activation"``: the correlation of their features over cells and images, for generators that read the same
        latents, or classifiers of the same images; maps of unequal size are compared on the larger grid.
        ``"concepts"``: how well their IoU with all concepts agree, the sum of the smaller ones over the sum of the
        larger ones, for dissections with the same segmenter. By default the first where it is possible.
    n : int
        Images for ``"activation"``.
    sample : int, optional
        Which sample; by default that of ``a``.
    progress : bool or callable
        A progress bar, or a function called with (images done, n).
    known : UnitMatches, optional
        An earlier result of the same two layers and sample with fewer images: only the missing images are looked at.

    Returns
    -------
    UnitMatches
        After an interrupt that of the images seen so far, marked as incomplete.

    Raises
    ------
    ValueError
        The generators do not read the same latents, or the segmenters differ, so that there is nothing to compare by.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer9", n=16, progress=False)
    >>> M = gl.match_units(D, D, n=16, progress=False)
    >>> M.partner(5), round(M.mean, 3)
    (5, 1.0)
    """
    check_dissection(a), check_dissection(b)
    if by is None:
        by = "activation" if reads_the_same(a, b) else "concepts"
    if not isinstance(by, str) or by not in WAYS:
        raise ValueError(close_match("way to match units", by, WAYS, "match_units"))
    if by == "concepts":
        similarity = by_concepts(a, b)
        return UnitMatches(a=a, b=b, by=by, similarity=similarity, chance=float(similarity.mean()))
    n, sample = arguments.check_image_count(n), arguments.check_sample(sample, a.sample)
    check_latents(a, b, n)
    moments, start, complete = watch(a, b, n, sample, progress, known)
    similarity = moments.correlation(moments.both)
    apart = moments.correlation(moments.apart)
    return UnitMatches(
        a=a,
        b=b,
        by=by,
        similarity=similarity,
        chance=float(apart[assign(apart)].mean()),
        n=start,
        complete=complete,
        moments=moments,
        sample=sample,
    )


def watch(a, b, n, sample, progress, known) -> tuple[CrossMoments, int, bool]:
    """Sums over the images of a sample, how many there are, and whether these are all."""
    moments, start = CrossMoments(len(a.iou), len(b.iou)), 0
    if known is not None:
        arguments.check_kind("known", known, UnitMatches, "what match_units returned")
        if (known.a, known.b, known.sample) != (a, b, sample) or known.n > n or known.moments is None:
            raise ValueError(
                f"known={known.by}, {known.n} images of sample {known.sample}: expected an earlier result by "
                f"activation of the same two dissections and sample {sample}, of at most {n} images"
            )
        moments.merge(known.moments)
        start = known.n
    seeds = range(sample * MOST_IMAGES + start, sample * MOST_IMAGES + n)
    with steps(progress, n - start, "match units") as step:
        seen = start + len(measure(add_moments, (a, b, moments), seeds, step, BATCH)["seen"]) if seeds else n
    return moments, seen, seen == n


@torch.no_grad()
def add_moments(a: Dissection, b: Dissection, moments: CrossMoments, seeds: Sequence[int], go_on) -> Arrays:
    """Take in a batch of images; their sums are real numbers, so that they are added up in one place and in order."""
    fresh = CrossMoments(len(a.iou), len(b.iou))  # so that nothing of a batch that fails is counted
    fresh.update(*(features_of(D, seeds) for D in (a, b)))
    moments.merge(fresh)
    go_on(len(seeds))
    return {"seen": np.array(seeds)}


def features_of(D: Dissection, seeds: Sequence[int]) -> torch.Tensor:
    """Features (N, U, H, W) of images."""
    G = D.attached("generator")
    return G.read(G.latents(seeds), [D.layer])[1][D.layer]


def reads_the_same(a: Dissection, b: Dissection) -> bool:
    """Whether both generators are at hand and are given the same latents for a seed."""
    if a.generator is None or b.generator is None:
        return False
    latents = [G.latents([0, 1]).cpu() for G in (a.generator, b.generator)]
    return torch.equal(*latents)


def check_latents(a: Dissection, b: Dissection, n: int) -> None:
    """ValueError if features of the two cannot be compared image by image."""
    for D in (a, b):
        D.attached("generator")
    if not reads_the_same(a, b):
        raise ValueError(
            f"{a.origin['generator']} and {b.origin['generator']} do not read the same latents, so that their units "
            "cannot be compared image by image; match them with by='concepts'"
        )
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2 images; 256 is a good start")


def by_concepts(a: Dissection, b: Dissection) -> np.ndarray:
    """Agreement (U, V) of the IoU of every two units with all concepts, in [0, 1]; 1 only where all are equal."""
    fingerprints = [D.origin.get("segmenter_fingerprint") for D in (a, b)]
    if a.concepts != b.concepts or fingerprints[0] != fingerprints[1]:
        raise ValueError(
            f"the dissections were made with different segmenters ({a.origin['segmenter']}, {fingerprints[0]}, and "
            f"{b.origin['segmenter']}, {fingerprints[1]}): their concepts cannot be compared; make both with the same "
            "segmenter, or match them with by='activation' where both generators read the same latents"
        )
    rows = []
    for profile in a.iou:
        larger = np.maximum(profile, b.iou).sum(1)
        smaller = np.minimum(profile, b.iou).sum(1)
        rows.append(np.divide(smaller, larger, out=np.zeros(len(larger)), where=larger > 0))
    return np.stack(rows)


def assign(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (K,), (K,) of the one-to-one assignment with the highest sum."""
    return linear_sum_assignment(similarity, maximize=True)
