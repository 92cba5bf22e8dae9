"""More files of other configurations than the recorded ones, against networks written here by their formulas."""

import json
import math
from itertools import pairwise

import pytest
import torch
from test_other_configurations import N, Z, assert_draws, loaded, lrelu, rand, seeded, spectral, unit, up  # noqa: F401
from torch import nn
from torch.nn import functional as F

import ganlens as gl

HEAD = 64


# ---- BigGAN-deep


def attended(theta, phi, g):
    """Attention of each cell to the maxima over 2 x 2 cells, one cell after the other."""
    n, _, h, w = theta.shape
    phi, g = F.max_pool2d(phi, 2).flatten(2), F.max_pool2d(g, 2).flatten(2)
    found = torch.zeros(n, g.shape[1], h, w)
    for y in range(h):
        for x in range(w):
            weights = torch.softmax(torch.einsum("nc,nck->nk", theta[:, :, y, x], phi), 1)
            found[:, :, y, x] = torch.einsum("nk,nck->nc", weights, g)
    return found


def converged(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    left, _, right = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
    return left[:, 0].clone(), right[0].clone()


@pytest.mark.parametrize(
    ("layers", "attention", "truncation"),
    [
        ([[False, 16, 16], [True, 16, 8], [True, 8, 8]], 1, 1.0),
        ([[True, 8, 4], [False, 4, 4]], 2, 0.43),
        ([[True, 8, 8]], 0, 0.5),
    ],
)
def test_biggan_deep_of_hugging_face(tmp_path, layers, attention, truncation):
    width, classes, embedding, rows, eps = 2, 3, 5, 11, 1e-3
    condition, state = Z + embedding, {"embeddings.weight": rand(embedding, classes)}

    def layer(key, *shape, bias=True):
        state[f"{key}.weight_orig"] = rand(*shape)
        state[f"{key}.weight_u"], state[f"{key}.weight_v"] = converged(state[f"{key}.weight_orig"])
        if bias:
            state[f"{key}.bias"] = rand(shape[0])

    def weight(key):
        found = state[f"{key}.weight_orig"]
        return found / torch.linalg.matrix_norm(found.flatten(1), 2)

    def norm(key, units, own=False):
        state[f"{key}.running_means"], state[f"{key}.running_vars"] = rand(rows, units), torch.rand(rows, units) + 0.5
        if own:
            state[f"{key}.weight"], state[f"{key}.bias"] = rand(units), rand(units)
        else:
            for part in ("scale", "offset"):
                layer(f"{key}.{part}", units, condition, bias=False)

    layer("generator.gen_z", 16 * layers[0][1] * width, condition)
    kinds = [("block", *block) for block in layers]
    if attention < len(layers):
        kinds.insert(attention, ("attention", None, layers[attention][1], None))
    for i, (kind, _, a, b) in enumerate(kinds):
        key = f"generator.layers.{i}"
        if kind == "attention":
            c = a * width
            state[f"{key}.gamma"] = rand(1)
            for part, inputs, outputs in (
                ("theta", c, c // 8),
                ("phi", c, c // 8),
                ("g", c, c // 2),
                ("o_conv", c // 2, c),
            ):
                layer(f"{key}.snconv1x1_{part}", outputs, inputs, 1, 1, bias=False)
            continue
        middle = a * width // 4
        for j, (inputs, outputs, k) in enumerate(
            [(a * width, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, b * width, 1)]
        ):
            norm(f"{key}.bn_{j}", inputs)
            layer(f"{key}.conv_{j}", outputs, inputs, k, k)
    last = layers[-1][2] * width
    norm("generator.bn", last, own=True)
    layer("generator.conv_to_rgb", last, last, 3, 3)

    z, labels = rand(N, Z), torch.tensor([2, 0, 1])
    y = torch.cat([z, state["embeddings.weight"].T[labels]], 1)

    def normed(key, r):
        at = truncation * (rows - 1)
        share, first = at - int(at + 1e-9), int(at + 1e-9)
        mean, variance = (
            state[f"{key}.running_{what}"][first] * (share if share > 1e-6 else 1)
            + (state[f"{key}.running_{what}"][first + 1] * (1 - share) if share > 1e-6 else 0)
            for what in ("means", "vars")
        )
        r = (r - mean[:, None, None]) / (variance + eps).sqrt()[:, None, None]
        if f"{key}.weight" in state:
            return r * state[f"{key}.weight"][:, None, None] + state[f"{key}.bias"][:, None, None]
        scale, offset = (y @ weight(f"{key}.{part}").T for part in ("scale", "offset"))
        return r * (1 + scale)[..., None, None] + offset[..., None, None]

    def conv(key, r):
        w = weight(key)
        return F.conv2d(r, w, state.get(f"{key}.bias"), padding=w.shape[-1] // 2)

    r = (y @ weight("generator.gen_z").T + state["generator.gen_z.bias"]).view(N, 4, 4, -1).permute(0, 3, 1, 2)
    for i, (kind, grows, _, b) in enumerate(kinds):
        key = f"generator.layers.{i}"
        if kind == "attention":
            parts = (conv(f"{key}.snconv1x1_{part}", r) for part in ("theta", "phi", "g"))
            r = r + state[f"{key}.gamma"] * conv(f"{key}.snconv1x1_o_conv", attended(*parts))
            continue
        past = r[:, : b * width]
        r = conv(f"{key}.conv_0", normed(f"{key}.bn_0", r).relu())
        r = normed(f"{key}.bn_1", r).relu()
        r, past = (up(r), up(past)) if grows else (r, past)
        for j in (1, 2, 3):
            r = r if j == 1 else normed(f"{key}.bn_{j}", r).relu()
            r = conv(f"{key}.conv_{j}", r)
        r = r + past
    image = conv("generator.conv_to_rgb", normed("generator.bn", r).relu())[:, :3].tanh()
    torch.save(state, tmp_path / "a.bin")
    settings = {"layers": layers, "attention_layer_position": attention, "eps": eps, "z_dim": Z}
    (tmp_path / "a.json").write_text(json.dumps(settings))
    assert_draws(gl.load_generator(tmp_path / "a.bin", truncation=truncation), image, z, labels)


@pytest.mark.parametrize(("widths", "attention"), [((16, 16, 8, 4, 2), 3), ((4, 4, 4, 4), 1)])
def test_biggan_deep_of_biggan_pytorch(loaded, widths, attention):  # noqa: F811
    times = 8 if widths[0] == 4 else 4
    channels = [w * times for w in widths]
    blocks = [pair for a, b in pairwise(channels) for pair in ((a, a), (a, b))]
    y_dim, state = 5, {"shared.weight": rand(4, 5)}

    def layer(key, *shape, bias=True):
        state[f"{key}.weight"], state[f"{key}.u0"], state[f"{key}.sv0"] = (
            rand(*shape),
            F.normalize(rand(1, shape[0])),
            rand(1),
        )
        if bias:
            state[f"{key}.bias"] = rand(shape[0])

    def norm(key, units):
        state[f"{key}.stored_mean"], state[f"{key}.stored_var"] = rand(units), torch.rand(units) + 0.5

    layer("linear", channels[0] * 16, Z + y_dim)
    for i, (a, b) in enumerate(blocks):
        for j, (inputs, outputs, k) in enumerate(
            [(a, a // 4, 1), (a // 4, a // 4, 3), (a // 4, a // 4, 3), (a // 4, b, 1)], start=1
        ):
            layer(f"blocks.{i}.0.conv{j}", outputs, inputs, k, k)
            norm(f"blocks.{i}.0.bn{j}", inputs)
            for part in ("gain", "bias"):
                layer(f"blocks.{i}.0.bn{j}.{part}", inputs, Z + y_dim, bias=False)
        if i == attention:
            state[f"blocks.{i}.1.gamma"] = rand(1)[0]
            for part, inputs, outputs in (("theta", b, b // 8), ("phi", b, b // 8), ("g", b, b // 2), ("o", b // 2, b)):
                layer(f"blocks.{i}.1.{part}", outputs, inputs, 1, 1, bias=False)
    norm("output_layer.0", channels[-1])
    state["output_layer.0.gain"], state["output_layer.0.bias"] = rand(channels[-1]), rand(channels[-1])
    layer("output_layer.2", 3, channels[-1], 3, 3)

    z, labels = rand(N, Z), torch.tensor([3, 0, 2])
    y = torch.cat([state["shared.weight"][labels], z], 1)

    def conv(key, r):
        weight = spectral(state, key)
        return F.conv2d(r, weight, state.get(f"{key}.bias"), padding=weight.shape[-1] // 2)

    def standard(key, r):
        mean, variance = (state[f"{key}.stored_{what}"][:, None, None] for what in ("mean", "var"))
        return (r - mean) / (variance + 1e-5).sqrt()

    def active(key, r):
        gain, bias = (y @ spectral(state, f"{key}.{part}").T for part in ("gain", "bias"))
        return (standard(key, r) * (1 + gain)[..., None, None] + bias[..., None, None]).relu()

    r = (y @ spectral(state, "linear").T + state["linear.bias"]).view(N, channels[0], 4, 4)
    for i, (_, b) in enumerate(blocks):
        key, past = f"blocks.{i}.0", r[:, :b]
        r = active(f"{key}.bn2", conv(f"{key}.conv1", active(f"{key}.bn1", r)))
        r, past = (up(r), up(past)) if i % 2 else (r, past)
        r = conv(f"{key}.conv3", active(f"{key}.bn3", conv(f"{key}.conv2", r)))
        r = conv(f"{key}.conv4", active(f"{key}.bn4", r)) + past
        if i == attention:
            found = attended(*(conv(f"blocks.{i}.1.{part}", r) for part in ("theta", "phi", "g")))
            r = state[f"blocks.{i}.1.gamma"] * conv(f"blocks.{i}.1.o", found) + r
    r = standard("output_layer.0", r) * state["output_layer.0.gain"][:, None, None]
    image = conv("output_layer.2", (r + state["output_layer.0.bias"][:, None, None]).relu()).tanh()
    G = loaded(state)
    assert (G.z_dim, G.classes) == (Z, 4)
    assert_draws(G, image, z, labels)


# ---- StyleGAN2 of genforce


@pytest.mark.parametrize(("classes", "every"), [(3, True), (0, False)])
def test_genforce_stylegan2(loaded, classes, every):  # noqa: F811
    width, units = 5, (6, 6, 6, 4, 4)
    state = {"truncation.w_avg": rand(width), "synthesis.early_layer.const": rand(1, 6, 4, 4)}
    widths = [Z * (2 if classes else 1), 7, width]
    if classes:
        state["mapping.label_weight"] = rand(classes, Z)
    for i, (a, b) in enumerate(pairwise(widths)):
        state |= {f"mapping.dense{i}.weight": 100 * rand(b, a), f"mapping.dense{i}.bias": 100 * rand(b)}
    kernel = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 16
    inputs = 6
    for i, u in enumerate(units):
        key, side = f"synthesis.layer{i}", 4 << (i + 1) // 2
        state |= {f"{key}.weight": rand(u, inputs, 3, 3), f"{key}.bias": rand(u), f"{key}.noise_strength": rand(1)[0]}
        state |= {
            f"{key}.noise": rand(1, 1, side, side),
            f"{key}.style.weight": rand(inputs, width),
            f"{key}.style.bias": rand(inputs),
        }
        state |= {f"{key}.filter.kernel": kernel[None, None]} if i % 2 else {}
        inputs = u
        if i % 2 == 0 and (every or i == len(units) - 1):
            key = f"synthesis.output{i // 2}"
            state |= {f"{key}.weight": rand(3, u, 1, 1), f"{key}.bias": rand(3)}
            state |= {f"{key}.style.weight": rand(u, width), f"{key}.style.bias": rand(u)}
    state["synthesis.upsample.kernel"] = kernel[None, None]
    z, labels = rand(N, Z), torch.tensor([2, 0, 1])
    w = unit(torch.cat([z, state["mapping.label_weight"][labels]], 1) if classes else z)
    for i in range(2):
        weight = state[f"mapping.dense{i}.weight"]
        w = lrelu(w @ weight.T * 0.01 / math.sqrt(weight.shape[1]) + 0.01 * state[f"mapping.dense{i}.bias"]) * 2**0.5

    def zeros_between(r, before, after):
        n, c, h, v = r.shape
        wide = torch.zeros(n, c, 2 * h, 2 * v)
        wide[:, :, ::2, ::2] = r
        return F.pad(wide, (before, after, before, after))

    def smooth(r):
        return F.conv2d(r, kernel.expand(r.shape[1], 1, 4, 4), groups=r.shape[1])

    def modulated(key, r, demodulated, grows=False):
        style = w @ state[f"{key}.style.weight"].T / math.sqrt(width) + state[f"{key}.style.bias"] + 1
        weight, found = state[f"{key}.weight"], []
        weight = weight / math.sqrt(weight[0].numel())
        for image, s in zip(r, style, strict=True):
            m = weight * s[None, :, None, None]
            m = m / (m.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() if demodulated else m
            if grows:  # the kernel is turned twice, by the transposed convolution and before it
                full = F.conv2d(zeros_between(image[None], 2, 1), m)
                found.append(smooth(F.pad(full, (1, 1, 1, 1))))
            else:
                found.append(F.conv2d(image[None], m, padding=m.shape[-1] // 2))
        return torch.cat(found)

    r, image = state["synthesis.early_layer.const"].expand(N, -1, -1, -1), None
    for i in range(len(units)):
        key = f"synthesis.layer{i}"
        r = modulated(key, r, True, grows=i % 2 == 1) + state[f"{key}.noise"] * state[f"{key}.noise_strength"]
        r = lrelu(r + state[f"{key}.bias"][:, None, None]) * 2**0.5
        if f"synthesis.output{i // 2}.weight" in state and i % 2 == 0:
            key = f"synthesis.output{i // 2}"
            new = modulated(key, r, False) + state[f"{key}.bias"][:, None, None]
            image = new if image is None else new + smooth(zeros_between(image, 2, 1))
    G = loaded({"generator": {}, "generator_smooth": state})
    assert G.classes == (classes or None)
    assert_draws(G, image, z, labels if classes else None)


# ---- lucidrains: attention


def channel_norm(state, key, r):
    r = (r - r.mean(1, keepdim=True)) / (r.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return r * state[f"{key}.g"] + state[f"{key}.b"]


def everywhere(q, k, v, heads):
    """Linear attention, one head and one image at a time: (N, heads x 64, H, W)."""
    found = torch.zeros_like(q)
    for n in range(len(q)):
        for h in range(heads):
            part = slice(h * HEAD, (h + 1) * HEAD)
            a, b, c = (x[n, part].flatten(1).T for x in (q, k, v))  # (cells, 64)
            found[n, part] = (a.softmax(1) / 8 @ (b.softmax(0).T @ c)).T.view_as(q[n, part])
    return F.gelu(found)


def separable(state, key, r):
    r = F.conv2d(r, state[f"{key}.net.0.weight"], padding=1, groups=r.shape[1])
    return F.conv2d(r, state[f"{key}.net.1.weight"]).chunk(2, 1)


def reflected(r):
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])).expand(r.shape[1], 1, 3, 3) / 16
    return F.conv2d(F.pad(r, (1, 1, 1, 1), mode="reflect"), kernel.to(r), groups=r.shape[1])


@pytest.mark.parametrize(("gate", "colors", "attention"), [("frequency", 1, 2), ("context", 4, None), (None, 3, 0)])
def test_lightweight_gan(loaded, gate, colors, attention):  # noqa: F811
    """To 128 pixels with gates, to 64 without; attention of two heads."""
    units = (6, 6, 5, 4, 4, 3)[: 6 if gate else 5]
    state, heads = {}, 2

    def norm(key, n):
        parts = {"weight": rand(n), "bias": rand(n), "running_mean": rand(n), "running_var": torch.rand(n) + 0.5}
        return {f"{key}.{part}": x for part, x in parts.items()}

    state |= {"initial_conv.0.weight": rand(6, 12, 4, 4), "initial_conv.0.bias": rand(12)} | norm("initial_conv.1", 12)
    for i, (a, b) in enumerate(pairwise(units)):
        key = f"layers.{i}"
        state |= {
            f"{key}.0.0.net.0.weight": rand(4 * a, a, 1, 1),
            f"{key}.0.0.net.0.bias": rand(4 * a),
            f"{key}.0.1.f": rand(3),
        }
        state |= {
            f"{key}.0.2.1.weight": rand(2 * b, a, 4, 4),
            f"{key}.0.2.1.bias": rand(2 * b),
            f"{key}.0.3.weight": rand(1),
        }
        state |= norm(f"{key}.0.4", 2 * b)
        if gate and i == 1:  # maps of 16 cells gate those of 128
            state |= {f"{key}.1.net.0.weight": rand(3, b, 1, 1), f"{key}.1.net.0.bias": rand(3)}
            state |= {f"{key}.1.net.2.weight": rand(units[5], 3, 1, 1), f"{key}.1.net.2.bias": rand(units[5])}
            if gate == "frequency":
                state[f"{key}.1.dct_weights"] = rand(1, b, 16, 16) / 16
            else:
                state |= {f"{key}.1.to_k.weight": rand(1, b, 1, 1), f"{key}.1.to_k.bias": rand(1)}
        if i == attention:
            inner, at = heads * HEAD, f"{key}.2"
            state |= {f"{at}.norm.g": rand(1, a, 1, 1), f"{at}.norm.b": rand(1, a, 1, 1)}
            state |= {f"{at}.fn.to_lin_q.weight": rand(inner, a, 1, 1), f"{at}.fn.to_q.weight": rand(inner, a, 1, 1)}
            state |= {
                f"{at}.fn.to_lin_kv.net.0.weight": rand(a, 1, 3, 3),
                f"{at}.fn.to_lin_kv.net.1.weight": rand(2 * inner, a, 1, 1),
            }
            state |= {f"{at}.fn.to_kv.weight": rand(2 * inner, a, 1, 1)}
            state |= {f"{at}.fn.to_out.weight": 0.1 * rand(a, 2 * inner, 1, 1), f"{at}.fn.to_out.bias": rand(a)}
    state |= {"out_conv.weight": 0.1 * rand(colors, units[-1], 3, 3), "out_conv.bias": rand(colors)}

    def normed(key, r):
        return F.batch_norm(r, *(state[f"{key}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")))

    def halves(r):
        a, b = r.chunk(2, 1)
        return a * b.sigmoid()

    def near(key, r):
        """Attention to 3 x 3 cells, zeros beyond the border included, one cell after the other."""
        q = F.conv2d(r, state[f"{key}.to_q.weight"])
        k, v = (F.pad(x, (1, 1, 1, 1)) for x in F.conv2d(r, state[f"{key}.to_kv.weight"]).chunk(2, 1))
        found = torch.zeros_like(q)
        for h in range(heads):
            part = slice(h * HEAD, (h + 1) * HEAD)
            for y in range(q.shape[2]):
                for x in range(q.shape[3]):
                    keys, values = (m[:, part, y : y + 3, x : x + 3].flatten(2) for m in (k, v))
                    weights = torch.softmax(torch.einsum("nc,nck->nk", q[:, part, y, x] / 8, keys), 1)
                    found[:, part, y, x] = torch.einsum("nk,nck->nc", weights, values)
        return found

    names = {f"GE.{key}": x for key, x in state.items()} | {"G.x.weight": rand(2, 2), "D.y.weight": rand(3, 3)}
    net = loaded({"GAN": names}).net.double()  # as networks of random numbers round coarsely
    state = {key: x.double() for key, x in state.items()}
    z, gates = rand(2, 6).double(), {}
    r = halves(
        normed(
            "initial_conv.1",
            F.conv_transpose2d(z[..., None, None], state["initial_conv.0.weight"], state["initial_conv.0.bias"]),
        )
    )
    r = r / r.norm(dim=1, keepdim=True)
    for i in range(len(units) - 1):
        key = f"layers.{i}"
        if i == attention:
            x = channel_norm(state, f"{key}.2.norm", r)
            q = F.conv2d(x, state[f"{key}.2.fn.to_lin_q.weight"])
            both = torch.cat(
                [everywhere(q, *separable(state, f"{key}.2.fn.to_lin_kv", x), heads), near(f"{key}.2.fn", x)], 1
            )
            r = r + F.conv2d(both, state[f"{key}.2.fn.to_out.weight"], state[f"{key}.2.fn.to_out.bias"])
        r = F.pixel_shuffle(F.silu(F.conv2d(r, state[f"{key}.0.0.net.0.weight"], state[f"{key}.0.0.net.0.bias"])), 2)
        r = F.conv2d(F.pad(reflected(r), (2, 1, 2, 1)), state[f"{key}.0.2.1.weight"], state[f"{key}.0.2.1.bias"])
        r = halves(normed(f"{key}.0.4", r))
        if gate and i == 1:
            if gate == "frequency":
                s = (r * state[f"{key}.1.dct_weights"]).sum((2, 3), keepdim=True)
            else:
                weights = F.conv2d(r, state[f"{key}.1.to_k.weight"], state[f"{key}.1.to_k.bias"]).flatten(2).softmax(2)
                s = (r.flatten(2) * weights).sum(2)[..., None, None]
            s = lrelu(F.conv2d(s, state[f"{key}.1.net.0.weight"], state[f"{key}.1.net.0.bias"]), 0.1)
            gates[128] = F.conv2d(s, state[f"{key}.1.net.2.weight"], state[f"{key}.1.net.2.bias"]).sigmoid()
        r = r * gates.get(r.shape[2], 1)
    image = F.conv2d(r, state["out_conv.weight"], state["out_conv.bias"], padding=1)
    if colors == 4:  # laid over white by its opacity
        color, opacity = image[:, :3].clamp(0, 1), image[:, 3:].clamp(0, 1)
        image = color * opacity + 1 - opacity
    torch.testing.assert_close(net(z), 2 * image - 1, atol=1e-6, rtol=0)


def test_stylegan2_lucidrains_with_attention(loaded):  # noqa: F811
    width, u, heads, state = Z, 4, 2, {}
    state |= {"SE.net.0.weight": 10 * rand(width, width), "SE.net.0.bias": rand(width)}
    state |= {
        "GE.initial_block": rand(1, u, 4, 4),
        "GE.initial_conv.weight": rand(u, u, 3, 3),
        "GE.initial_conv.bias": rand(u),
    }
    key, at, inner = "GE.blocks.0", "GE.attns.0", heads * HEAD
    for n in (1, 2):
        state |= {f"{key}.to_style{n}.weight": rand(u, width), f"{key}.to_style{n}.bias": rand(u)}
        state |= {
            f"{key}.to_noise{n}.weight": rand(u, 1),
            f"{key}.to_noise{n}.bias": rand(u),
            f"{key}.conv{n}.weight": rand(u, u, 3, 3),
        }
    state |= {f"{key}.to_rgb.to_style.weight": rand(u, width), f"{key}.to_rgb.to_style.bias": rand(u)}
    state |= {f"{key}.to_rgb.conv.weight": 0.05 * rand(3, u, 1, 1)}
    for i in (0, 1):
        state |= {f"{at}.{i}.fn.norm.g": rand(1, u, 1, 1), f"{at}.{i}.fn.norm.b": rand(1, u, 1, 1)}
    first, second = f"{at}.0.fn.fn", f"{at}.1.fn.fn"
    state |= {f"{first}.to_q.weight": rand(inner, u, 1, 1), f"{first}.to_kv.net.0.weight": rand(u, 1, 3, 3)}
    state |= {f"{first}.to_kv.net.1.weight": rand(2 * inner, u, 1, 1)}
    state |= {f"{first}.to_out.weight": rand(u, inner, 1, 1), f"{first}.to_out.bias": rand(u)}
    state |= {f"{second}.0.weight": rand(2 * u, u, 1, 1), f"{second}.0.bias": rand(2 * u)}
    state |= {f"{second}.2.weight": rand(u, 2 * u, 1, 1), f"{second}.2.bias": rand(u)}

    def affine(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    z = rand(N, Z)
    w = lrelu(0.1 * affine("SE.net.0", z / z.norm(dim=1, keepdim=True)))
    r = state["GE.initial_block"].expand(N, -1, -1, -1)
    r = F.conv2d(r, state["GE.initial_conv.weight"], state["GE.initial_conv.bias"], padding=1)
    x = channel_norm(state, f"{at}.0.fn.norm", r)
    found = everywhere(F.conv2d(x, state[f"{first}.to_q.weight"]), *separable(state, f"{first}.to_kv", x), heads)
    r = r + F.conv2d(found, state[f"{first}.to_out.weight"], state[f"{first}.to_out.bias"])
    x = channel_norm(state, f"{at}.1.fn.norm", r)
    x = lrelu(F.conv2d(x, state[f"{second}.0.weight"], state[f"{second}.0.bias"]))
    r = r + F.conv2d(x, state[f"{second}.2.weight"], state[f"{second}.2.bias"])
    for n in (1, 2):
        s = affine(f"{key}.to_style{n}", w) + 1
        m = state[f"{key}.conv{n}.weight"] * s[:, None, :, None, None]
        m = m / (m.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        r = torch.cat([F.conv2d(r[i : i + 1], m[i], padding=1) for i in range(N)])
        noise = affine(f"{key}.to_noise{n}", torch.full((1, 1), 0.5))
        r = lrelu(r + noise[..., None, None])
    s = affine(f"{key}.to_rgb.to_style", w) + 1
    image = F.conv2d(r * s[..., None, None], state[f"{key}.to_rgb.conv.weight"])
    G = loaded({"GAN": state | {"S.net.0.weight": rand(6, 6)}, "version": "1.8"})
    assert_draws(G, 2 * image - 1, z)


# ---- DCGAN: of the GAN zoo, and of classes


@pytest.mark.parametrize(("loss", "labelled"), [("WGANGP", True), ("DCGAN", False)])
def test_ganzoo_dcgan(loaded, loss, labelled):  # noqa: F811
    attributes = {"hat": {"order": 0, "values": ["no", "yes", "red"]}} if labelled else None
    state = {"formatLayer.weight": rand(Z + (3 if labelled else 0), 8, 4, 4)}
    for i, u in enumerate((8, 4)):
        if i:
            state[f"main.convTranspose{i}.weight"] = rand(8, 4, 4, 4)
        state |= {f"main.batchNorm{i}.{part}": rand(u) for part in ("weight", "bias", "running_mean")}
        state[f"main.batchNorm{i}.running_var"] = torch.rand(u) + 0.5
    state["main.outlayer.weight"] = rand(4, 3, 4, 4)

    def normed(i, r):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(r, *(state[f"main.batchNorm{i}.{part}"] for part in parts)).relu()

    z, labels = rand(N, Z), torch.tensor([2, 0, 1])
    given = torch.cat([z, F.one_hot(labels, 3).float()], 1) if labelled else z
    r = normed(0, F.conv_transpose2d(given[..., None, None], state["formatLayer.weight"]))
    r = normed(1, F.conv_transpose2d(r, state["main.convTranspose1.weight"], stride=2, padding=1))
    image = F.conv_transpose2d(r, state["main.outlayer.weight"], stride=2, padding=1)
    G = loaded({"config": {"lossCriterion": loss, "attribKeysOrder": attributes}, "avgG": state})
    assert_draws(G, image.tanh() if loss == "DCGAN" else image, z, labels if labelled else None)


class Branches(nn.Module):
    """Latents and one-hot classes, each with a first layer and a norm of its own; their maps side by side."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        if how == "branches":
            self.deconv1_1, self.deconv1_1_bn = nn.ConvTranspose2d(Z, 12, 4), nn.BatchNorm2d(12)
            self.deconv1_2, self.deconv1_2_bn = nn.ConvTranspose2d(5, 8, 4), nn.BatchNorm2d(8)
        else:
            self.label_emb = nn.Embedding(5, Z)
            self.deconv1, self.deconv1_bn = nn.ConvTranspose2d(Z, 20, 4), nn.BatchNorm2d(20)
        self.deconv2, self.deconv2_bn = nn.ConvTranspose2d(20, 10, 4, 2, 1), nn.BatchNorm2d(10)
        self.deconv3, self.deconv3_bn = nn.ConvTranspose2d(10, 6, 4, 2, 1), nn.BatchNorm2d(6)
        self.deconv4 = nn.ConvTranspose2d(6, 3, 4, 2, 1)

    def forward(self, z, labels):
        if self.how == "branches":
            hot = F.one_hot(labels, 5).float()[..., None, None]
            r = self.deconv1_1_bn(self.deconv1_1(z[..., None, None])).relu()
            r = torch.cat([r, self.deconv1_2_bn(self.deconv1_2(hot)).relu()], 1)
        else:
            r = self.deconv1_bn(self.deconv1((z * self.label_emb(labels))[..., None, None])).relu()
        r = self.deconv2_bn(self.deconv2(r)).relu()
        return self.deconv4(self.deconv3_bn(self.deconv3(r)).relu()).tanh()


@pytest.mark.parametrize("how", ["branches", "product"])
def test_dcgan_of_classes(loaded, how):  # noqa: F811
    net = Branches(how).train()
    with torch.no_grad():
        for _ in range(150):
            net(torch.randn(64, Z), torch.randint(5, (64,)))
    net.eval().requires_grad_(False)
    G = loaded(net.state_dict())
    assert (G.z_dim, G.classes) == (Z, 5)
    z, labels = rand(N, Z), torch.tensor([4, 0, 1])
    assert_draws(G, net(z, labels), z, labels)
