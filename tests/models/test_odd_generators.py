"""Generators from the real world: what is asked of the embedded one works with them, and gives the right numbers."""

import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from odd import Conditional, Grey, Modulated, OneHot, Remembers, Reused, Skips, Ten, Z
from test_dcgan import chain, trained
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import ganlens as gl
from ganlens.images import palette, to_uint8
from ganlens.models.image_ranges import OUTPUTS

DATA = Path(__file__).parents[1] / "data"


@dataclass
class Case:
    """A generator, some of its layers, and what its network is called with, written down by hand."""

    make: Callable[[], gl.Generator]
    layers: list[str]
    image: Callable = lambda net, z, labels: net(z)
    segment: Callable = lambda x: 1 + (x.mean(1) > 0).int()
    concepts: tuple = ("dark", "bright")


def student() -> gl.Generator:
    from ganlens.models.families.dcgan import from_state

    return from_state(trained(chain()).state_dict(), "student")


def loaded(name: str) -> Callable[[], gl.Generator]:
    return lambda: gl.load_generator(DATA / name)


CASES = {
    "proggan": Case(loaded("proggan_32.pth"), ["layer3"]),
    "proggan old": Case(loaded("proggan_64_old.pth"), ["layer6"]),
    "rosinality": Case(loaded("stylegan2_rosinality_32.pt"), ["convs.1", "convs.2.style", "to_rgbs.0"]),
    "nvidia": Case(loaded("stylegan2ada_32.pkl"), ["synthesis.b8.conv0", "synthesis.b16.torgb.style"]),
    "dcgan": Case(student, ["2"]),
    "conditional": Case(
        lambda: gl.Generator.wrap(Conditional(), Z, classes=3),
        ["scale", "embed"],
        lambda net, z, labels: 2 * net(z, labels) - 1,
    ),
    "one-hot": Case(
        lambda: gl.Generator.wrap(OneHot(), Z, classes=4),
        ["first", "act"],
        lambda net, z, labels: net(z[..., None, None], torch.eye(4)[labels]),
    ),
    "skips": Case(
        lambda: gl.Generator.wrap(Skips(), Z),
        ["blocks.0", "blocks.0.conv2", "dense"],
        lambda net, z, labels: net(z)[1],
    ),
    "modulated": Case(
        lambda: gl.Generator.wrap(Modulated(), Z, output="tanh"),
        ["acts.0", "affines.1"],
        lambda net, z, labels: net(z)["image"].tanh(),
    ),
    "grey": Case(
        lambda: gl.Generator.wrap(Grey(), Z),
        ["1", "4"],
        lambda net, z, labels: 2 * net(z[..., None, None]).expand(-1, 3, -1, -1) - 1,
    ),
    "ten channels": Case(
        lambda: gl.Generator.wrap(Ten(), Z),
        ["layer"],
        segment=lambda x: x.argmax(1) + 1,
        concepts=tuple(f"class {c}" for c in range(10)),
    ),
    "reused": Case(
        lambda: gl.Generator.wrap(Reused(), Z, output="[0,1]"),
        ["middle"],
        lambda net, z, labels: 2 * net(z).image - 1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_all_that_can_be_done(name, untouched):
    """Dissection, edits, resuming, the canvas and a recipe; against hooks set and counts made here."""
    case = CASES[name]
    G = case.make()
    untouched(G.net)
    S = gl.Segmenter.wrap(case.segment, case.concepts)
    dissections = gl.dissect(G, S, case.layers, n=16, progress=False)
    for layer, D in dissections.items():
        plain, r = by_hand(case, G, range(16), layer)
        torch.testing.assert_close(G.generate(range(16)), plain.clamp(-1, 1) if plain.shape[1] == 3 else plain)
        assert_counts_agree(D, case, plain, r)

        units = [0, G.layers[layer][0] - 1]
        edit = gl.insert(layer, units, level=2.0)
        expected = by_hand(case, G, range(3), layer, edit)[0]
        expected = expected.clamp(-1, 1) if expected.shape[1] == 3 else expected
        torch.testing.assert_close(G.generate(range(3), edit), expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(G.open(layer, range(3)).edited(edit), expected, atol=2e-5, rtol=1e-5)
        assert (expected - G.generate(range(3))).abs().max() > 1e-3

        canvas = gl.InterventionCanvas(D, seed=2)
        canvas.units = (0,)
        canvas.paint(cells=[0], mode="remove")
        assert canvas.wait()
        assert np.array_equal(canvas.image, gl.replay(canvas.recipe, G))
        recipe = gl.Recipe.from_json(canvas.recipe.to_json())
        assert np.array_equal(gl.replay(recipe, G), canvas.image)
        in_one_cell = by_hand(case, G, [2], layer, recipe.edits[0])[0]
        assert np.abs(to_uint8(in_one_cell)[0].astype(int) - canvas.image).max() <= (1 if plain.shape[1] == 3 else 0)
    np.testing.assert_array_equal(gl.unit_effects(D, n=8, progress=False).shape, D.iou.shape)


def by_hand(case: Case, G: gl.Generator, seeds, layer: str, edit: gl.Edit | None = None):
    """Images and, in 4-D, what a layer yields, edited: one pass with a hook of our own."""
    kept = []

    def hook(module, inputs, output):
        r = output[..., None, None] if output.ndim == 2 else output
        r = r.clone()
        if edit is not None:
            region = 1.0 if edit.region is None else torch.tensor(edit.region)
            for unit in edit.units:
                r[:, unit] = (1 - region) * r[:, unit] + region * edit.level
        kept.append(r.clone())
        return r.flatten(1) if output.ndim == 2 else r

    handle = G.net.get_submodule(layer).register_forward_hook(hook)
    z = G.latents(seeds)
    with torch.no_grad():
        x = case.image(G.net, z, G.labels(z))
    handle.remove()
    return x, kept[0]


def assert_counts_agree(D: gl.Dissection, case: Case, x: torch.Tensor, r: torch.Tensor) -> None:
    """IoU is that of masks made here, but for pixels that are at the threshold to seven digits."""
    labels = case.segment(x.clamp(-1, 1) if x.shape[1] == 3 else x)
    one = r.shape[2:] == (1, 1)  # then every pixel has its value, to the bit
    big = F.interpolate(r, size=x.shape[2:], mode="nearest" if one else "bilinear")
    for unit in range(0, len(D.iou), 3):
        on = big[:, unit] > float(D.thresholds[unit])
        for c in range(len(case.concepts)):
            there = labels == c + 1
            assert abs(int(there.sum()) - int(D.area[c])) <= 3
            assert abs(int(on.sum()) - int(D.on[unit, c])) <= 0.003 * on.numel() + 3
            assert abs(int((on & there).sum()) - int(D.overlap[unit, c])) <= 0.003 * on.numel() + 3


class TestPlantedTruth:
    def test_units_that_are_scores_draw_their_classes(self):
        """Units 0 … 9 are the scores of the ten classes, 10 and 11 do nothing: dissection and ablation find it."""
        G = gl.Generator.wrap(Ten(), Z)
        S = gl.Segmenter.wrap(lambda x: x.argmax(1) + 1, [f"class {c}" for c in range(10)])
        D = gl.dissect(G, S, "layer", n=64, quantile=0.05, progress=False)
        assert [label.concept.name for label in D.labels[:10]] == [f"class {c}" for c in range(10)]
        effect = gl.unit_effects(D, n=16, progress=False)
        assert (effect[:10].argmax(1) == range(10)).all()
        assert (np.nan_to_num(effect[10:]) == 0).all()
        off = G.generate(range(4), gl.insert("layer", [3], level=-100.0))
        assert not (S.labels(off) == 4).any()
        assert G.image_shape == (10, 14, 28)
        picture = gl.replay(gl.Recipe.of(G, seed=1), G)
        assert np.array_equal(picture, palette(10)[G.generate(1)[0].argmax(0).numpy()])

    def test_classes_decide_what_units_do(self):
        G = gl.Generator.wrap(Conditional(), Z, classes=3)
        for label in range(3):
            of = G.variant(label=label)
            r = of.open("scale", range(8)).features.mean((0, 2, 3))
            assert r[:3].argmax() == label
            found = G.generate(range(8), labels=torch.full((8,), label))
            assert torch.equal(of.generate(range(8)), found)
        assert G.labels(G.latents(range(400))).bincount().min() > 100

    def test_more_classes_than_there_are(self):
        with pytest.raises(ValueError, match="classes=4: Conditional knows no class 3"):
            gl.Generator.wrap(Conditional(), Z, classes=4)
        G = gl.Generator.wrap(Conditional(), Z, classes=3)
        with pytest.raises(ValueError, match=r"z=range\(0, 3\): expected latents"):
            G.labels(range(3))


class TestSettings:
    @pytest.fixture
    def G(self):
        return gl.Generator.wrap(Conditional(), Z, classes=3, name="rooms")

    def test_what_can_be_chosen(self, G):
        assert (G.settings, G.classes) == ({"label": None}, 3)
        assert gl.Generator.wrap(Grey(), Z).settings == {}
        assert gl.load_generator("scenes").classes is None
        other = G.variant(label=2)
        assert (other.settings, G.settings) == ({"label": 2}, {"label": None})
        assert other.fingerprint == G.fingerprint
        assert other.net is G.net
        assert other._lock is G._lock
        assert other.variant() == other != G
        assert other.variant(label=None) == G
        assert (G.title, other.title) == ("rooms", "rooms (label 2)")
        assert "rooms (label 2): latent 6" in repr(other)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"labell": 1}, "no setting 'labell' in rooms; did you mean 'label'"),
            ({"truncation": 0.5}, "rooms has no truncation; it has label; leave truncation away"),
            ({"label": 3}, "label 3: this generator has classes 0 … 2; None is one for each seed"),
            ({"label": -1}, "label -1: this"),
            ({"label": True}, "label True: this"),
            ({"label": 1.0}, r"label 1\.0: this"),
        ],
    )
    def test_what_cannot(self, G, settings, message):
        with pytest.raises(ValueError, match=message):
            G.variant(**settings)

    def test_truncation_is_checked(self):
        G = gl.load_generator(DATA / "stylegan2_rosinality_32.pt")
        assert G.settings == {"truncation": 1.0}
        for wrong in (1.2, -0.1, "0.5", True, float("nan"), None):
            with pytest.raises(ValueError, match=r"truncation .* is outside \[0, 1\]"):
                G.variant(truncation=wrong)

    def test_a_class_is_the_seeds(self, G):
        """The same alone, in any batch, opened, read and generated; and all classes occur."""
        z = G.latents(range(9))
        labels = G.labels(z)
        assert torch.equal(labels[4:5], G.labels(G.latents(4)))
        every = G.generate(range(9))
        torch.testing.assert_close(every, G.generate(range(9), labels=labels))
        torch.testing.assert_close(G.generate(range(9), batch_size=2), every)
        torch.testing.assert_close(G.open("scale", range(9)).image, every)
        torch.testing.assert_close(G.read(z, ["scale"])[0], every)
        assert len(set(labels.tolist())) == 3
        assert (G.generate(range(9), labels=(labels + 1) % 3) - every).abs().amax((1, 2, 3)).min() > 0.01

    @pytest.mark.parametrize(
        "labels", [[0, 1], [0, 1, 2, 0], [0, 1, 3], [0, -1, 1], [0.0, 1.0, 2.0], [True, False, True], [[0, 1, 2]]]
    )
    def test_labels_that_do_not_fit(self, G, labels):
        for call in (
            lambda: G.generate(range(3), labels=torch.tensor(labels)),
            lambda: G.forward(G.latents(range(3)), torch.tensor(labels)),
            lambda: G.read(G.latents(range(3)), ["scale"], torch.tensor(labels)),
            lambda: G.open("scale", range(3), torch.tensor(labels)),
        ):
            with pytest.raises(ValueError, match=r"labels: expected whole numbers \(N,\) in 0 … 2"):
                call()

    def test_labels_without_classes(self):
        for G in (
            gl.load_generator("scenes"),
            gl.Generator.wrap(Grey(), Z),
            gl.load_generator(DATA / "proggan_32.pth"),
        ):
            with pytest.raises(ValueError, match=f"labels were given, but {G.name} knows no classes; leave them away"):
                G.generate(range(2), labels=torch.tensor([0, 1]))

    def test_weights(self):
        """Mixtures of classes where the network takes vectors; refused where it looks classes up."""
        G = gl.Generator.wrap(OneHot(), Z, classes=4)
        mixed = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 1]])
        expected = G.net(G.latents([0, 1])[..., None, None], mixed)
        torch.testing.assert_close(G.generate([0, 1], labels=mixed), expected)
        with pytest.raises(ValueError, match=r"takes whole numbers \(N,\), no weights"):
            gl.Generator.wrap(Conditional(), Z, classes=3).generate([0, 1], labels=mixed[:, :3])

    def test_named_levels_belong_to_a_setting(self, G):
        edit = gl.ablate("scale", [0, 1, 2], to="mean")
        levels = [G.variant(label=label).level(edit) for label in range(3)]
        assert [int(level.argmax()) for level in levels] == [0, 1, 2]
        torch.testing.assert_close(G.level(edit), torch.stack(levels).mean(0), atol=0.15, rtol=0)

    def test_a_dissection_knows_its_setting(self, G, tmp_path):
        S = gl.Segmenter.wrap(lambda x: 1 + (x.mean(1) > 0).int(), ["dark", "bright"])
        D = gl.dissect(G.variant(label=2), S, "scale", n=8, progress=False)
        assert D.origin["generator"] == "rooms (label 2)"
        assert "scale of rooms (label 2)" in repr(D)
        D.save(tmp_path / "D.npz")
        loaded = gl.Dissection.load(tmp_path / "D.npz", generator=G.variant(label=2))
        assert loaded.origin == D.origin
        with pytest.raises(ValueError, match=r"made with rooms \(label 2\), not with rooms: give .*variant\(label=2\)"):
            gl.Dissection.load(tmp_path / "D.npz", generator=G)
        every = gl.dissect(G, S, "scale", n=8, progress=False)
        assert set(every.origin) == {"generator", "generator_fingerprint", "segmenter", "segmenter_fingerprint"}
        with pytest.raises(ValueError, match="different generators, or settings of one"):
            gl.UnitGallery({"scale": D, "embed": gl.dissect(G, S, "embed", n=8, progress=False)})
        every.save(tmp_path / "every.npz")
        with pytest.raises(ValueError, match=r"made with rooms, not with rooms \(label 1\): .*variant\(label=None\)"):
            gl.Dissection.load(tmp_path / "every.npz", generator=G.variant(label=1))

    def test_a_recipe_knows_its_setting(self, G):
        edit = gl.ablate("scale", [2])
        recipe = gl.Recipe.of(G.variant(label=2), 5, edit)
        assert gl.Recipe.from_json(recipe.to_json()) == recipe
        assert recipe.settings == {"label": 2}
        expected = to_uint8(G.generate(5, edit, labels=torch.tensor([2])))[0]
        for given in (G, G.variant(label=0), G.variant(label=2)):
            assert np.abs(gl.replay(recipe, given).astype(int) - expected).max() <= 1
        assert "settings" not in gl.Recipe.of(G, 5, edit).to_json()
        assert np.array_equal(
            gl.replay(gl.Recipe.of(G, 5), G.variant(label=1)), gl.replay(gl.Recipe.of(G, 5), G)
        )  # a recipe without settings means the usual ones
        for settings, message in (
            ({"label": 7}, "label 7: this generator has classes"),
            ({"truncation": 0.5}, "rooms has no truncation"),
        ):
            wrong = gl.Recipe("rooms", G.fingerprint, 5, edits=(), settings=settings)
            with pytest.raises(ValueError, match=message):
                gl.replay(wrong, G)
        for settings in ([], {"label": "2"}, {"label": [1]}, {"label": True}):
            with pytest.raises(ValueError, match="settings of the recipe"):
                gl.Recipe("rooms", G.fingerprint, 5, edits=(), settings=settings)


class TestInputs:
    def test_found_by_trying(self):
        said = {name: CASES[name].make().about for name in ("conditional", "one-hot", "grey", "skips")}
        assert "called with latents (N, 6) and labels (N,)" in said["conditional"]
        assert "called with latents (N, 6, 1, 1) and one-hot labels (N, 4)" in said["one-hot"]
        assert "called with latents (N, 6, 1, 1)" in said["grey"]
        assert "called with latents (N, 6)\n  images: output[1], (3, 12, 20)" in said["skips"]

    def test_classes_are_those_of_the_embedding(self):
        """Where a network must be given labels and has one table of classes, it says how many there are."""
        assert gl.Generator.wrap(Conditional(classes=5), Z).settings == {"label": None}
        assert gl.Generator.wrap(Conditional(classes=5), Z).classes == 5

    def test_two_latents_and_another_order(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 12), nn.Linear(2, 12)

            def forward(self, shape, style):
                return (self.a(shape) * self.b(style)).unflatten(1, (3, 2, 2)).tanh()

        G = gl.Generator.wrap(Two(), Z, inputs=lambda z, labels: z.split([4, 2], 1))
        z = G.latents(range(3))
        torch.testing.assert_close(G.forward(z), G.net(z[:, :4], z[:, 4:]))
        edit = gl.insert("a", [3], level=1.0)
        torch.testing.assert_close(G.open("a", range(3)).edited(edit), G.generate(range(3), edit))

        class Swapped(Conditional):
            def forward(self, labels, z):
                return super().forward(z, labels)

        H = gl.Generator.wrap(Swapped(), Z, classes=3, inputs=lambda z, labels: (labels, z))
        assert torch.equal(H.generate(range(4)), gl.Generator.wrap(Conditional(), Z, classes=3).generate(range(4)))

    def test_style_of_another_network(self):
        mapping = nn.Linear(5, Z)
        G = gl.Generator.wrap(Skips(), 5, inputs=lambda z, labels: mapping(z))
        z = G.latents(range(2))
        with torch.no_grad():
            torch.testing.assert_close(G.forward(z), G.net(mapping(z))[1])

    def test_what_does_not_fit(self):
        with pytest.raises(
            ValueError, match=r"Linear could not be called with latents \(N, 6\): RuntimeError .*classes="
        ):
            gl.Generator.wrap(nn.Linear(5, 5), Z)
        with pytest.raises(ValueError, match=r"one-hot labels \(N, 3\): .*; give inputs="):
            gl.Generator.wrap(Grey(), Z, classes=3)
        with pytest.raises(ValueError, match=r"function given; expected a torch\.nn\.Module"):
            gl.Generator.wrap(lambda z: z, Z)
        with pytest.raises(ValueError, match="z_dim=0: expected the length"):
            gl.Generator.wrap(Grey(), 0)
        with pytest.raises(ValueError, match=r"Grey has numbers of torch\.float64; give it in float32, as net\.float"):
            gl.Generator.wrap(Grey().double(), Z)
        with pytest.raises(ValueError, match=r"latents of shape \(2, 3\): Grey takes \(N, 6\)"):
            gl.Generator.wrap(Grey(), Z).forward(torch.zeros(2, 3))
        with pytest.raises(ValueError, match="classes=0: expected how many"):
            gl.Generator.wrap(Conditional(), Z, classes=0)


class Fixed(nn.Module):
    """Pictures with values between two numbers, whatever the latent; the last function is none of the known ones."""

    def __init__(self, low: float, high: float, channels: int = 3, end: Callable = lambda x: x):
        super().__init__()
        self.low, self.high, self.channels, self.end = low, high, channels, end

    def forward(self, z):
        level = self.low + (self.high - self.low) * torch.linspace(0, 1, 16).view(1, 1, 4, 4)
        return self.end((level + 0 * z[:, :1, None, None]).expand(-1, self.channels, -1, -1).clone())


class TestOutput:
    @pytest.mark.parametrize(
        ("net", "output", "expected"),
        [
            (Fixed(-1, 1), None, (-1, 1)),
            (Fixed(0, 1), None, (-1, 1)),
            (Fixed(0, 1), "[-1,1]", (0, 1)),
            (Fixed(0, 0.4), None, (0, 0.4)),
            (Fixed(0, 0.4), "[0,1]", (-1, -0.2)),
            (Fixed(-3, 3, end=torch.sigmoid), None, (-0.9051, 0.9051)),
            (Fixed(0.1, 0.3, end=torch.tanh), None, (0.0997, 0.2913)),
            (Fixed(0.1, 0.3, end=lambda x: x.sigmoid().view(len(x), -1).view(x.shape)), None, (0.05, 0.1489)),
            (Fixed(0.6, 2, end=lambda x: x.clamp(0, 1)), None, (0.2, 1)),
            (Fixed(-3, 3), "tanh", (-0.9951, 0.9951)),
            (Fixed(-3, 3), "sigmoid", (-0.9051, 0.9051)),
            (Fixed(0, 255), lambda x: x / 127.5 - 1, (-1, 1)),
            (Fixed(-1.2, 1.04), None, (-1, 1)),
        ],
    )
    def test_ranges(self, net, output, expected):
        x = gl.Generator.wrap(net, Z, output=output).generate(range(2))
        assert (round(x.min().item(), 4), round(x.max().item(), 4)) == pytest.approx(expected, abs=2e-4)

    @pytest.mark.parametrize(
        ("net", "output", "message"),
        [
            (Fixed(0, 255), None, r"9\d% of the values of Fixed are outside \[-1, 1\] .*0 to 255"),
            (Fixed(-9, 9), None, "output='tanh' or 'sigmoid' if an activation is still to come"),
            (Fixed(-1, 1), "[0,1]", r"50% of the values of Fixed are outside \[0, 1\]"),
        ],
    )
    def test_values_that_do_not_fit_are_told(self, net, output, message):
        with pytest.warns(UserWarning, match=message):
            gl.Generator.wrap(net, Z, output=output)

    @pytest.mark.parametrize(
        ("net", "output", "message"),
        [
            (Fixed(-1, 1, end=torch.tanh), "tanh", r"output='tanh', but the values of Fixed are in \[-1,1\] already"),
            (Fixed(-1, 1, end=torch.sigmoid), "[-1,1]", r"are in \[0,1\] by the function"),
            (Fixed(-1, 1), "softmax", "no output 'softmax' in Generator.wrap"),
            (Fixed(-1, 1, channels=5), "tanh", "Fixed has 5 channels; expected 1 or 3"),
            (Fixed(-1, 1, channels=1), "classes", "has 1 channel; expected one for each class"),
            (Fixed(-1, 1), lambda x: x[0], r"output= made \(3, 4, 4\) of what Fixed returned"),
            (
                nn.Linear(Z, 784),
                None,
                r"returned \(2, 784\); expected images .* output=lambda x: x.view\(-1, 1, 28, 28\)",
            ),
        ],
    )
    def test_what_cannot_be(self, net, output, message):
        with pytest.raises(ValueError, match=message):
            gl.Generator.wrap(net, Z, output=output)

    def test_a_flat_picture(self):
        G = gl.Generator.wrap(nn.Linear(Z, 784), Z, output=lambda x: x.view(-1, 1, 28, 28).tanh())
        assert G.generate(range(2)).shape == (2, 3, 28, 28)

    def test_maps_of_classes(self):
        G = gl.Generator.wrap(Ten(), Z, output="classes")
        x = G.generate(range(2))
        assert x.shape == (2, 3, 14, 28)
        scores = gl.Generator.wrap(Ten(), Z).generate(range(2))
        assert np.array_equal(to_uint8(x), palette(10)[scores.argmax(1).numpy()])
        assert np.array_equal(to_uint8(scores), to_uint8(x))

    def test_colours_last(self):
        class Last(nn.Module):
            def forward(self, z):
                return z[:, :3, None, None].expand(-1, -1, 4, 5).movedim(1, 3).tanh()

        G = gl.Generator.wrap(Last(), Z)
        assert "colours last" in G.about
        torch.testing.assert_close(G.generate(range(2))[:, :, 1, 2], G.latents(range(2))[:, :3].tanh())

    def test_noise_and_batch_statistics_are_told(self):
        class Noisy(nn.Module):
            def forward(self, z):
                return torch.randn(len(z), 3, 4, 4).tanh()

        with pytest.warns(UserWarning, match="images of Noisy differ from pass to pass"):
            gl.Generator.wrap(Noisy(), Z)
        norm = nn.BatchNorm2d(3, track_running_stats=False)
        net = nn.Sequential(nn.Linear(Z, 12), nn.Unflatten(1, (3, 2, 2)), norm, nn.Tanh())
        with pytest.warns(UserWarning, match="images of Sequential depend on the others in the batch"):
            gl.Generator.wrap(net, Z)


class TestResume:
    """From every layer, maps and vectors, of one image and of several: what a whole pass gives."""

    @pytest.mark.parametrize("name", ["conditional", "one-hot", "skips", "modulated", "grey", "ten channels", "reused"])
    def test_every_layer(self, name, untouched):
        case = CASES[name]
        G = case.make()
        untouched(G.net)
        for layer in [*G.layers, *G.layers.vectors]:
            edit = gl.insert(layer, [0], level=1.5)
            expected = G.generate(range(3), edit)
            opened = G.open(layer, range(3))
            torch.testing.assert_close(opened.edited(edit), expected, atol=2e-5, rtol=1e-5)
            one = G.open(layer, 1)
            torch.testing.assert_close(one.edited(edit), expected[1:2], atol=2e-5, rtol=1e-5)
            several = torch.cat([one.features, edit.apply(one.features)])
            torch.testing.assert_close(one.resume(several)[1:], expected[1:2], atol=2e-5, rtol=1e-5)
            assert not opened.whole

    def test_what_cannot_be_resumed_runs_whole_and_is_said_once(self, untouched):
        G = gl.Generator.wrap(Remembers(), Z)
        untouched(G.net)
        with pytest.warns(UserWarning, match="Remembers cannot be resumed at 'middle'") as caught:
            opened = G.open("middle", [1, 2])
        assert len(caught) == 1
        G.generate(range(5, 9))  # what the module remembers is theirs now
        edit = gl.insert("middle", [2], level=2.0, region=np.eye(4))
        expected = by_hand(Case(lambda: G, []), G, [1, 2], "middle", edit)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.testing.assert_close(G.open("middle", [1, 2]).edited(edit), expected)
            assert G.open("paint", 0).whole is False
        torch.testing.assert_close(opened.edited(edit), expected)
        r = opened.features.clone().requires_grad_()
        opened.resume(r).sum().backward()
        assert r.grad.abs().sum() > 0
        with pytest.raises(ValueError, match=r"also reads the latent; use G\.open"):
            G.resume("middle", opened.features)

    def test_functions_that_are_run_again_for_gradients(self):
        """torch.utils.checkpoint around the layer."""

        class Checkpointed(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense, self.a, self.b = nn.Linear(Z, 48), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

            def forward(self, z):
                r = checkpoint(
                    lambda r: self.b(self.a(r).relu_()) + r, self.dense(z).view(-1, 3, 4, 4), use_reentrant=False
                )
                return r.tanh()

        G = gl.Generator.wrap(Checkpointed(), Z)
        edit = gl.insert("a", [1], level=2.0)
        expected = by_hand(Case(lambda: G, []), G, range(3), "a", edit)[0]
        torch.testing.assert_close(G.open("a", range(3)).edited(edit), expected)
        torch.testing.assert_close(G.generate(range(3), edit), expected)

    @pytest.mark.parametrize("kind", [dict, SimpleNamespace, namedtuple("Outputs", ["first", "rest"])])
    def test_outputs_of_any_kind_in_front(self, kind, untouched):
        """What can be copied is remembered; other objects are made again."""

        class Front(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense = nn.Linear(Z, 48)

            def forward(self, z):
                return kind(first=self.dense(z).unflatten(1, (3, 4, 4)), rest=[z[:, :3], "text", None, 2])

        class Whole(nn.Module):
            def __init__(self):
                super().__init__()
                self.front, self.conv, self.last = Front(), nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1)

            def forward(self, z):
                out = self.front(z)
                out = out if kind is not dict else SimpleNamespace(**out)
                r = self.last(self.conv(out.first).relu_())
                return (r + out.rest[3] * out.rest[0][..., None, None]).tanh()

        G = gl.Generator.wrap(untouched(Whole()), Z)
        edit = gl.insert("conv", [1], level=2.0)
        expected = by_hand(Case(lambda: G, []), G, range(3), "conv", edit)[0]
        opened = G.open("conv", range(3))
        assert not opened.whole
        torch.testing.assert_close(opened.edited(edit), expected)
        torch.testing.assert_close(G.open("conv", 1).edited(edit), expected[1:2], atol=1e-5, rtol=0)

    def test_two_outputs_that_are_layers(self):
        """A module that yields maps and colours is a layer by its maps."""

        class Pair(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.color = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1)

            def forward(self, r):
                r = self.conv(r)
                return [r, {"image": self.color(r)}]

        class Pairs(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense, self.pair, self.last = nn.Linear(Z, 12), Pair(), nn.Conv2d(5, 3, 1)

            def forward(self, z):
                r, rest = self.pair(self.dense(z).unflatten(1, (3, 2, 2)))
                return torch.tanh(self.last(r) + rest["image"])

        G = gl.Generator.wrap(Pairs(), Z)
        assert G.layers["pair"] == (5, 2, 2)
        edit = gl.insert("pair", [1], level=2.0)
        assert (G.generate(0, edit) - G.generate(0)).abs().max() > 1e-3
        torch.testing.assert_close(G.open("pair", range(3)).edited(edit), G.generate(range(3), edit))
        torch.testing.assert_close(G.open("last", range(3)).edited([]), G.generate(range(3)))


class TestTable:
    def test_rows(self):
        rows = gl.Generator.wrap(Skips(), Z).layers.rows()
        assert rows[0] == {"layer": "dense", "type": "Linear", "units": 90, "height": 1, "width": 1}
        assert {"layer": "blocks.1", "type": "SkipBlock", "units": 4, "height": 12, "width": 20} in rows

    def test_in_a_notebook_and_in_a_line(self):
        G = gl.Generator.wrap(Skips(), Z)
        assert repr(G) == "<Generator Skips: latent 6, 11 layers, images 12x20>"
        assert "\n" not in repr(G)
        page = G._repr_html_()
        assert "<td" in page
        assert "blocks.0.conv2" in page
        assert "and 1 vectors, see G.table()" in page

    def test_as_a_table(self):
        pandas = pytest.importorskip("pandas")
        table = gl.load_generator("scenes").table()
        assert isinstance(table, pandas.DataFrame)
        assert table.loc["layer4"].tolist() == ["Layer", 192, 8, 8]


def test_ranges_are_all_explained():
    assert all(f'"{name}"' in gl.Generator.wrap.__doc__ for name in OUTPUTS)
