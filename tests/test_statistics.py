"""Scales, joint tables, levels and top images against plain counting."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ganlens.dissection.layer_statistics import middle_nearest
from ganlens.statistics import Areas, JointCounts, Levels, Scale, TopImages, as_ordered_integer, from_ordered_integer

SIZES = {  # of the layer, of the grid
    "smaller": ((8, 8), (32, 32)),
    "equal": ((16, 16), (16, 16)),
    "larger": ((32, 32), (12, 12)),
    "not square": ((4, 10), (24, 20)),
    "no integer ratio": ((7, 5), (16, 23)),
    "larger and smaller": ((20, 3), (9, 17)),
    "one cell": ((1, 1), (6, 5)),
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_planes(n, planes, size, columns, seed=0):
    return torch.randint(-1, columns, (n, planes, *size), generator=torch.Generator().manual_seed(seed)).short()


@pytest.fixture(params=SIZES)
def sizes(request):
    return SIZES[request.param]


class TestScale:
    @pytest.mark.parametrize("seed", range(12))
    def test_edges_are_exact(self, seed):
        """A value is above an edge if and only if it is placed in that bin or above, down to the last float."""
        rng = np.random.default_rng(seed)
        units, bins = 6, int(rng.choice([2, 7, 100, 4096]))
        magnitude = 10.0 ** rng.uniform(-30, 30, units)
        low = torch.tensor(rng.normal(size=units) * magnitude * rng.choice([0, 1, 1e4], units), dtype=torch.float32)
        high = low + torch.tensor(rng.exponential(size=units) * magnitude, dtype=torch.float32)
        scale = Scale(low, high, bins)
        chosen = torch.from_numpy(rng.integers(0, bins, (units, 20)))
        edges = scale.edge(chosen)
        for m in range(20):
            edge = edges[:, m : m + 1]
            around = from_ordered_integer(as_ordered_integer(edge) + torch.arange(-3, 4))
            spread = (low + (high - low) * torch.from_numpy(rng.uniform(-0.2, 1.2, units)).float())[:, None]
            values = torch.cat([around, spread], 1)
            assert torch.equal(values > edge, scale.place(values) >= chosen[:, m : m + 1])

    def test_bins_are_even(self):
        scale = Scale(torch.tensor([1.0]), torch.tensor([5.0]), bins=5)
        values = torch.tensor([[0.0, 1.0, 1.001, 1.999, 2.001, 3.5, 4.999, 5.0, 100.0]])
        assert scale.place(values).tolist() == [[-1, -1, 0, 0, 1, 2, 3, 4, 4]]
        assert scale.nominal().tolist() == [[1, 2, 3, 4, 5]]

    def test_float_order_is_kept(self):
        values = torch.cat([random(500) * 10.0 ** random(500, seed=1).mul(8), torch.tensor([0.0, 1e-45, -1e-45])])
        ordered = values.sort().values
        integers = as_ordered_integer(ordered)
        assert (integers.diff() >= 0).all()
        assert torch.equal(from_ordered_integer(integers), ordered)
        assert (as_ordered_integer(ordered.nextafter(torch.tensor(torch.inf))) - integers == 1).all()

    def test_unit_that_never_changes(self):
        scale = Scale(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 2.0]))
        values = torch.tensor([[-1.0, 0.0, 1e-30, 9.0], [0.0, 2.0, 2.1, 3.0]])
        assert scale.place(values).tolist() == [[-1, -1, 0, 0]] * 2
        assert scale.edge(torch.zeros(2, 1, dtype=torch.long)).tolist() == [[0], [2]]

    def test_atom_of_a_rectified_unit(self):
        """Where most values are 0, the low end is 0, and 0 itself is in no bin."""
        sample = random(1, 4000).sub(1.5).relu()
        scale = Scale.of_sample(sample, 0.5, 0.001)
        assert scale.low.item() == 0
        counts = JointCounts(scale, 1)
        counts.update(sample.view(1, 1, 50, 80), torch.zeros(1, 1, 50, 80).short())
        assert counts.marginal.sum().item() == (sample > 0).sum().item()

    @pytest.mark.parametrize(("lowest", "highest"), [(1.0, 0.01), (0.08, 0.001), (0.5, 0.25)])
    def test_of_sample_spans_the_asked_shares(self, lowest, highest):
        sample = random(5, 3000)
        scale = Scale.of_sample(sample, lowest, highest, bins=64)
        place = scale.place(sample)
        assert ((place >= 0).float().mean(1) - lowest).abs().max() <= 1 / 3000
        # a value at the very edge of the last bin may be rounded into the one below
        assert ((place >= 63).float().mean(1) - highest).abs().max() <= 2 / 3000

    def test_equality(self):
        low, high = torch.zeros(3), torch.ones(3)
        assert Scale(low, high, 8) == Scale(low.clone(), high.clone(), 8)
        assert Scale(low, high, 8) != Scale(low, high, 9)
        assert Scale(low, high, 8) != Scale(low, high * 2, 8)
        assert Scale(low, high, 8) != Scale(low - 1, high - 1, 8)
        assert Scale(low, high, 8) != "scale"


class TestJointCounts:
    @pytest.mark.parametrize("planes", [1, 2])
    @pytest.mark.parametrize("ignored", [False, True])
    def test_compiled_loop_is_the_definition(self, sizes, planes, ignored):
        """The same up to values that rounding moves across the border of two bins."""
        size, grid = sizes
        features, labels = random(6, 5, *size), random_planes(6, planes, grid, 4)
        labels = torch.where((labels[:, :1] == 2) & ignored, -2, labels)
        scale = Scale.of_sample(random(5, 999, seed=3) * 0.7 - 0.5, 0.9, 0.01, bins=256)
        compiled, plain = JointCounts(scale, 4), JointCounts(scale, 4)
        compiled.update(features, labels)
        plain.update_by_definition(features, labels)
        every = torch.arange(256).expand(5, -1)
        (a, joint_a), (b, joint_b) = compiled.above(every), plain.above(every)
        if size == grid:
            assert torch.equal(a, b)
            assert torch.equal(joint_a, joint_b)
        assert b.max() > 0.2 * labels[:, 0].numel()
        assert (a - b).abs().max() <= 3
        assert (joint_a - joint_b).abs().max() <= 3
        assert (compiled.marginal - plain.marginal).abs().sum() <= 2e-3 * plain.marginal.sum()

    def test_exact_where_nothing_is_rounded(self):
        features, labels = (random(4, 6, 5, 8) * 8).round() / 8, random_planes(4, 2, (20, 32), 3)
        scale = Scale(torch.full((6,), -1.0), torch.full((6,), 3.0), bins=129)
        compiled, plain = JointCounts(scale, 3), JointCounts(scale, 3)
        compiled.update(features, labels)
        plain.update_by_definition(features, labels)
        assert torch.equal(compiled.marginal, plain.marginal)
        assert torch.equal(compiled.counts, plain.counts)

    @pytest.mark.parametrize("method", ["update", "update_by_definition"])
    def test_by_hand(self, method):
        """Every pixel visited by itself."""
        features, labels = random(3, 2, 3, 4), random_planes(3, 2, (5, 9), 3)
        scale = Scale(torch.tensor([-0.3, 0.1]), torch.tensor([0.8, 1.5]), bins=8)
        counts = JointCounts(scale, 3)
        getattr(counts, method)(features, labels)
        up = F.interpolate(features, size=(5, 9), mode="bilinear", align_corners=False).numpy()
        marginal, joint = np.zeros((2, 8), int), np.zeros((2, 3, 8), int)
        for n, u, y, x in np.ndindex(up.shape):
            low, slope = scale.low[u].item(), scale.slope[u].item()
            if up[n, u, y, x] > low:
                b = min(int((up[n, u, y, x] - low) * slope), 7)
                marginal[u, b] += 1
                for plane in range(2):
                    if labels[n, plane, y, x] >= 0:
                        joint[u, labels[n, plane, y, x], b] += 1
        np.testing.assert_array_equal(counts.marginal, marginal)
        np.testing.assert_array_equal(counts.counts, joint)

    def test_above_sums_up(self):
        features, labels = random(4, 3, 8, 8), random_planes(4, 1, (8, 8), 2)
        counts = JointCounts(Scale(torch.full((3,), -1.0), torch.full((3,), 1.0), bins=16), 2)
        counts.update(features, labels)
        bins = torch.tensor([[0, 5], [9, 15], [3, 3]])
        on, overlap = counts.above(bins)
        edges = counts.scale.edge(bins)
        for u, m in np.ndindex(3, 2):
            mask = features[:, u] > edges[u, m]
            assert on[u, m] == mask.sum()
            assert overlap[u, :, m].tolist() == [(mask & (labels[:, 0] == k)).sum().item() for k in range(2)]

    def test_threads_do_not_matter(self, threads):
        features, labels = random(3, 7, 6, 6), random_planes(3, 1, (24, 24), 3)
        scale = Scale.of_sample(features.transpose(0, 1).flatten(1), 1.0, 0.01)
        found = []
        for count in (1, 2, 16):
            threads(count)
            counts = JointCounts(scale, 3)
            counts.update(features, labels)
            found.append(counts)
        for other in found[1:]:
            assert torch.equal(found[0].marginal, other.marginal)
            assert torch.equal(found[0].counts, other.counts)

    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
    def test_memory_layout_does_not_matter(self, layout):
        features, labels = random(3, 7, 6, 5), random_planes(3, 1, (12, 15), 3)
        scale = Scale(torch.zeros(7), torch.ones(7))
        a, b = JointCounts(scale, 3), JointCounts(scale, 3)
        a.update(features, labels)
        b.update(features.to(memory_format=layout)[:], labels)
        assert torch.equal(a.counts, b.counts)


@pytest.mark.parametrize("seed", range(20))
def test_the_middle_of_the_bins_whose_counts_are_nearest(seed):
    """Against all distances of all bins, with gaps, empty tails, and counts between two that are as near."""
    g = np.random.default_rng(seed)
    bins = int(g.integers(1, 40))
    counts = g.integers(0, 4, (7, bins)) * (g.random((7, bins)) < 0.4)
    every = counts[:, ::-1].cumsum(1)[:, ::-1]
    wanted = g.integers(0, 2 * every.max() + 4, 9) / 2
    found = middle_nearest(torch.from_numpy(every.copy()), wanted)
    for row, of_unit in zip(every, found.tolist(), strict=True):
        for w, bin_ in zip(wanted, of_unit, strict=True):
            near = np.flatnonzero(np.abs(row - w) == np.abs(row - w).min())
            assert bin_ == (near[0] if row[near[0]] == 0 else (near[0] + near[-1]) // 2)


class TestLevels:
    @pytest.fixture
    def features(self):
        features = random(12, 5, 9, 7) * torch.tensor([1, 100, 1e-3, 1, 1])[:, None, None]
        features[:, 3], features[:, 4] = features[:, 3].relu(), 0
        return features

    @pytest.fixture
    def levels(self, features):
        values = features.transpose(0, 1).flatten(1)
        levels = Levels(Scale(values.amin(1), values.amax(1)))
        for part in features.split(5):
            levels.update(part)
        return levels

    def test_mean(self, features, levels):
        assert torch.allclose(levels.mean().double(), features.double().mean((0, 2, 3)), rtol=1e-6, atol=2**-16)

    @pytest.mark.parametrize("q", [0, 0.01, 0.5, 0.9, 0.99, 0.995, 1])
    def test_quantiles_to_one_bin(self, features, levels, q):
        """Between the sorted values around the rank, give or take a bin."""
        values = features.transpose(0, 1).flatten(1).sort(1).values
        count = values.shape[1]
        low, high = (values[:, min(max(int(q * count) + d, 0), count - 1)] for d in (-1, 1))
        bin_ = (values[:, -1] - values[:, 0]) / 4095
        found = levels.quantile(q)
        assert (found >= low - 1.01 * bin_).all()
        assert (found <= high + 1.01 * bin_).all()

    def test_ends_are_exact(self, features, levels):
        assert torch.equal(levels.quantile(0), features.amin((0, 2, 3)))
        assert torch.equal(levels.quantile(1), features.amax((0, 2, 3)))

    def test_scale_of_another_sample(self, features):
        """Values beyond the scale are still counted."""
        levels = Levels(Scale(torch.full((5,), -0.5), torch.full((5,), 0.5)))
        levels.update(features)
        assert (levels.counts.sum(1) + levels.below == 12 * 63).all()
        assert torch.equal(levels.quantile(1), features.amax((0, 2, 3)))
        assert levels.quantile(0.5)[0] == pytest.approx(features[:, 0].median().item(), abs=0.02)

    def test_compiled_loop_is_the_definition(self, features, levels):
        plain = Levels(levels.scale)
        sums, lowest, highest = plain.count_by_definition(features)
        assert torch.equal(plain.counts, levels.counts)
        assert torch.equal(plain.below, levels.below)
        assert torch.equal(lowest, levels.lowest)
        assert torch.equal(highest, levels.highest)
        torch.testing.assert_close(sums.sum(0), levels.total / 2**16, atol=1e-3, rtol=0, check_dtype=False)

    def test_dead_unit(self, levels):
        assert levels.mean()[4] == 0
        assert all(levels.quantile(q)[4] == 0 for q in (0, 0.5, 0.995, 1))

    @pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
    def test_no_quantile(self, levels, q):
        with pytest.raises(ValueError, match=r"quantile .* is outside \[0, 1\]"):
            levels.quantile(q)


class TestTopImages:
    def test_sorted_by_maximum(self):
        features, seeds = random(40, 6, 4, 4), np.random.default_rng(0).permutation(1000)[:40].tolist()
        top = TopImages(6, k=7)
        for start in range(0, 40, 9):
            top.update(features[start : start + 9], seeds[start : start + 9])
        maxima = features.amax((2, 3))
        for u in range(6):
            best = sorted(range(40), key=lambda i: -maxima[i, u])[:7]
            assert top.seeds[u].tolist() == [seeds[i] for i in best]
            np.testing.assert_array_equal(top.values[u], maxima[best, u])

    def test_ties_go_to_the_smaller_seed(self):
        top = TopImages(1, k=3)
        top.update(torch.ones(5, 1, 2, 2), [9, 4, 4_000_000_000, 7, 1])
        assert top.seeds.tolist() == [[1, 4, 7]]

    def test_fewer_images_than_places(self):
        top = TopImages(2, k=4)
        top.update(random(3, 2, 2, 2).sub(100), [3, 1, 2])
        assert set(top.seeds[0, :3].tolist()) == {1, 2, 3}
        assert (top.seeds[:, 3] == -1).all()
        assert (top.values[:, 3] == -np.inf).all()


def test_areas():
    planes = random_planes(5, 2, (6, 7), 4)
    areas = Areas(4)
    areas.update(planes[:2])
    areas.update(planes[2:])
    assert areas.counts.tolist() == [(planes == k).sum().item() for k in range(4)]
    assert areas.pixels == 5 * 6 * 7
