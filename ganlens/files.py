"""Writing files whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> None:
    """Replace ``path`` by a file with this content; on any error the old file stays and nothing new is left behind.

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
            file.write(content)
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
