"""StyleGAN2 from the files of its two code bases: which tensor goes where."""

import re
from collections.abc import Iterable, Mapping

import torch

from ganlens.models.base import Generator
from ganlens.models.families import stylegan2
from ganlens.models.families.stylegan2 import (
    Constant,
    Dense,
    Layer,
    Paint,
    Shortcut,
    Style,
    StyleGenerator,
    StyleMapping,
)
from ganlens.models.files.reading import CheckpointError, check_maps, fit, walk
from ganlens.models.files.records import Record, short

ROSINALITY, NVIDIA = "StyleGAN2 (rosinality)", "StyleGAN2 (NVIDIA)"
MOST_DOUBLINGS = 9  # 2048 px
MLP_RATE = 0.01

ROSINALITY_KEYS = re.compile(
    r"style\.\d+\.(weight|bias)|input\.input|noises\.noise_\d+"
    r"|(conv1|convs\.\d+)\.(conv\.(weight|blur\.kernel|modulation\.(weight|bias))|noise\.weight|activate\.bias)"
    r"|(to_rgb1|to_rgbs\.\d+)\.(bias|upsample\.kernel|conv\.(weight|modulation\.(weight|bias)))"
)
NVIDIA_KEYS = re.compile(
    r"mapping\.(w_avg|(fc\d+|embed)\.(weight|bias))|synthesis\.b\d+\.(const|resample_filter"
    r"|conv[01]\.(weight|bias|noise_strength|noise_const|resample_filter|affine\.(weight|bias))"
    r"|torgb\.(weight|bias|affine\.(weight|bias))|skip\.(weight|resample_filter))"
)


def share(pattern: re.Pattern, names: Iterable[str]) -> float:
    hits = [pattern.fullmatch(name) is not None for name in names]
    return sum(hits) / max(1, len(hits))


def numbers(pattern: str, names: Iterable[str]) -> list[int]:
    """The different numbers in the first group of a pattern, in ascending order."""
    return sorted({int(match[1]) for match in (re.match(pattern, name) for name in names) if match})


def shape(state: Mapping[str, torch.Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor, or zeros where there is none, so that `fit` can say what is missing."""
    found = tuple(state[name].shape) if name in state else (0,) * ndim
    if len(found) != ndim:
        raise CheckpointError(f"closest to StyleGAN2, but {name} has shape {found}; {ndim} axes were expected")
    return found


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
        raise CheckpointError(f"closest to {ROSINALITY}, but its images would have {4 * 2**doublings} pixels a side")
    layers = ["conv1", *(f"convs.{i}" for i in range(2 * doublings))]
    paints = ["to_rgb1", *(f"to_rgbs.{i}" for i in range(doublings))]
    fit(ROSINALITY, rosinality_shapes(state, dense, layers, paints), state, rosinality_optional(layers, paints))

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


def rosinality_shapes(state, dense: list[int], layers: list[str], paints: list[str]) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    width = shape(state, f"style.{dense[0]}.weight", 2)[0]
    inputs = shape(state, "input.input", 4)[1]
    wanted = {"input.input": (1, inputs, 4, 4)}
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


def modulated(weight: str, size: tuple[int, ...], style: str, width: int) -> dict[str, tuple[int, ...]]:
    inputs = size[-3]
    return {weight: size, f"{style}.weight": (inputs, width), f"{style}.bias": (inputs,)}


def rosinality_optional(layers: list[str], paints: list[str]) -> set[str]:
    return {
        *(f"noises.noise_{i}" for i in range(len(layers))),
        *(f"{key}.conv.blur.kernel" for key in layers[1::2]),
        *(f"{key}.upsample.kernel" for key in paints[1:]),
    }


def square(kernel: torch.Tensor | None) -> torch.Tensor | None:
    if kernel is not None and not (kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1] and 3 <= len(kernel) <= 16):
        raise CheckpointError(f"closest to StyleGAN2, but a smoothing kernel has shape {tuple(kernel.shape)}")
    return kernel


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
        raise CheckpointError(f"closest to {NVIDIA}, but its blocks have sizes {sizes[:12]}")
    dense = numbers(r"mapping\.fc(\d{1,6})\.", state) or [0]
    fit(NVIDIA, nvidia_shapes(state, dense, sizes), state, nvidia_optional(sizes))

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
    return finished(
        nvidia_mapping(state, dense, settings),
        state.get("mapping.w_avg"),
        modules,
        name or "StyleGAN2",
        sums=False,
    )


def nvidia_mapping(state, dense: list[int], settings: Mapping[str, Record]) -> StyleMapping:
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


def nvidia_shapes(state, dense: list[int], sizes: list[int]) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    width = shape(state, f"mapping.fc{dense[-1]}.weight", 2)[0]
    units = shape(state, "synthesis.b4.const", 3)[0]
    wanted = {"synthesis.b4.const": (units, 4, 4)}
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


def nvidia_optional(sizes: list[int]) -> set[str]:
    blocks = [f"synthesis.b{size}" for size in sizes]
    inner = [f"{block}.{part}" for block in blocks for part in ("conv0", "conv1", "skip")]
    return {"mapping.w_avg", *(f"{path}.resample_filter" for path in blocks + inner)}


def finished(mapping: StyleMapping, mean, modules, name: str, sums: bool) -> Generator:
    """Put the parts together; layers are the feature maps and the colours, by name also the styles and the mapping."""
    first = mapping.layers[0].weight
    z_dim = first.shape[1] - (0 if mapping.embed is None else mapping.embed.weight.shape[0])
    width = mapping.layers[-1].weight.shape[0]
    if z_dim < 1:
        raise CheckpointError("closest to StyleGAN2, but its mapping network has no place for a latent")
    noisy = [layer for layer in modules.values() if isinstance(layer, Layer)]
    check_maps("StyleGAN2", [(len(layer.bias), len(layer.noise)) for layer in noisy])
    mean = stylegan2.mean_of(mapping, z_dim) if mean is None else mean.float()
    mean = mean[0] if mean.ndim == 2 else mean
    if tuple(mean.shape) != (width,):
        raise CheckpointError(f"closest to StyleGAN2, but the mean latent has shape {tuple(mean.shape)}")
    net = StyleGenerator(mapping, mean, modules, sums).requires_grad_(False)
    net.to(memory_format=torch.channels_last)  # a third faster
    maps = [key for key in modules if not isinstance(modules[key], Constant)]
    vectors = [f"mapping.layers.{i}" for i in range(len(mapping.layers))]
    vectors += [f"{key}.style" for key in maps if not isinstance(modules[key], Shortcut)]
    classes = None if mapping.embed is None else mapping.embed.weight.shape[1]
    return Generator(net, z_dim, name, maps, classes=classes, truncates=True, vectors=vectors)
