"""Plain DCGAN (Radford et al., ICLR 2016) from a state dict alone: what is not in the file is inferred and reported.

Stored are weights, biases and batch statistics. Strides and paddings are those that lead to the most usual image size;
hidden activations and the law of the latent are those under which the batch statistics come true.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ganlens.models.base import LAWS, Generator
from ganlens.models.checkpoints import CheckpointError, check_maps, fit
from ganlens.models.stylegan2 import place

FAMILY = "DCGAN"
PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
MOST_PIXELS = 512
MOST_CONVOLUTIONS = 40
SAMPLE_CELLS = 2**24  # so that these take no more memory than there is
SAMPLE = 64  # latents that show how the batch statistics come true
USUAL_SIZES = {28: 0.0, 32: 0.0, 48: 0.5, 64: 0.0, 96: 0.5, 128: 0.0, 256: 0.0, 512: 0.0}

# Stride, padding and output padding of transposed convolutions by kernel size; the usual ones first.
STEPS = {
    1: [(1, 0, 0)],
    2: [(2, 0, 0), (1, 0, 0)],
    3: [(2, 1, 1), (1, 1, 0), (2, 1, 0), (2, 0, 0), (1, 0, 0)],
    4: [(2, 1, 0), (1, 0, 0), (2, 0, 0), (1, 1, 0), (2, 2, 0)],
    5: [(2, 2, 1), (1, 2, 0), (2, 2, 0), (1, 0, 0)],
    6: [(2, 2, 0), (1, 0, 0)],
    7: [(1, 0, 0), (1, 3, 0), (2, 3, 1)],
    8: [(1, 0, 0), (4, 2, 0), (2, 3, 0)],
}


@dataclass
class Part:
    """One module of the file: its name and its tensors."""

    name: str
    tensors: dict[str, torch.Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors["weight"].shape) if "weight" in self.tensors else ()

    @property
    def kind(self) -> str:
        if "running_mean" in self.tensors and "running_var" in self.tensors:
            return "norm"
        return {2: "dense", 4: "conv"}.get(len(self.shape), "unknown")

    @property
    def size(self) -> int:
        return len(self.tensors["running_mean"])


def parts_of(state: Mapping[str, torch.Tensor]) -> list[Part]:
    """The modules of a state dict, in its order."""
    parts: dict[str, Part] = {}
    for key, tensor in state.items():
        name, _, what = key.rpartition(".")
        parts.setdefault(name, Part(name, {})).tensors[what] = tensor
    return list(parts.values())


def likeness(shapes: Mapping[str, tuple[int, ...]]) -> float:
    """A little where there are convolutions and nothing but layers and norms: any other family is a better match."""
    convs = [name for name, shape in shapes.items() if len(shape) == 4]
    plain = sum(name.rpartition(".")[2] in PARTS for name in shapes)
    return 0.4 * plain / len(shapes) if len(convs) >= 2 else 0.0


class Chain(nn.Module):
    """Modules by dotted name, one after the other."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self.names = list(modules)
        for name, module in modules.items():
            place(self, name, module)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            z = self.get_submodule(name)(z)
        return z


def from_state(state: Mapping[str, torch.Tensor], name: str | None = None) -> Generator:
    """The generator of a state dict of transposed convolutions, batch norms and perhaps a linear map in front.

    Parameters
    ----------
    state : mapping of str to Tensor
        In the order of the forward pass: ``main.0.weight`` (Z, C, 4, 4), ``main.1.running_mean`` (C,), …; or first a
        linear map (C s s, Z). The last layer yields 1 or 3 channels; tanh is assumed behind it.

    Returns
    -------
    Generator
        Its ``about`` says what was inferred.

    Raises
    ------
    CheckpointError
        The layers do not follow upon one another, or other tensors are left over.
    """
    parts = parts_of({key: tensor.float() for key, tensor in state.items()})
    check(parts)
    start = start_of(parts)
    convs = convolutions(parts, start)
    steps = steps_to_image(convs, start)

    maps = sizes(convs, start, steps)
    check_maps(FAMILY, maps)
    count = min(SAMPLE, max(2, SAMPLE_CELLS // sum(units * side * side for units, side in maps)))

    def measured(slope: float, law: str) -> tuple[float, float]:
        return mismatch(Chain(built(parts, start, convs, steps, slope)[0]).eval(), start.z_dim, law, count)

    plain = {law: measured(0.0, law) for law in LAWS}
    ratios = {law: ratio for law, (ratio, _) in plain.items()}
    law = "normal" if math.isnan(ratios["normal"]) else min(ratios, key=lambda law: abs(math.log(ratios[law])))
    slope = 0.2 if measured(0.2, law)[1] < 0.7 * plain[law][1] else 0.0
    modules, maps = built(parts, start, convs, steps, slope)
    G = Generator(Chain(modules).requires_grad_(False), start.z_dim, name or FAMILY, maps, law)
    G.about = report(G, convs, steps, slope, ratios)
    return G


def check(parts: list[Part]) -> None:
    """CheckpointError where there is anything but convolutions, batch norms and a linear map in front."""
    strange = [part for i, part in enumerate(parts) if part.kind == "unknown" or (part.kind == "dense" and i)]
    left = [f"{part.name}.{what}" for part in parts for what in part.tensors if what not in PARTS]
    left += [f"{part.name}.{what}" for part in strange for what in part.tensors if what in PARTS]
    fit(FAMILY, {}, dict.fromkeys(left, torch.empty(0)))
    if not parts or parts[0].kind == "norm" or sum(part.kind == "conv" for part in parts) < 2:
        raise CheckpointError(f"closest to {FAMILY}, but missing: a first layer and at least two convolutions")


@dataclass
class Start:
    """What the first convolution sees: units (channels), and a side of ``size`` cells."""

    z_dim: int
    units: int
    size: int


def start_of(parts: list[Part]) -> Start:
    first = parts[0].shape
    if parts[0].kind == "conv":
        return Start(first[0], first[0], 1)
    conv = next(part for part in parts if part.kind == "conv")
    for units in conv.shape[:2]:
        size = math.isqrt(first[0] // units) if units else 0
        if size and units * size * size == first[0]:
            return Start(first[1], units, size)
    raise CheckpointError(f"closest to {FAMILY}, but {parts[0].name} has {first[0]} outputs, no maps for {conv.name}")


@dataclass
class Conv:
    """A convolution of the file, and whether it is transposed."""

    name: str
    shape: tuple[int, ...]
    transposed: bool

    @property
    def outputs(self) -> int:
        return self.shape[1] if self.transposed else self.shape[0]

    def reached(self, size: int, step: tuple[int, int, int]) -> int:
        stride, padding, extra = step
        side = self.shape[2]
        return (size - 1) * stride - 2 * padding + side + extra if self.transposed else size + 2 * padding - side + 1

    def options(self, size: int) -> list[tuple[int, int, int]]:
        side = self.shape[2]
        if size == 1 and self.transposed:
            return [(1, 0, 0)]  # the latent becomes a map of the size of the kernel
        return STEPS.get(side, []) if self.transposed else [(1, side // 2, 0)]

    def module(self, step: tuple[int, int, int], tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        bias = "bias" in tensors
        inputs, outputs = self.shape[:2] if self.transposed else self.shape[1::-1]
        side = self.shape[2]
        if self.transposed:
            module = nn.ConvTranspose2d(inputs, outputs, side, step[0], step[1], step[2], bias=bias)
        else:
            module = nn.Conv2d(inputs, outputs, side, padding=step[1], bias=bias)
        return loaded(module, self.name, tensors)


def loaded(module: nn.Module, name: str, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    wanted = {f"{name}.{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    optional = {f"{name}.num_batches_tracked"}
    wanted = {key: shape for key, shape in wanted.items() if key not in optional}
    fit(FAMILY, wanted, {f"{name}.{key}": tensor for key, tensor in tensors.items()}, optional)
    module.load_state_dict({key: tensors[key] for key in module.state_dict() if key in tensors}, strict=False)
    return module


def convolutions(parts: list[Part], start: Start) -> list[Conv]:
    """The convolutions in their order; transposed where the channels allow it."""
    units, found = start.units, []
    for part in parts:
        if part.kind == "conv":
            if units not in part.shape[:2] or part.shape[2] != part.shape[3]:
                raise CheckpointError(
                    f"closest to {FAMILY}, but {part.name}.weight has shape {part.shape} and follows upon {units} units"
                )
            found.append(Conv(part.name, part.shape, part.shape[0] == units))
            units = found[-1].outputs
    if len(found) > MOST_CONVOLUTIONS:
        raise CheckpointError(f"closest to {FAMILY}, but it has {len(found)} convolutions")
    if units not in (1, 3):
        raise CheckpointError(f"closest to {FAMILY}, but its last layer yields {units} channels; 1 or 3 were expected")
    return found


def steps_to_image(convs: list[Conv], start: Start) -> list[tuple[int, int, int]]:
    """Stride, padding and output padding of each convolution, so that the image has the most usual size."""
    reached: dict[int, tuple[float, list]] = {start.size: (0.0, [])}
    for conv in convs:
        further: dict[int, tuple[float, list]] = {}
        for size, (cost, steps) in reached.items():
            for rank, step in enumerate(conv.options(size)):
                rank += 3 if rank and conv.shape[2] % 2 == 0 else 0  # even kernels are there to double
                new = conv.reached(size, step)
                if 0 < new <= MOST_PIXELS and (new not in further or cost + rank < further[new][0]):
                    further[new] = (cost + rank, [*steps, step])
        reached = further
    if not reached:
        raise CheckpointError(f"closest to {FAMILY}, but no strides and paddings lead to an image")
    grey = convs[-1].outputs == 1
    return min(reached.items(), key=lambda item: item[1][0] + unusual(item[0], grey))[1][1]


def sizes(convs: list[Conv], start: Start, steps: list) -> list[tuple[int, int]]:
    """Units and side of the output of each convolution."""
    side, maps = start.size, []
    for conv, step in zip(convs, steps, strict=True):
        side = conv.reached(side, step)
        maps.append((conv.outputs, side))
    return maps


def unusual(size: int, grey: bool) -> float:
    """How much speaks against images of a size; for grey ones, the 28 pixels of MNIST are likely."""
    return -3.5 if grey and size == 28 else USUAL_SIZES.get(size, 2.5 if size % 8 == 0 else 6.0)


def built(parts: list[Part], start: Start, convs: list[Conv], steps: list, slope: float):
    """All modules by name, and the names of those that yield feature maps."""
    modules: dict[str, nn.Module] = {}
    maps: list[str] = []
    steps_of = {conv.name: (conv, step) for conv, step in zip(convs, steps, strict=True)}
    taken = {part.name for part in parts}
    flat = parts[0].kind == "dense"
    if not flat:
        modules["latent"] = nn.Unflatten(1, (start.z_dim, 1, 1))

    def add(name: str, module: nn.Module) -> None:
        modules[name] = module
        taken.add(name)
        if not flat:
            maps.append(name)

    for part, after in zip(parts, [*parts[1:], None], strict=True):
        if flat and (
            part.kind == "conv" or (part.kind == "norm" and part.size == start.units < start.units * start.size**2)
        ):
            modules["maps"], flat = nn.Unflatten(1, (start.units, start.size, start.size)), False
        if part.kind == "conv":
            conv, step = steps_of[part.name]
            add(part.name, conv.module(step, part.tensors))
        elif part.kind == "dense":
            dense = nn.Linear(part.shape[1], part.shape[0], bias="bias" in part.tensors)
            add(part.name, loaded(dense, part.name, part.tensors))
        else:
            norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(part.size, affine="weight" in part.tensors)
            add(part.name, loaded(norm, part.name, part.tensors))
        if after is None:
            add(free_name(part.name, taken), nn.Tanh())
        elif after.kind != "norm":
            add(free_name(part.name, taken), nn.LeakyReLU(slope) if slope else nn.ReLU())
    return modules, maps


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name behind a module: the next index of a Sequential, or the same name and ``_act``."""
    folder, _, last = name.rpartition(".")
    following = f"{folder}.{int(last) + 1}".lstrip(".") if re.fullmatch("[0-9]{1,6}", last) else f"{name}_act"
    return following if following not in taken else f"{name}_act"


def mismatch(net: Chain, z_dim: int, law: str, count: int = SAMPLE) -> tuple[float, float]:
    """How the batch statistics come true under a law of the latent.

    Returns
    -------
    ratio : float
        Variance that enters the first batch norm, divided by its ``running_var``: the geometric mean over its units;
        nan where there is no norm.
    error : float
        Mean absolute logarithm of that ratio over the later norms.
    """
    draws = [LAWS[law](np.random.RandomState(seed), z_dim) for seed in range(count)]
    z = torch.from_numpy(np.asarray(draws, np.float32))
    logs: list[torch.Tensor] = []

    def note(norm, inputs):
        r = inputs[0].transpose(0, 1).flatten(1)
        logs.append((r.var(1).clamp(min=1e-12) / norm.running_var.clamp(min=1e-12)).log())

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.no_grad():
        net(z)
    for hook in hooks:
        hook.remove()
    later = torch.cat(logs[1:]).abs().mean().item() if len(logs) > 1 else 0.0
    return (logs[0].mean().exp().item() if logs else math.nan), later


def report(G: Generator, convs: list[Conv], steps: list, slope: float, ratios: Mapping[str, float]) -> str:
    """What was inferred, in words."""
    kinds = {True: "transposed convolution", False: "convolution"}
    lines = [f"{FAMILY}, inferred from a state dict:"]
    lines += [
        f"  {conv.name}: {kinds[conv.transposed]} {conv.shape[2]}x{conv.shape[2]}, stride {step[0]}, padding {step[1]}"
        + (f", output padding {step[2]}" if step[2] else "")
        for conv, step in zip(convs, steps, strict=True)
    ]
    lines.append(f"  hidden activation {f'leaky ReLU {slope}' if slope else 'ReLU'}; tanh assumed at the end")
    known = ", ".join(f"{law} {ratio:.2f}" for law, ratio in ratios.items())
    why = "assumed, as there are no batch statistics" if math.isnan(ratios["normal"]) else f"variance ratios: {known}"
    return "\n".join([*lines, f"  latent law {G.law} ({why}; 1 is right)"])
