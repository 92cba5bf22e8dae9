"""Distances equal an independent computation, and features come from where they should."""

import os
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ganlens.comparisons.distances import (
    Extractor,
    as_extractor,
    check_enough,
    distances_by_fold,
    frechet_distance,
    jackknife,
    kernel_distance,
    weights_only,
)


def expected(x, y):
    """The formula as it is written, with scipy's matrix square root."""
    cx, cy = (np.atleast_2d(np.cov(a.T)) for a in (x, y))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)


class TestFrechetDistance:
    @pytest.mark.parametrize("count", [1, 4, 40])
    def test_equals_the_formula(self, count):
        random = np.random.default_rng(count)
        mix = random.normal(size=(count, count))
        x, y = random.normal(size=(90, count)) @ mix, random.normal(0.3, 2, size=(70, count))
        assert frechet_distance(x, y) == pytest.approx(expected(x, y), abs=1e-6)

    def test_closed_form_of_independent_features(self):
        """With covariances that are exactly diagonal it is Σ (Δμ)² + Σ (σ1 - σ2)²."""
        signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T  # 32 rows: no two columns are correlated
        scale = np.sqrt(31 / 32)  # so that the deviation, divided by N - 1, is the factor
        a, b = np.array([1, 2, 3, 0, 5]), np.array([4, 2, 1, 1, 0])
        shift = np.array([0, 3, 0, 0, 1])
        distance = frechet_distance(signs * scale * a, signs * scale * b + shift)
        assert distance == pytest.approx((shift**2).sum() + ((a - b) ** 2).sum(), abs=1e-9)

    def test_singular_covariances(self):
        """Fewer images than features, constant features: the small eigenvalues are not lost to rounding."""
        random = np.random.default_rng(0)
        x, y = random.normal(size=(8, 30)), random.normal(size=(12, 30))
        x[:, 3] = y[:, 3] = 7
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
        # tr (C1 C2)^½ is the sum of the singular values of A1 A2ᵀ, with C = Aᵀ A
        a, b = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (x, y))
        root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        whole = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * root
        assert frechet_distance(x, y) == pytest.approx(whole, abs=1e-9)

    def test_does_not_depend_on_the_side_or_on_the_order(self):
        random = np.random.default_rng(1)
        x, y = random.normal(size=(20, 6)), random.normal(2, 3, size=(30, 6))
        rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
        for other in (
            frechet_distance(y, x),
            frechet_distance(x[::-1], y),
            frechet_distance(x @ rotation, y @ rotation),
        ):
            assert other == pytest.approx(frechet_distance(x, y), abs=1e-9)

    def test_bad_samples(self):
        x = np.zeros((4, 3))
        with pytest.raises(ValueError, match=r"a sample of shape \(1, 3\): expected \(N, D\), at least 2"):
            frechet_distance(x[:1], x)
        with pytest.raises(ValueError, match="samples of 3 and 2 features"):
            frechet_distance(x, x[:, :2])
        with pytest.raises(ValueError, match="not finite"):
            frechet_distance(x, x * np.nan)


def test_kernel_distance_has_no_bias():
    """Over many pairs of samples of one distribution, the mean is zero within its error."""
    random = np.random.default_rng(0)
    values = [kernel_distance(*random.normal(size=(2, 15, 3))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    assert kernel_distance(random.normal(size=(50, 3)), random.normal(2, 1, size=(50, 3))) > max(values)


def test_too_few_images_says_how_many_are_needed():
    check_enough(129, 128, "images", "")
    with pytest.raises(ValueError, match="128 images: the covariance of 128 features needs at least 129; give more"):
        check_enough(128, 128, "images", "give more")


def test_intervals_cover_the_truth():
    """Two kinds of edits of normal features: the true drop lies in 99 of 100 intervals, give or take."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(200):
        x, known = random.normal(size=(500, 2)), random.normal(size=(500, 2))
        distances = distances_by_fold(np.stack([x + 0.5, 1.5 * x + [0.2, 0]]), known)
        low, high = jackknife(distances[:, :1] - distances[:, 1:])[0]
        hits += low < 0.5 - (0.04 + 2 * 0.25) < high
    assert 194 <= hits < 200


class TestExtractors:
    def test_the_bottleneck_is_the_default(self, G, S):
        x = G.generate(range(4))
        extractor = as_extractor(None, S)
        np.testing.assert_allclose(extractor(x), S.net.bottleneck(x).double(), atol=1e-6)
        assert extractor.of([x[:1], x[1:]]) == pytest.approx(extractor(x), abs=1e-5)
        assert (extractor.name, extractor.distance) == ("bottleneck of scenes", "Fréchet distance")

    def test_any_function(self):
        def means(x):
            return x.mean((2, 3))

        extractor = as_extractor(means)
        assert extractor.name == "means"
        assert as_extractor(extractor) is extractor
        assert extractor(torch.ones(2, 3, 4, 4)).tolist() == [[1, 1, 1]] * 2
        assert as_extractor(lambda x: x.mean((2, 3)).numpy())(torch.ones(2, 3, 4, 4)).shape == (2, 3)

    @pytest.mark.parametrize("wrong", [lambda x: x, lambda x: x.mean(), lambda x: x[:1].mean((2, 3)), lambda x: "no"])
    def test_of_the_wrong_shape(self, wrong):
        with pytest.raises(ValueError, match=r"of 2 images: .* given; expected \(2, D\)"):
            Extractor("mine", wrong)(torch.zeros(2, 3, 4, 4))

    def test_not_finite(self):
        with pytest.raises(ValueError, match="not finite"):
            Extractor("mine", lambda x: x.mean((2, 3)) / 0)(torch.zeros(2, 3, 4, 4))

    def test_no_bottleneck(self, S):
        with pytest.raises(ValueError, match=r"has no bottleneck .* give extractor=…, a function"):
            as_extractor(None, S.parts())
        with pytest.raises(ValueError, match=r"expected a function from images .* or 'inception'"):
            as_extractor("resnet", S)

    def test_inception_needs_a_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        with pytest.raises(ImportError, match="pip install torch-fidelity"):
            as_extractor("inception")


def test_nothing_in_a_file_of_weights_is_executed(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"weight": Evil()}, tmp_path / "weights.pth")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with weights_only(), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "weights.pth", weights_only=False)
    assert not (tmp_path / "executed").exists()
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"
