"""The ablation networks compute what plain modules of torch compute, of which these are the tensors."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.models.files.reading import CheckpointError

UNITS = (12, 10, 8, 8, 6, 6)  # two layers at 4x4, 8x8 and 16x16


class PixelNorm(nn.Module):
    def forward(self, x):
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


class WScale(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.scale, self.b = nn.Parameter(torch.rand(1) + 0.5), nn.Parameter(torch.randn(units))

    def forward(self, x):
        return x * self.scale + self.b.view(1, -1, 1, 1)


def block(kind, inputs, units, side, padding, *, norm=False, up=False, relu=True):
    """One step, in the order in which it runs."""
    parts = {
        "pixel": PixelNorm() if norm else None,
        "up": nn.Upsample(scale_factor=2) if up else None,
        "conv": nn.Conv2d(inputs, units, side, padding=padding, bias=kind == "bias"),
        "wscale": WScale(units) if kind == "scale" else None,
        "norm": nn.BatchNorm2d(units) if kind == "norm" else None,
        "relu": (nn.ReLU() if kind == "norm" else nn.LeakyReLU(0.2)) if relu else None,
    }
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))


def reference(name: str) -> nn.Sequential:
    """The network of a published name, small and with random numbers."""
    torch.manual_seed(0)
    every = name == "proggan-pixelwise-normalization"
    kind = {"pixelwise": "scale", "equalized": "scale", "minibatch": "bias"}.get(name.split("-")[1], "norm")
    features = [block(kind, 16, UNITS[0], 4, 3, norm=kind != "norm")]
    for i in range(1, len(UNITS)):
        features.append(block(kind, UNITS[i - 1], UNITS[i], 3, 1, norm=every, up=i in (2, 4)))
    last = "bias" if kind == "norm" else kind
    output = block(last, UNITS[-1], 3, 1, 0, norm=kind == "scale", relu=False)
    net = nn.Sequential(OrderedDict(features=nn.Sequential(*features), output=output))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return net.eval()


NAMES = [name for name, model in gl.list_models().items() if "/ablations/" in model.url]


@pytest.mark.parametrize("name", NAMES)
def test_images_and_layers(name, tmp_path):
    """Under the file's published name, as somebody has it who fetched it by hand."""
    net = reference(name)
    path = tmp_path / gl.list_models()[name].file
    torch.save(net.state_dict(), path)
    G = gl.load_generator(path)
    assert list(G.layers) == [*(f"layer{i}" for i in range(1, 7)), "output_16x16"]
    assert G.z_dim == 16
    z = G.latents(range(3))
    _, features = G.read(z, list(G.layers))
    x = z[:, :, None, None]
    for layer, part in zip(G.layers, [*net.features, net.output], strict=True):
        x = part(x)
        torch.testing.assert_close(features[layer], x, atol=1e-4 * float(x.detach().std()), rtol=0)
    torch.testing.assert_close(G.net(z), x)


def test_there_are_seven():
    assert len(NAMES) == 7


def test_older_batch_norms(tmp_path):
    """They do not count batches."""
    state = {k: v for k, v in reference("proggan-wgangp").state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "net.pth")
    assert gl.load_generator(tmp_path / "net.pth").image_shape == (3, 16, 16)


@pytest.mark.parametrize("change", ["missing", "left over", "shape", "layers"])
def test_refused(change, tmp_path):
    state = reference("proggan-minibatch-stddev").state_dict()
    if change == "missing":
        del state["features.2.conv.bias"]
    elif change == "left over":
        state["features.2.wscale.b"] = torch.zeros(8)
    elif change == "shape":
        state["features.2.conv.weight"] = torch.zeros(8, 10, 5, 5)
    else:
        del state["output.conv.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="closest to Progressive GAN ablation, but"):
        gl.load_generator(tmp_path / "net.pth")
