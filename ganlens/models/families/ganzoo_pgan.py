"""Progressive GAN (Karras et al., ICLR 2018) from the files of facebookresearch's GAN zoo."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense, Pointwise
from ganlens.models.families.assembling import assembled, counted, numbers, real, share_of_names, sizes, without
from ganlens.models.families.ganzoo_parts import Attributes, Settings
from ganlens.models.families.shared_layers import doubled
from ganlens.models.families.stylegan2 import unit_square
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "Progressive GAN (GAN zoo)"
FORMAT = "Progressive GAN of the GAN zoo (formatLayer.module.weight, scaleLayers.0.0.module.weight, …)"
KEYS = re.compile(r"(formatLayer|groupScale0\.0|scaleLayers\.\d+\.[01]|toRGBLayers\.\d+)\.module\.(weight|bias)")
PLAIN = re.compile(KEYS.pattern.replace(r"\.module", ""))  # without the name that wrappers have, too
MOST_SCALES = 10


class ZooProgressive(nn.Module):
    """Latents (N, Z), and attributes where there are any, to images (N, C, Y, X).

    Layers yield what their convolutions give; leaky ReLU and pixel norm follow.
    """

    def __init__(
        self,
        attributes: list[int],
        z_dim: int,
        units: Sequence[int],
        colors: int,
        slope: float,
        alpha: float,
        bounded: bool,
    ):
        super().__init__()
        self.slope, self.alpha, self.bounded = slope, alpha, bounded
        self.attributes = Attributes(attributes)
        self.formatLayer = Dense(z_dim + sum(attributes), 16 * units[0])
        self.groupScale0 = nn.ModuleList([nn.Conv2d(units[0], units[0], 3, padding=1)])
        self.scaleLayers = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)])
            for a, b in itertools.pairwise(units)
        )
        last = len(units) - 1
        painting = [last - 1, last] if alpha else [last]
        self.toRGBLayers = nn.ModuleDict({str(i): Pointwise(units[i], colors) for i in painting})

    def active(self, r: torch.Tensor) -> torch.Tensor:
        return unit_square(F.leaky_relu(r, self.slope))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        r = F.leaky_relu(self.formatLayer(unit_square(self.attributes(z, labels))), self.slope)
        r = self.active(self.groupScale0[0](unit_square(r.unflatten(1, (-1, 4, 4)))))
        below = r
        for scale in self.scaleLayers:
            first, second = scale.children()
            below = r
            r = self.active(second(self.active(first(doubled(r)))))
        *faded, last = self.toRGBLayers.values()
        image = last(r)
        for paint in faded:
            image = self.alpha * doubled(paint(below)) + (1 - self.alpha) * image
        return torch.tanh(image) if self.bounded else image


def likeness(state: State) -> float:
    """Share of the names that this family has."""
    return max(share_of_names(KEYS, state.items), share_of_names(PLAIN, state.items))


def build(state: State, name: str) -> Generator:
    """The generator of a state dict and of the settings in its file.

    Raises
    ------
    CheckpointError
        Tensors or settings are missing, left over, or do not fit one another.
    """
    settings = Settings(state, FAMILY, "WGANGP")
    slope = settings.number("leakyReluLeak", 0.2, 0, 1)
    alpha = settings.number("alpha", 0, 0, 1)
    settings.warn("leaky ReLU 0.2, no scale being faded in, no tanh, no attributes")
    plain = {key.replace(".module.", "."): x for key, x in real(state.tensors()).items()}
    equalized = settings.values.get("equalizedlR", True) is not False
    tensors = {key: x * factor(plain, key) if equalized else x for key, x in plain.items()}
    scales = counted(FAMILY, "colours", numbers(r"toRGBLayers\.(\d{1,6})\.", tensors), MOST_SCALES)
    alpha = alpha if scales > 1 else 0.0
    unused = "|".join(str(i) for i in range(scales - (2 if alpha else 1))) or "none"
    tensors = without(tensors, rf"toRGBLayers\.({unused})\..*")
    outputs, inputs = sizes(FAMILY, tensors, "formatLayer.weight", 2)
    keys = ["groupScale0.0", *(f"scaleLayers.{i}.1" for i in range(scales - 1))]
    units = [sizes(FAMILY, tensors, f"{key}.weight", 4)[0] for key in keys]
    if outputs != 16 * units[0]:
        raise CheckpointError(f"closest to {FAMILY}, but formatLayer gives {outputs} numbers, not 16 x {units[0]}")
    check_maps(FAMILY, [(n, 4 << i) for i, n in enumerate(units)])
    z_dim, attributes = settings.split(inputs), settings.attributes
    colors = sizes(FAMILY, tensors, f"toRGBLayers.{scales - 1}.weight", 4)[0]
    net = assembled(
        FAMILY, lambda: ZooProgressive(attributes, z_dim, units, colors, slope, alpha, settings.bounded), tensors
    )
    layers = ["groupScale0.0", *(f"scaleLayers.{i}.{j}" for i in range(scales - 1) for j in (0, 1))]
    layers += [f"toRGBLayers.{key}" for key in net.toRGBLayers]
    classes = sum(attributes) or None
    return Generator(net, z_dim, name, layers=layers, classes=classes, vectors=["formatLayer"], trusted=True)


def factor(state: Mapping[str, torch.Tensor], key: str) -> float:
    """The constant factor of a layer, of its bias, too."""
    weight = state.get(f"{key.rpartition('.')[0]}.weight", torch.empty(1, 1))
    return math.sqrt(2 / max(1, math.prod(weight.shape[1:])))
