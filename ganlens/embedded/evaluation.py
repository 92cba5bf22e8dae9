"""How good the embedded networks are, measured on paintings that they have not seen."""

from typing import Any

import numpy as np
import torch

from ganlens.comparisons.distances import frechet_distance, kernel_distance
from ganlens.dissection.dissect import dissect
from ganlens.effects.ablation import Effect
from ganlens.effects.context import context
from ganlens.effects.counting import count_under
from ganlens.effects.single_units import unit_effects
from ganlens.images import from_uint8
from ganlens.models.base import Generator
from ganlens.models.editing import ablate
from ganlens.scenes.painter import HELD_OUT, paint_many
from ganlens.segmenters.base import Segmenter
from ganlens.segmenters.scenes import SceneSegmenter

ADDED = ("door", "window", "tree", "dome", "cloud")
OBJECTS = ("tree", "door", "dome", "window", "cloud", "tower", "path", "roof")


def evaluate_segmenter(segmenter: SceneSegmenter, n: int = 1000) -> dict:
    """Pixel accuracy, IoU of each concept and their mean, on ``n`` held-out paintings with exact labels."""
    count = len(segmenter.concepts)
    confusion = np.zeros((count, count), np.int64)
    for start in range(0, n, 50):
        pictures, truth = paint_many(range(HELD_OUT + start, HELD_OUT + min(start + 50, n)))
        found = segmenter.labels(from_uint8(pictures))[:, 0].numpy() - 1
        confusion += np.bincount(((truth - 1) * count + found).ravel(), minlength=count**2).reshape(count, count)
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    by_concept = {c.name: round(float(v), 3) for c, v in zip(segmenter.concepts, iou, strict=True)}
    return {"accuracy": hits.sum() / confusion.sum(), "miou": iou.mean(), "iou": by_concept}


def evaluate_generator(generator: Generator, segmenter: SceneSegmenter, n: int = 2000) -> dict:
    """Distances between ``n`` generated images and ``n`` paintings, and between two halves of 2n paintings.

    The kernel distance is the unbiased squared MMD with the kernel (x·y / d + 1)³ (Bińkowski et al., ICLR 2018), times
    1,000, on the segmenter's bottleneck features. The Fréchet segmentation distance (Bau et al., ICCV 2019) is taken on
    the percentage of pixels per concept.
    """
    ours = describe(segmenter, (generator.generate(range(i, min(i + 50, n))) for i in range(0, n, 50)))
    seeds = (range(HELD_OUT + i, HELD_OUT + min(i + 50, 2 * n)) for i in range(0, 2 * n, 50))
    painted = describe(segmenter, (from_uint8(paint_many(some)[0]) for some in seeds))
    first, second = (tuple(part[half] for part in painted) for half in (slice(n), slice(n, None)))
    return {
        "kernel_distance": kernel_distance(ours[0], first[0]),
        "kernel_distance_of_paintings": kernel_distance(second[0], first[0]),
        "frechet_segmentation_distance": frechet_distance(ours[1], first[1]),
        "frechet_segmentation_distance_of_paintings": frechet_distance(second[1], first[1]),
    }


@torch.inference_mode()
def describe(segmenter: SceneSegmenter, batches) -> tuple[np.ndarray, np.ndarray]:
    """Bottleneck features (N, D) and percent of pixels per concept (N, C) of batches of images."""
    features, areas = [], []
    for x in batches:
        features.append(segmenter.net.bottleneck(x).double().numpy())
        labels = segmenter.labels(x).flatten(1)
        areas.append(torch.nn.functional.one_hot(labels - 1, len(segmenter.concepts)).double().mean(1).numpy() * 100)
    return np.concatenate(features), np.concatenate(areas)


def evaluate_layers(generator: Generator, segmenter: SceneSegmenter, n: int = 2000) -> dict:
    """Interpretable units and distinct concepts of each layer (quantile rule, ``n`` images)."""
    found = dissect(generator, segmenter, list(generator.layers), n=n)
    summaries = {layer: D.summary() for layer, D in found.items()}
    return {layer: {k: s[k] for k in ("units", "interpretable", "distinct")} for layer, s in summaries.items()}


def evaluate_removal(generator: Generator, segmenter: SceneSegmenter, layer: str, n: int = 500, k: int = 20) -> dict:
    """What switching off ``k`` units of a layer removes, for eight concepts, on latents not used to rank the units.

    Units are ranked by IoU and by what each unit alone removes. ``others`` is the change of all other concepts' pixels,
    ``random`` the shares that ten random sets of ``k`` units remove.
    """
    D = dissect(generator, segmenter, layer, n=1000)
    alone = unit_effects(D, n=64)
    asked = [i for i, concept in enumerate(D.concepts) if concept.name in OBJECTS]
    random = np.random.default_rng(0)
    sets = [np.argsort(-alone[:, i])[:k].tolist() for i in asked] + [D.units(D.concepts[i], k) for i in asked]
    sets += [random.choice(len(alone), k, replace=False).tolist() for _ in range(10)]
    counted = count_under(D, [ablate(layer, units) for units in sets], n)
    by_effect, by_iou, by_chance = np.split(counted.after, [len(asked), 2 * len(asked)])
    found = {}
    for i, effect, iou in zip(asked, by_effect, by_iou, strict=True):
        what: dict[str, Any] = {"layer": layer, "units": (), "concept": D.concepts[i], "concepts": D.concepts}
        best, matching = (
            Effect(**what, before=counted.before, after=after, random_after=by_chance) for after in (effect, iou)
        )
        found[D.concepts[i].name] = {
            "by_effect": best.removed[i],
            "interval": [best.low[i], best.high[i]],
            "others": best.collateral,
            "by_iou": matching.removed[i],
            "others_by_iou": matching.collateral,
            "random": best.random[:, i].tolist(),
        }
    return found


def evaluate_addition(generator: Generator, segmenter: Segmenter, layer: str, n: int = 500, k: int = 20) -> dict:
    """Pixels of a concept gained per pixel edited, where ``k`` units are switched on in one cell at a time.

    The units with the highest IoU, at the default level: in the eighth of each image's cells where they add most
    (``best``), in the best of all (``cell``), where there is sky, and with as many random units in the same eighth.
    """
    D, found = dissect(generator, segmenter, layer, n=1000), {}
    sky = 1 + [concept.name for concept in D.concepts].index("sky")
    for name in ADDED:
        C = context(D, name, k=k, n=n, stride=max(1, D.shape[0] // 8))
        assert C.random_gained is not None
        pixels = C.size[0] * C.size[1] / (C.grid[0] * C.grid[1])
        gained, random = (array.reshape(n, -1) / pixels for array in (C.gained, C.random_gained))
        order = np.argsort(-gained, 1)[:, : max(1, gained.shape[1] // 8)]
        best, by_chance = (np.take_along_axis(array, order, 1) for array in (gained, random))
        in_the_sky = gained[(C.before == sky).any(-1).reshape(n, -1)]
        parts = {"best": best, "cell": best[:, 0], "sky": in_the_sky, "random": by_chance}
        found[name] = {part: round(float(values.mean()), 3) for part, values in parts.items() if values.size}
    return found
