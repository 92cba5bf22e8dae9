"""Checkpoints of other sizes and configurations than the recorded ones, against networks written here by formula."""

from pathlib import Path

import pytest
import torch
from test_dcgan import trained
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.models.families.stylegan2_nvidia import from_nvidia

FILTER = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


# ---- StyleGAN2 by its formulas: one convolution per image with weights of its own, zeros between cells to double


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def lrelu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def with_zeros(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Maps (N, U, 2H, 2W) with zeros between the cells, padded, smoothed."""
    n, u, h, w = x.shape
    big = x.new_zeros(n, u, 2 * h, 2 * w)
    big[:, :, ::2, ::2] = x
    big = F.pad(big, (before, after, before, after))
    return F.conv2d(big.flatten(0, 1)[:, None], 4 * FILTER[None, None]).unflatten(0, (n, u))[:, :, 0]


def modulated(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, up: bool, demodulate: bool = True):
    images = []
    for image, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            images.append(F.conv2d(with_zeros(image[None], 3, 2), w.flip(2, 3)))
        else:
            images.append(F.conv2d(image[None], w, padding=weight.shape[-1] // 2))
    return torch.cat(images)


def affine(state, key: str, w: torch.Tensor) -> torch.Tensor:
    weight = state[f"{key}.weight"]
    return w @ weight.T / weight.shape[1] ** 0.5 + state[f"{key}.bias"]


def nvidia(state, z, c=None, psi: float = 1.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image and layers of a StyleGAN2-ADA."""
    x = unit(z)
    if c is not None:
        x = torch.cat([x, unit(affine(state, "mapping.embed", c))], 1)
    for i in range(sum(key.startswith("mapping.fc") for key in state) // 2):
        weight, bias = state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"]
        x = lrelu(x @ weight.T * 0.01 / weight.shape[1] ** 0.5 + 0.01 * bias)
    w = x if psi == 1 else state["mapping.w_avg"] + psi * (x - state["mapping.w_avg"])
    sizes = sorted({int(key.split(".")[1][1:]) for key in state if key.startswith("synthesis")})
    r = state["synthesis.b4.const"].expand(len(z), -1, -1, -1)
    image, found = None, {}
    for size in sizes:
        block = f"synthesis.b{size}"
        skip = f"{block}.skip.weight" in state
        before = r
        for part in ("conv0", "conv1")[size == 4 :]:
            key = f"{block}.{part}"
            r = modulated(r, state[f"{key}.weight"], affine(state, f"{key}.affine", w), part == "conv0")
            if f"{key}.noise_const" in state:
                r = r + state[f"{key}.noise_const"] * state[f"{key}.noise_strength"]
            r = lrelu(r + state[f"{key}.bias"][:, None, None])
            r = r * 0.5**0.5 if skip and part == "conv1" else r
            found[key] = r
        if skip:
            weight = state[f"{block}.skip.weight"]
            r = r + with_zeros(F.conv2d(before, weight / weight.shape[1] ** 0.5), 2, 1) * 0.5**0.5
        image = None if image is None else with_zeros(image, 2, 1)
        key = f"{block}.torgb"
        if f"{key}.weight" in state:
            style = affine(state, f"{key}.affine", w) / state[f"{key}.weight"].shape[1] ** 0.5
            y = modulated(r, state[f"{key}.weight"], style, False, demodulate=False)
            y = y + state[f"{key}.bias"][:, None, None]
            image = y if image is None else image + y
    return image, found


def random_state(
    channels=(9, 8, 6), z_dim=7, w_dim=11, depth=3, colors=3, classes=0, kind="skip", noise=True
) -> dict[str, torch.Tensor]:
    """A state dict of StyleGAN2-ADA with the real names."""
    torch.manual_seed(5)
    state = {"mapping.w_avg": 0.1 * torch.randn(w_dim)}
    width = z_dim
    if classes:
        state |= {"mapping.embed.weight": torch.randn(w_dim, classes), "mapping.embed.bias": torch.randn(w_dim)}
        width += w_dim
    for i in range(depth):
        state |= {f"mapping.fc{i}.weight": 100 * torch.randn(w_dim, width), f"mapping.fc{i}.bias": torch.randn(w_dim)}
        width = w_dim
    state["synthesis.b4.const"] = torch.randn(channels[0], 4, 4)
    inputs = channels[0]
    for i, units in enumerate(channels):
        size = 4 << i
        state[f"synthesis.b{size}.resample_filter"] = FILTER
        layers = ["conv0", "conv1", "torgb"][i == 0 :]
        if kind != "skip" and i < len(channels) - 1:
            layers.remove("torgb")
        if kind == "resnet" and i:
            state[f"synthesis.b{size}.skip.weight"] = torch.randn(units, inputs, 1, 1)
            state[f"synthesis.b{size}.skip.resample_filter"] = FILTER
        for part in layers:
            key, side = f"synthesis.b{size}.{part}", 1 if part == "torgb" else 3
            outs = colors if part == "torgb" else units
            state[f"{key}.weight"], state[f"{key}.bias"] = torch.randn(outs, inputs, side, side), torch.randn(outs)
            state[f"{key}.affine.weight"] = torch.randn(inputs, w_dim)
            state[f"{key}.affine.bias"] = torch.ones(inputs)
            if part != "torgb":
                state[f"{key}.resample_filter"] = FILTER
                if noise:
                    state[f"{key}.noise_const"] = torch.randn(size, size)
                    state[f"{key}.noise_strength"] = torch.tensor(0.3)
                inputs = units
    return state


CONFIGURATIONS = {
    "16 px": {},
    "8 px": {"channels": (5, 4)},
    "64 px": {"channels": (6, 6, 5, 4, 3)},
    "deep mapping": {"depth": 8},
    "one dense layer": {"depth": 1},
    "classes": {"classes": 4},
    "grey": {"colors": 1},
    "four channels": {"colors": 4},
    "no noise": {"noise": False},
    "resnet": {"kind": "resnet"},
    "orig": {"kind": "orig"},
    "resnet with classes": {"kind": "resnet", "classes": 2, "channels": (4, 4, 4, 3)},
}


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.std())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_nvidia(name):
    options = CONFIGURATIONS[name]
    state, classes = random_state(**options), options.get("classes", 0)
    G = from_nvidia(state)
    z = G.latents(range(3))
    c = F.one_hot(torch.tensor([1, 0, 1]), classes).float() if classes else None
    for psi in (1.0, 0.6):
        image, layers = nvidia(state, z, c, psi)
        _, features = G.variant(truncation=psi).read(z, list(layers), labels=c)
        assert all(agree(features[layer], layers[layer]) for layer in layers)
        arguments = G.variant(truncation=psi)._arguments(z, c)
        assert agree(G.net(*arguments), image)
    side = 4 << (len(options.get("channels", (0, 0, 0))) - 1)
    assert G.image_shape == (4 if name == "four channels" else 3, side, side)
    assert G.classes == (classes or None)
    for layer in (*list(G.layers)[1::3], *list(G.layers.vectors)[1::4]):
        edit = gl.insert(layer, [0], level=2.0)
        torch.testing.assert_close(
            G.open(layer, range(2)).edited(edit), G.generate(range(2), edit), atol=1e-4, rtol=1e-4
        )


def test_labels_of_no_classes():
    """Weights (N, 0), as the networks themselves are called with."""
    G = from_nvidia(random_state())
    torch.testing.assert_close(G.generate(range(2), labels=torch.zeros(2, 0)), G.generate(range(2)))


def as_rosinality(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same network under the names of rosinality's code."""
    found = {"input.input": state["synthesis.b4.const"][None]}
    for i in range(sum(key.startswith("mapping.fc") for key in state) // 2):
        found |= {f"style.{i + 1}.{p}": state[f"mapping.fc{i}.{p}"] for p in ("weight", "bias")}
    sizes = sorted({int(key.split(".")[1][1:]) for key in state if key.startswith("synthesis")})
    keys = [(f"synthesis.b{size}.{part}", size) for size in sizes for part in ("conv0", "conv1")[size == 4 :]]
    for i, (key, _) in enumerate(keys):
        own = "conv1" if i == 0 else f"convs.{i - 1}"
        found[f"{own}.conv.weight"] = state[f"{key}.weight"][None]
        found |= {f"{own}.conv.modulation.{p}": state[f"{key}.affine.{p}"] for p in ("weight", "bias")}
        found[f"{own}.activate.bias"] = state[f"{key}.bias"]
        found[f"{own}.noise.weight"] = state[f"{key}.noise_strength"][None]
        found[f"noises.noise_{i}"] = state[f"{key}.noise_const"][None, None]
        if key.endswith("conv0"):
            found[f"{own}.conv.blur.kernel"] = 4 * FILTER
    for i, size in enumerate(sizes):
        key, own = f"synthesis.b{size}.torgb", "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        found[f"{own}.conv.weight"], found[f"{own}.bias"] = (
            state[f"{key}.weight"][None],
            state[f"{key}.bias"].view(1, -1, 1, 1),
        )
        found |= {f"{own}.conv.modulation.{p}": state[f"{key}.affine.{p}"] for p in ("weight", "bias")}
        if i:
            found[f"{own}.upsample.kernel"] = 4 * FILTER
    return found


@pytest.mark.parametrize("name", ["16 px", "8 px", "64 px", "deep mapping", "one dense layer", "grey"])
@pytest.mark.parametrize("average", ["flat", "row", "none"])
def test_rosinality(name, average, tmp_path: Path):
    state = random_state(**{"z_dim": 11} | CONFIGURATIONS[name])
    mean = {"flat": state["mapping.w_avg"], "row": state["mapping.w_avg"][None]}.get(average)
    content = {"g_ema": as_rosinality(state)} | ({} if mean is None else {"latent_avg": mean})
    torch.save(content, tmp_path / "net.pt")
    G = gl.load_generator(tmp_path / "net.pt")
    z = G.latents(range(3))
    image, layers = nvidia(state, z)
    assert agree(G.net(z), image)
    assert agree(G.read(z, ["convs.1"])[1]["convs.1"], layers["synthesis.b8.conv1"])
    if mean is not None:
        assert agree(G.net(z, None, 0.6), nvidia(state, z, psi=0.6)[0])
    else:
        assert (G.net.mean - G.net.mapping(G.latents(range(900))).mean(0)).abs().max() < 0.3


# ---- DCGAN


def up(inputs: int, outputs: int, side: int, stride: int, padding: int, extra: int = 0, bias: bool = False):
    return nn.ConvTranspose2d(inputs, outputs, side, stride, padding, extra, bias=bias)


def normed(*convs: nn.Module, flat: bool = False, norm: bool = True, act=nn.ReLU) -> nn.Sequential:
    """Convolutions, each with a norm and an activation, but tanh behind the last; perhaps a linear map in front."""
    parts: list[nn.Module] = []
    if flat:
        inputs = convs[0].in_channels
        parts = [nn.Linear(20, inputs * 49, bias=not norm)]
        parts += [nn.BatchNorm1d(inputs * 49)] if norm else []
        parts += [act(), nn.Unflatten(1, (inputs, 7, 7))]
    for conv in convs[:-1]:
        parts += [conv, *([nn.BatchNorm2d(conv.out_channels)] if norm else []), act()]
    return nn.Sequential(*parts, convs[-1], nn.Tanh())


STUDENTS = {
    "28, three doublings from 4": lambda: normed(
        up(20, 12, 4, 1, 0), up(12, 10, 3, 2, 1), up(10, 8, 4, 2, 1), up(8, 1, 4, 2, 1)
    ),
    "28 from 7": lambda: normed(up(20, 12, 7, 1, 0), up(12, 8, 4, 2, 1), up(8, 1, 4, 2, 1)),
    "28 linear, kernels of 5, stride 1 first": lambda: normed(
        up(12, 10, 5, 1, 2), up(10, 8, 5, 2, 2, 1), up(8, 1, 5, 2, 2, 1), flat=True
    ),
    "28 linear, kernels of 5, without norms": lambda: normed(
        up(12, 10, 5, 1, 2), up(10, 8, 5, 2, 2, 1), up(8, 1, 5, 2, 2, 1), flat=True, norm=False
    ),
    "28 linear, kernels of 4": lambda: normed(up(12, 8, 4, 2, 1), up(8, 1, 4, 2, 1), flat=True),
    "28 linear, a convolution at the end": lambda: normed(
        up(12, 8, 4, 2, 1), up(8, 8, 4, 2, 1), nn.Conv2d(8, 1, 7, padding=3), flat=True
    ),
    "28 linear, without norms": lambda: normed(
        up(12, 8, 4, 2, 1, bias=True), up(8, 1, 4, 2, 1, bias=True), flat=True, norm=False
    ),
    "28 in colours": lambda: normed(up(20, 12, 7, 1, 0), up(12, 8, 4, 2, 1), up(8, 3, 4, 2, 1)),
    "32 with biases, leaky": lambda: normed(
        *(up(a, b, 4, s, p, bias=True) for a, b, s, p in ((20, 12, 1, 0), (12, 10, 2, 1), (10, 8, 2, 1), (8, 3, 2, 1))),
        act=lambda: nn.LeakyReLU(0.2),
    ),
    "64 with refining convolutions": lambda: normed(
        up(20, 12, 4, 1, 0),
        nn.Conv2d(12, 12, 3, padding=1),
        up(12, 10, 4, 2, 1),
        up(10, 8, 4, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1),
        up(8, 6, 4, 2, 1),
        up(6, 3, 4, 2, 1),
    ),
    "32, kernels of 3 that keep the channels": lambda: normed(
        up(20, 8, 4, 1, 0), up(8, 8, 3, 2, 1, 1), up(8, 8, 3, 2, 1, 1), up(8, 3, 3, 2, 1, 1)
    ),
    "64 without norms": lambda: normed(
        up(20, 12, 4, 1, 0), *(up(a, b, 4, 2, 1) for a, b in ((12, 10), (10, 8), (8, 8), (8, 3))), norm=False
    ),
    "64, kernels of 5": lambda: normed(
        up(20, 12, 4, 1, 0), *(up(a, b, 5, 2, 2, 1) for a, b in ((12, 10), (10, 8), (8, 8), (8, 3)))
    ),
    "128": lambda: normed(
        up(20, 12, 4, 1, 0), *(up(a, b, 4, 2, 1) for a, b in ((12, 10), (10, 8), (8, 8), (8, 6), (6, 3)))
    ),
}


@pytest.mark.filterwarnings("ignore:no batch statistics tell")
@pytest.mark.parametrize("name", STUDENTS)
def test_dcgan(name, tmp_path: Path):
    torch.manual_seed(7)
    net = STUDENTS[name]()
    flat = isinstance(net[0], nn.Linear)
    net = trained(net, flat=flat)
    torch.save({"netG": net.state_dict(), "epoch": 3}, tmp_path / "G.pth")
    G = gl.load_generator(tmp_path / "G.pth")
    z = G.latents(range(3))
    expected = net(z if flat else z[..., None, None])
    assert G.net(z).shape == expected.shape
    assert agree(G.net(z), expected), G.about


def test_statistics_that_no_training_has_changed(tmp_path: Path):
    """They say nothing of law and activations: the usual ones are assumed."""
    torch.manual_seed(9)
    net = STUDENTS["32 with biases, leaky"]().eval()
    torch.save(net.state_dict(), tmp_path / "fresh.pth")
    with pytest.warns(UserWarning, match="no batch statistics tell for sure, so it is assumed: hidden ReLU"):
        G = gl.load_generator(tmp_path / "fresh.pth")
    assert G.law == "normal"
    assert "assumed, as there are no batch statistics" in G.about


# ---- Progressive GAN


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("units", [(9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4), (3, 3), (6, 5, 4, 3)])
def test_progan(units, old, tmp_path: Path):
    torch.manual_seed(8)
    state, inputs = {}, 10
    for i, outs in enumerate(units):
        key = f"features.{i}" if old else f"layer{i + 1}"
        state[f"{key}.conv.weight"] = torch.randn(outs, inputs, *([4, 4] if i == 0 else [3, 3]))
        state[f"{key}.wscale.b"] = torch.randn(outs)
        inputs = outs
    side = 4 << ((len(units) - 1) // 2)
    key = "output" if old else f"output_{side}x{side}"
    state[f"{key}.conv.weight"], state[f"{key}.wscale.b"] = torch.randn(3, inputs, 1, 1), torch.randn(3)
    torch.save({"state_dict": state}, tmp_path / "p.pth")
    G = gl.load_generator(tmp_path / "p.pth")
    z = G.latents(range(2))
    r, found = z[..., None, None], {}
    for i in range(len(units) + 1):
        last = i == len(units)
        name = key if last else f"features.{i}" if old else f"layer{i + 1}"
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.wscale.b"]
        r = unit(r)
        r = r.repeat_interleave(2, 2).repeat_interleave(2, 3) if i >= 2 and i % 2 == 0 and not last else r
        gain = (1 if last else 2**0.5) / weight[0].numel() ** 0.5
        r = F.conv2d(r, weight, padding=3 if i == 0 else weight.shape[-1] // 2) * gain + bias[:, None, None]
        r = r if last else torch.where(r > 0, r, 0.2 * r)
        found[list(G.layers)[i]] = r
    assert agree(G.net(z), r)
    assert G.image_shape == (3, side, side)
    features = G.read(z, list(G.layers))[1]
    assert all(agree(features[layer], found[layer]) for layer in G.layers)
