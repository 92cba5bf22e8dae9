"""StyleGAN3 (Karras et al., NeurIPS 2021) from the pickles of NVIDIA's repository, in plain PyTorch.

The formulas are those of the paper; what the filters are, how much is padded and what is clamped is read from the file,
where every layer keeps it. Layers yield feature maps (N, U, H, W) with a margin around the image; the style of a layer
goes by its name and ``.affine``.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.base import Generator
from ganlens.models.bit_exact import dense
from ganlens.models.families.assembling import numbers, real, sizes
from ganlens.models.families.stylegan2 import Dense, Style, StyleMapping, place_module
from ganlens.models.families.stylegan2_nvidia import mapping_of
from ganlens.models.files.reading import CheckpointError, check_maps, fit, walk
from ganlens.models.files.records import Array, Record, short
from ganlens.models.files.states import State

FAMILY = "StyleGAN3"
FORMAT = "StyleGAN3 of NVIDIA, as a pickle (synthesis.input.freqs, synthesis.L0_36_512.magnitude_ema, …)"
KEYS = re.compile(
    r"mapping\.(w_avg|(fc\d+|embed)\.(weight|bias))"
    r"|synthesis\.input\.(weight|transform|freqs|phases|affine\.(weight|bias))"
    r"|synthesis\.L\d+_\d+_\d+\.(weight|bias|magnitude_ema|up_filter|down_filter|affine\.(weight|bias))"
)
MOST_LAYERS, MOST_TAPS, MOST_FACTOR, MOST_SIDE = 64, 128, 16, 4096
EPSILON = 1e-8


class Resampling(NamedTuple):
    """How a layer goes from its input's cells to its output's: factors, padding (left, right, top, bottom), limits."""

    up: int
    down: int
    padding: tuple[int, int, int, int]
    clamp: float | None
    last: bool  # the layer that paints: a linear map without filters


def upsampled(r: torch.Tensor, taps: torch.Tensor | None, factor: int, padding: tuple) -> torch.Tensor:
    """Put ``factor - 1`` zeros behind each cell of r (N, U, H, W), pad, and convolve with taps (T,) along both axes."""
    if taps is None:
        return F.pad(r, padding) if any(padding) else r
    weight = (taps * factor).expand(r.shape[1], 1, -1)
    r = F.conv_transpose2d(r, weight[..., None], stride=(factor, 1), groups=r.shape[1])
    r = F.conv_transpose2d(r, weight[:, :, None], stride=(1, factor), groups=r.shape[1])
    before, after = 1 - len(taps), 1 - factor  # what the transposed convolution has more than the padded one
    left, right, top, bottom = padding
    return F.pad(r, (left + before, right - after + before, top + before, bottom - after + before))


def downsampled(r: torch.Tensor, taps: torch.Tensor | None, factor: int) -> torch.Tensor:
    """Convolve r (N, U, H, W) with taps (T,) along both axes, or with (T, T), and keep every ``factor``-th cell."""
    if taps is None:
        return r
    taps, groups = taps.flip(*range(taps.ndim)), r.shape[1]
    if taps.ndim == 2:
        return F.conv2d(r, taps.expand(groups, 1, -1, -1), stride=factor, groups=groups)
    weight = taps.expand(groups, 1, -1)
    r = F.conv2d(r, weight[:, :, None], stride=(1, factor), groups=groups)
    return F.conv2d(r, weight[..., None], stride=(factor, 1), groups=groups)


class Layer(nn.Module):
    """Modulated convolution, then bias and leaky ReLU between two filters (section 3.2 of the paper).

    Parameters
    ----------
    weight : Tensor (U, C, k, k)
    bias : Tensor (U,)
    affine : Style
        Gives one number per input channel.
    magnitude : Tensor ()
        Running mean of the input's squares.
    up_filter, down_filter : Tensor (T,), or (T, T) for the second, optional
    how : Resampling
    """

    up_filter: torch.Tensor | None
    down_filter: torch.Tensor | None
    magnitude_ema: torch.Tensor

    def __init__(self, weight, bias, affine: Style, magnitude, up_filter, down_filter, how: Resampling):
        super().__init__()
        self.weight, self.bias, self.affine, self.how = nn.Parameter(weight), nn.Parameter(bias), affine, how
        self.register_buffer("magnitude_ema", magnitude)
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)

    def forward(self, r: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        s, how = self.affine(w), self.how
        weight: torch.Tensor = self.weight
        gain = torch.rsqrt(self.magnitude_ema)
        if how.last:
            scale = gain / math.sqrt(weight[0].numel())
        else:
            weight = weight * torch.rsqrt(weight.square().mean((1, 2, 3), keepdim=True))
            s = s * torch.rsqrt(s.square().mean(1, keepdim=True))  # all that is left of its length is in EPSILON
            size = dense(s[..., 0, 0].square(), weight.square().sum((2, 3)))
            scale = gain * torch.rsqrt(size + EPSILON)[..., None, None]
        r = (r * s).contiguous(memory_format=torch.channels_last)
        r = F.conv2d(r, weight, padding=weight.shape[-1] - 1) * scale + self.bias[:, None, None]
        r = upsampled(r, self.up_filter, how.up, how.padding)
        r = r if how.last else F.leaky_relu(r, 0.2) * 2**0.5
        r = r if how.clamp is None else r.clamp(-how.clamp, how.clamp)
        return downsampled(r, self.down_filter, how.down)


class Waves(nn.Module):
    """Fourier features, turned and moved as w says, and mixed (section 3.1 of the paper): (N, U, H, W)."""

    transform: torch.Tensor
    freqs: torch.Tensor
    phases: torch.Tensor

    def __init__(self, parts: Mapping[str, torch.Tensor], affine: Dense, side: int, rate: float, bandwidth: float):
        super().__init__()
        self.weight, self.affine = nn.Parameter(parts["weight"]), affine
        for name in ("transform", "freqs", "phases"):
            self.register_buffer(name, parts[name])
        self.side, self.rate, self.bandwidth = side, rate, bandwidth

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).unflatten(1, (3, 3))
        move = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).unflatten(1, (3, 3))
        all_of_it = turn @ move @ self.transform
        freqs = self.freqs @ all_of_it[:, :2, :2]  # (N, U, 2)
        phases = self.phases + (self.freqs @ all_of_it[:, :2, 2:])[..., 0]
        height = 1 - (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        steps = (torch.arange(self.side, device=w.device) + 0.5 - self.side / 2) / self.rate
        along_y, along_x = (freqs[..., i, None] * steps for i in (1, 0))  # (N, U, side)
        waves = along_y[..., None] + along_x[..., None, :] + phases[..., None, None]
        waves = torch.sin(2 * math.pi * waves) * height.clamp(0, 1)[..., None, None]
        return (self.weight / math.sqrt(len(self.weight)) @ waves.flatten(2)).unflatten(2, (self.side, self.side))


class StyleGenerator3(nn.Module):
    """Latents (N, Z) to images (N, C, Y, X); w is drawn towards its mean by the factor ``truncation``, 1 is not at all.

    Layers are those of NVIDIA's files by name; the last one paints.
    """

    mean: torch.Tensor

    def __init__(self, mapping: StyleMapping, mean, waves: Waves, layers: Mapping[str, Layer], scale: float):
        super().__init__()
        self.mapping, self.scale = mapping, scale
        self.register_buffer("mean", mean)
        self.names = ["synthesis.input", *layers]
        for name, module in zip(self.names, [waves, *layers.values()], strict=True):
            place_module(self, name, module)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0) -> torch.Tensor:
        w = self.mean + truncation * (self.mapping(z, labels) - self.mean)
        r = self.get_submodule(self.names[0])(w)
        for name in self.names[1:]:
            r = self.get_submodule(name)(r, w)
        return r * self.scale


def build(state: State, name: str) -> Generator:
    """The generator of a state dict and of the module that it was in, which tells how each layer resamples."""
    tensors = real(state.tensors())
    if state.module is None:
        raise CheckpointError(
            f"closest to {FAMILY}, but it is a state dict alone, which does not say how its layers resample; "
            "give the pickle that NVIDIA's code writes"
        )
    settings = {path.rstrip("."): record for path, record in walk(state.module)}
    layers = ordered(tensors)
    channels = sizes(FAMILY, tensors, "synthesis.input.weight", 2)[0]
    width = sizes(FAMILY, tensors, "synthesis.input.affine.weight", 2)[1]
    dense = numbers(r"mapping\.fc(\d{1,6})\.", tensors) or [0]
    fit(FAMILY, expected(tensors, layers, dense, channels, width), tensors, {f"{key}.up_filter" for key in layers})
    modules = {key: layer_of(tensors, key, settings[key]) for key in layers}
    waves = waves_of(without_prefix(tensors, "synthesis.input."), settings["synthesis.input"])
    check_maps(FAMILY, [(channels, waves.side), *reach(modules, waves.side)])
    scale = number(settings["synthesis"].get("output_scale", 0.25), "output_scale")
    mapping = mapping_of(tensors, dense, settings)
    net = StyleGenerator3(mapping, tensors["mapping.w_avg"], waves, modules, scale).requires_grad_(False).eval()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the filters run several times faster
    vectors = [f"mapping.layers.{i}" for i in range(len(dense))] + [f"{key}.affine" for key in layers]
    embed = mapping.embed
    classes = None if embed is None else embed.weight.shape[1]
    z_dim = cast(Dense, mapping.layers[0]).weight.shape[1] - (0 if embed is None else embed.weight.shape[0])
    if z_dim < 1:
        raise CheckpointError(f"closest to {FAMILY}, but its mapping network has no place for a latent")
    maps = ["synthesis.input", *layers]
    return Generator(net, z_dim, name, layers=maps, classes=classes, truncates=True, vectors=vectors, trusted=True)


def ordered(state: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the layers, in the order of the pass."""
    found = {
        int(match[2]): match[1] for match in (re.match(r"(synthesis\.L(\d+)_\d+_\d+)\.", key) for key in state) if match
    }
    if not 2 <= len(found) <= MOST_LAYERS or sorted(found) != list(range(len(found))):
        raise CheckpointError(f"closest to {FAMILY}, but its layers have the numbers {sorted(found)[:12]}")
    return [found[i] for i in range(len(found))]


def expected(state, layers: list[str], dense: list[int], channels: int, width: int) -> dict[str, tuple[int, ...]]:
    """The tensors that there must be; channels are read from the weights."""
    inputs = sizes(FAMILY, state, f"mapping.fc{dense[0]}.weight", 2)[1]
    wanted: dict[str, tuple[int, ...]] = {"mapping.w_avg": (width,)}
    if "mapping.embed.weight" in state:
        features, classes = sizes(FAMILY, state, "mapping.embed.weight", 2)
        wanted |= {"mapping.embed.weight": (features, classes), "mapping.embed.bias": (features,)}
    for i in dense:
        outputs = width if i == dense[-1] else sizes(FAMILY, state, f"mapping.fc{i}.weight", 2)[0]
        wanted |= {f"mapping.fc{i}.weight": (outputs, inputs), f"mapping.fc{i}.bias": (outputs,)}
        inputs = outputs
    parts = {"weight": (channels, channels), "transform": (3, 3), "freqs": (channels, 2), "phases": (channels,)}
    wanted |= {f"synthesis.input.{part}": shape for part, shape in parts.items()}
    wanted |= {"synthesis.input.affine.weight": (4, width), "synthesis.input.affine.bias": (4,)}
    for key in layers:
        units, _, side, _ = sizes(FAMILY, state, f"{key}.weight", 4)
        wanted |= {f"{key}.weight": (units, channels, side, side), f"{key}.bias": (units,), f"{key}.magnitude_ema": ()}
        wanted |= {f"{key}.affine.weight": (channels, width), f"{key}.affine.bias": (channels,)}
        for part, ndims in (("up_filter", (1,)), ("down_filter", (1, 2))):
            taps = state.get(f"{key}.{part}")
            if taps is not None:
                if taps.ndim not in ndims or not 1 <= len(taps) <= MOST_TAPS or len(set(taps.shape)) > 1:
                    raise CheckpointError(f"closest to {FAMILY}, but {key}.{part} has shape {tuple(taps.shape)}")
                wanted[f"{key}.{part}"] = tuple(taps.shape)
        channels = units
    return wanted


def without_prefix(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def waves_of(parts: Mapping[str, torch.Tensor], settings: Record) -> Waves:
    size = settings.get("size")
    found = size.load().tolist() if isinstance(size, Array) else [whole(size, "size", MOST_SIDE)] * 2
    if len(found) != 2 or found[0] != found[1] or not 1 <= found[0] <= MOST_SIDE:
        raise CheckpointError(f"closest to {FAMILY}, but its input has the size {short(tuple(found))}")
    rate, bandwidth = (number(settings.get(name), name) for name in ("sampling_rate", "bandwidth"))
    return Waves(parts, Dense(parts["affine.weight"], parts["affine.bias"]), found[0], rate, bandwidth)


def layer_of(state: Mapping[str, torch.Tensor], key: str, settings: Record) -> Layer:
    padding = settings.get("padding")
    if not isinstance(padding, list) or len(padding) != 4:
        raise CheckpointError(f"closest to {FAMILY}, but the padding of {key} is {short(padding)}")
    clamp = settings.get("conv_clamp")
    how = Resampling(
        whole(settings.get("up_factor"), f"{key}.up_factor", MOST_FACTOR),
        whole(settings.get("down_factor"), f"{key}.down_factor", MOST_FACTOR),
        cast(tuple, tuple(whole(n, f"{key}.padding", MOST_SIDE, -MOST_SIDE) for n in padding)),
        None if clamp is None else number(clamp, f"{key}.conv_clamp"),
        bool(settings.get("is_torgb")),
    )
    up, down = (state.get(f"{key}.{part}") for part in ("up_filter", "down_filter"))
    affine = Style(state[f"{key}.affine.weight"], state[f"{key}.affine.bias"])
    return Layer(state[f"{key}.weight"], state[f"{key}.bias"], affine, state[f"{key}.magnitude_ema"], up, down, how)


def reach(layers: Mapping[str, Layer], side: int) -> list[tuple[int, int]]:
    """Units and sides of what each layer makes, before and behind its second filter; CheckpointError where none is."""
    found = []
    for key, layer in layers.items():
        units, _, k, _ = layer.weight.shape
        taps = [1 if t is None else len(t) for t in (layer.up_filter, layer.down_filter)]
        factor = layer.how.up if layer.up_filter is not None else 1
        between = (side + k - 1) * factor + sum(layer.how.padding[:2]) - taps[0] + 1
        side = (between - taps[1]) // (layer.how.down if layer.down_filter is not None else 1) + 1
        if min(between, side) < 1 or sum(layer.how.padding[2:]) != sum(layer.how.padding[:2]):
            raise CheckpointError(f"closest to {FAMILY}, but nothing is left of the maps behind {key}")
        found += [(units, between), (units, side)]
    return found


def whole(value, what: str, most: int, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise CheckpointError(f"closest to {FAMILY}, but {what} is {short(value)}")
    return value


def number(value, what: str) -> float:
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise CheckpointError(f"closest to {FAMILY}, but {what} is {short(value)}")
    return float(value)
