"""Sky, clouds, sun, hills, grass and path: each is painted on a canvas `c` by a function of its own."""

import numpy as np

from ganlens.scenes.canvas import SMOOTH, STREAKS, UNITS, Patch, pick
from ganlens.scenes.concepts import CLOUD, GRASS, HILL, PATH, SKY, SUN
from ganlens.scenes.palette import GRASSES, HILLS, PATHS, mix, rgb
from ganlens.scenes.shapes import balls


def draw_sky(c):
    p = Patch(c)
    t = np.clip(p.y / 44, 0, 1) ** 0.9 + p.noise(0.025, SMOOTH)
    p.pixels[:] = mix(c.mood.zenith, c.mood.horizon, t)
    p.labels[:] = SKY


def draw_sun(c):
    """A disc with a halo, on the side of the light."""
    x, y, radius = 32 + c.light * c.rng.uniform(17, 26), c.rng.uniform(8, 17), c.rng.uniform(3.7, 5.3)
    p = Patch(c, x - 22, y - 22, x + 22, y + 22)
    squared = (p.x - x) ** 2 + (p.y - y) ** 2
    p.blend(0.5 * np.exp(-squared / 60), mix(c.mood.sun, rgb("#ffffff"), 0.3))
    np.copyto(p.pixels, c.mood.sun, where=squared < radius**2)
    np.copyto(p.labels, SUN, where=squared < radius**2)


def draw_cloud(c, x):
    """A heap of balls with a flat foot; soft at the rim, its label ends where it covers half."""
    rng, count = c.rng, 5
    half, foot = rng.uniform(10, 16), rng.uniform(11, 23)
    across = np.linspace(-0.66, 0.66, count) + rng.uniform(-0.12, 0.12, count)
    size = half * (0.44 - 0.3 * across**2) * rng.uniform(0.75, 1.2, count)
    p = Patch(c, x - half * 1.3, foot - half, x + half * 1.3, foot + 3)
    body, ball = balls(p, x + across * half, foot - size * rng.uniform(0.5, 0.95, count), size)
    body = body + p.noise(0.16) - np.clip((p.y - foot + 1) * 0.9, 0, None)
    height = (foot - p.y) / (half * 0.6)
    bulge = 0.22 * (c.light * (p.x - ball[0]) - p.y + ball[1]) / ball[2]
    light = np.clip(height + bulge + p.noise(0.1, SMOOTH), 0, 1)
    alpha = np.clip(0.5 + body * 2.2, 0, 1)
    p.blend(alpha, mix(c.mood.cloud_shade, c.mood.cloud, light))
    np.copyto(p.labels, CLOUD, where=alpha > 0.5)


def draw_hills(c, horizon):
    """One to three ridges, the farther the hazier."""
    count, colour = pick(c.rng, (1, 2, 3)), pick(c.rng, HILLS)
    for i in range(count):
        top = horizon - c.rng.uniform(4, 8) - 5 * (count - 1 - i)
        phases, heights = c.rng.uniform(0, 6.3, 3), c.rng.uniform(0.5, 1.0, 3) * (3.2, 1.5, 0.6)
        waves = zip(heights, (0.09, 0.19, 0.45), phases, strict=True)
        p = Patch(c, top=top - 9, bottom=horizon + 4)
        ridge = top - sum(height * np.sin(p.x * f + phase) for height, f, phase in waves)
        shade = 1.05 - 0.012 * (p.y - top) + p.noise(0.05)
        haze = 0.62 - 0.42 * (i + 1) / count
        p.paint(p.y > ridge, mix(colour, c.mood.horizon, haze), HILL, shade)


def draw_grass(c, horizon):
    p = Patch(c, top=horizon - 2)
    edge = horizon + 0.9 * np.sin(p.x * c.rng.uniform(0.05, 0.1) + c.rng.uniform(0, 6.3))
    depth = np.clip((p.y - horizon) / (UNITS - horizon), 0, 1)
    shade = 1.12 - 0.3 * depth + p.noise(0.06, STREAKS) * (0.4 + depth) + p.noise(0.06, SMOOTH)
    p.paint(p.y > edge, pick(c.rng, GRASSES), GRASS, shade)


def draw_path(c, x, top, half):
    """A path that widens from the foot of the door to the lower border."""
    bend, wide = c.rng.uniform(-9, 9), c.rng.uniform(9, 14)
    p = Patch(c, top=top - 1)
    t = np.clip((p.y - top) / (UNITS - top), 0, 1)
    off = np.abs(p.x - x - bend * t**1.6 + p.noise(0.5, SMOOTH) * t) - half - (wide - half) * t
    p.shadow(0.16 * np.exp(-np.abs(off)))
    colour = pick(c.rng, PATHS)
    shade = 1.06 - 0.1 * t - 0.08 * np.exp(off * 0.9) + p.noise(0.035)
    p.paint(off < 0, colour, PATH, shade)
