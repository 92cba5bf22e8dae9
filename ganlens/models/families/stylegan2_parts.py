"""What the files of the two StyleGAN2 code bases have in common."""

from collections.abc import Mapping
from typing import cast

import torch

from ganlens.models.base import Generator
from ganlens.models.families import stylegan2
from ganlens.models.families.stylegan2 import (
    Constant,
    Dense,
    Layer,
    Shortcut,
    StyleGenerator,
    StyleMapping,
)
from ganlens.models.files.reading import CheckpointError, check_maps

MOST_DOUBLINGS = 9  # 2048 px
MLP_RATE = 0.01


def shape(state: Mapping[str, torch.Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor, or zeros where there is none, so that `fit` can say what is missing."""
    found = tuple(state[name].shape) if name in state else (0,) * ndim
    if len(found) != ndim:
        raise CheckpointError(f"closest to StyleGAN2, but {name} has shape {found}; {ndim} axes were expected")
    return found


def modulated(weight: str, size: tuple[int, ...], style: str, width: int) -> dict[str, tuple[int, ...]]:
    inputs = size[-3]
    return {weight: size, f"{style}.weight": (inputs, width), f"{style}.bias": (inputs,)}


def square(kernel: torch.Tensor | None) -> torch.Tensor | None:
    if kernel is not None and not (kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1] and 3 <= len(kernel) <= 16):
        raise CheckpointError(f"closest to StyleGAN2, but a smoothing kernel has shape {tuple(kernel.shape)}")
    return kernel


def finished(mapping: StyleMapping, mean, modules, name: str, sums: bool) -> Generator:
    """Put the parts together; layers are the feature maps and the colours, by name also the styles and the mapping."""
    first, last = (cast(Dense, mapping.layers[i]).weight for i in (0, -1))
    z_dim = first.shape[1] - (0 if mapping.embed is None else mapping.embed.weight.shape[0])
    width = last.shape[0]
    if z_dim < 1:
        raise CheckpointError("closest to StyleGAN2, but its mapping network has no place for a latent")
    noisy = [layer for layer in modules.values() if isinstance(layer, Layer)]
    check_maps("StyleGAN2", [(len(layer.bias), len(layer.noise)) for layer in noisy])
    mean = stylegan2.mean_of(mapping, z_dim) if mean is None else mean.float()
    mean = mean[0] if mean.ndim == 2 else mean
    if tuple(mean.shape) != (width,):
        raise CheckpointError(f"closest to StyleGAN2, but the mean latent has shape {tuple(mean.shape)}")
    net = StyleGenerator(mapping, mean, modules, sums).requires_grad_(False).eval()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
    maps = [key for key in modules if not isinstance(modules[key], Constant)]
    vectors = [f"mapping.layers.{i}" for i in range(len(mapping.layers))]
    vectors += [f"{key}.style" for key in maps if not isinstance(modules[key], Shortcut)]
    classes = None if mapping.embed is None else mapping.embed.weight.shape[1]
    return Generator(net, z_dim, name, layers=maps, classes=classes, truncates=True, vectors=vectors, trusted=True)
