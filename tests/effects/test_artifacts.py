"""Planted artifact units are found and repaired, clean generators are left alone, and everything is counted once."""

import signal

import numpy as np
import pytest
import torch
from planted import Between, combine
from scipy.linalg import sqrtm
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.comparisons.distances import FOLDS, frechet_distance
from ganlens.effects.counting import BATCH
from ganlens.images import to_uint8

Z, UNITS, PLANTED = 12, 24, [3, 11, 17]
KERNEL = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(5)) / 75**0.5


class Front(nn.Module):
    """Smooth rectified units; the planted ones are off but for a cell of one image in nine, where they are strong."""

    def __init__(self, seed: int, broken: bool):
        super().__init__()
        self.broken, self.rows = broken, 0
        mix = torch.randn(UNITS * Z, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("mix", F.interpolate(mix, (8, 8), mode="bilinear").reshape(UNITS, Z, 8, 8))
        self.register_buffer("cells", torch.arange(64).reshape(8, 8))

    def forward(self, z):
        self.rows += len(z)
        r = combine(self.mix, z).relu() / 2
        for i, unit in enumerate(PLANTED):
            where = (z[:, i] * 1000).long() % 64
            on = (z[:, i + 3] > 1.2)[:, None, None] & (self.cells == where[:, None, None]) & self.broken
            r[:, unit] = torch.where(on, 4 + z[:, i].abs()[:, None, None], 0.0)
        return r


class Blobs(nn.Module):
    """Soft colours from all units, and yellow blobs where the planted ones are on; without them if not broken."""

    def __init__(self, seed: int = 0, broken: bool = True):
        super().__init__()
        self.front, self.layer = Front(seed, broken), Between()
        color = 0.4 * torch.randn(3, UNITS, generator=torch.Generator().manual_seed(seed + 100)) / UNITS**0.5
        color[:, PLANTED] = torch.tensor([1.0, 0.8, -1.0])[:, None]
        self.register_buffer("color", color)

    def forward(self, z):
        x = torch.einsum("cu,nuhw->nchw", self.color, self.layer(self.front(z)))
        return F.interpolate(x, scale_factor=4.0, mode="bilinear").tanh()


def features(x):
    return F.conv2d(x, KERNEL).amax((2, 3))


def generator(seed: int = 0, broken: bool = True) -> gl.Generator:
    return gl.Generator.wrap(Blobs(seed, broken), Z, "broken" if broken else "clean", layers=["layer"])


def dissection(G: gl.Generator):
    bright = gl.Segmenter.wrap(lambda x: (x.mean(1, keepdim=True) > 0).int(), ["bright"])
    return gl.dissect(G, bright, "layer", n=48, progress=False)


def reference(seed: int = 0, n: int = 400) -> torch.Tensor:
    return generator(seed, broken=False).generate(range(50_000_000, 50_000_000 + n))


def find(D, real, method="distance", k=3, n=400, **options):
    return gl.find_artifacts(D, real, method, k=k, n=n, **{"extractor": features, "progress": False} | options)


@pytest.fixture(scope="module")
def broken():
    return dissection(generator())


@pytest.fixture(scope="module")
def real():
    return reference()


def auc(scores: np.ndarray, positive: list[int]) -> float:
    """Share of the pairs of a positive and another unit that the scores put in the right order."""
    mask = np.isin(np.arange(len(scores)), positive)
    first, second = scores[mask][:, None], scores[~mask]
    return ((first > second) + 0.5 * (first == second)).mean()


# ---- the planted truth


@pytest.mark.parametrize("method", ["distance", "activation"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_units_come_first_and_are_repaired(method, seed):
    found = find(dissection(generator(seed)), reference(seed), method)
    assert auc(found.scores, PLANTED) >= 0.95
    assert set(found.units) == set(PLANTED)
    assert found.gain
    assert found.verdict.startswith("gain: the distance drops by ")
    assert found.after < 0.05 * found.before
    assert max(found.before - found.random) < 0.1 * found.drop


def test_units_that_are_marked_by_hand(broken, real):
    D = dissection(broken.generator)
    with pytest.raises(ValueError, match=r'no unit of layer is marked: .* D\.flag\(unit, "artifact"\)'):
        find(D, real, "flags")
    for unit in PLANTED:
        D.flag(unit, "artifact")
    found = find(D, real, "flags", k=20)
    assert found.units == tuple(PLANTED)
    assert found.gain


def test_units_that_do_nothing_wrong_are_no_gain(broken, real):
    """Marking others than the planted ones does not help, and the verdict says so."""
    D = dissection(broken.generator)
    D.flag(5, "artifact")
    found = find(D, real, "flags")
    assert not found.gain
    assert found.verdict.startswith("no gain: ")


@pytest.mark.parametrize("method", ["distance", "activation"])
def test_clean_generators_are_left_alone(method):
    """No false alarm among six; a rate of one in two would be caught in 98 % of all cases."""
    found = [find(dissection(generator(s, False)), reference(s, 200), method, n=200) for s in range(6)]
    assert [f.verdict for f in found if f.gain] == []


def test_the_edit_repairs(broken, real):
    found = find(broken, real)
    repaired = broken.generator.generate(range(6), edits=[found.edit])
    assert (repaired == generator(broken=False).generate(range(6))).all()
    recipe = gl.Recipe.of(broken.generator, 3, [found.edit])
    assert gl.Recipe.from_json(recipe.to_json()).edits == (found.edit,)
    again = gl.replay(recipe, generator=broken.generator)
    assert (again == to_uint8(repaired[3:4])[0]).all()


# ---- the numbers


def test_scores_by_distance_equal_the_formula(broken, real):
    """Of the 80 images, a fifth, of the highest maximum of the unit, in the sample two after the dissection's."""
    found = find(broken, real)
    G, seeds = broken.generator, range(2_000_000, 2_000_400)
    x, r = G.read(G.latents(seeds), ["layer"])
    for unit in (3, 8):
        best = np.argsort(-r["layer"][:, unit].amax((1, 2)).numpy(), kind="stable")[:80]
        a, b = (features(images).double().numpy() for images in (x[best], real))
        ca, cb = np.cov(a.T), np.cov(b.T)
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
        assert found.scores[unit] == pytest.approx(expected, rel=1e-3)


def test_scores_by_activation_equal_their_definition(broken):
    found = find(broken, None, "activation")
    G = broken.generator
    r = G.read(G.latents(range(2_000_000, 2_000_400)), ["layer"])[1]["layer"].double().numpy().reshape(400, UNITS, 64)
    above = (r - broken.levels.quantile(0.5).double().numpy()[:, None]).clip(0)
    cells = -np.sort(-above, 2)[..., :3]  # 5 % of 64 cells
    peaks = [np.sort(cells[:, unit, 0])[-20:].mean() for unit in range(UNITS)]
    for unit in range(UNITS):
        share = np.sort(cells[:, unit].sum(1))[-20:].sum() / above[:, unit].sum()
        assert found.scores[unit] == pytest.approx(share * min(1, peaks[unit] / np.median(peaks)), rel=1e-4)


def test_distances_are_those_of_the_images(broken, real):
    """Measured on the sample one after the dissection's, with random sets of other units."""
    found = find(broken, real, n=64, top=17)
    G = broken.generator
    seeds = range(1_000_000, 1_000_064)
    known = features(real).double().numpy()
    for distance, edits in ((found.before, []), (found.after, [gl.ablate("layer", found.units)])):
        assert distance == pytest.approx(frechet_distance(features(G.generate(seeds, edits)), known), rel=1e-4)
    kept = np.arange(64) % FOLDS != 4
    without = features(G.generate(seeds)).numpy()[kept], known[np.arange(len(real)) % FOLDS != 4]
    assert found.distances[5, 0] == pytest.approx(frechet_distance(*without), rel=1e-4)


def test_random_sets_are_others(broken, real, monkeypatch):
    from ganlens.effects import artifacts

    edits = []
    under = artifacts.features_under
    monkeypatch.setattr(
        artifacts, "features_under", lambda D, e, some, *rest: edits.extend(some) or under(D, e, some, *rest)
    )
    found = find(broken, real, k=12, n=64, draws=4, top=17)
    assert edits[0] == found.edit
    assert [sorted({*edit.units, *found.units}) for edit in edits[1:5]] == [list(range(UNITS))] * 4
    assert len(found.random) == 4


def test_every_image_is_generated_once(real):
    net, seen = Blobs(), []
    D = dissection(gl.Generator.wrap(net, Z, layers=["layer"]))
    D.generator.open("layer", [0, 1])  # tries once whether the network can be resumed there
    net.front.rows = 0

    def counted(x):
        seen.append(len(x))
        return features(x)

    find(D, real, n=70, top=17, draws=2, extractor=counted)
    assert net.front.rows == 70 + 70  # ranked, judged: what lies in front of the layer is not repeated
    assert sum(seen) == len(real) + 70 + 4 * 70


def test_without_reference_images(broken):
    found = find(broken, None, "activation")
    assert set(found.units) == set(PLANTED)
    assert found.distances is None
    assert not found.gain
    assert np.isnan([found.before, found.after, found.drop, *found.interval]).all()
    assert repr(found).endswith("not measured: there are no reference images")
    assert "<table" in found._repr_html_()


def test_says_it_in_one_line_and_as_a_table(broken, real):
    found = find(broken, real)
    text = repr(found)
    assert "\n" not in text
    assert text.startswith(f"3 units of layer by distance ({found.units[0]}, ")
    assert f"Fréchet distance {found.before:.3g}, without them {found.after:.3g}" in text
    assert "400 images, 400 references" in text
    html = found._repr_html_()
    assert html.count("<img") == 3
    assert all(f">{unit}</td>" in html for unit in found.units)
    assert found.ranking[:3] == list(found.units)
    assert sorted(found.ranking) == list(range(UNITS))


# ---- interrupts


def interrupt_at(at: int):
    """A progress function that sends one real interrupt after ``at`` images or more."""
    sent = []

    def tell(done, total):
        if done >= at and not sent:
            sent.append(done)
            signal.raise_signal(signal.SIGINT)

    return tell


def test_an_interrupt_keeps_the_images_that_are_finished(broken, real, untouched):
    untouched(broken.generator.net)
    D = dissection(broken.generator)
    for unit in PLANTED:
        D.flag(unit, "artifact")
    found = find(D, real, "flags", progress=interrupt_at(len(real) + 2 * 5 * BATCH + 1))
    assert not found.complete
    assert found.images == 2 * BATCH
    whole = find(D, real, "flags", n=2 * BATCH)
    assert (found.distances == whole.distances).all()
    assert repr(found).endswith("(incomplete)")


def test_an_interrupt_before_any_distance_keeps_the_ranking(broken, real):
    found = find(broken, real, progress=interrupt_at(len(real) + 400))
    assert set(found.units) == set(PLANTED)
    assert (found.distances, found.verdict, found.complete) == (None, "not measured", False)


@pytest.mark.parametrize("at", [1, 401])
def test_an_interrupt_before_any_ranking_is_raised(broken, real, untouched, at):
    untouched(broken.generator.net)
    with pytest.raises(KeyboardInterrupt):
        find(broken, real, progress=interrupt_at(at))


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "activations"}, "no method 'activations' in find_artifacts; did you mean 'activation'"),
        ({"k": 25}, "k=25: layer has 24 units; expected 1 … 12"),
        ({"k": 0}, "k=0: layer has 24 units"),
        ({"n": 0}, "n=0"),
        ({"draws": 0}, "draws=0: expected at least"),
        ({"n": 16}, "16 generated images: the covariance of 16 features needs at least 17"),
        ({"n": 32}, r"17 top images for each unit, of n=32: expected more than the 16 features .* give n=34 or more"),
        ({"top": 16}, "16 top images"),
        ({"to": "one"}, "units are ablated to 'zero' or to their 'mean'"),
        ({"extractor": None}, r"has no bottleneck .* give extractor=…"),
    ],
)
def test_what_cannot_be(broken, real, options, message):
    with pytest.raises(ValueError, match=message):
        find(broken, real, **options)


def test_wrong_references(broken, real):
    with pytest.raises(ValueError, match="16 reference images: the covariance of 16 features needs at least 17"):
        find(broken, real[:16])
    with pytest.raises(ValueError, match="resize them first"):
        find(broken, real[..., :16])
    with pytest.raises(ValueError, match=r"no reference images .* method='activation'"):
        find(broken, None)


def test_needs_the_generator(broken, real):
    from dataclasses import replace

    with pytest.raises(ValueError, match="no generator at hand"):
        find(replace(broken, generator=None), real)
