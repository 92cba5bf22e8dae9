"""A dissection that was killed goes on, and nobody can tell; what is no checkpoint of it is left alone."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import TWO_PLANES, Lattice, Z, two_planes
from test_dissect import RULES, assert_same

import ganlens as gl
from ganlens.dissection import checkpoint as checkpointing

ROOT = Path(__file__).parents[2]


class Watched(Lattice):
    """Tells what it was asked for; fails, or is interrupted, in a given step."""

    def __init__(self):
        super().__init__()
        self.steps, self.fails, self.interrupts = 0, 0, 0

    def forward(self, z):
        self.steps += 1
        if self.steps == self.fails:
            raise RuntimeError("as asked")
        if self.steps == self.interrupts:
            signal.raise_signal(signal.SIGINT)
        return super().forward(z)


@pytest.fixture
def net():
    return Watched()


@pytest.fixture
def G(net):
    found = gl.Generator.wrap(net, Z)
    net.steps = 0
    return found


@pytest.fixture(scope="module")
def S():
    return gl.Segmenter.wrap(two_planes, TWO_PLANES)


def ask(G, S, path=None, **options):
    options = {"n": 120, "rule": RULES, "batch_size": 8, "progress": False, "checkpoint": path} | options
    return gl.dissect(G, S, "layer", **options)


@pytest.fixture(scope="module")
def whole(S):
    return ask(gl.Generator.wrap(Watched(), Z), S)


def assert_all_same(found, whole):
    for rule in RULES:
        assert_same(found[rule], whole[rule])


class TestGoesOn:
    @pytest.mark.parametrize("step", [1, 3, 8, 9, 14])
    @pytest.mark.parametrize("how", ["fails", "interrupts"])
    def test_where_it_ended(self, net, G, S, whole, tmp_path, step, how):
        """Every image is looked at once, or in a step that failed twice."""
        setattr(net, how, step)
        if how == "fails":
            with pytest.raises(RuntimeError, match="as asked"):
                ask(G, S, tmp_path / "c.npz")
        else:
            stopped = ask(G, S, tmp_path / "c.npz")
            assert [(D.n, D.complete) for D in stopped.values()] == [(8 * step, False)] * 3
        assert_all_same(ask(G, S, str(tmp_path / "c.npz")), whole)
        assert net.steps == (16 if how == "fails" else 15)

    def test_saved_as_time_passes(self, G, S, tmp_path, monkeypatch):
        """Not at every step, but after the pilot and whenever it is due."""
        saved = []
        save = checkpointing.Checkpoint.save
        monkeypatch.setattr(checkpointing.Checkpoint, "save", lambda self, s: (saved.append(len(s)), save(self, s)))
        ask(G, S, tmp_path / "a.npz")
        assert len(saved) == 3  # at the start, after the pilot, at the end
        monkeypatch.setattr(checkpointing, "EVERY", 0)
        monkeypatch.setattr(checkpointing, "SHARE", 1e9)
        ask(G, S, tmp_path / "b.npz")
        assert len(saved) == 3 + 16

    def test_of_many_layers_within_categories(self, net, S, tmp_path):
        net.second = torch.nn.Identity()

        def forward(z, usual=net.forward):
            x = usual(z)
            net.second(x.repeat(1, 2, 1, 1) - 0.5)
            return x

        net.forward = forward
        G = gl.Generator.wrap(net, Z)
        options = {"n": 99, "rule": RULES, "within_category": True, "batch_size": 8, "progress": False, "top": 3}
        whole = gl.dissect(G, S, ["second", "layer"], **options)
        net.interrupts = net.steps + 11
        stopped = gl.dissect(G, S, ["second", "layer"], checkpoint=tmp_path / "c.npz", **options)
        assert stopped["layer"]["iou"].n == 88
        found = gl.dissect(G, S, ["second", "layer"], checkpoint=tmp_path / "c.npz", **options)
        for layer in ("second", "layer"):
            assert_all_same(found[layer], whole[layer])

    def test_complete_is_answered_at_once(self, net, G, S, whole, tmp_path):
        ask(G, S, tmp_path / "c.npz")
        before = net.steps, (tmp_path / "c.npz").read_bytes()
        told = []
        assert_all_same(ask(G, S, tmp_path / "c.npz", progress=lambda *args: told.append(args)), whole)
        assert (net.steps, (tmp_path / "c.npz").read_bytes(), told) == (*before, [])

    def test_progress_begins_where_it_ended(self, net, G, S, tmp_path):
        net.interrupts = 9
        ask(G, S, tmp_path / "c.npz")
        told = []
        ask(G, S, tmp_path / "c.npz", progress=lambda *args: told.append(args))
        assert told[:2] == [(72, 120), (80, 120)]


class TestCache:
    def test_same_question(self, net, G, S, whole, tmp_path):
        ask(G, S, cache=tmp_path / "folder")
        before = net.steps
        assert_all_same(ask(G, S, cache=str(tmp_path / "folder"), batch_size=24), whole)
        assert net.steps == before
        assert [path.suffix for path in sorted((tmp_path / "folder").iterdir())] == [".npz", ".lock"]

    def test_usual_folder(self, G, S, whole, tmp_path, monkeypatch):
        monkeypatch.setenv("GANLENS_CACHE", str(tmp_path / "cache"))
        assert_all_same(ask(G, S, cache=True), whole)
        assert len(list((tmp_path / "cache" / "dissections").glob("*.npz"))) == 1

    def test_other_questions(self, net, G, S, tmp_path):
        """Whatever decides the answer makes another file; the answer is the right one."""

        class Other(Watched):
            def forward(self, z):
                return super().forward(z) * 0.5

        weights = Watched()
        weights.mix += 1e-6
        others = [gl.Generator.wrap(weights, Z), gl.Generator.wrap(Other(), Z, name="Watched")]
        others.append(gl.Generator.wrap(Watched(), Z, law="uniform"))
        for level in (0.2, 0.4):
            function = lambda x, level=level: (x[:, 0] > level).int()  # noqa: E731
            ask(G, gl.Segmenter.wrap(function, ["a"], name="mine"), cache=tmp_path)
        assert len(list(tmp_path.glob("*.npz"))) == 2
        for other in others:
            assert_all_same(ask(other, S, cache=tmp_path), ask(other, S))
        for options in ({"n": 96}, {"sample": 1}, {"quantile": 0.02}, {"top": 4}, {"within_category": True}):
            found = ask(G, S, cache=tmp_path, **options)
            assert_all_same(found, ask(G, S, **options))
        assert len(list(tmp_path.glob("*.npz"))) == 2 + 3 + 5


class TestOtherFiles:
    @pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4" + bytes(100)], ids=["empty", "text", "broken zip"])
    def test_foreign(self, net, G, S, tmp_path, content):
        (tmp_path / "c.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged or no checkpoint.*left as it is"):
            ask(G, S, tmp_path / "c.npz")
        assert ((tmp_path / "c.npz").read_bytes(), net.steps) == (content, 0)

    def test_other_archive(self, G, S, whole, tmp_path):
        whole["iou"].save(tmp_path / "c.npz")
        before = (tmp_path / "c.npz").read_bytes()
        with pytest.raises(ValueError, match="is no checkpoint of this ganlens; it was left as it is"):
            ask(G, S, tmp_path / "c.npz")
        assert (tmp_path / "c.npz").read_bytes() == before

    def test_damaged(self, net, G, S, whole, tmp_path):
        """Cut off anywhere, and with single bytes changed: an error, or a byte that says nothing."""
        ask(G, S, tmp_path / "good.npz")
        good, steps = (tmp_path / "good.npz").read_bytes(), net.steps
        rng = np.random.default_rng(0)
        broken = [good[:cut] for cut in rng.integers(0, len(good), 10)]
        for place in rng.integers(0, len(good), 40):
            broken.append(good[:place] + bytes([good[place] ^ 1 << rng.integers(8)]) + good[place + 1 :])
        refused = 0
        for content in broken:
            (tmp_path / "c.npz").write_bytes(content)
            with contextlib.suppress(ValueError):
                assert_all_same(ask(G, S, tmp_path / "c.npz"), whole)
                continue
            refused += 1
            assert (tmp_path / "c.npz").read_bytes() == content
        assert refused > 40
        assert net.steps == steps

    def test_lacks_a_part(self, G, S, tmp_path):
        """Whole as a file, but not what was saved."""
        ask(G, S, tmp_path / "c.npz")
        with np.load(tmp_path / "c.npz") as file:
            state = dict(file)
        for name in ("0.tail.counts", "areas.0.pixels", "0.levels.low", "done"):
            np.savez(tmp_path / "c.npz", **{key: array for key, array in state.items() if key != name})
            before = (tmp_path / "c.npz").read_bytes()
            with pytest.raises(ValueError, match="it was left as it is"):
                ask(G, S, tmp_path / "c.npz")
            assert (tmp_path / "c.npz").read_bytes() == before

    def test_of_another_question(self, G, S, tmp_path):
        ask(G, S, tmp_path / "c.npz")
        before = (tmp_path / "c.npz").read_bytes()
        for options, said in (({"n": 96}, "n 120, not 96"), ({"sample": 2}, "first 0, not 2000000")):
            with pytest.raises(ValueError, match=rf"another dissection \({said}\); it was left"):
                ask(G, S, tmp_path / "c.npz", **options)
        with pytest.raises(ValueError, match=r"another dissection \(segmenter .*, not "):
            ask(G, gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), TWO_PLANES, name="two_planes"), tmp_path / "c.npz")
        assert (tmp_path / "c.npz").read_bytes() == before

    @pytest.mark.parametrize(("path", "kind"), [("nowhere/c.npz", OSError), (".", OSError), (5, ValueError)])
    def test_no_place(self, net, G, S, tmp_path, path, kind):
        with pytest.raises(kind, match=r"cannot be written|no ordinary file|expected a path"):
            ask(G, S, tmp_path / path if isinstance(path, str) else path)
        assert net.steps == 0

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that even root cannot write to")
    def test_folder_that_takes_no_files(self, net, G, S):
        with pytest.raises(OSError, match="cannot be written"):
            ask(G, S, "/proc/self/c.npz")
        assert net.steps == 0

    def test_one_at_a_time(self, net, G, S, whole, tmp_path):
        """Another one in the same process, too."""
        errors, threads = [], threading.active_count()

        def after(done, n):
            if done == 16:
                with pytest.raises(OSError, match=r"c\.npz is in use: another dissection works on it") as error:
                    ask(G, S, tmp_path / "c.npz")
                errors.append(error)

        assert_all_same(ask(G, S, tmp_path / "c.npz", progress=after), whole)
        assert len(errors) == 1
        assert threading.active_count() == threads


PREPARED = """if True:
    import os, random, resource, signal, sys, time, warnings
    from pathlib import Path
    sys.path.insert(0, "tests")
    import numpy as np
    import torch
    torch.set_num_threads(1)
    from planted import TWO_PLANES, Lattice, Z, two_planes
    import ganlens as gl
    from ganlens.dissection import checkpoint as checkpointing

    class Slow(Lattice):
        pause = 0.0

        def forward(self, z):
            time.sleep(Slow.pause)
            return super().forward(z)

    checkpointing.EVERY, checkpointing.SHARE = 0.0, 1.0
    folder = Path(sys.argv[1])
    net = Slow()
    G, S = gl.Generator.wrap(net, Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)

    def ask(path=None):
        found = gl.dissect(G, S, "layer", n=800, rule=["quantile", "iqr"], batch_size=8, progress=False,
                           checkpoint=path)
        saved = []
        for D in found.values():
            D.save(folder / "result.npz")
            saved.append((folder / "result.npz").read_bytes())
        return saved

    def known(path):
        if not path.exists():
            return 0
        with np.load(path) as state:
            return int((state["done"][:, 1] - state["done"][:, 0]).sum())

    def child(do):
        pid = os.fork()
        if pid:
            return pid
        try:
            do()
        except OSError as error:
            print(error, flush=True)
            os._exit(3)
        os._exit(0)

    whole = ask()
"""

KILLED = (
    PREPARED
    + """
    rng, path, kills, before, gone_on = random.Random(0), folder / "c.npz", 0, 0, set()
    Slow.pause = 0.004
    while kills < 20:
        pid = child(lambda: ask(path))
        time.sleep(rng.uniform(0.05, 0.25))
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == 0:  # it was faster: all over again
            assert ask(path) == whole
            path.unlink()
            before = 0
            continue
        kills += 1
        assert known(path) >= before
        before = known(path)
        gone_on.add(before)
    assert len(gone_on) > 5, gone_on
    calls = net.layer.calls
    assert ask(path) == whole
    assert (net.layer.calls - calls) * 8 == 800 - before
    assert sorted(p.name for p in folder.iterdir()) == ["c.npz", "c.npz.lock", "result.npz"]
"""
)

CROWDED = (
    PREPARED
    + """
    # Two processes: the second is told so; when the first is killed, it can go on.
    path = folder / "c.npz"
    Slow.pause = 0.005
    first = child(lambda: ask(path))
    while known(path) < 80:
        time.sleep(0.01)
    second = child(lambda: ask(path))
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 3
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert ask(path) == whole

    # A disk without any room: an error before the first image.
    def full(path, limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        before = net.layer.calls
        try:
            assert ask(path) == whole
        finally:
            print("images", 8 * (net.layer.calls - before), flush=True)

    pid = child(lambda: full(folder / "full.npz", 64))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert not (folder / "full.npz").exists()

    # A disk that is full after a while: a warning, the result, and what was saved before.
    size = path.stat().st_size
    warnings.simplefilter("always")
    def later(path):
        checkpointing.EVERY = 1e9
        def ask_and_fill(done, n):
            if done == 400:
                resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        D = gl.dissect(G, S, "layer", n=800, batch_size=8, progress=ask_and_fill, checkpoint=path)
        assert (D.n, D.complete) == (800, True)
    pid = child(lambda: later(folder / "later.npz"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert known(folder / "later.npz") == 64
"""
)


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to be quick")
class TestRealProcesses:
    @pytest.mark.slow
    def test_killed_at_20_random_moments(self, tmp_path):
        run_script(KILLED, tmp_path)

    def test_company_and_full_disks(self, tmp_path):
        done = run_script(CROWDED, tmp_path)
        assert "c.npz is in use: another dissection works on it" in done.stdout
        assert "full.npz was not written: File too large; nothing was changed" in done.stdout
        assert "images 0" in done.stdout
        assert "later.npz was not written" in done.stderr
        assert "what it found since is only in memory" in done.stderr
