"""Context, effects of single units and the search for artifacts are shared out, and nobody can tell from the result."""

import dataclasses
import multiprocessing
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import test_artifacts
import test_shards
import torch
from classifiers import COLORS, Signs, signs
from planted import TWO_PLANES, Z, two_planes

import ganlens as gl
from ganlens.shards import split


def colors(x):
    return x.flatten(2)[..., ::7].mean(2)


@pytest.fixture(scope="module")
def workers():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def planted():
    """Nine units that have something to do with five concepts."""
    G, S = gl.Generator.wrap(test_shards.Lattice(), Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)
    return gl.dissect(G, S, "layer", n=64, progress=False)


@pytest.fixture(scope="module")
def broken():
    G = gl.Generator.wrap(test_artifacts.Blobs(), test_artifacts.Z, "broken", layers=["layer"])
    return gl.dissect(G, gl.Segmenter.wrap(two_planes, TWO_PLANES), "layer", n=48, progress=False)


def context(D, **options):
    return gl.context(D, "above", [2, 5], **{"n": 11, "draws": 2, "sample": 1, "progress": False} | options)


def effects(D, **options):
    return gl.unit_effects(D, **{"n": 40, "progress": False} | options)


def artifacts(D, method="distance", **options):
    x = test_artifacts.reference(n=72)
    options = {"n": 72, "k": 2, "extractor": colors, "progress": False} | options
    return gl.find_artifacts(D, x, method, **options)


def assert_same(found, whole):
    for field in dataclasses.fields(whole):
        if field.name != "dissection":
            np.testing.assert_array_equal(getattr(found, field.name), getattr(whole, field.name), field.name)


SHARDS = pytest.mark.parametrize("shards", [1, 2, 3, 7, None])


class TestSame:
    @SHARDS
    def test_context(self, workers, planted, shards):
        assert_same(context(planted, executor=workers, shards=shards), context(planted))

    @SHARDS
    @pytest.mark.parametrize("to", ["zero", "mean"])
    def test_effects(self, workers, planted, shards, to):
        found = effects(planted, executor=workers, shards=shards, to=to)
        np.testing.assert_array_equal(found, effects(planted, to=to))

    def test_effects_that_are_left(self, workers, planted):
        """Of some units, in an order of their own, of which some are known."""
        units, whole = [7, 2, 5, 3], effects(planted)
        known = whole[units] + 1
        known[[0, 2]] = np.nan
        found = effects(planted, units=units, known=known, executor=workers, shards=2)
        np.testing.assert_array_equal(found, np.where(np.isnan(known), whole[units], known))

    @SHARDS
    @pytest.mark.parametrize("method", ["distance", "activation"])
    def test_artifacts(self, workers, broken, shards, method):
        found = artifacts(broken, method, executor=workers, shards=shards)
        assert_same(found, artifacts(broken, method))
        assert found.distances.shape == (11, 5)

    @SHARDS
    @pytest.mark.parametrize("to", ["zero", "mean"])
    def test_ablation(self, workers, planted, shards, to):
        """Of 70 images, in batches of 32, with a region, a curve and random sets."""
        some = {"units": [2, 5], "n": 70, "to": to, "curve": True, "inside": True, "progress": False}
        some["region"] = np.eye(*planted.shape[:2])
        found = gl.ablation_effect(planted, "above", executor=workers, shards=shards, **some)
        whole = gl.ablation_effect(planted, "above", **some)
        assert_same(dataclasses.replace(found, curve=()), dataclasses.replace(whole, curve=()))
        for part, other in zip(found.curve, whole.curve, strict=True):
            assert_same(part, other)

    def test_rankings(self, workers, planted):
        some = {"by": {"one": [2, 5], "other": [5, 2]}, "k": 2, "n": 70, "progress": False}
        found = gl.compare_rankings(planted, "above", executor=workers, shards=3, **some)
        for name, whole in gl.compare_rankings(planted, "above", **some).items():
            np.testing.assert_array_equal(found[name].after, whole.after)
            np.testing.assert_array_equal(found[name].curve[0].changed, whole.curve[0].changed)

    @SHARDS
    @pytest.mark.parametrize("measure", [gl.insertion_effect, gl.average_causal_effect])
    def test_insertion(self, workers, planted, shards, measure):
        """Every image has its own place, wherever it is made."""
        some = {"units": [2, 5], "n": 70, "level": 2.0, "patch": 1, "progress": False}
        assert_same(
            measure(planted, "above", executor=workers, shards=shards, **some), measure(planted, "above", **some)
        )

    @SHARDS
    def test_segmentation_distance(self, workers, planted, shards):
        """Of a generator and of fewer given images, which end in the second batch."""
        G, S = planted.generator, planted.segmenter
        x = G.generate(range(5000, 5050)).clamp(-1, 1)
        found = gl.segmentation_distance(G, x, S, n=70, executor=workers, shards=shards, progress=False)
        whole = gl.segmentation_distance(G, x, S, n=70, progress=False)
        assert (found.a.shape[0], found.b.shape[0]) == (70, 50)
        assert_same(found, whole)

    @SHARDS
    def test_accuracy(self, workers, shards):
        C = gl.Classifier.wrap(Signs(), *signs(200), class_names=COLORS, name="signs")
        edits = [gl.ablate("layer", [2, 3], to="mean")]
        found = gl.class_accuracy(C, edits, executor=workers, shards=shards, progress=False)
        assert_same(found, gl.class_accuracy(C, edits, progress=False))

    def test_accuracy_of_images_that_come_twice(self, workers):
        C = gl.Classifier.wrap(Signs(), *signs(200), class_names=COLORS, name="signs")
        some = {"seeds": [0, 1, 2, 3] * 40 + list(range(70)), "draws": 1, "progress": False}
        found = gl.class_accuracy(C, gl.ablate("layer", [2]), executor=workers, shards=7, **some)
        assert_same(found, gl.class_accuracy(C, gl.ablate("layer", [2]), **some))

    def test_important_units(self, workers):
        C = gl.Classifier.wrap(Signs(), *signs(200), class_names=COLORS, name="signs")
        D = gl.dissect(C, gl.Segmenter.wrap(two_planes, TWO_PLANES), "layer", n=32, progress=False)
        found = gl.important_units(D, "red", executor=workers, shards=3, progress=False)
        assert_same(found, gl.important_units(D, "red", progress=False))

    @pytest.mark.slow
    def test_of_the_embedded_networks(self, workers, D):
        """With the segmenter's bottleneck as features, on two threads here and one there."""
        torch.set_num_threads(2)
        try:
            some = {"n": 3, "stride": 4, "draws": 1, "progress": False}
            assert_same(gl.context(D, "tree", executor=workers, shards=2, **some), gl.context(D, "tree", **some))
            some = {"units": [1, 4, 9], "n": 16, "progress": False}
            found = gl.unit_effects(D, executor=workers, shards=2, **some)
            np.testing.assert_array_equal(found, gl.unit_effects(D, **some))
            some = {"n": 136, "method": "activation", "k": 2, "draws": 1, "progress": False}
            found = gl.find_artifacts(D, executor=workers, shards=3, **some)
            assert_same(found, gl.find_artifacts(D, **some))
        finally:
            torch.set_num_threads(1)


class TestWork:
    def test_progress(self, workers, planted, broken):
        for function, D, total in ((context, planted, 11), (effects, planted, 9 * 40), (artifacts, broken, 7 * 72)):
            told = []
            function(D, executor=workers, shards=2, progress=lambda *args, told=told: told.append(args))
            assert [all_ for _, all_ in told] == [total] * len(told)
            assert [done for done, _ in told] == sorted({done for done, _ in told})
            assert told[-1] == (total, total)

    def test_shards_have_several_units(self):
        """An image is made once for each shard, which many units should share."""
        assert list(map(len, split([range(192)], None, smallest=8))) == [12] * 16

    @pytest.mark.parametrize("function", [context, effects, artifacts])
    def test_fails_twice(self, workers, tmp_path, function):
        """A shard that fails is tried again."""
        G = gl.Generator.wrap(test_shards.Moody("fails", 2, tmp_path), Z, "Moody", layers=["layer"])
        D = gl.dissect(G, gl.Segmenter.wrap(two_planes, TWO_PLANES), "layer", n=64, progress=False)
        found = function(D, executor=workers, shards=2) if function is not artifacts else small_search(D, workers)
        assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["0", "1"]
        whole = function(D) if function is not artifacts else small_search(D, None)
        np.testing.assert_array_equal(found, whole) if function is effects else assert_same(found, whole)

    @pytest.mark.parametrize("function", [context, effects, artifacts])
    def test_executor_that_is_none(self, planted, function):
        with pytest.raises(ValueError, match="executor: int given; expected a concurrent"):
            function(planted, executor=3)
        with pytest.raises(ValueError, match="shards=2, but there is no executor"):
            function(planted, shards=2)


def small_search(D, executor):
    """Of artifacts in small images."""
    reference = D.generator.generate(range(200, 280))
    options = {"n": 80, "k": 2, "extractor": colors, "executor": executor, "progress": False}
    return gl.find_artifacts(D, reference, "activation", **options)


class Skipping(Executor):
    """Does all tasks but one at once, and asks for the end of it all."""

    def __init__(self, skipped: int):
        self.skipped, self.count = skipped, 0

    def submit(self, function, *args):
        future = Future()
        if self.count != self.skipped:
            future.set_result(function(*args))
        self.count += 1
        if self.count == 4:
            signal.raise_signal(signal.SIGINT)
        return future


class TestInterrupt:
    @pytest.fixture
    def slowly(self):
        return test_shards.Slowly()

    def test_context(self, planted, slowly):
        """The images of shards that were finished."""
        found = context(planted, executor=slowly, shards=4)
        assert [future.cancelled() for future in slowly.futures] == [False, True, True, True]
        assert (found.n, found.complete) == (2, False)
        whole = context(planted)
        np.testing.assert_array_equal(found.gained, whole.gained[:2])
        np.testing.assert_array_equal(found.random_gained, whole.random_gained[:2])

    def test_gaps(self, planted):
        """Images that follow upon a missing one are left out, so that image i stays image i of the sample."""
        assert context(planted, executor=Skipping(1), shards=4).n == 2
        with pytest.raises(KeyboardInterrupt):
            context(planted, executor=Skipping(0), shards=4)
        found, whole = effects(planted, executor=Skipping(1), shards=4), effects(planted)
        assert np.isnan(found).all(1).tolist() == [False] * 2 + [True] * 2 + [False] * 5
        np.testing.assert_array_equal(found[[0, 1, 4, 8]], whole[[0, 1, 4, 8]])

    def test_effects(self, planted, slowly):
        """What is left has nan, and the same call goes on from there, here or elsewhere."""
        part, whole = effects(planted, executor=slowly, shards=4), effects(planted)
        assert np.isnan(part).all(1).tolist() == [False] * 2 + [True] * 7
        with ThreadPoolExecutor(2) as executor:
            np.testing.assert_array_equal(effects(planted, known=part, executor=executor), whole)

    def test_ablation(self, planted, slowly):
        """The images of shards that were finished; where there is none, the interrupt itself."""
        some = {"units": [2, 5], "n": 128, "progress": False}
        found = gl.ablation_effect(planted, "above", executor=slowly, shards=4, **some)
        assert (found.n, found.complete) == (32, False)
        np.testing.assert_array_equal(found.after, gl.ablation_effect(planted, "above", **some).after[:32])
        with pytest.raises(KeyboardInterrupt):
            gl.ablation_effect(planted, "above", executor=Skipping(0), shards=4, **some)

    def test_artifacts(self, broken, slowly):
        """A ranking by the images of finished shards, if the method allows it, and no distances."""
        found = artifacts(broken, "activation", n=136, executor=slowly, shards=4)
        assert (found.complete, found.distances) == (False, None)
        assert np.isfinite(found.scores).all()

    def test_artifacts_before_there_is_a_ranking(self, broken, slowly):
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            artifacts(broken, "distance", n=136, executor=slowly, shards=4)
        assert signal.getsignal(signal.SIGINT) is handler
