"""What a state dict of convolutions says, and which strides and paddings lead from it to an image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ganlens.models.bit_exact import convolution
from ganlens.models.files.reading import CheckpointError, fit

FAMILY = "DCGAN"
MOST_PIXELS = 512
MOST_CONVOLUTIONS = 40
WAYS, MARGIN = 4, 1.0  # lists of strides that are kept, and how much less usual than the best they may be
NEW_STYLE = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")
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
    def trained(self) -> bool:
        """Whether training has changed the batch statistics."""
        return bool(self.tensors["running_mean"].any() or (self.tensors["running_var"] != 1).any())

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
    """A convolution of the file, and whether it is transposed.

    Its steps are (stride, padding, output padding); without transposition, what stands for the stride is how many times
    the map is enlarged in front of it.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool

    @property
    def outputs(self) -> int:
        return self.shape[1] if self.transposed else self.shape[0]

    def reached(self, size: int, step: tuple[int, int, int]) -> int:
        stride, padding, extra = step
        side = self.shape[2]
        if self.transposed:
            return (size - 1) * stride - 2 * padding + side + extra
        return size * stride + 2 * padding - side + 1

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
            module: nn.Module = nn.ConvTranspose2d(inputs, outputs, side, step[0], step[1], step[2], bias=bias)
        else:
            module = convolution(inputs, outputs, side, step[1], bias)
        return loaded(module, self.name, tensors)


def loaded(module: nn.Module, name: str, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    wanted = {f"{name}.{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    optional = {f"{name}.num_batches_tracked"}
    wanted = {key: shape for key, shape in wanted.items() if key not in optional}
    fit(FAMILY, wanted, {f"{name}.{key}": tensor for key, tensor in tensors.items()}, optional)
    module.load_state_dict({key: tensors[key] for key in module.state_dict() if key in tensors}, strict=False)
    return module


def convolutions(parts: list[Part], start: Start) -> list[list[Conv]]:
    """The convolutions in their order, in one or two readings; transposed where the channels allow it.

    Those that keep the number of channels may be either. Odd ones among even ones are there to refine: not transposed.
    """
    refined = convolutions_read(parts, start, refine=True)
    transposed = convolutions_read(parts, start, refine=False)
    if refined == transposed:
        return [transposed]
    even = any(conv.shape[2] % 2 == 0 for conv in transposed[1:])
    return [refined, transposed] if even else [transposed, refined]


def convolutions_read(parts: list[Part], start: Start, refine: bool) -> list[Conv]:
    """The convolutions; odd ones that keep the number of channels are transposed unless they ``refine``."""
    units = start.units
    found: list[Conv] = []
    for part in parts:
        if part.kind == "conv":
            if units not in part.shape[:2] or part.shape[2] != part.shape[3]:
                raise CheckpointError(
                    f"closest to {FAMILY}, but {part.name}.weight has shape {part.shape} and follows upon {units} units"
                )
            either = part.shape[0] == part.shape[1] and part.shape[2] % 2 == 1 and (len(found) > 0 or start.size > 1)
            found.append(Conv(part.name, part.shape, part.shape[0] == units and not (either and refine)))
            units = found[-1].outputs
        elif part.kind == "norm" and part.size not in (units, units * start.size**2):
            raise CheckpointError(
                f"closest to {FAMILY}, but {part.name} has {part.size} units and follows upon {units}"
            )
    if len(found) > MOST_CONVOLUTIONS:
        raise CheckpointError(f"closest to {FAMILY}, but it has {len(found)} convolutions")
    if units not in (1, 3):
        raise CheckpointError(f"closest to {FAMILY}, but its last layer yields {units} channels; 1 or 3 were expected")
    return found


def steps_to_image(convs: list[Conv], start: Start) -> list[list[tuple[int, int, int]]]:
    """Stride, padding and output padding of each convolution, for an image of a usual size; the best ways first."""
    reached: dict[int, list[tuple[float, list]]] = {start.size: [(0.0, [])]}
    for conv in convs:
        further: dict[int, list[tuple[float, list]]] = {}
        for size, ways in reached.items():
            for rank, step in enumerate(conv.options(size)):
                rank += 3 if rank and conv.shape[2] % 2 == 0 else 0  # even kernels are there to double
                new = conv.reached(size, step)
                if 0 < new <= MOST_PIXELS:
                    further.setdefault(new, []).extend((cost + rank, [*steps, step]) for cost, steps in ways)
        reached = {size: sorted(ways)[:WAYS] for size, ways in further.items()}
    if not reached:
        raise CheckpointError(f"closest to {FAMILY}, but no strides and paddings lead to an image")
    grey = convs[-1].outputs == 1
    ends = sorted((cost + unusual(size, grey), steps) for size, ways in reached.items() for cost, steps in ways)
    return [steps for cost, steps in ends if cost <= ends[0][0] + MARGIN][:WAYS]


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


def doubled_ways(convs: list[Conv], start: Start) -> bool:
    """Whether only doublings between convolutions lead to an image: those that are not in a file."""
    first = int(start.size == 1)  # a latent of one cell becomes a map
    return all(not conv.transposed and conv.shape[2] % 2 == 1 for conv in convs[first:])


def settled(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in which weights under spectral norm are what the network uses in evaluation.

    Stored are the weight and two vectors u, v; in use is the weight divided by u W v, old and new style.
    """
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        for stored, u, v in (("weight_orig", "weight_u", "weight_v"), NEW_STYLE):
            name = key.removesuffix(f".{stored}")
            if name != key and f"{name}.{u}" in tensors and f"{name}.{v}" in tensors:
                found[f"{name}.weight"] = divided(tensor, tensors[f"{name}.{u}"], tensors[f"{name}.{v}"], name)
                break
        else:
            if not key.endswith((".weight_u", ".weight_v", *(f".{what}" for what in NEW_STYLE))):
                found[key] = tensor
    return found


def divided(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, name: str) -> torch.Tensor:
    """A weight divided by its largest singular value, as the vectors give it."""
    sigmas = []
    for matrix in (weight.flatten(1), weight.transpose(0, 1).flatten(1)) if weight.ndim > 1 else ():
        if tuple(matrix.shape) == (u.numel(), v.numel()):
            sigmas.append((u.flatten() @ (matrix @ v.flatten())).item())
    if not sigmas or not max(sigmas) > 0:
        raise CheckpointError(f"closest to {FAMILY}, but the vectors of its spectral norm do not fit {name}")
    return weight / max(sigmas)
