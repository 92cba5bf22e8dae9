"""What the files of many families have in common: names, shapes, and networks that take their tensors as they are."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn

from ganlens.models.files.reading import CheckpointError, fit

Net = TypeVar("Net", bound=nn.Module)
COUNTERS = "num_batches_tracked"  # of batch norms; not in all files, and of no use


def share_of_names(pattern: re.Pattern, names: Iterable[str]) -> float:
    """Share of names that a pattern fits."""
    hits = [pattern.fullmatch(name) is not None for name in names]
    return sum(hits) / max(1, len(hits))


def numbers(pattern: str, names: Iterable[str]) -> list[int]:
    """The different numbers in the first group of a pattern, in ascending order."""
    return sorted({int(match[1]) for match in (re.match(pattern, name) for name in names) if match})


def sizes(family: str, state: Mapping[str, torch.Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor that a family needs; CheckpointError where it is missing or has other axes."""
    if name not in state:
        raise CheckpointError(f"closest to {family}, but missing: {name}")
    found = tuple(state[name].shape)
    if len(found) != ndim or 0 in found:
        raise CheckpointError(f"closest to {family}, but {name} has shape {found}; {ndim} axes were expected")
    return found


def counted(family: str, what: str, found: list[int], most: int, first: int = 0) -> int:
    """How many parts there are that are numbered without gaps; CheckpointError where it is otherwise."""
    if not found or found != list(range(first, first + len(found))) or len(found) > most:
        raise CheckpointError(f"closest to {family}, but its {what} have the numbers {found[:12]}")
    return len(found)


def assembled(
    family: str,
    make: Callable[[], Net],
    state: Mapping[str, torch.Tensor],
    optional: Iterable[str] = (),
) -> Net:
    """A network with the tensors of a state dict, taken over one by one by their names.

    Parameters
    ----------
    family : str
        For messages.
    make : callable
        Builds the network; it runs where tensors have shapes but no numbers, so that sizes cost nothing.
    state : mapping of str to Tensor
        Must have all parameters and buffers of the network, in their shapes.
    optional : iterable of str
        What else may be there.

    Raises
    ------
    CheckpointError
        It names what is missing, left over, or of another shape.
    """
    with torch.device("meta"):
        net = make()
    wanted = {name: tuple(x.shape) for name, x in net.state_dict().items() if not name.endswith(COUNTERS)}
    fit(family, wanted, state, {*optional, *(name for name in state if name.endswith(COUNTERS))})
    counters = {name: torch.zeros((), dtype=torch.long) for name in net.state_dict() if name.endswith(COUNTERS)}
    net.load_state_dict(counters | {name: state[name] for name in wanted}, assign=True)
    return net.requires_grad_(False).eval()


def real(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in single precision; whole numbers stay."""
    return {name: x.float() if x.is_floating_point() else x for name, x in state.items()}


def without(state: Mapping[str, torch.Tensor], pattern: str) -> dict[str, torch.Tensor]:
    """A state dict without what a pattern fits."""
    return {name: x for name, x in state.items() if not re.fullmatch(pattern, name)}
