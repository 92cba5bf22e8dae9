"""What a state dict of convolutions says, and which strides and paddings they may have."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ganlens.models.bit_exact import convolution
from ganlens.models.files.reading import CheckpointError, fit

FAMILY = "DCGAN"
MOST_PIXELS = 512
MOST_CONVOLUTIONS = 40
LEAST_LEFT = 1e-3  # of what batch statistics began with, to be reckoned with
MOST_STRIDE = 3  # larger ones are half of the kernel
Step = tuple[int, int, int]  # stride, padding, output padding; or how many times a map is enlarged, padding, 0
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
        return len(self.tensors["running_mean"]) if self.kind == "norm" else 0


def parts_of(state: Mapping[str, torch.Tensor]) -> list[Part]:
    """The modules of a state dict, in its order."""
    parts: dict[str, Part] = {}
    for key, tensor in state.items():
        name, _, what = key.rpartition(".")
        parts.setdefault(name, Part(name, {})).tensors[what] = tensor
    return list(parts.values())


def as_in_training(part: Part) -> Part:
    """A norm without what is left in its statistics of the 0 and 1 that they began with.

    After n updates with the usual momentum of 0.1 that is a share of 0.9^n. The network itself has it; in training
    its layers saw statistics of batches. Where n is large, or not known, the part is as it was.
    """
    updates = part.tensors.get("num_batches_tracked", torch.zeros(()))
    left = 0.9 ** float(updates) if part.kind == "norm" and updates.numel() == 1 and updates > 0 else 0.0
    if left < LEAST_LEFT or (part.tensors["running_var"] <= left).any():
        return part
    mean, variance = part.tensors["running_mean"] / (1 - left), (part.tensors["running_var"] - left) / (1 - left)
    return Part(part.name, part.tensors | {"running_mean": mean, "running_var": variance})


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


@dataclass(frozen=True)
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

    def reached(self, size: int, step: Step) -> int:
        stride, padding, extra = step
        side = self.shape[2]
        if self.transposed:
            return (size - 1) * stride - 2 * padding + side + extra
        return size * stride + 2 * padding - side + 1

    def module(self, step: Step, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
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


def check_chain(parts: list[Part], start: Start) -> None:
    """CheckpointError where a layer cannot follow upon the one before it, or the last one gives no image."""
    reached = {start.units}
    for part in parts:
        if part.kind == "conv":
            further = {b for a, b in (part.shape[:2], part.shape[1::-1]) if a in reached}
            if not further or part.shape[2] != part.shape[3]:
                raise CheckpointError(
                    f"closest to {FAMILY}, but {part.name}.weight has shape {part.shape} and follows upon "
                    f"{' or '.join(map(str, sorted(reached)))} units"
                )
            reached = further
        elif part.kind == "norm" and not {part.size, part.size // start.size**2} & reached:
            raise CheckpointError(
                f"closest to {FAMILY}, but {part.name} has {part.size} units and follows upon "
                f"{' or '.join(map(str, sorted(reached)))}"
            )
    if sum(part.kind == "conv" for part in parts) > MOST_CONVOLUTIONS:
        raise CheckpointError(f"closest to {FAMILY}, but it has more than {MOST_CONVOLUTIONS} convolutions")
    if not reached & {1, 3}:
        raise CheckpointError(
            f"closest to {FAMILY}, but its last layer yields {min(reached)} channels; 1 or 3 were expected"
        )


def every_step(conv: Conv, size: int) -> Iterator[Step]:
    """All steps that a convolution of its kernel may have; on one cell, all strides are one."""
    kernel = conv.shape[2]
    if not conv.transposed:
        yield from dict.fromkeys([(1, kernel // 2, 0), (1, 0, 0), *([(2, kernel // 2, 0)] if size > 1 else [])])
        return
    for stride in range(1, (min(max(MOST_STRIDE, kernel // 2), kernel) if size > 1 else 1) + 1):
        for padding in range(kernel // 2 + 1):
            yield from ((stride, padding, more) for more in range(stride if padding else 1))


def usual_steps(conv: Conv, size: int, grown: bool) -> dict[Step, float]:
    """The steps that convolutions have as a rule, and how unusual each of them is.

    ``grown`` tells whether transposed convolutions enlarge the maps: then nothing else does.
    """
    kernel = conv.shape[2]
    if not conv.transposed:
        return {(1, kernel // 2, 0): 0.0} | ({} if grown or size == 1 else {(2, kernel // 2, 0): 4.0})
    if size == 1:
        return {(1, 0, 0): 0.0}  # the latent becomes a map of the size of the kernel
    penalty = 3 if kernel % 2 == 0 else 0  # even kernels are there to double
    return {step: float(rank + penalty * (rank > 0)) for rank, step in enumerate(STEPS.get(kernel, []))}


def sizes(convs: Sequence[Conv], start: Start, steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Units and side of the output of each convolution."""
    side, maps = start.size, []
    for conv, step in zip(convs, steps, strict=True):
        side = conv.reached(side, step)
        maps.append((conv.outputs, side))
    return maps


def unusual(size: int, grey: bool) -> float:
    """How much speaks against images of a size; the 28 pixels of MNIST are grey."""
    if size == 28:
        return -3.5 if grey else 3.0
    return USUAL_SIZES.get(size, 2.5 if size % 8 == 0 else 6.0)
