"""StyleGAN2 from the files of github.com/rosinality/stylegan2-pytorch: which tensor goes where."""

import re
from collections.abc import Mapping

import torch

from ganlens.models.base import Generator
from ganlens.models.families import stylegan2
from ganlens.models.families.assembling import numbers
from ganlens.models.families.stylegan2 import (
    Constant,
    Dense,
    Layer,
    Paint,
    Style,
    StyleMapping,
)
from ganlens.models.families.stylegan2_parts import (
    MLP_RATE,
    MOST_DOUBLINGS,
    finished,
    modulated,
    shape,
    square,
)
from ganlens.models.files.reading import CheckpointError, fit, tensors
from ganlens.models.files.states import State

FAMILY = "StyleGAN2 (rosinality)"
FORMAT = "StyleGAN2 of rosinality (style.1.weight, convs.0.conv.weight, …)"
KEYS = re.compile(
    r"style\.\d+\.(weight|bias)|input\.input|noises\.noise_\d+"
    r"|(conv1|convs\.\d+)\.(conv\.(weight|blur\.kernel|modulation\.(weight|bias))|noise\.weight|activate\.bias)"
    r"|(to_rgb1|to_rgbs\.\d+)\.(bias|upsample\.kernel|conv\.(weight|modulation\.(weight|bias)))"
)


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; the mean latent stands beside it in the file."""
    mean = state.tree.get("latent_avg") if isinstance(state.tree, dict) else None
    mean = tensors({"latent_avg": mean}, state.size).get("latent_avg")
    return from_rosinality(state.tensors(), mean, name)


def from_rosinality(
    state: Mapping[str, torch.Tensor],
    mean: torch.Tensor | None = None,
    name: str | None = None,
) -> Generator:
    """The generator of a state dict of github.com/rosinality/stylegan2-pytorch.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``style.1.weight`` (W, W), ``input.input`` (1, C, 4, 4), ``conv1.conv.weight`` (1, U, C, 3, 3), ….
    mean : Tensor (W,), optional
        ``latent_avg`` of the file; by default the mean of 4096 fixed samples.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    state = {key: tensor.float() for key, tensor in state.items()}
    dense = numbers(r"style\.(\d{1,6})\.", state) or [1]
    doublings = len(numbers(r"to_rgbs\.(\d{1,6})\.", state))
    if doublings > MOST_DOUBLINGS:
        raise CheckpointError(f"closest to {FAMILY}, but its images would have {4 * 2**doublings} pixels a side")
    layers = ["conv1", *(f"convs.{i}" for i in range(2 * doublings))]
    paints = ["to_rgb1", *(f"to_rgbs.{i}" for i in range(doublings))]
    fit(FAMILY, expected_shapes(state, dense, layers, paints), state, optional_names(layers, paints))

    def style(key: str) -> Style:
        return Style(state[f"{key}.conv.modulation.weight"], state[f"{key}.conv.modulation.bias"])

    modules: dict[str, torch.nn.Module] = {"input": Constant(state["input.input"][0])}
    for i, key in enumerate(layers):
        weight, size = state[f"{key}.conv.weight"][0], 4 * 2 ** ((i + 1) // 2)
        noise = state.get(f"noises.noise_{i}", stylegan2.fixed_noise(i, size)).reshape(size, size)
        kernel = state.get(f"{key}.conv.blur.kernel", stylegan2.default_kernel()) if i % 2 else None
        scale = weight[0].numel() ** -0.5
        noise = noise * state[f"{key}.noise.weight"]
        modules[key] = Layer(weight, style(key), state[f"{key}.activate.bias"], noise, square(kernel), scale)
        if i % 2 == 0:
            paint = paints[i // 2]
            kernel = state.get(f"{paint}.upsample.kernel", stylegan2.default_kernel())
            bias = state[f"{paint}.bias"].flatten()
            modules[paint] = Paint(state[f"{paint}.conv.weight"][0], style(paint), bias, square(kernel))
    rows = [Dense(state[f"style.{i}.weight"], state[f"style.{i}.bias"], MLP_RATE, True) for i in dense]
    return finished(StyleMapping(rows), mean, modules, name or "StyleGAN2", sums=True)


def expected_shapes(state, dense: list[int], layers: list[str], paints: list[str]) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    width = shape(state, f"style.{dense[0]}.weight", 2)[0]
    inputs = shape(state, "input.input", 4)[1]
    wanted: dict[str, tuple[int, ...]] = {"input.input": (1, inputs, 4, 4)}
    for i in dense:
        wanted |= {f"style.{i}.weight": (width, width), f"style.{i}.bias": (width,)}
    for i, key in enumerate(layers):
        units = shape(state, f"{key}.conv.weight", 5)[1]
        wanted |= modulated(f"{key}.conv.weight", (1, units, inputs, 3, 3), f"{key}.conv.modulation", width)
        wanted |= {f"{key}.noise.weight": (1,), f"{key}.activate.bias": (units,)}
        inputs = units
        if i % 2 == 0:
            paint = paints[i // 2]
            colors = shape(state, f"{paint}.conv.weight", 5)[1]
            wanted |= modulated(f"{paint}.conv.weight", (1, colors, units, 1, 1), f"{paint}.conv.modulation", width)
            wanted |= {f"{paint}.bias": (1, colors, 1, 1)}
    return wanted


def optional_names(layers: list[str], paints: list[str]) -> set[str]:
    return {
        *(f"noises.noise_{i}" for i in range(len(layers))),
        *(f"{key}.conv.blur.kernel" for key in layers[1::2]),
        *(f"{key}.upsample.kernel" for key in paints[1:]),
    }
