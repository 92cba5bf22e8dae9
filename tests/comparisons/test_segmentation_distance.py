"""What images show: percent of pixels, the Fréchet segmentation distance and its noise, what is drawn too little."""

import csv
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from planted import COLORS, Wiring, channels
from scipy.linalg import sqrtm

import ganlens as gl
from ganlens.comparisons.segmentation_distance import SegmentationDistance, areas_of
from ganlens.segmenters.base import Concept

S3 = gl.Segmenter.wrap(lambda x: (channels(x) > 0.5).int() * torch.tensor([1, 2, 3])[:, None, None], COLORS)
NAMES = tuple(Concept(name) for name in ("sky", "tree", "door", "sun"))


def pictures(n: int, seed: int = 0, share=(0.5, 0.3, 0.2), size: int = 8) -> np.ndarray:
    """Pictures (N, Y, X, 3) whose channels are 0 or 255, each on at its share of the pixels."""
    random = np.random.default_rng(seed)
    amount = np.clip(random.normal(share, 0.1, (n, 1, 1, 3)), 0, 1) * (np.array(share) > 0)
    return (random.random((n, size, size, 3)) < amount).astype(np.uint8) * 255


def planted(n: int, seed: int, means, m: int | None = None, other=None) -> SegmentationDistance:
    """A distance of made-up percentages, whose means are known."""
    random = np.random.default_rng(seed)
    a, b = (random.normal(mean, 2, (count, 4)).clip(0) for mean, count in ((means, n), (other or means, m or n)))
    return SegmentationDistance(names=("generator", "photographs"), concepts=NAMES, a=a, b=b, segmenter="made up")


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition, with scipy's matrix square root."""
    cx, cy = np.cov(x.T), np.cov(y.T)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)


class TestDistance:
    def test_is_the_definition_on_class_areas(self):
        a, b = pictures(60, 1), pictures(50, 2, (0.4, 0.4, 0.1))
        F = gl.segmentation_distance(a, b, S3, progress=False)
        expected = [(p == 255).mean((1, 2)) * 100 for p in (a, b)]
        np.testing.assert_allclose(F.a, expected[0])
        np.testing.assert_allclose(F.b, expected[1])
        assert F.distance == pytest.approx(frechet(*expected), abs=1e-6)

    def test_on_paintings(self, G, S):
        """Real percentages add up to 100, so that their covariance is singular."""
        F = gl.segmentation_distance(G, G, S, n=40, progress=False)
        for areas, start in ((F.a, 0), (F.b, 1_000_000)):
            labels = S.labels(G.generate(range(start, start + 40))).flatten(1).numpy()
            counted = np.stack([np.bincount(row - 1, minlength=13) for row in labels]) / 40.96
            np.testing.assert_allclose(areas, counted)
        roots, axes = np.linalg.eigh(np.cov(F.a.T))
        root = axes * np.sqrt(roots.clip(0)) @ axes.T  # of one covariance
        both = np.sqrt(np.linalg.eigvalsh(root @ np.cov(F.b.T) @ root).clip(0)).sum()
        spread = np.trace(np.cov(F.a.T)) + np.trace(np.cov(F.b.T)) - 2 * both
        assert F.distance == pytest.approx(np.square(F.difference).sum() + spread, abs=1e-5)

    def test_two_samples_of_one_source_are_near_zero(self, G, S):
        F = gl.segmentation_distance(G, G, S, n=64, progress=False)
        assert not F.differ
        assert F.distance < 2 * F.bias
        assert "no difference can be told" in repr(F)
        assert F.interval[0] < F.bias

    def test_the_noise_is_that_of_real_samples(self):
        """Resampling one sample tells how far two samples are apart: not more than one in 15 is beyond 99 % of it."""
        pairs = [planted(80, seed, (20, 15, 10, 30)) for seed in range(300)]
        some = pairs[:15]
        assert np.mean([F.bias for F in some]) == pytest.approx(np.mean([F.distance for F in pairs]), rel=0.12)
        assert sum(F.differ for F in some) <= 1

    def test_the_bias_halves_with_twice_the_images(self):
        few, many = planted(100, 0, (20, 15, 10, 30)), planted(400, 1, (20, 15, 10, 30))
        assert few.bias / many.bias == pytest.approx(4, rel=0.2)

    def test_a_difference_is_seen_and_the_interval_holds_it(self):
        means, other = (20, 15, 10, 30), (20, 15, 13, 30)
        found = [planted(200, seed, means, other=other) for seed in range(8)]
        assert all(F.differ for F in found)
        assert all(F.interval[0] <= 9 + F.bias <= F.interval[1] for F in found)


class TestConcepts:
    def test_what_is_drawn_too_little(self):
        F = planted(300, 0, (20, 6, 0, 31), other=(20, 14, 10, 30))
        assert F.missing() == [NAMES[2], NAMES[1]]
        assert F.missing(0.3) == [NAMES[2]]
        assert F.difference[1] == pytest.approx(-8, abs=0.6)
        assert F.relative[1] == pytest.approx(-8 / 14, abs=0.05)
        low, high = F.difference_interval
        assert (low[:3] <= F.difference[:3]).all()
        assert (F.difference[:3] <= high[:3]).all()
        assert low[0] < 0 < high[0]
        low, high = F.relative_interval
        assert low[1] < -8 / 14 < high[1] < 0

    def test_never_and_only(self):
        a, b = np.full((2, 50, 4), 25.0) + np.random.default_rng(0).normal(0, 1, (2, 50, 4))
        a[:, 1], b[:, 2], a[:, 3], b[:, 3] = 0, 0, 0, 0
        F = SegmentationDistance(names=("a", "b"), concepts=NAMES, a=a, b=b, segmenter="made up")
        assert F.relative[[1, 2, 3]].tolist() == [-1, np.inf, 0]
        assert F.missing() == [NAMES[1]]
        rows = {row["concept"]: row for row in F.rows()}
        assert list(rows) == ["tree", *(name for name in ("sky",)), "door"]
        assert (rows["tree"]["images_a"], rows["tree"]["images_b"], rows["door"]["images_b"]) == (0, 1, 0)

    def test_table(self, tmp_path):
        F = planted(50, 0, (20, 6, 3, 31), other=(20, 14, 10, 30))
        F.to_csv(tmp_path / "areas.csv")
        with open(tmp_path / "areas.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        order = np.argsort(F.relative)
        assert [row["concept"] for row in rows] == [NAMES[c].name for c in order]
        assert [float(row["percent_a"]) for row in rows] == pytest.approx(F.a.mean(0)[order], abs=1e-4)
        assert "generator" in F._repr_html_()
        assert "photographs" in repr(F)

    def test_planes_are_percent_of_the_image(self):
        x = torch.full((2, 3, 4, 4), -1.0)
        x[0, 0] = x[0, 2, :2] = x[1, 1, 0, 0] = 1
        np.testing.assert_allclose(areas_of(S3, x), [[100, 0, 50], [0, 6.25, 0]])


class TestSources:
    def test_pictures_images_folder_and_function(self, tmp_path):
        a = pictures(10)
        for i, picture in enumerate(a):
            Image.fromarray(picture).save(tmp_path / f"{i:02d}.png")
        (tmp_path / "notes.txt").write_text("no image")
        x = torch.from_numpy(a).permute(0, 3, 1, 2).float() / 127.5 - 1
        asked = []

        def paint(seeds):
            asked.extend(seeds)
            return a[[seed % 1000 for seed in seeds]], "labels"

        for source in (x, x.numpy(), tmp_path, str(tmp_path)):
            assert np.array_equal(
                gl.segmentation_distance(a, source, S3, n=10, progress=False).b * 64 % 1, np.zeros((10, 3))
            )
            F = gl.segmentation_distance(source, a, S3, n=8, progress=False)
            assert np.array_equal(F.a, F.b)
            assert len(F.a) == 8
        F = gl.segmentation_distance(a, paint, S3, n=10, sample=4, progress=False)
        assert np.array_equal(F.a, F.b)
        assert asked == list(range(5_000_000, 5_000_010))
        assert F.names == ("images a", "paint")
        assert gl.segmentation_distance(tmp_path, a, S3, names=("mine", "yours"), progress=False).names[0] == "mine"

    def test_a_generator_is_sampled_by_seeds(self):
        G = gl.Generator.wrap(Wiring(), 64)
        F = gl.segmentation_distance(G, G, S3, n=40, sample=2, progress=False)
        np.testing.assert_allclose(F.a, areas_of(S3, G.generate(range(2_000_000, 2_000_040))))
        np.testing.assert_allclose(F.b, areas_of(S3, G.generate(range(3_000_000, 3_000_040))))
        assert F.names == ("Wiring", "Wiring")

    def test_an_interrupt_leaves_images_of_both(self):
        def stop(done, total):
            if done == 128:
                signal.raise_signal(signal.SIGINT)

        F = gl.segmentation_distance(pictures(200), pictures(200, 1), S3, progress=stop)
        assert (len(F.a), len(F.b), F.complete) == (128, 128, False)
        assert "incomplete" in repr(F)


class TestErrors:
    def test_too_few_images(self, S):
        with pytest.raises(ValueError, match=r"13 images of mine.* at least 14"):
            gl.segmentation_distance(pictures(13), pictures(20), S, names=("mine", "yours"), progress=False)
        with pytest.raises(ValueError, match="n=1"):
            gl.segmentation_distance(pictures(13), pictures(20), S3, n=1)

    def test_images_of_another_size(self):
        with pytest.raises(ValueError, match=r"images of 8x8 and of 12x12 pixels.*bring all to one size"):
            gl.segmentation_distance(pictures(9), pictures(9, size=12), S3, progress=False)

    def test_folders(self, tmp_path):
        with pytest.raises(ValueError, match="there is no such folder"):
            gl.segmentation_distance(tmp_path / "none", pictures(9), S3)
        with pytest.raises(ValueError, match="no images in it"):
            gl.segmentation_distance(tmp_path, pictures(9), S3)
        for i, size in enumerate((8, 8, 8, 8, 9)):
            Image.new("RGB", (size, 8)).save(tmp_path / f"{i}.png")
        with pytest.raises(ValueError, match=r"0\.png is 8x8 and 4\.png 9x8"):
            gl.segmentation_distance(tmp_path, pictures(9), S3, progress=False)
        (tmp_path / "0.png").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"0\.png: not an image"):
            gl.segmentation_distance(tmp_path, pictures(9), S3, progress=False)

    def test_what_is_no_source(self):
        with pytest.raises(TypeError, match="int given; expected a generator"):
            gl.segmentation_distance(3, pictures(9), S3)
        with pytest.raises(ValueError, match=r"images of shape \(9, 8, 8\)"):
            gl.segmentation_distance(torch.zeros(9, 8, 8), pictures(9), S3, progress=False)
