"""Files written by the original implementations of all families, with what these drew and what their layers held.

Recorded are images of one or two latents, and of each layer 48 of its values, at places that a seed decides.
"""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.models.files.loading import known_families, likeness
from ganlens.models.files.reading import read
from ganlens.models.files.states import states

DATA = Path(__file__).parents[2] / "data" / "recorded"
FILES = {path.name: path for path in sorted(DATA.iterdir()) if path.suffix not in (".npz", ".json")}
SCRIPT = "torchscript_residual_32.pt"
LOADED = sorted(set(FILES) - {SCRIPT})
PSI = {"image_trunc05": 0.5, "image_trunc07": 0.7}
NAMES = {  # of layers, where the recording does not have those of the file
    "genforce_stylegan_32.pth": lambda name: name.replace("style_out", "style"),
    "onnx_cdcgan_32.onnx": {"main.2": "node_relu", "main.8": "node_relu_2", "main.10": "node_tanh"}.get,
    "onnx_residual_32.onnx": {
        "block2.b1": "/block2/b1/BatchNormalization", "block3": "/block3/Add", "b5": "/b5/BatchNormalization",
        "c5": "/c5/Conv",
    }.get,
}  # fmt: skip
TOLERANCE = 1e-4  # of the deviation of what is compared


def load(name: str, **options) -> gl.Generator:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no file says what ends a decoder|no batch statistics tell for sure")
        return gl.load_generator(FILES[name], **options)


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(FILES[name].with_suffix(".npz")) as found:
        return dict(found)


def given(found) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents and weights of classes."""
    labels = torch.from_numpy(found["c"]).float() if "c" in found and found["c"].shape[1] else None
    return torch.from_numpy(found["z"]).float(), labels


def assert_images(G: gl.Generator, found, key: str) -> None:
    low, high = found.get("range", (-1, 1))
    expected = (torch.from_numpy(found[key]).float() - low) / (high - low) * 2 - 1
    tolerance = TOLERANCE * float(found[f"deviation_{key}"]) * 2 / (high - low)
    images = G.forward(*given(found))
    torch.testing.assert_close(images, expected.clamp(-1, 1).expand_as(images), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", LOADED)
def test_images(name):
    G, found = load(name), recorded(name)
    assert_images(G, found, "image")
    for key, psi in PSI.items():
        if key in found:
            assert_images(G.variant(truncation=psi), found, key)
            if "biggan" in name:  # the network was given latents that are not scaled
                assert float(G.variant(truncation=psi).latents(range(50)).abs().max()) <= 2 * psi
            else:
                assert torch.equal(G.variant(truncation=psi).latents([3]), G.latents([3]))


@pytest.mark.parametrize("name", LOADED)
def test_layers(name):
    G, found = load(name), recorded(name)
    z, labels = given(found)
    renamed = NAMES.get(name, lambda layer: layer)
    layers = {key: renamed(key[4:]) for key in found if key.startswith("act_")}
    layers = {key: layer for key, layer in layers.items() if layer is not None}
    assert set(layers.values()) <= set(G.layers) | set(G.layers.vectors)
    features = G.read(z, list(layers.values()), labels)[1]
    for key, layer in layers.items():
        shape = tuple(found[f"shape_{key[4:]}"])
        assert tuple(features[layer].shape[: len(shape)]) == shape
        flat = features[layer].flatten()
        places = np.sort(np.random.RandomState(0).choice(len(flat), min(48, len(flat)), replace=False))
        tolerance = TOLERANCE * float(found[f"std_{key[4:]}"])
        torch.testing.assert_close(flat[places], torch.from_numpy(found[key]), atol=tolerance, rtol=0)
    assert layers


def test_every_family_has_a_file():
    known = known_families()
    taken = set()
    for name in LOADED:
        path = FILES[name]
        every = list(states(read(path), path.stat().st_size))
        taken.add(max(known, key=lambda family, every=every: max(likeness(family, state) for state in every)).FAMILY)
    others = {"Progressive GAN", "Progressive GAN ablation", "StyleGAN2 (NVIDIA)", "StyleGAN2 (rosinality)"}
    assert {family.FAMILY for family in known} - taken == others  # these have tests of their own


@pytest.mark.parametrize("name", LOADED)
def test_all_that_can_be_done(name):
    """Dissection, an edit, resuming, the canvas and its recipe, a report, truncation and class, of every format."""
    G = load(name)
    S = gl.Segmenter.wrap(lambda x: (x.mean(1) > x.mean((1, 2, 3))[:, None, None]).long() + 1, ["dark", "bright"])
    layer = list(G.layers)[max(0, len(G.layers) - 3)]
    D = gl.dissect(G, S, layer, n=8, progress=False)
    assert D.n == 8
    edit = gl.insert(layer, range(G.layers[layer][0]), level=3.0)
    plain, edited = G.generate(range(3)), G.generate(range(3), edit)
    assert (edited - plain).abs().max() > 1e-3
    opened = G.open(layer, range(3))
    torch.testing.assert_close(opened.edited(edit), edited, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(opened.resume(opened.features), plain, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(G.generate([2]), plain[2:], atol=1e-5, rtol=0)
    canvas = gl.InterventionCanvas(D, seed=2)
    canvas.units = tuple(range(G.layers[layer][0]))
    canvas.paint(cells=[0], mode="remove")
    assert canvas.wait()
    recipe = gl.Recipe.from_json(canvas.recipe.to_json())
    assert np.array_equal(gl.replay(recipe, load(name)), canvas.image)
    if "truncation" in G.settings:
        mean = G.variant(truncation=0.0)
        labels = None if G.classes is None else torch.tensor([0, 0])
        images = mean.generate([0, 1], labels=labels)
        torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=0)
    if G.classes:
        images = [G.variant(label=c).generate([0]) for c in range(2)]
        assert (images[0] - images[1]).abs().max() > 1e-3
        weights = torch.nn.functional.one_hot(torch.tensor([1]), G.classes).float()
        torch.testing.assert_close(G.generate([0], labels=weights), images[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bigganpt_64.pth", "stylegan3_t_32.pkl", "keras_seq_28.h5", "onnx_residual_32.onnx"])
def test_a_report(name, tmp_path):
    G = load(name)
    S = gl.Segmenter.wrap(lambda x: (x.mean(1) > 0).long() + 1, ["dark", "bright"])
    layer = list(G.layers)[-2]
    path = gl.report(gl.dissect(G, S, layer, n=8, progress=False), tmp_path / "report.html")
    assert layer in Path(path).read_text("utf-8")


def test_scripts_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"TorchScript(?s:.*)torch\.jit\.load\(path\)\.state_dict"):
        load(SCRIPT)


class TestSettingsBeside:
    def test_under_any_usual_name(self, tmp_path):
        weights, settings = FILES["biggan_deep_32.bin"], DATA / "biggan_deep_32.json"
        for number, names in enumerate(
            [("a.bin", "a.json"), ("pytorch_model.bin", "config.json"), ("x-pytorch_model.bin", "x-config.json")]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            shutil.copy(weights, folder / names[0])
            with pytest.raises(ValueError, match=r"in its config\.json alone, which is not beside it"):
                gl.load_generator(folder / names[0])
            shutil.copy(settings, folder / names[1])
            assert gl.load_generator(folder / names[0]).classes == 10

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: "{", "is no JSON"),
            (lambda s: "[" * 100_000, "is no JSON"),
            (lambda s: json.dumps(s | {"layers": [[True, 16, 16], [True, 8, 4]]}), "do not follow upon one another"),
            (lambda s: json.dumps(s | {"eps": "small"}), "eps in its settings"),
            (lambda s: json.dumps(s | {"z_dim": 17}), "has shape"),
        ],
    )
    def test_odd_ones_are_refused(self, tmp_path, change, message):
        shutil.copy(FILES["biggan_deep_32.bin"], tmp_path / "a.bin")
        settings = json.loads((DATA / "biggan_deep_32.json").read_text())
        (tmp_path / "a.json").write_text(change(settings))
        with pytest.raises(ValueError, match=message):
            gl.load_generator(tmp_path / "a.bin")


class TestWhatEndsIt:
    def test_as_asked(self):
        sigmoid, tanh = load("vae_32.pth"), load("vae_32.pth", output="tanh")
        low = sigmoid.generate([0]).double()
        torch.testing.assert_close(tanh.generate([0]).double(), (2 * torch.atanh(low)).tanh(), atol=1e-4, rtol=0)
        with (
            pytest.warns(UserWarning, match="a sigmoid is assumed"),
            pytest.warns(UserWarning, match=r"leaky ReLU 0\.01 \(or ReLU\)"),
        ):
            gl.load_generator(FILES["vae_32.pth"])

    def test_only_where_it_is_not_known(self):
        with pytest.raises(ValueError, match="what ends a network of FastGAN is known"):
            load("fastgan_256.pth", output="tanh")
        with pytest.raises(ValueError, match="did you mean 'sigmoid'"):
            load("mlp_28.pth", output="sigmoids")
