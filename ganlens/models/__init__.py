"""Generators: the embedded one, and any network of your own through `Generator.wrap`."""

from pathlib import Path

from ganlens.models.base import Generator
from ganlens.names import close_match

MODELS = {"scenes": "painted scenes with churches, 64x64, nine layers; embedded, needs no download"}


def load_generator(name: str | Path = "scenes", truncation: float | None = None, label: int | None = None) -> Generator:
    """Load a generator by name, or from a checkpoint; nothing in a file is executed.

    Parameters
    ----------
    name : str or Path
        A name that `list_models` gives, or a file: Progressive GAN of gandissect, StyleGAN2 of rosinality (``.pt``) or
        NVIDIA (``.pkl``), or the state dict of a plain DCGAN. The content decides, not the suffix.
    truncation : float, optional
        Psi of StyleGAN2, in [0, 1]; 1 (none) by default.
    label : int, optional
        For conditional networks: the class that is painted where no ``labels`` are given; 0 by default.

    Raises
    ------
    ValueError
        There is no model of that name (the message gives close matches), the file is damaged, fits no known format or
        asks for code (`ganlens.models.checkpoints.CheckpointError`), or the network has no truncation or classes.
    FileNotFoundError
        There is no such file.

    Examples
    --------
    >>> load_generator("scenes")
    <Generator scenes: latent 128, 9 layers, images 64x64>
    """
    if name == "scenes":
        from ganlens.models.scenes import load

        if truncation is not None or label is not None:
            raise ValueError("scenes has neither truncation nor classes; leave truncation and label away")
        return load()
    path = Path(name)
    if path.is_file():
        from ganlens.models.loading import from_file

        return from_file(path, truncation, label)
    if isinstance(name, Path) or path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no file {path}")
    raise ValueError(close_match("generator", str(name), list(MODELS), "ganlens"))


def list_models() -> dict[str, str]:
    """Names that `load_generator` takes, each with a line about it."""
    return dict(MODELS)
