"""From a checkpoint file to a generator: the content decides which family it is."""

import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple

import torch

from ganlens.arguments import close_match
from ganlens.models import families
from ganlens.models.base import Generator
from ganlens.models.families.assembling import share_of_names
from ganlens.models.families.rewriting import rewrite
from ganlens.models.files.reading import CheckpointError, first_names, read
from ganlens.models.files.settings import settings_beside
from ganlens.models.files.states import OTHER, State, states

MOST_TRIES = 24  # of a state dict taken for a family
WRONG = (RuntimeError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError)


def known_families() -> list[ModuleType]:
    """The files of the folder ``families`` that build a generator.

    Such a file says three things: ``FAMILY`` and ``FORMAT``, its name and what its checkpoints look like; ``KEYS``, a
    pattern of the names of its tensors, perhaps with one that is ``NEEDED`` among them, or ``likeness(state)``, from 0
    to 1, by names and shapes alone; and ``build(state, name)``.
    """
    names = (f"{families.__name__}.{module.name}" for module in iter_modules(families.__path__))
    return [module for module in map(import_module, names) if hasattr(module, "build")]


def likeness(family: ModuleType, state: State) -> float:
    """How well names and shapes fit a family: what it says itself, or the share of the names that it has."""
    if hasattr(family, "likeness"):
        return family.likeness(state)
    if getattr(family, "NEEDED", None) not in {None, *state.items}:
        return 0.0
    return share_of_names(family.KEYS, state.items)


def from_file(
    path: str | Path,
    truncation: float | None = None,
    label: int | None = None,
    name: str | None = None,
    fast: bool | str = True,
    key: str | None = None,
    output: str | None = None,
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
    key : str, optional
        Where in the file the generator is, as names with dots between.
    output : str, optional
        What ends a network of which only weights are known, see `ganlens.load_generator`.

    Raises
    ------
    CheckpointError
        The file is damaged, asks for code, or fits no family; the message says which is closest. It is a ValueError.
    ValueError
        The family knows no truncation or no classes, or its files say what ends it.
    """
    path, known = Path(path), known_families()
    every = list(states(read(path), path.stat().st_size, settings_beside(path), {"output": output}))
    some = every if key is None else [state for state in every if state.where == key]
    if not some and key is not None:
        raise ValueError(close_match("key", key, list(dict.fromkeys(state.where for state in every)), str(path)))
    found = [Candidate(likeness(family, state), family, state) for state in some for family in known]
    found = sorted((candidate for candidate in found if candidate.likeness > 0), key=Candidate.order)
    errors = []
    for candidate in found[:MOST_TRIES]:
        try:
            if key is None:
                check_alone(candidate.state, every)
            G = built(candidate.family, candidate.state, name or path.stem)
        except CheckpointError as error:
            errors.append(str(error))
            continue
        if output is not None and not getattr(candidate.family, "ENDS_AS_ASKED", False):
            raise ValueError(f"what ends a network of {candidate.family.FAMILY} is known; leave output away")
        G.about = joined_lines(G.about, which_of(candidate, found))
        if fast:
            rewrite(G, torch.bfloat16 if fast == "bfloat16" else torch.float32)
        wanted = {"truncation": truncation, "label": label}
        return G.variant(**{key: value for key, value in wanted.items() if value is not None})
    formats = "; ".join(family.FORMAT for family in known)
    reason = f"It is {errors[0]}." if errors else holds(every)
    raise CheckpointError(f"{path} fits no known format. {reason}\nKnown are: {formats}\n{recipe(path, found, every)}")


def check_alone(taken: State, every: list[State]) -> None:
    """CheckpointError where a linear map or an embedding stands beside a network, and may be a part of what draws.

    Beside a network of linear maps alone convolutions count, too: then it is a part of another network.
    """
    telling = {2} if any(len(item.shape) == 4 for item in taken.items.values()) else {2, 3, 4, 5}
    for state in every:
        outside = f"{state.where}." if state.where else ""
        inside = taken.where.removeprefix(outside)
        if state is taken or not taken.where.startswith(outside) or not inside:
            continue
        for name, item in state.items.items():
            what = name.rpartition(".")[2]
            beside = not f"{name}.".startswith(f"{inside}.") and not any(map(OTHER.match, name.split(".")))
            if what in ("weight", "weight_orig") and beside and len(item.shape) in telling:
                raise CheckpointError(
                    f"closest to a generator in {taken.where!r}, but {name} {tuple(item.shape)} stands beside it, as "
                    f"what classes or latents go through first; give key={taken.where!r} if it is no part of it"
                )


class Candidate(NamedTuple):
    """A state dict that may be one of a family, and how likely."""

    likeness: float
    family: ModuleType
    state: State

    def order(self) -> tuple:
        """The likeliest first; then what its name says; then the larger one."""
        return -self.likeness, self.state.rank, -len(self.state.items)


def which_of(taken: Candidate, found: list[Candidate]) -> str:
    """Which state dict was taken where there were others like it; with a warning where nothing told them apart."""
    like = {name: tuple(item.shape) for name, item in taken.state.items.items()}
    others = {
        other.state.where: other.state
        for other in found
        if other.family is taken.family and {n: tuple(x.shape) for n, x in other.state.items.items()} == like
    }
    others.pop(taken.state.where, None)
    same = {where for where, state in others.items() if same_tensors(state, taken.state)}
    names = [where for where in others if where not in same]
    if not names:
        return f"taken from {taken.state.where!r}" if taken.state.where else ""
    said = f"taken from {taken.state.where!r}; {', '.join(map(repr, names))} would fit as well: give key=…"
    if any(others[name].rank[0] == taken.state.rank[0] for name in names):
        warnings.warn(f"the file holds several generators: {said}", stacklevel=4)
    return said


def same_tensors(a: State, b: State) -> bool:
    return all(x is y for x, y in zip(a.items.values(), b.items.values(), strict=True))


def joined_lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def holds(every: list[State]) -> str:
    return f"It holds {first_names(list(every[0].items))}." if every else "It holds no tensors by name."


def recipe(path: Path, found: list[Candidate], every: list[State]) -> str:
    """How to bring the network oneself, with what the file tells."""
    state = found[0].state if found else every[0] if every else None
    first = next((x.shape for x in state.items.values() if len(x.shape) in (2, 4)), ()) if state else ()
    sizes = " or ".join(str(size) for size in dict.fromkeys(first[:2]))
    at = "".join(f"[{name!r}]" for name in state.where.split(".")) if state and state.where else ""
    return (
        "A network of your own is taken as it is:\n"
        "    net = MyGenerator()\n"
        f"    net.load_state_dict(torch.load({str(path)!r}, weights_only=True){at})\n"
        f"    G = ganlens.Generator.wrap(net, z_dim={f'…)  # {sizes}, by its first tensor' if sizes else '…)'}"
    )


def built(family: ModuleType, state: State, name: str) -> Generator:
    """The generator of a state dict, taken for one of a family."""
    try:
        return family.build(state, name)
    except WRONG as error:
        raise CheckpointError(
            f"closest to {family.FAMILY}, but its tensors do not fit one another ({error})"
        ) from error
