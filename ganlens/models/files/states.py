"""The state dicts in the tree of a file: all that may be a generator's, without the prefixes that wrappers add."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ganlens.models.files.keras_files import KerasModel
from ganlens.models.files.onnx_files import OnnxModel
from ganlens.models.files.reading import state_of, tensors
from ganlens.models.files.records import Record, Stored

# What the parts of a name say about whose weights they are, the preferred ones first.
AVERAGE = re.compile(r"(^|_)(ema|avg|averaged?|smooth|running|shadow|gs)($|_)|(ema|avg)$|^(avg_?g|g_?e)$", re.I)
GENERATOR = re.compile(r"(^|_)(net_?g|g|generator|gen|decoder|dec)($|_|\d)", re.I)
OTHER = re.compile(
    r"^(net_?d|d|dis|discriminator|disc|critic|net_?e|e|encoder|enc|lpips|vgg)($|_|\d)|optim|sched", re.I
)
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and averaged models, and of torch.compile
MOST_DEPTH = 4  # of dicts within dicts, and of prefixes within names
FEWEST = 4  # tensors of a network


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
    config : mapping
        What a file of settings beside it says; empty where there is none.
    asked : mapping
        What the caller says of the network that no file does, by the names of the options of `load_generator`.
    """

    where: str
    items: Mapping[str, Stored | torch.Tensor]
    tree: Any
    size: int
    module: Record | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, int]:
        """How usual its name is for a generator, the lowest the most; among equals, where it lies."""
        parts = [part for part in self.where.split(".") if f"{part}." not in WRAPPERS]
        if any(OTHER.match(part) for part in parts):
            return 3, len(parts)
        if any(AVERAGE.search(part) for part in parts):
            return 0, len(parts)
        return (1 if any(GENERATOR.search(part) for part in parts) else 2), len(parts)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors, loaded."""
        return tensors(self.items, self.size)


def states(
    tree, size: int, config: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
) -> Iterator[State]:
    """All state dicts of a file, also those in dicts within dicts, and those of networks within networks."""
    state = partial(State, tree=tree, size=size, config=config or {}, asked=asked or {})
    if isinstance(tree, KerasModel):
        arrays = {".".join((*name, str(i))): x for name, some in tree.weights.items() for i, x in enumerate(some)}
        yield state("", arrays)
    if isinstance(tree, OnnxModel):
        yield state("", tree.tensors)
    seen: set[int] = set()
    waiting = [("", tree, 0)]
    while waiting:
        where, value, depth = waiting.pop(0)
        if id(value) in seen or depth > MOST_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            yield state(where, state_of(value), module=value)
        elif isinstance(value, dict):
            inner = {name: item for name, item in value.items() if isinstance(name, str)}
            held = {name: item for name, item in inner.items() if isinstance(item, Stored | torch.Tensor)}
            if len(held) > 1:
                yield from (state(path, items) for path, items in parts_of(where, held))
            waiting += [(joined(where, name), v, depth + 1) for name, v in inner.items() if name not in held]


def parts_of(where: str, items: dict) -> Iterator[tuple[str, dict]]:
    """A state dict, and those of the networks in it, by all prefixes that several of its names have in common."""
    yield where, unwrapped(items)
    prefixes: dict[str, dict] = {}
    for name, item in items.items():
        steps = name.split(".")
        for depth in range(1, min(len(steps), MOST_DEPTH)):
            prefix = ".".join(steps[:depth])
            prefixes.setdefault(prefix, {})[".".join(steps[depth:])] = item
    for prefix, part in prefixes.items():
        if len(part) >= FEWEST:
            yield joined(where, prefix), unwrapped(part)


def unwrapped(items: dict) -> dict:
    """A state dict without the prefixes of wrappers, and without what only wrappers have."""
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(wrapper): item for name, item in items.items() if name.startswith(wrapper)}
        if inside and all(not item.shape for name, item in items.items() if not name.startswith(wrapper)):
            return unwrapped(inside)  # what is left are counters
    return {name.replace(".module.", ".").replace("._orig_mod.", "."): item for name, item in items.items()}


def joined(*names: str) -> str:
    return ".".join(filter(None, names))
