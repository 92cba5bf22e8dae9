"""Any generator: seeds to latents to layers to images, edited and resumed without a trace."""

import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from planted import Discs, Lattice, Residual, Z
from torch import nn

import ganlens as gl
from ganlens.models.hooks import Abandoned, hooked

CLOSED = ["dense", "stem", "block1", "up", "block2", "norm"]  # of Residual: nothing bypasses these


@pytest.fixture
def residual(untouched):
    return gl.Generator.wrap(untouched(Residual()), Z)


@pytest.fixture
def discs():
    return gl.Generator.wrap(Discs(), Z)


class TestSample:
    def test_a_latent_is_its_seed(self, G):
        together = G.latents([7, 3, 7, 2**32 - 1])
        assert together.shape == (4, G.z_dim)
        assert torch.equal(together[0], together[2])
        assert torch.equal(together[1], G.latents(3)[0])
        assert not torch.equal(together[0], together[1])

    def test_standard_normal(self, G):
        z = G.latents(range(400))
        assert abs(z.mean().item()) < 0.03
        assert z.std().item() == pytest.approx(1, abs=0.03)
        assert np.abs(np.corrcoef(z.T) - np.eye(G.z_dim)).max() < 0.3

    def test_numpy_keeps_these_numbers(self, discs):
        expected = np.random.RandomState(5).standard_normal(Z).astype(np.float32)
        np.testing.assert_array_equal(discs.latents(5)[0].numpy(), expected)

    @pytest.mark.parametrize("kind", [list, tuple, iter, np.array, torch.tensor])
    def test_any_sequence_of_seeds(self, discs, kind):
        assert torch.equal(discs.latents(kind([1, 2])), discs.latents(range(1, 3)))

    @pytest.mark.parametrize("seed", [3, np.int64(3), np.uint32(3)])
    def test_a_single_seed(self, discs, seed):
        assert torch.equal(discs.latents(seed), discs.latents([3]))

    @pytest.mark.parametrize(
        ("seeds", "message"),
        [
            ([], "at least one"),
            ([0.5], "whole numbers"),
            (1.0, "whole numbers"),
            ("12", "whole numbers"),
            (True, "whole numbers"),
            (None, "whole numbers"),
            ([[1, 2]], "whole numbers"),
            ([0, -1], "seed -1 is outside"),
            ([0, 2**32], "seed 4294967296 is outside"),
        ],
    )
    def test_bad_seeds(self, discs, seeds, message):
        with pytest.raises(ValueError, match=message):
            discs.latents(seeds)


class TestGenerate:
    def test_same_alone_and_in_any_batch(self, G):
        """Not one bit of an image depends on its company."""
        every = G.generate(range(11))
        for batch_size in (1, 2, 3, 7, 8, 10):
            assert torch.equal(G.generate(range(11), batch_size=batch_size), every), batch_size
        for seed in (0, 4, 10):
            assert torch.equal(G.generate(seed)[0], every[seed])
        assert torch.equal(G.generate([9, 2, 9]), every[[9, 2, 9]])

    def test_same_in_any_batch_when_edited(self, G):
        edits = [gl.ablate("layer3", range(30), to="mean"), gl.insert("layer6", [1, 5], region=np.eye(16))]
        every = G.generate(range(6), edits)
        for batch_size in (1, 4):
            assert torch.equal(G.generate(range(6), edits, batch_size=batch_size), every)

    def test_threads_do_not_matter(self, G, threads):
        threads(1)
        every = G.generate(range(9))
        threads(2)
        assert torch.equal(G.generate(range(9)), every)
        assert torch.equal(G.generate([3]), every[3:4])

    def test_images(self, G):
        x = G.generate(range(4))
        assert x.shape == (4, *G.image_shape) == (4, 3, 64, 64)
        assert x.dtype == torch.float32
        assert x.min() >= -1
        assert x.max() <= 1
        assert (x.flatten(1).std(1) > 0.05).all()
        assert (x[0] - x[1]).abs().mean() > 0.01

    def test_forward_is_generate(self, G):
        with torch.no_grad():
            assert torch.equal(G.forward(G.latents([1, 2, 3])), G.generate([1, 2, 3]))

    def test_gradients_reach_the_latent(self, G, untouched):
        untouched(G.net)
        z = G.latents([1, 2]).requires_grad_()
        G.forward(z)[0].mean().backward()
        assert z.grad[0].abs().sum() > 0
        assert (z.grad[1] == 0).all()

    def test_images_out_of_range_are_clipped(self):
        net = nn.Sequential(nn.Unflatten(1, (Z, 1, 1)), nn.Conv2d(Z, 3, 1))
        nn.init.constant_(net[1].weight, 100)
        with pytest.warns(UserWarning, match=r"% of the values of Sequential are outside \[-1, 1\] .* output='tanh'"):
            G = gl.Generator.wrap(net, Z)
        assert G.generate(range(5)).abs().max() == 1

    def test_grey_images_are_shown_as_colours(self):
        net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Tanh())
        x = gl.Generator.wrap(net, Z).generate(range(3))
        assert x.shape == (3, 3, 2, 2)
        assert torch.equal(x[:, 0], x[:, 1])
        assert torch.equal(x[:, 0], x[:, 2])

    def test_labels(self):
        """Classes follow their images through the batches."""

        class Classes(nn.Module):
            def forward(self, z, labels=None):
                level = torch.zeros(len(z)) if labels is None else labels / 10
                return level[:, None, None, None].expand(-1, 3, 2, 2)

        x = gl.Generator.wrap(Classes(), Z).generate(range(5), labels=torch.arange(5), batch_size=2)
        torch.testing.assert_close(x[:, 0, 0, 0], torch.arange(5) / 10)


class TestEdits:
    def test_the_planted_unit_is_the_disc(self, discs, untouched):
        untouched(discs.net)
        assert (discs.generate(range(4)) == 1).flatten(1).any(1).all()
        assert (discs.generate(range(4), gl.ablate("layer", [7])) == -1).all()
        assert (discs.generate(range(4), [gl.insert("layer", [7], level=1)]) == 1).all()
        assert torch.equal(discs.generate(range(4), [gl.ablate("layer", [0, 6, 8])]), discs.generate(range(4)))

    def test_regions(self, discs):
        region = np.zeros((32, 32))
        region[3:9, 20:] = 1
        x = discs.generate(range(4), gl.insert("layer", [7], level=1, region=region))
        where = torch.from_numpy(region == 1)
        assert (x[..., where] == 1).all()
        assert torch.equal(x[..., ~where], discs.generate(range(4))[..., ~where])

    def test_order(self, discs):
        on, off = gl.insert("layer", [7], level=1), gl.ablate("layer", [7])
        assert (discs.generate(1, [on, off]) == -1).all()
        assert (discs.generate(1, [off, on]) == 1).all()

    def test_strength(self, discs):
        assert torch.equal(discs.generate(1, gl.ablate("layer", [7], strength=0)), discs.generate(1))
        half = discs.generate(1, gl.ablate("layer", [7], strength=0.5))
        assert set(half.unique().tolist()) == {-1, 0}

    @pytest.mark.parametrize("layer", ["layer1", "layer4", "layer9"])
    def test_is_what_a_hook_would_do(self, G, layer, untouched):
        untouched(G.net)
        edit = gl.insert(layer, [0, 3], level=[1.0, -0.5], strength=0.8)

        def by_hand(r):
            r = r.clone()
            for unit, level in ((0, 1.0), (3, -0.5)):
                r[:, unit] = 0.2 * r[:, unit] + 0.8 * level
            return r

        with torch.no_grad(), hooked(G.net, {layer: by_hand}):
            expected = G.forward(G.latents(range(3)))
        torch.testing.assert_close(G.generate(range(3), edit), expected, atol=1e-5, rtol=0)

    def test_named_levels_are_those_of_256_images(self, G):
        with torch.inference_mode():
            parts = [G.read(G.latents(range(i, i + 64)), ["layer3"])[1]["layer3"] for i in range(0, 256, 64)]
        units = [0, 5, 100]
        values = torch.cat(parts).transpose(0, 1).flatten(1)[units].sort(1).values  # (U, P)
        mean = G.level(gl.ablate("layer3", units, to="mean"))
        torch.testing.assert_close(mean, values.mean(1), atol=1e-4, rtol=1e-4)
        bins = 1.01 * (values[:, -1] - values[:, 0]) / 4095
        for q in (0.01, 0.5, 0.995):
            found = G.level(gl.insert("layer3", units, level=f"q{q}"))
            rank = round(q * values.shape[1])
            assert (found >= values[:, rank - 2] - bins).all()
            assert (found <= values[:, rank + 1] + bins).all()

    def test_named_levels_are_forced(self, G):
        edits = [gl.insert("layer3", [2, 9], level="q0.99"), gl.ablate("layer3", [4], to="mean")]
        with torch.inference_mode():
            r = G.read(G.latents(range(2)), ["layer3"])[1]["layer3"]
            edited = G.edited_features(r, edits)
        for unit, level in zip([2, 9, 4], [*G.level(edits[0]), *G.level(edits[1])], strict=True):
            assert (edited[:, unit] == level).all()

    def test_levels_as_they_are(self, G):
        for level in (1.5, [0.5, -0.1], np.random.default_rng(0).normal(size=(2, 8, 8))):
            found = G.level(gl.insert("layer4", [3, 1], level))
            np.testing.assert_array_equal(found.numpy(), np.float32(level))

    def test_paste(self, discs):
        """The disc of one image, pasted into another, is there."""
        with torch.inference_mode():
            source = discs.read(discs.latents(3), ["layer"])[1]["layer"]
        pasted = discs.generate(range(4), gl.insert("layer", [7], level=source[0, [7]]))
        assert torch.equal(pasted, discs.generate(3).expand(4, -1, -1, -1))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (gl.ablate("layer44", [1]), "no layer 'layer44' in scenes; did you mean 'layer4'"),
            (gl.ablate("layer4.conv", [1]), "layer"),
            (gl.ablate("layer4", [100_000]), r"unit 100000 is out of range: layer4 has units 0 … \d+"),
            (gl.ablate("layer4", [1], region=np.ones((3, 8))), r"region of shape \(3, 8\): layer4 has 8 x 8 cells"),
            (gl.insert("layer4", [1], level=np.ones((1, 4, 4))), r"level maps of shape \(4, 4\): layer4 has 8 x 8"),
        ],
    )
    def test_edits_that_do_not_fit(self, G, edit, message, untouched):
        untouched(G.net)
        with pytest.raises(ValueError, match=message):
            G.generate(0, edit)

    def test_nothing_stays_after_an_error(self, residual):
        edit, opened = gl.ablate("stem", [1]), residual.open("stem", 0)
        residual.net.fail = True
        for run in (
            lambda: residual.generate(0, edit),
            lambda: residual.read(residual.latents(0), ["stem"]),
            lambda: residual.open("stem", 0),
            lambda: opened.edited([edit, gl.ablate("block1", [2])]),
            lambda: residual.resume("stem", torch.zeros(1, 6, 4, 4)),
            lambda: residual.generate(0, gl.ablate("stem", [1], to="mean")),
        ):
            with pytest.raises(RuntimeError, match="as asked"):
                run()
        with pytest.raises(ValueError, match=r"could not be called with latents \(N, 4\): RuntimeError as asked; with"):
            gl.Generator.wrap(residual.net, Z)
        residual.net.fail = False
        assert residual.generate(0, edit).isfinite().all()

    def test_two_threads_do_not_mix(self, G):
        """An edited and an unedited picture made at the same time are what they are alone."""
        edit = gl.insert("layer5", range(20), level=3.0)
        plain, edited = G.generate(range(4)), G.generate(range(4), edit)
        assert not torch.equal(plain, edited)
        wrong = []

        def work(edits, expected):
            for _ in range(6):
                if not torch.equal(G.generate(range(4), edits, batch_size=2), expected):
                    wrong.append(edits)

        workers = [threading.Thread(target=work, args=a) for a in ((edit, edited), ((), plain))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert wrong == []

    def test_edit_does_not_reach_reading_and_resuming(self, G):
        """Nor do these mix with an edited run in another thread."""
        edit = gl.insert("layer2", range(20), level=3.0)
        with torch.inference_mode():
            before = G.read(G.latents(range(2)), ["layer5"])
            worker = threading.Thread(target=lambda: [G.generate(range(8), edit, batch_size=2) for _ in range(3)])
            worker.start()
            while worker.is_alive():
                x, features = G.read(G.latents(range(2)), ["layer5"])
                assert torch.equal(x, before[0])
                assert torch.equal(features["layer5"], before[1]["layer5"])
                torch.testing.assert_close(G.resume("layer5", features["layer5"]), x, atol=1e-5, rtol=0)
            worker.join()


class TestRead:
    def test_all_layers_from_one_pass(self, G):
        with torch.inference_mode():
            x, features = G.read(G.latents(range(3)), list(G.layers))
        assert torch.equal(x, G.generate(range(3)))
        assert {name: tuple(r.shape[1:]) for name, r in features.items()} == G.layers

    def test_one_image(self, G):
        with torch.inference_mode():
            x, features = G.read(G.latents(5), ["layer4"])
            others = G.read(G.latents([1, 5]), ["layer4"])
        assert len(x) == len(features["layer4"]) == 1
        assert torch.equal(features["layer4"][0], others[1]["layer4"][1])

    @torch.no_grad()
    def test_before_it_is_written_to(self, residual):
        """What an activation in place makes of a layer's output is not the layer's output."""
        features = residual.read(residual.latents(range(4)), ["stem"])[1]["stem"]
        net = residual.net
        expected = net.stem(net.dense(residual.latents(range(4))).unflatten(1, (-1, 4, 4)))
        torch.testing.assert_close(features, expected)
        assert features.min() < 0

    def test_unknown_layer(self, G):
        with pytest.raises(ValueError, match="no layer 'leyer4' in scenes; did you mean 'layer4'"):
            G.read(G.latents(0), ["layer1", "leyer4"])


class TestResume:
    @pytest.mark.parametrize("layer", [f"layer{i}" for i in range(1, 10)])
    def test_embedded(self, G, layer, untouched):
        untouched(G.net)
        with torch.inference_mode():
            x, features = G.read(G.latents(range(2)), [layer])
        r = features[layer]
        before = r.clone()
        torch.testing.assert_close(G.resume(layer, r), x, atol=1e-5, rtol=0)
        edit = gl.ablate(layer, range(0, G.layers[layer][0], 3))
        expected = G.generate(range(2), edit)
        torch.testing.assert_close(G.resume(layer, edit.apply(r)), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(G.open(layer, range(2)).resume(edit.apply(r)), expected, atol=1e-5, rtol=0)
        assert torch.equal(r, before)

    @pytest.mark.parametrize("layer", CLOSED)
    def test_residual(self, residual, layer):
        edit = gl.insert(layer, [1, 3], level=1.0) if layer != "dense" else None
        if edit is None:
            assert layer not in residual.layers  # a vector
            return
        expected = residual.generate(range(3), edit)
        with torch.no_grad():
            r = residual.read(residual.latents(range(3)), [layer])[1][layer]
            assert (residual.resume(layer, r) - residual.generate(range(3))).abs().max() < 1e-5
            assert (residual.resume(layer, edit.apply(r)) - expected).abs().max() < 1e-5

    @pytest.mark.parametrize("layer", ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"])
    def test_bypassed_layer(self, residual, layer):
        """Features inside of a block do not decide the image alone; opened, the rest is remembered."""
        edit = gl.insert(layer, [1, 3], level=1.0)
        with torch.no_grad():
            r = residual.read(residual.latents(range(3)), [layer])[1][layer]
        with pytest.raises(ValueError, match=rf"also reads the latent; use G.open\('{layer}', seeds\).resume"):
            residual.resume(layer, r)
        found = residual.open(layer, range(3)).resume(edit.apply(r))
        assert (found - residual.generate(range(3), edit)).abs().max() < 1e-5

    @pytest.mark.parametrize("layer", ["stem", "block2", "norm"])
    def test_latent_that_comes_late(self, untouched, layer):
        late = gl.Generator.wrap(untouched(Residual(late=True)), Z, name="late")
        opened = late.open(layer, range(3))
        with pytest.raises(ValueError, match=f"what lies behind '{layer}' of late also reads the latent; use G.open"):
            late.resume(layer, opened.features)
        edit = gl.ablate(layer, [0, 1, 2])
        found = opened.resume(edit.apply(opened.features))
        assert (found - late.generate(range(3), edit)).abs().max() < 1e-5
        assert (opened.image - late.generate(range(3))).abs().max() < 1e-5

    def test_gradients_reach_the_features(self, G):
        with torch.inference_mode():
            r = G.read(G.latents(range(2)), ["layer6"])[1]["layer6"]
        r = r.clone().requires_grad_()
        G.resume("layer6", r)[1].mean().backward()
        assert r.grad[1].abs().sum() > 0
        assert (r.grad[0] == 0).all()

    def test_any_number_of_images(self, G):
        r = G.open("layer4", range(5)).features
        every = G.resume("layer4", r)
        for n in (1, 2, 4):
            torch.testing.assert_close(G.resume("layer4", r[:n]), every[:n], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 192, 8), (8, 8), (2, 192, 4, 8)])
    def test_wrong_shape(self, G, shape):
        units, height, width = G.layers["layer4"]
        message = rf"features of shape .*: layer4 has \(N, {units}, {height}, {width}\)"
        with pytest.raises(ValueError, match=message):
            G.resume("layer4", torch.zeros(shape))
        with pytest.raises(ValueError, match=message):
            G.open("layer4", 0).resume(torch.zeros(shape))


class TestEdited:
    """Edits of several layers from one opened layer."""

    def test_is_the_full_pass(self, residual):
        """From any opened layer, with edits there and later, also inside of blocks and of layers that bypass them."""
        layers = list(residual.layers)
        for i, first in enumerate(layers):
            opened = residual.open(first, range(3))
            for later in layers[i:]:
                edits = [
                    gl.insert(later, [1], level=2.0),
                    gl.ablate(first, [0, 2]),
                    gl.ablate(later, [1], strength=0.4),
                ]
                expected = residual.generate(range(3), edits)
                torch.testing.assert_close(opened.edited(edits), expected, atol=1e-5, rtol=0)
                torch.testing.assert_close(opened.edited(edits[0]), residual.generate(range(3), edits[0]))
                assert (expected - opened.image).abs().max() > 1e-3

    def test_parallel_branches(self, untouched):
        """Each branch can be edited while the other one is open or edited too."""

        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = (nn.Sequential(nn.Linear(Z, 12), nn.Unflatten(1, (3, 2, 2))) for _ in range(2))

            def forward(self, z):
                return self.a(z) * self.b(z)

        G = gl.Generator.wrap(untouched(Branches()), Z)
        edits = [gl.insert("b", [1], level=0.5), gl.insert("a", [0, 1], level=-0.5)]
        torch.testing.assert_close(G.open("a", range(3)).edited(edits), G.generate(range(3), edits))
        assert (G.open("a", range(3)).edited(edits)[:, 1] == -0.25).all()

    def test_named_levels_and_maps(self, G, untouched):
        untouched(G.net)
        maps = np.random.default_rng(0).random((2, 8, 8))
        edits = [gl.ablate("layer5", range(40), to="mean"), gl.insert("layer4", [3, 5], maps, region=np.eye(8))]
        found = G.open("layer4", range(2)).edited(edits)
        torch.testing.assert_close(found, G.generate(range(2), edits), atol=1e-5, rtol=0)

    def test_without_edits_it_is_the_image(self, G):
        opened = G.open("layer3", range(2))
        found = opened.edited([])
        assert torch.equal(found, opened.image)
        with torch.inference_mode():
            found.zero_()
        assert opened.image.abs().sum() > 0

    def test_layer_in_front(self, residual):
        edits = [gl.ablate("block2", [0]), gl.ablate("block1.conv2", [0]), gl.ablate("stem", [0])]
        for some, first in ((edits, "stem"), (edits[:2], "block1.conv2")):
            with pytest.raises(ValueError, match=f"'{first}' lies in front of 'block1', which is open; open '{first}'"):
                residual.open("block1", 0).edited(some)
        with pytest.raises(ValueError, match="no layer 'blok2' in Residual; did you mean 'block2'"):
            residual.open("block1", 0).edited(gl.ablate("blok2", [0]))

    def test_abandoned(self, residual):
        """Wherever it is stopped, what is asked next is as if nothing had been."""
        opened, edits = (
            residual.open("block1.conv1", range(2)),
            [gl.ablate("block1.conv1", [1]), gl.ablate("norm", [2])],
        )
        expected, stops = opened.edited(edits), 0
        while True:
            answers = iter([False] * stops)
            try:
                found = opened.edited(edits, stop=lambda answers=answers: next(answers, True))
                break
            except Abandoned:
                stops += 1
            assert not residual.net._forward_pre_hooks
            assert "forward" not in vars(residual.net.stem)
            if stops % 4 == 0:
                assert torch.equal(opened.edited(edits), expected)
        assert torch.equal(found, expected)
        assert stops == 15  # the network, four modules that answer from memory, block1, and nine that run
        with pytest.raises(Abandoned):
            residual.open("norm", 0, stop=lambda: True)

    def test_threads_do_not_mix(self, G):
        """One opened layer, used by several threads, some of whom give up half-way."""
        opened = G.open("layer4", 0)
        sessions = [[gl.insert("layer4", [i], level=5.0), gl.ablate(f"layer{5 + i}", range(9))] for i in range(3)]
        expected, wrong = [opened.edited(edits) for edits in sessions], []

        def work(edits, image):
            for time in range(12):
                answers = iter([False] * time)
                with suppress(Abandoned):
                    opened.edited(edits, stop=lambda answers=answers: next(answers, True))
                if not torch.equal(opened.edited(edits), image):
                    wrong.append(edits)

        workers = [threading.Thread(target=work, args=pair) for pair in zip(sessions, expected, strict=True)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert wrong == []
        assert not torch.equal(expected[0], expected[1])


class TestWrap:
    def test_layers_in_the_order_of_the_pass(self):
        class Backwards(nn.Module):
            """Declared in one order, run in another."""

            def __init__(self):
                super().__init__()
                self.last, self.vector = nn.Upsample(scale_factor=2), nn.Linear(Z, 12)
                self.first, self.middle = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 2, padding=1)
                self.idle = nn.Conv2d(1, 1, 1)

            def forward(self, z):
                return self.last(self.middle(self.first(self.vector(z).view(-1, 3, 2, 2))))

        layers = gl.Generator.wrap(Backwards(), Z).layers
        assert list(layers.items()) == [("first", (5, 2, 2)), ("middle", (3, 3, 3)), ("last", (3, 6, 6))]

    def test_embedded_layers(self, G):
        assert list(G.layers) == [f"layer{i}" for i in range(1, 10)]
        assert [shape[1:] for shape in G.layers.values()] == [(s, s) for s in (4, 4, 8, 8, 16, 16, 32, 32, 64)]

    def test_chosen_layers(self):
        net = Residual()
        assert list(gl.Generator.wrap(net, Z, layers=["up", "block2.conv1"]).layers) == ["up", "block2.conv1"]
        with pytest.raises(ValueError, match="no layer 'block22' in Residual; did you mean 'block2'"):
            gl.Generator.wrap(net, Z, layers=["block22"])
        with pytest.raises(ValueError, match=r"layer 'norm' of Residual is not among the .* that do: up, block2"):
            gl.Generator.wrap(net, Z, layers=["up", "block2.conv1"]).check_layer("norm")
        assert gl.Generator.wrap(net, Z, layers=["up", "dense"]).layers == {"dense": (96, 1, 1), "up": (6, 8, 8)}

    def test_layer_that_runs_twice_is_not_offered(self):
        """Its name would say two things: the shared activation yields maps of 4x4 and of 8x8."""
        G = gl.Generator.wrap(Residual(), Z)
        assert "act" not in G.layers
        with pytest.raises(ValueError, match="runs more than once"):
            G.check_layer("act")
        with pytest.raises(ValueError, match="runs more than once"):
            gl.Generator.wrap(Residual(), Z, layers=["act"])

    def test_layer_that_is_no_feature_map(self):
        G = gl.Generator.wrap(nn.Sequential(nn.Unflatten(1, (Z, 1)), nn.Unflatten(1, (1, Z)), nn.Tanh()), Z)
        with pytest.raises(ValueError, match=r"layer '0' of Sequential yields no feature map .*layers that do: 1, 2"):
            G.check_layer("0")

    def test_vectors_are_layers_that_are_not_listed(self, residual):
        assert "dense" not in residual.layers
        assert residual.layers["dense"] == residual.check_layer("dense") == (96, 1, 1)
        edit = gl.insert("dense", [3, 90], level=[1.0, -2.0])
        with torch.no_grad(), hooked(residual.net, {"dense": edit.apply}):
            expected = residual.forward(residual.latents(range(3)))
        torch.testing.assert_close(residual.generate(range(3), edit), expected)
        torch.testing.assert_close(residual.open("dense", range(3)).edited(edit), expected)
        assert (expected - residual.generate(range(3))).abs().max() > 1e-3
        with pytest.raises(ValueError, match="no layer 'dens' in Residual; did you mean 'dense'"):
            residual.check_layer("dens")

    @pytest.mark.parametrize(
        ("net", "found"),
        [
            (nn.Identity(), r"\(2, 4\)"),
            (nn.Sequential(nn.LSTM(Z, 3)), r"tuple with \(2, 3\), \(1, 3\), \(1, 3\)"),
        ],
        ids=["a vector", "a tuple"],
    )
    def test_no_images(self, net, found, untouched):
        with pytest.raises(ValueError, match=rf"returned {found}; expected images \(N, 3, Y, X\)"):
            gl.Generator.wrap(untouched(net), Z)

    def test_evaluation_mode(self):
        net = Residual().train()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        G = gl.Generator.wrap(net, Z)
        G.generate(range(4))
        assert net.training, "it is put back into the mode that it was in"
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())

    def test_wraps_without_parameters(self):
        G = gl.Generator.wrap(Lattice(), Z)
        assert G.generate(range(2)).shape == (2, 3, 16, 24)
        assert G.layers == {"layer": (9, 4, 6)}

    def test_fingerprint_knows_every_number(self):
        nets = [Residual() for _ in range(3)]
        with torch.no_grad():
            nets[1].block2.conv1.weight[3, 2, 1, 0] += 1e-6
        nets[2].norm.running_mean[0] = 1e-6
        prints = [gl.Generator.wrap(net, Z).fingerprint for net in nets]
        assert len(set(prints)) == 3
        assert gl.Generator.wrap(Residual(), Z, name="other").fingerprint == prints[0]

    def test_fingerprint_of_the_embedded_one_is_stable(self, G):
        assert gl.load_generator("scenes").fingerprint == G.fingerprint

    def test_repr(self, G):
        assert repr(G) == f"<Generator scenes: latent {G.z_dim}, 9 layers, images 64x64>"


def test_unknown_generator():
    with pytest.raises(ValueError, match="no generator 'scene' in ganlens; did you mean 'scenes'"):
        gl.load_generator("scene")
    assert "scenes" in gl.list_models()
