"""Published generators by plain names: where their files are, where they are kept, and whether they are the right."""

import hashlib
import html
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ganlens.models.files.download import check, download
from ganlens.models.files.pickles import CheckpointError
from ganlens.tables import html_table, text_table

WIDTH = 108  # of text, in characters


@dataclass(frozen=True)
class Published:
    """A generator that has a name.

    Attributes
    ----------
    name : str
        What `ganlens.load_generator` takes.
    family : str
    size : int
        Width and height of the images in pixels.
    about : str
        What it draws.
    url : str
        Address of the file; empty for an embedded one.
    """

    name: str
    family: str
    size: int
    about: str
    url: str = ""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def sha256(self) -> str:
        """How the SHA-256 of the file begins: it is the end of the published file name."""
        return Path(self.file).stem.rpartition("-")[2]

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        return cache_folder() / self.file

    @property
    def cached(self) -> bool:
        return not self.url or self.path.is_file()

    @property
    def source(self) -> str:
        """Address that is asked: the official one, or that of the mirror in ``GANLENS_MIRROR``."""
        mirror = os.environ.get("GANLENS_MIRROR")
        return f"{mirror.rstrip('/')}/{self.file}" if mirror else self.url

    def row(self) -> dict:
        where = "embedded" if not self.url else "cached" if self.cached else self.url.split("/")[2]
        size = f"{self.size}x{self.size}"
        return {"generator": self.name, "family": self.family, "images": size, "draws": self.about, "where": where}


class Models(Mapping):
    """Generators by name; shown as a table.

    Examples
    --------
    >>> import ganlens as gl
    >>> gl.list_models()["proggan-church"].size
    256
    """

    def __init__(self, known: Mapping[str, Published]):
        self.known = dict(known)

    def __getitem__(self, name: str) -> Published:
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def rows(self) -> list[dict]:
        return [model.row() for model in self.values()]

    def formats(self) -> list[dict]:
        """The formats of files that are recognised, and by what."""
        from ganlens.models.files.loading import known_families

        return [{"files of": family.FAMILY, "which are": family.FORMAT} for family in known_families()]

    def __repr__(self) -> str:
        lines = [": ".join(row.values()) for row in self.formats()]
        said = "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines)
        return f"{text_table(self.rows())}\n\n{self.note()}\n\nFiles are recognised of\n\n{said}"

    def _repr_html_(self) -> str:
        tables = []
        for said, rows in (("generators by name", self.rows()), ("formats of files", self.formats())):
            columns = {head: [row[head] for row in rows] for head in rows[0]}
            tables.append(html_table(f"{len(rows)} {said}", columns))
        return f"<p>{html.escape(self.note())}</p>".join(tables)

    def note(self) -> str:
        folder = re.sub(f"^{re.escape(str(Path.home()))}(?=[/\\\\])", "~", str(cache_folder()))
        return f"What is not here yet is downloaded when it is first loaded, and kept in {folder}."


def published() -> Iterator[Published]:
    """All generators that have a name; the files' names are those of their publishers and end with hashes."""
    yield Published("scenes", "ganlens", 64, "painted scenes")
    base = "https://dissect.csail.mit.edu/models/proggan_"
    for name, file, about, size in (
        ("bedroom", "bedroom-d8a89ff1", "bedrooms", 256),
        ("church", "churchoutdoor-7e701dd5", "churches from outside", 256),
        ("conferenceroom", "conferenceroom-21e85882", "conference rooms", 256),
        ("diningroom", "diningroom-3aa0ab80", "dining rooms", 256),
        ("kitchen", "kitchen-67f1e16c", "kitchens", 256),
        ("livingroom", "livingroom-5ef336dd", "living rooms", 256),
        ("restaurant", "restaurant-b8578299", "restaurants", 256),
        ("celebhq", "celebhq-620d161c", "faces of celebrities", 1024),
    ):
        yield Published(f"proggan-{name}", "Progressive GAN", size, about, f"{base}{file}.pth")
    base = "http://gandissect.csail.mit.edu/models/ablations/"  # without https, like the next one; the hash protects
    for file in (
        "wgangp-beaa509a",
        "progressive-training-70bd90ac",
        "small-minibatch-04143d18",
        "minibatch-discrimination-604c5731",
        "minibatch-stddev-068bc667",
        "equalized-learning-rate-88ed833d",
        "pixelwise-normalization-4da7e9ce",
    ):
        name = file.rpartition("-")[0]
        yield Published(f"proggan-{name}", "Progressive GAN", 128, "bedrooms; ablation", f"{base}{file}.pth")
    base = "http://rewriting.csail.mit.edu/data/models/stylegan2_"
    for name, code, about, size in (
        ("bedroom", "6fa55a6e", "bedrooms", 256),
        ("car", "3659b4b6", "cars", 512),
        ("cat", "d8dc98b2", "cats", 256),
        ("church", "e8ca9fd0", "churches from outside", 256),
        ("faces", "2858cc2e", "faces", 1024),
        ("horse", "499b5380", "horses", 256),
        ("kitchen", "b3a526e9", "kitchens", 256),
        ("places", "a3b72d71", "places of all kinds", 256),
    ):
        yield Published(f"stylegan2-{name}", "StyleGAN2", size, about, f"{base}{name}-{code}.pt")


MODELS = {model.name: model for model in published()}


def cache_folder() -> Path:
    """Folder of downloaded files: ``GANLENS_CACHE``, or ``ganlens`` where the platform keeps what can be fetched again.

    That is ``$XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.
    """
    chosen = os.environ.get("GANLENS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        home = os.path.expanduser("~/Library/Caches")
    else:
        home = os.environ.get("XDG_CACHE_HOME", "")
        home = home if os.path.isabs(home) else os.path.expanduser("~/.cache")
    return Path(home) / "ganlens"


def locate(model: Published, progress: bool = True) -> Path:
    """The file of a published model, from the cache or else from the network; its hash is checked each time.

    Raises
    ------
    ganlens.models.files.download.DownloadError
        It is not in the cache and cannot be fetched or stored; the message says what to fetch and where to put it.
    CheckpointError
        It is another file than the one that was published.
    """
    return obtain(model.source, model.path, model.sha256, progress)


def locate_url(url: str, sha256: str | None = None, progress: bool = True) -> Path:
    """The file at an address, from the cache or else from the network, kept under its name and a hash of the address.

    Where no ``sha256`` is given, it is fetched over http or https as it is, and a note says so.
    """
    name = re.sub(r"[^\w.-]", "_", re.split(r"[?#]", url)[0].rstrip("/").rpartition("/")[2])[-80:].lstrip(".")
    path = cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name or 'file'}"
    fresh = not path.is_file()
    obtain(url, path, sha256, progress)
    if fresh and sha256 is None and progress:
        print(f"{url} was not checked, as its SHA-256 is not known; load_generator(…, sha256=…)", file=sys.stderr)
    return path


def obtain(url: str, path: Path, sha256: str | None, progress: bool) -> Path:
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256={sha256!r}: expected the SHA-256 in hex, or at least its first eight digits")
    if not path.is_file():
        return download(url, path, sha256, progress)
    try:
        check(path, sha256, str(path))
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete it, and it will be downloaded again from {url}") from error
    return path
