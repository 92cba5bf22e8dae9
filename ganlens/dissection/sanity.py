"""Whether a measure of a match notices that labels are wrong: the checks of NeuronEval (Oikarinen et al., ICML 2025).

Half of a concept's labels are taken away at random, or as many are added anywhere. A measure is worth something only if
it falls both times: one that does not cannot tell a unit's concept from a wider or a narrower one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.arguments import MOST_IMAGES, check_image_count, check_sample
from ganlens.dissection.cells import MOST_PLACES
from ganlens.dissection.layer_statistics import mended
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.models.bit_exact import GRANULE
from ganlens.progress import steps
from ganlens.segmenters.base import checked_labels
from ganlens.tables import Tabular, html_table, text_table

# Share of units, in percent, whose score falls with labels missing and with labels added, as published for classifiers
# and language models; None: published as failing.
PUBLISHED = {
    "iou": (93.6, 99.8),
    "f1": (93.7, 99.8),
    "average_precision": (95.6, 99.5),
    "pearson": (99.4, 99.9),
    "cosine": (99.5, 99.3),
    "auc": None,
    "recall": None,
    "precision": None,
    "mean_difference": None,
}
NOTICED = 0.9  # share of the units from which on a measure notices
TINY = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class SanityChecks(Tabular):
    """Share of units whose score falls when labels are wrong, by measure; made by `ganlens.sanity_checks`.

    Attributes
    ----------
    measures : tuple of str
        M measures of a match.
    missing, extra : array (M,)
        Share of the units whose score is lower without half of the labels, and with twice as many.
    units, n : int
        How many interpretable units, of concepts that are to be seen, and images.
    """

    index: ClassVar[str] = "measure"

    measures: tuple[str, ...]
    missing: np.ndarray
    extra: np.ndarray
    units: int
    n: int

    @property
    def noticing(self) -> list[str]:
        """Measures that fall both times in at least 90 % of the units."""
        worst = np.minimum(self.missing, self.extra)
        return [name for name, share in zip(self.measures, worst, strict=True) if share >= NOTICED]

    def rows(self) -> list[dict]:
        """One dict per measure, with what is published, in percent."""
        found = []
        for name, missing, extra in zip(self.measures, self.missing, self.extra, strict=True):
            known = PUBLISHED[name]
            said = "fails" if known is None else f"{known[0]} / {known[1]}"
            own = {"missing": round(100 * float(missing), 1), "extra": round(100 * float(extra), 1)}
            found.append({"measure": name, **own, "notices": name in self.noticing, "published": said})
        return found

    @property
    def title(self) -> str:
        """What was done, in one line."""
        return (
            f"Percent of {self.units} units whose score falls when half of the labels are missing, and when as many "
            f"are added ({self.n:,} images)"
        )

    def lines(self) -> list[dict[str, str]]:
        """The lines of a table, in words."""
        return [
            {
                "measure": row["measure"],
                "missing": f"{row['missing']:.1f}",
                "extra": f"{row['extra']:.1f}",
                "notices both": "yes" if row["notices"] else "no",
                "published": row["published"],
            }
            for row in self.rows()
        ]

    def __repr__(self) -> str:
        return f"{self.title}\n{text_table(self.lines())}"

    def _repr_html_(self) -> str:
        lines = self.lines()
        return html_table(self.title, {head: [line[head] for line in lines] for head in lines[0]})


def sanity_checks(
    D: Dissection,
    n: int = 200,
    *,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> SanityChecks:
    """Which measures of a match notice, on this very layer, that labels are missing or too many.

    Each interpretable unit is scored against its concept in the places of the pictures (the layer's cells, at most 16
    along each side; a place shows the concept that has most of it): with all labels, without a random half of them, and
    with as many added at random.

    Parameters
    ----------
    D : Dissection
        With generator and segmenter.
    n : int
        Number of images.
    sample : int, optional
        Which sample; by default that of the dissection.
    progress : bool or callable
        As for `ganlens.dissect`; an interrupt gives what the images so far say.

    Raises
    ------
    ValueError
        No unit is interpretable, so that there is nothing to be scored.

    References
    ----------
    Oikarinen, Yan, Weng: Evaluating Neuron Explanations: A Unified Framework with Sanity Checks, ICML 2025.

    Examples
    --------
    >>> import ganlens as gl
    >>> D = gl.dissect(gl.load_generator("scenes"), gl.load_segmenter("scenes"), "layer4", n=64, progress=False)
    >>> checks = gl.sanity_checks(D, n=128, progress=False)
    >>> "iou" in checks.noticing, "recall" in checks.noticing
    (True, False)
    """
    n, first = check_image_count(n), check_sample(sample, check_dissection(D).sample) * MOST_IMAGES
    n = min(n, D.attached("generator").count or n)
    labels = [label for label in D.labels if label.interpretable]
    if not labels:
        raise ValueError(f"no unit of {D.layer} is interpretable, so that there is no match to be scored")
    concepts = sorted({D.concepts.index(label.concept) for label in labels})
    units, parts = [label.unit for label in labels], []
    with steps(progress, n, "look") as step:
        for start in range(0, n, GRANULE):
            seeds = range(first + start, first + min(start + GRANULE, n))
            parts.append(places_of(D, list(seeds), units, concepts))
            if not step.go_on(len(seeds)):
                break
    activations, on, shown = (np.concatenate([part[i] for part in parts], 1) for i in range(3))
    falls = []
    for row, label in enumerate(labels):
        unit = Ranked.of(activations[row], on[row])
        there = shown[concepts.index(D.concepts.index(label.concept))]
        if there.all() or not there.any():
            continue  # no image shows the concept in most of a place, or all do
        random = np.random.default_rng(label.unit)
        usual = unit.scores(there)
        falls.append(
            [usual - unit.scores(wrong) > TINY for wrong in (without_half(there, random), with_more(there, random))]
        )
    if not falls:
        raise ValueError(f"none of {step.count} images shows a concept that units of {D.layer} draw; give more images")
    missing, extra = np.mean(falls, 0)
    return SanityChecks(tuple(PUBLISHED), missing, extra, len(falls), step.count)


def places_of(D: Dissection, seeds: list[int], units: list[int], concepts: list[int]) -> list[np.ndarray]:
    """Means of activations (U, M) in the places of images, where units are on in them (U, M), and concepts are (C, M).

    Places in which no pixel counts are left out.
    """
    generator, segmenter = D.attached("generator"), D.attached("segmenter")
    with torch.no_grad():
        images, features = generator.read(generator.latents(seeds), [D.layer])
        labels = checked_labels(segmenter, images.float(), ignored=True)
    r = mended(features[D.layer][:, units].float())[0]
    places = min(r.shape[2], MOST_PLACES), min(r.shape[3], MOST_PLACES)
    threshold = torch.from_numpy(np.array(D.thresholds[units], np.float32)).to(r.device)[:, None, None]
    on = F.adaptive_max_pool2d(r, places) > threshold
    counted = F.adaptive_avg_pool2d((labels[:, :1] >= 0).float(), places)
    masks = torch.stack([(labels == concept + 1).any(1) for concept in concepts], 1)
    most = F.adaptive_avg_pool2d(masks.float(), places) > counted / 2
    kept = counted.flatten() > 0
    found = (F.adaptive_avg_pool2d(r, places), on, most)
    return [one.transpose(0, 1).flatten(1)[:, kept.to(one.device)].cpu().numpy() for one in found]


def without_half(there: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels (M,) of which each one is left with a probability of a half."""
    return there & (random.random(len(there)) < 0.5)


def with_more(there: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels (M,), and about as many again where there were none."""
    return there | (random.random(len(there)) < there.sum() / max((~there).sum(), 1))


class Ranked(NamedTuple):
    """Activations (M,) of a unit, where it is on, and the rank of each among those that differ."""

    activations: np.ndarray
    on: np.ndarray
    rank: np.ndarray

    @classmethod
    def of(cls, activations: np.ndarray, on: np.ndarray) -> "Ranked":
        rank = np.unique(activations, return_inverse=True)[1]
        return cls(activations.astype(float), on, rank.reshape(-1))

    def scores(self, there: np.ndarray) -> np.ndarray:
        """All measures, in the order of `PUBLISHED`, of the match with a concept's places (M,), boolean."""
        both, on, area, count = (self.on & there).sum(), self.on.sum(), there.sum(), len(there)
        a, mean = self.activations, there.mean()
        hits = np.bincount(self.rank, there, minlength=self.rank.max() + 1)[::-1]  # from the highest on
        every = np.bincount(self.rank)[::-1]
        found, chosen, wrong = hits.cumsum(), every.cumsum(), every - hits
        precision = (found / chosen * hits).sum() / max(area, 1)
        auc = (wrong * (found - hits / 2)).sum() / max(area * (count - area), 1)
        spread = a.std() * there.std()
        return np.array(
            [
                both / max(on + area - both, 1),
                2 * both / max(on + area, 1),
                precision,
                (a @ there / count - a.mean() * mean) / max(spread, TINY),
                a @ there / max(np.sqrt((a @ a) * area), TINY),
                auc,
                both / max(area, 1),
                both / max(on, 1),
                a[there].mean() - a[~there].mean() if 0 < area < count else 0.0,
            ]
        )
