"""Small generators whose truth is known, for tests: `Generator.wrap` makes them complete."""

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.segmenters.base import Segmenter

Z = 4


class Between(nn.Module):
    """Hands its input on, so that a tensor between two modules becomes a layer."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, r):
        self.calls += 1
        return r.clone()


class Discs(nn.Module):
    """A white disc on black where the latent says; unit 7 of ``layer`` is the disc, all others are noise.

    Images are drawn from unit 7 alone.
    """

    def __init__(self, size: int = 32, units: int = 12):
        super().__init__()
        self.layer = Between()
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        self.register_buffer("y", y)
        self.register_buffer("x", x)
        self.register_buffer("mix", torch.randn(units, Z, size, size, generator=torch.Generator().manual_seed(0)))

    def forward(self, z):
        size = len(self.y)
        centre = (size * (0.5 + z[:, :2].clamp(-2, 2) / 5))[..., None, None]
        disc = (self.y - centre[:, 0]) ** 2 + (self.x - centre[:, 1]) ** 2 < (size / 9) ** 2
        r = combine(self.mix, z)
        r[:, 7] = disc.float()
        return 2 * self.layer(r)[:, 7:8].expand(-1, 3, -1, -1) - 1


class Lattice(nn.Module):
    """Features that are multiples of 1/16, so that they can be interpolated to 4 times the size without rounding.

    Unit 0 is dead, unit 1 is always 2, units 2 and 3 are rectified, unit 4 is below zero. The picture shows blurred
    features, so that concepts taken from it have something to do with units.
    """

    def __init__(self, units: int = 9, height: int = 4, width: int = 6, exact: bool = True):
        super().__init__()
        self.exact, self.layer = exact, Between()
        self.register_buffer("mix", torch.randn(units, Z, height, width, generator=torch.Generator().manual_seed(1)))

    def forward(self, z):
        r = combine(self.mix, z).clamp(-7, 7)
        r[:, 0], r[:, 1], r[:, 2:4], r[:, 4] = 0, 2, r[:, 2:4].relu(), -r[:, 4].abs() - 1
        r = self.layer((r * 16).round() / 16 if self.exact else r)
        x = F.interpolate(r[:, 2:8], scale_factor=4.0)
        return (x[:, :3] + 0.5 * x[:, 3:]).sin()


def combine(mix, z):
    """Sum of ``mix`` (U, Z, H, W) weighted by latents, one product at a time: rounded alike in every batch."""
    return sum(z[:, i, None, None, None] * mix[:, i] for i in range(Z))


def two_planes(x):
    """Labels (N, 2, Y, X): concepts 1, 2, 3 by the first channel; 4 and 5 by the second, in some images only."""
    objects = 1 * (x[:, 0] > 0.3) + 2 * (x[:, 0] < -0.6) + 3 * ((x[:, 0] > -0.1) & (x[:, 0] < 0))
    some = (x[:, 2].mean((1, 2)) > 0)[:, None, None]
    materials = some * (4 * (x[:, 1] > 0.5) + 5 * (x[:, 1] < -0.8))
    return torch.stack([objects, materials], 1)


TWO_PLANES = [(name, "object") for name in ("above", "below", "between")]
TWO_PLANES += [("hot", "material"), ("cold", "material")]


class Block(nn.Module):
    """Adds its own convolution to its input, in place, with an activation that it shares with others."""

    def __init__(self, units: int, act: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(units, units, 3, padding=1)
        self.conv2 = nn.Conv2d(units, units, 3, padding=1)
        self.act = act

    def forward(self, r):
        inner = self.conv2(self.act(self.conv1(r)))
        inner += r
        return inner


class Residual(nn.Module):
    """Skips within blocks, one activation everywhere, ReLU and sums in place: as networks are really written."""

    def __init__(self, units: int = 6, late: bool = False):
        super().__init__()
        torch.manual_seed(2)
        self.act = nn.ReLU(inplace=True)
        self.dense = nn.Linear(Z, units * 16)
        self.stem = nn.Conv2d(units, units, 1)
        self.block1 = Block(units, self.act)
        self.block2 = Block(units, self.act)
        self.up = nn.Upsample(scale_factor=2)
        self.norm = nn.BatchNorm2d(units)
        self.norm.running_mean += 0.1  # it has seen data
        self.style = nn.Linear(Z, units) if late else None
        self.paint = nn.Conv2d(units, 3, 1)
        self.fail = False

    def forward(self, z):
        r = self.act(self.stem(self.dense(z).unflatten(1, (-1, 4, 4))))
        r = self.up(self.block1(r))
        r = self.block2(r)
        if self.fail:
            raise RuntimeError("as asked")
        r = self.norm(r)
        if self.style is not None:
            r = r + self.style(z)[..., None, None]
        return torch.tanh(self.paint(r))


class TwoColors(nn.Module):
    """Unit 0 draws red, unit 1 draws green, units 2 … 7 do nothing; the latent (N, 64) decides where."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, z):
        pattern = torch.stack([z, z.roll(3, 1), *[z.roll(k, 1) for k in range(4, 10)]], 1)  # (N, 8, 64)
        r = self.layer((pattern.unflatten(2, (8, 8)) > 0.8).float())
        blue = torch.zeros_like(r[:, :1])
        return torch.cat([r[:, :2], blue], 1) * 2 - 1


def two_colors(x):
    """Labels (N, 2, Y, X): 1 where it is red, 2 where it is green."""
    return ((x[:, :2] > 0) * torch.tensor([1, 2])[:, None, None]).int()


class Wiring(nn.Module):
    """Colours behind a layer of 8 units with known wiring: the latent (N, 64) decides where, the units whether.

    Unit 0 is where red is, and does nothing: a decoy. Units 1 and 4 let red through, in the left and the right half:
    hidden causes, about 1 everywhere. Either of units 2 and 3 draws green: only both together can remove it. Unit 4
    also lets blue through. Units 5 to 7 are noise. Every colour is linear in each unit of its own, up to the maximum.
    """

    def __init__(self):
        super().__init__()
        self.layer = Between()
        self.register_buffer("left", (torch.arange(8) < 4).float())

    def forward(self, z):
        red, green, blue = ((z.roll(k, 1) > 0.5).float().unflatten(1, (8, 8)) for k in range(3))
        noise = [z.roll(k, 1).clamp(-2, 2).unflatten(1, (8, 8)) / 10 for k in range(20, 25)]
        units = [red, 1 + noise[0], green, green, 1 + noise[1], *noise[2:]]
        r = self.layer(torch.stack(units, 1))
        red = red * (self.left * r[:, 1] + (1 - self.left) * r[:, 4])
        return 1.6 * torch.stack([red, torch.maximum(r[:, 2], r[:, 3]), blue * r[:, 4]], 1) - 1


def channels(x):
    """Scores (N, 3, Y, X) in [0, 1]: how red, how green and how blue each pixel is."""
    return (x + 1) / 2


COLORS = [(name, name) for name in ("red", "green", "blue")]  # each a category of its own: pixels may be all three


class Formulas(nn.Module):
    """Units that follow formulas of the concepts in two label planes, with noise; the picture shows the planes.

    Cells draw their concepts independently: 1, 2, 3 in the first plane, 4 in the second.
    """

    holds = (
        lambda a, b, c, g: a,  # 0, one concept alone
        lambda a, b, c, g: a | b,  # 1
        lambda a, b, c, g: a & g,  # 2
        lambda a, b, c, g: a & ~g,  # 3
        lambda a, b, c, g: a | b | c,  # 4
        lambda a, b, c, g: (a | b) & g,  # 5
        lambda a, b, c, g: g,  # 6, one concept alone
        lambda a, b, c, g: g & ~g,  # 7, nothing but noise
    )

    def __init__(self, strength: float = 1.2, side: int = 8):
        super().__init__()
        self.layer, self.strength = Between(), strength
        mix = torch.randn(2 + len(self.holds), Z, side, side, generator=torch.Generator().manual_seed(2))
        self.register_buffer("mix", 900 * mix)

    def forward(self, z):
        parts = combine(self.mix, z).double()
        noise = (parts - parts.floor()).float()  # uniform, and of different cells as good as independent
        kind = 1 * (noise[:, 0] < 0.5) + 1 * (noise[:, 0] < 0.3) + 1 * (noise[:, 0] < 0.15)  # 1, 2, 3 are 3, 2, 1
        gold = noise[:, 1] < 0.4
        masks = [kind == 3, kind == 2, kind == 1, gold]
        pulled = [self.strength * rule(*masks) for rule in self.holds]
        r = self.layer(torch.stack(pulled, 1) + noise[:, 2:])
        shown = torch.stack([kind / 3, gold.float(), r.sum(1) * 0], 1)
        return 2 * shown - 1


def formula_planes(x):
    """Labels (N, 2, Y, X) of the pictures of `Formulas`: a, b, c; and gold."""
    kind = (1.5 * (x[:, 0] + 1)).round()
    first = 1 * (kind == 3) + 2 * (kind == 2) + 3 * (kind == 1)
    return torch.stack([first, 4 * (x[:, 1] > 0)], 1).long()


FORMULA_CONCEPTS = [("a", "thing"), ("b", "thing"), ("c", "thing"), ("gold", "material")]


class Noise(nn.Module):
    """Units that have nothing to do with the picture, which is noise of its own."""

    def __init__(self, units: int = 30, side: int = 8):
        super().__init__()
        self.layer = Between()
        mix = torch.randn(1 + units, Z, side, side, generator=torch.Generator().manual_seed(3))
        self.register_buffer("mix", 900 * mix)

    def forward(self, z):
        parts = combine(self.mix, z).double()
        noise = (parts - parts.floor()).float()
        self.layer(noise[:, 1:])
        return 2 * noise[:, :1].expand(-1, 3, -1, -1) - 1


def shares(share: float) -> Segmenter:
    """A segmenter of the pictures of `Noise`: three concepts that take such a share of it each."""

    def labels(x):
        place = ((x[:, 0] + 1) / 2 / share).floor().int()
        return torch.where(place < 3, 1 + place, 0)

    return Segmenter.wrap(labels, ["a", "b", "c"], name="shares")
