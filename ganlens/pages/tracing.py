"""A network as a list of plain steps, found by watching what it computes: what a page needs to run it.

The network runs once, on one granule of images, while torch tells of every operation. What depends on weights alone is
computed here and now; what is left must be among the few operations that a page knows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganlens.models.bit_exact import GRANULE
from ganlens.models.hooks import hooks
from ganlens.pages.program import Program, cannot

SAME = {"detach", "clone", "alias", "_to_copy", "lift_fresh", "contiguous", "_reshape_alias", "positive"}
VIEWS = {"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten"}
WHOLE = {"split", "slice", "constant_pad_nd", "cat", "expand"}  # nothing happens, where all of a batch is meant


def traced(net: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor, layers: Sequence[str]):
    """The program of a network, for one image.

    Parameters
    ----------
    net : Module
        Whose modules are named where something cannot be done.
    run : callable
        What is watched: the network's output of ``given``.
    given : Tensor (GRANULE, …)
        Any input.
    layers : sequence of str
        Modules whose outputs may be edited.

    Raises
    ------
    ValueError
        There is an operation that pages do not know; the module is named.
    """
    if len(given) != GRANULE:
        raise ValueError(f"{len(given)} images; expected {GRANULE}")
    recorder, inside = Recorder(given), [""]
    names = {module: name for name, module in net.named_modules()}

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if names[module] in layers and isinstance(output, torch.Tensor):
            recorder.mark(names[module], output)
        inside.pop()

    handles = [m.register_forward_pre_hook(lambda module, _: inside.append(names[module])) for m in names]
    recorder.where = lambda: inside[-1]
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:  # products are made in another way where gradients may be wanted
            parameter.requires_grad_(False)
        with torch.no_grad(), hooks((module, leave) for module in names), recorder:
            output = run(given)
        recorder.program.end(recorder.number(output))
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for handle in handles:
            handle.remove()
    return recorder.program


class Recorder(TorchDispatchMode):
    """Writes down what is done to an input, and computes what is done to anything else."""

    def __init__(self, given: torch.Tensor):
        super().__init__()
        self.program = Program(tuple(given.shape[1:]))
        self.known: dict[int, tuple[torch.Tensor, int | ValueError]] = {id(given): (given, 0)}
        self.where: Callable[[], str] = lambda: ""

    def number(self, tensor: torch.Tensor) -> int:
        """Which map of the program a tensor is; ValueError for one that does not depend on the input."""
        if id(tensor) not in self.known:
            raise cannot(self.where(), "gives something that does not depend on its input")
        number = self.known[id(tensor)][1]
        if isinstance(number, ValueError):
            raise number
        return number

    def mark(self, layer: str, output: torch.Tensor) -> None:
        """Remember which map is a layer's: one of its own, so that an edit of it changes nothing else."""
        number, program = self.number(output), self.program
        if layer in program.layers:
            raise cannot(layer, "runs more than once")
        if number == 0 or number in program.layers.values():
            number = program.step("view", [number], program.shapes[number])
            self.known[id(output)] = output, number
        program.layers[layer] = number

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else [arg])]
        if any(id(a) in self.known for a in flat if isinstance(a, torch.Tensor)):
            name = function.overloadpacket.__name__
            found = output[0] if isinstance(output, list | tuple) else output
            try:
                number: int | ValueError = self.note(name.rstrip("_"), list(args), kwargs or {}, found)
            except ValueError as error:
                number = error  # it counts only if somebody needs this
            self.known[id(found)] = found, number
        return output

    def note(self, name: str, args: list, options: dict, output: torch.Tensor) -> int:
        """Write down an operation; the number of the map that it makes."""
        first, shape = args[0], tuple(output.shape[1:])
        if name in SAME or (name == "expand" and output.shape == first.shape):
            return self.number(first)
        if (not output.ndim or len(output) != GRANULE) and name not in ("t", "bmm"):
            raise cannot(self.where(), f"{name} mixes images, or has no axis of images")
        if name in WHOLE and self.is_whole(name, args, output):
            return self.number(first[0] if name == "cat" else first)
        writer = getattr(self, f"write_{name}", None)
        if name in VIEWS:
            return self.program.view(self.number(first), shape)
        if writer is None:
            raise cannot(self.where(), f"uses {name}, which pages do not know")
        return writer(args, options, shape)

    def is_whole(self, name: str, args: list, output: torch.Tensor) -> bool:
        """Whether an operation on the batch leaves it as it is."""
        if name == "cat":
            return len(args[0]) == 1
        return output.shape == args[0].shape

    # ---- operations

    def write_expand(self, args: list, options: dict, shape: tuple) -> int:
        if shape[1:] != args[0].shape[2:] or args[0].shape[1] != 1:
            raise cannot(self.where(), "repeats rows or columns")
        return self.program.step("concat", [self.number(args[0])] * shape[0], shape)

    def write_convolution(self, args: list, options: dict, shape: tuple) -> int:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args
        where, channels = self.where(), weight.shape[0]
        if weight.ndim != 4 or any(d != 1 for d in dilation):
            raise cannot(where, "is a convolution with dilation, or not of two axes")
        if groups not in (1, channels) or (groups > 1 and (transposed or weight.shape[1] != 1)):
            raise cannot(where, f"is a convolution of {groups} groups")
        if transposed and stride[0] != stride[1]:
            raise cannot(where, f"is a transposed convolution with strides {tuple(stride)}")
        arrays = weight.detach().float().numpy(), None if bias is None else bias.detach().float().numpy()
        way = self.program.transposed_convolution if transposed else self.program.convolution
        return way(self.number(x), *arrays, tuple(stride), tuple(padding), groups > 1, shape)

    def write_mm(self, args: list, options: dict, shape: tuple) -> int:
        return self.linear(args[0], args[1], None, shape)

    def write_addmm(self, args: list, options: dict, shape: tuple) -> int:
        return self.linear(args[1], args[2], args[0], shape)

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple) -> int:
        """A linear map of rows by a weight (C, U)."""
        if id(weight) in self.known or x.ndim != 2:
            raise cannot(self.where(), "multiplies two things that depend on the input")
        kernel = weight.detach().float().t().numpy()[:, :, None, None]
        offset = None if bias is None else bias.detach().float().numpy()
        return self.program.convolution(self.number(x), kernel, offset, (1, 1), (0, 0), False, shape)

    def write_bmm(self, args: list, options: dict, shape: tuple) -> int:
        weight, x = args
        if id(weight) in self.known or (weight != weight[:1]).any():
            raise cannot(self.where(), "multiplies two things that depend on the input")
        kernel = weight[0].detach().float().numpy()[:, :, None, None]
        return self.program.convolution(self.number(x), kernel, None, (1, 1), (0, 0), False, shape)

    def write_native_batch_norm(self, args: list, options: dict, shape: tuple) -> int:
        x, weight, bias, mean, variance = args[:5]
        if len(args) > 6 and args[5] is True:
            raise cannot(self.where(), "is a batch norm that looks at the batch; set the network to eval()")
        scale = torch.rsqrt(variance.float() + args[-1]) * (1 if weight is None else weight.float())
        shift = -mean.float() * scale + (0 if bias is None else bias.float())
        return self.program.affine(self.number(x), scale.numpy(), shift.numpy())

    write__native_batch_norm_legit_no_training = write_native_batch_norm

    def write_leaky_relu(self, args: list, options: dict, shape: tuple) -> int:
        slope = args[1] if len(args) > 1 else 0.01
        return self.program.step("leaky", [self.number(args[0])], shape, slope=float(slope))

    def write_relu(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("leaky", [self.number(args[0])], shape, slope=0.0)

    def write_tanh(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("tanh", [self.number(args[0])], shape)

    def write_sigmoid(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("sigmoid", [self.number(args[0])], shape)

    def write_rsqrt(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("rsqrt", [self.number(args[0])], shape)

    def write_sqrt(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("sqrt", [self.number(args[0])], shape)

    def write_clamp(self, args: list, options: dict, shape: tuple) -> int:
        low, high = [*args[1:], None, None][:2]
        low, high = options.get("min", low), options.get("max", high)
        limits = {"low": -3e38 if low is None else float(low), "high": 3e38 if high is None else float(high)}
        return self.program.step("clamp", [self.number(args[0])], shape, **limits)

    write_hardtanh = write_clamp

    def write_pow(self, args: list, options: dict, shape: tuple) -> int:
        if args[1] != 2:
            raise cannot(self.where(), f"uses a power of {args[1]}; pages know squares")
        return self.program.step("square", [self.number(args[0])], shape)

    def write_mean(self, args: list, options: dict, shape: tuple) -> int:
        keep = options.get("keepdim", args[2] if len(args) > 2 else False)
        if [d % args[0].ndim for d in args[1]] != [1] or not keep:
            raise cannot(self.where(), "takes a mean over something else than units")
        return self.program.step("mean", [self.number(args[0])], shape)

    def write_add(self, args: list, options: dict, shape: tuple) -> int:
        return self.arithmetic("add", args, options, shape)

    def write_sub(self, args: list, options: dict, shape: tuple) -> int:
        if isinstance(args[1], torch.Tensor) and id(args[1]) in self.known:
            raise cannot(self.where(), "subtracts something that depends on the input")
        return self.arithmetic("add", [args[0], -args[1]], options, shape)

    def write_mul(self, args: list, options: dict, shape: tuple) -> int:
        return self.arithmetic("mul", args, options, shape)

    def write_div(self, args: list, options: dict, shape: tuple) -> int:
        x, y = args[:2]
        if not isinstance(y, torch.Tensor) or id(y) not in self.known:
            return self.arithmetic("mul", [x, 1 / y], options, shape)
        inverse = self.program.step("reciprocal", [self.number(y)], y.shape[1:])
        if not isinstance(x, torch.Tensor) or id(x) not in self.known:
            raise cannot(self.where(), "divides a constant")
        return self.program.step("mul", [self.number(x), inverse], shape)

    def arithmetic(self, name: str, args: list, options: dict, shape: tuple) -> int:
        """A sum or product with a number, with a constant of each unit, or with another map."""
        if options.get("alpha", 1) != 1:
            raise cannot(self.where(), "adds a multiple")
        x, y = args[:2]
        if not isinstance(x, torch.Tensor) or id(x) not in self.known:
            x, y = y, x
        if isinstance(y, torch.Tensor) and id(y) in self.known:
            return self.program.step(name, [self.number(x), self.number(y)], shape)
        values = np.asarray(y.detach().float().numpy() if isinstance(y, torch.Tensor) else y, np.float32)
        axes = (1,) * (len(shape) + 1 - values.ndim) + values.shape  # as it is broadcast: images, units, rows, columns
        if values.size > 1 and (axes[:2] != (1, shape[0]) or values.size != shape[0]):
            raise cannot(self.where(), "adds or multiplies by numbers that are not one for each unit")
        per_unit = np.broadcast_to(values.reshape(-1), shape[0])
        one, zero = np.ones_like(per_unit), np.zeros_like(per_unit)
        return self.program.affine(self.number(x), *((one, per_unit) if name == "add" else (per_unit, zero)))

    def write_cat(self, args: list, options: dict, shape: tuple) -> int:
        if len(args) > 1 and args[1] != 1:
            raise cannot(self.where(), "joins along something else than units")
        return self.program.step("concat", [self.number(x) for x in args[0]], shape)

    def write_replication_pad2d(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.pad(self.number(args[0]), args[1], "replicate")

    def write_reflection_pad2d(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.pad(self.number(args[0]), args[1], "reflect")

    def write_constant_pad_nd(self, args: list, options: dict, shape: tuple) -> int:
        if len(args[1]) > 4 or (len(args) > 2 and args[2]):
            raise cannot(self.where(), "pads with something else than zeros beside the picture")
        return self.program.pad(self.number(args[0]), [*args[1], 0, 0, 0][:4], "zero")

    def write_upsample_nearest2d(self, args: list, options: dict, shape: tuple) -> int:
        height, width = args[0].shape[2:]
        if shape[1] % height or shape[2] % width:
            raise cannot(self.where(), "enlarges by a fraction")
        return self.program.step("nearest", [self.number(args[0])], shape)

    def write_upsample_bilinear2d(self, args: list, options: dict, shape: tuple) -> int:
        return self.program.step("bilinear", [self.number(args[0])], shape, corners=bool(args[2]))

    def write_max_pool2d_with_indices(self, args: list, options: dict, shape: tuple) -> int:
        side, stride = list(args[1]), list(args[2] if len(args) > 2 and args[2] else args[1])
        if side != stride or len({*side}) != 1 or any(any(np.atleast_1d(a)) for a in args[3:4]):
            raise cannot(self.where(), "is a pooling whose windows overlap")
        if len(args) > 5 and args[5]:
            raise cannot(self.where(), "is a pooling with ceil_mode")
        return self.program.step("maxpool", [self.number(args[0])], shape, side=side[0])
