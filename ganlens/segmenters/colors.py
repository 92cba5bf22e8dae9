"""The eleven basic colors as concepts; no network needed."""

import hashlib

import torch

from ganlens.segmenters.base import Concept, Segmenter

NAMES = {"colors": "the eleven basic colors; needs no network and no download"}

# The eleven basic color terms of English (Berlin & Kay, Basic Color Terms, 1969). For each, what people call by the
# term alone and by light, dark, pale, bright and dull with it, where the survey has such a name: the values of the XKCD
# color-name survey (Munroe 2010, https://xkcd.com/color/rgb/, CC0). Its "pale grey", #fdfdfe, is left out: it is white.
PROTOTYPES = {
    "black": "000000",
    "white": "ffffff",
    "grey": "929591 d8dcd6 363737",
    "red": "e50000 ff474c 840000 d9544d ff000d bb3f3f",
    "orange": "f97306 fdaa48 c65102 ffa756 ff5b00 d8863b",
    "yellow": "ffff14 fffe7a d5b60a ffff84 fffd01 eedc5b",
    "green": "15b01a 96f97b 033500 c7fdb5 01ff07 74a662",
    "blue": "0343df 95d0fc 00035b d0fefe 0165fc 49759c",
    "purple": "7e1e9c bf77f6 35063e b790d4 be03fd 84597e",
    "pink": "ff81c0 ffd1df cb416b ffcfdc fe01b1 d5869d",
    "brown": "653700 ad8150 341c02 b1916e 876e4b",
}

# Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab/): linear sRGB to cones, and their cube roots to Lab.
CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

LIGHTNESS = 0.5  # weight of a difference in lightness: names follow hue and chroma more than lightness
SOFTNESS = 0.04  # distance in Oklab over which a score falls to e^(-1/2)


def oklab(images: torch.Tensor) -> torch.Tensor:
    """Oklab (N, 3, Y, X) of sRGB images (N, 3, Y, X) in [-1, 1]; what lies outside is clamped.

    Examples
    --------
    >>> oklab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=3).abs().tolist()
    [1.0, 0.0, 0.0]
    """
    srgb = (images.float() / 2 + 0.5).clamp(0, 1)
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,njyx->niyx", CONES.to(images.device), linear)
    return torch.einsum("ij,njyx->niyx", LAB.to(images.device), cones.clamp(min=1e-7) ** (1 / 3))


class ColorSegmenter(Segmenter):
    """Eleven basic colors, category "color"; every pixel carries one of them.

    A pixel has the color of the nearest of 52 prototypes in Oklab. Of the other names in the survey that end with one
    of the eleven terms ("brick red", "navy blue"), 93 % are given that term.

    Raises
    ------
    ValueError
        Images that do not have three channels.

    Examples
    --------
    >>> S = ColorSegmenter()
    >>> [str(S.concepts[v - 1]) for v in S.labels(torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1)).flatten()]
    ['red']
    """

    name = "colors"

    def __init__(self):
        self.concepts = tuple(Concept(term, "color") for term in PROTOTYPES)
        codes = [bytes.fromhex(code) for line in PROTOTYPES.values() for code in line.split()]
        rgb = torch.tensor([list(code) for code in codes]).float() / 127.5 - 1
        self.prototypes = self.place(rgb[:, :, None, None])[:, :, 0, 0]
        self.counts = [len(line.split()) for line in PROTOTYPES.values()]

    def place(self, images: torch.Tensor) -> torch.Tensor:
        """Where colors lie (N, 3, Y, X), so that distances are differences that people name."""
        return oklab(images) * torch.tensor([LIGHTNESS, 1, 1], device=images.device)[:, None, None]

    def distances(self, images: torch.Tensor) -> torch.Tensor:
        """Squared distance (N, 11, Y, X) to the nearest prototype of each color, less what is the same for all."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"colors need images (N, 3, Y, X), got {tuple(images.shape)}")
        prototypes = self.prototypes.to(images.device)
        products = torch.einsum("pi,niyx->pnyx", prototypes, self.place(images))
        distances = prototypes.square().sum(1)[:, None, None, None] - 2 * products  # |p|² - 2 p·x, without |x|²
        return torch.stack([some.amin(0) for some in distances.split(self.counts)], 1)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return (-self.distances(images) / (2 * SOFTNESS**2)).softmax(1)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.distances(images).argmin(1, keepdim=True) + 1

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {PROTOTYPES} {LIGHTNESS}".encode()).hexdigest()[:16]


def load(name: str) -> ColorSegmenter:
    """The segmenter of colors."""
    return ColorSegmenter()
