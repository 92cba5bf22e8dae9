import numpy as np
import pytest
import torch

from ganlens import arguments


def test_whole_numbers_of_all_kinds_are_ints():
    assert [type(arguments.check_integer("k", value)) for value in (1, np.int8(3), np.uint64(7))] == [int] * 3


@pytest.mark.parametrize("value", [0, -1, 6, 1.0, True, "3", None, np.float32(2), float("nan"), 10**30, torch.ones(3)])
def test_what_is_no_whole_number_is_said(value):
    with pytest.raises(ValueError, match=r"^k=.*: expected at least 1 and at most 5, a whole number$"):
        arguments.check_integer("k", value, 1, 5)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), True, "0.5", None, 1j, np.ones(2)])
def test_what_is_no_number_of_the_range_is_said(value):
    with pytest.raises(ValueError, match=r"^remove=.*: expected a share from 0 to 1$"):
        arguments.check_number("remove", value, 0, 1)


def test_a_number_without_upper_limit_is_finite():
    assert arguments.check_number("strength", np.float32(1e30), 0) == np.float32(1e30)
    with pytest.raises(ValueError, match="expected a number of 0 or more"):
        arguments.check_number("strength", float("inf"), 0)


@pytest.mark.parametrize("value", [3, None, "abc", b"abc", np.float32(3), np.array(3), torch.tensor(3)])
def test_what_has_no_items_is_said(value):
    with pytest.raises(ValueError, match="expected names"):
        arguments.as_list("layers", value, "names")


def test_items_of_all_kinds_are_listed():
    items = (range(2), {0: "a", 1: "b"}, np.arange(2), (i for i in range(2)))
    assert [arguments.as_list("units", value, "numbers") for value in items] == [[0, 1]] * 4


def test_a_sample_is_the_usual_one_or_another():
    assert arguments.check_sample(None, 7) == 7
    assert arguments.check_sample(4293, 7) == 4293
    with pytest.raises(ValueError, match="sample=4294 is outside 0 … 4293"):
        arguments.check_sample(4294, 7)


def test_long_things_are_not_shown_at_length():
    assert len(arguments.short_repr("x" * 1000)) == 80
