"""What decides the answers of networks and functions, as a hash: their numbers, and code that is no library's."""

import functools
import hashlib
from dis import get_instructions
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import nn

# Code of these is known by its version; all other code counts as it is written.
LIBRARIES = {"ganlens", "torch", "torchvision", "numpy", "scipy", "skimage", "PIL", "transformers", "builtins", "numba"}
LIBRARIES |= {"functools", "collections", "math", "operator", "itertools", "typing", "abc", "enum", "threading"}


def content_of(*things) -> str:
    """Hash of networks, functions and values: equal for equal ones, in every process.

    Of a function, its code, its defaults, and what it refers to; of an object, its class and its attributes. Whole
    numbers that methods change are left out, because these are counters; so are those in lists and dicts.

    Examples
    --------
    >>> content_of(lambda x: x + 1) == content_of(lambda y: y + 1), content_of(lambda x: x + 2) == content_of(len)
    (True, False)
    """
    content = Content()
    for thing in things:
        content.add(thing)
    return content.hash.hexdigest()[:16]


def is_library(thing) -> bool:
    return (getattr(thing, "__module__", None) or "builtins").split(".")[0] in LIBRARIES


class Content:
    """A hash that takes in things of all kinds, each object once."""

    def __init__(self):
        self.hash = hashlib.sha256()
        self.met: dict[int, tuple] = {}  # the objects are kept, so that no other has the same id

    def write(self, *words) -> None:
        self.hash.update("".join(f"{word}\0" for word in words).encode())

    def add(self, x) -> None:
        """Take in a thing."""
        if x is None or isinstance(x, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
            return self.write(type(x).__name__, repr(x))
        if id(x) in self.met:
            return self.write("again", self.met[id(x)][0])
        self.met[id(x)] = len(self.met), x
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu().contiguous()
            self.write("tensor", x.dtype, tuple(x.shape))
            self.hash.update(x.flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
        elif isinstance(x, np.ndarray) and not x.dtype.hasobject:
            self.write("array", x.dtype, x.shape)
            self.hash.update(np.ascontiguousarray(x).tobytes())
        elif isinstance(x, tuple | list):
            self.write(type(x).__name__)
            self.add_all(x, held=isinstance(x, list))
        elif isinstance(x, dict):
            self.write("dict", *(repr(key) if isinstance(key, str | int | float | tuple) else "" for key in x))
            self.add_all(x.values(), held=True)
        elif isinstance(x, set | frozenset):
            self.write("set", *sorted(content_of(inner) for inner in x))
        elif isinstance(x, type | FunctionType | BuiltinFunctionType | ModuleType) and (
            isinstance(x, ModuleType) or is_library(x)
        ):
            self.write("library", getattr(x, "__module__", ""), getattr(x, "__qualname__", x.__name__))
        elif isinstance(x, CodeType):
            self.write("code", *x.co_names, *x.co_freevars)
            self.hash.update(x.co_code)
            self.add_all(x.co_consts)
        elif isinstance(x, FunctionType):
            self.add_function(x)
        elif isinstance(x, MethodType):
            self.add_all([x.__func__, x.__self__])
        elif isinstance(x, functools.partial):
            self.add_all([x.func, x.args, tuple(x.keywords.items())])
        elif isinstance(x, type):
            self.add_class(x)
        else:
            self.add_object(x)

    def add_all(self, things, held: bool = False) -> None:
        """Take in several things; of what an object holds, no whole numbers."""
        for thing in things:
            if not held or not isinstance(thing, int) or isinstance(thing, bool):
                self.add(thing)

    def add_function(self, f: FunctionType) -> None:
        self.write("function")
        self.add_all([f.__code__, f.__defaults__, tuple((f.__kwdefaults__ or {}).items())])
        for cell in f.__closure__ or ():
            self.add(cell.cell_contents if filled(cell) else None)
        for name in sorted(names_of(f.__code__)):
            if name in f.__globals__:
                self.write(name)
                self.add(f.__globals__[name])

    def add_class(self, kind: type) -> None:
        self.write("class", kind.__qualname__)
        self.add_all(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            value = getattr(value, "__func__", getattr(value, "fget", value))  # of methods and properties
            plain = isinstance(value, bool | int | float | str | tuple | torch.Tensor)
            if isinstance(value, FunctionType) or (plain and not name.startswith("__")):
                self.write(name)
                self.add(value)

    def add_object(self, x) -> None:
        self.write("object")
        self.add(type(x))
        attributes = getattr(x, "__dict__", {})
        if isinstance(x, nn.Module):
            own = {"_parameters", "_buffers", "_modules", "forward"}
            attributes = {k: v for k, v in attributes.items() if k in own or not k.startswith("_")}
        elif is_library(type(x)):
            attributes = {k: v for k, v in attributes.items() if not k.startswith("_")}
        if not is_library(type(x)):
            changed = changed_by_methods(type(x))
            whole = {k: v for k, v in attributes.items() if type(v) is int and k not in changed}
            self.write("settings", *(f"{name}={value}" for name, value in sorted(whole.items())))
        self.add(dict(attributes))


def changed_by_methods(kind: type) -> set[str]:
    """Names of the attributes that methods of a class set, but for its ``__init__``."""
    functions = [f for base in kind.__mro__ if not is_library(base) for f in vars(base).values()]
    codes = [f.__code__ for f in functions if isinstance(f, FunctionType) and f.__name__ != "__init__"]
    return {step.argval for code in codes for step in get_instructions(code) if step.opname == "STORE_ATTR"}


def filled(cell) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def names_of(code: CodeType) -> set[str]:
    """Names that code refers to, and the code inside it."""
    return set(code.co_names).union(*(names_of(c) for c in code.co_consts if isinstance(c, CodeType)))
