"""StyleGAN2 (Karras et al., CVPR 2020) from genforce's files: which tensor goes where."""

import re
from collections.abc import Mapping

import torch

from ganlens.models.base import Generator
from ganlens.models.families import stylegan2
from ganlens.models.families.assembling import assembled, counted, numbers, real, sizes
from ganlens.models.families.genforce_parts import MLP_RATE, MOST_BLOCKS, mapping_of
from ganlens.models.families.stylegan2 import Constant, Layer, Paint, Style, StyleGenerator
from ganlens.models.families.stylegan2_parts import modulated, square
from ganlens.models.files.reading import CheckpointError, check_maps, fit
from ganlens.models.files.states import State

FAMILY = "StyleGAN2 (genforce)"
FORMAT = "StyleGAN2 of genforce (mapping.dense0.weight, synthesis.early_layer.const, …)"
NEEDED = "synthesis.early_layer.const"
KEYS = re.compile(
    r"mapping\.(label_weight|dense\d+\.(weight|bias))|truncation\.w_avg|synthesis\.(early_layer\.const|upsample\.kernel"
    r"|(layer|output)\d+\.(weight|bias|style\.(weight|bias))|layer\d+\.(noise|noise_strength|filter\.kernel))"
)


def build(state: State, name: str) -> Generator:
    """The generator of a state dict; ``truncation`` is for all layers.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, or do not fit one another.
    """
    tensors = real(state.tensors())
    layers = counted(FAMILY, "layers", numbers(r"synthesis\.layer(\d{1,6})\.", tensors), 2 * MOST_BLOCKS)
    paints = numbers(r"synthesis\.output(\d{1,6})\.", tensors)
    last = (layers - 1) // 2
    if layers % 2 == 0 or paints not in (list(range(last + 1)), [last]):
        raise CheckpointError(f"closest to {FAMILY}, but it has {layers} layers, and colours from {paints[:12]}")
    mapping, mapped, z_dim, classes = mapping_of(tensors, FAMILY, MLP_RATE, MLP_RATE, 2**0.5)
    width = sizes(FAMILY, tensors, "truncation.w_avg", 1)[0]
    rest = {key: x for key, x in tensors.items() if key not in mapped}
    kernels = {f"synthesis.layer{i}.filter.kernel" for i in range(1, layers, 2)} | {"synthesis.upsample.kernel"}
    fit(FAMILY, expected(rest, layers, paints, width), rest, kernels)
    modules = synthesis_of(rest, layers, paints)
    check_maps(FAMILY, [(len(m.bias), len(m.noise)) for m in modules.values() if isinstance(m, Layer)])
    translated = {key.removeprefix("mapping."): x for key, x in mapped.items()}
    net = StyleGenerator(assembled(FAMILY, mapping, translated), rest["truncation.w_avg"], modules, sums=False)
    net.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if net(torch.zeros(1, z_dim), torch.zeros(1, dtype=torch.long)).shape[-1] != 4 << last:
        raise CheckpointError(f"closest to {FAMILY}, but its image is not {4 << last} pixels wide")
    maps = [key for key in modules if not isinstance(modules[key], Constant)]
    vectors = [*(f"mapping.dense{i}" for i in range(net.mapping.count)), "mapping", *(f"{key}.style" for key in maps)]
    return Generator(net, z_dim, name, layers=maps, classes=classes, truncates=True, vectors=vectors, trusted=True)


def synthesis_of(state: Mapping[str, torch.Tensor], layers: int, paints: list[int]) -> dict[str, torch.nn.Module]:
    """The modules of the synthesis network by name, in the order of the pass."""

    def style(key: str) -> Style:
        return Style(state[f"{key}.style.weight"], state[f"{key}.style.bias"] + 1)

    def kernel(key: str) -> torch.Tensor | None:
        found = state.get(key)
        return square(stylegan2.default_kernel() if found is None else found.flip(2, 3)[0, 0])

    modules: dict[str, torch.nn.Module] = {"synthesis.early_layer": Constant(state["synthesis.early_layer.const"][0])}
    for i in range(layers):
        key = f"synthesis.layer{i}"
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        weight = weight.flip(2, 3) if i % 2 else weight  # doubling layers use theirs turned
        noise = state[f"{key}.noise"][0, 0] * state[f"{key}.noise_strength"]
        smoothing = kernel(f"{key}.filter.kernel") if i % 2 else None
        modules[key] = Layer(weight, style(key), bias, noise, smoothing, weight[0].numel() ** -0.5)
        if i % 2 == 0 and i // 2 in paints:
            paint = f"synthesis.output{i // 2}"
            enlarging = kernel("synthesis.upsample.kernel")
            modules[paint] = Paint(state[f"{paint}.weight"], style(paint), state[f"{paint}.bias"], enlarging)
    return modules


def expected(state, layers: int, paints: list[int], width: int) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    inputs = sizes(FAMILY, state, "synthesis.early_layer.const", 4)[1]
    wanted = {"synthesis.early_layer.const": (1, inputs, 4, 4), "truncation.w_avg": (width,)}
    for i in range(layers):
        key, side = f"synthesis.layer{i}", 4 << (i + 1) // 2
        units = sizes(FAMILY, state, f"{key}.weight", 4)[0]
        wanted |= modulated(f"{key}.weight", (units, inputs, 3, 3), f"{key}.style", width)
        wanted |= {f"{key}.bias": (units,), f"{key}.noise": (1, 1, side, side), f"{key}.noise_strength": ()}
        inputs = units
        if i % 2 == 0 and i // 2 in paints:
            key = f"synthesis.output{i // 2}"
            colors = sizes(FAMILY, state, f"{key}.weight", 4)[0]
            wanted |= modulated(f"{key}.weight", (colors, inputs, 1, 1), f"{key}.style", width)
            wanted |= {f"{key}.bias": (colors,)}
    for key in ("synthesis.upsample.kernel", *(f"synthesis.layer{i}.filter.kernel" for i in range(1, layers, 2))):
        if key in state and state[key].ndim != 4:
            raise CheckpointError(f"closest to {FAMILY}, but {key} has shape {tuple(state[key].shape)}")
    return wanted
