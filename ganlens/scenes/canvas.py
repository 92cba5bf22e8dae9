"""The canvas of a painted scene, its rectangular patches, and the noise that gives them texture.

Places are given in units of one 64th of the image; the canvas holds three samples a pixel each way.
"""

from bisect import bisect
from functools import lru_cache
from itertools import accumulate

import numpy as np
from PIL import Image

from ganlens.scenes.palette import MOODS

UNITS = 64  # the side of a scene, in the units of its plan
OVERSAMPLING = 3  # odd, so that a block of samples has a centre
SMOOTH, MEDIUM, STREAKS = range(3)  # the kinds of noise; streaks run along the rows
VARIANTS = 3  # of each kind


def pick(rng, options, weights=None):
    """One of the options, all equally likely unless weighted."""
    sums = list(accumulate(weights or [1] * len(options)))
    return options[bisect(sums, rng.random() * sums[-1])]


class Canvas:
    """The picture being painted: `pixels` (3, n, n) float32 and `labels` (n, n) uint8.

    It carries what all strokes share: random generator, mood, and side of the light (-1 left, 1 right).
    """

    def __init__(self, size, rng):
        self.side, self.rng = size * OVERSAMPLING, rng
        self.pixels = np.zeros((3, self.side, self.side), np.float32)
        self.labels = np.zeros((self.side, self.side), np.uint8)
        self.centres = (np.arange(self.side) + 0.5) * UNITS / self.side
        self.mood = pick(rng, MOODS)
        self.light = pick(rng, (-1, 1))


class Patch:
    """The samples of a canvas whose centres, `x` (1, w) and `y` (h, 1) in units, lie in a rectangle."""

    def __init__(self, canvas, left=0, top=0, right=UNITS, bottom=UNITS):
        self.canvas = canvas
        self.rows = slice(*np.searchsorted(canvas.centres, (top, bottom)))
        self.cols = slice(*np.searchsorted(canvas.centres, (left, right)))
        self.x = canvas.centres[None, self.cols].astype(np.float32)
        self.y = canvas.centres[self.rows, None].astype(np.float32)
        self.pixels = canvas.pixels[:, self.rows, self.cols]
        self.labels = canvas.labels[self.rows, self.cols]

    def paint(self, mask, colour, label=None, shade=1.0):
        """Put `colour` times `shade`, in the tint of the mood; without a label the old one stays."""
        np.copyto(self.pixels, colour * self.canvas.mood.tint * shade, where=mask)
        if label is not None:
            np.copyto(self.labels, label, where=mask)

    def blend(self, alpha, colour):
        """Cover by the share `alpha` (h, w)."""
        self.pixels += (colour - self.pixels) * alpha

    def shadow(self, amount):
        """Darken by a share."""
        self.pixels *= 1 - amount

    def noise(self, amount, kind=MEDIUM):
        """A random crop of the noise bank, (h, w), times `amount`."""
        side = self.canvas.side
        variant, down, along = (self.canvas.rng.random(3) * (VARIANTS, side, side)).astype(int)
        return noise_bank(side)[kind, variant, down:, along:][self.rows, self.cols] * amount


@lru_cache(maxsize=4)
def noise_bank(side):
    """Fractal noises (kind, variant, 2 side, 2 side), doubled so that any crop is a slice."""
    rng = np.random.default_rng(64)
    full = UNITS * OVERSAMPLING
    fy, fx = np.fft.fftfreq(full)[:, None] * full, np.fft.rfftfreq(full) * full
    spectra = (  # in the order of the kinds
        (np.hypot(fy, fx), 3, 2.6),
        (np.hypot(fy, fx), 6, 1.7),
        (np.hypot(fy * 0.35, fx * 1.6), 5, 1.7),
    )
    tiles = [np.tile(spectral_noise(rng, *s), (2, 2)) for s in spectra for _ in range(VARIANTS)]
    scaled = [Image.fromarray(tile).resize((2 * side, 2 * side), Image.Resampling.BICUBIC) for tile in tiles]
    return np.stack([np.asarray(tile) for tile in scaled]).reshape(-1, VARIANTS, 2 * side, 2 * side)


def spectral_noise(rng, radius, low, slope):
    """White noise shaped by the amplitude 1 / (low + radius) ** slope, without the finest detail."""
    shape = len(radius), len(radius)
    amplitude = (low + radius) ** -slope * np.exp(-((radius / 30) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, s=shape)
    return np.clip((noise - noise.mean()) / noise.std(), -2.5, 2.5).astype(np.float32)
