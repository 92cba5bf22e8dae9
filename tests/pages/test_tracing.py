"""Networks as steps for a page: against torch itself, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.pages.painting_page import program_of, segmenter_program
from ganlens.pages.program import Program
from ganlens.pages.tracing import traced

DATA = Path(__file__).parents[1] / "data"


def of_net(net: nn.Module, z_dim: int = 12, layers=()) -> Program:
    torch.manual_seed(0)
    return traced(net.eval(), net, torch.randn(8, z_dim), layers)


def chain(*modules: nn.Module) -> nn.Module:
    """Latents of 12 numbers to maps (6, 4, 5), and what follows."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 120), nn.Unflatten(1, (6, 4, 5)), *modules).eval()


def trained(units: int) -> nn.BatchNorm2d:
    """A batch norm that has seen something."""
    norm = nn.BatchNorm2d(units)
    norm.running_mean, norm.running_var = torch.randn(units), torch.rand(units) + 0.5
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class PixelNorm(nn.Module):
    def forward(self, r):
        return r / torch.sqrt(r.pow(2).mean(1, keepdim=True) + 1e-8)


class Skip(nn.Module):
    """Two paths that meet: by a sum, a product, and side by side."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, r):
        other = self.conv(r)
        return torch.cat([r + other, r * other.sigmoid(), 2 * r - 1], 1)


class Style(nn.Module):
    """A number of each unit, from the map itself, for all cells; and a map of one unit for all units."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(120, 6)

    def forward(self, r):
        style = self.linear(r.flatten(1))[:, :, None, None]
        return (r + style) * style * r.mean(1, keepdim=True)


class Twice(nn.Module):
    def forward(self, r):
        h = r.relu() * 2
        return (h + 1).relu() + h


CHAINS = {
    "style": chain(Style()),
    "affine twice": chain(Twice()),
    "grey": chain(nn.Conv2d(6, 1, 1), Lambda(lambda r: r.expand(-1, 3, -1, -1))),
    "transposed with more": chain(nn.ConvTranspose2d(6, 9, 3, 2, 1, output_padding=1, bias=False)),
    "oblong": chain(nn.Conv2d(6, 4, (1, 3), (2, 1), padding=(0, 2))),
    "depthwise": chain(nn.Conv2d(6, 6, 3, padding=1, groups=6)),
    "replicate": chain(nn.Conv2d(6, 4, 3, padding=1, padding_mode="replicate")),
    "reflect": chain(nn.ReflectionPad2d((1, 2, 0, 1)), nn.Conv2d(6, 4, 3)),
    "batch norm": chain(nn.Conv2d(6, 5, 3), trained(5), nn.ReLU(), trained(5)),
    "pixel norm": chain(PixelNorm(), nn.LeakyReLU(0.2, inplace=True)),
    "nearest": chain(nn.Upsample(scale_factor=3)),
    "bilinear": chain(nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear by corners": chain(nn.UpsamplingBilinear2d(scale_factor=2)),
    "pooling": chain(nn.MaxPool2d(2), nn.Tanh(), nn.Hardtanh()),
    "two paths": chain(Skip()),
    "flat again": chain(nn.Flatten(), nn.Linear(120, 24), nn.Unflatten(1, (3, 4, 2)), nn.Sigmoid()),
}
for k in (1, 2, 3, 4, 5):
    sizes = [(stride, padding) for stride in (1, 2, 3) for padding in (0, 1) if k > 2 * padding]
    CHAINS |= {f"transposed {k} {s} {p}": chain(nn.ConvTranspose2d(6, 7, k, s, p)) for s, p in sizes}
    if k % 2:
        CHAINS |= {f"convolution {k} {s}": chain(nn.Conv2d(6, 11, k, s, padding=k // 2)) for s in (1, 2)}


@pytest.mark.parametrize("name", CHAINS)
def test_steps_give_what_the_network_gives(name):
    net = CHAINS[name]
    program, z = of_net(net), torch.randn(3, 12)
    found = torch.cat([program.run(row) for row in z]).float()
    torch.testing.assert_close(found.reshape(3, -1), net(z).detach().reshape(3, -1), rtol=1e-4, atol=1e-5)


def test_packing_keeps_every_number():
    program = of_net(chain(nn.Conv2d(6, 5, 3), trained(5)))
    program.weights[0][:] = np.float16(program.weights[0])  # one that fits halves
    told, content = program.packed()
    for step, packed in zip(program.steps, told["steps"], strict=True):
        for part, place in zip(step.get("parts", ()), packed.get("parts", ()), strict=True):
            start, count, half = place["weight"]
            array = np.frombuffer(content, np.float16 if half else np.float32, count, start)
            np.testing.assert_array_equal(array.astype(np.float32), program.array(part["weight"]))
    assert len(content) < 4 * sum(map(len, program.weights))


def test_pixel_norms_become_one_step():
    class Scenes(nn.Module):
        def forward(self, r):
            return r * torch.rsqrt(r.square().mean(1, keepdim=True) + 1e-8)

    told, _ = of_net(chain(Scenes())).packed()
    assert [step["op"] for step in told["steps"]][-1] == "pixelnorm"


@pytest.mark.parametrize("name", ["scenes", "proggan_32.pth", "proggan_64_old.pth"])
@pytest.mark.parametrize("fast", [True, False])
def test_generators(name, fast):
    G = gl.load_generator(name) if name == "scenes" else gl.load_generator(DATA / name, fast=fast)
    program = program_of(G, list(G.layers))
    assert {*G.layers} <= {*program.layers}
    layer = list(G.layers)[3]
    edit = gl.insert(layer, [0, 3], level=2.0)
    change = lambda name, r: edit.apply(r) if name == layer else r  # noqa: E731
    for seed in range(2):
        z, expected = G.latents([seed]), (G.generate([seed]), G.generate([seed], edit))
        found = program.run(z).float(), program.run(z, change).float()
        for image, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)


def test_dcgan():
    def block(a, b, *where):
        return nn.Sequential(nn.ConvTranspose2d(a, b, 4, *where, bias=False), trained(b), nn.ReLU(True))

    torch.manual_seed(2)
    net = nn.Sequential(block(10, 16, 1, 0), block(16, 8, 2, 1), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    G = gl.Generator.wrap(nn.Sequential(nn.Unflatten(1, (10, 1, 1)), *net).eval(), 10)
    program = program_of(G, list(G.layers))
    torch.testing.assert_close(program.run(G.latents([5])).float(), G.generate([5]), rtol=0, atol=1e-5)


def test_segmenter(G, S):
    program, x = segmenter_program(S, G), G.generate([3])
    torch.testing.assert_close(program.run(x).float(), S.logits(x), rtol=0, atol=1e-3)


class Weighs(nn.Module):
    def forward(self, r):
        return r * r.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Softmax(1), "module '2' uses _softmax"),
        (nn.Conv2d(6, 6, 3, dilation=2, padding=2), "module '2' is a convolution with dilation"),
        (nn.Conv2d(6, 6, 1, groups=2), "module '2' is a convolution of 2 groups"),
        (nn.GroupNorm(2, 6), "module '2'"),
        (nn.Upsample(size=(7, 9)), "module '2' enlarges by a fraction"),
        (nn.MaxPool2d(3, 1), "module '2' is a pooling whose windows overlap"),
        (nn.MaxPool2d(3, ceil_mode=True), "module '2' is a pooling with ceil_mode"),
        (nn.ConvTranspose2d(6, 6, 3, (2, 1)), "module '2' is a transposed convolution with strides"),
        (Lambda(lambda r: r * r.sum()), "module '2'"),
        (Lambda(lambda r: r[:, :, :1].expand(-1, -1, 4, -1)), "module '2'"),
        (Weighs(), "module '2' takes a mean over something else than units"),
    ],
)
def test_what_cannot_run_is_named(module, message):
    with pytest.raises(ValueError, match=message):
        of_net(chain(module))


def test_layers_that_share_a_map():
    """The input itself, a module that does nothing, and a container with its last child: edits stay what they are."""
    net = nn.Sequential(nn.Unflatten(1, (3, 2, 2)), nn.Identity(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    program, z = of_net(net, layers=["0", "1", "2", "2.1"]), torch.randn(1, 12)
    assert len({*program.layers.values()}) == 4
    times = {"0": 2.0, "1": 3.0, "2": 5.0, "2.1": 7.0}
    for names in (["0"], ["1", "2"], ["2.1"], list(times)):
        r = net[0](z) * np.prod([times[name] for name in names if name in ("0", "1")])
        expected = net[2](r) * np.prod([times[name] for name in names if name in ("2", "2.1")])
        found = program.run(z, lambda name, r, names=names: r * times[name] if name in names else r)
        torch.testing.assert_close(found.float(), expected)


def test_networks_that_learn():
    net = gl.load_generator(DATA / "proggan_32.pth", fast=False).net.requires_grad_(True)
    G = gl.Generator.wrap(net, gl.load_generator(DATA / "proggan_32.pth").z_dim)
    assert program_of(G, list(G.layers)).steps
    assert all(parameter.requires_grad for parameter in net.parameters())
    net.requires_grad_(False)


def test_images_that_depend_on_each_other():
    class Mixes(nn.Module):
        def forward(self, r):
            return r + r.mean(0, keepdim=True)

    with pytest.raises(ValueError, match="module '2'"):
        of_net(chain(Mixes()))


def test_an_output_without_input():
    class Constant(nn.Module):
        def forward(self, r):
            return torch.ones(len(r), 3, 4, 4)

    with pytest.raises(ValueError, match="does not depend on its input"):
        of_net(Constant())


def test_functions_are_known_too():
    class Net(nn.Module):
        def forward(self, z):
            r = F.leaky_relu(z.view(-1, 3, 2, 2), 0.1)
            return F.pad(F.interpolate(r, scale_factor=2.0), (1, 1, 1, 1)).clamp(-1, 1)

    net, z = Net(), torch.randn(1, 12)
    torch.testing.assert_close(of_net(net).run(z).float(), net(z))
