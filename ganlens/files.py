"""Reading files as data, writing them whole or not at all, and finding out beforehand whether that can be done."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # checking targets needs no numpy
    import numpy as np


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


def read_arrays(path: Path, kind: str) -> tuple[dict, dict]:
    """The JSON object named ``header`` and the arrays of an ``.npz`` file; nothing in the file is executed.

    Raises
    ------
    ValueError
        The file is damaged or of another kind.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path):
            pass  # np.load would also read a single array
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return json.loads(str(arrays.pop("header"))), arrays
    except FileNotFoundError:
        raise
    except KeyError:
        raise ValueError(f"{path} is no {kind}: it has no header") from None
    except Exception as error:  # damage shows in many ways: BadZipFile, zlib.error, NotImplementedError, MemoryError …
        raise ValueError(f"{path} is damaged or no {kind} ({error})") from error


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
