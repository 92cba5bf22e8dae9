"""What a stroke did, in a sentence: what was asked for, what took its place, and how much else changed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST = 0.05  # percent of the picture: less is nothing
NAMED = 0.3  # percent of the picture, from which another concept is named
WHOLE = 0.95  # share of a concept that is called all of it


class Result(NamedTuple):
    """A line in large type, one in small, and whether nothing came of it."""

    head: str
    more: str = ""
    warns: bool = False


def result_of(names: Sequence[str], concept: int | None, before: np.ndarray, after: np.ndarray, pixels: int) -> Result:
    """The sentence for pixels (C,) of all concepts before and after a stroke; ``concept`` is the one asked for."""
    change = 100 * (after - before) / pixels
    asked = concept is not None
    if concept is None:
        concept = int(np.abs(change).argmax())
    name, own = names[concept], change[concept]
    others = [c for c in np.argsort(np.sign(own or 1) * change, kind="stable") if c != concept]
    taken = [c for c in others if abs(change[c]) >= NAMED and change[c] * own < 0][:2]
    rest = max((abs(change[c]) for c in others if c not in taken), default=0.0)
    else_ = f"Everything else within {math.ceil(10 * rest) / 10:.1f} %."
    if abs(own) < LEAST:
        return Result(
            f"{name}: nothing changed" if asked else "Nothing changed",
            f"{else_} Another place, or another strength, may do more.",
            True,
        )
    head = f"{name} {signed(own)} of the picture"
    if own < 0 and before[concept]:
        gone = -own * pixels / 100 / before[concept]
        head += ": all of it" if gone >= WHOLE else f": {gone:.0%} of it"
    first = "In its place" if own < 0 else "Less of"
    listed = " and ".join(f"{names[c]} ({signed(change[c])})" for c in taken)
    return Result(head, f"{first} {listed}. {else_}" if listed else else_)


def signed(percent: float) -> str:
    """A change in percent, with its sign."""
    return f"{percent:+.1f} %".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """Names in a row, with "and" before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
