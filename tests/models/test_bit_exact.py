"""An image is its seed: alone, in any batch and with any number of threads it is the same to the bit, in all families.

Networks are as wide as published ones, where the libraries behind torch take other ways for other shapes.
"""

from itertools import pairwise

import pytest
import torch
from test_configurations import random_state
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.benchmark import progressive
from ganlens.models.bit_exact import Dense, Pointwise, dense, pointwise
from ganlens.models.families import dcgan, rewriting
from ganlens.models.families import progan_ablations as ablations
from ganlens.models.families.progan import ProgressiveGenerator
from ganlens.models.families.stylegan2_nvidia import from_nvidia

WIDE = (512, 512, 512, 512, 256, 256)  # up to 16x16


def progan(dtype: torch.dtype | None = None) -> gl.Generator:
    torch.manual_seed(0)
    G = progressive(ProgressiveGenerator(WIDE))
    if dtype is not None:
        assert rewriting.rewrite(G, dtype) is not None
    return G


def style(**options) -> gl.Generator:
    return from_nvidia(random_state(channels=(512, 512, 256), z_dim=512, w_dim=512, depth=2, **options))


def ablated() -> gl.Generator:
    torch.manual_seed(0)
    state = {}
    for i, (inputs, units) in enumerate(zip((512, *WIDE), (*WIDE, 3), strict=True)):
        key, side = ("output", 1) if i == len(WIDE) else (f"features.{i}", 4 if i == 0 else 3)
        state |= {f"{key}.conv.weight": torch.randn(units, inputs, side, side) / (inputs * side**2) ** 0.5}
        state |= {f"{key}.wscale.scale": torch.ones(1), f"{key}.wscale.b": torch.zeros(units)}
    return ablations.from_state(state)


def dcgan_() -> gl.Generator:
    torch.manual_seed(0)
    units = (100, 512, 256, 128)
    parts: list[nn.Module] = []
    for i, (inputs, outs) in enumerate(pairwise(units)):
        parts += [nn.ConvTranspose2d(inputs, outs, 4, 2 if i else 1, 1 if i else 0, bias=False)]
        parts += [nn.BatchNorm2d(outs), nn.ReLU()]
    net = nn.Sequential(*parts, nn.ConvTranspose2d(128, 3, 4, 2, 1), nn.Tanh()).train()
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches
    for _ in range(4):
        net(torch.randn(32, 100, 1, 1))
    return dcgan.from_state(net.eval().state_dict())


FAMILIES = {
    "scenes": gl.load_generator,
    "Progressive GAN": progan,
    "Progressive GAN, rewritten": lambda: progan(torch.float32),
    "Progressive GAN, bfloat16": lambda: progan(torch.bfloat16),
    "ablations": ablated,
    "StyleGAN2": style,
    "StyleGAN2, resnet": lambda: style(kind="resnet"),
    "StyleGAN2, classes": lambda: style(classes=7),
    "DCGAN": dcgan_,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_its_seed(family, threads):
    G = FAMILIES[family]()
    whole = G.generate(range(24))
    assert whole.std() > 0.05
    for start, stop in ((0, 1), (3, 4), (5, 7), (2, 5), (0, 8), (8, 16), (1, 24)):
        assert torch.equal(G.generate(range(start, stop)), whole[start:stop]), (start, stop)
    threads(2)
    assert torch.equal(G.generate(range(24)), whole)
    assert torch.equal(G.generate([3]), whole[3:4])


@pytest.mark.parametrize(("n", "c", "u"), [(1, 3, 2), (7, 512, 300), (8, 5, 4), (17, 64, 1)])
def test_linear_maps_are_what_they_should_be(n, c, u):
    x, weight, bias = torch.randn(n, c), torch.randn(u, c), torch.randn(u)
    torch.testing.assert_close(dense(x, weight, bias), F.linear(x, weight, bias), atol=1e-4, rtol=1e-4)
    module = Dense(c, u)
    torch.testing.assert_close(module(x), F.linear(x, module.weight, module.bias), atol=1e-4, rtol=1e-4)
    r, weight = torch.randn(n, c, 3, 5), weight[..., None, None]
    torch.testing.assert_close(pointwise(r, weight, bias), F.conv2d(r, weight, bias), atol=1e-4, rtol=1e-4)
    module = Pointwise(c, u)
    torch.testing.assert_close(module(r), F.conv2d(r, module.weight, module.bias), atol=1e-4, rtol=1e-4)
