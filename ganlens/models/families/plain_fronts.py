"""How the latent and the class enter a network that is known by a plain state dict alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.families.dcgan_layers import Part, as_in_training
from ganlens.models.families.shared_layers import Table
from ganlens.models.families.stylegan2 import place_module
from ganlens.models.latents import scattered

Kind = Literal["latent", "behind", "before", "times", "beside"]
NAMED = re.compile(r"emb|label|class|cond", re.I)
SAID = {
    "latent": "latents alone",
    "behind": "latents, then the embedding of the class",
    "before": "the embedding of the class, then latents",
    "times": "latents times the embedding of the class",
    "beside": "latents and one-hot classes, by a first layer each",
}


@dataclass(frozen=True)
class Front:
    """What enters the first layer.

    Attributes
    ----------
    z_dim : int
        Length of the latent.
    kind : str
        A key of ``SAID``.
    classes : int or None
    table : Part or None
        The embedding of classes (classes, E).
    branches : pair of sequences of Part
        The layers, and perhaps norms, of latents and of classes, where each has its own.
    """

    z_dim: int
    kind: Kind = "latent"
    classes: int | None = None
    table: Part | None = None
    branches: tuple[tuple[Part, ...], ...] = ()

    def fitted(self, inputs: int) -> "Front":
        """The same for a first layer that takes so many numbers."""
        extra = 0
        if self.table is not None and self.kind in ("behind", "before"):
            extra = self.table.shape[1]
        return replace(self, z_dim=inputs - (self.classes or 0 if self.kind == "beside" else extra))

    def mixed(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """What enters the first layer, (N, I), of latents (N, Z) and labels (N,) or weights (N, classes)."""
        if self.classes is None:
            return z
        labels = scattered(z) % self.classes if labels is None else labels
        hot = (labels if labels.ndim == 2 else F.one_hot(labels, self.classes)).to(z)
        if self.kind == "beside":
            return torch.cat([z, hot], 1)
        table = hot @ self.table.tensors["weight"]  # type: ignore[union-attr]  # all other kinds have one
        return {"behind": lambda: torch.cat([z, table], 1), "before": lambda: torch.cat([table, z], 1)}.get(
            self.kind, lambda: z * table
        )()


def fronts(parts: Sequence[Part]) -> Iterator[tuple[Front, list[Part]]]:
    """The fronts that a state dict may have, the usual one first, each with the layers behind it."""
    whole = list(parts)
    table = next((part for part in whole if is_table(part, whole)), None)
    if table is not None:
        rest = [part for part in whole if part is not table]
        width, inputs = table.shape[1], inputs_of(rest[0])
        kinds: tuple[Kind, ...] = ("times",) if width == inputs else ("behind", "before")
        for kind in kinds:
            yield Front(0, kind, table.shape[0], table), rest
        return
    pair = two_branches(whole)
    if pair is None:
        yield Front(0), whole
        return
    z, y = pair
    rest = whole[sum(map(len, pair)) :]
    yield Front(0, "beside", inputs_of(y[0]), None, pair), [*map(joined, z, y), *rest]


def readings(parts: Sequence[Part]) -> Iterator[tuple[tuple[Front, list[Part]], bool]]:
    """The fronts, with norms as they are, and where they were updated a few times only, as in training."""
    few = any(as_in_training(part) is not part for part in parts)
    yield from ((front, fresh) for front in fronts(parts) for fresh in ((False, True) if few else (False,)))


def inputs_of(part: Part) -> int:
    return (part.shape[1] if part.kind == "dense" else part.shape[0]) if part.shape else 0


def is_table(part: Part, parts: Sequence[Part]) -> bool:
    """Whether a part is an embedding of classes, which the first layer has room for."""
    if part.kind != "dense" or set(part.tensors) != {"weight"}:
        return False
    others = [other for other in parts if other is not part]
    if others and part.shape[0] == inputs_of(others[0]) and not NAMED.search(part.name):
        return False  # a linear map without a bias, whose outputs the next layer takes
    return bool(others) and others[0].kind in ("dense", "conv") and part.shape[1] <= inputs_of(others[0])


def two_branches(parts: Sequence[Part]) -> tuple[tuple[Part, ...], tuple[Part, ...]] | None:
    """The first layers of latents and of classes, each perhaps with a norm, where the first two do not follow up."""
    length = 2 if len(parts) > 3 and parts[1].kind == "norm" and parts[3].kind == "norm" else 1
    first, second = tuple(parts[:length]), tuple(parts[length : 2 * length])
    if len(parts) <= 2 * length or first[0].kind != second[0].kind or first[0].kind not in ("dense", "conv"):
        return None
    a, b = first[0].shape, second[0].shape
    outputs = [shape[0] if first[0].kind == "dense" else shape[1] for shape in (a, b)]
    follows = inputs_of(second[0]) == outputs[0] or (first[0].kind == "conv" and outputs[0] in b[:2])
    behind = next((part for part in parts[2 * length :] if part.kind == "conv"), None)
    if follows or a[2:] != b[2:] or behind is None or ("bias" in first[0].tensors) != ("bias" in second[0].tensors):
        return None
    fits = any(units and sum(outputs) % units == 0 for units in behind.shape[:2])
    return (first, second) if fits and (first[0].kind == "dense" or sum(outputs) in behind.shape[:2]) else None


def joined(a: Part, b: Part) -> Part:
    """Two layers as one that has the inputs and the outputs of both; two norms as one."""
    if a.kind == "norm":
        kept = [what for what in a.tensors if what in b.tensors and a.tensors[what].ndim]
        return Part(a.name, {what: torch.cat([a.tensors[what], b.tensors[what]]) for what in kept})
    first, second = a.tensors["weight"], b.tensors["weight"]
    size = (first.shape[0] + second.shape[0], first.shape[1] + second.shape[1], *first.shape[2:])
    weight = first.new_zeros(size)
    weight[: first.shape[0], : first.shape[1]] = first
    weight[first.shape[0] :, first.shape[1] :] = second
    rest = {"bias": torch.cat([a.tensors["bias"], b.tensors["bias"]])} if "bias" in a.tensors else {}
    return Part(a.name, {"weight": weight} | rest)


class Conditional(nn.Module):
    """Latents (N, Z) and classes (N,), or weights of them (N, classes), then modules by name, one after the other.

    Parameters
    ----------
    front : Front
    branches : sequence of mappings of str to Module
        Of latents and of classes, where each has layers of its own.
    modules : mapping of str to Module
        What follows.
    """

    def __init__(self, front: Front, branches: Sequence[Mapping[str, nn.Module]], modules: Mapping[str, nn.Module]):
        super().__init__()
        self.kind, self.classes = front.kind, front.classes or 0
        self.names, self.of = list(modules), [list(branch) for branch in branches]
        self.table = front.table.name if front.table is not None else ""
        if front.table is not None:
            place_module(self, self.table, Table(front.table.tensors["weight"]))
        for some in (*branches, modules):
            for name, module in some.items():
                place_module(self, name, module)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hot = (labels if labels.ndim == 2 else F.one_hot(labels, self.classes)).to(z)
        if self.kind == "beside":
            r = torch.cat([self.run(names, x) for names, x in zip(self.of, (z, hot), strict=True)], 1)
        else:
            row = self.get_submodule(self.table)(hot)
            r = z * row if self.kind == "times" else torch.cat([z, row] if self.kind == "behind" else [row, z], 1)
        return self.run(self.names, r)

    def run(self, names: Sequence[str], r: torch.Tensor) -> torch.Tensor:
        for name in names:
            module = self.get_submodule(name)
            r = r[..., None, None] if isinstance(module, nn.ConvTranspose2d) and r.ndim == 2 else r
            r = module(r)
        return r
