"""The colours of the painted scenes: float32 (3, 1, 1) in 0..1, so that they mix with planes (h, w)."""

from typing import NamedTuple

import numpy as np


def rgb(code):
    """The colour '#rrggbb'."""
    return np.array(list(bytes.fromhex(code[1:])), np.float32).reshape(3, 1, 1) / 255


def colours(codes):
    return tuple(rgb(code) for code in codes.split())


def mix(a, b, t):
    """`a` for t = 0, `b` for t = 1."""
    return a + (b - a) * t


class Mood(NamedTuple):
    """The light of a scene; `tint` multiplies all that stands on the ground."""

    zenith: np.ndarray
    horizon: np.ndarray
    cloud: np.ndarray
    cloud_shade: np.ndarray
    sun: np.ndarray
    tint: np.ndarray


def mood(codes, *tint):
    return Mood._make([*colours(codes), np.array(tint, np.float32).reshape(3, 1, 1)])


MOODS = (
    mood("#2f73c4 #b9daf0 #ffffff #b4c6dc #ffee80", 1.03, 1.0, 0.95),  # clear day
    mood("#4f9fdd #dceef2 #ffffff #bccddd #fff08a", 1.02, 1.0, 0.97),  # bright day
    mood("#8fb6d6 #f4e6cc #fffaf0 #c6ccd8 #ffe487", 1.03, 0.99, 0.93),  # pale morning
    mood("#7f93c8 #ffb987 #ffe0cc #c08fa6 #ffe27a", 1.07, 0.94, 0.84),  # orange sunset
    mood("#a98fc0 #ffc3a4 #ffe6dc #b98db0 #fff0a0", 1.05, 0.94, 0.89),  # pink sunset
)

# plaster, cream, sandstone, brick, stone, rose, ochre
WALLS = colours("#f4f0e6 #f0deb4 #d9b67e #b4624a #aaa8a2 #e8b9a0 #e3b550")
ROOFS = colours("#a83c2c #7c4a30 #525e72 #4d7a5e #c4643a")
DOMES = colours("#4fa88c #e0a92e #2f62b4 #c25a38")  # copper, gold, blue, terracotta
DOORS = colours("#4a2a18 #23508f #962a22 #1f5c3a")
GLASS = colours("#232d3f #35517a #2b3a3a #ffcf62")  # the last is lit
GRASSES = colours("#6f9f3c #8cae46 #5c9140 #a8ab4c")
PATHS = colours("#dcc391 #cdb9a0 #c9a679")
LEAVES = colours("#3f7a34 #5a8f38 #2f6b45 #6c8a2e")
AUTUMN = colours("#d07a24 #c4502a #dba62e")
HILLS = colours("#6f9a78 #7f93ae #8aa05e #8c8fb4")
BARK = rgb("#5a4030")
