"""The plan of a church: a body, towers, a dome, windows and doors; and the drawing of the whole."""

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


class Place(NamedTuple):
    """A place at the foot of a wall, and what stands there: "door", "window" or ""."""

    kind: str
    x: float
    holds: str = ""


class Body(NamedTuple):
    """A planned nave: `facade` is the axis of its front, `places` those at its foot, `windows` those above.

    The window on the axis of the front may become the round one, `rose`: (x, y, radius).
    """

    strokes: list
    ridge: float
    facade: float
    places: list
    windows: list
    rose: tuple = ()


class Church(NamedTuple):
    """A planned church, from x - reach to x + reach on the row `base`; its strokes are in drawing order."""

    x: float
    reach: float
    base: float
    places: list
    strokes: list
    style: masonry.Style

    @property
    def doors(self):
        """The axes of the doors."""
        return [place.x for place in self.places if place.holds == "door"]


DOOR_SHARE, LOW_WINDOW_SHARE, WINDOW_SHARE, ROSE_SHARE = 0.46, 0.25, 0.6, 0.35
DOOR_HALF, WINDOW_HALF = 3.5, 2.4


def plan_church(rng):
    """Body, towers, dome, and at each place a door, a window or nothing: each present or absent by itself.

    That a door stands *here* follows from nothing else in the scene. So a network that learns to draw the scenes has
    to say it, and can be made to.
    """
    x, reach, base = 32 + rng.uniform(-5, 5), rng.uniform(19, 22), rng.uniform(53, 57.5)
    domed, towered = rng.random() < 0.48, rng.random() < 0.48
    body = pick(rng, BODIES if domed or towered else GABLED)(rng, x, reach, base)
    towers = plan_towers(rng, body, x, reach, base) if towered else []
    crowned = domed and any(tower.x == body.facade for tower in towers)  # the dome stands on the tower
    dome = plan_dome(rng, body, towers, crowned) if domed else []
    strokes = [*body.strokes, *dome] if crowned else [*dome, *body.strokes]
    strokes += [masonry.tower(*tower, spire=0 if crowned else rng.uniform(8.5, 13)) for tower in towers]
    strokes += plan_windows(rng, body, towers)
    places = fill_places(rng, [p for p in body.places if is_free(p.x, DOOR_HALF + 1, towers)], towers)
    for place in places:
        strokes += draw_place(rng, place, base)
    if not (domed or towered):
        strokes.append(masonry.cross(body.facade, body.ridge - 2.6, ROOF))
    return Church(x, reach, base, places, strokes, plan_style(rng))


def is_free(x, half, towers):
    """Whether no tower covers what is so wide."""
    return all(abs(x - tower.x) > half + tower.half for tower in towers)


def fill_places(rng, places, towers):
    """Put a door, a low window or nothing at each place of the walls and of the towers."""
    places = places + [Place("tower", tower.x) for tower in towers]
    draws = rng.random(len(places))
    holds = ["door" if t < DOOR_SHARE else "window" if t < DOOR_SHARE + LOW_WINDOW_SHARE else "" for t in draws]
    return [place._replace(holds=held) for place, held in zip(places, holds, strict=True)]


def draw_place(rng, place, base):
    """The strokes of what a place holds."""
    half, height, sill = DOOR_HALF + rng.uniform(-0.3, 0.3), rng.uniform(10.3, 11.7), base - rng.uniform(2.6, 3.4)
    if place.holds == "door":
        return [masonry.door(place.x, half, base - height, base)]
    if place.holds == "window":
        return [masonry.window(place.x, WINDOW_HALF, sill - 7, sill)]
    return []


def spread(rng, kind, left, right, count, jitter=1.2):
    """Places of one kind, evenly along a wall and each moved a little."""
    step = (right - left) / count
    return [Place(kind, left + (i + 0.5) * step + rng.uniform(-jitter, jitter)) for i in range(count)]


def plan_front(rng, x, half):
    """The places of a front: one on the axis or beside it, or two."""
    if rng.random() < 0.5:
        return spread(rng, "front", x - half, x + half, 1, jitter=half - DOOR_HALF - 2)
    return spread(rng, "front", x - half, x + half, 2, jitter=0.5)


def upper_row(rng, places, eaves):
    """Windows below the eaves, above each of the places and a little beside."""
    top = eaves + 2.2
    return [Upright(p.x + rng.uniform(-0.6, 0.6), WINDOW_HALF, top, top + 6.6) for p in places]


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
    half, eaves = reach * rng.uniform(0.5, 0.56), base - rng.uniform(20, 22)
    peak, aisle = eaves - rng.uniform(7, 9), base - rng.uniform(14, 16)
    left, right = x - reach, x + reach
    strokes = [
        masonry.wall(left, aisle, right, base, dim=0.95),
        masonry.roof(aisle - 4.5, aisle + 0.7, (x - half - 2, x + half + 2), (left - 1, right + 1)),
        masonry.front(x, half, peak, eaves, base),
    ]
    places = plan_front(rng, x, half)
    for edges in ((left, x - half), (x + half, right)):
        places += spread(rng, "aisle", *edges, 1, jitter=0.4)
    gable = Upright(x, WINDOW_HALF, eaves - 2.6, eaves + 4.4)
    return Body(strokes, peak + 2, x, places, [gable], rose=(x, eaves + 0.6, 3.9))


def plan_chapel(rng, x, reach, base):
    """A gabled front with the long side of the nave receding to one side."""
    side, half = pick(rng, (-1, 1)), rng.uniform(9.5, 11)
    eaves = base - rng.uniform(20.5, 22)
    peak, front = eaves - rng.uniform(8, 10), x - side * (reach - half)
    near, far = front + side * half, x + side * reach
    left, right = sorted((near, far))
    slope = sorted((front, far - side * 3)), sorted((front, far + side))
    strokes = [
        masonry.wall(left, eaves, right, base, dim=0.86),
        masonry.roof(peak - 1.5, eaves + 1, *slope, dim=0.97),
        masonry.front(front, half, peak, eaves, base, dim=1.04),
    ]
    along = spread(rng, "side", left, right, 2, jitter=0.5)
    gable = Upright(front, WINDOW_HALF, eaves - 2.8, eaves + 4.2)
    windows = [*upper_row(rng, along, eaves), gable]
    return Body(strokes, peak, front, plan_front(rng, front, half) + along, windows, rose=(front, eaves, 3.7))


def plan_nave(rng, x, reach, base):
    """The long side of a nave under a hipped roof."""
    eaves = base - rng.uniform(20, 22)
    ridge, inset = eaves - rng.uniform(9, 12), rng.uniform(2, 8)
    count = pick(rng, (3, 4))
    places = spread(rng, "hall", x - reach, x + reach, count)
    above = spread(rng, "hall", x - reach, x + reach, pick(rng, (3, 4, 5)), jitter=0.8)
    hall = masonry.hall(x, reach, ridge, reach - inset, eaves, base)
    return Body([hall], ridge + 1, x, places, upper_row(rng, above, eaves))


def plan_cube(rng, x, reach, base):
    """A tall cube under a low roof."""
    half, eaves = reach * 0.84, base - rng.uniform(22, 25)
    places = spread(rng, "cube", x - half, x + half, pick(rng, (2, 3)), jitter=1.0)
    above = spread(rng, "cube", x - half, x + half, pick(rng, (2, 3)), jitter=1.0)
    hall = masonry.hall(x, half, eaves - 4, half * 0.7, eaves, base)
    return Body([hall], eaves - 3, x, places, upper_row(rng, above, eaves + 0.6))


GABLED = (plan_basilica, plan_chapel)
BODIES = (*GABLED, plan_nave, plan_cube)


def plan_towers(rng, body, x, reach, base):
    """One tower at the side, one in front, or a pair."""
    half = rng.uniform(4.9, 6.0)
    top = max(min(body.ridge - rng.uniform(1, 7), base - 27), 15)
    kind = pick(rng, ("side", "front", "twin"))
    if kind == "front":
        return [Upright(body.facade, max(half, 5.4), top, base)]
    if kind == "side" or body.facade != x:
        offset = pick(rng, (-1, 1)) * (reach - half + rng.uniform(-2.5, 1))
        return [Upright(x + offset, half, top, base)]
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
    x = body.facade + rng.uniform(-2.5, 2.5)
    if len(towers) == 1:
        x -= 3 * np.sign(towers[0].x - x)
    drum = masonry.wall(x - neck, foot - 0.5, x + neck, body.ridge + 7, bend=1.0)
    return [drum, masonry.dome(x, foot, radius, profile)]


def plan_windows(rng, body, towers):
    """The windows above, each there or not, where no tower covers them; sometimes the one in the gable is round."""
    windows = [w for w in body.windows if is_free(w.x, w.half + 0.3, towers)]
    windows += [Upright(x, WINDOW_HALF, top + 3.4, top + 10.2) for x, _, top, _ in towers]
    strokes = []
    for window in windows:
        there, round_ = rng.random(2) < (WINDOW_SHARE, ROSE_SHARE)
        gable = body.rose and window.x == body.facade
        if there:
            strokes.append(masonry.rose(*body.rose) if gable and round_ else masonry.window(*window))
    return strokes


def plan_style(rng):
    wall = pick(rng, WALLS)
    trim = mix(wall, rgb("#fffdf4"), 0.6) if wall.mean() < 0.72 else wall * 0.78
    return masonry.Style(wall, trim, pick(rng, ROOFS), pick(rng, DOMES), pick(rng, DOORS), pick(rng, GLASS))
