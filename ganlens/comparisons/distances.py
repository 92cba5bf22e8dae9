"""How far apart two sets of images are, in the features that a network has of them."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from ganlens.segmenters.base import Segmenter

FOLDS = 10
STUDENT = 3.250  # of 9 degrees of freedom, for the middle 99 %

# ---- distances between samples


class Normal(NamedTuple):
    """A normal distribution fitted to a sample: its mean (D,), and a factor (R, D) with factorᵀ factor = covariance."""

    mean: np.ndarray
    factor: np.ndarray


def fit_normal(x: np.ndarray) -> Normal:
    """The normal distribution with the mean and the covariance of a sample (N, D); ValueError if it has no covariance.

    The factor is the triangle of a QR decomposition: the covariance itself, whose small eigenvalues would be lost to
    rounding, is never formed.
    """
    x = np.asarray(x, float)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ValueError(f"a sample of shape {x.shape}: expected (N, D), at least 2 images with 1 feature each")
    if not np.isfinite(x).all():
        raise ValueError("a sample with features that are not finite: check the images and the extractor")
    mean = x.mean(0)
    factor = np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r")
    return Normal(mean, factor)  # type: ignore[arg-type]  # numpy's types leave this mode out


def frechet_between(a: Normal, b: Normal) -> float:
    """Fréchet distance of two normal distributions; ValueError if they have different dimensions.

    The trace of the square root of C1 C2 is the sum of the singular values of factor1 factor2ᵀ.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"samples of {len(a.mean)} and {len(b.mean)} features: expected the same extractor for both")
    root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    spread = np.square(a.factor).sum() + np.square(b.factor).sum() - 2 * root
    return float(np.square(a.mean - b.mean).sum() + spread)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance between the normal distributions fitted to two samples.

    ‖μ1 - μ2‖² + tr(C1 + C2 - 2 (C1 C2)^½). On Inception's features it is called FID (Heusel et al., NeurIPS 2017), on
    percentages of pixels per concept Fréchet segmentation distance (Bau et al., ICCV 2019). It is never below 0, grows
    with the noise of small samples, and compares only between samples of the same sizes.

    Parameters
    ----------
    x, y : arrays (N, D), (M, D)
        Features of images, one row each.

    Raises
    ------
    ValueError
        Fewer than 2 rows, different numbers of features, or features that are not finite.

    Examples
    --------
    >>> x = np.array([[0.0], [2.0]])
    >>> frechet_distance(x, x + 3)
    9.0
    >>> round(frechet_distance(x, 2 * x), 6)  # means 1 and 2, deviations √2 and 2√2
    3.0
    """
    return frechet_between(fit_normal(x), fit_normal(y))


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD between samples (N, D) and (M, D) with a cubic kernel, times 1,000."""
    within_x, within_y, between = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    own = (within_x.sum() - within_x.trace()) / (n * (n - 1)) + (within_y.sum() - within_y.trace()) / (m * (m - 1))
    return 1000 * float(own - 2 * between.mean())


def check_enough(images: int, features: int, what: str, remedy: str) -> None:
    """ValueError if images are too few for the covariance of so many features."""
    if images <= features:
        raise ValueError(
            f"{images:,} {what}: the covariance of {features} features needs at least {features + 1:,}; {remedy}"
        )


# ---- their sampling noise


def distances_by_fold(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distances (1 + F, E) of features (E, N, D) to known ones (M, D): of all images, and without each fold of both."""
    rows = []
    for fold in (None, *range(FOLDS)):
        kept, real = (np.arange(count) % FOLDS != fold for count in (found.shape[1], len(known)))
        target = fit_normal(known[real])
        rows.append([frechet_between(fit_normal(x[kept]), target) for x in found])
    return np.array(rows)


def jackknife(values: np.ndarray) -> np.ndarray:
    """Ends of 99 % intervals (E, 2) of values (1 + F, E): of all images, and without each of F folds.

    Student's t on the deviations of the folds, each of which leaves out a tenth of the generated and a tenth of the
    reference images: the interval covers the chance in both. Bootstrap samples would repeat images, and repeated images
    make every distance larger.
    """
    whole, folds = values[0], values[1:]
    error = np.sqrt((len(folds) - 1) / len(folds) * np.square(folds - folds.mean(0)).sum(0))
    return np.stack([whole - STUDENT * error, whole + STUDENT * error], 1)


# ---- features of images


class Extractor(NamedTuple):
    """A function from images (N, 3, Y, X) in [-1, 1] to features (N, D), and what a distance between them is called."""

    name: str
    function: Callable[[torch.Tensor], torch.Tensor]
    distance: str = "Fréchet distance"

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        """Features (N, D) as numbers; ValueError if the function yields anything else."""
        with torch.no_grad():
            found = self.function(x)
        known = isinstance(found, torch.Tensor | np.ndarray)
        if not known or found.ndim != 2 or len(found) != len(x):
            given = tuple(found.shape) if known else type(found).__name__
            raise ValueError(f"features ({self.name}) of {len(x)} images: {given} given; expected ({len(x)}, D)")
        values = found.double().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, float)
        if not np.isfinite(values).all():
            raise ValueError(f"features ({self.name}) that are not finite: check the images and the extractor")
        return values

    def of(self, batches: Iterable[torch.Tensor]) -> np.ndarray:
        """Features (N, D) of all images of some batches."""
        return np.concatenate([self(x) for x in batches])


def as_extractor(extractor: str | Callable | None, segmenter: Segmenter | None = None) -> Extractor:
    """The extractor that is meant: a function, ``"inception"``, or by default the segmenter's bottleneck.

    Raises
    ------
    ValueError
        None is given and the segmenter has no bottleneck, or an unknown name.
    ImportError
        ``"inception"`` without the library that has it.
    """
    if isinstance(extractor, Extractor):
        return extractor
    if callable(extractor):
        return Extractor(getattr(extractor, "__name__", type(extractor).__name__), extractor)
    if extractor == "inception":
        return inception()
    if extractor is not None:
        raise ValueError(f"extractor={extractor!r}: expected a function from images to (N, D), or 'inception'")
    net = getattr(segmenter, "net", None)
    if segmenter is None or not callable(getattr(net, "bottleneck", None)):
        name = segmenter.name if segmenter else "none"
        raise ValueError(
            f"the segmenter {name} has no bottleneck whose features could be compared; give extractor=…, "
            "a function from images (N, 3, Y, X) to features (N, D), or 'inception'"
        )
    return Extractor(f"bottleneck of {segmenter.name}", partial(bottleneck_of, net))


def bottleneck_of(net, x: torch.Tensor) -> torch.Tensor:
    return net.to(x.device).bottleneck(x)


def inception() -> Extractor:
    """Features (N, 2048) of Inception with the weights that FID is defined with, by torch-fidelity.

    The library downloads the weights where they are not at hand. They are read as numbers only: nothing in the file is
    executed.

    Raises
    ------
    ImportError
        The library is not installed.
    OSError
        The weights are not at hand and cannot be downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError("Inception's features need torch-fidelity: pip install torch-fidelity") from error
    try:
        with weights_only():
            net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except OSError as error:
        raise OSError(
            f"Inception's weights are not at hand and cannot be downloaded ({error}); put the file "
            f"weights-inception-2015-12-05-6726825d.pth of torch-fidelity into {torch.hub.get_dir()}/checkpoints"
        ) from error
    net.requires_grad_(False).eval()
    return Extractor("Inception", partial(features_of_inception, net), "FID")


def features_of_inception(net, x: torch.Tensor) -> torch.Tensor:
    return net.to(x.device)((x * 127.5 + 128).clamp(0, 255).byte())[0]


@contextmanager
def weights_only() -> Iterator[None]:
    """Let torch.load read numbers only, whoever calls it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
