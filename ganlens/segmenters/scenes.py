"""The embedded segmenter: a small U-Net for painted scenes."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from ganlens.segmenters.base import Concept, Segmenter

NAMES = {"scenes": "thirteen concepts of painted scenes; embedded, needs no download"}
WEIGHTS = Path(__file__).with_name("scenes.safetensors")


class Stage(nn.Sequential):
    """Two 3x3 convolutions with batch norm."""

    def __init__(self, inputs: int, channels: int):
        layers = []
        for source in (inputs, channels):
            conv = nn.Conv2d(source, channels, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers)


class SceneUNet(nn.Module):
    """Images (N, 3, Y, X) to logits (N, C, Y, X); Y and X are multiples of 8."""

    def __init__(self, concepts: int, channels: tuple[int, ...] = (24, 48, 96, 128)):
        super().__init__()
        self.down = nn.ModuleList(Stage(a, b) for a, b in pairwise((3, *channels)))
        self.up = nn.ModuleList(Stage(a + b, a) for a, b in pairwise(channels))
        self.head = nn.Conv2d(channels[0], concepts, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for stage in self.down:
            x = stage(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for stage, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = stage(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], 1))
        return self.head(x)

    def bottleneck(self, x: torch.Tensor) -> torch.Tensor:
        """Features (N, 128) of whole images, for distances between sets of images."""
        for i, stage in enumerate(self.down):
            x = stage(F.max_pool2d(x, 2) if i else x)
        return x.mean((2, 3))


class SceneSegmenter(Segmenter):
    """Thirteen concepts of painted scenes; every pixel carries one of them.

    Parameters
    ----------
    path : path, optional
        A safetensors file whose metadata names the concepts; the embedded weights by default.
    """

    name = "scenes"

    def __init__(self, path: Path = WEIGHTS):
        with safe_open(path, "pt") as file:
            self.concepts = tuple(Concept(*pair) for pair in json.loads(file.metadata()["concepts"]))
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        self.net = SceneUNet(len(self.concepts)).requires_grad_(False).eval()
        self.net.load_state_dict(weights, strict=False)  # batch counters are not stored
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        self.fingerprint_ = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(images).softmax(1)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.logits(images).argmax(1, keepdim=True) + 1

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Unnormalised scores (N, C, Y, X)."""
        return self.net.to(images.device)(images.contiguous(memory_format=torch.channels_last))

    @property
    def fingerprint(self) -> str:
        return self.fingerprint_


def load(name: str, path: Path = WEIGHTS) -> SceneSegmenter:
    """The embedded segmenter."""
    return SceneSegmenter(path)
