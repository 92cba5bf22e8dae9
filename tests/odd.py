"""Generators as people write them, none of them a plain chain to 3 channels in [-1, 1]; for tests."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

Z = 6


class Conditional(nn.Module):
    """Takes latents (N, Z) and classes (N,); a sigmoid at the end. Class c lifts unit c of ``scale``."""

    def __init__(self, classes: int = 3):
        super().__init__()
        torch.manual_seed(10)
        self.dense = nn.Linear(Z, 5 * 16)
        self.embed = nn.Embedding(classes, 5)
        self.scale = nn.Identity()
        self.paint = nn.ConvTranspose2d(5, 3, 4, 2, 1)
        with torch.no_grad():
            self.embed.weight.copy_(2 * torch.eye(classes, 5))

    def forward(self, z, labels):
        r = self.dense(z).relu().unflatten(1, (5, 4, 4)) + self.embed(labels)[..., None, None]
        return torch.sigmoid(self.paint(self.scale(r)))


class OneHot(nn.Module):
    """Takes latents as maps (N, Z, 1, 1), and classes as one-hot vectors."""

    def __init__(self, classes: int = 4):
        super().__init__()
        torch.manual_seed(11)
        self.first = nn.ConvTranspose2d(Z + classes, 8, 4)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def forward(self, z, labels):
        z = torch.cat([z, labels[..., None, None]], 1)
        return self.last(self.act(self.first(z))).tanh()


class SkipBlock(nn.Module):
    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, padding=1)
        self.conv2 = nn.Conv2d(units, units, 3, padding=1)
        self.skip = nn.Conv2d(inputs, units, 1)

    def forward(self, r):
        r = F.interpolate(r, scale_factor=2.0)
        inner = self.conv2(F.relu_(self.conv1(F.relu(r))))
        inner += self.skip(r)
        return inner


class Skips(nn.Module):
    """Residual blocks, and pictures of each resolution that are added up; a tuple at the end."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(12)
        self.dense = nn.Linear(Z, 6 * 15)
        self.blocks = nn.ModuleList([SkipBlock(6, 6), SkipBlock(6, 4)])
        self.colors = nn.ModuleList([nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1), nn.Conv2d(4, 3, 1)])

    def forward(self, z):
        r = self.dense(z).unflatten(1, (6, 3, 5))
        image = self.colors[0](r)
        for block, color in zip(self.blocks, self.colors[1:], strict=True):
            r = block(r)
            image = F.interpolate(image, scale_factor=2.0) + color(r)
        return r, image.tanh()


class Modulated(nn.Module):
    """A learned constant whose convolutions are scaled by a style, all images of a batch in one grouped convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(13)
        self.mapping = nn.Sequential(nn.Linear(Z, 7), nn.LeakyReLU(0.2), nn.Linear(7, 7))
        self.constant = nn.Parameter(torch.randn(1, 5, 4, 4))
        self.affines = nn.ModuleList([nn.Linear(7, 5), nn.Linear(7, 6)])
        self.weights = nn.ParameterList([torch.randn(1, 6, 5, 3, 3), torch.randn(1, 6, 6, 3, 3)])
        self.acts = nn.ModuleList([nn.LeakyReLU(0.2, inplace=True), nn.LeakyReLU(0.2, inplace=True)])
        self.paint = nn.Conv2d(6, 3, 1)

    def forward(self, z):
        w, n = self.mapping(z), len(z)
        r = self.constant.repeat(n, 1, 1, 1)
        for affine, weight, act in zip(self.affines, self.weights, self.acts, strict=True):
            weight = weight * (1 + affine(w))[:, None, :, None, None]
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
            size = r.shape[2:]
            r = F.conv2d(r.reshape(1, -1, *size), weight.flatten(0, 1), padding=1, groups=n).unflatten(1, (n, -1))[0]
            r = F.interpolate(act(r), scale_factor=2.0, mode="bilinear")
        return {"w": w, "image": self.paint(r)}


class Grey(nn.Sequential):
    """28 x 28, one channel, from latents as maps; a sigmoid that is a function."""

    def __init__(self):
        torch.manual_seed(14)
        super().__init__(
            nn.ConvTranspose2d(Z, 8, 7),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 6, 4, 2, 1),
            nn.ReLU(True),
            nn.ConvTranspose2d(6, 1, 4, 2, 1),
        )
        self[1].running_mean += 0.1  # it has seen data
        self.eval()

    def forward(self, z):
        return torch.sigmoid(super().forward(z))


class Ten(nn.Module):
    """14 x 28, ten channels: one score per class. Unit c of ``layer`` is the score of class c, where c < 10."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(15)
        self.dense = nn.Linear(Z, 12 * 7 * 14)
        self.layer = nn.Identity()
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, z):
        return 4 * self.up(self.layer(self.dense(z).unflatten(1, (12, 7, 14)))[:, :10])


class Remembers(nn.Module):
    """Hands a skip on in an attribute of a module: it cannot be resumed in front of where that is used."""

    class Front(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(Z, 4 * 16)

        def forward(self, z):
            self.skip = z[:, :4].sin()
            return self.dense(z).unflatten(1, (4, 4, 4))

    def __init__(self):
        super().__init__()
        torch.manual_seed(16)
        self.front, self.middle, self.paint = self.Front(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, z):
        r = self.middle(self.front(z))
        return self.paint(r + self.front.skip[..., None, None]).tanh()


class Reused(nn.Module):
    """One convolution that runs three times, and an object as output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(17)
        self.dense = nn.Linear(Z, 4 * 16)
        self.conv, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.middle, self.paint = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, z):
        r = self.act(self.conv(self.dense(z).unflatten(1, (4, 4, 4))))
        r = self.middle(self.conv(r) + r)
        return SimpleNamespace(features=r, image=(self.paint(self.act(self.conv(r))).tanh() + 1) / 2)
