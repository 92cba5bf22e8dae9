"""What `find_artifacts` looks for in images: scores of units, and the features that distances are taken on."""

from collections.abc import Sequence

import numpy as np
import torch

from ganlens.comparisons.distances import (
    Extractor,
    check_enough,
    fit_normal,
    frechet_between,
)
from ganlens.comparisons.image_sources import Pictures
from ganlens.dissection.result import Dissection, generator_of
from ganlens.effects.counting import edited_images
from ganlens.models.editing import Edit
from ganlens.progress import Steps
from ganlens.shards import Arrays

FEW = 0.05  # share of the images, and of the cells, in which an artifact is looked for without reference images


def reference_features(
    pictures: Pictures | None, extractor: Extractor | None, device, n: int, step: Steps
) -> np.ndarray:
    """Features (M, D) of the reference images, (0, 0) without any; says after the first batch if these are too few."""
    if not (pictures and extractor):
        return np.empty((0, 0))
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
    opened = generator_of(D).open(D.layer, seeds)
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
    G = generator_of(D)
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
    opened = generator_of(D).open(D.layer, seeds)
    features = [extractor(opened.image)]
    for edit in edits:
        if not go_on(len(seeds)):
            return None
        features.append(extractor(edited_images(D, opened, edit)))
    go_on(len(seeds))
    return {"features": np.stack(features, 1)}


def worst(scores: np.ndarray, k: int) -> list[int]:
    """The k units of the highest scores, of equal ones the first; what is not known comes last."""
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:k].tolist()


def random_others(D: Dissection, units: Sequence[int], draws: int) -> list[list[int]]:
    """Random sets of as many other units, always the same."""
    random, others = np.random.default_rng(0), np.setdiff1d(np.arange(len(D.iou)), units)
    return [random.choice(others, len(units), replace=False).tolist() for _ in range(draws)]
