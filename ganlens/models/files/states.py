"""The state dicts in the tree of a file: all that may be a generator's, without the prefixes that wrappers add."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ganlens.models.files.reading import state_of, tensors
from ganlens.models.files.records import Record, Stored

# Names under which generators are found in files, the preferred ones first.
NAMES = (
    "g_ema G_ema generator_ema ema_generator netG_ema avgG generator netG G gen g decoder state_dict model_state_dict"
)
RANK = {name: rank for rank, name in enumerate(NAMES.split())}
MOST_DEPTH = 3  # of dicts within dicts


@dataclass(frozen=True)
class State:
    """One state dict of a file.

    Attributes
    ----------
    where : str
        Where it was found, as names with dots between.
    items : mapping of str to Stored or Tensor
        Its tensors, not loaded yet; they know their shapes.
    tree, size : object, int
        All of the file, and its length in bytes.
    module : Record, optional
        The module that it was in, with its settings.
    """

    where: str
    items: Mapping[str, Stored | torch.Tensor]
    tree: Any
    size: int
    module: Record | None = None

    @property
    def rank(self) -> int:
        """How usual its name is for a generator, 0 the most."""
        return RANK.get(self.where.rpartition(".")[2], len(RANK))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors, loaded."""
        return tensors(self.items, self.size)


def states(tree, size: int) -> Iterator[State]:
    """All state dicts of a file, also those in dicts within dicts, and those of a generator among other networks."""
    seen: set[int] = set()
    waiting = [("", tree, 0)]
    while waiting:
        where, value, depth = waiting.pop(0)
        if id(value) in seen or depth > MOST_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            yield State(where, state_of(value), tree, size, value)
        elif isinstance(value, dict):
            inner = {name: item for name, item in value.items() if isinstance(name, str)}
            held = {name: item for name, item in inner.items() if isinstance(item, Stored | torch.Tensor)}
            if len(held) > 1:
                yield from (State(path, items, tree, size) for path, items in unwrapped(where, held))
            waiting += [(f"{where}.{name}".lstrip("."), v, depth + 1) for name, v in inner.items() if name not in held]


def unwrapped(where: str, items: dict) -> Iterator[tuple[str, dict]]:
    """A state dict, and those of the generators in it, without the prefixes that wrappers add."""
    if all(name.startswith("module.") for name in items):
        items = {name.removeprefix("module."): item for name, item in items.items()}
    yield where, items
    for prefix in {name.partition(".")[0]: None for name in items}:
        if prefix in RANK:
            start = f"{prefix}."
            part = {name.removeprefix(start): item for name, item in items.items() if name.startswith(start)}
            yield f"{where}.{prefix}", {name.removeprefix("module."): item for name, item in part.items()}
