"""The Progressive GAN computes what the network that wrote a checkpoint computed."""

from pathlib import Path

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.models.families.progan import ProgressiveGenerator, from_state
from ganlens.models.files.reading import CheckpointError

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("name", ["proggan_32", "proggan_64_old"])
def test_parity_with_a_recorded_network(name, untouched):
    recorded = np.load(DATA / f"{name}.npz")
    G = gl.load_generator(DATA / f"{name}.pth")
    untouched(G.net)
    layers = [key[4:] for key in recorded if key.startswith("act_")]
    assert list(G.layers) == layers
    z = torch.from_numpy(recorded["z"])
    images, features = G.read(z, layers)
    assert all(close(features[layer], recorded[f"act_{layer}"]) for layer in layers)
    assert close(G.net(z), recorded["image"])
    assert close(images, recorded["image"].clip(-1, 1))


def close(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    return np.abs(ours.numpy(force=True) - theirs).max() <= 1e-4 * theirs.std()


@pytest.mark.parametrize("wrap", ["state_dict", "generator", "g_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped(tmp_path, wrap, prefix, zipped):
    """In a dict or not, saved from several GPUs or not, by a new or an old torch: the same generator."""
    state = torch.load(DATA / "proggan_64_old.pth", weights_only=True)
    content = {wrap: {prefix + key: tensor for key, tensor in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "some.bin", _use_new_zipfile_serialization=zipped)
    G = gl.load_generator(tmp_path / "some.bin")
    assert G.fingerprint == gl.load_generator(DATA / "proggan_64_old.pth").fingerprint


def test_half_precision(tmp_path):
    state = torch.load(DATA / "proggan_64_old.pth", weights_only=True)
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "half.pth")
    x = gl.load_generator(tmp_path / "half.pth").generate(range(2))
    torch.testing.assert_close(x, gl.load_generator(DATA / "proggan_64_old.pth").generate(range(2)), atol=1e-2, rtol=0)


def test_resume_and_edits(untouched):
    G = gl.load_generator(DATA / "proggan_64_old.pth")
    untouched(G.net)
    for layer in G.layers:
        opened, edit = G.open(layer, range(3)), gl.insert(layer, [1], level=2.0)
        torch.testing.assert_close(G.resume(layer, opened.features), opened.image, atol=1e-5, rtol=0)
        torch.testing.assert_close(opened.edited(edit), G.generate(range(3), edit), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(6, 5, 4, 3), (7, 7), (4, 4, 4), (5,)])
def test_any_sizes(sizes, tmp_path):
    torch.manual_seed(0)
    net = ProgressiveGenerator(sizes, z_dim=9)
    names = {f"layer{i + 1}": f"layer{i + 1}" for i in range(len(sizes))} | {
        list(net._modules)[-1]: list(net._modules)[-1]
    }
    state = {}
    for name in names:
        state[f"{name}.conv.weight"] = net.get_submodule(name).scaled.conv.weight
        state[f"{name}.wscale.b"] = net.get_submodule(name).scaled.bias
    G = from_state(state)
    torch.testing.assert_close(G.net(G.latents(range(3))), net(G.latents(range(3))), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer3.wscale.b": None}, r"closest to Progressive GAN, but missing: layer3\.wscale\.b"),
        ({"layer9.wscale.b": 3}, r"left over: layer9\.wscale\.b"),
        ({"layer3.wscale.b": 3}, r"layer3\.wscale\.b has shape \(3,\) where \(32,\) would fit"),
        ({"layer3.conv.weight": 3}, "a weight that is no convolution"),
        ({"output_32x32.conv.weight": None}, r"missing: output_32x32\.conv\.weight"),
    ],
)
def test_what_does_not_fit(change, message):
    state = torch.load(DATA / "proggan_32.pth", weights_only=True)
    for name, size in change.items():
        if size is None:
            del state[name]
        else:
            state[name] = torch.zeros(size)
    with pytest.raises(CheckpointError, match=message):
        from_state(state)


def test_no_truncation():
    with pytest.raises(
        ValueError, match="proggan_32 has no truncation, nor anything else to choose; leave truncation away"
    ):
        gl.load_generator(DATA / "proggan_32.pth", truncation=0.7)


def test_published_size():
    with torch.device("meta"):
        net = ProgressiveGenerator()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 18.3
