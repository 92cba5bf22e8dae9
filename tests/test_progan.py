"""The Progressive GAN computes what the network that wrote a checkpoint computed."""

from pathlib import Path

import numpy as np
import torch

from ganlens.models.base import Generator
from ganlens.models.progan import ProgressiveGenerator

DATA = Path(__file__).parent / "data"


def test_parity_with_a_recorded_network():
    weights = torch.load(DATA / "proggan_32.pth", weights_only=True)
    recorded = np.load(DATA / "proggan_32.npz")
    net = ProgressiveGenerator([weights[f"layer{i}.conv.weight"].shape[0] for i in range(1, 9)], z_dim=32)
    net.load_state_dict({own_name(name): tensor for name, tensor in weights.items()})
    G = Generator.wrap(net, 32)
    layers = [f"layer{i}" for i in range(1, 9)]
    images, features = G.read(torch.from_numpy(recorded["z"]), layers)
    assert all(close(features[layer], recorded[f"act_{layer}"]) for layer in layers)
    assert close(images, recorded["image"].clip(-1, 1))


def own_name(name: str) -> str:
    layer, kind, _ = name.split(".")
    layer = "output" if layer.startswith("output") else layer
    return f"{layer}.scaled." + ("conv.weight" if kind == "conv" else "bias")


def close(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    return np.abs(ours.numpy(force=True) - theirs).max() <= 1e-4 * theirs.std()


def test_published_size():
    with torch.device("meta"):
        net = ProgressiveGenerator()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 18.3
