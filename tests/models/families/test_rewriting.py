"""Networks rewritten for speed compute what they computed before, under the same names."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.models.base import Generator
from ganlens.models.families.progan import ProgressiveGenerator
from ganlens.models.families.rewriting import TOLERANCE, Rewritable, doubling, rewrite

DATA = Path(__file__).parents[2] / "data"
UNITS = (24, 24, 24, 16, 16, 8, 8)


def made() -> Generator:
    torch.manual_seed(0)
    net = ProgressiveGenerator(UNITS, z_dim=32).requires_grad_(False)
    return Generator.wrap(net, z_dim=32, output="tanh", layers=[f"layer{i + 1}" for i in range(len(UNITS))])


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 6, 7), (3, 8, 4, 4)])
def test_doubling_is_nearest_neighbours_and_convolution(shape):
    r, weight = torch.randn(shape, dtype=torch.float64), torch.randn(3, shape[1], 3, 3, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(r, scale_factor=2.0, mode="nearest"), weight, padding=1)
    kernel = doubling(weight.float()).double()
    found = F.conv_transpose2d(r, kernel, stride=2, padding=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("file", ["proggan_32.pth", "proggan_64_old.pth", None])
def test_every_layer_stays_what_it_was(file):
    G = made() if file is None else gl.load_generator(DATA / file)
    for part in G.net.modules():
        if isinstance(part, Rewritable):
            part.become(None)
    z, print_, layers = G.latents(range(3)), G.fingerprint, G.layers
    images, features = G.read(z, list(layers))
    assert rewrite(G) <= TOLERANCE[torch.float32]
    assert all(part.kernel is not None for part in G.net.modules() if isinstance(part, Rewritable))
    assert (G.fingerprint, G.layers) == (print_, layers)
    found, rewritten = G.read(z, list(layers))
    torch.testing.assert_close(found, images, atol=1e-4 * float(images.std()), rtol=0)
    for layer, r in features.items():
        torch.testing.assert_close(rewritten[layer], r, atol=1e-4 * float(r.std()), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_is_its_seed(dtype):
    G = made()
    assert rewrite(G, dtype) <= TOLERANCE[dtype]
    alone = torch.cat([G.generate(seed) for seed in range(5)])
    assert alone.dtype == torch.float32
    torch.testing.assert_close(alone, G.generate(range(5)), atol=2e-5 if dtype == torch.float32 else 0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_resuming_and_gradients_go_through_it(dtype):
    G, tolerance = made(), 1e-4 if dtype == torch.float32 else 0.25  # of one pixel
    plain = {layer: made().generate(range(2), gl.insert(layer, [1], 2.0)) for layer in G.layers}
    rewrite(G, dtype)
    for layer, expected in plain.items():
        edit = gl.insert(layer, [1], 2.0)
        torch.testing.assert_close(G.generate(range(2), edit), expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(G.open(layer, range(2)).edited(edit), expected, atol=tolerance, rtol=0)
    z = G.latents(range(2)).requires_grad_()
    G.net(z).square().sum().backward()
    other = z.detach().clone().requires_grad_()
    made().net(other).square().sum().backward()
    assert torch.cosine_similarity(z.grad.flatten(), other.grad.flatten(), 0) > (
        0.9999 if dtype == torch.float32 else 0.9
    )


def test_a_faster_form_that_differs_is_not_taken():
    class Wrong(Rewritable):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3, 1, 1), requires_grad=False)

        def folded(self):
            return self.weight * 1.001

        def plain(self, r):
            return F.conv2d(r, self.weight)

        def rewritten(self, r):
            return F.conv2d(r, self.kernel)

    net = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), Wrong())
    G = Generator.wrap(net, z_dim=4, output="tanh")
    before = G.generate(range(3))
    assert rewrite(G) is None
    assert torch.equal(G.generate(range(3)), before)


def test_loading_takes_it_unless_told_otherwise():
    plain, fast, half = (gl.load_generator(DATA / "proggan_32.pth", fast=fast) for fast in (False, True, "bfloat16"))
    assert plain.net.layer3.kernel is None
    assert fast.net.layer3.kernel.dtype == torch.float32
    assert half.net.layer3.kernel.dtype == torch.bfloat16
    assert plain.fingerprint == fast.fingerprint != half.fingerprint
    with pytest.raises(ValueError, match="expected True, False or 'bfloat16'"):
        gl.load_generator(DATA / "proggan_32.pth", fast="float16")


def test_other_networks_stay_as_they_are():
    G = Generator.wrap(nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh()), z_dim=4)
    assert rewrite(G) is None
