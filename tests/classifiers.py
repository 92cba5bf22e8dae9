"""Two classifiers for tests: one of known wiring, and one that is trained to tell types of painted churches."""

from functools import cache

import numpy as np
import torch
from planted import Between
from torch import nn

import ganlens as gl
from ganlens.scenes.concepts import CONCEPTS
from ganlens.scenes.painter import paint_many

COLORS = ["red", "green", "blue"]


class Signs(nn.Module):
    """Scores of red, green and blue: the means of units 2, 4 and 0 of ``layer``; its units 1, 3 and 5 do nothing."""

    def __init__(self):
        super().__init__()
        self.layer, self.late = Between(), Between()

    def forward(self, x):
        red, green, blue = ((x + 1) / 2).unbind(1)
        r = self.layer(torch.stack([blue, red * green, red, green * blue, green, 1 - red], 1))
        return self.late(r[:, [2, 4, 0]]).mean((2, 3))


def signs(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 8, 8) in which one colour is a little stronger than the others, mostly, and which it is."""
    random = torch.Generator().manual_seed(5)
    labels = torch.randint(3, (n,), generator=random)
    level = torch.rand(n, 3, 1, 1, generator=random) + 0.5 * nn.functional.one_hot(labels, 3)[..., None, None]
    x = level / 1.5 * (0.8 + 0.2 * torch.rand(n, 3, 8, 8, generator=random))
    return 2 * x - 1, labels


def sign_classifier(n: int = 60) -> gl.Classifier:
    x, labels = signs(n)
    return gl.Classifier.wrap(Signs(), x, labels, class_names=COLORS, name="signs")


# ---- churches

TYPES = ["dome", "plain", "tower"]
LAYER = "9"  # the last one with cells
DOME, TOWER = (CONCEPTS.index((name, "part")) + 1 for name in ("dome", "tower"))


@cache
def painted(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) of churches of one type, and the type (N,): by the labels of the painter's pixels."""
    pictures, planes = paint_many(range(first, first + count), 32)
    dome, tower = ((planes == concept).any((1, 2)) for concept in (DOME, TOWER))
    one = ~(dome & tower)
    return pictures[one], np.where(dome, 0, np.where(tower, 2, 1))[one]


def block(before: int, units: int) -> list[nn.Module]:
    return [nn.Conv2d(before, units, 3, padding=1), nn.BatchNorm2d(units), nn.ReLU()]


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [*block(3, 16), nn.MaxPool2d(2), *block(16, 24), nn.MaxPool2d(2), *block(24, 24)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, len(TYPES)))


@cache
def trained(seed: int) -> nn.Sequential:
    """A network that has learned the types of churches: 8 rounds of some 400 images, 1 to 3 seconds."""
    pictures, types = painted(0, 500)
    x = torch.from_numpy(pictures).movedim(3, 1) / 127.5 - 1
    y, net = torch.from_numpy(types), network(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    steps = 8 * -(-len(x) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    net.train()
    for _ in range(8):
        for some in torch.randperm(len(x)).split(32):
            images = x[some] if torch.rand(()) < 0.5 else x[some].flip(3)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), y[some]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@cache
def church_classifier(seed: int = 0) -> gl.Classifier:
    """A trained network, with other churches than those that it has learned from."""
    pictures, types = painted(10_000, 600)
    return gl.Classifier.wrap(trained(seed), pictures, types, class_names=TYPES, name="church types")
