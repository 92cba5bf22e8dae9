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
from ganlens.dissection.certificates import Certificates, certify
from ganlens.dissection.layer_statistics import Columns, Tally, scales_of
from ganlens.dissection.passes import PILOT
from ganlens.statistics import Areas

N = 1000
AT_ONCE = 8


def certified(features: torch.Tensor, labels: torch.Tensor, concepts: int, rule: str = "quantile", quantile=0.01):
    """IoU and certificates of features (N, U, H, W) and labels (N, h, w), 0 for none, counted as a pass does."""
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
    return reading.overlap / (reading.on + reading.area - reading.overlap), found


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


def planted_iou(quantile: float = 0.01) -> np.ndarray:
    """IoU (U,) of each unit with its own concept, exactly."""
    spread, found = np.hypot(1, SHARED), []
    for f in FREQUENCIES:
        for s in STRENGTHS:

            def above(level: float, s=s, f=f) -> tuple[float, float]:
                inside = f * ndtr((s - level) / spread)
                return inside, inside + (1 - f) * ndtr(-level / spread)

            level = brentq(lambda level, above=above: above(level)[1] - quantile, -20, 20)
            both, on = above(level)
            found.append(both / (on + f - both))
    return np.array(found)


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


def coverage(samples: Iterator[tuple[np.ndarray, Certificates]], truth: np.ndarray, pick=lambda x: x) -> np.ndarray:
    """Share of the samples whose interval holds the truth, for each entry of it."""
    inside = [(pick(c.low) <= truth) & (truth <= pick(c.high)) for _, c in samples]
    return np.mean(inside, 0)


def covered(repetitions: int = 400, n: int = N, rules=("quantile",)) -> None:
    """Print how often the intervals of planted units hold their IoU."""
    truth = planted_iou()
    for rule in rules:
        samples = (certified(*planted(n, seed), 2, rule) for seed in range(repetitions))
        share = coverage(samples, truth, own)[truth > 0.02]
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
    truth = certified(features, labels.int(), len(S.concepts))[0][at]
    random = np.random.default_rng(0)

    def samples() -> Iterator[tuple[np.ndarray, Certificates]]:
        for _ in range(repetitions):
            some = random.choice(size, n, replace=False)
            yield certified(features[some], labels[some].int(), len(S.concepts))

    share = coverage(samples(), truth, lambda array: array[at])
    words = f"{share.mean():.4f} of the intervals hold the truth ({share.min():.3f} to {share.max():.3f} by unit)"
    print(f"pool of {size:,}: {words}, {repetitions} repetitions", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    acts = {"shuffled": shuffled, "planted": found_again, "covered": covered, "pool": pool}
    for name in sys.argv[1:] or acts:
        acts[name]()
