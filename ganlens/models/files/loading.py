"""From a checkpoint file to a generator: the content decides which family it is."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import torch

from ganlens.models import families
from ganlens.models.base import Generator
from ganlens.models.families.rewriting import rewrite
from ganlens.models.files.reading import CheckpointError, first_names, read
from ganlens.models.files.states import State, states

MOST_TRIES = 12  # of a state dict taken for a family
WRONG = (RuntimeError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError)


def known_families() -> list[ModuleType]:
    """The files of the folder ``families`` that build a generator.

    Such a file says three things: ``FAMILY`` and ``FORMAT``, its name and what its checkpoints look like;
    ``likeness(state)``, from 0 to 1, by names and shapes alone; and ``build(state, name)``.
    """
    names = (f"{families.__name__}.{module.name}" for module in iter_modules(families.__path__))
    return [module for module in map(import_module, names) if hasattr(module, "build")]


def from_file(
    path: str | Path,
    truncation: float | None = None,
    label: int | None = None,
    name: str | None = None,
    fast: bool | str = True,
) -> Generator:
    """The generator of a checkpoint; nothing in the file is executed.

    Parameters
    ----------
    path : str or Path
    truncation : float, optional
        Psi of StyleGAN2, in [0, 1]; 1 (none) by default.
    label : int, optional
        The class of all images, for conditional networks; by default, each seed has a class of its own.
    name : str, optional
        What the generator is called; by default as the file.
    fast : bool or "bfloat16"
        Whether the network is rewritten for speed, see `ganlens.load_generator`.

    Raises
    ------
    CheckpointError
        The file is damaged, asks for code, or fits no family; the message says which is closest. It is a ValueError.
    ValueError
        The family knows no truncation or no classes.
    """
    path, known = Path(path), known_families()
    tree, size = read(path), path.stat().st_size
    found = [(family.likeness(state), family, state) for state in states(tree, size) for family in known]
    found.sort(key=lambda row: (row[0], -row[2].rank), reverse=True)
    errors = []
    for likeness, family, state in found[:MOST_TRIES]:
        if likeness > 0:
            try:
                G = built(family, state, name or path.stem)
            except CheckpointError as error:
                errors.append(str(error))
                continue
            if fast:
                rewrite(G, torch.bfloat16 if fast == "bfloat16" else torch.float32)
            wanted = {"truncation": truncation, "label": label}
            return G.variant(**{key: value for key, value in wanted.items() if value is not None})
    formats = "; ".join(family.FORMAT for family in known)
    raise CheckpointError(f"{path} fits no known format. {unfit(errors, found)}\nKnown are: {formats}")


def unfit(errors: list[str], found: list) -> str:
    if errors:
        return f"It is {errors[0]}."
    if found:
        return f"It holds {first_names(list(found[0][-1].items))}."
    return "It holds no tensors by name."


def built(family: ModuleType, state: State, name: str) -> Generator:
    """The generator of a state dict, taken for one of a family."""
    try:
        return family.build(state, name)
    except WRONG as error:
        raise CheckpointError(
            f"closest to {family.FAMILY}, but its tensors do not fit one another ({error})"
        ) from error
