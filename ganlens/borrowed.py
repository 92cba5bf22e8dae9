"""Networks and functions of others, used so that their owner notices nothing.

Whoever gives a network or a function may be training it, drawing with it in another thread, or sharing it. While it is
`borrowed` it belongs to one thread, runs in evaluation mode and as it is written (not compiled, so that its modules can
be seen); afterwards its modes and the global random state are what they were. It is called with copies of its own.
"""

import random
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import Lock, RLock, local
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

DEEPEST = 4  # steps from a function to a network that it refers to
SAMPLED = 8  # tensors of a network of which one number is looked at

_locks: dict[int, Any] = {}
_guard = Lock()
_thread = local()  # what this thread has in hand


def lock_of(net: nn.Module):
    """The lock of a network: the same for all that share its first parameter, for hooks are set on shared modules."""
    owner: Any = next(net.parameters(), net)
    with _guard:
        if id(owner) not in _locks:
            _locks[id(owner)] = RLock()
            weakref.finalize(owner, _locks.pop, id(owner), None)
        return _locks[id(owner)]


@contextmanager
def borrowed(*nets: nn.Module) -> Iterator[None]:
    """Have networks for oneself, in evaluation mode; their modes and the random state are put back on every way out."""
    if not nets:
        with same_random_state():
            yield
        return
    first, *others = sorted(nets, key=lambda net: id(lock_of(net)))
    with lock_of(first), evaluating(first), borrowed(*others) if others else same_random_state():
        yield


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Have all modules of a network in evaluation mode, and run as they are written, while the context lasts."""
    modules = list(net.modules())
    training = [module for module in modules if module.training]
    try:
        try:
            set_training(training, False)
            with as_written(modules):
                yield
        finally:
            set_training(training, True)
    finally:  # again, should the first time have been interrupted
        set_training(training, True)


def set_training(modules: list[nn.Module], training: bool) -> None:
    """Set the mode of modules one by one: their own ``train`` may do more than that."""
    for module in modules:
        module.training = training


@contextmanager
def same_random_state() -> Iterator[None]:
    """Put back the state of the global sources of random numbers on every way out; once is enough."""
    if getattr(_thread, "kept", False):
        yield
        return
    state = RandomState()
    try:
        try:
            _thread.kept = True
            yield
        finally:
            _thread.kept = False
            state.restore()
    finally:  # again, should the first time have been interrupted
        _thread.kept = False
        state.restore()


def as_written(modules: list[nn.Module]):
    """A context in which compiled modules run as they were written, so that hooks see what is inside them."""
    if any(is_compiled(module) for module in modules):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def is_compiled(module: nn.Module) -> bool:
    """Whether a module came out of ``torch.compile``, or was compiled in place."""
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


class RandomState:
    """The state of the global sources of random numbers: Python's, numpy's and torch's."""

    def __init__(self):
        self.python, self.torch = random.getstate(), torch.get_rng_state()
        self.numpy = np.random.get_state()  # noqa: NPY002  the global one, which old code still uses
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def as_arguments(found) -> tuple | dict:
    """What a function made for a network to be called with: arguments by name, several of them, or one."""
    if isinstance(found, Mapping):
        return dict(found)
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def call(net: nn.Module, arguments: tuple | Mapping[str, Any]):
    """What a network returns for arguments, by their place or, in a mapping, by their names."""
    traced = torch.is_grad_enabled()  # a network may switch that on for itself
    result = net(**arguments) if isinstance(arguments, Mapping) else net(*arguments)
    return result if traced else untraced(result)


def untraced(value):
    """Tensors without their history, inside plain tuples, lists and dicts too."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if type(value) in (tuple, list):
        return type(value)(map(untraced, value))
    return {name: untraced(v) for name, v in value.items()} if type(value) is dict else value


def modules_in(thing, depth: int = DEEPEST) -> list[nn.Module]:
    """The networks that a function or an object refers to: itself, what it is bound to, what it names or holds."""
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()

    def look(thing, depth: int) -> None:
        if id(thing) in seen or depth < 0 or isinstance(thing, torch.Tensor | np.ndarray | type | str | bytes):
            return
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found[id(thing)] = thing
        else:
            for inner in referred_to(thing):
                look(inner, depth - 1)

    look(thing, depth)
    return list(found.values())


def referred_to(thing) -> list:
    """What a function, a bound method, a partial function, a container or an object refers to."""
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, FunctionType):
        names = [name for name in thing.__code__.co_names if name in thing.__globals__]
        cells = [cell.cell_contents for cell in thing.__closure__ or () if not is_empty(cell)]
        return [thing.__globals__[name] for name in names] + cells + list(thing.__defaults__ or ())
    if isinstance(thing, tuple | list | set):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    return list(getattr(thing, "__dict__", {}).values()) if type(thing).__module__ != "builtins" else []


def is_empty(cell) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def weights_version(net: nn.Module, ignored: Collection[str] = ()) -> tuple:
    """Something that differs once a number of the network was changed, and is quick to ask.

    torch counts the changes of a tensor, but not those made through ``.data``, as averages of weights often are; so one
    number each of a few tensors is looked at, too. Buffers that are ``ignored`` may change: see `changing_buffers`.
    """
    modules = list(net.modules())
    tensors: list[torch.Tensor] = [x for module in modules for x in module._parameters.values() if x is not None]
    weights = tensors[:: max(1, len(tensors) // SAMPLED)]
    if ignored:
        tensors += [x for name, x in net.named_buffers() if name not in ignored]
    else:
        tensors += [x for module in modules for x in module._buffers.values() if x is not None]
    return *map(changes_of, tensors), *map(middle_number, weights)


def middle_number(x: torch.Tensor) -> str:
    """One number of a tensor, as text, since nan is not itself; "" where it has none at hand."""
    if is_lazy(x) or x.layout is not torch.strided or not x.numel():
        return ""
    return str(x.detach()[tuple(n // 2 for n in x.shape)].item())


def changes_of(x: torch.Tensor) -> tuple[int, int, int]:
    """Which tensor it is, where its numbers are, and how often they were changed."""
    place = 0 if is_lazy(x) or x.layout is not torch.strided else x.data_ptr()
    return id(x), place, -1 if x.is_inference() else x._version


@contextmanager
def changing_buffers(net: nn.Module) -> Iterator[set[str]]:
    """The names of the buffers that a network changes or makes itself, in the passes that run in the context."""
    found: set[str] = set()
    before = {name: changes_of(x) for name, x in net.named_buffers()}
    yield found
    found |= {name for name, x in net.named_buffers() if before.get(name) != changes_of(x)}
