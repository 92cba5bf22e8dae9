"""Effects of units, on generators whose cause and effect are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ganlens.causal import ablation_effect, count_pixels, samples, share_removed, unit_effects
from ganlens.dissection import Dissection
from ganlens.instrument import ablate
from ganlens.matching import dissect
from ganlens.models.base import Generator
from ganlens.segmenters.base import Segmenter


class TwoColors(nn.Module):
    """Unit 0 draws red, unit 1 draws green, units 2 … 7 do nothing; the latent decides where."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, z):
        pattern = torch.stack([z, z.roll(3, 1), *[z.roll(k, 1) for k in range(4, 10)]], 1)  # (N, 8, 64)
        r = self.layer((pattern.unflatten(2, (8, 8)) > 0.8).float())
        blue = torch.zeros_like(r[:, :1])
        return torch.cat([r[:, :2], blue], 1) * 2 - 1


@pytest.fixture(scope="module")
def embedded(G, S):
    return dissect(G, S, "layer4", n=64, progress=False)


@pytest.fixture(scope="module")
def D():
    colors = Segmenter.wrap(lambda x: ((x[:, :2] > 0) * torch.tensor([1, 2])[:, None, None]).int(), ["red", "green"])
    return dissect(Generator.wrap(TwoColors(), 64), colors, "layer", n=64, progress=False)


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
    np.savez(tmp_path / "d.npz", **arrays | {"effects": np.zeros((7, 2))})
    with pytest.raises(ValueError, match=r"d.npz is damaged: effects of shape \(7, 2\)"):
        Dissection.load(tmp_path / "d.npz")


def test_progress_may_stop(D, untouched):
    """It is told of every step, and what it raises leaves nothing behind."""
    untouched(D.generator.net)
    steps = []

    def stop(done, total):
        steps.append((done, total))
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unit_effects(D, n=8, progress=stop)
    assert steps == [(done, 72) for done in range(8, 41, 8)]
    assert D.effects is None
    unit_effects(D, n=8, progress=lambda *step: steps.append(step))
    assert steps[-1] == (72, 72)


def test_a_region_removes_its_own_share(D):
    region = np.zeros((8, 8))
    region[:, :4] = 1
    effect = ablation_effect(D, "red", [0], n=50, region=region, progress=False)
    x = D.generator.generate([seed for batch in samples(D.seed + 1, 50, 32) for seed in batch])
    red = x[:, 0] > 0
    assert effect.removed[0] == pytest.approx(float(red[..., :4].sum() / red.sum()))
    assert 0 < effect.low[0] < effect.removed[0] < effect.high[0] < 1


def test_counts_equal_a_full_pass_with_the_edit(embedded):
    D = embedded
    units = [1, 5, 8, 30]
    effect = ablation_effect(D, "tree", units, n=20, to="mean", draws=1, progress=False)
    seeds = [seed for batch in samples(D.seed + 1, 20, 32) for seed in batch]
    after = D.generator.generate(seeds, edits=[ablate(D.layer, units, to="mean")])
    found = count_pixels(D, after)
    assert np.abs(effect.after - found).sum() <= 20  # rounding may flip a pixel
    assert effect.after.sum(1).tolist() == [64 * 64] * 20
    assert effect.random.shape == (1, len(D.concepts))


def test_images_are_not_those_of_the_dissection(D):
    assert not set(D.top[D.top >= 0].tolist()) & {seed for batch in samples(D.seed + 1, 100, 32) for seed in batch}


def test_the_interval_covers_the_truth_as_often_as_it_says(D):
    """Over many small samples, the 99 % interval contains the effect on a large one nearly always."""
    region = np.zeros((8, 8))
    region[:, :4] = 1
    truth = ablation_effect(D, "red", [0], n=2000, region=region, draws=0, seed=50, progress=False).removed[0]
    inside = 0
    for seed in range(60, 100):
        small = ablation_effect(D, "red", [0], n=60, region=region, draws=0, seed=seed, progress=False)
        inside += small.low[0] <= truth <= small.high[0]
    assert inside >= 36


def test_share_removed():
    assert share_removed(np.array([10, 4, 0]), np.array([5, 6, 0])).tolist() == [0.5, -0.5, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "rde"}, "did you mean 'red'"),
        ({"concept": "red", "units": [8]}, "unit 8 is out of range"),
        ({"concept": "red", "k": 0}, "at least 1"),
        ({"concept": "red", "to": "one"}, "'zero' or to their 'mean'"),
    ],
)
def test_bad_input(D, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablation_effect(D, n=8, progress=False, **arguments)
