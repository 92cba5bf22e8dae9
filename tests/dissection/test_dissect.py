"""Dissections against nested loops over boolean masks, planted units, and every way to split the work."""

import os
import signal
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from planted import TWO_PLANES, Discs, Lattice, Z, combine, two_planes
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.dissection.layer_statistics import Counts

RULES = ["quantile", "iqr", "iou"]


def assert_same(a: gl.Dissection, b: gl.Dissection, sure: bool = True):
    """Not one bit differs; certificates may, if they are not ``sure`` to be of the same blocks of images."""
    names = ("thresholds_by_concept", *a.counts._fields, "valid", "top", "top_values", "iou", "iqr", "chance")
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.n, a.complete) == (b.n, b.complete)
    assert [label[:8] for label in a.labels] == [label[:8] for label in b.labels]
    if sure:
        assert a.labels == b.labels
        for name in a.certificates.names:
            np.testing.assert_array_equal(getattr(a.certificates, name), getattr(b.certificates, name), err_msg=name)
    for name, array in a.levels.state().items():
        np.testing.assert_array_equal(array, b.levels.state()[name], err_msg=name)


def masks(G, S, layer, seeds, batch=8):
    """Upsampled features (N, U, h, w) and label planes (N, L, h, w) of seeds, by torch alone."""
    r, labels = [], []
    for i in range(0, len(seeds), batch):
        with torch.no_grad():
            x, features = G.read(G.latents(seeds[i : i + batch]), [layer])
            labels.append(S.labels(x))
        r.append(F.interpolate(features[layer], size=labels[-1].shape[2:], mode="bilinear", align_corners=False))
    return torch.cat(r).numpy(), torch.cat(labels).numpy()


def brute_force(r, labels, concepts, thresholds, within_category=False) -> Counts:
    """The counts of thresholds (U, C): image by image, unit by unit, concept by concept."""
    units = r.shape[1]
    on, overlap = np.zeros((2, units, len(concepts)), int)
    area, scope = np.zeros((2, len(concepts)), int)
    for image, planes in zip(r, labels, strict=True):
        for c, concept in enumerate(concepts):
            there = (planes == c + 1).any(0)
            category = [k + 1 for k, other in enumerate(concepts) if other.category == concept.category]
            if within_category and not any((planes == v).any() for v in category):
                continue
            area[c] += there.sum()
            scope[c] += there.size
            for u in range(units):
                mask = image[u] > thresholds[u, c]
                on[u, c] += mask.sum()
                overlap[u, c] += (mask & there).sum()
    return Counts(on, overlap, area, scope)


def iou_of(on, overlap, area, scope):
    union = on + area - overlap
    return np.where(union > 0, overlap / np.maximum(union, 1), 0)


def iqr_of(on, overlap, area, scope):
    """Mutual information over joint entropy, summed over the four cells of each 2x2 table."""
    quality = np.zeros(on.shape)
    for u, c in np.ndindex(on.shape):
        a, b, both = on[u, c] / scope[c], area[c] / scope[c], overlap[u, c] / scope[c]
        information = entropy = 0.0
        cells = ((both, a, b), (a - both, a, 1 - b), (b - both, 1 - a, b), (1 - a - b + both, 1 - a, 1 - b))
        for p, left, right in cells:
            if p > 1e-12:
                information += p * np.log(p / (left * right))
                entropy -= p * np.log(p)
        quality[u, c] = information / entropy if entropy > 1e-12 else 0
    return quality


@pytest.fixture(scope="module")
def lattice():
    return gl.Generator.wrap(Lattice(), Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)


@pytest.fixture(scope="module", params=[False, True], ids=["", "within category"])
def exact(request, lattice):
    """Dissections by all rules, and the sample's masks; nothing is rounded here."""
    G, S = lattice
    found = gl.dissect(G, S, "layer", n=78, rule=RULES, quantile=0.03, progress=False, within_category=request.param)
    return found, *masks(G, S, "layer", range(78)), request.param


class TestBruteForce:
    @pytest.mark.parametrize("rule", RULES)
    def test_counts_and_ratios(self, exact, rule):
        """At the same thresholds: all pixels under the quantile rule, those of odd seeds under the others."""
        found, r, labels, within = exact
        D = found[rule]
        scored = slice(None) if rule == "quantile" else slice(1, None, 2)
        counts = brute_force(r[scored], labels[scored], D.concepts, D.thresholds_by_concept, within)
        for ours, expected in zip(D.counts, counts, strict=True):
            np.testing.assert_array_equal(ours, expected)
        np.testing.assert_allclose(D.iou, iou_of(*counts), atol=1e-6)
        quality = iqr_of(*counts)
        assert (D.scope < r[scored, 0].size).any() == within
        np.testing.assert_allclose(D.iqr, np.where(D.valid, quality, 0) if rule == "iqr" else quality, atol=1e-6)
        assert D.iou.max() > 0.05

    def test_quantile_threshold_is_the_nearest(self, exact):
        """No level that the unit takes would leave a share nearer to the asked one, where values are many."""
        found, r, *_ = exact
        D = found["quantile"]
        assert (D.thresholds_by_concept == D.thresholds_by_concept[:, :1]).all()
        for u in range(5, 9):
            values = np.sort(r[:, u].ravel())
            share = (values > D.thresholds[u]).mean()
            best = min(abs((values > level).mean() - 0.03) for level in np.unique(values))
            assert abs(share - 0.03) <= best + 2e-3

    @pytest.mark.parametrize("rule", ["iqr", "iou"])
    def test_threshold_is_the_best_candidate_on_even_seeds(self, exact, rule):
        """No other of the 100 tail fractions has a higher merit on the even seeds."""
        found, r, labels, within = exact
        D, r, labels = found[rule], r[::2], labels[::2]
        units, concepts = D.iou.shape

        def merit(thresholds):
            on, overlap, area, scope = counts = brute_force(r, labels, D.concepts, thresholds, within)
            if rule == "iou":
                return iou_of(*counts), np.full(on.shape, True)
            agreement = (scope - on - area + 2 * overlap) / scope
            valid = (agreement > 0.8) & (thresholds > 0) & (area >= 1e-3 * scope) & (overlap * scope > on * area)
            return iqr_of(*counts), valid

        chosen, chosen_valid = merit(D.thresholds_by_concept)
        if rule == "iqr":
            np.testing.assert_array_equal(D.valid, chosen_valid)
            assert D.valid.any()
            assert not D.valid.all()
        values = np.sort(r.swapaxes(0, 1).reshape(units, -1), axis=1)
        ranks = (1 - np.logspace(-3, 0, 100)) * values.shape[1]
        for levels in values[:, ranks.astype(int).clip(0)].T[::3]:  # (U,)
            other, valid = merit(levels[:, None].repeat(concepts, 1))
            better = valid & (other > chosen * 1.1 + 0.004) & (levels > values[:, 0])[:, None]
            assert not (better & chosen_valid).any()
            assert not better.any() or rule == "iqr"

    def test_concepts_choose_among_the_same_candidates(self, exact):
        """On even seeds each unit is on at a share of about one of the candidate fractions."""
        found, r, *_ = exact
        candidates = np.logspace(-3, 0, 100)
        for u in range(5, 9):
            values = np.sort(r[::2, u].ravel())
            for threshold in found["iou"].thresholds_by_concept[u]:
                share = (values > threshold).mean()
                ties = np.diff(np.unique(values, return_counts=True)[1]).max() / len(values)
                assert np.abs(candidates - share).min() < 2e-3 + ties

    @pytest.mark.parametrize(("layer", "slack"), [("layer9", 0), ("layer7", 2), ("layer2", 2)])
    def test_embedded(self, G, S, layer, slack):
        """Real features: exact where layer and segmentation have one grid, up to rounding elsewhere."""
        D = gl.dissect(G, S, layer, n=32, progress=False)
        units = range(0, len(D.iou), len(D.iou) // 16)
        r, labels = masks(G, S, layer, range(32))
        counts = on, overlap, area, _ = brute_force(r[:, units], labels, D.concepts, D.thresholds_by_concept[units])
        np.testing.assert_array_equal(D.area, area)
        assert np.abs(D.on[units] - on).max() <= slack
        assert np.abs(D.overlap[units] - overlap).max() <= slack
        same = (D.on[units] == on) & (D.overlap[units] == overlap)
        assert same.mean() > 0.8
        np.testing.assert_allclose(D.iou[units][same], iou_of(*counts)[same], atol=1e-6)
        np.testing.assert_allclose(D.iqr[units][same], iqr_of(*counts)[same], atol=1e-6)

    @pytest.mark.parametrize("size", [(16, 12), (5, 7), (40, 30)], ids=str)
    def test_any_size_of_the_layer(self, size):
        """Features as large as the picture, not dividing it, and larger than it."""

        class Sized(Lattice):
            def forward(self, z):
                return F.interpolate(super().forward(z), size=(16, 12))

        G = gl.Generator.wrap(Sized(6 + 3, *size, exact=False), Z)
        S = gl.Segmenter.wrap(two_planes, TWO_PLANES)
        D = gl.dissect(G, S, "layer", n=24, quantile=0.05, progress=False)
        assert D.shape == (*size, 16, 12)
        on, overlap, *_ = brute_force(*masks(G, S, "layer", range(24)), D.concepts, D.thresholds_by_concept)
        assert np.abs(D.on - on)[2:].max() <= 2
        assert np.abs(D.overlap - overlap)[2:].max() <= 2

    def test_top_images(self, lattice):
        G, S = lattice
        D = gl.dissect(G, S, "layer", n=50, sample=3, top=5, progress=False)
        seeds = range(3_000_000, 3_000_050)
        with torch.no_grad():
            maxima = G.read(G.latents(seeds), ["layer"])[1]["layer"].amax((2, 3))
        for u in range(len(D.top)):
            best = sorted(range(50), key=lambda i: (-maxima[i, u], i))[:5]
            assert D.top[u].tolist() == [seeds[i] for i in best]
            np.testing.assert_array_equal(D.top_values[u], maxima[best, u])


class Smooth(nn.Module):
    """Units with continuous values: a random field that is bent in a different way for each unit."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.register_buffer("mix", torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4)))

    def forward(self, z):
        r = sum(z[:, i, None, None, None] * self.mix[:, i] for i in range(4))
        bent = [r, -3 * r + 100, r.exp(), r**3, r.sigmoid(), (r / 2).sin(), -r.abs(), r * 1e-5, r.abs().sqrt(), r * 1e5]
        return self.layer(torch.cat(bent, 1))[:, :3].sin()


class TestQuantile:
    @pytest.mark.parametrize("q", [0.005, 0.01, 0.05])
    def test_achieved_share(self, q):
        """Within 0.01 % of the asked share of all pixels."""
        G = gl.Generator.wrap(Smooth(), 4)
        S = gl.Segmenter.wrap(lambda x: F.interpolate(x, size=(48, 48))[:, :1].gt(0).int(), ["any"])
        D = gl.dissect(G, S, "layer", n=160, quantile=q, progress=False)
        assert np.abs(D.achieved - q).max() <= 1e-4
        r, _ = masks(G, S, "layer", range(160))
        counted = (r > D.thresholds[:, None, None]).mean((0, 2, 3))
        np.testing.assert_allclose(counted, D.achieved, atol=1e-5)

    def test_achieved_share_of_the_embedded_generator(self, D):
        assert np.abs(D.achieved - 0.01).max() <= 1e-4

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("value", [0.0, -1.5, 0.3, 1e6, -1e-12])
    def test_unit_that_never_changes(self, rule, value):
        """It is on nowhere, and matches nothing."""

        class Constant(Lattice):
            def forward(self, z):
                x = super().forward(z)
                self.constant(torch.full((len(z), 2, 5, 7), value))
                return x

        net = Constant()
        net.constant = nn.Identity()
        G = gl.Generator.wrap(net, Z)
        D = gl.dissect(G, gl.Segmenter.wrap(two_planes, TWO_PLANES), "constant", n=20, rule=rule, progress=False)
        if rule == "quantile":
            assert (D.on == 0).all()
            assert (D.iou == 0).all()
        assert (D.iqr < 1e-6).all()
        assert np.isfinite(D.thresholds_by_concept).all()
        assert D.interpretable == []
        assert D.levels.mean().tolist() == pytest.approx([value] * 2, rel=1e-6, abs=2**-17)
        assert "0 of 2 units" in repr(D)


@pytest.fixture(scope="module")
def found():
    """Discs of which unit 7 knows, by all rules."""
    G = gl.Generator.wrap(Discs(), Z)
    S = gl.Segmenter.wrap(lambda x: torch.where(x[:, 0] > 0, 2, 1), ["ground", "disc"])
    return gl.dissect(G, S, "layer", n=70, rule=RULES, progress=False)


class TestPlanted:
    @pytest.mark.parametrize("rule", RULES)
    def test_the_disc_is_found(self, found, rule):
        D = found[rule]
        assert D.units("disc", k=3)[0] == 7
        assert D.units("disc", k=3, by="iqr")[0] == 7
        label = D.labels[7]
        assert (label.concept.name, label.iou, label.interpretable) == ("disc", 1.0, True)
        assert label.iqr == pytest.approx(1)
        assert D.on[7, 1] == D.overlap[7, 1] == D.area[1]

    @pytest.mark.parametrize("rule", RULES)
    def test_all_others_are_at_chance(self, found, rule):
        D = found[rule]
        others = [u for u in range(12) if u != 7]
        assert 0.02 < D.area[1] / D.scope[1] < 0.06
        assert (D.iou[others, 1] - D.chance[1]).max() < 0.01
        if rule == "quantile":
            assert np.abs(D.iou[others, 1] - D.chance[1]).max() < 0.01
        assert D.iqr[others, 1].max() < 0.01
        if rule != "iou":  # there the ground, which is nearly everywhere, is matched by chance
            assert D.interpretable == [7]

    def test_chance(self, found):
        """Under the quantile rule that of a random mask of the asked share, otherwise that of a mask of everything."""
        for rule, D in found.items():
            f = D.area / D.scope
            on = 0.01 if rule == "quantile" else 1
            np.testing.assert_allclose(D.chance, f * on / (f + on - f * on))

    @pytest.mark.parametrize("quantile", [0.0001, 0.002, 0.025])
    def test_a_unit_at_its_highest_value_in_more_pixels_than_asked_is_on_there(self, quantile):
        G = gl.Generator.wrap(Discs(), Z, layers=["layer"])
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["disc"])
        D = gl.dissect(G, S, "layer", n=80, quantile=quantile, progress=False)
        assert (D.iou[7, 0], D.achieved[7]) == (1, D.area[0] / D.scope[0])

    def test_a_unit_that_avoids_the_disc_does_not_draw_it(self):
        """The information is complete, the association negative."""

        class Avoiding(Discs):
            def forward(self, z):
                self.avoiding(-super().forward(z)[:, :1])
                return super().forward(z)

        net = Avoiding()
        net.avoiding = nn.Identity()
        net.layer = nn.Identity()
        G = gl.Generator.wrap(net, Z, layers=["avoiding"])
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["disc"])
        assert gl.dissect(G, S, "avoiding", n=30, rule="iqr", progress=False).iqr[0, 0] == 0


@pytest.fixture(scope="module")
def embedded(G, S):
    return gl.dissect(G, S, ["layer3", "layer8"], n=75, batch_size=8, progress=False)


class TestIndependence:
    @pytest.mark.parametrize(("batch_size", "count"), [(16, 1), (24, 2), (32, 1), (5, 1)])
    def test_of_batches_and_threads(self, G, S, embedded, threads, batch_size, count):
        threads(count)
        found = gl.dissect(G, S, ["layer3", "layer8"], n=75, batch_size=batch_size, progress=False)
        for layer, D in embedded.items():
            assert_same(D, found[layer])

    @pytest.mark.parametrize("batch_size", [1, 8, 24, 200])
    @pytest.mark.parametrize("n", [3, 64, 65, 131])
    def test_of_batches_for_all_rules(self, lattice, n, batch_size):
        options = {"n": n, "rule": RULES, "within_category": True, "progress": False}
        reference = gl.dissect(*lattice, "layer", batch_size=16, **options)
        found = gl.dissect(*lattice, "layer", batch_size=batch_size, **options)
        for rule in RULES:
            assert_same(reference[rule], found[rule])

    def test_of_company(self, lattice):
        """A layer and a rule give the same alone and together with others."""
        G, S = lattice
        together = gl.dissect(G, S, ["layer"], n=40, rule=RULES, progress=False)
        assert list(together) == ["layer"]
        assert list(together["layer"]) == RULES
        for rule in RULES:
            assert_same(gl.dissect(G, S, "layer", n=40, rule=rule, progress=False), together["layer"][rule])

    def test_samples_do_not_overlap(self, lattice):
        found = [gl.dissect(*lattice, "layer", n=30, sample=s, top=30, progress=False) for s in (0, 1, 4293)]
        assert [D.top.min() for D in found] == [0, 10**6, 4293 * 10**6]
        assert [set(D.top[8]) for D in found] == [set(range(s, s + 30)) for s in (0, 10**6, 4293 * 10**6)]
        assert not np.array_equal(found[0].on, found[1].on)

    def test_networks_are_left_alone(self, G, S, untouched):
        untouched(G.net)
        untouched(S.net)
        gl.dissect(G, S, "layer1", n=8, progress=False)

    def test_every_image_is_looked_at_once(self):
        net, looked = Discs(), []
        G = gl.Generator.wrap(net, Z)

        def find(x):
            looked.append(len(x))
            return x[:, :1].relu()

        before = net.layer.calls
        gl.dissect(G, gl.Segmenter.wrap(find, ["disc"]), "layer", n=80, rule=RULES, batch_size=16, progress=False)
        assert net.layer.calls - before == 5
        assert sum(looked) == 80


class TestProgress:
    def test_function_is_told(self, lattice):
        told = []
        gl.dissect(*lattice, "layer", n=20, batch_size=8, progress=lambda *args: told.append(args))
        assert told == [(8, 20), (16, 20), (20, 20)]

    def test_bar(self, lattice, capsys):
        gl.dissect(*lattice, "layer", n=20)
        assert "20/20" in capsys.readouterr().err
        gl.dissect(*lattice, "layer", n=20, progress=False)
        assert capsys.readouterr() == ("", "")

    def test_error_of_the_function_is_not_swallowed(self, lattice):
        with pytest.raises(ZeroDivisionError):
            gl.dissect(*lattice, "layer", n=20, progress=lambda done, n: 1 / 0)


class Interrupting(Lattice):
    """Sends real interrupts from a thread while given passes run."""

    passes: tuple[int, ...] = ()
    seen = 0

    def forward(self, z):
        self.seen += 1
        for _ in range(self.passes.count(self.seen)):
            thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
            thread.start()
            thread.join()
            time.sleep(0.02)
        return super().forward(z)


class TestInterrupt:
    @pytest.fixture
    def slow(self):
        G = gl.Generator.wrap(Interrupting(), Z)
        G.net.seen = 0
        return G

    @pytest.mark.parametrize("during", [1, 3, 10])
    def test_what_was_seen_is_returned(self, slow, lattice, during):
        """Exactly what a dissection of that many images gives, but marked as incomplete."""
        before = signal.getsignal(signal.SIGINT)
        slow.net.passes = (during,)
        found = gl.dissect(slow, lattice[1], "layer", n=200, rule=RULES, batch_size=8, progress=False)
        assert signal.getsignal(signal.SIGINT) is before
        whole = gl.dissect(*lattice, "layer", n=8 * during, rule=RULES, progress=False)
        for rule in RULES:
            D = found[rule]
            assert (D.n, D.complete) == (8 * during, False)
            D.complete = True
            assert_same(D, whole[rule], sure=False)

    def test_is_said(self, slow, lattice):
        slow.net.passes = (2,)
        D = gl.dissect(slow, lattice[1], "layer", n=200, batch_size=8, progress=False)
        assert "16 images (incomplete)" in repr(D)
        assert '"complete": false' in D.to_json()

    def test_in_the_last_step_it_is_complete(self, slow, lattice):
        slow.net.passes = (2,)
        D = gl.dissect(slow, lattice[1], "layer", n=16, batch_size=8, progress=False)
        assert (D.n, D.complete) == (16, True)

    def test_twice_stops_at_once(self, slow, lattice):
        before = signal.getsignal(signal.SIGINT)
        slow.net.passes = (2, 2)
        with pytest.raises(KeyboardInterrupt):
            gl.dissect(slow, lattice[1], "layer", n=200, batch_size=8, progress=False)
        assert signal.getsignal(signal.SIGINT) is before

    def test_works_in_other_threads(self, lattice):
        found = []
        worker = threading.Thread(target=lambda: found.append(gl.dissect(*lattice, "layer", n=16, progress=False)))
        worker.start()
        worker.join()
        assert_same(found[0], gl.dissect(*lattice, "layer", n=16, progress=False), sure=False)


class Breaking(Lattice):
    """Units 5 and 7 give ``wrong`` in one cell of the images whose latent begins with ``first``."""

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong, self.first, self.broken = wrong, [], nn.Identity()
        self.image = nn.Identity()
        self.lost = False

    def forward(self, z):
        x = super().forward(z)
        r = combine(self.mix, z).clamp(-7, 7)
        r[:, 3] = 2
        here = torch.isin(z[:, 0], torch.tensor(self.first))
        r[:, 5, 1, 0] = torch.where(here, self.wrong, r[:, 5, 1, 0])
        r[:, 7] = torch.where(here[:, None, None], self.wrong, r[:, 7])
        self.broken(r)
        return torch.where(here[:, None, None, None], self.wrong, x) if self.lost else x


class TestBroken:
    OPTIONS: ClassVar = {"n": 80, "rule": RULES, "progress": False, "batch_size": 24}

    @pytest.fixture
    def breaking(self):
        """A generator that breaks in an image of the pilot, or in one behind it, or in both."""

        def make(wrong, seeds, lost=False):
            G = gl.Generator.wrap(Breaking(wrong), Z)
            G.net.first, G.net.lost = [G.latents(seed)[0, 0].item() for seed in seeds], lost
            return G

        return make

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("seeds", [[3], [70], [3, 4, 70]], ids=str)
    def test_poisons_nothing(self, breaking, lattice, wrong, seeds, tmp_path):
        """Units that break match nothing; all numbers of others are those of a run in which nothing breaks."""
        S = lattice[1]
        whole = gl.dissect(breaking(0.0, []), S, "broken", **self.OPTIONS)
        with pytest.warns(UserWarning, match=rf"2 units \(5, 7\) gave NaN or infinity, in up to {len(seeds)} of 80"):
            found = gl.dissect(breaking(wrong, seeds), S, "broken", **self.OPTIONS)
        others = [u for u in range(9) if u not in (5, 7)]
        for rule in RULES:
            D, sound = found[rule], whole[rule]
            assert (D.broken, sound.broken, sound.dead) == ([5, 7], [], [3])
            assert not D.iou[[5, 7]].any()
            assert not D.iqr[[5, 7]].any()
            assert not {5, 7} & set(D.interpretable)
            for name in ("thresholds_by_concept", "on", "overlap", "valid", "top", "top_values", "iou", "iqr"):
                np.testing.assert_array_equal(getattr(D, name)[others], getattr(sound, name)[others])
            for name in ("area", "scope", "chance"):
                np.testing.assert_array_equal(getattr(D, name), getattr(sound, name))
            assert torch.equal(D.levels.mean()[others], sound.levels.mean()[others])
            for array in (D.thresholds_by_concept, D.levels.mean(), D.levels.quantile(0.99), D.top_values):
                assert np.isfinite(np.asarray(array)).all()
            assert repr(D)
        found["iou"].save(tmp_path / "d.npz")
        assert gl.Dissection.load(tmp_path / "d.npz").broken == [5, 7]

    def test_everything_is_broken(self, breaking, lattice):
        with pytest.warns(UserWarning, match="in up to 40 of 40 images"):
            D = gl.dissect(breaking(float("nan"), range(40)), lattice[1], "broken", n=40, progress=False)
        assert D.broken == [5, 7]
        assert np.isfinite(D.thresholds_by_concept).all()

    @pytest.mark.parametrize("batch_size", [8, 32])
    def test_does_not_depend_on_batches(self, breaking, lattice, batch_size):
        G = breaking(float("inf"), [3, 70])
        with pytest.warns(UserWarning, match="gave NaN or infinity"):
            found = [gl.dissect(G, lattice[1], "broken", **self.OPTIONS | {"batch_size": b}) for b in (batch_size, 24)]
        for rule in RULES:
            assert_same(found[0][rule], found[1][rule])

    def test_pictures_that_are_lost_show_nothing(self, breaking):
        """A segmenter would say something of them."""
        S = gl.Segmenter.wrap(lambda x: torch.where(x[:, 0] > 2, 1, 2), ["never", "always"])
        with pytest.warns(UserWarning, match="gave NaN or infinity"):
            D = gl.dissect(breaking(float("nan"), [3, 70], lost=True), S, "broken", n=80, progress=False)
        assert D.area.tolist() == [0, 78 * 16 * 24]
        assert D.scope.tolist() == [80 * 16 * 24] * 2

    def test_large_values_are_no_infinity(self, lattice):
        """Their sum is one."""

        class Large(Breaking):
            def forward(self, z):
                x = super().forward(z)
                self.image(torch.full((len(z), 1, 4, 4), 3e38))
                return x

        D = gl.dissect(gl.Generator.wrap(Large(), Z), lattice[1], "image", n=16, progress=False)
        assert D.broken == []
        assert D.dead == [0]


class Hungry(Lattice):
    """Has memory for 16 images and no more."""

    error: ClassVar = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    most = 16

    def forward(self, z):
        if len(z) > self.most:
            raise self.error
        return super().forward(z)


class TestMemory:
    @pytest.mark.parametrize("error", [Hungry.error, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
    def test_batch_is_halved(self, lattice, error, monkeypatch):
        monkeypatch.setattr(Hungry, "error", error)
        G = gl.Generator.wrap(Hungry(), Z)
        told = []
        with pytest.warns(UserWarning, match="out of memory with") as warned:
            D = gl.dissect(G, lattice[1], "layer", n=150, batch_size=80, progress=lambda *args: told.append(args))
        said = [str(warning.message) for warning in warned]
        assert said == [f"out of memory with {a} images at once; going on with {b}" for a, b in ((80, 40), (40, 16))]
        assert told[:2] == [(16, 150), (32, 150)]
        assert_same(D, gl.dissect(*lattice, "layer", n=150, progress=False))

    def test_not_even_eight(self, lattice, monkeypatch):
        monkeypatch.setattr(Hungry, "most", 7)
        with pytest.raises(MemoryError, match="out of memory with 8 images at once, the fewest"):
            gl.dissect(gl.Generator.wrap(Hungry(), Z), lattice[1], "layer", n=8, batch_size=8, progress=False)

    def test_other_errors_are_not_hidden(self, lattice, monkeypatch):
        monkeypatch.setattr(Hungry, "error", RuntimeError("shapes do not fit"))
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            gl.dissect(gl.Generator.wrap(Hungry(), Z), lattice[1], "layer", n=80, batch_size=80, progress=False)

    def test_budget(self, lattice):
        """More memory, more images at once, and the same result."""
        G, S = lattice
        found = {}
        for memory in ("1 MB", "2 MB", 10**8):
            before, told = G.net.layer.calls, []
            D = gl.dissect(G, S, "layer", n=100, memory=memory, progress=lambda done, n, told=told: told.append(done))
            found[told[0]] = D
            assert G.net.layer.calls - before == len(told)
        assert sorted(found) == list(found)
        assert len(found) == 3
        for D in found.values():
            assert_same(D, gl.dissect(G, S, "layer", n=100, progress=False))

    def test_too_small_a_budget(self, lattice):
        with pytest.raises(ValueError, match=r"memory=300000: 1 MB is too little; the tables take 1 MB .*at least"):
            gl.dissect(*lattice, "layer", n=100, memory=300_000, progress=False)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layers": "leyer"}, "no layer 'leyer' in Lattice; did you mean 'layer'"),
            ({"layers": ["layer", "x"]}, "no layer 'x' in Lattice. It has layer"),
            ({"layers": []}, "no layer given; Lattice has layer"),
            ({"n": 0}, "n=0: expected 1 … 1000000 images"),
            ({"n": -4}, "n=-4"),
            ({"n": 10**6 + 1}, "n=1000001"),
            ({"rule": "best"}, "rule 'best': expected one of quantile, iqr, iou"),
            ({"rule": []}, "no rule given"),
            ({"n": 1, "rule": "iqr"}, "n=1: .*even .*odd"),
            ({"n": 1, "rule": ["quantile", "iou"]}, "n=1: .*even .*odd"),
            ({"quantile": 0}, "quantile=0: expected a share between 0 and 1"),
            ({"quantile": 1.5}, "quantile=1.5: expected"),
            ({"quantile": float("nan")}, "quantile=nan: expected"),
            ({"sample": -1}, "sample=-1: expected 0 … 4293"),
            ({"sample": 4294}, "sample=4294: expected 0 … 4293"),
            ({"batch_size": -8}, "batch_size=-8: expected"),
            ({"top": 0}, "top=0: expected"),
        ],
        ids=str,
    )
    def test_arguments(self, lattice, options, message):
        with pytest.raises(ValueError, match=message):
            gl.dissect(*lattice, **{"layers": "layer", "n": 8, "progress": False} | options)

    def test_layer_that_is_no_feature_map(self, lattice):
        net = nn.Sequential(nn.Linear(Z, 12), nn.Unflatten(1, (3, 4)), nn.Unflatten(2, (2, 2)), nn.Tanh())
        with pytest.raises(ValueError, match=r"layer '1' of Sequential yields no feature map .*layers that do: 2, 3"):
            gl.dissect(gl.Generator.wrap(net, Z), lattice[1], "1", n=8, progress=False)

    def test_layer_of_vectors(self, lattice):
        """A map of one cell: a unit is on in whole images."""
        net = nn.Sequential(nn.Linear(Z, 12), nn.Unflatten(1, (3, 2, 2)), nn.Tanh())
        D = gl.dissect(gl.Generator.wrap(net, Z), lattice[1], "0", n=40, quantile=0.2, progress=False)
        assert D.shape == (1, 1, 2, 2)
        assert (D.on == 8 * 4).all()

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: x[:, 0, 0].int(), r"mine returned labels \(8, 24\); expected \(N, L, h, w\)"),
            (lambda x: x[:, 0, 0, 0].int(), r"mine returned labels \(8,\); expected \(N, L, h, w\)"),
            (lambda x: x[:3, 0].int(), r"torch.int64 \(3, 1, 16, 24\) for 8 images; expected integer .*\(8, L, h, w\)"),
            (lambda x: x[:, :0].int(), r"torch.int64 \(8, 0, 16, 24\) for 8 images; expected integer"),
            (lambda x: torch.full_like(x[:, 0], 6).int(), r"labels 6 … 6; expected 0 … 5, 0 for none"),
            (lambda x: torch.full_like(x[:, 0], -2).int(), r"labels -2 … -2; expected 0 … 5"),
            (lambda x: torch.full_like(x[:, 0], 300).short(), r"labels 300 … 300; expected 0 … 5"),
            (lambda x: torch.full_like(x[:, 0], 2**16 + 1).long(), r"labels 65537 … 65537; expected 0 … 5"),
            (lambda x: x[:, 0].int().numpy(), "mine returned ndarray; expected a tensor"),
        ],
    )
    def test_labels(self, lattice, function, message):
        S = gl.Segmenter.wrap(function, TWO_PLANES, name="mine")
        with pytest.raises(ValueError, match=message):
            gl.dissect(lattice[0], S, "layer", n=8, progress=False)

    def test_labels_that_are_floats(self, lattice):
        class Floats(gl.Segmenter):
            name, concepts = "floats", (gl.Concept("a"),)

            def labels(self, images):
                return torch.ones(len(images), 1, 4, 4)

        with pytest.raises(ValueError, match=r"floats returned torch.float32 .*expected integer label planes"):
            gl.dissect(lattice[0], Floats(), "layer", n=8, progress=False)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
    def test_labels_of_any_integer_type(self, lattice, dtype):
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).to(dtype), ["a"])
        D = gl.dissect(lattice[0], S, "layer", n=8, progress=False)
        assert D.area[0] == (lattice[0].generate(range(8))[:, 0] > 0).sum()

    @pytest.mark.parametrize("rule", RULES)
    def test_concept_that_is_never_there(self, lattice, rule):
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["here", "nowhere"])
        D = gl.dissect(lattice[0], S, "layer", n=20, rule=rule, progress=False)
        assert (D.iou[:, 1] == 0).all()
        assert (D.iqr[:, 1] == 0).all()
        assert D.chance[1] == D.area[1] == 0
        assert all(label.concept.name == "here" for label in D.labels if label.interpretable)

    @pytest.mark.parametrize("rule", RULES)
    def test_concept_that_is_everywhere(self, lattice, rule):
        S = gl.Segmenter.wrap(lambda x: torch.ones_like(x[:, 0]).int(), ["all"])
        D = gl.dissect(lattice[0], S, "layer", n=20, rule=rule, progress=False)
        assert (D.iqr < 1e-9).all()
        assert D.chance[0] == pytest.approx(0.01 if rule == "quantile" else 1)
        np.testing.assert_allclose(D.iou[:, 0], D.on[:, 0] / D.scope[0])
        assert D.labels[6].runner_up is None
        assert repr(D)
