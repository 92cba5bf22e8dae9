"""Generators: the embedded one, published ones by name, checkpoints, and any network of your own.

`Generator.wrap` takes a network; `load_generator` takes a name, a file or an address.
"""

import re
from pathlib import Path
from typing import Any

from ganlens.arguments import check_kind, close_match
from ganlens.models.base import Generator
from ganlens.models.files.hub import from_hub, in_folder, is_hub_address
from ganlens.models.files.published import MODELS, Models, locate, locate_url


def load_generator(
    name: str | Path = "scenes",
    truncation: float | None = None,
    label: int | None = None,
    *,
    sha256: str | None = None,
    progress: bool = True,
    fast: bool | str = True,
    key: str | None = None,
    output: str | None = None,
) -> Generator:
    """Load a generator by name, from a checkpoint or from an address; nothing in a file is executed.

    Parameters
    ----------
    name : str or Path
        A name that `list_models` gives; or a file of any format that it shows, where the content decides, not the
        suffix; or the address of such a file, http or https. What has to be downloaded is kept in a cache folder
        (`list_models` shows where; the environment variable ``GANLENS_CACHE`` chooses another one, ``GANLENS_MIRROR``
        another server). Or a repository of the Hugging Face Hub, ``"hf://owner/name"``, also with ``@revision`` or with
        the path of a file behind it; or a folder laid out like one.
    truncation : float, optional
        Psi of StyleGAN, in [0, 1], or how far latents of BigGAN-deep reach; 1 (none) by default.
    label : int, optional
        For conditional networks: the class of all images; by default, each seed has a class of its own.
    sha256 : str, optional
        SHA-256 that a file at an address must have, in hex, or how it begins. Those of named models are known.
    progress : bool
        Show how a download comes along.
    fast : bool or "bfloat16"
        Rewrite the network for speed where its family can be (Progressive GAN): the same function, checked when it is
        loaded. False leaves it as it was written; ``"bfloat16"`` computes in half precision, which is faster still
        where the processor has it, and changes images a little.

    key : str, optional
        Where in the file the generator is, as names with dots between, such as ``"gan.netG"``. By default it is found
        by its content; among several, averages of weights are preferred, and ``about`` says which was taken.
    output : {"tanh", "sigmoid", "[-1,1]", "[0,1]"}, optional
        What ends a network of which a file tells the weights alone (plain DCGAN, decoders, networks of linear maps):
        an activation, or none, and the range of its images. By default tanh, or for decoders a sigmoid.

    Raises
    ------
    ValueError
        There is no model of that name (the message gives close matches), the file is damaged, fits no known format,
        asks for code or is another one than expected (`ganlens.models.files.reading.CheckpointError`), or the network
        has no truncation or classes.
    FileNotFoundError
        There is no such file.
    OSError
        A file cannot be downloaded or stored (`ganlens.models.files.download.DownloadError`); the message says what to
        fetch by hand, and where to put it.

    Examples
    --------
    >>> load_generator("scenes")
    <Generator scenes: latent 128, 9 layers, images 64x64>
    """
    check_kind("generator", name, str | Path, "a name that list_models() gives, a path or an address")
    if name == "scenes":
        from ganlens.models.families.scenes import load

        if truncation is not None or label is not None:
            raise ValueError("scenes has neither truncation nor classes; leave truncation and label away")
        if output is not None or key is not None:
            raise ValueError("scenes is no file; leave output and key away")
        return load()
    from ganlens.models.files.loading import from_file

    if not (isinstance(fast, bool) or (isinstance(fast, str) and fast == "bfloat16")):
        raise ValueError(f"fast={fast!r}: expected True, False or 'bfloat16'")
    if key is not None and not isinstance(key, str):
        raise ValueError(f"key={key!r}: expected where the generator is in the file, such as 'gan.netG'")
    options: dict[str, Any] = {"truncation": truncation, "label": label, "fast": fast, "key": key, "output": output}
    path, called = place_of(name, sha256, progress)
    return from_file(path, name=called, **options)


def place_of(name: str | Path, sha256: str | None, progress: bool) -> tuple[Path, str | None]:
    """The file that a name, a path or an address stands for, fetched if need be; what its generator is called."""
    address = name if isinstance(name, str) and re.match("https?://", name) else None
    if sha256 is not None and not address:
        raise ValueError("sha256 is for files at an address, http://… or https://…; leave it away")
    if address:
        stem = re.split(r"[?#]", address)[0].rstrip("/").rpartition("/")[2].rpartition(".")[0]
        return locate_url(address, sha256, progress), stem or None
    if is_hub_address(name):
        return from_hub(str(name)), str(name).removeprefix("hf://").split("/")[1].partition("@")[0]
    if name in MODELS:
        return locate(MODELS[str(name)], progress), str(name)
    path = Path(name)
    if path.is_file():
        return path, None
    if path.is_dir():
        return in_folder(path), path.resolve().name
    if isinstance(name, Path) or path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no file {path}")
    raise ValueError(
        close_match("generator", str(name), list(MODELS), "ganlens") + "; list_models(), or `ganlens models`, says more"
    )


def list_models() -> Models:
    """Generators that `load_generator` takes by name: a mapping, shown as a table, with the formats of files below it.

    Examples
    --------
    >>> list_models()["proggan-church"].about
    'churches from outside'
    """
    return Models(MODELS)
