"""Whether certificates keep what they promise: shuffled labels, planted units, known IoUs.

    python tests/dissection/calibrate_certificates.py [shuffled] [planted] [covered] [pool]

- *shuffled*: the labels of three families' images are given to other images; how many units are certain all the same.
- *planted*: units that follow a concept from barely to fully; how many of IoU >= 0.1 are certain.
- *covered*: how often the intervals of 400 samples hold the IoU that mathematics gives.
- *pool*: the same for the embedded generator, with samples out of 50,000 of its images.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtr

import ganlens as gl
from ganlens.dissection.certificates import certify
from ganlens.dissection.layer_statistics import Columns, Tally, scales_of
from ganlens.dissection.passes import PILOT
from ganlens.statistics import Areas

N = 1000
AT_ONCE = 8


def certified(features: torch.Tensor, labels: torch.Tensor, concepts: int, rule: str = "quantile", quantile=0.01):
    """Counts and certificates of features (N, U, H, W) and labels (N, h, w), 0 for none, counted as a pass does."""
    columns = Columns([gl.Concept(str(c), "thing") for c in range(concepts)], False)
    planes, size = columns.of(labels[:, None]), (labels.shape[1], labels.shape[2])
    scales = scales_of(list(features[:PILOT]), size, [rule], quantile)
    grid = features.shape[2], features.shape[3]
    tally = Tally(scales, grid, size, columns, quantile, 1, range(len(features)))
    areas = [Areas(columns.count) for _ in range(2)]
    for start in range(0, len(features), AT_ONCE):
        r, some = features[start : start + AT_ONCE].float(), planes[start : start + AT_ONCE]
        for odd in range(2):
            areas[odd].update(some[odd::2])
        broken = torch.zeros(r.shape[:2], dtype=torch.bool)
        tally.update(r, broken, some, list(range(start, start + len(r))))
    reading = tally.read(rule, areas)
    blocks = tally.tail_blocks if rule == "quantile" else tally.odd_blocks
    chosen = quantile if rule == "quantile" else None
    found = certify(blocks, tally.cells, slice(None), columns, reading, chosen)
    return reading, found


# ---- labels of other images

DATA = Path(__file__).parents[1] / "data"


def families() -> Iterator[tuple[str, gl.Generator, str, gl.Segmenter]]:
    """The embedded generator; and two families with random weights, whose images are segmented by their colours."""

    def colours(x: torch.Tensor) -> torch.Tensor:
        bright, red = x.mean(1), x[:, 0] - x[:, 2]
        return torch.where(bright > bright.median(), 1, 0) + torch.where(red > red.median(), 2, 0)

    by_colour = gl.Segmenter.wrap(colours, ["bright", "red", "bright red"])
    yield "scenes", gl.load_generator("scenes"), "layer4", gl.load_segmenter("scenes")
    yield "Progressive GAN", gl.load_generator(DATA / "proggan_32.pth"), "layer4", by_colour
    yield "StyleGAN2", gl.load_generator(DATA / "stylegan2_rosinality_32.pt"), "convs.1", by_colour


def looked_at(G: gl.Generator, S: gl.Segmenter, layer: str, seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, U, H, W) and first label planes (N, h, w) of seeds."""
    features, labels = [], []
    for start in range(seeds.start, seeds.stop, AT_ONCE):
        with torch.no_grad():
            x, r = G.read(G.latents(range(start, min(start + AT_ONCE, seeds.stop))), [layer])
            features.append(r[layer].float())
            labels.append(S.labels(x)[:, 0])
    return torch.cat(features), torch.cat(labels)


def shuffled(repetitions: int = 40, n: int = 500, rules=("quantile", "iqr", "iou")) -> None:
    """Print the share of units that are certain of any concept, with labels of other images, and of their own."""
    for name, G, layer, S in families():
        features, labels = looked_at(G, S, layer, range(n))
        _, others = looked_at(G, S, layer, range(10**6, 10**6 + n))
        random, concepts = np.random.default_rng(0), len(S.concepts)
        for rule in rules:
            share = [
                certified(features, others[random.permutation(n)], concepts, rule)[1].certain.any(1).mean()
                for _ in range(repetitions)
            ]
            own = certified(features, labels, concepts, rule)[1].certain.any(1).mean()
            found = f"{np.mean(share):.4f} of {features.shape[1]} units certain, at most {max(share):.4f}"
            print(
                f"shuffled, {name}, {rule}: {found} in {repetitions} repetitions; their own labels: {own:.2f}",
                flush=True,
            )


# ---- planted units

STRENGTHS = np.linspace(0, 4, 17)  # how much the concept adds to a unit, in standard deviations of its noise
SHARED = 0.6  # standard deviation of what all cells of an image have in common
FREQUENCIES = 0.03, 0.15  # of the concepts
SIDE = 8


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Units that follow concept 0 or 1 by each strength: features (N, U, 8, 8), labels (N, 8, 8).

    How much of an image a concept takes varies, and all cells of an image share a part of their noise, so that cells
    say less than their number.
    """
    random = np.random.default_rng(seed)
    shares = random.beta(0.5, 0.5 / np.sum(FREQUENCIES) - 0.5, (n, 1, 1))
    there = random.random((n, SIDE, SIDE)) < shares
    second = random.random(there.shape) < FREQUENCIES[1] / np.sum(FREQUENCIES)
    labels = np.where(there, 1 + second, 0)
    noise = random.standard_normal((n, 2 * len(STRENGTHS), SIDE, SIDE))
    noise += SHARED * random.standard_normal((n, 2 * len(STRENGTHS), 1, 1))
    pulls = np.concatenate([s * (labels == c + 1)[:, None] for c in range(2) for s in STRENGTHS], 1)
    return torch.from_numpy(noise + pulls).float(), torch.from_numpy(labels)


PLANTED = tuple((f, s) for f in FREQUENCIES for s in STRENGTHS)  # frequency of its concept, strength, of each unit


def above(level: float, f: float, s: float) -> tuple[float, float]:
    """Share of the pixels that have a planted unit above a level and its concept, and that have it above at all."""
    spread = np.hypot(1, SHARED)
    inside = f * ndtr((s - level) / spread)
    return inside, inside + (1 - f) * ndtr(-level / spread)


def planted_iou(levels: np.ndarray | None = None, quantile: float = 0.01) -> np.ndarray:
    """IoU (U,) of each unit with its own concept, exactly: at given levels (U,), or those that a quantile exceeds."""
    if levels is None:
        levels = np.array([brentq(lambda x, f=f, s=s: above(x, f, s)[1] - quantile, -20, 20) for f, s in PLANTED])
    pairs = [above(level, f, s) for level, (f, s) in zip(levels, PLANTED, strict=True)]
    return np.array([both / (on + f - both) for (both, on), (f, _) in zip(pairs, PLANTED, strict=True)])


def own(array: np.ndarray) -> np.ndarray:
    """The entries (U,) of each unit with its own concept, of an array (U, 2)."""
    return np.concatenate([array[: len(STRENGTHS), 0], array[len(STRENGTHS) :, 1]])


def found_again(repetitions: int = 20, n: int = N) -> None:
    """Print how many of the planted units are certain, by their IoU."""
    truth = planted_iou()
    certain = np.mean([own(certified(*planted(n, seed), 2)[1].certain) for seed in range(repetitions)], 0)
    for low, high in ((0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 1)):
        some = (truth >= low) & (truth < high)
        print(f"planted, IoU {low} to {high}: {certain[some].mean():.3f} certain of {some.sum()} units", flush=True)


# ---- intervals


def coverage(rule: str, repetitions: int, n: int) -> np.ndarray:
    """Share of the samples whose interval holds the IoU, at the threshold that was chosen if one was, by unit."""
    told, fixed, inside = planted_iou() > 0.02, planted_iou(), []
    for seed in range(repetitions):
        reading, found = certified(*planted(n, seed), 2, rule)
        truth = fixed if rule == "quantile" else planted_iou(own(reading.thresholds_by_concept))
        inside.append(np.where(own(reading.valid), (own(found.low) <= truth) & (truth <= own(found.high)), np.nan))
    return np.nanmean(np.array(inside)[:, told], 0)


def covered(repetitions: int = 400, n: int = N, rules=("quantile", "iqr", "iou")) -> None:
    """Print how often the intervals of planted units hold their IoU."""
    for rule in rules:
        share = coverage(rule, repetitions, n)
        words = f"{share.mean():.4f} of the intervals hold the truth ({share.min():.3f} to {share.max():.3f} by unit)"
        print(f"covered, {rule}: {words}, {repetitions} repetitions", flush=True)


def pool(repetitions: int = 400, n: int = N, size: int = 50_000, k: int = 24) -> None:
    """Print the same for samples out of many images of the embedded generator, for the units of highest IoU."""
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    labels_of = gl.dissect(G, S, "layer4", n=500).best_labels(k)
    units, concepts = [label.unit for label in labels_of], [S.index(label.concept.name) for label in labels_of]
    parts = []
    for start in range(0, size, 500):
        features, labels = looked_at(G, S, "layer4", range(start, start + 500))
        parts.append((features[:, units].half(), labels.to(torch.int8)))
    features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    at = np.arange(k), np.array(concepts)
    every = certified(features.float(), labels.int(), len(S.concepts))[0]
    truth = (every.overlap / (every.on + every.area - every.overlap))[at]
    random = np.random.default_rng(0)

    inside = []
    for _ in range(repetitions):
        some = random.choice(size, n, replace=False)
        found = certified(features[some].float(), labels[some].int(), len(S.concepts))[1]
        inside.append((found.low[at] <= truth) & (truth <= found.high[at]))
    share = np.mean(inside, 0)
    words = f"{share.mean():.4f} of the intervals hold the truth ({share.min():.3f} to {share.max():.3f} by unit)"
    print(f"pool of {size:,}: {words}, {repetitions} repetitions", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    acts = {"shuffled": shuffled, "planted": found_again, "covered": covered, "pool": pool}
    for name in sys.argv[1:] or acts:
        acts[name]()
