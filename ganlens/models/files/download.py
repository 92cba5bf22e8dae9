"""Files from the network: resumed where they broke off, checked, and whole or not there at all."""

import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ganlens.models.files.pickles import CheckpointError

PAUSES = (0.5, 1.0, 2.0)  # seconds before the next attempts, while none brings anything new
PATIENCE = 30.0  # seconds without any byte, after which a connection counts as broken
PIECE = 2**18  # bytes
MOST = 2**32  # bytes of a file; more is no generator that is read
LASTING = (408, 425, 429, 500, 502, 503, 504)  # answers after which another attempt may succeed


class DownloadError(OSError):
    """A file did not come, or could not be stored; the message says which one, and where to put it by hand."""


class Broken(Exception):
    """An attempt failed, and the next one may not."""


def download(url: str, path: Path, sha256: str | None = None, progress: bool = True) -> Path:
    """Fetch a file from the network, once.

    What came before a connection broke, the process was killed or interrupted, lies in ``path`` + ".part", and the
    next call asks for the rest only, unless the server has another file by then. Several processes may ask for one
    file: one fetches it and the others wait.

    Parameters
    ----------
    url : str
        http or https.
    path : Path
        Where the file will be; it appears there whole, and after its check.
    sha256 : str, optional
        Expected SHA-256 in hex, or how it begins.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    DownloadError
        The server does not answer or has no such file, or the folder cannot be written. It is an OSError.
    CheckpointError
        The file is another one than expected; it was removed. It is a ValueError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path, progress):
            if path.is_file():  # another process fetched it in the meantime
                return path
            part = path.with_name(f"{path.name}.part")
            fetch(url, part, progress)
            try:
                check(part, sha256, url)
            except CheckpointError:
                forget(part)
                raise
            os.replace(part, path)
            forget(part)
    except DownloadError as error:
        raise DownloadError(f"{url} was not downloaded: {error}. {by_hand(url, path)}") from error
    except OSError as error:
        reason = f"{error.filename or path.parent}: {error.strerror or error}"
        raise DownloadError(f"{url} cannot be stored ({reason}). {by_hand(url, path)}") from error
    return path


def by_hand(url: str, path: Path) -> str:
    return f"Fetch {url} by hand and put it at {path}; GANLENS_CACHE chooses another folder"


@contextmanager
def alone(path: Path, say: bool) -> Iterator[None]:
    """One process or thread at a time; the lock ends with its process, however that ends."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if say:
            print(f"{path.name} is being downloaded by another process; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def forget(part: Path) -> None:
    """Remove what there is of a download."""
    tag(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def tag(part: Path) -> Path:
    """The file beside a part that says which version of the server's file it is a part of."""
    return part.with_name(f"{part.name}.tag")


def fetch(url: str, part: Path, progress: bool) -> None:
    """Bring ``part`` to its full length, in as many attempts as bring something new."""
    from tqdm.auto import tqdm

    fruitless, most = 0, size_of(part)
    with tqdm(desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
        while True:
            try:
                return attempt(url, part, bar)
            except Broken as error:
                have = size_of(part)
                fruitless, most = (0, have) if have > most else (fruitless + 1, most)
                if fruitless > len(PAUSES):
                    bar.leave = False
                    kept = f"; {have} bytes are kept, and the next call goes on from there" if have else ""
                    raise DownloadError(f"{error}{kept}") from error
                time.sleep(PAUSES[max(0, fruitless - 1)])
            except KeyboardInterrupt:
                have = size_of(part)
                raise KeyboardInterrupt(f"{have} bytes of {url} are kept; the next call goes on from there") from None


def size_of(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def attempt(url: str, part: Path, bar) -> None:
    """Ask once for what is missing; Broken where the connection breaks."""
    have = size_of(part) if tag(part).is_file() else 0
    plain = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # addresses with spaces or letters beyond ASCII
    request = urllib.request.Request(plain, headers={"User-Agent": "ganlens", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag(part).read_text(encoding="latin-1"))
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the part is as long as the file, or longer
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            forget(part)
            raise Broken("the file on the server has become shorter") from error
        failure = Broken if error.code in LASTING else DownloadError
        raise failure(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"the server cannot be reached: {getattr(error, 'reason', error)}") from error
    with answer:
        take(answer, part, bar, have)


def take(answer, part: Path, bar, have: int) -> None:
    """Add what an answer brings to a part that has some bytes already, or start anew."""
    start = first_byte(answer.headers.get("Content-Range")) if answer.status == 206 else 0
    if start not in (0, have):
        raise DownloadError(f"the server answers with bytes from {start}, where those from {have} were asked for")
    if start and version_of(answer.headers) not in ("", tag(part).read_text(encoding="latin-1")):
        forget(part)
        raise Broken("the file on the server has changed")
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    room = shutil.disk_usage(part.parent).free
    if total and total > MOST:
        raise DownloadError(f"it has {total:,} bytes; at most {MOST:,} are loaded")
    if total and total - start > room:
        raise DownloadError(f"it has {total} bytes, and {part.parent} has room for {room}")
    if start == 0:
        begin(part, answer.headers)
    bar.reset(total)
    bar.n = bar.initial = start
    try:
        append(answer, part, bar)
    except OSError:
        if total is None:  # it may have no end: what there is of it is of no use
            forget(part)
        raise
    if total is not None and size_of(part) < total:
        raise Broken(f"the connection broke after {size_of(part)} of {total} bytes")


def first_byte(content_range: str | None) -> int:
    """Start of what a partial answer holds: 100 of "bytes 100-199/200"."""
    start = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else -1


def begin(part: Path, headers) -> None:
    """Start anew; the tag is written where the server names versions, as only then a rest can be asked for."""
    forget(part)
    part.touch()
    version = version_of(headers)
    if version:
        tag(part).write_text(version, encoding="latin-1")


def version_of(headers) -> str:
    """What tells versions of the server's file apart: a strong ETag, or else the date; empty where there is neither."""
    name = headers.get("ETag") or "W/"
    return (headers.get("Last-Modified") or "") if name.startswith("W/") else name


def append(answer, part: Path, bar) -> None:
    """Write what comes to the end of the part."""
    with open(part, "ab") as file:
        while True:
            try:
                piece = answer.read1(PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise Broken(f"the connection broke: {error or type(error).__name__}") from error
            if not piece:
                break
            if file.tell() + len(piece) > MOST:
                forget(part)
                raise DownloadError(f"it does not end after {MOST:,} bytes, more than any generator; nothing was kept")
            file.write(piece)
            bar.update(len(piece))
        file.flush()
        os.fsync(file.fileno())


def check(path: Path, sha256: str | None, name: str) -> None:
    """CheckpointError if the SHA-256 of a file does not begin with the one that is expected."""
    if sha256 is None:
        return
    hash_ = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            hash_.update(piece)
    if not hash_.hexdigest().startswith(sha256.lower()):
        raise CheckpointError(
            f"{name} is not the file that was expected: its SHA-256 is {hash_.hexdigest()}, and should begin with "
            f"{sha256.lower()}; nothing was loaded"
        )
