"""Which modules of a network are layers: those that yield one feature map of each image."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ganlens.arguments import as_list, close_match
from ganlens.models.hooks import hooks, maps_of

Shape = tuple[int, int, int]


class Layers(dict[str, Shape]):
    """Layer names and shapes (U, H, W), in the order of the pass.

    Listed are feature maps. Vectors (N, U), such as the styles of StyleGAN2, are not listed, so that tables stay
    readable; asked for by name, they are layers of shape (U, 1, 1).

    Attributes
    ----------
    vectors : dict of str to (int, int, int)
        What is not listed.
    types : dict of str to str
        Class of each module, in the order of the pass.
    owner : str
        For messages.
    """

    def __init__(self, listed: dict[str, Shape], vectors: dict[str, Shape], types: dict[str, str], owner: str):
        super().__init__(listed)
        self.vectors, self.types, self.owner = vectors, types, owner
        self.others: dict[str, str] = {}  # why these modules are no layers

    def __missing__(self, name: str) -> Shape:
        return self.vectors[name]

    def check(self, name: str) -> Shape:
        """(U, H, W) of a layer; ValueError with close matches if there is none of that name."""
        if isinstance(name, str) and (name in self or name in self.vectors):
            return self[name]
        if isinstance(name, str) and name in self.others:
            raise ValueError(f"layer {name!r} of {self.owner} {self.others[name]}; layers that do: {self.some()}")
        raise ValueError(close_match("layer", name, [*self, *self.vectors], self.owner))

    def some(self) -> str:
        """The listed names, or the first of them."""
        return ", ".join(list(self)[:24]) + (" …" if len(self) > 24 else "")

    def earliest(self, names: Collection[str]) -> str:
        """The one of some layers that comes first in the pass."""
        for name in names:
            self.check(name)
        return min(names, key=list(self.types).index)

    def rows(self) -> list[dict]:
        """One dict per layer, vectors included."""
        return [
            {"layer": name, "type": kind, "units": self[name][0], "height": self[name][1], "width": self[name][2]}
            for name, kind in self.types.items()
        ]


def discover(
    net: nn.Module, run: Callable, n: int, owner: str, names: Sequence[str] | None = None, more: Sequence[str] = ()
) -> tuple[Layers, Any]:
    """Run a network once and note which modules yield feature maps.

    Parameters
    ----------
    net : Module
        The network.
    run : callable
        Runs it on n images.
    owner : str
        For messages.
    names : sequence of str, optional
        Modules that are listed; by default all that yield feature maps, and vectors by name.
    more : sequence of str
        Modules that are not listed, but are layers too; only where ``names`` are given.

    Returns
    -------
    layers : Layers
    result
        What ``run`` returned.
    """
    modules = {name: module for name, module in net.named_modules() if name and ".parametrizations." not in f".{name}."}
    names = None if names is None else as_list("layers", names, "names of modules")
    for name in (*(names or ()), *more):
        if not isinstance(name, str) or name not in modules:
            raise ValueError(close_match("layer", name, list(modules), owner))
    shapes: dict[str, Shape] = {}
    runs: Counter[str] = Counter()

    def note(name: str, output) -> None:
        runs[name] += 1
        maps = maps_of(output)
        if maps is not None and len(maps) == n:
            _, units, height, width = maps.shape
            shapes.setdefault(name, (units, height, width))
            if maps is not output and isinstance(output, torch.Tensor):
                flat.add(name)

    flat: set[str] = set()
    noting = [(module, partial(noted, note, name)) for name, module in modules.items()]
    with torch.no_grad(), hooks(noting):
        result = run()
    once = {name: shape for name, shape in shapes.items() if runs[name] == 1}
    vectors = more if names is not None else [name for name in once if name in flat]
    listed = names if names is not None else [name for name in once if name not in flat]
    layers = Layers(
        {name: once[name] for name in once if name in listed},
        {name: once[name] for name in once if name in vectors},
        {name: type(modules[name]).__name__ for name in once if name in listed or name in vectors},
        owner,
    )
    # An activation that layers share runs more than once, for instance: its name would say two things.
    layers.others = {name: reason(runs[name], name in once) for name in modules if name not in layers.types}
    for name in (*(names or ()), *more):
        layers.check(name)
    return layers, result


def noted(note: Callable, name: str, module: nn.Module, inputs, output) -> None:
    """A hook that notes the output of a module by its name."""
    note(name, output)


def reason(runs: int, maps: bool) -> str:
    """Why a module is no layer."""
    if maps:
        return "is not among the layers that are offered"
    return "runs more than once in a pass, not once" if runs > 1 else "yields no feature map (N, U, H, W)"
