"""Generators in shapes that no tutorial has, with statistics of real passes: loaded right, never wrong in silence."""

import random
import warnings

import pytest
import torch
from torch import nn

from ganlens.models.families.dcgan import from_state
from ganlens.models.families.dcgan_layers import USUAL_SIZES, Conv, every_step
from ganlens.models.files.pickles import CheckpointError

Z = 24
STEPS = [(4, 2, 1, 0), (4, 2, 1, 0), (3, 2, 1, 1), (5, 2, 2, 1), (3, 2, 0, 0), (4, 2, 0, 0), (2, 2, 0, 0), (4, 1, 0, 0)]
REFINE = "refine"  # a convolution of 3 that keeps the maps as they are
DOUBLE = "double"  # the same behind an nn.Upsample


def shape(dice: random.Random) -> tuple[int, list]:
    """Side in front (1 for a latent), and steps to an image of a usual size."""
    while True:
        side = start = dice.choice((1, 1, 1, 4, 7, 8))
        middle = STEPS if dice.random() < 0.8 else [DOUBLE]
        steps: list = [(dice.choice((3, 4)), 1, 0, 0)] if start == 1 else []
        steps += [dice.choice(middle) for _ in range(dice.choice((2, 3)))]
        steps += [REFINE] if middle == [DOUBLE] else []
        if dice.random() < 0.2:
            steps.insert(dice.randrange(1, len(steps)), REFINE)
        for step in steps:
            if step == DOUBLE:
                side *= 2
            elif step != REFINE:
                kernel, stride, padding, more = step
                side = (side - 1) * stride - 2 * padding + kernel + more
        if steps[-1] == DOUBLE:
            continue  # nothing could tell
        if side in USUAL_SIZES and side <= 64:
            return start, steps


def with_statistics(net: nn.Sequential, law: str, batches: int = 110) -> nn.Sequential:
    """A network whose norms have seen some batches, as after some training."""
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
        for _ in range(batches):
            net(latents(64, law))
    return net.eval()


def network(seed: int, normed: float) -> tuple[nn.Sequential, str]:
    """A network with statistics of passes of 64 images, and the law of its latents.

    Each layer but the last has a norm behind it with a probability of ``normed``.
    """
    dice = random.Random(seed)
    torch.manual_seed(seed)
    start, steps = shape(dice)
    law, early = dice.choice(("normal", "normal", "uniform")), dice.random() < 0.2
    bare = not early and len(steps) > 2 and dice.random() < 0.2
    act = nn.LeakyReLU(0.2) if dice.random() < 0.4 else nn.ReLU()
    units = dice.choice((10, 14))
    layers: list[nn.Module] = []
    if start > 1:
        flat = dice.random() < 0.5
        layers += [nn.Linear(Z, units * start**2)]
        norms = [nn.BatchNorm1d(units * start**2)] if flat else [nn.BatchNorm2d(units)]
        maps, behind = [nn.Unflatten(1, (units, start, start))], [] if bare else [act]
        if dice.random() < normed:
            behind = [act, *norms] if early else [*norms, *behind]
            layers += [*behind, *maps] if flat else [*maps, *behind]
        else:
            layers += [act, *maps]
    else:
        layers += [nn.Unflatten(1, (Z, 1, 1))]
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        after = dice.choice((1, 3)) if last else units if step == REFINE else dice.choice((10, 14))
        before = Z if start == 1 and i == 0 else units
        bias = dice.random() < 0.3
        if step in (REFINE, DOUBLE):
            layers += [nn.Upsample(scale_factor=2)] if step == DOUBLE else []
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=bias)]
        else:
            kernel, stride, padding, more = step
            layers += [nn.ConvTranspose2d(before, after, kernel, stride, padding, more, bias=bias)]
        units = after
        if not last:
            norm = [nn.BatchNorm2d(after)] if dice.random() < normed else []
            first = start == 1 and i == 0
            acts = [] if bare and first and norm else [act]
            layers += [*acts, *norm] if early else [*norm, *acts]
    net = nn.Sequential(*layers, nn.Tanh())
    return with_statistics(net, law, 110 if normed == 1 else 300), law


def latents(count: int, law: str) -> torch.Tensor:
    return torch.randn(count, Z) if law == "normal" else torch.rand(count, Z) * 2 - 1


def verdict(seed: int, normed: float = 1.0) -> str:
    net, law = network(seed, normed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            G = from_state(net.state_dict())
        except CheckpointError:
            return "refused"
    z = latents(8, law)
    with torch.no_grad():
        found, expected = G.forward(z), net(z)
    right = found.shape[2:] == expected.shape[2:] and torch.allclose(found, expected.expand_as(found), atol=1e-4)
    return "right" if right and G.law == law else "said" if caught else "wrong"


def check_all(seeds: range) -> None:
    found = [verdict(seed) for seed in seeds]
    assert {seed: word for seed, word in zip(seeds, found, strict=True) if word in ("wrong", "refused")} == {}
    assert found.count("right") >= 0.97 * len(found)


def test_six():
    check_all(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(6, 166, 40))
def test_many(start):
    check_all(range(start, start + 40))


def test_what_no_norm_tells_is_not_wrong_in_silence():
    assert "wrong" not in {verdict(seed, 0.6) for seed in range(5)}


@pytest.mark.slow
def test_what_no_norm_tells_is_not_wrong_in_silence_at_length():
    assert "wrong" not in {verdict(seed, 0.6) for seed in range(8, 40)}


def block(inputs: int, units: int, kernel: int, stride: int, padding: int = 0) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, units, kernel, stride, padding), nn.BatchNorm2d(units)]


def check(layers: list[nn.Module], law: str) -> None:
    net = with_statistics(nn.Sequential(nn.Unflatten(1, (Z, 1, 1)), *layers, nn.Tanh()), law)
    G, z = from_state(net.state_dict()), latents(8, law)
    with torch.no_grad():
        found, expected = G.forward(z), net(z)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-4, rtol=0)


def test_kernels_of_3_and_4_without_padding():
    """28 pixels from 3, 6 and 13: with the usual padding the same kernels give 24."""
    torch.manual_seed(2)
    layers = [*block(Z, 48, 3, 2), nn.ReLU(), *block(48, 32, 4, 1), nn.ReLU(), *block(32, 24, 3, 2), nn.ReLU()]
    check([*layers, nn.ConvTranspose2d(24, 1, 4, 2)], "normal")


def test_no_activation_behind_the_first_norm():
    torch.manual_seed(3)
    layers = [*block(Z, 48, 4, 1), nn.Conv2d(48, 48, 3, 1, 1), nn.BatchNorm2d(48), nn.LeakyReLU(0.2)]
    for inputs, units in ((48, 32), (32, 24)):
        layers += [*block(inputs, units, 4, 2, 1), nn.LeakyReLU(0.2)]
    check([*layers, nn.ConvTranspose2d(24, 3, 4, 2, 1)], "uniform")


def test_every_step_is_tried_once():
    conv = Conv("a", (8, 4, 3, 3), True)
    steps = list(every_step(conv, 7))
    assert len(set(steps)) == len(steps)
    assert {(2, 0, 0), (2, 1, 1), (1, 1, 0), (3, 1, 2)} <= set(steps)
    assert {stride for stride, *_ in every_step(conv, 1)} == {1}
