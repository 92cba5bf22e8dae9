"""The embedded networks are as good as the documentation says: the ground that everything else stands on."""

import numpy as np
import pytest

from ganlens.dissection.dissect import dissect
from ganlens.effects.ablation import ablation_effect
from ganlens.effects.single_units import unit_effects
from ganlens.embedded.evaluation import evaluate_generator, evaluate_segmenter
from ganlens.models.families.scenes import WEIGHTS
from ganlens.segmenters.scenes import WEIGHTS as SEGMENTER_WEIGHTS

LAYER = "layer5"


@pytest.fixture(scope="module")
def dissections(G, S):
    return dissect(G, S, ["layer4", LAYER, "layer6"], n=400, progress=False)


def test_segmenter_on_held_out_paintings(S):
    assert evaluate_segmenter(S, n=200)["miou"] >= 0.85


@pytest.mark.slow
def test_images_are_close_to_paintings(G, S):
    scores = evaluate_generator(G, S, n=300)
    assert abs(scores["kernel_distance_of_paintings"]) < 1
    assert scores["kernel_distance"] < 10


def test_units_draw_concepts(dissections):
    found = [label for D in dissections.values() for label in D.labels if label.interpretable]
    assert len(found) >= 40
    assert len({label.concept for label in found}) >= 9


@pytest.mark.slow
def test_units_cause_concepts(dissections):
    """For four concepts or more, 20 units remove half of the pixels; 20 random units remove few, on average."""
    D = dissections[LAYER]
    alone = unit_effects(D, n=24, progress=False)
    removed, random = [], []
    for i, concept in enumerate(D.concepts):
        if concept.name in ("tree", "dome", "cloud", "tower", "path"):
            effect = ablation_effect(D, concept, np.argsort(-alone[:, i])[:20], n=96, draws=3, progress=False)
            removed.append(effect.removed[i])
            random.append(effect.random[:, i].mean())
            assert effect.collateral < 0.2
    assert np.sum(np.array(removed) >= 0.5) >= 4
    assert np.mean(random) <= 0.15


def test_size():
    assert WEIGHTS.stat().st_size + SEGMENTER_WEIGHTS.stat().st_size <= 12_000_000
