"""A plain DCGAN is rebuilt from its state dict alone."""

import re

import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.models.checkpoints import CheckpointError
from ganlens.models.dcgan import from_state

Z = 20


def trained(net: nn.Module, law: str = "normal", flat: bool = False) -> nn.Module:
    """A network whose batch statistics are those of the law; its weights are random."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the average over all batches
    draw = torch.randn if law == "normal" else lambda *shape: 2 * torch.rand(*shape) - 1
    with torch.no_grad():
        for _ in range(20):
            net(draw(32, Z) if flat else draw(32, Z, 1, 1))
    return net.eval().requires_grad_(False)


def chain(colors: int = 3, slope: float = 0.0, first: int = 4, doublings: int = 3) -> nn.Sequential:
    """The generator of pytorch.org's DCGAN tutorial, with few units."""
    torch.manual_seed(1)
    parts: list[nn.Module] = [nn.ConvTranspose2d(Z, 32, first, 1, 0, bias=False)]
    for i in range(doublings):
        parts += [nn.BatchNorm2d(32 >> i), nn.LeakyReLU(slope) if slope else nn.ReLU()]
        parts += [nn.ConvTranspose2d(32 >> i, colors if i == doublings - 1 else 16 >> i, 4, 2, 1, bias=False)]
    return nn.Sequential(*parts, nn.Tanh())


@pytest.mark.parametrize("law", ["normal", "uniform"])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_everything_is_inferred(law, slope):
    net = nn.Sequential()
    net.main = trained(chain(slope=slope), law)
    G = from_state(net.state_dict())
    z = G.sample(range(5))
    torch.testing.assert_close(G.forward(z), net.main(z[..., None, None]))
    assert G.law == law
    assert (z.abs().max() <= 1) == (law == "uniform")
    assert f"latent law {law}" in G.about
    assert "main.3: transposed convolution 4x4, stride 2, padding 1" in G.about
    assert list(G.layers) == [f"main.{i}" for i in range(11)]
    recorded = net.main[:6](z[..., None, None])
    torch.testing.assert_close(G.read(z, ["main.5"])[1]["main.5"], recorded)
    torch.testing.assert_close(G.resume("main.5", recorded), G.forward(z))


@pytest.mark.parametrize(
    ("first", "doublings", "colors", "size"), [(7, 2, 1, 28), (4, 3, 1, 32), (4, 4, 3, 64), (4, 5, 3, 128)]
)
def test_sizes(first, doublings, colors, size):
    net = trained(chain(colors, first=first, doublings=doublings))
    G = from_state(net.state_dict())
    assert G.image_shape == (3, size, size)
    x = G.generate(range(2))
    torch.testing.assert_close(x, net(G.sample(range(2))[..., None, None]).expand(-1, 3, -1, -1))


def test_kernels_of_three_to_28_pixels():
    torch.manual_seed(3)
    sizes = [(Z, 16, 4, 1, 0), (16, 8, 3, 2, 1), (8, 8, 4, 2, 1), (8, 1, 4, 2, 1)]
    parts = []
    for a, b, *rest in sizes:
        parts += [nn.ConvTranspose2d(a, b, *rest), nn.BatchNorm2d(b), nn.ReLU()]
    net = trained(nn.Sequential(*parts[:-2], nn.Tanh()))
    z = torch.randn(3, Z)
    torch.testing.assert_close(from_state(net.state_dict()).net(z), net(z[..., None, None]))


@pytest.mark.parametrize("vector_norm", [True, False])
def test_linear_map_in_front(vector_norm):
    torch.manual_seed(2)
    norm = nn.BatchNorm1d(16 * 49) if vector_norm else nn.BatchNorm2d(16)
    middle = (
        [norm, nn.ReLU(), nn.Unflatten(1, (16, 7, 7))]
        if vector_norm
        else [nn.Unflatten(1, (16, 7, 7)), norm, nn.ReLU()]
    )
    net = nn.Sequential(
        nn.Linear(Z, 16 * 49),
        *middle,
        nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 5, 2, 2, 1),
        nn.Tanh(),
    )
    net = trained(net, "uniform", flat=True)
    G = from_state(net.state_dict())
    assert G.law == "uniform"
    z = G.sample(range(3))
    torch.testing.assert_close(G.net(z), net(z))


@pytest.mark.parametrize("wrap", ["", "netG", "generator", "g_ema", "state_dict", "model_state_dict"])
def test_files_as_students_have_them(tmp_path, wrap):
    net = trained(chain())
    state = {f"module.{k}": v for k, v in net.state_dict().items() if "num_batches" not in k}
    discriminator = {"0.weight": torch.randn(8, 3, 4, 4), "2.weight": torch.randn(1, 8, 4, 4)}
    content = {"epoch": 5, "netD": discriminator, wrap: state, "losses": [0.5] * 100} if wrap else state
    torch.save(content, tmp_path / "student.pth")
    G = gl.load_generator(tmp_path / "student.pth")
    z = G.sample(range(3))
    torch.testing.assert_close(G.forward(z), net(z[..., None, None]))
    edit = gl.ablate("3", [0, 1])
    torch.testing.assert_close(G.open("3", range(3)).edited(edit), G.generate(range(3), edit))
    assert G.name == "student"


def test_both_networks_in_one_state_dict(tmp_path):
    net = trained(chain())
    state = {f"discriminator.{i}.weight": torch.randn(8, 8, 4, 4) for i in range(9)}
    torch.save(
        {"state_dict": {**state, **{f"generator.{k}": v for k, v in net.state_dict().items()}}}, tmp_path / "x.ckpt"
    )
    G = gl.load_generator(tmp_path / "x.ckpt")
    z = G.sample(0)
    torch.testing.assert_close(G.forward(z), net(z[..., None, None]))


def test_without_batch_statistics():
    net = nn.Sequential(nn.ConvTranspose2d(Z, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    G = from_state(net.state_dict())
    assert G.law == "normal"
    assert "assumed, as there are no batch statistics" in G.about


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"3.weight": torch.zeros(7, 16, 4, 4)}, r"3.weight has shape (7, 16, 4, 4) and follows upon 32 units"),
        ({"9.weight": torch.zeros(8, 5, 4, 4)}, "its last layer yields 5 channels; 1 or 3 were expected"),
        ({"4.weight": torch.zeros(3)}, "4.weight has shape (3,) where (16,) would fit"),
        ({"7.gamma": torch.zeros(3)}, "left over: 7.gamma"),
        ({"11.weight": torch.zeros(3)}, "left over: 11.weight"),
    ],
)
def test_what_does_not_fit(change, message):
    state = chain().state_dict()
    if "9.weight" in change:
        del state["9.weight"]
    with pytest.raises(CheckpointError, match=re.escape(message)):
        from_state({**state, **change})


def test_laws_are_those_of_numpy():
    import numpy as np

    G = gl.Generator(chain_of_vectors(), Z, law="uniform")
    np.testing.assert_array_equal(G.sample(3)[0].numpy(), np.float32(np.random.RandomState(3).uniform(-1, 1, Z)))
    assert G.fingerprint != gl.Generator(chain_of_vectors(), Z).fingerprint
    with pytest.raises(ValueError, match="no law of latents 'unifrom' in ganlens; did you mean 'uniform'"):
        gl.Generator(chain_of_vectors(), Z, law="unifrom")


def chain_of_vectors() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (Z, 1, 1)), nn.Flatten(), nn.Unflatten(1, (5, 2, 2)), nn.AdaptiveMaxPool3d((3, 2, 2))
    )
