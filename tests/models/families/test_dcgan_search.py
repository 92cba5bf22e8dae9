"""Shapes that no tutorial has are found by the statistics, layer by layer."""

import pytest
import torch
from torch import nn

from ganlens.models.families.dcgan import from_state
from ganlens.models.families.dcgan_layers import Conv
from ganlens.models.families.dcgan_search import every_step

Z = 40


def with_statistics(net: nn.Sequential, law) -> nn.Sequential:
    """A network whose norms have seen 200 batches."""
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
        for _ in range(200):
            net(law(64))
    return net.eval()


def block(inputs: int, units: int, kernel: int, stride: int, padding: int = 0) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, units, kernel, stride, padding), nn.BatchNorm2d(units)]


def check(net: nn.Sequential, law) -> None:
    G, z = from_state(net.state_dict()), law(8)
    with torch.no_grad():
        found, expected = G.forward(z.flatten(1)), net(z)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-4, rtol=0)


def normal(count: int) -> torch.Tensor:
    return torch.randn(count, Z, 1, 1)


def uniform(count: int) -> torch.Tensor:
    return torch.rand(count, Z, 1, 1) * 2 - 1


@pytest.mark.slow
def test_kernels_of_3_and_4_without_padding():
    """28 pixels from 3, 6 and 13: with the usual padding the same kernels give 24."""
    torch.manual_seed(2)
    layers = [*block(Z, 48, 3, 2), nn.ReLU(), *block(48, 32, 4, 1), nn.ReLU(), *block(32, 24, 3, 2), nn.ReLU()]
    check(with_statistics(nn.Sequential(*layers, nn.ConvTranspose2d(24, 1, 4, 2), nn.Tanh()), normal), normal)


@pytest.mark.slow
def test_no_activation_behind_the_first_norm():
    torch.manual_seed(3)
    layers = [*block(Z, 48, 4, 1), nn.Conv2d(48, 48, 3, 1, 1), nn.BatchNorm2d(48), nn.LeakyReLU(0.2)]
    for inputs, units in ((48, 32), (32, 24)):
        layers += [*block(inputs, units, 4, 2, 1), nn.LeakyReLU(0.2)]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Tanh())
    check(with_statistics(net, uniform), uniform)


def test_every_step_is_tried_once():
    conv = Conv("a", (8, 4, 3, 3), True)
    steps = list(every_step(conv, 7))
    assert len(set(steps)) == len(steps)
    assert {(2, 0, 0), (2, 1, 1), (1, 1, 0), (3, 1, 2)} <= set(steps)
    assert {stride for stride, *_ in every_step(conv, 1)} == {1}
