"""Painted scenes: churches in a landscape, with the exact label of every pixel.

A scene is planned in units of one 64th of the image, drawn at three times the target size with hard masks,
and box-reduced; the label of a pixel is the label at its centre. Everything random is drawn from the seed and
nothing depends on the size, so that a seed shows the same composition at every size.
"""

from collections.abc import Iterable

import numpy as np

from ganlens.scenes.canvas import OVERSAMPLING, SMOOTH, UNITS, Canvas, Patch, pick
from ganlens.scenes.church import draw_church, plan_church
from ganlens.scenes.concepts import CONCEPTS
from ganlens.scenes.landscape import draw_cloud, draw_grass, draw_hills, draw_path, draw_sky, draw_sun
from ganlens.scenes.trees import draw_tree, plan_trees

__all__ = ["CONCEPTS", "HELD_OUT", "paint", "paint_many"]

HELD_OUT = 9_000_000  # first seed of the paintings that nothing is trained on


def paint(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Paint one scene.

    Parameters
    ----------
    seed : int
        The scene, at least 0. A seed always gives the same picture, and at every size the same composition.
    size : int
        Height and width in pixels, a multiple of 16 of at least 32.

    Returns
    -------
    image : (size, size, 3) uint8
        Red, green and blue, 0 to 255.
    labels : (size, size) uint8
        The concept of each pixel, 1 to 13: the value v means ``CONCEPTS[v - 1]``.

    Raises
    ------
    ValueError
        If the seed is no integer of at least 0, or the size no multiple of 16 of at least 32.

    Examples
    --------
    >>> image, labels = paint(0)
    >>> image.shape, labels.shape
    ((64, 64, 3), (64, 64))
    >>> CONCEPTS[labels[63, 0] - 1]
    ('grass', 'object')
    """
    if not is_integer(seed) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected an integer of at least 0; give paint(0)")
    check_size(size)
    canvas = Canvas(int(size), np.random.default_rng(int(seed)))
    compose(canvas)
    return develop(canvas)


def paint_many(seeds: Iterable[int], size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Paint a scene for each seed.

    Parameters
    ----------
    seeds : iterable of int
        One seed a scene, each at least 0.
    size : int
        Height and width in pixels, a multiple of 16 of at least 32.

    Returns
    -------
    images : (N, size, size, 3) uint8
        Red, green and blue, 0 to 255, in the order of the seeds.
    labels : (N, size, size) uint8
        The concept of each pixel, 1 to 13: the value v means ``CONCEPTS[v - 1]``.

    Raises
    ------
    ValueError
        If a seed is no integer of at least 0, or the size no multiple of 16 of at least 32.

    Examples
    --------
    >>> images, labels = paint_many([3, 1], size=32)
    >>> images.shape, bool((labels[1] == paint(1, size=32)[1]).all())
    ((2, 32, 32, 3), True)
    """
    check_size(size)
    seeds = list(seeds)
    images = np.empty((len(seeds), size, size, 3), np.uint8)
    labels = np.empty((len(seeds), size, size), np.uint8)
    for i, seed in enumerate(seeds):
        images[i], labels[i] = paint(seed, size)
    return images, labels


def is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_size(size):
    if not is_integer(size) or size < 32 or size % 16:
        raise ValueError(f"size is {size!r}; expected a multiple of 16 of at least 32; give 64 or 128")


def compose(c):
    """Draw a scene from back to front."""
    rng = c.rng
    church, horizon = plan_church(rng), rng.uniform(41, 45)
    sunny, cloudy, hilly, path = (rng.random() < share for share in (0.34, 0.66, 0.9, 0.6))
    draw_sky(c)
    if sunny:
        draw_sun(c)
    for _ in range(cloudy * pick(rng, (1, 2, 2, 3))):
        draw_cloud(c, 32 - c.light * rng.uniform(-9 if sunny else -26, 26))
    if hilly:
        draw_hills(c, horizon)
    draw_grass(c, horizon)
    if path and church.doors:
        draw_path(c, pick(rng, church.doors), church.base - 0.5, 4.2)
    trees = plan_trees(rng, church)
    for tree in (t for t in trees if t.base < church.base):
        draw_tree(c, *tree)
    draw_church(c, church)
    for tree in (t for t in trees if t.base >= church.base):
        draw_tree(c, *tree)


def develop(c):
    """Warp a little, reduce, adjust gamma and saturation: uint8 (size, size, 3) and labels (size, size)."""
    k, index = OVERSAMPLING, warp(c)
    labels = c.labels.take(index[k // 2 :: k, k // 2 :: k])
    pixels = c.pixels.reshape(3, -1).take(index, axis=1)
    pixels = sum(pixels[:, i::k] for i in range(k))
    pixels = sum(pixels[:, :, i::k] for i in range(k)) / k**2
    grey = pixels.mean(0)
    pixels = grey + (pixels - grey) * c.rng.uniform(0.92, 1.15)
    pixels = np.clip(pixels, 0, 1) ** c.rng.uniform(0.9, 1.1)
    return (pixels * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy(), labels


def warp(c):
    """The flat index, (n, n), of the sample to show in the place of each: one nearby."""
    amount, steps = c.side / UNITS * 0.3, np.arange(c.side)
    down, along = (np.rint(Patch(c).noise(amount, SMOOTH)).astype(np.intp) for _ in range(2))
    rows, cols = steps[:, None] + down, steps + along
    return rows.clip(0, c.side - 1) * c.side + cols.clip(0, c.side - 1)
