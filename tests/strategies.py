"""Whatever somebody may give to a function, for `hypothesis`: nonsense of all kinds, and what is nearly right."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from planted import COLORS

import ganlens as gl

HUGE = [2**31, 2**32, 2**53 + 1, 2**64, 10**30, -(10**30)]
NUMBERS = st.one_of(
    st.integers(-3, 40), st.sampled_from(HUGE), st.floats(), st.booleans(), st.complex_numbers(max_magnitude=9),
    st.sampled_from([np.int8(3), np.uint64(2**63), np.float32(0.5), np.float64("nan"), np.bool_(True)]),
    st.sampled_from([torch.tensor(3), torch.tensor(0.5), torch.tensor(True)]),
)  # fmt: skip
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=4).map(tuple)
DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int8, np.bool_, np.complex64, "U3", object]
ARRAYS = st.builds(lambda shape, dtype, value: np.full(shape, value).astype(dtype), SHAPES, st.sampled_from(DTYPES),
                   st.sampled_from([0, 1, 2, 0.5]))  # fmt: skip
BROKEN = st.builds(
    lambda shape, value: np.full(shape, value), SHAPES, st.sampled_from([np.nan, np.inf, -np.inf, 1e300])
)
TYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
TENSORS = st.builds(
    lambda shape, dtype, value: torch.full(shape, value, dtype=dtype),
    SHAPES,
    st.sampled_from(TYPES),
    st.sampled_from([0, 1]),
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [
            "",
            "layer",
            "red",
            "red:red",
            "mean",
            "zero",
            "q0.9",
            "q2",
            "presence",
            "../x",
            "/",
            "a\0b",
            "~",
            "é\ud800",
            "1",
        ]
    ),
)
LEAVES = st.one_of(NUMBERS, TEXTS, st.none())
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=2),
    ),
    max_leaves=6,
)


class Odd:
    """Refuses to be compared, measured or turned into anything."""

    def __repr__(self) -> str:
        return "<Odd>"


THINGS = st.sampled_from(
    [
        Odd(), Odd, len, lambda *a, **k: None, b"", b"\x80", bytearray(3), range(0), range(3), slice(2), Ellipsis,
        NotImplemented, set(), {1, 2}, frozenset("ab"), {}, [], (), Path("nothing"), Path(), np.float64,
        torch.nn.ReLU(),
        gl.Concept("red", "red"), gl.Concept("red"), gl.ablate("layer", [0]), gl.ablate("none", [0]), COLORS,
    ]
)  # fmt: skip
ANYTHING = st.one_of(NUMBERS, TEXTS, ARRAYS, BROKEN, TENSORS, NESTED, THINGS, st.none())

# JSON that may be what an edit or a recipe is written as.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([10**400, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def mutated(valid: dict) -> st.SearchStrategy[dict]:
    """A dict of JSON with some of its values replaced, some entries left out, and perhaps one that is too many."""

    def change(left_out: set, other: dict, more: dict) -> dict:
        return {key: other.get(key, value) for key, value in valid.items() if key not in left_out} | more

    keys = st.sampled_from(sorted(valid))
    return st.builds(
        change,
        st.sets(keys, max_size=1),
        st.dictionaries(keys, JSON, max_size=2),
        st.dictionaries(st.text(max_size=3), JSON, max_size=1),
    )


def arguments(usual: dict, near: dict) -> st.SearchStrategy[dict]:
    """Keyword arguments, of which one or two are something else: anything, or from what is nearly right."""

    @st.composite
    def draw(draw):
        names = draw(st.lists(st.sampled_from(sorted({*usual, *near})), min_size=1, max_size=2, unique=True))
        chosen = {name: draw(ANYTHING | near[name] if name in near else ANYTHING) for name in names}
        return usual | chosen

    return draw()
