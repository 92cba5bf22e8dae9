"""What a network of somebody's own takes and returns, found by trying and looking."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from types import FunctionType, MethodType
from typing import cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ganlens.arguments import close_match, short_repr
from ganlens.borrowed import as_arguments, borrowed, call
from ganlens.models.base import Generator
from ganlens.models.code_hash import content_of
from ganlens.models.image_ranges import OUTPUTS, RANGES, range_found, range_given
from ganlens.models.latents import LAWS, drawn

# Functions that hand on the values that they are given.
PASSING = (
    "view reshape expand permute transpose contiguous clone detach float to type squeeze unsqueeze flatten unflatten "
    "repeat movedim swapaxes swapdims __getitem__ narrow select unbind split chunk view_as expand_as"
)


def wrapped(
    net: nn.Module,
    z_dim: int,
    name: str | None = None,
    layers: Sequence[str] | None = None,
    classes: int | None = None,
    inputs: Callable | None = None,
    output: str | Callable | None = None,
    law: str = "normal",
) -> Generator:
    """The work behind `Generator.wrap`."""
    net = as_module(net)
    if isinstance(z_dim, bool) or not isinstance(z_dim, int) or not 1 <= z_dim <= 2**20:
        raise ValueError(f"z_dim={z_dim!r}: expected the length of a latent, a whole number from 1 to {2**20:,}")
    if not (name is None or isinstance(name, str)):
        raise ValueError(f"name={short_repr(name)}: expected a text")
    name = name or type(net).__name__
    others = {p.dtype for p in net.parameters() if p.is_floating_point()} - {torch.float32}
    if others:
        raise ValueError(f"{name} has numbers of {others.pop()}; give it in float32, as net.float()")
    if not (output is None or isinstance(output, str) or callable(output)):
        raise ValueError(f"output={short_repr(output)}: expected one of {', '.join(OUTPUTS)}, or a function")
    if not isinstance(law, str) or law not in LAWS:
        raise ValueError(close_match("law of latents", law, list(LAWS), "ganlens"))
    if isinstance(output, str) and output not in OUTPUTS:
        raise ValueError(close_match("output", output, OUTPUTS, "Generator.wrap"))
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise ValueError(f"classes={classes!r}: expected how many classes there are, or None")
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    z = [drawn(seeds, z_dim, law).to(device) for seeds in ([0, 1], [0, 2])]
    with borrowed(net), torch.no_grad():
        found = call_of(net, z[0], name, classes, inputs)
        again = call(net, found.arguments(z[1]))
        check_last_class(net, found, z[0], name)
        finished, said = finish_of(found, again, output, name)
        about = [f"{name}, a network of your own:", f"  called with {found.said}", *said]
        about += check_seeds(net, found, again, finished, z, name)
        about += check_batch_statistics(net, name)
    called = between(inputs, output, found, finished)
    inputs = None if found.inputs is plain else found.inputs
    G = Generator(
        net, z_dim, name, layers=layers, law=law, classes=found.classes, inputs=inputs, output=finished, trusted=False
    )
    G.about, G.called, G.free_output = "\n".join(about), called, callable(output)
    return G


def between(inputs: Callable | None, output: str | Callable | None, call: "Call", finish: Callable) -> str:
    """What stands between latents, network and images, for the fingerprint; "" where nothing was chosen or found."""
    said = [] if call.inputs is plain else [f"inputs {code_of(inputs) if inputs else call.said}"]
    if callable(output):
        said.append(f"output {code_of(output)}")
    else:
        path, turned, kind = cast(partial, finish).args  # of `finish_of`
        said += [f"output {path} {turned} {kind}"] if path or turned or kind not in ("[-1,1]", None) else []
    return "; ".join(said)


def code_of(function: Callable) -> str:
    """Hash of a function's code and of what it refers to; of anything else that can be called, its name.

    A network among them counts by its class: its numbers may be many, and may change.
    """
    if isinstance(function, FunctionType | MethodType | partial):
        return content_of(function)
    return getattr(function, "__qualname__", type(function).__qualname__)


def as_module(net) -> nn.Module:
    """The network whose modules can be seen: what a compiled one was made of; ValueError if there is none."""
    if not isinstance(net, nn.Module):
        raise ValueError(f"{type(net).__name__} given; expected a torch.nn.Module, such as a class that calls it")
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise ValueError(
            f"{type(net).__name__} holds TorchScript, whose layers can be neither read nor edited; give the network "
            "that the script was made from, as a torch.nn.Module with these weights"
        )
    return net._modules.get("_orig_mod") or net  # under this name torch.compile keeps the network


# ---- what it takes


@dataclass
class Call:
    """A way to call a network that works: its arguments, what it returned for two latents, and what was done last."""

    said: str
    inputs: Callable
    classes: int | None
    result: object = None
    steps: "Steps | None" = None

    def arguments(self, z: torch.Tensor) -> tuple | dict:
        labels = None if self.classes is None else torch.arange(len(z), device=z.device) % self.classes
        return as_arguments(self.inputs(z.clone(), labels))


def check_last_class(net: nn.Module, found: Call, z: torch.Tensor, name: str) -> None:
    """ValueError where the network does not know the last of its classes."""
    if found.classes:
        labels = torch.full((len(z),), found.classes - 1, device=z.device)
        try:
            call(net, as_arguments(found.inputs(z.clone(), labels)))
        except IndexError:
            raise ValueError(
                f"classes={found.classes}: {name} knows no class {found.classes - 1} (classes count from 0)"
            ) from None


def plain(z: torch.Tensor, labels=None) -> torch.Tensor:
    return z


def as_map(z: torch.Tensor, labels=None) -> torch.Tensor:
    return z[..., None, None]


LATENTS = {"latents (N, {0})": plain, "latents (N, {0}, 1, 1)": as_map}


def ways(z_dim: int, classes: int | None) -> Iterator[Call]:
    """The usual ways to call a generator, the most usual ones first."""
    for said, latent in LATENTS.items():
        said = said.format(z_dim)
        if classes is None:
            yield Call(said, latent, None)
        else:
            yield Call(f"{said} and labels (N,)", partial(with_labels, latent), classes)
            hot = f"{said} and one-hot labels (N, {classes})"
            yield Call(hot, partial(with_one_hot, latent, classes), classes)


def with_labels(latent: Callable, z: torch.Tensor, labels: torch.Tensor) -> tuple:
    if labels.ndim != 1:
        raise ValueError("labels: this network takes whole numbers (N,), no weights")
    return latent(z), labels


def with_one_hot(latent: Callable, classes: int, z: torch.Tensor, labels: torch.Tensor) -> tuple:
    return latent(z), labels if labels.ndim == 2 else nn.functional.one_hot(labels, classes).to(z.dtype)


def call_of(net: nn.Module, z: torch.Tensor, name: str, classes: int | None, inputs: Callable | None) -> Call:
    """The first way to call a network that works; ValueError if none does."""
    guess = classes_of(net) if classes is None and inputs is None else None
    if inputs is not None:
        tried = [Call("what `inputs` makes of latents" + (" and labels" if classes else ""), inputs, classes)]
    else:
        tried = [*ways(z.shape[1], classes), *(ways(z.shape[1], guess) if guess else ())]
    failures: list[tuple[Call, Exception]] = []
    for way in tried:
        try:
            with Steps() as way.steps:
                way.result = call(net, way.arguments(z))
            if inputs is None and not any(len(x) == len(z) for _, x in tensors_in(way.result) if x.ndim):
                raise ValueError(f"it returned nothing with one entry for each of {len(z)} images")
            return way
        except Exception as error:  # whatever a network says to arguments that are not for it
            failures.append((way, error))
    said = "; ".join(f"with {way.said}: {short(error)}" for way, error in failures)
    hint = "give inputs=, a function from latents and labels to what it is called with"
    if classes is None and inputs is None:
        hint = f"for a network that takes labels give classes=, otherwise {hint}"
    raise ValueError(f"{name} could not be called {said}; {hint}") from failures[0][1]


def short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__} {text[:160]}{'…' if len(text) > 160 else ''}"


def classes_of(net: nn.Module) -> int | None:
    """How many classes a network knows that needs two arguments and has an embedding; None if that is not clear."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(net.forward).parameters.values()
    needed = sum(p.kind in kinds and p.default is Parameter.empty for p in parameters)
    sizes = {module.num_embeddings for module in net.modules() if isinstance(module, nn.Embedding)}
    return sizes.pop() if needed == 2 and len(sizes) == 1 else None


# ---- what it returns


class Steps(TorchFunctionMode):
    """Remembers which tensors are bounded because of the function that they come from."""

    def __init__(self):
        super().__init__()
        self.ranges: dict[int, str] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        source = self.ranges.get(id(args[0])) if args and isinstance(args[0], torch.Tensor) else None
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                found = source if name in PASSING.split() else range_of(name, args, kwargs or {})
                self.ranges.pop(id(tensor), None)  # an older tensor may have had its number
                if found:
                    self.ranges[id(tensor)] = found
        return result


def range_of(name: str, args: tuple, kwargs: Mapping) -> str | None:
    """The range of what a function returns, where it is sure."""
    if name.rstrip("_") in ("tanh", "sigmoid"):
        return {"tanh": "[-1,1]", "sigmoid": "[0,1]"}[name.rstrip("_")]
    if name.rstrip("_") in ("clamp", "clip", "hardtanh"):
        low, high = (kwargs.get(key, args[i] if len(args) > i else None) for i, key in ((1, "min"), (2, "max")))
        low, high = kwargs.get("min_val", low), kwargs.get("max_val", high)
        return {(-1, 1): "[-1,1]", (0, 1): "[0,1]"}.get((low, high)) if not torch.is_tensor(low) else None
    return None


def tensors_in(value, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in tuples, lists, mappings and plain objects, with the way to them."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors_in(inner, f"{path}[{key!r}]")
    elif isinstance(value, tuple | list):
        for i, inner in enumerate(value):
            yield from tensors_in(inner, f"{path}[{i}]")
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        for key, inner in vars(value).items():
            yield from tensors_in(inner, f"{path}.{key}")


def image_in(result, n: int, name: str) -> tuple[str, torch.Tensor]:
    """The first tensor (N, 3, Y, X), or else (N, 1, Y, X) or (N, C, Y, X), and the way to it; ValueError if none."""
    every = list(tensors_in(result))
    maps = [(path, x) for path, x in every if x.ndim == 4 and len(x) == n and x.is_floating_point()]
    best = [(path, x) for path, x in maps if x.shape[1] in (1, 3)] or maps
    if best:
        return max(best, key=lambda found: found[1].shape[1] == 3)  # a grey one beside colours is a mask
    found = ", ".join(str(tuple(x.shape)) for _, x in every) or type(result).__name__
    found = found if isinstance(result, torch.Tensor) or not every else f"{type(result).__name__} with {found}"
    flat = next((x.shape[1] for _, x in every if x.ndim == 2 and len(x) == n), 0)
    side = math.isqrt(flat)
    example = f", for instance output=lambda x: x.view(-1, 1, {side}, {side})" if flat and side * side == flat else ""
    raise ValueError(
        f"{name} returned {found}; expected images (N, 3, Y, X) in [-1, 1]. "
        f"If the images are in there, give output=, a function from what it returns to them{example}"
    )


def finish_of(call: Call, again, output: str | Callable | None, name: str) -> tuple[Callable, list[str]]:
    """What makes images of the network's output, and what is said about it."""
    n = 2
    if callable(output):
        x = output(again)
        if not (isinstance(x, torch.Tensor) and x.ndim == 4 and len(x) == n):
            found = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(f"output= made {found} of what {name} returned; expected images ({n}, 3, Y, X)")
        return output, ["  images: what `output` makes of it"]
    path, x = image_in(call.result, n, name)
    values = torch.cat([x, at(again, path)]).float()
    turned = values.shape[1] not in (1, 3) and values.shape[3] in (1, 3)
    values = values.movedim(3, 1) if turned else values
    told = f"output{path}" if path else "its output"
    said = [f"  images: {told}, {tuple(x.shape[1:])}" + (", colours last" if turned else "")]
    known = call.steps.ranges.get(id(x)) if call.steps else None
    if output is None and values.shape[1] == 4 and known:
        said.append("  four channels, taken for colours and opacity, and laid over white")
        warnings.warn(
            f"{name} gives four channels in {known}, which are taken for colours and opacity and laid over white; give "
            "output='rgba' to say so, or output=lambda x: x for four channels as they are",
            stacklevel=5,
        )
        return partial(finished, path, turned, "rgba" if known == "[-1,1]" else "rgba in [0,1]"), said
    if output is None and values.shape[1] not in (1, 3):
        said.append(f"  {values.shape[1]} channels, as they are; pictures show the strongest one by a colour")
        return partial(finished, path, turned, None), said
    kind, why = range_given(output, known, values, name) if output else range_found(known, values, name)
    said.append(f"  range {kind}, {why}")
    return partial(finished, path, turned, kind), said


def finished(path: str, turned: bool, kind: str | None, result) -> torch.Tensor:
    """Images (N, C, Y, X) of what the network returned."""
    x = at(result, path)
    x = x.movedim(3, 1) if turned else x
    return x if kind is None else RANGES[kind](x)


def at(result, path: str) -> torch.Tensor:
    """The tensor at the end of a way that `tensors_in` gave."""
    return result if not path else next(x for found, x in tensors_in(result) if found == path)


# ---- whether an image is its seed, and that of the trained network


def is_fresh(norm: nn.Module) -> bool:
    """Whether the statistics of a batch norm are those that it is made with."""
    mean, variance = (norm.get_buffer(f"running_{name}") for name in ("mean", "var"))
    return not mean.any() and bool(variance.eq(1).all())


def check_batch_statistics(net: nn.Module, name: str) -> list[str]:
    """Warn where batch norms have never seen data, as in averages of weights that leave the buffers out."""
    norms = [m for m in net.modules() if getattr(m, "running_mean", None) is not None]
    fresh = [m for m in norms if is_fresh(m)]
    if not fresh:
        return []
    why = f"the statistics of {len(fresh)} of {len(norms)} batch norms are still 0 and 1, as if they never saw data"
    warnings.warn(
        f"{name}: {why}, so the images are not those of training; run some batches in training mode under "
        "torch.no_grad(), or copy the buffers of the trained network",
        stacklevel=4,
    )
    return [f"  {why}"]


def check_seeds(net: nn.Module, found: Call, again, finished: Callable, z: list[torch.Tensor], name: str) -> list[str]:
    """Warn where the image of a latent is not the same in every batch, or every time."""
    first, other = finished(found.result)[0], finished(again)[0]
    if torch.allclose(first, other, atol=1e-2, rtol=1e-2, equal_nan=True):
        return []
    once_more = finished(call(net, found.arguments(z[0])))[0]
    if torch.allclose(first, once_more, atol=1e-2, rtol=1e-2, equal_nan=True):
        why = "depend on the others in the batch (batch statistics?), so an image is not decided by its seed"
    else:
        why = "differ from pass to pass (noise?), so an image is not decided by its seed; make the noise a buffer"
    warnings.warn(f"images of {name} {why}", stacklevel=4)
    return [f"  images {why}"]
