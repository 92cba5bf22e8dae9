"""Shapes over a patch `p`: boolean masks (h, w), and heaps of balls."""

import numpy as np

from ganlens.scenes.palette import mix


def trapezoid(p, top, bottom, upper, lower):
    """Between two slanted edges; `upper` and `lower` are (left, right) at the rows `top` and `bottom`."""
    t = (p.y - top) / (bottom - top)
    left, right = (mix(a, b, t) for a, b in zip(upper, lower, strict=True))
    return (p.x >= left) & (p.x < right) & (t >= 0) & (t < 1)


def arch(p, x, half, top, bottom):
    """A rectangle under a half circle."""
    spring = top + half
    return (np.abs(p.x - x) < half) & (p.y < bottom) & ((p.y >= spring) | disc(p, x, spring, half))


def disc(p, x, y, radius):
    return (p.x - x) ** 2 + (p.y - y) ** 2 < radius**2


def balls(p, xs, ys, radii):
    """The union of balls: 1 - (distance / radius)², and x, y and radius of the nearest ball, (h, w) each."""
    x, y, radius = (np.asarray(v, np.float32)[:, None, None] for v in (xs, ys, radii))
    inside = 1 - ((p.x - x) ** 2 + (p.y - y) ** 2) / radius**2  # (balls, h, w)
    nearest = inside.argmax(0)
    return inside.max(0), [v.ravel()[nearest] for v in (x, y, radius)]
