"""Trees: round ones, poplars and conifers."""

from typing import NamedTuple

import numpy as np

from ganlens.scenes.canvas import Patch, pick
from ganlens.scenes.concepts import TREE
from ganlens.scenes.palette import AUTUMN, BARK, LEAVES
from ganlens.scenes.shapes import balls


class Tree(NamedTuple):
    """The place of a tree: the foot of its trunk, and its height."""

    x: float
    base: float
    height: float


def plan_trees(rng, church):
    """Trees beside the church, back to front.

    Those in front keep off every place for a door, whether it holds one or not: a tree says nothing about doors.
    """
    trees = []
    first = pick(rng, (-1, 1))
    for i in range(pick(rng, (0, 1, 2, 3), (0.29, 0.26, 0.3, 0.15))):
        side = first * (-1) ** i
        x = np.clip(church.x + side * church.reach + side * rng.uniform(-1, 9), 2, 62)
        trees.append(Tree(x, church.base + rng.uniform(-1.5, 5.5), rng.uniform(19, 30)))
    return sorted((t for t in trees if t.base < church.base or is_off(t.x, church.places)), key=lambda t: t.base)


def is_off(x, places):
    """Whether a tree at `x` leaves all places to be seen."""
    return all(abs(x - place.x) > 8.5 for place in places)


def draw_tree(c, x, base, height):
    """The shadow, the trunk, and one of three kinds of crown."""
    draw = pick(c.rng, (draw_round, draw_conifer, draw_poplar), (5, 2, 2))
    p = Patch(c, x - 9, base - 2, x + 9, base + 2.5)
    p.shadow(0.45 * np.exp(-(((p.x - x + 1.5 * c.light) / 5) ** 2) - ((p.y - base) / 1.2) ** 2))
    half = 0.055 * height
    p = Patch(c, x - half, base - height * 0.4, x + half, base)
    p.paint(True, BARK, TREE, 1 + 0.3 * c.light * (p.x - x) / half)
    draw(c, x, base, height)


def draw_round(c, x, base, height):
    tall = height * 0.38
    half = min(tall * c.rng.uniform(0.9, 1.15), 9.5)
    draw_crown(c, x, base - height + tall, half, tall, 8, height * 0.17)


def draw_poplar(c, x, base, height):
    height = min(height * 1.15, 30)
    draw_crown(c, x, base - height * 0.54, height * 0.17, height * 0.46, 11, height * 0.115)


def draw_crown(c, x, y, half, tall, count, size):
    """A crown of `count` balls of leaves around (x, y)."""
    rng = c.rng
    angle = np.arange(count) * 2.4 + rng.uniform(0, 6.3)
    reach = np.sqrt((np.arange(count) + 0.3) / count)
    xs, ys = x + reach * np.cos(angle) * (half - size * 0.6), y + reach * np.sin(angle) * (tall - size * 0.6)
    p = Patch(c, x - half - 2, y - tall - 2, x + half + 2, y + tall + 2)
    inside, ball = balls(p, xs, ys, size * rng.uniform(0.85, 1.15, count))
    clump = (c.light * (p.x - ball[0]) - (p.y - ball[1])) / ball[2]
    crown = c.light * (p.x - x) / half - (p.y - y) / tall
    shade = 0.93 + 0.13 * np.clip(clump, -1, 1) + 0.17 * np.clip(crown, -1.5, 1.5) + p.noise(0.09)
    mask = inside + p.noise(0.12) > 0
    p.paint(mask, pick(rng, AUTUMN if rng.random() < 0.22 else LEAVES), TREE, shade)


def draw_conifer(c, x, base, height):
    """Tiers of branches, each wider than the one above."""
    half = height * c.rng.uniform(0.25, 0.31)
    p = Patch(c, x - half - 1, base - height, x + half + 1, base - height * 0.1)
    t = (p.y - base + height) / (height * 0.9)
    tier = t * 4 % 1
    width = half * (0.12 + 0.88 * t) * (0.72 + 0.36 * tier)
    shade = 0.82 + 0.3 * c.light * (p.x - x) / half + 0.22 * tier + p.noise(0.09)
    mask = np.abs(p.x - x) + p.noise(0.35) < width
    p.paint(mask, pick(c.rng, LEAVES[::2]) * 0.85, TREE, shade)
