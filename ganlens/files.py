"""Reading files as data, writing them whole or not at all, and finding out beforehand whether that can be done."""

import hashlib
import io
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # checking targets needs no numpy
    import numpy as np


MOST_BYTES = 2**34  # of a file that is read
MOST_HEADER = 2**24  # bytes of the text that says what a file is


def check_targets(targets: Iterable[Path], replace: bool, sources: Iterable[Path] = ()) -> None:
    """Find out before any work what would keep files from being written.

    Raises
    ------
    ValueError
        Two targets are one file, or a target is one of the sources.
    FileExistsError
        There is such a file, and it is not to be replaced.
    OSError
        A target is no ordinary file, or its folder does not take files.
    """
    taken = {path.resolve() for path in sources}
    for path in targets:
        if path.resolve() in taken:
            raise ValueError(f"{path} is given twice; every file needs a name of its own")
        taken.add(path.resolve())
        if os.path.lexists(path) and not path.is_file():
            raise OSError(f"{path} exists and is no ordinary file; choose another name")
        if os.path.lexists(path) and not replace:
            raise FileExistsError(f"{path} exists and was left as it is")
        try:
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror} (folder {path.parent})") from error


def check_ordinary(path: str | Path, most: int = MOST_BYTES) -> None:
    """ValueError for what is no ordinary file, such as a pipe or a device, whose reading may never end, or too large.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path} is no ordinary file")
    if about.st_size > most:
        raise ValueError(f"{path} has {about.st_size:,} bytes; expected at most {most:,}")


def read_arrays(
    path: Path, kind: str, expected: "Callable[[dict, Mapping[str, np.ndarray]], None] | None" = None
) -> tuple[dict, dict]:
    """The JSON object named ``header`` and the arrays of an ``.npz`` file; nothing in the file is executed.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        What it should be, for messages.
    expected : callable, optional
        Takes the header and, before any of them is unpacked, what each array claims to be: a view (an array without
        content) of its type and shape. It raises ValueError if these do not fit.

    Raises
    ------
    ValueError
        The file is damaged or of another kind, or its content is not what was written.
    """
    check_ordinary(path)
    try:
        with zipfile.ZipFile(path) as archive:
            claims = {name.removesuffix(".npy"): claim_of(archive, name) for name in archive.namelist()}
            if claims["header"].nbytes > MOST_HEADER:
                raise ValueError(f"its header has {claims['header'].nbytes:,} bytes")
            header = json.loads(str(array_in(archive, "header")), parse_constant=no_number)
            if expected:
                expected(header, {name: claim for name, claim in claims.items() if name != "header"})
            arrays = {name: array_in(archive, name) for name in claims if name != "header"}
        if isinstance(header, dict) and header.pop("digest", None) != digest_of(header, arrays):
            raise ValueError("its content is not what was written")
        return header, arrays
    except FileNotFoundError:
        raise
    except KeyError:
        raise ValueError(f"{path} is no {kind}: it has no header") from None
    except Exception as error:  # damage shows in many ways: BadZipFile, zlib.error, NotImplementedError, MemoryError …
        raise ValueError(f"{path} is damaged or no {kind} ({error})") from error


def array_in(archive: zipfile.ZipFile, name: str) -> "np.ndarray":
    """An array of an archive, unpacked; nothing in it is executed."""
    import numpy as np

    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def no_number(name: str):
    raise ValueError(f"{name} is no JSON")


def claim_of(archive: zipfile.ZipFile, name: str) -> "np.ndarray":
    """What an array of an archive claims to be: one number of its type, seen as its shape, that takes no memory."""
    import numpy as np

    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version](file)
    if dtype.hasobject or dtype.kind not in "biufU":
        raise ValueError(f"{name} holds {dtype}")
    claim = np.broadcast_to(np.zeros((), dtype), shape)
    if not 0 <= archive.getinfo(name).file_size - claim.nbytes <= 2**16:
        raise ValueError(f"{name} claims another size than it has")
    return claim


def digest_of(header: dict, arrays: "Mapping[str, np.ndarray]") -> str:
    """Hash of everything in a file, so that what was changed in it is noticed; no proof of who wrote it."""
    import numpy as np

    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array)
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def with_header(header: dict, arrays: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """Arrays together with their header, as `read_arrays` reads them again."""
    import numpy as np

    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    header = json.loads(json.dumps(header))
    return {"header": np.array(json.dumps(header | {"digest": digest_of(header, arrays)}))} | arrays


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Replace ``path`` by a file with this content; on any error the old file stays and nothing new is left behind.

    The content is bytes, or a function that writes it to a file.

    Raises
    ------
    OSError
        The content could not be written, for instance because the disk is full; the message names the file.
    """
    path = Path(path)
    handle = None
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~current_umask())
        os.replace(partial, path)
    except BaseException as error:
        if handle is not None:
            with suppress(OSError):
                os.unlink(partial)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{path} was not written: {error.strerror}; nothing was changed") from error
        raise


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_arrays(file: BinaryIO, arrays: "Mapping[str, np.ndarray]") -> None:
    """Write arrays as an ``.npz`` file, quickly and small: counts are mostly zeros."""
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def arrays_to_bytes(arrays: "Mapping[str, np.ndarray]") -> bytes:
    """The content of the ``.npz`` file that `write_arrays` writes."""
    buffer = io.BytesIO()
    write_arrays(buffer, arrays)
    return buffer.getvalue()


def bytes_to_arrays(content: bytes) -> "dict[str, np.ndarray]":
    """The inverse of `arrays_to_bytes`; nothing in it is executed."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
