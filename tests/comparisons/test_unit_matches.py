"""Units matched one to one: copies of a network are found again, and correlations are those of numpy."""

import copy
import csv
import signal
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from planted import Lattice, Residual, Z
from torch import nn

import ganlens as gl
from ganlens.comparisons.unit_matches import CrossMoments
from ganlens.models.classifier import Classifier
from ganlens.statistics import upsample

U = 10
WORDS = [f"octant {i}" for i in range(8)]


def octants(x: torch.Tensor) -> torch.Tensor:
    """Eight concepts (N, Y, X): which of the three colours are light. Every pixel has one."""
    return 1 + (x > 0)[:, 0].int() + 2 * (x > 0)[:, 1].int() + 4 * (x > 0)[:, 2].int()


def chain() -> nn.Sequential:
    """Two convolutions of U units with ReLU between them: permuting and scaling units can be undone behind them."""
    torch.manual_seed(3)
    first, second = nn.Conv2d(Z, U, 3, padding=1), nn.Conv2d(U, 3, 3, padding=1)
    grow = nn.Sequential(nn.Linear(Z, Z * 36), nn.Unflatten(1, (Z, 6, 6)))
    return nn.Sequential(grow, first, nn.ReLU(), second, nn.Tanh())


def reordered(order, scale=1.0) -> nn.Sequential:
    """The chain with its units in another order and of another size; its images are the same."""
    net = chain()
    scale = torch.as_tensor(scale, dtype=torch.float32).expand(U)
    net[1].weight.data = net[1].weight[order] * scale[:, None, None, None]
    net[1].bias.data = net[1].bias[order] * scale
    net[3].weight.data = net[3].weight[:, order] / scale[:, None, None]
    return net


def dissection(net: nn.Module, layer: str = "2", n: int = 24):
    return gl.dissect(
        gl.Generator.wrap(net, Z),
        gl.Segmenter.wrap(octants, WORDS),
        layer,
        n=n,
        progress=False,
    )


ORDER = np.random.default_rng(0).permutation(U)


@pytest.fixture(scope="module")
def original():
    return dissection(chain())


class TestCopies:
    @pytest.mark.parametrize("scale", [1.0, torch.logspace(-2, 2, U)])
    def test_a_permuted_and_scaled_copy_is_matched_completely(self, original, scale):
        net = reordered(ORDER, scale)
        z = torch.randn(4, Z)
        assert torch.allclose(net(z), original.generator.net(z), atol=1e-5)
        M = gl.match_units(original, dissection(net), n=32, progress=False)
        assert M.by == "activation"
        assert [M.partner(int(unit)) for unit in ORDER] == list(range(U))
        np.testing.assert_allclose(M.values, 1, atol=1e-6)
        assert M.chance < 0.8

    def test_by_concepts(self, original):
        M = gl.match_units(original, dissection(reordered(ORDER)), by="concepts", progress=False)
        assert (M.by, M.n) == ("concepts", 0)
        np.testing.assert_allclose(M.values, 1, atol=1e-3)
        assert [M.partner(int(unit)) for unit in ORDER] == list(range(U))
        assert M.same == 1 or np.isnan(M.same)

    def test_the_embedded_generator(self, G, S, D):
        order = np.random.default_rng(1).permutation(192)
        net = copy.deepcopy(G.net)
        net.layer4.conv.weight.data = net.layer4.conv.weight[order]
        net.layer4.conv.bias.data = net.layer4.conv.bias[order]
        net.layer5.conv.weight.data = net.layer5.conv.weight[order]  # (C, U, 3, 3), as it doubles
        copied = gl.dissect(
            gl.Generator.wrap(net, G.z_dim, "copy", layers=list(G.layers)), S, "layer4", n=96, progress=False
        )
        for by in ("activation", "concepts"):
            M = gl.match_units(D, copied, by=by, n=32, progress=False)
            assert (order[M.pairs[:, 1]] == M.pairs[:, 0]).all()
            assert M.mean > 0.999
            assert M.same == 1
            assert M.chance < 0.5

    def test_classifiers_of_the_same_images(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, U, 3), nn.ReLU(), nn.Conv2d(U, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        other = copy.deepcopy(net)
        other[0].weight.data, other[0].bias.data = net[0].weight[ORDER], net[0].bias[ORDER]
        other[2].weight.data = net[2].weight[:, ORDER]
        x = torch.rand(20, 3, 12, 12) * 2 - 1
        nets = [Classifier.wrap(some, x) for some in (net, other)]
        a, b = (gl.dissect(net, gl.Segmenter.wrap(octants, WORDS), "1", n=20, progress=False) for net in nets)
        M = gl.match_units(a, b, n=20, progress=False)
        assert M.by == "activation"
        assert [M.partner(int(unit)) for unit in ORDER] == list(range(U))
        assert "nan" not in repr(M)

    def test_another_network_is_not(self, original):
        net = chain()
        nn.init.normal_(net[1].weight)
        M = gl.match_units(original, dissection(net), n=64, progress=False)
        assert M.mean < 0.8


class TestCorrelation:
    def test_is_that_of_numpy(self, original):
        other = dissection(Residual(), "block2")
        M = gl.match_units(original, other, n=40, sample=5, progress=False)
        features = []
        for D in (original, other):
            z = D.generator.latents(range(5_000_000, 5_000_040))
            r = upsample(D.generator.read(z, [D.layer])[1][D.layer].detach(), (8, 8))  # 6x6 of one, 8x8 of the other
            features.append(r.transpose(0, 1).flatten(1).numpy())
        np.testing.assert_allclose(M.similarity, np.corrcoef(*features)[:U, U:], atol=1e-5)
        assert M.similarity.shape == (U, 6)
        assert M.pairs.shape == (6, 2)
        assert sum(M.partner(unit) is None for unit in range(U)) == U - 6

    def test_units_that_never_change_match_nothing(self):
        D = dissection(Lattice(), "layer")
        M = gl.match_units(D, D, n=16, progress=False)
        alive = [u for u in range(9) if u not in (0, 1)]
        assert not M.similarity[[0, 1]].any()
        assert [M.partner(u) for u in alive] == alive

    def test_the_assignment_is_optimal(self, original):
        some = replace(original)
        M = gl.match_units(some, some, n=16, progress=False)
        M.similarity = np.random.default_rng(0).random((4, 5))
        best = max(sum(M.similarity[i, j] for i, j in enumerate(order)) for order in permutations(range(5), 4))
        assert M.values.sum() == pytest.approx(best)
        assert (np.diff(M.values) <= 0).all()


class TestSums:
    def test_can_be_continued(self, original):
        other = dissection(reordered(ORDER))
        whole = gl.match_units(original, other, n=48, progress=False)
        part = gl.match_units(original, other, n=32, progress=False)
        seen = []
        again = gl.match_units(
            original, other, n=48, known=part, progress=lambda done, total: seen.append((done, total))
        )
        np.testing.assert_allclose(again.similarity, whole.similarity, atol=1e-12)
        assert (again.n, again.complete, seen) == (48, True, [(16, 16)])
        assert part.n == 32

    def test_an_interrupt_returns_what_was_seen(self, original, untouched):
        untouched(original.generator.net)

        def stop(done, total):
            if done == 32:
                signal.raise_signal(signal.SIGINT)

        M = gl.match_units(original, original, n=96, progress=stop)
        assert (M.n, M.complete) == (32, False)
        assert "incomplete" in repr(M)
        assert gl.match_units(original, original, n=96, known=M, progress=False).complete

    def test_merge(self):
        rng = torch.Generator().manual_seed(0)
        batches = [[torch.randn(4, u, 3, 3, generator=rng) for u in (5, 7)] for _ in range(3)]
        whole, *parts = (CrossMoments(5, 7) for _ in range(4))
        for part, pair in zip(parts, batches, strict=True):
            part.update(*pair)
            whole.update(*pair)
        merged = parts[2].merge(parts[0]).merge(parts[1])
        for name in CrossMoments.SUMS:
            np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), atol=1e-12)

    def test_large_layers_are_taken_in_pieces(self, monkeypatch):
        a, b = (torch.randn(5, u, *size) for u, size in ((3, (4, 8)), (4, (8, 4))))
        whole, pieces = CrossMoments(3, 4), CrossMoments(3, 4)
        whole.update(a, b)
        monkeypatch.setattr("ganlens.comparisons.unit_matches.NUMBERS", 1500)  # two images
        pieces.update(a, b)
        for name in CrossMoments.SUMS:
            np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=1e-9)

    def test_known_of_other_layers(self, original):
        M = gl.match_units(original, original, n=16, progress=False)
        for changes in ({"n": 8}, {"sample": 7}):
            with pytest.raises(ValueError, match="expected an earlier result"):
                gl.match_units(original, original, **{"n": 32, **changes}, known=M, progress=False)


class TestTable:
    def test_rows(self, D, tmp_path):
        M = gl.match_units(D, D, by="concepts")
        M.to_csv(tmp_path / "pairs.csv")
        with open(tmp_path / "pairs.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(row["unit_a"], row["unit_b"]) for row in rows} == {(str(u), str(u)) for u in range(192)}
        draws = {label.unit: label.concept.name if label.interpretable else "" for label in D.labels}
        assert all(row["draws_a"] == draws[int(row["unit_a"])] for row in rows)
        assert M._repr_html_().count("<img") == 8


class TestErrors:
    def test_generators_of_different_latents(self, original, D):
        with pytest.raises(ValueError, match=r"do not read the same latents.*by='concepts'"):
            gl.match_units(original, D, by="activation")
        with pytest.raises(ValueError, match="different segmenters"):
            gl.match_units(original, D)

    def test_without_generators(self, original):
        alone = replace(original, generator=None)
        assert gl.match_units(original, alone).by == "concepts"
        with pytest.raises(ValueError, match="has no generator at hand"):
            gl.match_units(original, alone, by="activation")

    def test_bad_arguments(self, original):
        with pytest.raises(ValueError, match="did you mean 'activation'"):
            gl.match_units(original, original, by="activations")
        with pytest.raises(ValueError, match="at least 2 images"):
            gl.match_units(original, original, n=1)
        with pytest.raises(ValueError, match="unit 10 is out of range"):
            gl.match_units(original, original, by="concepts").partner(10)
