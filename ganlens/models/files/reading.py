"""Checkpoints read as data: tensors and configuration come out, and nothing that is in the file is executed.

The pickle language is read by an interpreter of our own that imports nothing and calls nothing but the few builders
of `ganlens.models.files.records`. Names of functions and classes stay names; a file that needs others than those known
there is refused with the names it asks for. Memory and time are bounded by the size of the file and by ``MAX_STEPS``.

Containers, as torch and NVIDIA's StyleGAN repositories write them: zip archives with ``data.pkl`` (torch >= 1.6),
legacy torch files (a chain of pickles, then raw storages), plain pickles of "persistent" objects, and safetensors.
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from ganlens.models.files.keras_files import HDF5, read_keras
from ganlens.models.files.onnx_files import read_onnx
from ganlens.models.files.pickles import CheckpointError, Global, Limits, Machine
from ganlens.models.files.records import BUILDERS, DTYPES, INERT, Record, Storage, Stored, short

MAX_SIZE = 2**32  # bytes of a file; the largest published ones, with optimizers, have up to 2^30
MAX_DEPTH = 32  # of modules within modules
MAX_TENSORS = 100_000
MAX_CELLS = 2**27  # numbers in one feature map of one image; those of published networks have up to 2^26
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy torch file
LEGACY_VERSION = 1001


class Storages:
    """The storages of one container, by their keys."""

    def __init__(self, source: Callable[[str], memoryview] | None = None):
        self.source = source
        self.known: dict[str, Storage] = {}

    def find(self, reference) -> Storage:
        """The storage that a persistent id ``("storage", type, key, location, numel)`` names."""
        if not (isinstance(reference, tuple) and 5 <= len(reference) <= 6 and reference[0] == "storage"):
            raise CheckpointError("a persistent id that names no storage")
        _, kind, key, _, numel, *view = reference
        dtype = DTYPES.get(kind.name.removeprefix("torch.").removeprefix("cuda.")) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0 or view not in ([], [None]):
            raise CheckpointError(f"a storage of {short(kind)} is described in an unknown way")
        if key not in self.known:
            self.known[key] = Storage(dtype, numel)
            if self.source:
                self.known[key].fill(self.source(key))
        if (dtype, numel) != (self.known[key].dtype, self.known[key].numel):
            raise CheckpointError(f"storage {short(key)} is described in two ways")
        return self.known[key]


def read(path: str | Path):
    """Read a checkpoint as data: dicts, lists, numbers, text, `Stored` tensors and `Record` s of other objects.

    Parameters
    ----------
    path : str or Path
        A file of torch (zip or legacy), a pickle of NVIDIA's StyleGAN2-ADA, or safetensors; the content decides.

    Returns
    -------
    object
        Usually a dict. Tensors are read when `Stored.load` is called.

    Raises
    ------
    CheckpointError
        The file is damaged or of another kind, claims more than it holds, or asks for functions or classes other
        than the few that are known; the message names them. It is a ValueError.
    OSError
        The file cannot be read.
    """
    size = Path(path).stat().st_size
    if size > MAX_SIZE:
        raise CheckpointError(f"{path} was not read: it has {size} bytes, far more than any generator")
    data = Path(path).read_bytes()
    limits = Limits(len(data))
    try:
        tree = parsed(data, limits)
    except Exception as error:  # damage shows in many ways; a name that is asked for says more than what follows it
        reason = "it claims more memory than there is" if isinstance(error, MemoryError) else str(error)
        reason = refusal(limits) if limits.asked else other_kind(data) or reason or type(error).__name__
        if "not a zip file" in reason or "IncompleteBuffer" in reason:
            reason = "it ends early, as if its download or copy was cut off"
        raise CheckpointError(f"{path} was not read: {reason}") from error
    if limits.asked:
        raise CheckpointError(f"{path} was not read: {refusal(limits)}")
    return tree


TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the end of the index of its checkpoints


def other_kind(data: bytes) -> str:
    """What a file is that is no checkpoint, where that can be told."""
    start = data[:4096].lstrip()
    known = {
        b"version https://git-lfs": "a pointer of Git LFS in place of the file; `git lfs pull` fetches it",
        b"\x1f\x8b": "compressed by gzip; unpack it first",
        b"\x93NUMPY": "an array of numpy",
        b"\x89PNG": "a picture",
        b"\xff\xd8\xff": "a picture",
        b"GGUF": "a GGUF file of quantized weights; only networks of PyTorch are loaded",
        b"BZh": "compressed by bzip2; unpack it first",
        b"\xfd7zXZ": "compressed by xz; unpack it first",
        b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
        b"7z\xbc\xaf": "a 7z archive; unpack it first",
        b"Rar!": "a RAR archive; unpack it first",
        b"MATLAB": "a file of MATLAB",
    }
    if not start:
        return "it is empty" if not data else ""
    if re.match(rb"(?i)<(!doctype html|html|\?xml)", start):
        return "it is a web page in place of the file, perhaps one to sign in or to confirm the download"
    if data[:2] == b"PK" and b".npy" in data[:200]:
        return "it is an archive of numpy (.npz); a saved dissection is opened by Dissection.load"
    if kind := next((kind for magic, kind in known.items() if start.startswith(magic)), ""):
        return f"it is {kind}"
    if data[4:8] == b"TFL3" or data[-8:] == TENSORFLOW or re.match(rb"\x0a.{0,9}\x0a", data[:12], re.S):
        return "it seems to be a file of TensorFlow; only networks of PyTorch are loaded"
    if data[257:262] == b"ustar":
        return "it is a tar archive; unpack it first"
    text = start.decode("latin-1").translate(dict.fromkeys(b"\t\r\n"))
    return "it is plain text, no checkpoint" if text.isascii() and text.isprintable() else ""


def refusal(limits: Limits) -> str:
    names = sorted(limits.asked)
    shown = ", ".join(name if len(name) <= 80 else name[:77] + "…" for name in names[:12])
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (
        f"it asks for {shown}{more}; only tensors and plain data are read, and nothing was executed. If it is your own "
        "network, save its state_dict(), or load it by your own code and wrap it: Generator.wrap(net, z_dim=…)"
    )


def parsed(data: bytes, limits: Limits):
    if data[:8] == HDF5 or (data[:4] == b"PK\x03\x04" and b"model.weights.h5" in data):
        return read_keras(data)
    if data[:4] == b"PK\x03\x04":
        return read_zip(data, limits)
    if len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return read_safetensors(data)
    if data[:1] == b"\x08":  # the first field of ONNX; no pickle begins so
        return read_onnx(data)
    first = Machine(data, 0, BUILDERS | nested(limits), INERT, limits)
    tree = first.run()
    return read_legacy(data, first.at, limits) if type(tree) is int and tree == MAGIC else tree


def nested(limits: Limits) -> dict[str, Callable]:
    """The builder of storages that are legacy torch files of their own; inside of them it is not known."""

    def load(raw):
        if not isinstance(raw, bytes):
            raise CheckpointError("a storage is stored in an unknown way")
        first = Machine(raw, 0, {}, INERT, limits)
        if first.run() != MAGIC:
            raise CheckpointError("a storage is stored in an unknown way")
        return read_legacy(raw, first.at, limits)

    return {"torch.storage._load_from_bytes": load}


def read_legacy(data: bytes, at: int, limits: Limits):
    """The rest of a legacy torch file, behind its magic number."""
    storages = Storages()
    values = []
    for _ in ("version", "system", "content", "keys"):
        machine = Machine(data, at, BUILDERS, INERT, limits, storages.find)
        values.append(machine.run())
        at = machine.at
    version, system, content, keys = values
    if version != LEGACY_VERSION or not isinstance(keys, list) or not isinstance(system, dict):
        raise CheckpointError("it is no torch file of a known version")
    if not system.get("little_endian", True):
        raise CheckpointError("it was written by a big-endian machine")
    view = memoryview(data)
    for key in keys:
        storage = storages.known.get(key) if isinstance(key, str) else None
        if storage is None or len(view) < at + 8:
            raise CheckpointError("it ends early" if storage else "it holds a storage that nothing refers to")
        (numel,) = struct.unpack_from("<q", data, at)
        size = storage.numel * storage.dtype.itemsize
        if numel != storage.numel:
            raise CheckpointError(f"a storage of {storage.numel} numbers says that it has {numel}")
        storage.fill(view[at + 8 : at + 8 + size])
        at += 8 + size
    return content


def read_zip(data: bytes, limits: Limits):
    """A torch archive; its members are stored as they are, so that nothing can grow while it is read."""
    if data.count(b"PK\1\2") > MAX_TENSORS:  # entries of its directory
        raise CheckpointError("it is a zip file of more members than any real one")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        check_torch_archive(members)
        if sum(info.file_size for info in members.values()) > len(data) or any(
            info.compress_type != zipfile.ZIP_STORED for info in members.values()
        ):
            raise CheckpointError("it is a compressed zip file, or claims more than it holds; torch writes neither")
        roots = [name.removesuffix("data.pkl") for name in members if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(roots) != 1:
            raise CheckpointError(f"it is a zip file with {len(roots)} members named data.pkl, no torch file")

        def member(name: str) -> bytes:
            if roots[0] + name not in members:
                raise CheckpointError(f"its member {short(name)} is missing")
            return archive.read(members[roots[0] + name])

        if roots[0] + "byteorder" in members and member("byteorder") != b"little":
            raise CheckpointError("it was written by a big-endian machine")
        storages = Storages(lambda key: memoryview(member(f"data/{key}")))
        return Machine(member("data.pkl"), 0, BUILDERS, INERT, limits, storages.find).run()


def check_torch_archive(members: Iterable[str]) -> None:
    """CheckpointError for zip files that are no state dict: those of TorchScript, of exported programs, of Keras."""
    if any(re.fullmatch(r"([^/]+/)?(code/.*|constants\.pkl)", name) for name in members):
        raise CheckpointError(
            "it is a TorchScript archive, whose layers can be neither read nor edited; "
            "save the weights: torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in members):
        raise CheckpointError("it is a program of torch.export; save the state_dict() of the network behind it")
    if "model.weights.h5" in members or "saved_model.pb" in {name.rpartition("/")[2] for name in members}:
        raise CheckpointError("it is a model of Keras or TensorFlow; only networks of PyTorch are loaded")


def by_number(name: str) -> list:
    """A key that sorts names as people do: main.3 before main.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def read_safetensors(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(data)
        return {name: found[name] for name in sorted(found, key=by_number)}  # the file keeps no order
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"it is no safetensors file ({error})") from error


def tensors(items: Mapping, size: int) -> dict[str, torch.Tensor]:
    """The tensors of a flat dict, loaded; no more bytes than a few times the ``size`` of their file."""
    stored = {name: item for name, item in items.items() if isinstance(item, Stored | torch.Tensor)}
    if sum(item.nbytes for item in stored.values()) > 4 * size + 2**20:
        raise CheckpointError("its tensors claim far more than the file holds")
    return {name: item.load() if isinstance(item, Stored) else item for name, item in stored.items()}


def state_of(module: Record) -> dict[str, Stored]:
    """Parameters and buffers of a module and of those inside it, by dotted names, as ``state_dict`` would give."""
    return {
        f"{path}{name}": item
        for path, inner in walk(module)
        for kind in ("_parameters", "_buffers")
        for name, item in children(inner, kind)
        if isinstance(item, Stored)
    }


def children(module: Record, kind: str) -> list[tuple[str, object]]:
    inner = module.get(kind)
    return [(k, v) for k, v in inner.items() if isinstance(k, str)] if isinstance(inner, Mapping) else []


def walk(module: Record) -> Iterator[tuple[str, Record]]:
    """All modules with their dotted paths; CheckpointError where they are nested without end."""
    waiting, count = [("", module, 0)], 0
    while waiting:
        path, inner, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_TENSORS:
            raise CheckpointError("its modules are nested too deeply")
        yield path, inner
        below = [(f"{path}{k}.", v, depth + 1) for k, v in children(inner, "_modules") if isinstance(v, Record)]
        waiting.extend(reversed(below))


def fit(family: str, wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, torch.Tensor], optional=()) -> None:
    """Check that a state dict has the tensors that a family needs, in their shapes, and no others.

    Raises
    ------
    CheckpointError
        It names what is missing, left over, or of another shape.
    """
    missing = [name for name in wanted if name not in state]
    left = [name for name in state if name not in wanted and name not in optional]
    if missing or left:
        parts = [
            f"{what} {first_names(names)}" for what, names in (("missing:", missing), ("left over:", left)) if names
        ]
        raise CheckpointError(f"closest to {family}, but {'; '.join(parts)}")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != tuple(shape):
            found = tuple(state[name].shape)
            raise CheckpointError(f"closest to {family}, but {name} has shape {found} where {tuple(shape)} would fit")


def check_maps(family: str, maps: Iterable[tuple[int, int]]) -> None:
    """CheckpointError if a feature map of (units, side) is larger than any real one: small files can ask for it."""
    for units, side in maps:
        if units * side * side > MAX_CELLS:
            raise CheckpointError(f"closest to {family}, but it has a layer of {units} maps of {side} x {side} cells")


def bounded(family: str, shape: Iterable[int]) -> None:
    """CheckpointError if a tensor has more numbers for one image than any real one; images are along the first axis."""
    shape = tuple(shape)
    if math.prod(max(n, 1) for n in shape[1:]) > MAX_CELLS:
        raise CheckpointError(f"closest to {family}, but it has a tensor of shape {short(shape)}")


def first_names(names: list[str], most: int = 6) -> str:
    return ", ".join(name[:80] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
