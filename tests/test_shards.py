"""The work of a dissection is shared out to real processes, and nobody can tell from the result."""

import multiprocessing
import os
import pickle
import signal
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from planted import TWO_PLANES, Lattice, Z, two_planes
from test_dissect import RULES, assert_same

import ganlens as gl
from ganlens import shards as sharding
from ganlens.shards import split

N = 203


class Moody(Lattice):
    """In workers, does something the first times that it is asked: ``mood`` and how often, counted by files."""

    def __init__(self, mood: str, times: int, folder: Path):
        super().__init__()
        self.mood, self.times, self.folder, self.home = mood, times, str(folder), str(os.getpid())

    def forward(self, z):
        if str(os.getpid()) != self.home and self.counted():
            if self.mood == "fails":
                raise RuntimeError("as asked")
            if self.mood == "refuses":
                raise ValueError("no such thing")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(z)

    def counted(self) -> bool:
        for i in range(self.times):
            try:
                os.close(os.open(f"{self.folder}/{i}", os.O_CREAT | os.O_EXCL))
                return True
            except FileExistsError:
                pass
        return False


def threads_in_worker(x):
    """Concept 1 everywhere where torch has one thread, else nothing."""
    return torch.full_like(x[:, 0], int(torch.get_num_threads() == 1)).int()


def pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def workers():
    with pool(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def pair():
    return gl.Generator.wrap(Lattice(), Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)


def ask(G, S, **options):
    return gl.dissect(G, S, "layer", **{"n": N, "rule": RULES, "batch_size": 24, "progress": False} | options)


@pytest.fixture(scope="module")
def whole(pair):
    return ask(*pair)


def assert_all_same(found, whole, folder):
    for rule in RULES:
        assert_same(found[rule], whole[rule])
        for name, D in (("a", found[rule]), ("b", whole[rule])):
            D.save(folder / name)
        assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


class TestSame:
    @pytest.mark.parametrize("shards", [1, 2, 3, 7, 1000, None])
    def test_in_any_number_of_shards(self, workers, pair, whole, tmp_path, shards):
        assert_all_same(ask(*pair, executor=workers, shards=shards), whole, tmp_path)

    @pytest.mark.slow
    def test_of_real_networks(self, workers, G, S, tmp_path):
        options = {"n": 90, "rule": RULES, "progress": False, "within_category": True}
        found = gl.dissect(G, S, "layer3", executor=workers, shards=3, **options)
        assert_all_same(found, gl.dissect(G, S, "layer3", **options), tmp_path)

    def test_in_threads(self, pair, whole, tmp_path):
        with ThreadPoolExecutor(3) as executor:
            assert_all_same(ask(*pair, executor=executor, shards=5), whole, tmp_path)

    @pytest.mark.parametrize("n", [2, 64, 65])
    def test_of_small_samples(self, workers, pair, tmp_path, n):
        """Where there is little or nothing to share out."""
        assert_all_same(ask(*pair, n=n, executor=workers), ask(*pair, n=n), tmp_path)

    def test_progress(self, workers, pair):
        told = []
        ask(*pair, executor=workers, shards=3, progress=lambda *args: told.append(args))
        assert told[0] == (24, N)
        assert told[-1] == (N, N)
        assert len(told) == 3 + 3  # of the pilot, of the shards

    def test_numbers_of_workers_threads(self, workers, pair):
        """One for each worker, so that workers do not stand in each other's way."""
        S = gl.Segmenter.wrap(threads_in_worker, ["alone"])
        D = gl.dissect(pair[0], S, "layer", n=80, executor=workers, progress=False)
        assert D.area[0] / D.scope[0] == (1 if torch.get_num_threads() == 1 else 16 / 80)


@pytest.mark.parametrize("seed", range(20))
def test_split(seed):
    """Without gaps and overlaps, in whole granules, of about the same length."""
    rng = torch.Generator().manual_seed(seed)
    start, gap, n, count = (int(torch.randint(1, high, (), generator=rng)) for high in (10**6, 9, 500, 40))
    parts = [range(start, start + 64), range(start + 64 + 8 * gap, start + 64 + 8 * gap + n)]
    found = split(parts, count, granule=8)
    assert [seed for part in found for seed in part] == [seed for part in parts for seed in part]
    for part in found:
        inside = next(p for p in parts if part.start in p)
        assert (part.start - inside.start) % 8 == 0
        assert len(part) <= 1.5 * (64 + n) / count + 8


class TestFailures:
    def test_is_tried_again(self, workers, pair, whole, tmp_path):
        G = gl.Generator.wrap(Moody("fails", 2, tmp_path), Z, name="Lattice")
        found = ask(G, pair[1], executor=workers, shards=2)
        for rule in RULES:
            assert_same(found[rule], whole[rule])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

    def test_three_times_is_enough(self, workers, pair, tmp_path):
        G = gl.Generator.wrap(Moody("fails", 100, tmp_path), Z)
        with pytest.raises(RuntimeError, match=r"the shard of images 64 … 202 failed 3 times, at last by .*as asked"):
            ask(G, pair[1], executor=workers, shards=1)
        assert len(list(tmp_path.iterdir())) == 3

    def test_what_cannot_be_helped_is_not_tried_again(self, workers, pair, tmp_path):
        G = gl.Generator.wrap(Moody("refuses", 100, tmp_path), Z)
        with pytest.raises(ValueError, match="no such thing"):
            ask(G, pair[1], executor=workers, shards=1)
        assert len(list(tmp_path.iterdir())) == 1

    def test_dead_worker(self, pair, whole, tmp_path):
        """Said; what was done is in the checkpoint, and another executor goes on."""
        (tmp_path / "deaths").mkdir()
        G = gl.Generator.wrap(Moody("dies", 1, tmp_path / "deaths"), Z, name="Lattice")
        with (
            pool(1) as executor,
            pytest.raises(RuntimeError, match=r"a worker died .*it was at the shard of images .*give a new executor"),
        ):
            ask(G, pair[1], executor=executor, shards=3, checkpoint=tmp_path / "c.npz")
        with ThreadPoolExecutor(2) as executor:
            steps = G.net.layer.calls
            found = ask(G, pair[1], executor=executor, checkpoint=tmp_path / "c.npz", batch_size=8)
        for rule in RULES:
            assert_same(found[rule], whole[rule])
        assert G.net.layer.calls - steps == -(-(N - 64) // 8)

    def test_broken_executor(self, pair):
        with pool(1) as executor:
            pass
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            ask(*pair, executor=executor)


class TestTravel:
    def test_generators(self, G):
        """A copy answers the same, and has a lock of its own."""
        copy = pickle.loads(pickle.dumps(G))
        assert torch.equal(copy.generate(range(3)), G.generate(range(3)))
        assert copy.fingerprint == G.fingerprint
        assert copy._lock is not G._lock
        assert G.variant()._lock is G._lock

    def test_a_lambda_without_cloudpickle(self, workers, pair, monkeypatch):
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["a"])
        with pytest.raises(ValueError, match=r"pickle.*define networks and functions in a module.*ganlens\[cluster\]"):
            ask(pair[0], S, executor=workers)

    def test_a_lambda_with_cloudpickle(self, workers, pair, tmp_path):
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["a"], name="mine")
        assert_all_same(ask(pair[0], S, executor=workers), ask(pair[0], S), tmp_path)

    def test_other_versions(self, pair, monkeypatch):
        usual, asked = sharding.versions(), iter([("0.0", 0, "1.0")] * 3)
        monkeypatch.setattr(sharding, "versions", lambda: next(asked, usual))
        with (
            ThreadPoolExecutor(1) as executor,
            pytest.raises(ValueError, match=r"workers have other versions .*install the same"),
        ):
            ask(*pair, executor=executor, shards=3)


class Slowly(Executor):
    """Does the first task at once; asks for the end of it all during the second; never begins the others."""

    def __init__(self):
        self.futures = []

    def submit(self, function, *args):
        future = Future()
        self.futures.append(future)
        if len(self.futures) == 1:
            future.set_result(function(*args))
        if len(self.futures) == 4:
            signal.raise_signal(signal.SIGINT)
        return future


class TestInterrupt:
    def test_what_is_done_is_returned(self, pair, whole, tmp_path):
        """Shards that wait are cancelled; the checkpoint goes on from there, with or without an executor."""
        executor = Slowly()
        stopped = ask(*pair, executor=executor, shards=4, checkpoint=tmp_path / "c.npz")["quantile"]
        assert (64 < stopped.n < N, stopped.complete) == (True, False)
        assert [future.cancelled() for future in executor.futures] == [False, True, True, True]
        stopped.complete = True
        assert_same(stopped, ask(*pair, n=stopped.n, rule="quantile"), sure=False)
        assert_all_same(ask(*pair, checkpoint=tmp_path / "c.npz"), whole, tmp_path)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"executor": 3}, "executor: int given; expected a concurrent.futures.Executor"),
            ({"executor": ThreadPoolExecutor(1), "shards": 0}, "shards=0: expected at least 1, a whole number"),
            ({"shards": 3}, "shards=3, but there is no executor"),
        ],
    )
    def test_arguments(self, pair, options, message):
        with pytest.raises(ValueError, match=message):
            ask(*pair, **options)
