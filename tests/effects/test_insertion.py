"""What units draw where they are switched on, on generators whose cause and effect are known."""

import numpy as np
import planted
import pytest
from torch import nn

from ganlens.dissection.dissect import dissect
from ganlens.effects.counting import samples
from ganlens.effects.insertion import Gain, average_causal_effect, insertion_effect, presence_levels
from ganlens.models.base import Generator
from ganlens.models.editing import ablate, insert
from ganlens.segmenters.base import Concept, Segmenter


@pytest.fixture(scope="module")
def embedded(G, S):
    return dissect(G, S, "layer4", n=64, progress=False)


@pytest.fixture(scope="module")
def D():
    S = Segmenter.wrap(planted.two_colors, ["red", "green"])
    return dissect(Generator.wrap(planted.TwoColors(), 64), S, "layer", n=64, progress=False)


def test_what_is_switched_on_is_drawn_there(D):
    region = np.zeros((8, 8))
    region[2:4, 3:6] = 1
    x = D.generator.generate(next(samples(D.sample + 1, 30, 30)))
    free = float((x[:, 0, 2:4, 3:6] < 0).float().mean())
    gain = insertion_effect(D, "red", [0], n=30, level=1.0, region=region, progress=False)
    assert gain.gained == pytest.approx([free, 0])
    assert gain.area.tolist() == [6] * 30
    low, high = gain.interval
    assert low[0] <= gain.gained[0] <= high[0]
    assert gain.random.shape == (3, 2)


def test_average_causal_effect_of_the_cause_is_one(D):
    """On everywhere where it is switched on, off everywhere where it is switched off, and read nowhere else."""
    effect = average_causal_effect(D, "red", [0], n=20, level=1.0, patch=2, progress=False)
    assert effect.gained[0] == 1
    assert effect.area.tolist() == [4] * 20
    assert effect.without[:, 0].tolist() == [0] * 20
    other = average_causal_effect(D, "red", [5], n=20, level=1.0, draws=0, progress=False)
    assert other.gained[0] == 0


def test_places_depend_on_the_sample_alone(D):
    a, b, c = (
        average_causal_effect(D, "green", [0], n=n, level=1.0, sample=sample, draws=0, progress=False)
        for n, sample in ((10, 4), (6, 4), (10, 5))
    )
    assert (a.present[:6] == b.present).all()
    assert (a.present != c.present).any()


def test_presence_level_is_the_mean_where_the_concept_is(embedded):
    D, i = embedded, embedded.segmenter.index("tree")
    x, features = D.generator.read(D.generator.latents(range(D.sample * 10**6, D.sample * 10**6 + 40)), [D.layer])
    shown = D.segmenter.labels(x) == i + 1
    r = nn.functional.interpolate(features[D.layer], (64, 64), mode="bilinear", align_corners=False)
    expected = (r.double() * shown).sum((0, 2, 3)) / shown.sum()
    np.testing.assert_allclose(presence_levels(D, D.concepts[i], n=40), expected, atol=1e-5)


def test_gains_equal_full_passes_with_the_edit():
    S = Segmenter.wrap(planted.two_planes, planted.TWO_PLANES)
    D = dissect(Generator.wrap(planted.Residual(), planted.Z), S, "block1.conv2", n=16, progress=False)
    region = np.zeros((4, 4))
    region[1:3, 2:] = 1
    gain = insertion_effect(D, "above", [1, 4], n=40, level=2.0, region=region, draws=0, progress=False)
    seeds = next(samples(D.sample + 1, 40, 40))
    x = [D.generator.generate(seeds, edits) for edits in ([], [insert(D.layer, [1, 4], 2.0, region=region)])]
    before, after = ([(S.labels(images) == c + 1).sum().item() for c in range(5)] for images in x)
    assert before != after
    side = x[0].shape[-1] // 4
    np.testing.assert_allclose(gain.gained, (np.array(after) - before) / (40 * 4 * side**2), atol=1e-5)
    effect = average_causal_effect(D, "above", [1, 4], n=40, level=2.0, region=region, draws=0, progress=False)
    edits = insert(D.layer, [1, 4], 2.0, region=region), ablate(D.layer, [1, 4], region)
    on, off = (S.labels(D.generator.generate(seeds, [edit]))[..., side : 3 * side, 2 * side :] for edit in edits)
    expected = [int((on == c).sum() - (off == c).sum()) / (40 * 4 * side**2) for c in range(1, 6)]
    np.testing.assert_allclose(effect.gained, expected, atol=1e-5)


def test_the_interval_covers_a_planted_gain():
    """Of made-up images in which 30 % of what is edited turns into the concept, over 400 samples: about 99 %."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        area = rng.integers(8, 40, 100)
        present = rng.binomial(area, rng.beta(3, 7, 100))[:, None]
        none = np.zeros((0, 100, 1), int)
        counts = {"without": 0 * present, "present": present, "random_without": none, "random_present": none}
        what = {"layer": "layer", "units": (0,), "concept": Concept("a"), "concepts": (Concept("a"),)}
        gain = Gain(**what, area=area, against="unedited", **counts)
        low, high = gain.interval
        inside += low[0] <= 0.3 <= high[0]
    assert 0.97 <= inside / 400 <= 1
