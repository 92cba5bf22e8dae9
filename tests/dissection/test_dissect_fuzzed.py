"""Whatever is given to `dissect`: a dissection that makes sense, or one of the errors that its text names."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import TWO_PLANES, Lattice, Z, two_planes

import ganlens as gl

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.just([]),
    st.just({}), st.just(object()), st.just(np.float32(0.5)), st.just(np.int64(3)), st.just(np.arange(3)),
)  # fmt: skip
NAMES = st.sampled_from(["layer", "second", "leyer", "", "layer.x"])
RULES = st.sampled_from(["quantile", "iqr", "iou", "best"])
USUAL = {
    "layers": st.just("layer")
    | st.just(["layer"])
    | NAMES
    | st.lists(NAMES, max_size=3)
    | st.lists(ANYTHING, max_size=2),
    "n": st.integers(1, 20) | st.just(70),
    "rule": st.sampled_from(["quantile", "iqr", "iou", ["iqr", "quantile"]]) | RULES | st.lists(RULES, max_size=3),
    "quantile": st.floats(0, 1) | st.sampled_from([1e-300, 1 - 1e-16, 0.5, np.float32(0.01)]),
    "sample": st.integers(0, 4293) | st.just(np.uint8(4)),
    "batch_size": st.none() | st.integers(1, 100) | st.integers(1, 10**30),
    "within_category": st.booleans(),
    "top": st.integers(1, 100) | st.integers(1, 2000),
    "memory": st.none() | st.sampled_from(["100 MB", "1 GB", "10 kB", 10**8, "lots"]),
    "executor": st.none() | st.just(ThreadPoolExecutor(1)),
    "shards": st.none() | st.integers(0, 9),
}


@pytest.fixture(scope="module")
def pair():
    net = Lattice()
    return gl.Generator.wrap(net, Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)


def check(pair, options: dict) -> None:
    """An answer that makes sense, or a documented error that says something."""
    with contextlib.suppress(ValueError):
        found = gl.dissect(*pair, **{"layers": "layer", "n": 8, "progress": False} | options)
        make_sense(found, options)


def make_sense(found, options: dict) -> None:
    by_layer = found if not isinstance(options.get("layers", ""), str) else {"": found}
    for of_layer in by_layer.values():
        for D in of_layer.values() if isinstance(of_layer, dict) else [of_layer]:
            assert D.complete
            assert D.n == options.get("n", 8)
            assert np.isfinite(D.iou).all()
            assert (D.iou >= 0).all()
            assert (D.iou <= 1).all()
            assert (D.overlap <= D.on).all()
            assert repr(D)


MANY = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@MANY
@given(options=st.fixed_dictionaries({}, optional=USUAL))
def test_what_may_make_sense(pair, options):
    check(pair, options)


@MANY
@given(name=st.sampled_from([*USUAL, "checkpoint", "cache"]), value=ANYTHING)
def test_what_does_not(pair, name, value, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("here")
        patch.chdir(folder)
        patch.setenv("GANLENS_CACHE", str(folder))
        if name in ("checkpoint", "cache"):
            stack.enter_context(contextlib.suppress(OSError))  # paths that cannot be written
        check(pair, {name: value})


@pytest.mark.parametrize("networks", [(None, None), (3, "scenes"), ("scenes", None)])
def test_no_networks(pair, networks):
    for broken in (networks, (networks[0], pair[1]), (pair[0], networks[1])):
        with pytest.raises(ValueError, match=r"given; expected one from gl\.load_"):
            gl.dissect(*broken, "layer", n=8)
