"""Hooks and replaced forwards, which live only inside the context managers of this module.

They are taken back on every way out. Where an interrupt comes while they are taken back, they are taken back again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn


def maps_of(output) -> torch.Tensor | None:
    """The feature maps (N, U, H, W) in a module's output, a vector (N, U) as maps of one cell; None if it has none."""
    if isinstance(output, torch.Tensor):
        return output[..., None, None] if output.ndim == 2 else output if output.ndim == 4 else None
    if isinstance(output, tuple | list):
        return next((o for o in output if isinstance(o, torch.Tensor) and o.ndim == 4), None)
    return None


def with_maps(output, features: torch.Tensor):
    """A module's output with other feature maps in it."""
    if isinstance(output, torch.Tensor):
        return features.flatten(1) if output.ndim == 2 else features
    maps = maps_of(output)
    return alike(output, [features if o is maps else o for o in output])


def alike(value: tuple | list, items: list):
    """A list or tuple of the same type with other items; named tuples take them one by one."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


@contextmanager
def hooks(added: Iterable[tuple[nn.Module, Callable]], before: bool = False) -> Iterator[None]:
    """Have hooks on modules while the context lasts: after their forward, or ``before`` it."""
    added = list(added)
    try:
        try:
            for module, hook in added:
                (module.register_forward_pre_hook if before else module.register_forward_hook)(hook)
            yield
        finally:
            remove_hooks(added)
    finally:  # again, should the first time have been interrupted
        remove_hooks(added)


def remove_hooks(added: list[tuple[nn.Module, Callable]]) -> None:
    """Take hooks from modules, those that are there."""
    for module, hook in added:
        for known in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, function in known.items() if function is hook]:
                known.pop(key, None)


@contextmanager
def hooked(net: nn.Module, functions: Mapping[str, Callable[[torch.Tensor], torch.Tensor | None]]) -> Iterator[None]:
    """Pass the maps (N, U, H, W) of each named layer through its function while the context lasts; None leaves them."""

    def hook(module, inputs, output, function):
        features = function(maps_of(output))
        return None if features is None else with_maps(output, features)

    added = [(net.get_submodule(layer), partial(hook, function=function)) for layer, function in functions.items()]
    with hooks(added):
        yield


class Abandoned(Exception):
    """Raised inside a pass that was asked to stop; nothing of it is left behind."""


@contextmanager
def stoppable(net: nn.Module, stop: Callable[[], bool] | None) -> Iterator[None]:
    """Ask ``stop`` before each module of the network runs while the context lasts; when it says so, `Abandoned`."""

    def ask(module, inputs):
        if stop is not None and stop():
            raise Abandoned("the pass was asked to stop")

    with hooks(((module, ask) for module in net.modules() if stop), before=True):
        yield


@contextmanager
def answering(answers: Mapping[nn.Module, Iterator]) -> Iterator[None]:
    """Have modules answer from memory while the context lasts; each runs again when its answers are used up."""
    forwards = {module: module.__dict__.get("forward") for module in answers}
    try:
        try:
            for module, remembered in answers.items():
                module.forward = answer_from(remembered, module.forward)
            yield
        finally:
            put_back(forwards)
    finally:  # again, should the first time have been interrupted
        put_back(forwards)


def put_back(forwards: Mapping[nn.Module, Callable | None]) -> None:
    """Give modules their own forward again: that of their class where it is None."""
    for module, forward in forwards.items():
        if forward is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = forward


def answer_from(answers: Iterator, forward: Callable) -> Callable:
    """A forward that gives the remembered answers first, and runs the real ``forward`` when they are used up."""

    def remembered(*args, **kwargs):
        for answer in answers:
            return answer
        return forward(*args, **kwargs)

    return remembered
