"""Units that draw artifacts: which they are, and whether the images are better without them (Bau et al., ICLR 2019).

Units are ranked on one sample of images, two after the dissection's, and the repair is judged on another, one after it.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganlens.arguments import check_image_count, check_integer, check_sample, close_match
from ganlens.comparisons.distances import (
    as_extractor,
    distances_by_fold,
    jackknife,
)
from ganlens.comparisons.image_sources import Pictures, reference_images
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.artifact_scores import (
    activation_above,
    check_top,
    features_under,
    peaks_and_features,
    random_others,
    reference_features,
    scores_by_activation,
    scores_by_distance,
    worst,
)
from ganlens.effects.counting import BATCH, MOST_DRAWS, on_levels, seeds_of
from ganlens.images import strip
from ganlens.measuring import measure
from ganlens.models.base import Generator
from ganlens.models.editing import Edit, ablate
from ganlens.progress import steps
from ganlens.shards import Arrays, check_executor
from ganlens.tables import html_table

METHODS = ("distance", "activation", "flags")


@dataclass(frozen=True, eq=False, kw_only=True)
class Artifacts:
    """The units that look most like artifacts, and what switching them off is worth.

    U units, k of them switched off, R random sets of k other units, F folds.

    Attributes
    ----------
    layer, method : str
        Where was looked, and how.
    units : tuple of int
        The k units, worst first.
    scores : array (U,)
        What they are ranked by, the higher the worse; nan where an interrupt came before.
    edit : Edit
        The repair: switches ``units`` off. For ``G.generate(…, edits=[found.edit])``, ``canvas.edits = (found.edit,)``
        and ``gl.Recipe.of(G, seed, [found.edit])``.
    distances : array (1 + F, 2 + R) or None
        Distances to the reference images: before, after, and with each random set switched off; first of all images,
        then with one fold of the images, generated and reference, left out. None where nothing was measured.
    distance, extractor : str
        What the distance is called, and whose features it is taken on.
    images, references : int
        How many were compared.
    complete : bool
        False where an interrupt left something out.
    dissection : Dissection
        Where the units come from.
    """

    layer: str
    method: str
    units: tuple[int, ...]
    scores: np.ndarray
    edit: Edit
    distances: np.ndarray | None = None
    distance: str = ""
    extractor: str = ""
    images: int = 0
    references: int = 0
    complete: bool = True
    dissection: Dissection = field(repr=False)

    @property
    def ranking(self) -> list[int]:
        """All units, worst first."""
        return worst(self.scores, len(self.scores))

    @property
    def before(self) -> float:
        """Distance of the unedited images."""
        return np.nan if self.distances is None else float(self.distances[0, 0])

    @property
    def after(self) -> float:
        """Distance with the units switched off."""
        return np.nan if self.distances is None else float(self.distances[0, 1])

    @property
    def random(self) -> np.ndarray:
        """Distance with each random set switched off (R,)."""
        return np.empty(0) if self.distances is None else self.distances[0, 2:]

    @property
    def drop(self) -> float:
        """By how much the repair lowers the distance; negative where it raises it."""
        return self.before - self.after

    @property
    def intervals(self) -> np.ndarray:
        """Ends of the 99 % intervals (2 + R, 2) of the distances: jackknife over folds, see `jackknife`."""
        return np.empty((0, 2)) if self.distances is None else jackknife(self.distances)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 99 % interval of ``drop``: jackknife over folds of the differences on the same images."""
        if self.distances is None:
            return np.nan, np.nan
        low, high = jackknife(self.distances[:, :1] - self.distances[:, 1:2])[0]
        return float(low), float(high)

    @property
    def gain(self) -> bool:
        """Whether the whole interval of ``drop`` lies above 0 and above the drop of every random set."""
        return bool(self.interval[0] > max(0, *(self.before - self.random), 0))

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        if self.distances is None:
            return "not measured" if self.references else "not measured: there are no reference images"
        low, high = self.interval
        change = f"drops by {self.drop:.3g} ({low:.3g} … {high:.3g})"
        if self.drop < 0:
            change = f"grows by {-self.drop:.3g} ({-high:.3g} … {-low:.3g})"
        if self.gain:
            return f"gain: the distance {change}"
        why = "" if high < 0 else ", which may be none" if low <= 0 else ", not more than with random units"
        return f"no gain: the distance {change}{why}"

    def __repr__(self) -> str:
        count = len(self.units)
        first = ", ".join(map(str, self.units[:5])) + (", …" if count > 5 else "")
        title = f"{count} unit{'s' * (count > 1)} of {self.layer} by {self.method} ({first})"
        if self.distances is not None:
            sizes = f"{self.images:,} images, {self.references:,} references"
            title += f": {self.distance} {self.before:.3g}, without them {self.after:.3g}"
            title += f", without as many random units {', '.join(f'{r:.3g}' for r in self.random)} ({sizes})"
        return f"{title}; {self.verdict}" + ("" if self.complete else " (incomplete)")

    def _repr_html_(self) -> str:
        D, units = self.dissection, self.units
        labels = [D.labels[unit] for unit in units]
        columns = {
            "unit": [str(unit) for unit in units],
            "score": [f"{self.scores[unit]:.3g}" for unit in units],
            "draws": [label.concept.name if label.interpretable else "" for label in labels],
        }
        pictures = [strip(row) for row in D.spotlights(list(units), 6, factor=2)] if D.generator else None
        return html_table(repr(self), columns, pictures, "top images, lit where the unit is on")


def find_artifacts(
    D: Dissection,
    reference: torch.Tensor | np.ndarray | str | Path | None = None,
    method: str = "distance",
    *,
    k: int = 20,
    n: int = 1000,
    top: int | None = None,
    to: str = "zero",
    draws: int = 3,
    extractor: str | Callable | None = None,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> Artifacts:
    """Rank units by how much they look like artifacts, switch the worst off, and say honestly whether that helps.

    Whatever the method, the distance to reference images is measured before, with the k worst units switched off, and
    with as many random others switched off, on images that no unit was ranked on. Every image is generated once.

    Parameters
    ----------
    D : Dissection
        With its generator.
    reference : Tensor (M, 3, Y, X) in [-1, 1], uint8 array (M, Y, X, 3), or path of a folder, optional
        Real images of the generated size. The embedded generator is by default compared with as many paintings that it
        was not trained on.
    method : {"distance", "activation", "flags"}
        ``"distance"``: a unit's score is the Fréchet distance between the images that activate it most and the
        reference images (Bau et al., ICLR 2019). Units that choose one kind of image score high too, as one kind is far
        from the mixture of all. ``"activation"``, which needs no reference images: the share of the
        unit's activation above its median that lies in 5 % of the cells of 5 % of the images. An artifact is rare,
        strong and local, and each of the three brings that share nearer to 1; of a unit that is on everywhere alike
        it is 0.0025. It is lowered in proportion for units whose peaks are weaker than the layer's usual ones, which
        draw little. What is rare, strong and local may be wanted all the same, a sun for instance: look at the top
        images. ``"flags"``: the units that were marked by hand, ``D.flags["artifact"]``, whatever ``k`` is.
    k : int
        How many units to switch off, at most half of the layer.
    n : int
        Images to rank units on, and again to judge on.
    top : int, optional
        By how many images a unit is judged under ``"distance"``; by default a fifth, or as many as the features need.
    to : {"zero", "mean"}
        Level of the ablation.
    draws : int
        Random sets of k other units to compare with.
    extractor : callable or "inception", optional
        From images (N, 3, Y, X) to features (N, D); the bottleneck of the dissection's segmenter by default. On
        Inception's features the distance is called FID.
    sample : int, optional
        Sample to judge on; by default the one after the dissection's. Units are ranked on the one after it.
    progress : bool or callable
        A bar, nothing, or a function of (steps done, of how many).
    executor, shards
        Who works, as for `ganlens.dissect`; shards are ranges of images, and the result is the same to the bit.

    Returns
    -------
    Artifacts
        An interrupt gives the ranking, and the distances on the images that were finished, marked as incomplete. One
        that comes before there is any ranking is raised.

    Raises
    ------
    ValueError
        Fewer images than the covariance of the features needs, reference images of another size, an unknown method, no
        reference images where the method needs them, no marked unit, more units than half of the layer.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=16, progress=False)
    >>> colors = lambda x: x.mean((2, 3))
    >>> found = gl.find_artifacts(D, k=2, n=16, draws=1, extractor=colors, progress=False)
    >>> len(found.units), found.distances.shape
    (2, (11, 3))
    """
    check_dissection(D)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(close_match("method", method, METHODS, "find_artifacts"))
    n, draws = check_image_count(n), check_integer("draws", draws, 1, MOST_DRAWS)
    check_executor(executor, shards)
    G, marked = generator_of(D), marked_units(D) if method == "flags" else []
    size = check_size_of_set(D, len(marked) or k)
    ablate(D.layer, [0], to=to)  # a wrong level is found before anything is done
    pictures = references_for(G, reference, n, method)
    extract = as_extractor(extractor, D.segmenter) if pictures else None
    sample, top = check_sample(sample, D.sample + 1), None if top is None else check_integer("top", top)
    total = (pictures.count + n * (2 + draws) if pictures else 0) + n * (method != "flags")
    measured: dict[str, Any] = {}
    with steps(progress, total, "artifacts") as step:

        def over(sample: int, cost: int, look: Callable[..., Arrays | None], *things) -> Arrays:
            """What is found in a sample."""
            return measure(look, (D, *things), seeds_of(sample, n), step, BATCH, executor, shards, cost=cost)

        known = reference_features(pictures, extract, G.device, n, step)
        scores = np.isin(np.arange(len(D.iou)), marked).astype(float)
        if method == "distance":
            top = check_top(top, n, known.shape[1])
            scores = scores_by_distance(over(sample + 1, 1, peaks_and_features, extract), known, n, top)
        elif method == "activation":
            scores = scores_by_activation(over(sample + 1, 1, activation_above))
        units = worst(scores, size)
        edits = [ablate(D.layer, some, to=to) for some in (units, *random_others(D, units, draws))]
        if extract:
            measured = {"distance": extract.distance, "extractor": extract.name, "references": len(known)}
            levels = [on_levels(G, edit) for edit in edits]
            try:
                found = over(sample, 2 + draws, features_under, extract, levels)["features"].swapaxes(0, 1)
                if found.shape[1] > known.shape[1]:
                    measured |= {"distances": distances_by_fold(found, known), "images": found.shape[1]}
            except KeyboardInterrupt:  # the ranking is kept where the repair was not measured
                step.stopped = True
    measured |= {"layer": D.layer, "method": method, "units": tuple(units), "scores": scores, "edit": edits[0]}
    return Artifacts(**measured, complete=not step.stopped, dissection=D)


# ---- what is asked for


def check_size_of_set(D: Dissection, k: int) -> int:
    """How many units are switched off; ValueError if there are not as many others to compare them with."""
    count = len(D.iou)
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= count // 2:
        half = f"expected 1 … {count // 2}, so that as many others are left to compare with"
        raise ValueError(f"k={k}: {D.layer} has {count} units; {half}")
    return int(k)


def references_for(G: Generator, reference, n: int, method: str) -> Pictures | None:
    """The reference images, if there are any; ValueError where the method needs them."""
    pictures = reference_images(G, reference, n)
    if pictures is None and method == "distance":
        raise ValueError(
            f"no reference images to compare those of {G.name} with: give reference=…, a folder or a tensor of real "
            "images, or take method='activation'"
        )
    return pictures


def marked_units(D: Dissection) -> list[int]:
    """The units marked as artifacts by hand; ValueError if there is none."""
    marked = D.flags.get("artifact", [])
    if not marked:
        raise ValueError(f'no unit of {D.layer} is marked: mark them in gl.UnitGallery(D), or D.flag(unit, "artifact")')
    return list(marked)
