"""Generators: the embedded one, and any network of your own through `Generator.wrap`."""

from pathlib import Path

from ganlens.models.base import Generator
from ganlens.names import close_match

MODELS = {"scenes": "painted scenes with churches, 64x64, nine layers; embedded, needs no download"}


def load_generator(name: str | Path = "scenes") -> Generator:
    """Load a generator by name.

    Parameters
    ----------
    name : str
        A name that `list_models` gives.

    Raises
    ------
    ValueError
        If there is no model of that name; the message gives close matches.

    Examples
    --------
    >>> load_generator("scenes")
    <Generator scenes: latent 128, 9 layers, images 64x64>
    """
    if name == "scenes":
        from ganlens.models.scenes import load

        return load()
    raise ValueError(close_match("generator", str(name), list(MODELS), "ganlens"))


def list_models() -> dict[str, str]:
    """Names that `load_generator` takes, each with a line about it."""
    return dict(MODELS)
