"""StyleGAN2 computes what the networks that wrote the checkpoints computed."""

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.models.families.stylegan2 import Layer
from ganlens.models.families.stylegan2_nvidia import from_nvidia
from ganlens.models.families.stylegan2_rosinality import from_rosinality
from ganlens.models.files.reading import CheckpointError, read, state_of
from ganlens.models.latents import grown

DATA = Path(__file__).parents[2] / "data"
ROSINALITY, NVIDIA = DATA / "stylegan2_rosinality_32.pt", DATA / "stylegan2ada_32.pkl"


def recorded(path: Path) -> tuple[dict, torch.Tensor, list[str]]:
    """What a network gave, its latents, and the names of its layers in their order."""
    arrays = dict(np.load(path.with_suffix(".npz")))
    return arrays, torch.from_numpy(arrays["z"]), [key[4:] for key in arrays if key.startswith("act_")]


def error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.numpy(force=True) - theirs).max() / theirs.std())


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    tree = read(path)
    items = tree["g_ema"] if "g_ema" in tree else state_of(tree["G_ema"])
    return {name: item.load() for name, item in items.items()}


class TestRosinality:
    def test_parity(self, untouched):
        arrays, z, layers = recorded(ROSINALITY)
        G = gl.load_generator(ROSINALITY)
        untouched(G.net)
        images, features = G.read(z, layers)
        assert max(error(features[layer], arrays[f"act_{layer}"]) for layer in layers) < 1e-4
        assert error(G.net(z), arrays["image"]) < 1e-4
        assert error(images, arrays["image"].clip(-1, 1)) < 1e-4
        assert [layer for layer in G.layers if layer in layers] == layers

    def test_truncation(self):
        arrays, z, _ = recorded(ROSINALITY)
        G = gl.load_generator(ROSINALITY, truncation=0.7)
        assert error(G.net(*G._arguments(z)), arrays["image_trunc07"]) < 1e-4
        assert error(G.forward(z), arrays["image_trunc07"].clip(-1, 1)) < 1e-4
        assert G.settings == {"truncation": 0.7}
        assert G.variant(truncation=1).fingerprint == gl.load_generator(ROSINALITY).fingerprint
        assert error(G.variant(truncation=1.0).forward(z), arrays["image"].clip(-1, 1)) < 1e-4
        mean = gl.load_generator(ROSINALITY, truncation=0).generate(range(2))
        torch.testing.assert_close(mean[0], mean[1])

    def test_without_noise_kernels_and_mean(self):
        """Some converters leave these away: noise is then fixed by numpy, and the mean is measured."""
        state = {k: v for k, v in state_dict(ROSINALITY).items() if "noises" not in k and "kernel" not in k}
        one, other = (from_rosinality(state).variant(truncation=0.5) for _ in range(2))
        assert torch.equal(one.generate(range(2)), other.generate(range(2)))
        assert one.net.conv1.noise.std() > 0
        w = one.net.mapping(one.latents(range(500))).mean(0)
        assert (w - one.net.mean).square().mean() < 0.1 * w.square().mean() + 0.01

    def test_what_does_not_fit(self):
        state = state_dict(ROSINALITY)
        with pytest.raises(CheckpointError, match=r"missing: convs\.3\.conv\.weight"):
            from_rosinality({k: v for k, v in state.items() if k != "convs.3.conv.weight"})
        with pytest.raises(CheckpointError, match="left over: extra"):
            from_rosinality({**state, "extra": torch.zeros(3)})
        with pytest.raises(CheckpointError, match=r"convs\.1\.activate\.bias has shape \(3,\) where \(24,\) would fit"):
            from_rosinality({**state, "convs.1.activate.bias": torch.zeros(3)})


class TestNvidia:
    def test_parity(self):
        """The fixture was recorded with fresh noise for every image, against its description.

        What it was is found layer by layer: one map per image, the same for all units. Divided by the strength it is
        standard normal, and it is not the stored map. With these maps in place of the stored ones, every layer and
        the image are what was recorded.
        """
        arrays, z, layers = recorded(NVIDIA)
        G, state, found = gl.load_generator(NVIDIA), state_dict(NVIDIA), []
        for layer in layers:
            module = G.net.get_submodule(layer)
            assert isinstance(module, Layer)
            theirs = torch.from_numpy(arrays[f"act_{layer}"])
            difference = before(theirs) - before(G.read(z, [layer])[1][layer])
            assert difference.std(1).max() < 1e-5
            module.noise = module.noise + grown(difference.mean(1, keepdim=True))
            maps, stored = module.noise[:3] / state[f"{layer}.noise_strength"], state[f"{layer}.noise_const"]
            found.append(torch.cat([maps.flatten(1), stored.flatten()[None]]))
        found = torch.cat(found, 1)  # (4, P): of three images, and stored
        assert found.mean(1).abs().max() < 0.1
        assert (found.std(1) - 1).abs().max() < 0.1
        assert (torch.corrcoef(found) - torch.eye(4)).abs().max() < 0.1
        _, features = G.read(z, layers)
        assert max(error(features[layer], arrays[f"act_{layer}"]) for layer in layers) < 1e-4
        assert error(G.net(grown(z))[:3], arrays["image"]) < 1e-4

    def test_noise_is_the_stored_one(self):
        state = state_dict(NVIDIA)
        G = gl.load_generator(NVIDIA)
        key = "synthesis.b16.conv0"
        expected = state[f"{key}.noise_const"] * state[f"{key}.noise_strength"]
        assert torch.equal(G.net.get_submodule(key).noise, expected)
        assert torch.equal(G.generate(range(2)), gl.load_generator(NVIDIA).generate(range(2)))

    def test_truncation(self):
        G, half = gl.load_generator(NVIDIA), gl.load_generator(NVIDIA, truncation=0.5)
        w_avg = state_dict(NVIDIA)["mapping.w_avg"]
        w = G.net.mapping(G.latents(range(3)))
        style = half.read(half.latents(range(3)), ["synthesis.b8.conv0.style"])[1]["synthesis.b8.conv0.style"]
        expected = G.net.synthesis.b8.conv0.style((w + w_avg) / 2)
        torch.testing.assert_close(style, expected)

    def test_without_its_settings(self):
        """A state dict alone gives the same network, as long as its settings are the usual ones."""
        plain = from_nvidia(state_dict(NVIDIA))
        assert torch.equal(plain.generate(range(2)), gl.load_generator(NVIDIA).generate(range(2)))

    def test_conditional(self, tmp_path, monkeypatch):
        path, state = conditional_file(tmp_path, monkeypatch, clamp=0.5)
        G = gl.load_generator(path)
        z, c = G.latents(range(3)), torch.tensor([2, 0, 1])
        x = torch.cat([unit(z), unit(state["mapping.embed.weight"][:, c].T / 3**0.5 + state["mapping.embed.bias"])], 1)
        for i in range(4):
            weight, bias = state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"]
            x = x @ weight.T * 0.01 / weight.shape[1] ** 0.5 + 0.01 * bias
            x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
        torch.testing.assert_close(G.net.mapping(z, c), x, atol=1e-5, rtol=1e-4)
        of_classes = G.generate(range(3), labels=c)
        torch.testing.assert_close(G.generate(range(3), labels=torch.eye(3)[c]), of_classes)
        assert G.settings == {"truncation": 1.0, "label": None}
        assert G.classes == 3
        torch.testing.assert_close(G.generate(range(3), labels=G.labels(z)), G.generate(range(3)))
        assert sorted(set(G.labels(G.latents(range(50))).tolist())) == [0, 1, 2]
        assert (of_classes - G.generate(range(3), labels=(c + 1) % 3)).abs().amax((1, 2, 3)).min() > 1e-3
        first = gl.load_generator(path, label=2).generate(range(3))
        torch.testing.assert_close(first, G.generate(range(3), labels=torch.tensor([2, 2, 2])), atol=1e-5, rtol=0)
        features = G.read(z, ["synthesis.b8.conv0"], labels=c)[1]["synthesis.b8.conv0"]
        assert features.abs().max() == 0.5
        for labels in (torch.tensor([3, 0, 0]), torch.tensor([0.5, 1, 1])):
            with pytest.raises(ValueError, match=r"labels: expected whole numbers \(N,\) in 0 … 2"):
                G.generate(range(3), labels=labels)
        with pytest.raises(ValueError, match="label 3: this generator has classes 0 … 2"):
            gl.load_generator(path, label=3)

    def test_other_kinds_are_refused(self):
        tree = read(NVIDIA)["G_ema"]
        tree.state["_modules"]["synthesis"].state["_modules"]["b8"].state["architecture"] = "resnet"
        with pytest.raises(CheckpointError, match=r"synthesis\.b8 has the architecture 'resnet'"):
            from_nvidia(state_dict(NVIDIA), tree)


def before(r: torch.Tensor) -> torch.Tensor:
    """What entered the activation."""
    return torch.where(r > 0, r, 5 * r) / 2**0.5


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def conditional_file(folder: Path, monkeypatch, clamp: float) -> tuple[Path, dict[str, torch.Tensor]]:
    """A conditional network of three classes, pickled as NVIDIA's code pickles its modules."""
    module = ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = reconstruct
    monkeypatch.setattr(reconstruct, "__module__", "torch_utils.persistence")
    monkeypatch.setattr(reconstruct, "__qualname__", "_reconstruct_persistent_obj")
    monkeypatch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    torch.manual_seed(0)
    state = state_dict(NVIDIA)
    state["mapping.embed.weight"], state["mapping.embed.bias"] = torch.randn(32, 3), torch.randn(32)
    state["mapping.fc0.weight"] = torch.randn(32, 64) * 100
    root = Persistent()
    for key, tensor in state.items():
        *folders, last = key.split(".")
        inner = root
        for name in folders:
            inner = inner.state["_modules"].setdefault(name, Persistent())
        inner.state["_parameters"][last] = torch.nn.Parameter(tensor)
    root.state["_modules"]["synthesis"].state["_modules"]["b8"].state["_modules"]["conv0"].state["conv_clamp"] = clamp
    path = folder / "conditional.pkl"
    path.write_bytes(pickle.dumps({"G": None, "D": None, "G_ema": root, "training_set_kwargs": {"use_labels": True}}))
    return path, state


def reconstruct(meta):
    raise SystemError("a persistent object was rebuilt")


class Persistent:
    def __init__(self):
        self.state = {"_parameters": {}, "_buffers": {}, "_modules": {}}

    def __reduce__(self):
        source = "raise SystemError('source embedded in a pickle was executed')"
        return reconstruct, ({"type": "class", "module_src": source, "class_name": "Any", "state": self.state},)


@pytest.mark.parametrize("path", [ROSINALITY, NVIDIA], ids=lambda path: path.stem)
class TestLayers:
    def test_names_and_shapes(self, path):
        G = gl.load_generator(path)
        assert G.image_shape == (3, 32, 32)
        assert G.z_dim == 32
        first = "conv1" if path is ROSINALITY else "synthesis.b4.conv1"
        assert next(iter(G.layers)) == first
        assert G.layers[first] == (24, 4, 4)
        assert len(G.layers) == 7 + 4
        assert [name for name in G.layers.vectors if name.startswith(first)] == [f"{first}.style"]
        assert G.layers[f"{first}.style"] == (24, 1, 1)
        assert G.earliest([first, f"{first}.style", "mapping.layers.0"]) == "mapping.layers.0"
        assert len(G.table()) == 2 * (7 + 4) + len(G.net.mapping.layers)

    def test_edits_from_every_opened_layer(self, path, untouched):
        """Maps and styles alike; ``open`` remembers the styles and the colours painted so far."""
        G = gl.load_generator(path)
        untouched(G.net)
        plain = G.generate(range(3))
        for layer in [*list(G.layers)[::3], *list(G.layers)[-2:], *list(G.layers.vectors)[::3]]:
            edit = gl.insert(layer, [1], level=2.5)
            expected = G.generate(range(3), edit)
            assert (expected - plain).abs().max() > 1e-4
            opened = G.open(layer, range(3))
            torch.testing.assert_close(opened.edited(edit), expected, atol=2e-5, rtol=0)
            torch.testing.assert_close(opened.resume(edit.apply(opened.features)), expected, atol=2e-5, rtol=0)

    def test_layers_are_not_closed(self, path):
        G = gl.load_generator(path)
        layer = list(G.layers)[5]
        with pytest.raises(ValueError, match=r"also reads the latent; use G\.open"):
            G.resume(layer, G.open(layer, 0).features)

    def test_alone_and_in_a_batch(self, path):
        G = gl.load_generator(path)
        torch.testing.assert_close(G.generate(range(5), batch_size=2), G.generate(range(5)), atol=1e-5, rtol=0)

    def test_gradients(self, path):
        G = gl.load_generator(path)
        z = G.latents([0, 1]).requires_grad_()
        G.forward(z)[0].mean().backward()
        assert z.grad[0].abs().sum() > 0
        assert (z.grad[1] == 0).all()

    def test_no_classes(self, path):
        with pytest.raises(ValueError, match="leave label away"):
            gl.load_generator(path, label=1)
        with pytest.raises(ValueError, match="knows no classes"):
            gl.load_generator(path).generate(0, labels=torch.tensor([1]))
        with pytest.raises(ValueError, match=r"truncation 1\.5 is outside"):
            gl.load_generator(path, truncation=1.5)


@pytest.mark.parametrize("layer", ["convs.1", "convs.1.style"])
def test_dissection(layer):
    """Maps and style channels can both be dissected."""
    S = gl.load_segmenter("scenes")
    D = gl.dissect(gl.load_generator(ROSINALITY), S, layer, n=8, progress=False)
    assert len(D.labels) == 24
