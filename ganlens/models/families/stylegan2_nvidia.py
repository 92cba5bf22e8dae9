"""StyleGAN2 from the files of NVIDIA's repositories: which tensor goes where."""

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
    Shortcut,
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
from ganlens.models.files.reading import CheckpointError, fit, walk
from ganlens.models.files.records import Record, short
from ganlens.models.files.states import State

FAMILY = "StyleGAN2 (NVIDIA)"
FORMAT = "StyleGAN2(-ADA) of NVIDIA (synthesis.b4.const, mapping.fc0.weight, …)"
KEYS = re.compile(
    r"mapping\.(w_avg|(fc\d+|embed)\.(weight|bias))|synthesis\.b\d+\.(const|resample_filter"
    r"|conv[01]\.(weight|bias|noise_strength|noise_const|resample_filter|affine\.(weight|bias))"
    r"|torgb\.(weight|bias|affine\.(weight|bias))|skip\.(weight|resample_filter))"
)


def build(state: State, name: str) -> Generator:
    """The generator of a state dict and of the module that it was in."""
    return from_nvidia(state.tensors(), state.module, name)


def from_nvidia(
    state: Mapping[str, torch.Tensor],
    module: Record | None = None,
    name: str | None = None,
) -> Generator:
    """The generator of github.com/NVlabs/stylegan2-ada-pytorch, or of the same network in stylegan3's repository.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``mapping.fc0.weight`` (W, Z), ``synthesis.b4.const`` (C, 4, 4), ``synthesis.b8.conv0.weight`` (U, C, 3, 3), ….
    module : Record, optional
        The module as it was pickled; clamps and learning rates are read from it.

    Raises
    ------
    CheckpointError
        Tensors are missing, left over, do not fit one another, or the network is of a kind that is not known.
    """
    state = {key: tensor.float() for key, tensor in state.items()}
    settings = {path.rstrip("."): record for path, record in walk(module)} if module else {}
    check_settings(settings, state)
    sizes = numbers(r"synthesis\.b(\d{1,6})\.", state)
    expected = [4 * 2**i for i in range(len(sizes))]
    if len(sizes) > MOST_DOUBLINGS + 1 or sizes != expected:
        raise CheckpointError(f"closest to {FAMILY}, but its blocks have sizes {sizes[:12]}")
    dense = numbers(r"mapping\.fc(\d{1,6})\.", state) or [0]
    fit(FAMILY, expected_shapes(state, dense, sizes), state, optional_names(sizes))
    mapping = mapping_of(state, dense, settings)
    modules = synthesis_of(state, sizes, settings)
    return finished(mapping, state.get("mapping.w_avg"), modules, name or "StyleGAN2", sums=False)


def synthesis_of(state, sizes: list[int], settings: Mapping[str, Record]) -> dict[str, torch.nn.Module]:
    """The modules of the synthesis network by name, in the order of the pass."""

    def style(key: str) -> Style:
        return Style(state[f"{key}.affine.weight"], state[f"{key}.affine.bias"])

    def clamp(key: str) -> float | None:
        value = settings[key].get("conv_clamp") if key in settings else None
        return None if value is None else float(value)

    modules: dict[str, torch.nn.Module] = {"synthesis.input": Constant(state["synthesis.b4.const"])}
    for size in sizes:
        block = f"synthesis.b{size}"
        kernel = square(4 * state.get(f"{block}.resample_filter", stylegan2.default_kernel() / 4))
        parts = block_of(state, size, sizes)
        for part in parts:
            key = f"{block}.{part}"
            if part == "skip":
                modules[key] = Shortcut(state[f"{key}.weight"], kernel)
                continue
            if part == "torgb":
                bias = state[f"{key}.bias"]
                modules[key] = Paint(state[f"{key}.weight"], style(key), bias, kernel, clamp(key))
                continue
            up = kernel if part == "conv0" else None
            noise = state[f"{key}.noise_const"] * state[f"{key}.noise_strength"] if has_noise(state, key) else None
            noise = torch.zeros(size, size) if noise is None else noise
            weight = state[f"{key}.weight"]
            gain = Shortcut.gain if part == "conv1" and "skip" in parts else 1.0
            modules[key] = Layer(weight, style(key), state[f"{key}.bias"], noise, up, clamp=clamp(key), gain=gain)
    return modules


def mapping_of(state, dense: list[int], settings: Mapping[str, Record]) -> StyleMapping:
    def rate(key: str, default: float) -> float:
        return float(settings[key].get("bias_gain", default)) if key in settings else default

    keys = [f"mapping.fc{i}" for i in dense]
    rows = [Dense(state[f"{key}.weight"], state[f"{key}.bias"], rate(key, MLP_RATE), True) for key in keys]
    if "mapping.embed.weight" not in state:
        return StyleMapping(rows)
    embed = Dense(state["mapping.embed.weight"], state["mapping.embed.bias"], rate("mapping.embed", 1.0))
    return StyleMapping(rows, embed)


def block_of(state, size: int, sizes: list[int]) -> list[str]:
    """What a block consists of: two layers and colours, as a rule; some have shortcuts, or colours at the end."""
    has = [f"synthesis.b{size}.{part}.weight" in state for part in ("skip", "torgb")]
    front = ["skip"] * has[0] + ["conv0"] if size > 4 else []
    return [*front, "conv1", *["torgb"] * (has[1] or size == sizes[-1])]


def check_settings(settings: Mapping[str, Record], state: Mapping[str, torch.Tensor]) -> None:
    """CheckpointError where a network differs from StyleGAN2 in a way that its tensors do not show."""
    for path, record in settings.items():
        usual = "lrelu" if re.search(r"(conv[01]|fc\d+)$", path) else None
        if usual and record.get("activation", usual) != usual:
            raise CheckpointError(
                f"{path} has the activation {short(record.get('activation'))}; only {usual!r} is known"
            )
        known = record.get("architecture", "skip")
        first = path.endswith(".b4")
        shown = f"{path}.skip.weight" in state
        if known not in ("skip", "orig", "resnet") or (not first and (known == "resnet") != shown):
            raise CheckpointError(f"{path} has the architecture {short(known)}, which its tensors do not show")


def has_noise(state: Mapping[str, torch.Tensor], key: str) -> bool:
    return f"{key}.noise_const" in state and f"{key}.noise_strength" in state


def expected_shapes(state, dense: list[int], sizes: list[int]) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    width = shape(state, f"mapping.fc{dense[-1]}.weight", 2)[0]
    units = shape(state, "synthesis.b4.const", 3)[0]
    wanted: dict[str, tuple[int, ...]] = {"synthesis.b4.const": (units, 4, 4)}
    inputs = shape(state, f"mapping.fc{dense[0]}.weight", 2)[1]
    if "mapping.embed.weight" in state:
        features, classes = shape(state, "mapping.embed.weight", 2)
        wanted |= {"mapping.embed.weight": (features, classes), "mapping.embed.bias": (features,)}
    for i in dense:
        outputs = shape(state, f"mapping.fc{i}.weight", 2)[0]
        wanted |= {f"mapping.fc{i}.weight": (outputs, inputs), f"mapping.fc{i}.bias": (outputs,)}
        inputs = outputs
    for size in sizes:
        before = units
        for part in block_of(state, size, sizes):
            key = f"synthesis.b{size}.{part}"
            if part == "skip":
                wanted |= {f"{key}.weight": (shape(state, f"{key}.weight", 4)[0], before, 1, 1)}
                continue
            outputs, side = shape(state, f"{key}.weight", 4)[0], 1 if part == "torgb" else 3
            wanted |= modulated(f"{key}.weight", (outputs, units, side, side), f"{key}.affine", width)
            wanted |= {f"{key}.bias": (outputs,)}
            if part != "torgb":
                units = outputs
                if has_noise(state, key):
                    wanted |= {f"{key}.noise_const": (size, size), f"{key}.noise_strength": ()}
    return wanted


def optional_names(sizes: list[int]) -> set[str]:
    blocks = [f"synthesis.b{size}" for size in sizes]
    inner = [f"{block}.{part}" for block in blocks for part in ("conv0", "conv1", "skip")]
    return {"mapping.w_avg", *(f"{path}.resample_filter" for path in blocks + inner)}
