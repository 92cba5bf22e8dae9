"""Laws that every statistic obeys; a statistic without a case here fails."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import ganlens
from ganlens.dissection.blocks import BlockCounts
from ganlens.dissection.cells import Cells
from ganlens.dissection.layer_statistics import NonFinite
from ganlens.statistics import Areas, JointCounts, Levels, Scale, Statistic, TopImages

UNITS, COLUMNS, PARTS = 4, 3, 5


class Case(NamedTuple):
    """How to make a statistic (of another scale, if asked), and what to feed it with."""

    make: Callable[..., Statistic]
    updates: list[tuple]


def parts():
    """Features, label columns and seeds of five small batches of different sizes; ties and dead units included."""
    rng = torch.Generator().manual_seed(0)
    for i in range(PARTS):
        r = torch.randn(i % 3 + 1, UNITS, 5, 4, generator=rng)
        r[:, 1], r[:, 2] = 0, r[:, 2].round().relu()
        planes = torch.randint(-1, COLUMNS, (len(r), 2, 10, 9), generator=rng).short()
        yield r, planes, [10 * i + n for n in range(len(r))]


def scale(shift=0.0):
    return Scale(torch.full((UNITS,), -1.0 + shift), torch.full((UNITS,), 2.0), bins=32)


def block_counts(*shift):
    return BlockCounts(JointCounts(scale(*shift), COLUMNS), (0, 512), 2)


def cells(*shift):
    return Cells(scale(*shift), torch.zeros(UNITS, 1), (5, 4), (10, 9), COLUMNS, 2)


CASES = {
    JointCounts: Case(lambda *s: JointCounts(scale(*s), COLUMNS), [(r, planes) for r, planes, _ in parts()]),
    Levels: Case(lambda *s: Levels(scale(*s)), [(r,) for r, _, _ in parts()]),
    TopImages: Case(lambda: TopImages(UNITS, k=4), [(r, seeds) for r, _, seeds in parts()]),
    NonFinite: Case(lambda: NonFinite(UNITS), [(r.amax((2, 3)) > 1,) for r, _, _ in parts()]),
    Areas: Case(lambda: Areas(COLUMNS), [(planes,) for _, planes, _ in parts()]),
    BlockCounts: Case(block_counts, [(r, planes, i % 2) for i, (r, planes, _) in enumerate(parts())]),
    Cells: Case(cells, [(r, planes, i % 2) for i, (r, planes, _) in enumerate(parts())]),
}


def statistics_of_the_package() -> set[str]:
    """Names of all classes that derive from Statistic, in any module."""
    trees = [ast.parse(path.read_text("utf-8")) for path in Path(ganlens.__file__).parent.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base).split(".")[-1] for base in node.bases} for node in classes}
    found = {"Statistic"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found - {"Statistic"}


def test_every_statistic_has_a_case():
    assert {kind.__name__ for kind in CASES} == statistics_of_the_package()


@pytest.fixture(params=CASES, ids=lambda kind: kind.__name__)
def case(request):
    return CASES[request.param]


def fed(case, which):
    statistic = case.make()
    for i in which:
        statistic.update(*case.updates[i])
    return statistic


def assert_same(a: Statistic, b: Statistic):
    state_a, state_b = a.state(), b.state()
    assert state_a.keys() == state_b.keys()
    for name in state_a:
        assert state_a[name].dtype == state_b[name].dtype, name
        np.testing.assert_array_equal(state_a[name], state_b[name], err_msg=name)


def test_updates_change_something(case):
    with pytest.raises(AssertionError):
        assert_same(fed(case, [0]), fed(case, [0, 1]))


@pytest.mark.parametrize("cut", range(PARTS + 1))
def test_merge_of_updates_is_update_of_both(case, cut):
    merged = fed(case, range(cut)).merge(fed(case, range(cut, PARTS)))
    assert_same(merged, fed(case, range(PARTS)))


@pytest.mark.parametrize("which", [[0], [3, 1], range(PARTS)], ids=len)
def test_empty_is_the_identity(case, which):
    assert_same(fed(case, which).merge(case.make()), fed(case, which))
    assert_same(case.make().merge(fed(case, which)), fed(case, which))


@pytest.mark.parametrize("seed", range(3))
def test_order_does_not_matter(case, seed):
    order = np.random.default_rng(seed).permutation(PARTS)
    assert_same(fed(case, order), fed(case, range(PARTS)))
    merged = case.make()
    for i in order:
        merged.merge(fed(case, [i]))
    assert_same(merged, fed(case, range(PARTS)))


def test_merge_is_associative(case):
    left = fed(case, [0, 1]).merge(fed(case, [2])).merge(fed(case, [3, 4]))
    right = fed(case, [0, 1]).merge(fed(case, [2]).merge(fed(case, [3, 4])))
    assert_same(left, right)


def test_batches_may_be_split(case):
    """An update with a batch is an update with each of its images."""
    single = case.make()
    for update in case.updates:
        for n in range(len(update[0])):
            single.update(*(part if isinstance(part, int) else part[n : n + 1] for part in update))
    assert_same(single, fed(case, range(PARTS)))


def test_state_round_trips(case, tmp_path):
    """Through a file; and what comes back can go on."""
    before = fed(case, [0, 1, 2])
    np.savez(tmp_path / "state.npz", **before.state())
    with np.load(tmp_path / "state.npz") as file:
        after = type(before).from_state(dict(file))
    assert_same(after, before)
    assert after.scale == before.scale
    after = case.make().merge(after)
    after.update(*case.updates[3])
    assert_same(after.merge(fed(case, [4])), fed(case, range(PARTS)))


def test_state_is_not_shared(case):
    """What is rebuilt from a state is independent of it."""
    before = fed(case, [0])
    state = before.state()
    type(before).from_state(state).merge(fed(case, [1]))
    case.make().merge(type(before).from_state(state)).update(*case.updates[1])
    assert_same(before, fed(case, [0]))


def test_merge_leaves_the_other_alone(case):
    other = fed(case, [1, 2])
    merged = fed(case, [0]).merge(other)
    assert_same(other, fed(case, [1, 2]))
    merged.update(*case.updates[3])
    assert_same(other, fed(case, [1, 2]))


@pytest.mark.parametrize("kind", [kind for kind in CASES if CASES[kind].make().scale], ids=lambda kind: kind.__name__)
def test_other_scales_are_refused(kind):
    case = CASES[kind]
    a, b = fed(case, [0]), case.make(0.5)
    with pytest.raises(ValueError, match="different scales"):
        a.merge(b)
    assert_same(a, fed(case, [0]))


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind is not TopImages], ids=lambda kind: kind.__name__)
def test_counts_are_whole_numbers(kind):
    """Sums of floats would depend on their order."""
    statistic = fed(CASES[kind], range(PARTS))
    added = [name for name, operation in kind.merges.items() if operation is torch.add]
    assert added
    assert [name for name in added if getattr(statistic, name).is_floating_point()] == []
