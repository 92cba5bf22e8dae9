"""What the pickle of a checkpoint may have made: tensors not yet loaded, plain values, and inert records of objects.

`BUILDERS` is the whole list of names that a checkpoint may call, and `INERT` of those that it may mention.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ganlens.models.files.pickles import CheckpointError, Global

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "storage.UntypedStorage": torch.uint8,
}
TYPES = {f"torch.{name}": kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


@dataclass(eq=False)
class Storage:
    """A run of numbers; ``data`` may come later in the file than the tensors that look at it."""

    dtype: torch.dtype
    numel: int
    data: memoryview | None = None

    def fill(self, data: memoryview) -> None:
        if len(data) < self.numel * self.dtype.itemsize:
            raise CheckpointError(f"a storage claims {self.numel} numbers, but {len(data)} bytes are there")
        self.data = data


@dataclass(eq=False)
class Stored:
    """A tensor that has not been loaded: a view of a storage, by offset, shape and stride."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or len(self.shape) != len(self.stride):
            raise CheckpointError(f"invalid shape {short(self.shape)} or stride {short(self.stride)} of a tensor")
        if len(self.shape) > 8 or math.prod(self.shape) > self.storage.numel or self.end > self.storage.numel:
            raise CheckpointError(
                f"a tensor claims shape {short(self.shape)}, but its storage has {self.storage.numel} numbers"
            )

    @property
    def end(self) -> int:
        """Index behind the last number that the tensor looks at."""
        if 0 in self.shape:
            return self.offset
        return self.offset + 1 + sum((s - 1) * d for s, d in zip(self.shape, self.stride, strict=True))

    @property
    def nbytes(self) -> int:
        return (self.end - self.offset) * self.storage.dtype.itemsize

    def load(self) -> torch.Tensor:
        """The tensor, as a copy of its own."""
        storage = self.storage
        if storage.data is None:
            raise CheckpointError("a tensor looks at a storage that the file does not contain")
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=storage.dtype)
        size = storage.dtype.itemsize
        raw = bytearray(storage.data[self.offset * size : self.end * size])
        if storage.dtype is torch.bool:
            return torch.frombuffer(raw, dtype=torch.uint8).as_strided(self.shape, self.stride) != 0
        return torch.frombuffer(raw, dtype=storage.dtype).as_strided(self.shape, self.stride).contiguous()


@dataclass(eq=False)
class Record:
    """What is left of an object: the name of its class and its state, inert."""

    name: str
    state: Mapping = field(default_factory=dict)

    def build(self, state) -> None:
        if not isinstance(state, dict):
            raise CheckpointError(f"the state of a {self.name} is no dict")
        self.state = state

    def get(self, name: str, default=None):
        return self.state.get(name, default)


@dataclass(eq=False)
class NumpyType:
    """A numpy dtype by its code, such as f4; numbers only."""

    code: str
    order: str = "<"

    def __post_init__(self):
        if not (isinstance(self.code, str) and re.fullmatch(r"[fiub][1248]", self.code)):
            raise CheckpointError(f"numpy type {short(self.code)}: only plain numbers are read")

    def build(self, state) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numbers(self, raw, count: int) -> torch.Tensor:
        """The first ``count`` numbers in raw bytes."""
        name = {"f": "float", "i": "int", "u": "uint", "b": "bool"}[self.code[0]]
        dtype = getattr(torch, name if name == "bool" else f"{name}{8 * int(self.code[1])}", None)
        if dtype is None or self.order == ">" or not isinstance(raw, bytes | bytearray):
            raise CheckpointError(f"numpy numbers of type {self.order}{self.code} are not read")
        storage = Storage(dtype, count)
        storage.fill(memoryview(raw))
        return Stored(storage, 0, (count,), (1,)).load()


@dataclass(eq=False)
class Array:
    """A numpy array that has not been loaded."""

    state: tuple = ()

    def build(self, state) -> None:
        self.state = state

    def load(self) -> torch.Tensor:
        try:
            _, shape, kind, fortran, raw = self.state
            if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
                raise ValueError("its shape is invalid")
            numbers = kind.numbers(raw, math.prod(shape))
            return numbers.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if fortran else numbers.reshape(shape)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"a numpy array is damaged ({error})") from error


def short(value) -> str:
    """A few words about a value from a file: nested ones are not looked into, as that could take for ever."""
    if isinstance(value, Global):
        return value.name[:60]
    if isinstance(value, tuple) and len(value) <= 8 and all(type(n) is int for n in value):
        return str(value)
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 64 else text[:61] + "…"


# The builders: all that a pickle can have done.


def tensor(storage, offset, shape, stride, *_) -> Stored:
    if not (isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(stride, tuple)):
        raise CheckpointError("a tensor is described in an unknown way")
    return Stored(storage, offset, shape, stride)


def typed(storage, offset, shape, stride, grad, hooks, kind, *_) -> Stored:
    """A tensor of a type that has no storage of its own, such as float8: a view of bytes."""
    dtype = TYPES.get(kind.name) if isinstance(kind, Global) else None
    if not isinstance(storage, Storage) or dtype is None:
        raise CheckpointError(f"a tensor of {short(kind)} is described in an unknown way")
    numbers = Storage(dtype, storage.numel * storage.dtype.itemsize // dtype.itemsize)
    if storage.data is not None:
        numbers.fill(storage.data)
    return tensor(numbers, offset, shape, stride)


def of_type(function, kind, arguments, *_):
    """A tensor with attributes of its own, which are not needed."""
    if not (isinstance(function, Global) and isinstance(arguments, tuple) and function.name in BUILDERS):
        raise CheckpointError("a tensor is described in an unknown way")
    return BUILDERS[function.name](*arguments)


def scalar(kind, raw):
    return kind.numbers(raw, 1)[0].item()


def persistent(meta) -> Record:
    """A "persistent" object of NVIDIA's repositories: its source code is in ``meta`` and is left there."""
    if not (isinstance(meta, dict) and isinstance(meta.get("state"), dict)):
        raise CheckpointError("a persistent object without a state")
    return Record(str(meta.get("class_name")), meta["state"])


def encoded(text, encoding) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise CheckpointError(f"text encoded as {short(encoding)}")
    return text.encode("latin-1")


def pairs(items=()) -> dict:
    items = items.items() if isinstance(items, dict) else items
    return {key: value for key, value in items if isinstance(key, str | int)}


def rebuilt(kind, *_):
    """What ``copyreg._reconstructor(class, object, None)`` gives, for classes that are known here."""
    if not (isinstance(kind, Global) and kind.name in ("dnnlib.util.EasyDict", "argparse.Namespace")):
        raise CheckpointError(f"an object of {short(kind)} cannot be rebuilt")
    return BUILDERS[kind.name]()


# Tensors that no generator has for weights: only that they were there is kept.
PYTHON = ("builtins", "__builtin__")  # what it calls its own, now and in the second version of its pickles
UNUSED = "sparse_tensor qtensor nested_tensor wrapper_subclass meta_tensor_no_storage"
UNUSED += " device_tensor_from_numpy device_tensor_from_cpu_tensor"

BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": pairs,
    "collections.Counter": pairs,
    "dnnlib.util.EasyDict": pairs,
    "argparse.Namespace": lambda: Record("Namespace"),
    "models.utils.config.BaseConfig": lambda *_: Record("BaseConfig"),  # settings of facebookresearch's GAN zoo
    "copyreg._reconstructor": rebuilt,
    "copy_reg._reconstructor": rebuilt,
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": typed,
    "torch._tensor._rebuild_from_type_v2": of_type,
    **{f"torch._utils._rebuild_{kind}": lambda *_, kind=kind: Record(kind) for kind in UNUSED.split()},
    "torch.serialization._get_layout": lambda name: name,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": lambda items=(): tuple(items),
    "torch.device": lambda *_: None,
    "torch_utils.persistence._reconstruct_persistent_obj": persistent,
    "numpy.dtype": lambda code, *_: NumpyType(code),
    "_codecs.encode": encoded,
    **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: Array() for core in ("core", "_core")},
    **{f"{home}.set": lambda items=(): list(items) for home in PYTHON},
    **{f"{home}.bytearray": lambda *raw: raw[0] if raw and isinstance(raw[0], bytes) else b"" for home in PYTHON},
    **{f"{home}.complex": lambda real, imaginary: (real, imaginary) for home in PYTHON},
}

INERT = {
    *(f"torch.{name}" for name in DTYPES),
    *(f"torch.cuda.{name}" for name in DTYPES),
    *TYPES,
    *(f"torch.{name}" for name, kind in vars(torch).items() if isinstance(kind, torch.layout | torch.qscheme)),
    *(f"torch.{home}{name.removesuffix('Storage')}Tensor" for home in ("", "cuda.", "sparse.") for name in DTYPES),
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.storage.TypedStorage",
    "numpy.ndarray",
    "builtins.object",
    "__builtin__.object",
}
