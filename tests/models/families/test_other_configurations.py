"""Files of other configurations than the recorded ones, against networks written here by their formulas."""

import itertools
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ganlens as gl
from ganlens.models.families import stylegan3
from ganlens.models.files.records import Record
from ganlens.models.files.states import State

N, Z = 3, 6


def rand(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


@pytest.fixture
def loaded(tmp_path):
    """Save a file and load it, with what is said about it as a warning."""

    def load(content, **options) -> gl.Generator:
        torch.save(content, tmp_path / "a.pth")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gl.load_generator(tmp_path / "a.pth", **options)

    return load


def assert_draws(G: gl.Generator, expected: torch.Tensor, z: torch.Tensor, labels=None) -> None:
    expected = expected.clamp(-1, 1) if expected.shape[1] in (1, 3) else expected
    found = G.forward(z, labels)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-4 * float(expected.std()) + 1e-6, rtol=0)


def up(r: torch.Tensor) -> torch.Tensor:
    return r.repeat_interleave(2, 2).repeat_interleave(2, 3)


def unit(r: torch.Tensor) -> torch.Tensor:
    return r / (r.square().mean(1, keepdim=True) + 1e-8).sqrt()


def lrelu(r: torch.Tensor, slope: float = 0.2) -> torch.Tensor:
    return torch.where(r > 0, r, slope * r)


# ---- BigGAN of BigGAN-PyTorch


def spectral(state: dict, key: str) -> torch.Tensor:
    """A weight divided by what one more step from the stored vector takes for its largest singular value."""
    weight = state[f"{key}.weight"]
    if f"{key}.u0" not in state:
        return weight
    matrix = weight.flatten(1)
    v = state[f"{key}.u0"] @ matrix
    v = v / v.norm()
    return weight / (v @ matrix.T).norm()


def biggan_state(shared: bool, statistics: str, normed: bool) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}

    def layer(key, *shape, bias=True):
        state[f"{key}.weight"] = rand(*shape)
        if bias:
            state[f"{key}.bias"] = rand(shape[0])
        if normed and not (key.endswith(("gain", "bias")) and not shared):
            state[f"{key}.u0"], state[f"{key}.sv0"] = F.normalize(rand(1, shape[0])), torch.ones(1)

    def norm(key, units):
        state[f"{key}.{statistics}mean"], state[f"{key}.{statistics}var"] = rand(units), torch.rand(units) + 0.5
        if statistics == "bn.stored_":
            state[f"{key}.bn.accumulation_counter"] = torch.full((1,), 2.0)

    if shared:
        state["shared.weight"] = rand(4, 5)
    layer("linear", 8 * 16, Z)
    for i, (a, b) in enumerate([(8, 8), (8, 4)]):
        for n, (inputs, outputs) in enumerate([(a, b), (b, b)], start=1):
            layer(f"blocks.{i}.0.conv{n}", outputs, inputs, 3, 3)
            norm(f"blocks.{i}.0.bn{n}", inputs)
            for part in ("gain", "bias"):
                layer(f"blocks.{i}.0.bn{n}.{part}", *((inputs, 5) if shared else (4, inputs)), bias=False)
        layer(f"blocks.{i}.0.conv_sc", b, a, 1, 1)
    norm("output_layer.0", 4)
    state["output_layer.0.gain"], state["output_layer.0.bias"] = rand(4), rand(4)
    layer("output_layer.2", 3, 4, 3, 3)
    return state


def biggan(state: dict, z: torch.Tensor, labels: torch.Tensor, shared: bool, statistics: str) -> torch.Tensor:
    times = 0.5 if statistics == "bn.stored_" else 1.0
    y = state["shared.weight"][labels] if shared else None

    def conv(key, r):
        weight = spectral(state, key)
        return F.conv2d(r, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def standard(key, r):
        mean, variance = (times * state[f"{key}.{statistics}{what}"] for what in ("mean", "var"))
        return (r - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]

    def norm(key, r):
        gain, bias = (
            y @ spectral(state, f"{key}.{part}").T if shared else state[f"{key}.{part}.weight"][labels]
            for part in ("gain", "bias")
        )  # fmt: skip
        return (standard(key, r) * (1 + gain)[..., None, None] + bias[..., None, None]).relu()

    r = (z @ spectral(state, "linear").T + state["linear.bias"]).view(len(z), 8, 4, 4)
    for i in range(2):
        key = f"blocks.{i}.0"
        past = conv(f"{key}.conv_sc", up(r))
        r = conv(f"{key}.conv2", norm(f"{key}.bn2", conv(f"{key}.conv1", up(norm(f"{key}.bn1", r))))) + past
    r = standard("output_layer.0", r) * state["output_layer.0.gain"][:, None, None]
    return conv("output_layer.2", (r + state["output_layer.0.bias"][:, None, None]).relu()).tanh()


@pytest.mark.parametrize(
    ("shared", "statistics", "normed"),
    [(True, "stored_", True), (False, "stored_", True), (True, "bn.stored_", False), (False, "bn.running_", False)],
)
def test_biggan(loaded, shared, statistics, normed):
    state, z, labels = biggan_state(shared, statistics, normed), rand(N, Z), torch.tensor([3, 0, 2])
    G = loaded(state)
    assert (G.z_dim, G.classes) == (Z, 4)
    assert_draws(G, biggan(state, z, labels, shared, statistics), z, labels)


# ---- genforce


def shifted(weight: torch.Tensor) -> torch.Tensor:
    """Kernels of 4 x 4 cells, each the sum of up to four of 3 x 3."""
    wide = torch.zeros(*weight.shape[:2], 4, 4)
    for y in range(2):
        for x in range(2):
            wide[:, :, y : y + 3, x : x + 3] += weight
    return wide


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("lod", [0.0, 0.75, 1.0, 1.5])
def test_genforce_pggan(loaded, fused, lod):
    units, state = (8, 6, 4), {"lod": torch.tensor(lod)}
    for i, outputs in enumerate(units):
        inputs = Z if i == 0 else units[i - 1]
        side, turned = (4, False) if i == 0 else (3, fused)
        state[f"layer{2 * i}.weight"] = rand(*((inputs, outputs) if turned else (outputs, inputs)), side, side)
        state[f"layer{2 * i + 1}.weight"] = rand(outputs, outputs, 3, 3)
        state[f"output{i}.weight"] = rand(3, outputs, 1, 1)
        state |= {
            f"{part}.bias": rand(n)
            for part, n in ((f"layer{2 * i}", outputs), (f"layer{2 * i + 1}", outputs), (f"output{i}", 3))
        }

    def layer(key, r, inputs, side=3, gain=2**0.5, grow=False):
        weight, bias = state[f"{key}.weight"] * gain / (side * math.sqrt(inputs)), state[f"{key}.bias"]
        if grow and fused:
            return F.conv_transpose2d(unit(r), shifted(weight), bias, stride=2, padding=1)
        r = up(unit(r)) if grow else unit(r)
        return F.conv2d(r, weight, bias, padding={4: 3, 3: 1, 1: 0}[side])

    z = rand(N, Z)
    r, images = unit(z)[..., None, None], []
    for i, outputs in enumerate(units):
        r = lrelu(layer(f"layer{2 * i}", r, Z if i == 0 else units[i - 1], 4 if i == 0 else 3, grow=i > 0))
        r = lrelu(layer(f"layer{2 * i + 1}", r, outputs))
        images.append(layer(f"output{i}", r, outputs, 1, gain=1.0))
    whole, part = int(lod), lod - int(lod)
    image = images[2 - whole]
    image = image * (1 - part) + up(images[1 - whole]) * part if part else image
    for _ in range(whole):
        image = up(image)
    G = loaded({"models": {"generator": state, "generator_smooth": state}, "running_metadata": {}})
    assert_draws(G, image, z)
    assert ("layer4" in G.layers) == (lod < 1)


@pytest.mark.parametrize(("classes", "lod", "blocks"), [(0, 0.0, 6), (3, 0.0, 2), (0, 0.5, 3)])
def test_genforce_stylegan(loaded, classes, lod, blocks):
    width, units = 5, [4] * blocks
    state = {"synthesis.lod": torch.tensor(lod), "truncation.w_avg": rand(width)}
    widths = [Z * (2 if classes else 1), 7, width]
    if classes:
        state["mapping.label_weight"] = rand(classes, Z)
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        state |= {f"mapping.dense{i}.weight": 100 * rand(b, a), f"mapping.dense{i}.bias": 100 * rand(b)}
    for n in range(2 * blocks):
        key, u, side = f"synthesis.layer{n}", units[n // 2], 4 << n // 2
        state |= {f"{key}.const": rand(1, u, 4, 4)} if n == 0 else {f"{key}.weight": rand(u, u, 3, 3)}
        state |= {f"{key}.bias": rand(u), f"{key}.style.weight": rand(2 * u, width), f"{key}.style.bias": rand(2 * u)}
        state |= {f"{key}.apply_noise.weight": rand(u), f"{key}.apply_noise.noise": rand(1, 1, side, side)}
        if n and n % 2 == 0:
            state[f"{key}.blur.kernel"] = torch.ones(u, 1, 3, 3)  # always 1 2 1
    for i, u in enumerate(units):
        state |= {f"synthesis.output{i}.weight": rand(3, u, 1, 1), f"synthesis.output{i}.bias": rand(3)}
    z, labels = rand(N, Z), torch.tensor([2, 0, 1])
    w = unit(torch.cat([z, state["mapping.label_weight"][labels]], 1) if classes else z)
    for i in range(2):
        weight = state[f"mapping.dense{i}.weight"]
        w = lrelu(w @ weight.T * 0.01 * math.sqrt(2 / weight.shape[1]) + 0.01 * state[f"mapping.dense{i}.bias"])
    w = state["truncation.w_avg"] + 0.6 * (w - state["truncation.w_avg"])
    row = torch.tensor([1.0, 2, 1]) / 4
    r, images = state["synthesis.layer0.const"].expand(N, -1, -1, -1), []
    for n in range(2 * blocks):
        key = f"synthesis.layer{n}"
        if n:
            weight = state[f"{key}.weight"] * math.sqrt(2 / (9 * units[0]))
            if n % 2 == 0 and 4 << n // 2 >= 128:
                r = F.conv_transpose2d(r, shifted(weight.transpose(0, 1)), stride=2, padding=1)
            else:
                r = F.conv2d(r if n % 2 else up(r), weight, padding=1)
            if n % 2 == 0:
                r = F.conv2d(r, torch.outer(row, row).expand(units[0], 1, 3, 3), padding=1, groups=units[0])
        r = r + state[f"{key}.apply_noise.noise"] * state[f"{key}.apply_noise.weight"][:, None, None]
        r = lrelu(r + state[f"{key}.bias"][:, None, None])
        r = r - r.mean((2, 3), keepdim=True)
        r = r / (r.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()
        s = (w @ state[f"{key}.style.weight"].T / math.sqrt(width) + state[f"{key}.style.bias"])[..., None, None]
        r = r * (1 + s[:, : units[0]]) + s[:, units[0] :]
        if n % 2:
            paint = state[f"synthesis.output{n // 2}.weight"] / math.sqrt(units[0])
            images.append(F.conv2d(r, paint, state[f"synthesis.output{n // 2}.bias"]))
    image = images[-1] * (1 - lod) + up(images[-2]) * lod if lod else images[-1]
    G = loaded({"generator": state}, truncation=0.6)
    assert_draws(G, image, z, labels if classes else None)


# ---- StyleGAN of rosinality


@pytest.mark.parametrize("reached", [2, 5])
def test_stylegan1_rosinality(loaded, reached):
    width, u, state = Z, 4, {}
    for i in (1, 3):
        state |= {f"style.{i}.linear.weight_orig": rand(width, width), f"style.{i}.linear.bias": rand(width)}
    for i in range(9):
        key, used = f"generator.progression.{i}", float(i <= reached)
        if i == 0:
            state[f"{key}.conv1.input"] = rand(1, u, 4, 4)
        else:
            conv, blur = (f"{key}.conv1.0", f"{key}.conv1.1") if i >= 5 else (f"{key}.conv1.1.conv", f"{key}.conv1.2")
            name = "weight" if i >= 5 else "weight_orig"
            state |= {f"{conv}.{name}": rand(u, u, 3, 3), f"{conv}.bias": used * rand(u)}
            state |= {f"{blur}.weight": torch.ones(u, 1, 3, 3), f"{blur}.weight_flip": torch.ones(u, 1, 3, 3)}
        state |= {f"{key}.conv2.conv.weight_orig": rand(u, u, 3, 3), f"{key}.conv2.conv.bias": used * rand(u)}
        for n in (1, 2):
            state[f"{key}.noise{n}.weight_orig"] = used * rand(1, u, 1, 1)
            style = f"{key}.adain{n}.style.linear"
            state |= {f"{style}.weight_orig": rand(2 * u, width), f"{style}.bias": rand(2 * u)}
        rgb = f"generator.to_rgb.{i}.conv"
        state |= {f"{rgb}.weight_orig": rand(3, u, 1, 1), f"{rgb}.bias": used * rand(3)}

    def scaled(key):
        weight = state[f"{key}.weight_orig"]
        return weight * math.sqrt(2 / weight[0].numel())

    z = rand(N, Z)
    w = unit(z)
    for i in (1, 3):
        w = lrelu(w @ scaled(f"style.{i}.linear").T + state[f"style.{i}.linear.bias"])
    blur = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])).expand(u, 1, 3, 3) / 16
    r = state["generator.progression.0.conv1.input"].expand(N, -1, -1, -1)
    for i in range(reached + 1):
        key = f"generator.progression.{i}"
        if 0 < i < 5:
            r = F.conv2d(up(r), scaled(f"{key}.conv1.1.conv"), state[f"{key}.conv1.1.conv.bias"], padding=1)
        elif i:
            weight = shifted(state[f"{key}.conv1.0.weight"] * math.sqrt(2 / (9 * u))) / 4
            r = F.conv_transpose2d(r, weight, state[f"{key}.conv1.0.bias"], stride=2, padding=1)
        r = F.conv2d(r, blur, padding=1, groups=u) if i else r
        for n in (1, 2):
            r = r if n == 1 else F.conv2d(r, scaled(f"{key}.conv2.conv"), state[f"{key}.conv2.conv.bias"], padding=1)
            style = f"{key}.adain{n}.style.linear"
            gamma, beta = (w @ scaled(style).T + state[f"{style}.bias"])[..., None, None].chunk(2, 1)
            r = F.instance_norm(lrelu(r), eps=1e-5) * gamma + beta
    image = F.conv2d(r, scaled(f"generator.to_rgb.{reached}.conv"), state[f"generator.to_rgb.{reached}.conv.bias"])
    G = loaded(state)
    assert_draws(G, image, z)
    assert f"trained to {4 << reached} x" in G.about
    with pytest.raises(ValueError, match="none of its 9 blocks was ever trained"):
        loaded({key: x * (0 if "noise" in key or key.endswith("bias") else 1) for key, x in state.items()})


# ---- the GAN zoo


@pytest.mark.parametrize(("alpha", "loss"), [(0.0, "MSE"), (0.3, "WGANGP")])
def test_ganzoo_pgan(loaded, alpha, loss):
    units, slope = (8, 6, 4), 0.1
    attributes = {
        "hair": {"order": 1, "values": ["red", "black", "fair"]},
        "hat": {"order": 0, "values": ["no", "yes"]},
    }
    state = {"formatLayer.module.weight": rand(16 * 8, Z + 5), "formatLayer.module.bias": rand(128)}
    shapes = {"groupScale0.0": (8, 8, 3, 3), "scaleLayers.0.0": (6, 8, 3, 3), "scaleLayers.0.1": (6, 6, 3, 3)}
    shapes |= {"scaleLayers.1.0": (4, 6, 3, 3), "scaleLayers.1.1": (4, 4, 3, 3)}
    shapes |= {f"toRGBLayers.{i}": (3, u, 1, 1) for i, u in enumerate(units)}
    for key, shape in shapes.items():
        state |= {f"{key}.module.weight": rand(*shape), f"{key}.module.bias": rand(shape[0])}
    config = SimpleNamespace(leakyReluLeak=slope, alpha=alpha, lossCriterion=loss, attribKeysOrder=attributes)
    config.equalizedlR = True

    def run(key, r):
        weight, bias = state[f"{key}.module.weight"], state[f"{key}.module.bias"]
        return F.conv2d(r, weight, bias, padding=weight.shape[-1] // 2) * math.sqrt(2 / weight[0].numel())

    z, hot = rand(N, Z), torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 1]])
    r = unit(torch.cat([z, hot], 1))
    r = (r @ state["formatLayer.module.weight"].T + state["formatLayer.module.bias"]) * math.sqrt(2 / (Z + 5))
    r = unit(lrelu(r, slope).view(N, 8, 4, 4))
    r = unit(lrelu(run("groupScale0.0", r), slope))
    for i in range(2):
        below, r = r, up(r)
        for j in range(2):
            r = unit(lrelu(run(f"scaleLayers.{i}.{j}", r), slope))
    image = run("toRGBLayers.2", r)
    image = alpha * up(run("toRGBLayers.1", below)) + (1 - alpha) * image if alpha else image
    G = loaded({"config": vars(config), "netG": {k: rand(*x.shape) for k, x in state.items()}, "avgG": state})
    assert (G.z_dim, G.classes) == (Z, 5)
    assert_draws(G, image.tanh() if loss == "MSE" else image, z, hot)


# ---- FastGAN


@pytest.mark.parametrize("largest", [512, 1024])
def test_fastgan(loaded, largest):
    units = {4: 6, 8: 6, 16: 4, 32: 4, 64: 4, 128: 2, 256: 2, 512: 2, 1024: 2}
    units = {size: n for size, n in units.items() if size <= largest}
    double = (8, 32, 128, 512)
    state = {"init.init.0.weight_orig": rand(Z, 12, 4, 4)}

    def norm(key, n):
        return {
            f"{key}.weight": rand(n), f"{key}.bias": rand(n), f"{key}.running_mean": rand(n),
            f"{key}.running_var": torch.rand(n) + 0.5, f"{key}.num_batches_tracked": torch.tensor(9),
        }  # fmt: skip

    state |= norm("init.init.1", 12)
    for size in list(units)[1:]:
        a, b = units[size // 2], units[size]
        places = [("1", a, "2", "3"), ("5", b, "6", "7")] if size in double else [("1", a, "", "2")]
        for conv, inputs, noise, after in places:
            state[f"feat_{size}.{conv}.weight_orig"] = rand(2 * b, inputs, 3, 3)
            state |= {f"feat_{size}.{noise}.weight": rand(1)} if noise else {}
            state |= norm(f"feat_{size}.{after}", 2 * b)
    gates = {64: 4, 128: 8, 256: 16, 512: 32}
    for size, small in gates.items():
        if size <= largest:
            state[f"se_{size}.main.1.weight_orig"] = rand(units[size], units[small], 4, 4)
            state[f"se_{size}.main.3.weight_orig"] = rand(units[size], units[size], 1, 1)
    state |= {"to_128.weight_orig": rand(3, units[128], 1, 1), "to_big.weight_orig": rand(3, units[largest], 3, 3)}
    for key in [key for key in state if key.endswith("weight_orig")]:
        matrix = state[key].transpose(0, 1).flatten(1) if key.startswith("init") else state[key].flatten(1)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        state[key.replace("orig", "u")], state[key.replace("orig", "v")] = left[:, 0].clone(), right[0].clone()

    def weight(key):
        found = state[f"{key}.weight_orig"]
        matrix = found.transpose(0, 1).flatten(1) if key.startswith("init") else found.flatten(1)
        return found / torch.linalg.matrix_norm(matrix, 2)

    def normed(key, r):
        return F.batch_norm(r, *(state[f"{key}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")))

    def gated(r):
        a, b = r.chunk(2, 1)
        return a * b.sigmoid()

    z = rand(N, Z)[:1]
    maps = {4: gated(normed("init.init.1", F.conv_transpose2d(z[..., None, None], weight("init.init.0"))))}
    for size in list(units)[1:]:
        r = up(maps[size // 2])
        for conv, after in (("1", "3"), ("5", "7")) if size in double else (("1", "2"),):
            r = gated(normed(f"feat_{size}.{after}", F.conv2d(r, weight(f"feat_{size}.{conv}"), padding=1)))
        if size in gates:
            s = F.silu(F.conv2d(F.adaptive_avg_pool2d(maps[gates[size]], 4), weight(f"se_{size}.main.1")))
            r = r * F.conv2d(s, weight(f"se_{size}.main.3")).sigmoid()
        maps[size] = r
    image = F.conv2d(maps[largest], weight("to_big"), padding=1)
    image = image.tanh() if largest == 1024 else image
    averaged = [x for key, x in state.items() if not key.endswith(("mean", "var", "tracked", "_u", "_v"))]
    live = {key: rand(*x.shape) if "weight_orig" in key else x for key, x in state.items()}
    G = loaded({"g": {f"module.{key}": x for key, x in live.items()}, "d": {}, "g_ema": averaged})
    # spectral norms of the averaged weights are taken by the vectors beside the live ones, as the released code does
    assert_draws(G, image, z)


# ---- lucidrains' StyleGAN2


@pytest.mark.parametrize("constant", [True, False])
def test_stylegan2_lucidrains_without_attention(loaded, constant):
    width, units, state = Z, (6, 6, 4), {}
    for i in (0, 2):
        state |= {f"SE.net.{i}.weight": 3 * rand(width, width), f"SE.net.{i}.bias": rand(width)}
    first = {"GE.initial_block": rand(1, 6, 4, 4)} if constant else {"GE.to_initial_block.weight": rand(width, 6, 4, 4)}
    state |= first | {"GE.initial_conv.weight": rand(6, 6, 3, 3), "GE.initial_conv.bias": rand(6)}
    for i, (a, b) in enumerate(itertools.pairwise(units)):
        key = f"GE.blocks.{i}"
        for n, inputs in ((1, a), (2, b)):
            state |= {f"{key}.to_style{n}.weight": rand(inputs, width), f"{key}.to_style{n}.bias": rand(inputs)}
            state |= {f"{key}.to_noise{n}.weight": rand(b, 1), f"{key}.to_noise{n}.bias": rand(b)}
            state[f"{key}.conv{n}.weight"] = rand(b, inputs, 3, 3)
        state |= {f"{key}.to_rgb.to_style.weight": rand(b, width), f"{key}.to_rgb.to_style.bias": rand(b)}
        state[f"{key}.to_rgb.conv.weight"] = 0.05 * rand(3, b, 1, 1)
        if i == 0:
            state[f"{key}.to_rgb.upsample.1.f"] = torch.tensor([1.0, 2, 1])

    def modulated(r, weight, style, demodulated):
        found = []
        for image, s in zip(r, style, strict=True):
            w = weight * (s + 1)[None, :, None, None]
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() if demodulated else w
            found.append(F.conv2d(image[None], w, padding=w.shape[-1] // 2))
        return torch.cat(found)

    def affine(key, x):
        return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]

    def larger(r):
        return F.interpolate(r, scale_factor=2, mode="bilinear", align_corners=False)

    z = rand(N, Z)
    w = z / z.norm(dim=1, keepdim=True)
    for i in (0, 2):
        w = lrelu(0.1 * affine(f"SE.net.{i}", w))
    r = state["GE.initial_block"].expand(N, -1, -1, -1) if constant else F.conv_transpose2d(
        w[..., None, None], state["GE.to_initial_block.weight"])  # fmt: skip
    r, image = F.conv2d(r, state["GE.initial_conv.weight"], state["GE.initial_conv.bias"], padding=1), 0
    for i in range(2):
        key = f"GE.blocks.{i}"
        r = larger(r) if i else r
        for n in (1, 2):
            noise = affine(f"{key}.to_noise{n}", torch.full((1, 1), 0.5))[..., None, None]
            r = lrelu(modulated(r, state[f"{key}.conv{n}.weight"], affine(f"{key}.to_style{n}", w), True) + noise)
        image = image + modulated(r, state[f"{key}.to_rgb.conv.weight"], affine(f"{key}.to_rgb.to_style", w), False)
        if i == 0:
            kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])).expand(3, 1, 3, 3) / 16
            image = F.conv2d(F.pad(larger(image), (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    others = {"G.x.weight": rand(2, 2), "D.y.weight": rand(3, 3), "S.net.0.weight": rand(6, 6)}
    assert_draws(loaded({"GAN": state | others, "version": "1.8"}), 2 * image - 1, z)


# ---- StyleGAN3


def test_stylegan3_of_classes_with_radial_filters():
    """A layer up by 4 and down by 2 with a filter of 2 axes that is not symmetric, then one that paints."""
    width, classes, side = 5, 4, 10
    t: dict[str, torch.Tensor] = {"mapping.w_avg": rand(width)}
    t |= {"mapping.embed.weight": rand(width, classes), "mapping.embed.bias": rand(width)}
    t |= {"mapping.fc0.weight": 100 * rand(width, Z + width), "mapping.fc0.bias": rand(width)}
    inp = "synthesis.input"
    turned = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.2], [0, 0, 1.0]])
    t |= {f"{inp}.weight": rand(6, 6), f"{inp}.transform": turned, f"{inp}.freqs": rand(6, 2), f"{inp}.phases": rand(6)}
    t |= {f"{inp}.affine.weight": rand(4, width), f"{inp}.affine.bias": torch.tensor([1.0, 0, 0, 0])}
    a, b = "synthesis.L0_20_4", "synthesis.L1_20_3"
    t |= {f"{a}.weight": rand(4, 6, 1, 1), f"{a}.bias": rand(4), f"{a}.magnitude_ema": torch.tensor(0.7)}
    t |= {f"{a}.affine.weight": rand(6, width), f"{a}.affine.bias": rand(6)}
    t |= {f"{a}.up_filter": rand(8), f"{a}.down_filter": rand(6, 6)}
    t |= {f"{b}.weight": rand(3, 4, 1, 1), f"{b}.bias": rand(3), f"{b}.magnitude_ema": torch.tensor(1.3)}
    t |= {f"{b}.affine.weight": rand(4, width), f"{b}.affine.bias": rand(4)}
    padding = [7, 3, 7, 3]
    settings = {
        inp: {"size": side, "sampling_rate": 8.0, "bandwidth": 2.0},
        a: {"up_factor": 4, "down_factor": 2, "padding": padding, "conv_clamp": 1.0, "is_torgb": False},
        b: {"up_factor": 1, "down_factor": 1, "padding": [0, 0, 0, 0], "conv_clamp": None, "is_torgb": True},
        "mapping.fc0": {"bias_gain": 0.01, "activation": "lrelu"},
    }
    root = Record("Generator", {"_modules": {}})
    for path, values in settings.items():
        at = root
        for part in path.split("."):
            at = at.state["_modules"].setdefault(part, Record("Module", {"_modules": {}}))
        at.state.update(values)
    G = stylegan3.build(State("G_ema", t, {}, 2**20, root), "r")

    z, labels = rand(N, Z), torch.tensor([3, 1, 0])
    t, turned = {key: x.double() for key, x in t.items()}, turned.double()
    z = z.double()
    y = t["mapping.embed.weight"].T[labels] / classes**0.5 + t["mapping.embed.bias"]
    x = torch.cat([unit(z), unit(y)], 1)
    w = lrelu(x @ t["mapping.fc0.weight"].T * 0.01 / x.shape[1] ** 0.5 + 0.01 * t["mapping.fc0.bias"]) * 2**0.5

    def style(key):
        return w @ t[f"{key}.affine.weight"].T / width**0.5 + t[f"{key}.affine.bias"]

    q = style(inp) / style(inp)[:, :2].norm(dim=1, keepdim=True)
    images = []
    for n in range(N):
        c, s, dx, dy = q[n].tolist()
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.double)
        m = turn @ torch.tensor([[1, 0, -dx], [0, 1, -dy], [0, 0, 1]], dtype=torch.double) @ turned
        phases = t[f"{inp}.phases"] + t[f"{inp}.freqs"] @ m[:2, 2]
        freqs = t[f"{inp}.freqs"] @ m[:2, :2]
        places = (torch.arange(side) + 0.5 - side / 2) / 8.0
        grid = freqs[:, 0, None, None] * places + freqs[:, 1, None, None] * places[:, None] + phases[:, None, None]
        height = (1 - (freqs.norm(dim=1) - 2.0) / (8.0 / 2 - 2.0)).clamp(0, 1)
        waves = torch.sin(2 * math.pi * grid) * height[:, None, None]
        r = torch.einsum("uc,chw->uhw", t[f"{inp}.weight"] / 6**0.5, waves)[None]
        weight = t[f"{a}.weight"]
        weight = weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        s_a = style(a)[n]
        weight = weight * (s_a / s_a.square().mean().sqrt())[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        r = F.conv2d(r, weight / 0.7**0.5) + t[f"{a}.bias"][:, None, None]
        wide = torch.zeros(1, 4, 4 * side, 4 * side).double()
        wide[:, :, ::4, ::4] = r
        wide = F.pad(wide, padding)
        taps = torch.outer(t[f"{a}.up_filter"], t[f"{a}.up_filter"]).flip(0, 1) * 16
        wide = F.conv2d(wide, taps.expand(4, 1, 8, 8), groups=4)
        wide = (lrelu(wide) * 2**0.5).clamp(-1, 1)
        r = F.conv2d(wide, t[f"{a}.down_filter"].flip(0, 1).expand(4, 1, 6, 6), groups=4)[:, :, ::2, ::2]
        weight = t[f"{b}.weight"] * (style(b)[n] / 4**0.5)[None, :, None, None] / 1.3**0.5
        images.append(F.conv2d(r, weight, t[f"{b}.bias"]) * 0.25)
    # in double precision, as filters and waves of random numbers round coarsely
    torch.testing.assert_close(G.net.double()(z, labels), torch.cat(images), atol=1e-6, rtol=0)


# ---- plain state dicts of classes


class Conditional(torch.nn.Module):
    """A linear network of a class, whose embedding stands before the latent, behind it, or is multiplied with it."""

    def __init__(self, how: str):
        super().__init__()
        width = 4 if how != "times" else Z
        self.label_emb = torch.nn.Embedding(5, width)
        inputs = Z if how == "times" else Z + 4
        self.how = how
        self.model = torch.nn.Sequential(
            torch.nn.Linear(inputs, 40), torch.nn.LeakyReLU(0.2),
            torch.nn.Linear(40, 50), torch.nn.BatchNorm1d(50, 0.8), torch.nn.LeakyReLU(0.2),
            torch.nn.Linear(50, 60), torch.nn.BatchNorm1d(60, 0.8), torch.nn.LeakyReLU(0.2),
            torch.nn.Linear(60, 3 * 16 * 16), torch.nn.Tanh(),
        )  # fmt: skip

    def forward(self, z, labels):
        row = self.label_emb(labels)
        given = {"times": lambda: z * row, "behind": lambda: torch.cat([z, row], 1)}.get(
            self.how, lambda: torch.cat([row, z], 1)
        )
        return self.model(given()).view(-1, 3, 16, 16)


@pytest.mark.parametrize("how", ["times", "behind", "before"])
def test_linear_maps_of_classes(loaded, how):
    net = Conditional(how).train()
    with torch.no_grad():
        net.label_emb.weight.mul_(2)
        for _ in range(300):
            net(torch.randn(64, Z), torch.randint(5, (64,)))
    net.eval().requires_grad_(False)
    G = loaded(net.state_dict())
    assert (G.z_dim, G.classes) == (Z, 5)
    z, labels = rand(N, Z), torch.tensor([4, 0, 1])
    assert_draws(G, net(z, labels), z, labels)


def test_a_seed_is_an_image_in_every_law():
    G = gl.Generator.wrap(
        torch.nn.Sequential(torch.nn.Linear(8, 48), torch.nn.Unflatten(1, (3, 4, 4)), torch.nn.Tanh()),
        8,
        law="truncated",
    )
    z = G.latents(range(400))
    assert float(z.abs().max()) <= 2
    torch.testing.assert_close(G.latents([7, 3]), z[[7, 3]])
    inside = torch.from_numpy(np.random.RandomState(0).standard_normal(200_000))
    assert abs(float(z.std()) - float(inside[inside.abs() <= 2].std())) < 0.02


def test_linear_maps_without_biases_are_no_embeddings(loaded):
    net = torch.nn.Sequential(
        torch.nn.Linear(12, 20, bias=False), torch.nn.LeakyReLU(0.2), torch.nn.Linear(20, 30, bias=False),
        torch.nn.BatchNorm1d(30), torch.nn.LeakyReLU(0.2), torch.nn.Linear(30, 256, bias=False), torch.nn.Tanh(),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(300):
            net(torch.randn(64, 12))
    G = loaded(net.eval().requires_grad_(False).state_dict())
    z = rand(N, 12)
    assert (G.z_dim, G.classes) == (12, None)
    assert_draws(G, net(z).view(N, 1, 16, 16), z)
