"""The plan of a church: a body, towers, a dome, windows and a door; and the drawing of the whole."""

from typing import NamedTuple

import numpy as np

from ganlens.scenes import masonry
from ganlens.scenes.canvas import Patch, pick
from ganlens.scenes.concepts import ROOF
from ganlens.scenes.palette import DOMES, DOORS, GLASS, ROOFS, WALLS, mix, rgb


class Upright(NamedTuple):
    """The place of a window, a door or a tower: its axis, half its width, and its rows."""

    x: float
    half: float
    top: float
    bottom: float


class Body(NamedTuple):
    """A planned nave: `facade` is the axis of its front, `rose` the (x, y, radius) of a round window."""

    strokes: list
    ridge: float
    facade: float
    windows: list
    rose: tuple = ()


class Church(NamedTuple):
    """A planned church, from x - reach to x + reach on the row `base`; its strokes are in drawing order."""

    x: float
    reach: float
    base: float
    door: Upright
    strokes: list
    style: masonry.Style


def plan_church(rng):
    """Body, towers, dome, windows and door, each present or absent by itself."""
    x, reach, base = 32 + rng.uniform(-5, 5), rng.uniform(18, 22), rng.uniform(51, 56)
    domed, towered = rng.random() < 0.48, rng.random() < 0.48
    body = pick(rng, BODIES if domed or towered else GABLED)(rng, x, reach, base)
    towers = plan_towers(rng, body, x, reach, base) if towered else []
    door = Upright(body.facade, rng.uniform(3.4, 4.3), base - rng.uniform(10.5, 12.5), base)
    crowned = domed and any(tower.x == body.facade for tower in towers)  # the dome stands on the tower
    dome = plan_dome(rng, body, towers, crowned) if domed else []
    strokes = [*body.strokes, *dome] if crowned else [*dome, *body.strokes]
    strokes += [masonry.tower(*tower, spire=0 if crowned else rng.uniform(8.5, 13)) for tower in towers]
    if rng.random() < 0.975:
        strokes += plan_windows(rng, body, towers, door)
    if rng.random() < 0.975:
        strokes.append(masonry.door(*door))
    if not (domed or towered):
        strokes.append(masonry.cross(body.facade, body.ridge - 2.6, ROOF))
    return Church(x, reach, base, door, strokes, plan_style(rng))


def draw_church(c, church):
    """Its shadow on the ground, then its strokes."""
    x, reach, base = church.x, church.reach, church.base
    p = Patch(c, x - reach - 6, base - 2, x + reach + 6, base + 5)
    across, down = (p.x - (x - 2.5 * c.light)) / (reach + 2), (p.y - base) / 2.6
    p.shadow(0.42 * np.clip(1.6 - across**4 - down**2, 0, 1))
    for stroke in church.strokes:
        stroke(c, church.style)


def plan_basilica(rng, x, reach, base):
    """A gabled front between two lower aisles."""
    half, eaves = reach * rng.uniform(0.54, 0.62), base - rng.uniform(19, 22)
    peak, aisle = eaves - rng.uniform(7, 9), base - rng.uniform(12, 14)
    left, right, out = x - reach, x + reach, (half + reach) / 2
    strokes = [
        masonry.wall(left, aisle, right, base, dim=0.95),
        masonry.roof(aisle - 4.5, aisle + 0.7, (x - half - 2, x + half + 2), (left - 1, right + 1)),
        masonry.front(x, half, peak, eaves, base),
    ]
    windows = [Upright(at, 2.4, base - 10, base - 2.8) for at in (x - out, x + out)]
    windows.append(Upright(x, 2.6, eaves - 3.5, eaves + 4))
    return Body(strokes, peak + 2, x, windows, rose=(x, eaves + 0.3, 4.0))


def plan_chapel(rng, x, reach, base):
    """A gabled front with the long side of the nave receding to one side."""
    side, half = pick(rng, (-1, 1)), rng.uniform(9.5, 11)
    eaves = base - rng.uniform(18, 20)
    peak, front = eaves - rng.uniform(9, 11), x - side * (reach - half)
    near, far = front + side * half, x + side * reach
    left, right = sorted((near, far))
    slope = sorted((front, far - side * 3)), sorted((front, far + side))
    strokes = [
        masonry.wall(left, eaves, right, base, dim=0.86),
        masonry.roof(peak - 1.5, eaves + 1, *slope, dim=0.97),
        masonry.front(front, half, peak, eaves, base, dim=1.04),
    ]
    windows = [Upright(mix(near, far, t), 2.2, base - 13.5, base - 5) for t in (0.27, 0.73)]
    windows.append(Upright(front, 2.5, eaves - 4, eaves + 3))
    return Body(strokes, peak, front, windows, rose=(front, eaves - 0.6, 3.7))


def plan_nave(rng, x, reach, base):
    """The long side of a nave under a hipped roof."""
    eaves = base - rng.uniform(17, 19)
    ridge, inset = eaves - rng.uniform(9, 12), rng.uniform(2, 8)
    windows = [Upright(x + reach * t, 2.5, base - 13, base - 4.5) for t in (-0.76, -0.44, 0.44, 0.76)]
    return Body([masonry.hall(x, reach, ridge, reach - inset, eaves, base)], ridge + 1, x, windows)


def plan_cube(rng, x, reach, base):
    """A tall cube under a low roof."""
    half, eaves = reach * 0.84, base - rng.uniform(21, 24)
    windows = [Upright(x + half * t, 2.5, base - 17, base - 8) for t in (-0.62, 0.62)]
    return Body([masonry.hall(x, half, eaves - 4, half * 0.7, eaves, base)], eaves - 3, x, windows)


GABLED = (plan_basilica, plan_chapel)
BODIES = (*GABLED, plan_nave, plan_cube)


def plan_towers(rng, body, x, reach, base):
    """One tower at the side, one in front, or a pair."""
    half = rng.uniform(4.7, 6.0)
    top = max(min(body.ridge - rng.uniform(2, 7), base - 25), 15)
    kind = pick(rng, ("side", "front", "twin"))
    if kind == "front":
        return [Upright(body.facade, max(half, 5.4), top, base)]
    if kind == "side" or body.facade != x:
        offset = pick(rng, (-1, 1)) * (reach - half + 1)
        blocked = abs(x + offset - body.facade) < half + 5  # it would cover the door
        return [Upright(x - offset if blocked else x + offset, half, top, base)]
    return [Upright(x + side * (reach - half + 0.5), half, top, base) for side in (-1, 1)]


def plan_dome(rng, body, towers, crowned):
    """A dome on the tower in front, or on a drum behind the ridge."""
    profile = pick(rng, tuple(masonry.PROFILES))
    if crowned:
        x, half, top, _ = towers[0]
        return [masonry.dome(x, top + 0.5, max(half + 1.6, 7.4), profile)]
    onion = profile == "onion"
    radius = rng.uniform(8, 10) if onion or towers else rng.uniform(9, 12.5)
    foot, neck = body.ridge - rng.uniform(1.5, 3.5), radius * (0.7 if onion else 0.9)
    x = body.facade
    if len(towers) == 1:
        x -= 3 * np.sign(towers[0].x - x)
    drum = masonry.wall(x - neck, foot - 0.5, x + neck, body.ridge + 7, bend=1.0)
    return [drum, masonry.dome(x, foot, radius, profile)]


def plan_windows(rng, body, towers, door):
    """The windows of body and towers that nothing covers; sometimes the one in the gable is a rose."""
    shown = [w for w in body.windows if all(abs(w.x - t.x) > w.half + t.half + 0.3 for t in towers)]
    shown = [w for w in shown if abs(w.x - door.x) > w.half + door.half + 1 or w.bottom < door.top - 1.5]
    strokes = []
    if body.rose and rng.random() < 0.5 and any(w.x == body.facade for w in shown):
        shown = [w for w in shown if w.x != body.facade]
        strokes.append(masonry.rose(*body.rose))
    shown += [Upright(x, 2.2, top + 3, top + 10) for x, _, top, _ in towers]
    return strokes + [masonry.window(*w) for w in shown]


def plan_style(rng):
    wall = pick(rng, WALLS)
    trim = mix(wall, rgb("#fffdf4"), 0.6) if wall.mean() < 0.72 else wall * 0.78
    return masonry.Style(wall, trim, pick(rng, ROOFS), pick(rng, DOMES), pick(rng, DOORS), pick(rng, GLASS))
