"""Certificates against their definition, planted truths and their laws; `calibrate_certificates` does so at length."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import calibrate_certificates as calibrate
import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control, ttest_1samp

import ganlens as gl
from ganlens.dissection.blocks import BlockCounts, block_size
from ganlens.dissection.cells import Cells
from ganlens.dissection.certificates import Certificates, adjusted, p_values
from ganlens.statistics import JointCounts, Scale

RULES = ["quantile", "iqr", "iou"]


@pytest.fixture(scope="module")
def by_rule(G, S):
    return gl.dissect(G, S, "layer4", n=200, rule=RULES, progress=False)


class TestLaws:
    def test_labels_of_other_images_are_not_certified(self):
        found = []
        for seed in range(20):
            features, labels = calibrate.planted(200, seed)
            order = np.random.default_rng(seed).permutation(200)
            found.append(calibrate.certified(features, labels[order], 2)[1].certain.any(1).mean())
        assert np.mean(found) <= 0.05

    @pytest.mark.parametrize("rule", RULES)
    def test_planted_units_are(self, rule):
        truth = calibrate.planted_iou()
        certain = np.mean(
            [calibrate.own(calibrate.certified(*calibrate.planted(400, s), 2, rule)[1].certain) for s in range(4)], 0
        )
        assert (certain[truth >= 0.1] >= 0.95).all()
        assert certain[[0, len(calibrate.STRENGTHS)]].tolist() == [0, 0]  # they follow nothing

    @pytest.mark.parametrize("rule", RULES)
    def test_intervals_hold_the_truth(self, rule):
        assert 0.91 < calibrate.coverage(rule, 60, 300).mean() < 0.99

    def test_more_images_make_intervals_shorter(self):
        widths = []
        for n in (200, 800):
            c = calibrate.certified(*calibrate.planted(n, 0), 2)[1]
            widths.append(calibrate.own(c.high - c.low)[calibrate.planted_iou() > 0.05].mean())
        assert 1.6 < widths[0] / widths[1] < 2.5  # twice is what theory says


class TestDefinitions:
    def test_q(self):
        p = np.random.default_rng(0).random((5, 7)) ** 3
        np.testing.assert_allclose(adjusted(p).ravel(), false_discovery_control(p.ravel(), method="by"))

    def test_p_is_of_the_covariance_at_each_place(self):
        """Of centred maps and labels, image by image, summed over blocks; the t test of scipy."""
        random = torch.Generator().manual_seed(0)
        n, blocks, grid = 40, 10, (4, 4)
        labels = torch.randint(-1, 2, (n, 1, *grid), generator=random).to(torch.int16)
        features = torch.randn(n, 2, *grid, generator=random)
        features[:, 0] += 2 * (labels[:, 0] == 1)
        scale = Scale(features.amin((0, 2, 3)), features.amax((0, 2, 3)))
        cells = Cells(scale, torch.full((2, 1), 1.0), grid, grid, 2, blocks)
        for start in range(0, n, 4):
            cells.update(features[start : start + 4], labels[start : start + 4], start // 4)
        on = (features > 1).double().flatten(2)
        there = torch.stack([labels[:, 0] == c for c in range(2)], 1).double().flatten(2)
        for u in range(2):
            for c in range(2):
                centred = [part - part.mean(0) for part in (on[:, u], there[:, c])]
                sums = (centred[0] * centred[1]).sum(1).view(blocks, 4).sum(1).numpy()
                expected = ttest_1samp(sums, 0, alternative="greater").pvalue
                assert p_values(cells, slice(None))[u, c] == pytest.approx(expected if expected < 0.5 else 1)

    def test_blocks_are_what_each_block_adds(self):
        random = torch.Generator().manual_seed(1)
        features = torch.randn(24, 3, 4, 4, generator=random)
        planes = torch.randint(-2, 2, (24, 1, 8, 8), generator=random).to(torch.int16)
        scale = Scale(features.amin((0, 2, 3)), features.amax((0, 2, 3)), 1024)
        whole = BlockCounts(JointCounts(scale, 2), (0, 256, 700), 3)
        for start, block in ((0, 0), (8, 1), (4, 0), (16, 2), (20, 2), (12, 1)):  # in any order
            whole.update(features[start : start + 4], planes[start : start + 4], block)
        state = whole.state()
        for block in range(3):
            alone = JointCounts(scale, 2)
            alone.update(features[8 * block : 8 * block + 8], planes[8 * block : 8 * block + 8])
            marginal, counts = alone.above(whole.bins)
            assert np.array_equal(state["above"][block, :, 0], marginal.numpy())
            assert np.array_equal(state["above"][block, :, 1:], counts.numpy())
            some = planes[8 * block : 8 * block + 8]
            assert state["pixels"][block] == (some > -2).sum()
            assert state["area"][block].tolist() == [(some == c).sum() for c in range(2)]

    @pytest.mark.parametrize(("n", "units", "columns"), [(1000, 192, 13), (7, 4, 2), (50_000, 512, 1000), (1, 1, 1)])
    def test_size_of_blocks(self, n, units, columns):
        size = block_size(n, units, columns)
        assert size % 2 == 0
        assert -(-n // size) <= 64
        assert n < 16 or -(-n // size) >= 8


class TestDissection:
    @pytest.mark.parametrize("rule", RULES)
    def test_what_it_says(self, by_rule, rule):
        D = by_rule[rule]
        c = D.certificates
        best = D.merit.argmax(1)
        strong = [label.unit for label in D.labels if label.interpretable]
        rows = np.array(strong), best[strong]
        assert (c.low[rows] <= D.iou[rows]).all()
        assert (D.iou[rows] <= c.high[rows]).all()
        assert (c.high[rows] - c.low[rows] < 0.15).all()
        assert set(D.certain) == {u for u in range(len(best)) if c.certain[u, best[u]]}
        if rule != "iou":  # where units that say nothing are called sky, of which 37 % of the pictures are
            assert len(set(strong) & set(D.certain)) > 0.6 * len(strong)
        label = D.labels[strong[0]]
        assert (label.low, label.high, label.q) == tuple(x[strong[0], best[strong[0]]] for x in (c.low, c.high, c.q))

    def test_one_rule_alone_says_the_same(self, by_rule, G, S):
        alone = gl.dissect(G, S, "layer4", n=200, progress=False)
        same(alone.certificates, by_rule["quantile"].certificates)

    def test_interruptions_and_shards_change_no_bit(self, by_rule, G, S, tmp_path):
        def stop(done, total):
            if done >= 100:
                raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="interrupted"):
            gl.dissect(G, S, "layer4", n=200, rule=RULES, checkpoint=tmp_path / "state.npz", progress=stop)
        went_on = gl.dissect(G, S, "layer4", n=200, rule=RULES, checkpoint=tmp_path / "state.npz", progress=False)
        with ThreadPoolExecutor(2) as pool:
            shared = gl.dissect(G, S, "layer4", n=200, rule=RULES, executor=pool, shards=2, progress=False)
        for rule in RULES:
            same(went_on[rule].certificates, by_rule[rule].certificates)
            same(shared[rule].certificates, by_rule[rule].certificates)

    def test_rankings(self, by_rule):
        D = by_rule["quantile"]
        for by in ("pearson", "cosine", "average_precision"):
            values = getattr(D.certificates, by)[:, D.concepts.index(("tree", "object"))]
            assert D.units("tree", 7, by=by) == np.argsort(-values, kind="stable")[:7].tolist()
        assert D.units("tree", 7, by="f1") == D.units("tree", 7)
        with pytest.raises(ValueError, match="'pearson', 'cosine'"):
            D.units("tree", by="spearman")
        old = replace(D, certificates=None)
        with pytest.raises(ValueError, match="older version"):
            old.units("tree", by="pearson")

    def test_few_images_certify_nothing(self, G, S):
        D = gl.dissect(G, S, "layer4", n=4, progress=False)
        assert D.certain == []
        assert np.isnan(D.certificates.low).all()
        assert D.labels[0].low is None
        assert (D.certificates.p == 1).all()
        assert "maybe by chance" not in repr(D)

    def test_broken_units_are_never_certain(self, S):
        G = gl.load_generator("scenes")
        handle = G.net.layer4.register_forward_hook(lambda m, i, o: o.index_fill(1, torch.tensor([171]), torch.nan))
        try:
            with pytest.warns(UserWarning, match="NaN"):
                D = gl.dissect(G, S, "layer4", n=64, progress=False)
        finally:
            handle.remove()
        assert 171 not in D.certain
        assert (D.certificates.p[171] == 1).all()
        assert "gave NaN" in D.describe(171)

    def test_files(self, by_rule, tmp_path):
        D = replace(by_rule["iqr"], control=by_rule["iqr"].iou.max(0))
        D.save(tmp_path / "D.npz")
        again = gl.Dissection.load(tmp_path / "D.npz")
        same(again.certificates, D.certificates)
        np.testing.assert_array_equal(again.control, D.control)
        assert again.labels == D.labels
        for wrong in (
            replace(D.certificates, p=D.certificates.p + 1),
            replace(D.certificates, low=D.certificates.high + 1),
        ):
            replace(D, certificates=wrong).save(tmp_path / "wrong.npz")
            with pytest.raises(ValueError, match="certificates"):
                gl.Dissection.load(tmp_path / "wrong.npz")

    def test_files_of_older_versions(self, by_rule, tmp_path):
        old = replace(by_rule["quantile"], certificates=None)
        old.save(tmp_path / "old.npz")
        D = gl.Dissection.load(tmp_path / "old.npz")
        assert D.certificates is None
        assert D.certain == []
        assert "certain" not in D.rows()[0]
        assert "certain" not in repr(D)


class TestControl:
    def test_an_untrained_network_draws_nothing(self, G, S, by_rule):
        U = gl.dissect(G.untrained(seed=0), S, "layer4", n=200, progress=False)
        D = replace(by_rule["quantile"])
        assert len(D.interpretable) > 80
        assert U.interpretable == []
        D.keep_control(U)
        assert (D.control == U.iou.max(0)).all()
        assert all(D.iou[unit, D.iou[unit].argmax()] > D.control[D.iou[unit].argmax()] for unit in D.interpretable)
        other = replace(U, on=D.on, overlap=D.overlap, area=D.area, scope=D.scope)  # as good as the trained one
        vars(other).pop("iou", None)
        D.keep_control(other)
        assert D.interpretable == []
        assert "no better than units of an untrained network" in D.describe(171)

    def test_what_does_not_belong_is_refused(self, by_rule, G, S):
        D = replace(by_rule["quantile"])
        with pytest.raises(ValueError, match="another rule"):
            D.keep_control(by_rule["iou"])
        with pytest.raises(ValueError, match="very same network"):
            D.keep_control(by_rule["quantile"])
        with pytest.warns(UserWarning, match="the control saw 16 images"):
            D.keep_control(gl.dissect(G.untrained(), S, "layer4", n=16, progress=False))
        with pytest.raises(ValueError, match="another layer"):
            D.keep_control(gl.dissect(G, S, "layer5", n=8, progress=False))
        with pytest.raises(ValueError, match="Dissection"):
            D.keep_control("layer4")

    def test_levels_are_those_of_the_trained_network(self, G, untouched):
        untouched(G.net)
        U, again = G.untrained(seed=1), G.untrained(seed=1)
        assert U.fingerprint == again.fingerprint != G.untrained(seed=2).fingerprint != G.fingerprint
        for layer in ("layer2", "layer4", "layer6", "layer8"):
            trained, shuffled = (g.read(g.latents(range(32)), [layer])[1][layer].std() for g in (G, U))
            assert 0.6 < shuffled / trained < 1.6
        for name, weight in G.net.named_parameters():
            other = dict(U.net.named_parameters())[name]
            assert not weight.numel() > 8 or not torch.equal(weight, other)


class TestSentences:
    def test_label_and_effect(self, by_rule):
        D = replace(by_rule["quantile"])
        assert D.describe(171).startswith("Unit 171 is on where dome is (IoU 0.18, 95 % 0.15 … 0.23, certain).")
        effects = np.zeros(D.iou.shape)
        effects[171, 9], effects[171, 6] = 0.31, -0.02
        D.effects = effects
        assert D.describe(171).endswith("Switched off alone, 31% of the pixels of dome go.")
        effects[171, 10] = 0.4
        assert D.describe(171).endswith("31% of the pixels of dome go; most of all, 40% of those of tower go.")
        effects[171] = np.nan
        assert D.describe(171).endswith("certain).")
        weak = next(label.unit for label in D.labels if not label.interpretable)
        assert "too weakly to be called interpretable" in D.describe(weak)
        with pytest.raises(ValueError, match="out of range"):
            D.describe(192)


def same(a: Certificates, b: Certificates) -> None:
    for name in Certificates.names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


class TestAuto:
    """Dissections that end by themselves."""

    def test_ends_when_labels_are_settled(self, G, S, tmp_path):
        D = gl.dissect(G, S, "layer9", n="auto", progress=False)
        assert 384 <= D.n < 4000
        assert D.complete
        assert D.settled >= 0.92
        fixed = gl.dissect(G, S, "layer9", n=D.n, progress=False)
        np.testing.assert_array_equal(D.iou, fixed.iou)

        def stop(done, total):
            if done >= 200:
                raise KeyboardInterrupt

        path = tmp_path / "state.npz"
        with pytest.warns(UserWarning, match="interrupted"):
            gl.dissect(G, S, "layer9", n="auto", checkpoint=path, progress=stop)
        for _ in range(2):  # it goes on, and is there at once
            again = gl.dissect(G, S, "layer9", n="auto", checkpoint=path, progress=False)
            assert (again.n, again.complete) == (D.n, True)
            same(again.certificates, D.certificates)

    def test_that_nothing_is_there_is_settled_at_once(self, G):
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] * 0).int(), ["nothing"])
        D = gl.dissect(G, S, "layer9", n="auto", progress=False)
        assert (D.n, D.complete) == (384, True)
        assert D.settled == 1

    @pytest.mark.parametrize("n", [600, "auto"])
    def test_somebody_watches(self, G, S, n):
        seen = []
        D = gl.dissect(G, S, "layer3", n=n, watch=lambda D, done: seen.append((D, done)), progress=False)
        *stages, (last, done) = seen
        assert (last is D, done) == (True, True)
        assert [part.n for part, _ in stages] == [size for size in (384, 512, 768, 1024, 1536, 2048) if size < D.n]
        assert not any(done or part.complete for part, done in stages)
        alone = gl.dissect(G, S, "layer3", n=384, progress=False)
        np.testing.assert_array_equal(stages[0][0].iou, alone.iou)
        np.testing.assert_array_equal(D.iou, gl.dissect(G, S, "layer3", n=D.n, progress=False).iou)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_of_who_watches_loses_nothing(self, G, S, tmp_path, error):
        path = tmp_path / "state.npz"

        def watch(D, done):
            if not done:
                raise error("enough")

        arguments = {"n": 600, "checkpoint": path, "progress": False}
        if error is RuntimeError:
            with pytest.raises(RuntimeError, match="enough"):
                gl.dissect(G, S, "layer9", watch=watch, **arguments)
        else:
            with pytest.warns(UserWarning, match="interrupted after 384"):
                assert gl.dissect(G, S, "layer9", watch=watch, **arguments).n == 384
        counted, seen = [], []
        gl.dissect(
            G,
            S,
            "layer9",
            **arguments | {"progress": lambda done, n: counted.append(done)},
            watch=lambda D, _: seen.append(D.n),
        )
        assert (counted[0], seen) == (384, [512, 600])

    def test_what_was_watched_stays_as_it_was(self, G, S):
        seen = []
        gl.dissect(G, S, "layer9", n=400, watch=lambda D, done: seen.append(D), progress=False)
        alone = gl.dissect(G, S, "layer9", n=384, progress=False)
        assert (seen[0].levels.counts == alone.levels.counts).all()

    def test_what_it_does_not_take(self, G, S):
        with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="takes no executor"):
            gl.dissect(G, S, "layer9", n="auto", executor=pool)
        with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="watch looks at the images in turn"):
            gl.dissect(G, S, "layer9", watch=print, executor=pool)
        for wrong in ("gallery", gl.UnitGallery, gl.UnitGallery.live, lambda found: None):
            with pytest.raises(ValueError, match="expected something that is called with"):
                gl.dissect(G, S, "layer9", watch=wrong)
        with pytest.raises(ValueError, match="n=many"):
            gl.dissect(G, S, "layer9", n="many")

    @pytest.mark.slow
    def test_half_the_images_give_the_same_labels(self, G, S):
        """On a sample that nothing was chosen on; of layer3, where many units are near the bar, 1,024 are looked at."""
        shares = []
        for layer in ("layer4", "layer5", "layer6", "layer7"):
            short, long = (gl.dissect(G, S, layer, n=n, sample=7, progress=False) for n in ("auto", 1000))
            assert short.n <= 512
            drawn = [[label.concept if label.interpretable else None for label in D.labels] for D in (short, long)]
            shares.append(np.mean([a == b for a, b in zip(*drawn, strict=True)]))
        assert np.mean(shares) >= 0.95
