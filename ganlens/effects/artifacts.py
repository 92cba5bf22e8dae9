"""Units that draw artifacts: which they are, and whether the images are better without them (Bau et al., ICLR 2019).

Units are ranked on one sample of images, two after the dissection's, and the repair is judged on another, one after it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from ganlens.arguments import check_image_count, check_integer, check_sample, close_match
from ganlens.comparisons.distances import (
    Extractor,
    as_extractor,
    check_enough,
    distances_by_fold,
    fit_normal,
    frechet_between,
    jackknife,
)
from ganlens.comparisons.image_sources import Pictures, reference_images
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.effects.counting import BATCH, MOST_DRAWS, edited, on_levels, seeds_of
from ganlens.images import strip
from ganlens.measuring import measure
from ganlens.models.editing import Edit, ablate
from ganlens.progress import Steps, steps
from ganlens.shards import Arrays, check_executor
from ganlens.tables import html_table

METHODS = ("distance", "activation", "flags")
FEW = 0.05  # share of the images, and of the cells, in which an artifact is looked for without reference images


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
    distance, features : str
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
    distances: np.ndarray | None
    distance: str
    features: str
    images: int
    references: int
    complete: bool
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
    features: str | Callable | None = None,
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
    features : callable or "inception", optional
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
    >>> found = gl.find_artifacts(D, k=2, n=16, draws=1, features=colors, progress=False)
    >>> len(found.units), found.distances.shape
    (2, (11, 3))
    """
    check_dissection(D)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(close_match("method", method, METHODS, "find_artifacts"))
    n, draws = check_image_count(n), check_integer("draws", draws, 1, MOST_DRAWS)
    check_executor(executor, shards)
    G, marked = D.attached("generator"), marked_units(D) if method == "flags" else []
    size, count = len(marked) or k, len(D.iou)
    if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= size <= count // 2:
        half = f"expected 1 … {count // 2}, so that as many others are left to compare with"
        raise ValueError(f"k={size}: {D.layer} has {count} units; {half}")
    ablate(D.layer, [0], to=to)  # a wrong level is found before anything is done
    pictures = reference_images(G, reference, n)
    if pictures is None and method == "distance":
        raise ValueError(
            f"no reference images to compare those of {G.name} with: give reference=…, a folder or a tensor of real "
            "images, or take method='activation'"
        )
    extractor = as_extractor(features, D.segmenter) if pictures else None
    sample, top = check_sample(sample, D.sample + 1), None if top is None else check_integer("top", top)
    scores, known, found = np.isin(np.arange(count), marked).astype(float), None, None
    total = (pictures.count + n * (2 + draws) if pictures else 0) + n * (method != "flags")
    with steps(progress, total, "artifacts") as step:

        def over(sample: int, cost: int, look: Callable[..., Arrays | None], *things) -> Arrays:
            """What is found in a sample."""
            return measure(look, (D, *things), seeds_of(sample, n), step, BATCH, executor, shards, cost=cost)

        if pictures:
            known = reference_features(pictures, extractor, G.device, n, step)
        if method == "distance":
            top = check_top(top, n, known.shape[1])
            scores = scores_by_distance(over(sample + 1, 1, peaks_and_features, extractor), known, n, top)
        elif method == "activation":
            scores = scores_by_activation(over(sample + 1, 1, activation_above))
        units = worst(scores, size)
        edits = [ablate(D.layer, some, to=to) for some in (units, *random_others(D, units, draws))]
        if pictures:
            levels = [on_levels(G, edit) for edit in edits]
            with suppress(KeyboardInterrupt):  # the ranking is kept where the repair was not measured
                found = over(sample, 2 + draws, features_under, extractor, levels)["features"].swapaxes(0, 1)
    enough = found is not None and found.shape[1] > known.shape[1]
    return Artifacts(
        layer=D.layer,
        method=method,
        units=tuple(units),
        scores=scores,
        edit=edits[0],
        distances=distances_by_fold(found, known) if enough else None,
        distance=extractor.distance if extractor else "",
        features=extractor.name if extractor else "",
        images=found.shape[1] if enough else 0,
        references=0 if known is None else len(known),
        complete=not step.stopped,
        dissection=D,
    )


# ---- what is asked for


def marked_units(D: Dissection) -> list[int]:
    """The units marked as artifacts by hand; ValueError if there is none."""
    marked = D.flags.get("artifact", [])
    if not marked:
        raise ValueError(f'no unit of {D.layer} is marked: mark them in gl.UnitGallery(D), or D.flag(unit, "artifact")')
    return list(marked)


# ---- the passes over the images


def reference_features(pictures: Pictures, extractor: Extractor, device, n: int, step: Steps) -> np.ndarray:
    """Features (M, D) of the reference images; says after the first batch if there are too few images for them."""
    parts = []
    for x in pictures.batches:
        parts.append(extractor(x.to(device)))
        if len(parts) == 1:
            count = parts[0].shape[1]
            check_enough(n, count, "generated images", "give a larger n=…, or fewer features")
            check_enough(pictures.count, count, "reference images", "give more, or fewer features")
        if not step.go_on(len(x)):
            raise KeyboardInterrupt
    return np.concatenate(parts)


def check_top(top: int | None, n: int, count: int) -> int:
    """Top images of each unit, by default a fifth; ValueError if they are too few for the features, or too many."""
    top = max(n // 5, count + 1) if top is None else top
    if not count < top <= n // 2:
        raise ValueError(
            f"{top} top images for each unit, of n={n:,}: expected more than the {count} features and at most "
            f"half of n; give n={2 * max(top, count + 1):,} or more"
        )
    return top


def peaks_and_features(D: Dissection, extractor: Extractor, seeds: Sequence[int], go_on) -> Arrays:
    """The highest value of each unit (N, U) in a batch of images, and the images' features (N, D)."""
    opened = D.attached("generator").open(D.layer, seeds)
    found = {"peaks": opened.features.amax((2, 3)).cpu().numpy(), "features": extractor(opened.image)}
    go_on(len(seeds))
    return found


def scores_by_distance(found: Arrays, known: np.ndarray, n: int, top: int) -> np.ndarray:
    """Distance (U,) between the ``top`` images of each unit and the reference images (M, D)."""
    peaks, features = found["peaks"], found["features"]
    if len(peaks) < n:
        raise KeyboardInterrupt
    order, real = np.argsort(-peaks, 0, kind="stable")[:top], fit_normal(known)
    return np.array([frechet_between(fit_normal(features[some]), real) for some in order.T])


def activation_above(D: Dissection, seeds: Sequence[int], go_on) -> Arrays:
    """Activation above the median in a batch: of each unit its sum, its sum in a few cells and its peak (N, 3, U)."""
    G = D.attached("generator")
    typical = D.levels.quantile(0.5).to(G.device)[:, None]
    few = max(1, round(FEW * D.shape[0] * D.shape[1]))
    above = (G.open(D.layer, seeds).features.flatten(2) - typical).relu()
    strongest = above.topk(few, 2).values
    go_on(len(seeds))
    found = torch.stack([above.sum(2), strongest.sum(2), strongest[..., 0]], 1)
    return {"above": found.double().cpu().numpy()}


def scores_by_activation(found: Arrays) -> np.ndarray:
    """Share (U,) of the activation above the median in few cells of few images, lowered for weak units."""
    every, local, peak = found["above"].swapaxes(0, 1)  # (N, U) each
    count = max(1, round(FEW * len(every)))
    local, peak = (np.sort(values, 0)[-count:] for values in (local, peak))
    total, strength = every.sum(0), peak.mean(0)
    share = np.divide(local.sum(0), total, out=np.zeros(len(total)), where=total > 0)
    return share * np.minimum(1, strength / max(np.median(strength), np.finfo(float).tiny))


def features_under(
    D: Dissection, extractor: Extractor, edits: Sequence[Edit], seeds: Sequence[int], go_on
) -> Arrays | None:
    """Features (N, 1 + E, D) of a batch of images, unedited and under each edit; None if interrupted in between."""
    opened = D.attached("generator").open(D.layer, seeds)
    features = [extractor(opened.image)]
    for edit in edits:
        if not go_on(len(seeds)):
            return None
        features.append(extractor(edited(D, opened, edit)))
    go_on(len(seeds))
    return {"features": np.stack(features, 1)}


# ---- numbers


def worst(scores: np.ndarray, k: int) -> list[int]:
    """The k units of the highest scores, of equal ones the first; what is not known comes last."""
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:k].tolist()


def random_others(D: Dissection, units: Sequence[int], draws: int) -> list[list[int]]:
    """Random sets of as many other units, always the same."""
    random, others = np.random.default_rng(0), np.setdiff1d(np.arange(len(D.iou)), units)
    return [random.choice(others, len(units), replace=False).tolist() for _ in range(draws)]
