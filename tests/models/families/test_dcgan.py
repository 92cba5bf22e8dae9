"""A plain DCGAN is rebuilt from its state dict alone."""

import re
from itertools import pairwise

import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.models.families.dcgan import from_state
from ganlens.models.files.reading import CheckpointError

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
    z = G.latents(range(5))
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
    torch.testing.assert_close(x, net(G.latents(range(2))[..., None, None]).expand(-1, 3, -1, -1))


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
    z = G.latents(range(3))
    torch.testing.assert_close(G.net(z), net(z))


@pytest.mark.parametrize("wrap", ["", "netG", "generator", "g_ema", "state_dict", "model_state_dict"])
def test_files_as_students_have_them(tmp_path, wrap):
    net = trained(chain())
    state = {f"module.{k}": v for k, v in net.state_dict().items() if "num_batches" not in k}
    discriminator = {"0.weight": torch.randn(8, 3, 4, 4), "2.weight": torch.randn(1, 8, 4, 4)}
    content = {"epoch": 5, "netD": discriminator, wrap: state, "losses": [0.5] * 100} if wrap else state
    torch.save(content, tmp_path / "student.pth")
    G = gl.load_generator(tmp_path / "student.pth")
    z = G.latents(range(3))
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
    z = G.latents(0)
    torch.testing.assert_close(G.forward(z), net(z[..., None, None]))


def test_without_batch_statistics():
    net = nn.Sequential(nn.ConvTranspose2d(Z, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    with pytest.warns(
        UserWarning, match=r"no batch statistics tell for sure, .* assumed: hidden ReLU \(or leaky ReLU 0.2\)"
    ):
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


# ---- as tutorials write them


class InfoGAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.tconv1, self.bn1 = nn.ConvTranspose2d(Z, 24, 1, 1, bias=False), nn.BatchNorm2d(24)
        self.tconv2, self.bn2 = nn.ConvTranspose2d(24, 12, 7, 1, bias=False), nn.BatchNorm2d(12)
        self.tconv3, self.bn3 = nn.ConvTranspose2d(12, 8, 4, 2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.tconv4 = nn.ConvTranspose2d(8, 1, 4, 2, padding=1, bias=False)

    def forward(self, z):
        for i in (1, 2, 3):
            z = getattr(self, f"bn{i}")(getattr(self, f"tconv{i}")(z)).relu()
        return self.tconv4(z).tanh()


def up(inputs: int, outputs: int, side: int = 4, stride: int = 2, padding: int = 1, extra: int = 0, **options):
    return nn.ConvTranspose2d(inputs, outputs, side, stride, padding, extra, **options)


def named(name: str, net: nn.Module) -> nn.Module:
    holder = nn.Sequential()
    holder.add_module(name, net)
    return holder


def blocks(*units: int) -> nn.Sequential:
    """Blocks of their own: names such as 0.0.weight."""
    inside = [
        nn.Sequential(up(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for i, (a, b) in enumerate(pairwise(units[:-1]))
    ]
    return nn.Sequential(*inside, up(*units[-2:]), nn.Tanh())


def spectral(norm) -> nn.Sequential:
    net = chain(doublings=3)
    net = nn.Sequential(*(norm(m) if isinstance(m, nn.ConvTranspose2d) else m for m in net))
    trained(net)  # so that its singular vectors are found before statistics are taken
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return net


def mnist() -> nn.Sequential:
    front = [nn.Linear(Z, 16 * 49), nn.BatchNorm1d(16 * 49), nn.LeakyReLU(0.2), nn.Unflatten(1, (16, 7, 7))]
    return nn.Sequential(*front, up(16, 8), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), up(8, 1), nn.Tanh())


def upsampling(s: int = 8, eps: float = 0.8, mode: str = "nearest", slope: float = 0.2, bare: bool = True):
    """The generator of the PyTorch-GAN collection."""
    act = nn.LeakyReLU(slope) if slope else nn.ReLU()
    front = [nn.Linear(Z, 24 * s * s), nn.Unflatten(1, (24, s, s)), nn.BatchNorm2d(24), *([] if bare else [act])]
    grow = nn.Upsample(scale_factor=2, mode=mode)
    middle = [grow, nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24, eps), act]
    middle += [grow, nn.Conv2d(24, 12, 3, padding=1), nn.BatchNorm2d(12, eps), act]
    return nn.Sequential(*front, *middle, nn.Conv2d(12, 3, 3, padding=1), nn.Tanh())


TUTORIALS = {
    "main": lambda: named("main", chain(doublings=4)),
    "blocks, gen": lambda: named("gen", blocks(Z, 32, 16, 12, 8, 3)),
    "blocks, net, 128": lambda: named("net", blocks(Z, 16, 12, 10, 8, 6, 3)),
    "decoder": lambda: named("decoder", chain()),
    "96 from 6": lambda: named("main", chain(first=6, doublings=4)),
    "infoGAN": InfoGAN,
    "MNIST, linear": mnist,
    "spectral norm": lambda: spectral(nn.utils.spectral_norm),
    "spectral norm, new style": lambda: spectral(nn.utils.parametrizations.spectral_norm),
}


def loaded_like(net: nn.Module, flat: bool, path) -> gl.Generator:
    torch.save(net.state_dict(), path)
    G = gl.load_generator(path)
    z = G.latents(range(3))
    expected = net(z if flat else z[..., None, None])
    assert G.net(z).shape == expected.shape, G.about
    assert (G.net(z) - expected).abs().max() <= 1e-4 * expected.std(), G.about
    return G


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated")
@pytest.mark.parametrize("name", TUTORIALS)
def test_generators_of_tutorials(name, tmp_path):
    torch.manual_seed(4)
    net, flat = TUTORIALS[name](), "linear" in name
    loaded_like(trained(net, flat=flat), flat, tmp_path / "G.pth")


@pytest.mark.parametrize(
    "options",
    [{}, {"s": 7}, {"eps": 1e-5}, {"mode": "bilinear"}, {"bare": False, "slope": 0.0, "eps": 1e-5}, {"s": 16}],
    ids=str,
)
def test_doublings_come_from_batch_statistics(options, tmp_path):
    torch.manual_seed(5)
    net = trained(upsampling(**options), flat=True)
    if options == {"s": 7}:  # twice 28 is no usual size
        G = loaded_like(net, True, tmp_path / "G.pth")
    else:
        with pytest.warns(
            UserWarning, match=r"it is assumed: images of (32 x 32 pixels \(or 64|64 x 64 pixels \(or 128)"
        ):
            G = loaded_like(net, True, tmp_path / "G.pth")
    assert G.about.count(f"{options.get('mode', 'nearest')} doubling in front") == 2


@pytest.mark.parametrize("why", ["never trained", "half the size", "other activations"])
def test_doublings_that_nothing_tells_are_refused(why, tmp_path):
    torch.manual_seed(6)
    net = upsampling(4 if why == "half the size" else 8)  # 16 pixels may well be 32
    if why == "other activations":
        net = nn.Sequential(*(nn.Softsign() if isinstance(m, nn.LeakyReLU) else m for m in net))
    if why != "never trained":
        net = trained(net, flat=True)
    torch.save(net.state_dict(), tmp_path / "G.pth")
    with pytest.raises(
        CheckpointError, match=r"where its maps grow is not in the file(.|\n)*Generator\.wrap\(net, z_dim=20\)"
    ):
        gl.load_generator(tmp_path / "G.pth")


def test_activations_in_front_of_the_norms(tmp_path):
    torch.manual_seed(8)
    net = chain(doublings=4)
    order = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 13]
    G = loaded_like(trained(nn.Sequential(*(net[i] for i in order))), False, tmp_path / "G.pth")
    assert "ReLU in front of the norms" in G.about


def test_norms_behind_all_convolutions_are_refused():
    state = InfoGAN().state_dict()
    late = {key: value for key, value in state.items() if key.startswith("bn")}
    with pytest.raises(CheckpointError, match="bn1 has 24 units and follows upon 1"):
        from_state({key: value for key, value in state.items() if key not in late} | late)


def test_what_a_wrapped_generator_is_called_with_is_in_its_fingerprint():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(Z, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh(), nn.AvgPool2d(1))
    wrap = lambda **options: gl.Generator.wrap(net, Z, **options).fingerprint  # noqa: E731
    plain = gl.Generator(net, Z).fingerprint
    assert wrap() == wrap(output="[-1,1]") == plain
    half, also_half = wrap(output=lambda x: x / 2), wrap(output=lambda y: y / 2)
    assert half == also_half
    others = [wrap(output=lambda x: x / 3), wrap(inputs=lambda z, labels: 2 * z), wrap(output="tanh")]
    assert len({plain, half, *others}) == 5


def test_the_embedded_generator_keeps_its_fingerprint():
    """Recipes name it."""
    assert gl.load_generator("scenes").fingerprint == "e78550e6e8da9b96"


def test_laws_are_those_of_numpy():
    import numpy as np

    G = gl.Generator(chain_of_vectors(), Z, law="uniform")
    np.testing.assert_array_equal(G.latents(3)[0].numpy(), np.float32(np.random.RandomState(3).uniform(-1, 1, Z)))
    assert G.fingerprint != gl.Generator(chain_of_vectors(), Z).fingerprint
    with pytest.raises(ValueError, match="no law of latents 'unifrom' in ganlens; did you mean 'uniform'"):
        gl.Generator(chain_of_vectors(), Z, law="unifrom")


def chain_of_vectors() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (Z, 1, 1)), nn.Flatten(), nn.Unflatten(1, (5, 2, 2)), nn.AdaptiveMaxPool3d((3, 2, 2))
    )
