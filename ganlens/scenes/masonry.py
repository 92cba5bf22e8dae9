"""The parts of a church, from walls to crosses; a part is a stroke, to be planned first and drawn later."""

from functools import wraps
from typing import NamedTuple

import numpy as np

from ganlens.scenes.canvas import Patch
from ganlens.scenes.concepts import DOME, DOOR, ROOF, TOWER, WALL, WINDOW
from ganlens.scenes.palette import rgb
from ganlens.scenes.shapes import arch, disc, trapezoid


class Style(NamedTuple):
    """The colours of a church."""

    wall: np.ndarray
    trim: np.ndarray
    roof: np.ndarray
    dome: np.ndarray
    door: np.ndarray
    glass: np.ndarray


def stroke(draw):
    """Split `draw(c, style, *place)` in two calls: `(*place)` when it is planned, then `(c, style)`."""

    @wraps(draw)
    def plan(*place, **look):
        return lambda c, style: draw(c, style, *place, **look)

    return plan


@stroke
def wall(c, style, left, top, right, bottom, label=WALL, dim=1.0, bend=0.0):
    """A block of masonry, lighter towards the light, dark below the eaves; `bend` rounds the face."""
    p = Patch(c, left, top, right, bottom)
    across = c.light * (2 * p.x - left - right) / (right - left)
    shade = dim + 0.07 * across - 0.3 * bend * across**2
    shade = shade - 0.2 * np.exp((top - p.y) / 1.1) - 0.1 * np.exp((p.y - bottom) / 2.5)
    p.paint(True, style.wall, label, shade + p.noise(0.03))


@stroke
def roof(c, style, top, bottom, upper, lower, dim=1.0):
    """A slope of tiles between two slanted edges, (left, right) at the top and at the bottom."""
    p = Patch(c, min(upper[0], lower[0]), top, max(upper[1], lower[1]), bottom)
    t = (p.y - top) / (bottom - top)
    across = c.light * (2 * p.x - lower[0] - lower[1]) / (lower[1] - lower[0])
    courses = 0.035 * np.sin(p.y * 3.3)
    shade = dim * (1.1 - 0.22 * t + 0.08 * across + courses + p.noise(0.045))
    p.paint(trapezoid(p, top, bottom, upper, lower), style.roof, ROOF, shade)


@stroke
def hall(c, style, x, half, ridge, ridge_half, eaves, base):
    """A block under a roof that slopes to all sides."""
    wall(x - half, eaves, x + half, base)(c, style)
    edges = (x - ridge_half, x + ridge_half), (x - half - 1.3, x + half + 1.3)
    roof(ridge, eaves + 0.7, *edges)(c, style)


@stroke
def front(c, style, x, half, peak, eaves, base, dim=1.0):
    """A facade under a gable, with the two edges of the roof."""
    wall(x - half, eaves, x + half, base, dim=dim)(c, style)
    roof(peak - 2.4, eaves + 0.6, (x, x), (x - half - 1.6, x + half + 1.6))(c, style)
    p = Patch(c, x - half, peak, x + half, eaves + 0.7)
    off, below, rise = np.abs(p.x - x), p.y - peak, eaves - peak
    shade = 1 + 0.05 * c.light * (p.x - x) / half + p.noise(0.03)
    shade = shade - 0.2 * np.exp(-(below - off * rise / half) / 1.3)
    p.paint(off < half * below / rise, style.wall, WALL, shade)


@stroke
def tower(c, style, x, half, top, base, spire=0.0):
    """A lit face and a narrow one in the shade, with two cornices, and a spire if it has a height."""
    wall(x - half, top, x + half, base, TOWER, 1.03)(c, style)
    left, right = sorted((x - c.light * half * 0.45, x - c.light * half))
    Patch(c, left, top, right, base).shadow(0.2)
    for y in (top, top + (base - top) * 0.42):
        Patch(c, x - half - 0.6, y, x + half + 0.6, y + 1.1).paint(True, style.trim, TOWER)
    if spire:
        draw_spire(c, style, x, half + 1, top - spire, top + 0.6)


def draw_spire(c, style, x, half, top, bottom):
    """A pointed roof with a lit and a shaded side."""
    p = Patch(c, x - half, top, x + half, bottom)
    lit = (p.x - x) * c.light > -half * 0.25 * (p.y - top) / (bottom - top)
    mask = trapezoid(p, top, bottom, (x, x), (x - half, x + half))
    p.paint(mask, style.roof, ROOF, np.where(lit, 1.12, 0.78) + p.noise(0.04))
    cross(x, top + 0.6, ROOF)(c, style)


# Half widths of a dome at equal steps from its foot to its top, and its height, as shares of the radius
PROFILES = {
    "round": (np.sqrt(1 - np.linspace(0, 1, 12) ** 2), 0.98),
    "pointed": (np.array([1, 1.0, 0.97, 0.91, 0.82, 0.7, 0.56, 0.4, 0.22, 0.06]), 1.2),
    "onion": (np.array([0.72, 0.9, 0.99, 1.0, 0.95, 0.82, 0.62, 0.4, 0.22, 0.1, 0.03]), 1.5),
}


@stroke
def dome(c, style, x, foot, radius, profile):
    """A dome with a cross, shaded like a sphere."""
    widths, height = PROFILES[profile]
    height = height * radius
    cross(x, foot - height + 1, DOME)(c, style)
    p = Patch(c, x - radius, foot - height, x + radius, foot)
    t = (foot - p.y) / height
    half = radius * np.interp(t, np.linspace(0, 1, len(widths)), widths).astype(np.float32)
    nx = np.clip((p.x - x) / np.maximum(half, 0.3), -1, 1)
    ny = (t * 1.1 - 0.25) * np.sqrt(1 - 0.5 * nx**2)
    lit = 0.62 * c.light * nx + 0.5 * ny + 0.6 * np.sqrt(np.clip(1 - nx**2, 0, 1))
    shade = 0.52 + 0.62 * lit + 0.05 * np.cos(9 * np.arcsin(nx)) + p.noise(0.03)
    mask = np.abs(p.x - x) < half
    p.paint(mask, style.dome, DOME, np.maximum(shade, 0.35))
    spot = np.exp(-((nx - 0.45 * c.light) ** 2 + (t - 0.55) ** 2) * 14)
    p.blend(0.55 * spot * mask, rgb("#fff6e0"))


@stroke
def cross(c, style, x, foot, label):
    """A cross; it belongs to what it stands on."""
    for dx, top, bottom in ((0.55, 5.0, 0.0), (1.6, 3.9, 2.8)):
        Patch(c, x - dx, foot - top, x + dx, foot - bottom).paint(True, rgb("#c9a24a"), label)


@stroke
def door(c, style, x, half, top, base):
    """An arched door of two leaves in a stone frame."""
    p = Patch(c, x - half - 1.2, top - 1.2, x + half + 1.2, base)
    p.paint(arch(p, x, half + 1.2, top - 1.2, base), style.trim)
    seam = 1 - 0.45 * np.exp(-((p.x - x) ** 2) * 6)
    shade = 1.12 - 0.4 * np.exp((top - p.y) / 2.2) + 0.1 * np.sin((p.x - x) * 2.6) + p.noise(0.03)
    p.paint(arch(p, x, half, top, base), style.door, DOOR, seam * shade)


@stroke
def window(c, style, x, half, top, bottom):
    """An arched window with bars."""
    p = Patch(c, x - half - 0.8, top - 0.8, x + half + 0.8, bottom + 0.8)
    p.paint(arch(p, x, half + 0.8, top - 0.8, bottom + 0.8), style.trim)
    mask = arch(p, x, half, top, bottom)
    shade = 0.9 + 0.35 * (p.y - top) / (bottom - top) + 0.1 * (p.x - x) / half
    p.paint(mask, style.glass, WINDOW, shade)
    bars = (np.abs(p.x - x) < 0.3) | (np.abs(p.y - top - (bottom - top) * 0.5) < 0.3)
    p.blend(0.6 * (mask & bars), style.trim * c.mood.tint)


@stroke
def rose(c, style, x, y, radius):
    """A round window with six petals."""
    p = Patch(c, x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1)
    p.paint(disc(p, x, y, radius + 1), style.trim)
    mask = disc(p, x, y, radius)
    p.paint(mask, style.glass, WINDOW, 1 - 0.1 * (p.y - y) / radius)
    petals = np.cos(6 * np.arctan2(p.y - y, p.x - x)) < -0.72
    p.blend(0.55 * (mask & (petals | disc(p, x, y, radius * 0.25))), style.trim * c.mood.tint)
