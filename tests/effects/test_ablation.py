"""Effects of units, on generators whose cause and effect are known."""

import dataclasses
import json
import signal

import numpy as np
import planted
import pytest
import torch

from ganlens.dissection.dissect import dissect
from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import Effect, ablation_effect, share_removed
from ganlens.effects.counting import count_pixels, samples
from ganlens.effects.insertion import average_causal_effect, insertion_effect
from ganlens.effects.minimal_units import minimal_units
from ganlens.effects.rankings import compare_rankings, match_and_cause, unit_gradients
from ganlens.effects.single_units import unit_effects
from ganlens.files import with_header
from ganlens.models.base import Generator
from ganlens.models.editing import ablate
from ganlens.segmenters.base import Concept, Segmenter


@pytest.fixture(scope="module")
def embedded(G, S):
    return dissect(G, S, "layer4", n=64, progress=False)


@pytest.fixture(scope="module")
def D():
    S = Segmenter.wrap(planted.two_colors, ["red", "green"])
    return dissect(Generator.wrap(planted.TwoColors(), 64), S, "layer", n=64, progress=False)


def test_the_cause_removes_everything_and_nothing_else(D):
    effect = ablation_effect(D, "red", [0], n=40, progress=False)
    assert effect.removed.tolist() == [1, 0]
    assert effect.collateral == 0
    assert effect.low[0] == effect.high[0] == 1
    assert effect.n == 40
    assert (effect.before.sum(1) > 0).all()


def test_unit_effects_name_the_causes(D):
    alone = unit_effects(D, n=16, progress=False)
    expected = np.zeros((8, 2))
    expected[0, 0] = expected[1, 1] = 1
    assert (alone == expected).all()


def test_causal_order(D, tmp_path):
    D = dataclasses.replace(D)
    with pytest.raises(ValueError, match=r"effects of the units are not set; .*D.effects = gl.unit_effects\(D\)"):
        D.units("green", by="effect")
    D.save(tmp_path / "without.npz")
    assert Dissection.load(tmp_path / "without.npz").effects is None
    D.effects = unit_effects(D, n=16, progress=False)
    assert D.units("green", k=1, by="effect") == [1]
    assert D.units("red", k=None, by="effect") == list(range(8))  # of equal ones the first comes first
    D.save(tmp_path / "with.npz")
    again = Dissection.load(tmp_path / "with.npz")
    assert (again.effects == D.effects).all()
    assert again.units("green", k=3, by="effect") == [1, 0, 2]


def test_effects_of_some_units_are_no_causal_order(D, tmp_path):
    D = dataclasses.replace(D, effects=unit_effects(D, [1, 2], n=4, progress=False))
    for use in (lambda: D.units("red", by="effect"), lambda: D.save(tmp_path / "some.npz")):
        with pytest.raises(ValueError, match=r"effects .*of shape \(2, 2\), not \(8, 2\); measure them"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_damaged_effects_are_refused(D, tmp_path):
    dataclasses.replace(D, effects=np.zeros((8, 2))).save(tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    header.pop("digest")
    np.savez(tmp_path / "d.npz", **with_header(header, arrays | {"effects": np.zeros((7, 2))}))
    with pytest.raises(ValueError, match=r"d.npz is damaged: effects of shape \(7, 2\)"):
        Dissection.load(tmp_path / "d.npz")


def test_progress_may_stop(D, untouched):
    """It is told of every step; when it raises an interrupt, what was measured so far is given."""
    untouched(D.generator.net)
    steps = []

    def stop(done, total):
        steps.append((done, total))
        if done >= 40:
            raise KeyboardInterrupt

    part = unit_effects(D, n=8, progress=stop)
    assert np.isfinite(part).all(1).tolist() == [True] * 4 + [False] * (len(part) - 4)
    assert steps == [(done, 72) for done in range(8, 41, 8)]
    assert D.effects is None
    unit_effects(D, n=8, progress=lambda *step: steps.append(step))
    assert steps[-1] == (72, 72)


def test_a_region_removes_its_own_share(D):
    region = np.zeros((8, 8))
    region[:, :4] = 1
    effect = ablation_effect(D, "red", [0], n=50, region=region, progress=False)
    x = D.generator.generate([seed for batch in samples(D.sample + 1, 50, 32) for seed in batch])
    red = x[:, 0] > 0
    assert effect.removed[0] == pytest.approx(float(red[..., :4].sum() / red.sum()))
    assert 0 < effect.low[0] < effect.removed[0] < effect.high[0] < 1


def test_counts_equal_a_full_pass_with_the_edit(embedded):
    D = embedded
    units = [1, 5, 8, 30]
    effect = ablation_effect(D, "tree", units, n=20, to="mean", draws=1, progress=False)
    seeds = [seed for batch in samples(D.sample + 1, 20, 32) for seed in batch]
    after = D.generator.generate(seeds, edits=[ablate(D.layer, units, to="mean")])
    found = count_pixels(D, after)
    assert np.abs(effect.after - found).sum() <= 20  # rounding may flip a pixel
    assert effect.after.sum(1).tolist() == [64 * 64] * 20
    assert effect.random.shape == (1, len(D.concepts))


def test_images_are_not_those_of_the_dissection(D):
    assert not set(D.top[D.top >= 0].tolist()) & {seed for batch in samples(D.sample + 1, 100, 32) for seed in batch}


def test_the_interval_covers_the_truth_as_often_as_it_says(D):
    """Over many small samples, the 99 % interval contains the effect on a large one nearly always."""
    region = np.zeros((8, 8))
    region[:, :4] = 1
    truth = ablation_effect(D, "red", [0], n=2000, region=region, draws=0, sample=50, progress=False).removed[0]
    inside = 0
    for sample in range(60, 100):
        small = ablation_effect(D, "red", [0], n=60, region=region, draws=0, sample=sample, progress=False)
        inside += small.low[0] <= truth <= small.high[0]
    assert inside >= 36


def test_the_mean_of_random_sets_has_an_interval(wired):
    effect = ablation_effect(wired, "red", [1], n=40, draws=4, progress=False)
    low, high = effect.random_interval
    assert (low <= effect.random.mean(0)).all()
    assert (effect.random.mean(0) <= high).all()
    alike = dataclasses.replace(effect, random_after=np.stack([effect.after] * 3))
    np.testing.assert_allclose(alike.random_interval, effect.interval)
    none = dataclasses.replace(effect, random_after=effect.random_after[:0])
    assert np.isnan(none.random_interval).all()


def test_share_removed():
    assert share_removed(np.array([10, 4, 0]), np.array([5, 6, 0])).tolist() == [0.5, -0.5, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "rde"}, "did you mean 'red'"),
        ({"concept": "red", "units": [8]}, "unit 8 is out of range"),
        ({"concept": "red", "k": 0}, "at least 1"),
        ({"concept": "red", "k": 9}, "k=9: layer has 8 units"),
        ({"concept": "red", "k": 2, "to": "one"}, "'zero' or to their 'mean'"),
    ],
)
def test_bad_input(D, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablation_effect(D, n=8, progress=False, **arguments)


# ---- planted wiring


@pytest.fixture(scope="module")
def wired():
    S = Segmenter.wrap(planted.channels, planted.COLORS)
    S.level = 0.5
    return dissect(Generator.wrap(planted.Wiring(), 64), S, "layer", n=64, progress=False)


@pytest.fixture(scope="module")
def alone(wired):
    return unit_effects(wired, n=32, progress=False)


def interrupting(at):
    """A progress function that sends one real interrupt after ``at`` images or more."""
    sent = []

    def tell(done, total):
        if done >= at and not sent:
            sent.append(done)
            signal.raise_signal(signal.SIGINT)

    return tell


def test_units_alone_do_what_they_are_wired_to(alone):
    red, green, blue = alone.T
    assert red[1] > 0.3
    assert red[4] > 0.3
    assert red[1] + red[4] == pytest.approx(1)
    assert np.flatnonzero(red).tolist() == [1, 4]
    assert not green.any()
    assert blue.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_decoy_and_hidden_causes(wired, alone):
    D = dataclasses.replace(wired, effects=alone)
    assert D.units("red", k=1) == [0]
    found = match_and_cause(D, "red", match=0.5)
    assert found.decoys == [0]
    assert sorted(found.hidden) == [1, 4]
    assert found.causes == []
    assert match_and_cause(D, "green", match=0.5).decoys == [2, 3]
    with pytest.raises(ValueError, match="measure them"):
        match_and_cause(wired, "red")


def test_units_that_act_only_together(wired):
    effect = ablation_effect(wired, "green", [2, 3], n=20, curve=True, progress=False)
    assert [part.removed[1] for part in effect.curve] == [0, 1]
    assert effect.curve[1].removed.tolist() == effect.removed.tolist()


def test_change_of_everything_else(wired):
    """Unit 4 takes blue away with the red of one half; what does not show blue changes only where it shows red."""
    x = wired.generator.generate(next(samples(wired.sample + 1, 20, 20)))
    red, blue = (x[:, [0, 2]] > 0).transpose(0, 1)
    effect = ablation_effect(wired, "blue", [4], n=20, progress=False)
    right = red & (torch.arange(8) >= 4)
    assert effect.elsewhere == pytest.approx(float((right & ~blue).sum() / (~blue).sum()))
    assert ablation_effect(wired, "red", [1], n=20, progress=False).elsewhere == 0
    assert effect.random_elsewhere.shape == (3,)


def test_effect_inside_a_region(wired):
    left = np.repeat([[1.0] * 4 + [0.0] * 4], 8, 0)
    inside = ablation_effect(wired, "red", [1], n=20, region=left, inside=True, progress=False)
    assert inside.removed[0] == 1
    assert inside.pixels.tolist() == [32] * 20
    assert 0 < ablation_effect(wired, "red", [1], n=20, region=left, progress=False).removed[0] < 1


def test_rankings_on_the_same_curve(wired, alone):
    D = dataclasses.replace(wired, effects=alone)
    found = compare_rankings(D, "red", k=2, n=20, progress=False)
    assert list(found) == ["iou", "effect"]
    assert [part.removed[0] for part in found["iou"].curve] == [0, 0]
    assert found["effect"].removed[0] == 1
    assert found["iou"].before is found["effect"].before
    np.testing.assert_array_equal(found["iou"].random, found["effect"].random)
    own = compare_rankings(D, "red", {"mine": [4, 1, 0]}, k=2, n=20, draws=0, curve=[1], progress=False)
    assert [len(part.units) for part in own["mine"].curve] == [1, 2]


def test_gradients_equal_effects_where_everything_is_linear(wired):
    """What is linear in a unit is told exactly by its gradient; the score stands in for the pixels."""
    estimate = unit_gradients(wired, n=32, progress=False)
    seeds = next(samples(wired.sample + 2, 32, 32))
    scores = [wired.segmenter.scores(wired.generator.generate(seeds, [ablate("layer", [u])])) for u in range(8)]
    before = wired.segmenter.scores(wired.generator.generate(seeds)).sum((0, 2, 3))
    exact = (1 - torch.stack(scores).sum((1, 3, 4)) / before).numpy()
    np.testing.assert_allclose(estimate[:, [0, 2]], exact[:, [0, 2]], atol=1e-5)
    np.testing.assert_allclose(estimate[[2, 3], 1], 0.5, atol=1e-5)  # of two equal ones, each is told a half
    assert np.isnan(unit_gradients(wired, ["blue"], n=8, progress=False)[:, :2]).all()


def test_gradient_order_is_kept(wired, tmp_path):
    D = dataclasses.replace(wired)
    with pytest.raises(ValueError, match=r"gradient of 8 of 8 units .*D.keep_ranking\(\"gradient\", gl.unit_gradients"):
        D.units("red", by="gradient")
    D.keep_ranking("gradient", unit_gradients(D, n=16, progress=False))
    D.keep_ranking("ace", np.arange(8.0), "blue")
    D.save(tmp_path / "d.npz")
    again = Dissection.load(tmp_path / "d.npz")
    assert sorted(again.units("red", k=2, by="gradient")) == [1, 4]
    assert again.units("blue", k=2, by="ace") == [7, 6]
    copy = dataclasses.replace(D, effects=None)
    assert copy.units("blue", k=2, by="ace") == [7, 6]
    copy.keep_ranking("ace", -np.arange(8.0), "blue")
    assert copy.units("blue", k=2, by="ace") == [0, 1]
    assert D.units("blue", k=2, by="ace") == [7, 6]
    assert not wired.rankings
    with pytest.raises(ValueError, match="optimize_units\\(D, 'red'\\)"):
        again.units("red", by="ace")
    for arguments, message in (
        (("gradients", np.zeros((8, 3))), "did you mean 'gradient'"),
        (("ace", np.zeros(7), "red"), r"shape \(7,\): expected \(8,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            D.keep_ranking(*arguments)


# ---- by definition, and as often as they say


def test_unit_effects_equal_full_passes():
    S = Segmenter.wrap(planted.two_planes, planted.TWO_PLANES)
    D = dissect(Generator.wrap(planted.Residual(), planted.Z), S, "block1.conv2", n=16, progress=False)
    seeds = next(samples(D.sample + 2, 40, 40))
    before = count_pixels(D, D.generator.generate(seeds)).sum(0)
    for to in ("zero", "mean"):
        found = unit_effects(D, n=40, to=to, progress=False)
        for unit, row in enumerate(found):
            x = D.generator.generate(seeds, edits=[ablate(D.layer, [unit], to=to)])
            np.testing.assert_allclose(row, share_removed(before, count_pixels(D, x).sum(0)), atol=1e-5)


def test_the_interval_covers_a_planted_share():
    """Of a made-up population with a known share, over 400 samples: about 99 %."""
    rng, inside = np.random.default_rng(0), 0
    concept = Concept("a")
    for _ in range(400):
        before = rng.poisson(rng.gamma(2, 20, 100))[:, None]
        after = rng.binomial(before, rng.beta(4, 6, (100, 1)))
        counts = {"before": before, "after": after, "random_after": after[None][:0]}
        effect = Effect(layer="layer", units=(0,), concept=concept, concepts=(concept,), **counts)
        low, high = effect.interval
        inside += low[0] <= 0.6 <= high[0]
    assert 0.97 <= inside / 400 <= 1


# ---- interrupts


def test_interrupted_effects_go_on(wired, alone, untouched):
    untouched(wired.generator.net)
    part = unit_effects(wired, n=32, progress=interrupting(at=100))
    known = ~np.isnan(part).any(1)
    assert known.tolist() == [True] * 3 + [False] * 5
    D = dataclasses.replace(wired, effects=part)
    with pytest.raises(ValueError, match=r"effect of 5 of 8 units .*known=D.effects"):
        D.units("red", by="effect")
    with pytest.raises(ValueError, match="effect of 5 of 8"):
        match_and_cause(D, "red")
    steps = []
    whole = unit_effects(wired, n=32, progress=lambda *step: steps.append(step), known=part)
    assert (whole == alone).all()
    assert steps[-1] == (32 * 6, 32 * 6)
    assert (unit_effects(wired, n=32, progress=False, known=whole) == alone).all()
    with pytest.raises(ValueError, match=r"known effects of shape \(7, 3\)"):
        unit_effects(wired, known=np.zeros((7, 3)), progress=False)


def test_interrupted_effect_is_that_of_the_images_seen(wired, untouched):
    untouched(wired.generator.net)
    part = ablation_effect(wired, "red", [1], n=96, draws=0, progress=interrupting(at=80))
    assert (part.n, part.complete) == (32, False)
    assert "32 images, incomplete" in repr(part)
    assert (part.after == ablation_effect(wired, "red", [1], n=32, draws=0, progress=False).after).all()
    gain = insertion_effect(wired, "red", [1], n=96, draws=0, progress=interrupting(at=80))
    assert (gain.n, gain.complete) == (32, False)
    with pytest.raises(KeyboardInterrupt):
        ablation_effect(wired, "red", [1], n=96, draws=0, progress=interrupting(at=1))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (ablation_effect, {"concept": "blau", "k": 1}, "concept 'blau'"),
        (ablation_effect, {"region": np.ones((4, 8))}, r"region of shape \(4, 8\): layer has 8 x 8 cells"),
        (ablation_effect, {"k": 9}, "layer has 8 units"),
        (ablation_effect, {"curve": [3]}, "numbers of units from 1 to 2"),
        (ablation_effect, {"n": 0}, "n=0: expected at least 1"),
        (insertion_effect, {"region": np.ones((4, 8))}, r"region of shape \(4, 8\): layer has 8 x 8 cells"),
        (insertion_effect, {"region": np.zeros((8, 8))}, "region has no cell"),
        (insertion_effect, {"patch": 9}, "from 1 to 8"),
        (insertion_effect, {"level": "high"}, "level 'high'"),
        (average_causal_effect, {"k": 9}, "layer has 8 units"),
        (compare_rankings, {"by": "iou"}, "expected several rankings"),
        (compare_rankings, {"by": ["best"]}, "expected 'iou', 'iqr'"),
    ],
)
def test_more_bad_input(wired, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(wired, **{"concept": "red", "k": 2, "n": 4, "progress": False} | arguments)


def test_a_concept_that_is_never_there(wired):
    S = Segmenter.wrap(lambda x: (x[:, :1] > 9).int(), ["nothing"])
    D = dissect(wired.generator, S, "layer", n=16, progress=False)
    with pytest.raises(ValueError, match=r"nothing is in none of the 8 images: take more \(n=…\)"):
        ablation_effect(D, "nothing", [0], n=8, progress=False)
    with pytest.raises(ValueError, match="nothing is in none of the 16 images: give a level"):
        insertion_effect(D, "nothing", [0], n=8, level="presence", progress=False)
    for function in (ablation_effect, insertion_effect, average_causal_effect):
        with pytest.raises(ValueError, match=r"nothing is in none of the 16 images of this dissection.*units=\[…\]"):
            function(D, "nothing", n=8, k=2, progress=False)
    with pytest.raises(ValueError, match="nothing is in none of the 8 images"):
        minimal_units(D, "nothing", tries=8, by=["iou"], progress=False)
    with pytest.raises(TypeError, match="no differentiable scores"):
        unit_gradients(D, n=8, progress=False)
