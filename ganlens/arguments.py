"""Check arguments: return them converted, or raise a ValueError that says what was given and what was expected."""

import difflib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any

MOST_IMAGES = 1_000_000  # of one sample
MOST_LETTERS = 1000  # of a name
LAST_SAMPLE = 2**32 // MOST_IMAGES - 1


def check_integer(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most`` as an int; ValueError otherwise.

    Examples
    --------
    >>> check_integer("k", 3, most=5)
    3
    """
    plain = isinstance(value, Integral) and not isinstance(value, bool)
    if not plain or value < least or (most is not None and value > most):
        limits = f"at least {least}" + ("" if most is None else f" and at most {most:,}")
        raise ValueError(f"{name}={short_repr(value)}: expected {limits}, a whole number")
    return int(value)


def check_image_count(n: Any) -> int:
    """How many images of a sample, as an int."""
    return check_integer("n", n, 1, MOST_IMAGES)


def check_sample(sample: Any, usual: int) -> int:
    """The number of a sample, by default the usual one."""
    try:
        return usual if sample is None else check_integer("sample", sample, 0, LAST_SAMPLE)
    except ValueError:
        raise ValueError(f"sample={short_repr(sample)} is outside 0 … {LAST_SAMPLE}, the numbers of samples") from None


def check_number(name: str, value: Any, low: float, high: float | None = None) -> float:
    """A number from ``low``, or a share up to ``high``, as a float; ValueError otherwise, also for nan and infinity.

    Examples
    --------
    >>> check_number("remove", 0.8, 0, 1)
    0.8
    """
    plain = isinstance(value, Real) and not isinstance(value, bool)
    if not plain or not low <= value < float("inf") or (high is not None and value > high):
        limits = f"number of {low:g} or more" if high is None else f"share from {low:g} to {high:g}"
        raise ValueError(f"{name}={short_repr(value)}: expected a {limits}")
    return float(value)


def as_list(name: str, value: Any, expected: str) -> list:
    """A sequence as a list; ValueError for what has no items, and for a text."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        try:
            return list(value)
        except TypeError:  # arrays and tensors without an axis
            pass
    raise ValueError(f"{name}={short_repr(value)}: expected {expected}")


def check_kind(name: str, value: Any, kinds: type | UnionType | tuple[type, ...], expected: str) -> Any:
    """A value of some type, as it is; ValueError otherwise."""
    if not isinstance(value, kinds):
        raise ValueError(f"{name}: {type(value).__name__} given; expected {expected}")
    return value


def short_repr(value: Any, longest: int = 80) -> str:
    """What was given, for a message: as it is written, but not at any length."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def printable(text: str) -> str:
    """A name as it can be shown and saved: without control characters and halves of characters, not too long."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)[:MOST_LETTERS]


def close_match(kind: str, given: object, known: Sequence[str], owner: str) -> str:
    """Say that ``owner`` has no such name, which one is closest, and what there is.

    Examples
    --------
    >>> close_match("layer", "layer44", ["layer1", "layer4"], "scenes")
    "no layer 'layer44' in scenes; did you mean 'layer4'? It has layer1, layer4"
    """
    matches = difflib.get_close_matches(str(given)[:MOST_LETTERS], known, n=1, cutoff=0.5)
    hint = f"; did you mean {matches[0]!r}?" if matches else "."
    shown = list(known) if len(known) <= 24 else [*known[:20], f"… {len(known) - 20} more"]
    return f"no {kind} {short_repr(given)} in {owner}{hint} It has {', '.join(shown)}"


def first_few(items: Sequence[int] | Sequence[str]) -> str:
    """Numbers or names in words: the first eight, and a mark where there are more."""
    return ", ".join(map(str, items[:8])) + (" …" if len(items) > 8 else "")
