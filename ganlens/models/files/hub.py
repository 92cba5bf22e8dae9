"""Generators in repositories of the Hugging Face Hub, and in folders laid out like them.

The files are fetched by ``huggingface_hub``, an extra (``pip install "ganlens[hub]"``), into its own cache, and read as
any others: nothing in them is executed, and no code of the repository is looked at.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ganlens.arguments import close_match
from ganlens.models.files.download import DownloadError
from ganlens.models.files.states import AVERAGE

SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".pkl", ".ckpt", ".model", ".keras", ".h5", ".onnx"
)  # the preferred ones first  # fmt: skip
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/((?:[^/@]+/)*[^/@]+))?/?")
SIDE = re.compile(r"optim|discriminator|(^|[_.-])d(is|isc)?([_.-]|$)|training_args|scheduler|rng_state|vae_loss", re.I)
SETTINGS = ("config.json", ".config.json")


def is_hub_address(name) -> bool:
    return isinstance(name, str) and name.startswith("hf://")


def chosen(names: Iterable[str], where: str) -> str:
    """The file of a folder that holds its generator; ValueError where none does, or several may.

    Of one name with several endings the safest format is taken; of several names, the one that says that it is an
    average of weights.
    """
    files = [name for name in names if name.lower().endswith(SUFFIXES)]
    kept = [name for name in files if not SIDE.search(PurePosixPath(name).stem)] or files
    stems = {stem_of(name) for name in kept}
    if len(stems) > 1:
        named = {stem for stem in stems if AVERAGE.search(PurePosixPath(stem).name)}
        stems = named if len(named) == 1 else stems
    if len(stems) != 1:
        found = f"it holds {', '.join(kept[:8])}" if kept else f"it holds no file that ends with {', '.join(SUFFIXES)}"
        hint = f"; name the file, such as {where.rstrip('/')}/{kept[0]}" if kept else ""
        raise ValueError(f"{where}: {found}{hint}")
    (stem,) = stems
    same = [name for name in kept if stem_of(name) == stem]
    return min(same, key=lambda name: SUFFIXES.index(PurePosixPath(name).suffix.lower()))


def stem_of(name: str) -> str:
    """A file's path without its ending; Hugging Face's two usual names for weights are one."""
    path = PurePosixPath(name)
    return str(path.with_name(path.stem.removeprefix("pytorch_")))


def in_folder(folder: Path) -> Path:
    """The generator's file in a local folder."""
    return folder / chosen(sorted(path.name for path in folder.iterdir() if path.is_file()), str(folder))


def from_hub(address: str) -> Path:
    """The file of ``hf://owner/name``, ``hf://owner/name/file.pth`` or ``hf://owner/name@revision``, fetched once.

    Files of settings beside it are fetched, too. The server is that of ``HF_ENDPOINT``; with ``HF_HUB_OFFLINE=1`` only
    what is in the library's cache is looked at.

    Raises
    ------
    ValueError
        The address is none, or the repository holds no generator, or several.
    DownloadError
        It cannot be fetched.
    """
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(
            f"{address!r}: expected hf://owner/name, or hf://owner/name/folder/file.pth, or with @revision"
        )
    repo, revision, path = match.groups()
    try:
        import huggingface_hub as hub
        from huggingface_hub.constants import HF_HUB_OFFLINE
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise DownloadError(f'{address} needs huggingface_hub: pip install "ganlens[hub]"') from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        files = listed(hub, repo, revision, endpoint, HF_HUB_OFFLINE)
        if path is not None and path not in files:
            raise ValueError(close_match("file", path, files, f"hf://{repo}"))
        name = chosen(files, f"hf://{repo}") if path is None else path
        folder = PurePosixPath(name).parent
        beside = {str(PurePosixPath(name).with_suffix(".json")), *(str(folder / one) for one in SETTINGS)}
        for other in sorted(beside & set(files)):
            hub.hf_hub_download(repo, other, revision=revision, endpoint=endpoint)
        return Path(hub.hf_hub_download(repo, name, revision=revision, endpoint=endpoint))
    except RepositoryNotFoundError as error:
        raise DownloadError(f"there is no repository hf://{repo} that everybody may read: {short(error)}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DownloadError(
            f"{address} could not be fetched ({short(error)}). Fetch it by hand, and give the file or its folder"
        ) from error


def listed(hub, repo: str, revision: str | None, endpoint: str | None, offline: bool) -> list[str]:
    """The files of a repository; of its copy in the cache where the server is not to be asked."""
    if offline:
        folder = Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = hub.HfApi(endpoint=endpoint).model_info(repo, revision=revision).siblings
    return sorted(item.rfilename for item in found or ())


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
