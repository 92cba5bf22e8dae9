"""What the files of github.com/facebookresearch/pytorch_GAN_zoo have in common: settings and attributes."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.models.files.reading import CheckpointError
from ganlens.models.files.records import Record, short
from ganlens.models.files.states import State

BOUNDED = {"MSE": True, "DCGAN": True, "WGANGP": False, "Logistic": False}  # by loss: whether a tanh is at the end


class Settings:
    """The settings in a file, or the usual ones where it has none."""

    def __init__(self, state: State, family: str, usual_loss: str):
        found = state.tree.get("config") if isinstance(state.tree, dict) else None
        self.family, self.known = family, isinstance(found, Record | dict)
        self.values: Mapping[str, Any] = found.state if isinstance(found, Record) else found or {}
        loss = self.values.get("lossCriterion", usual_loss)
        if loss not in BOUNDED:
            raise CheckpointError(f"closest to {family}, but its loss {short(loss)} is not known, nor what ends it")
        self.bounded = BOUNDED[loss]
        self.attributes = self.attribute_sizes()

    def number(self, name: str, usual: float, least: float, most: float) -> float:
        value = self.values.get(name, usual)
        if type(value) not in (int, float) or not least <= value <= most:
            raise CheckpointError(f"closest to {self.family}, but its setting {name} is {short(value)}")
        return float(value)

    def attribute_sizes(self) -> list[int]:
        """How many values each attribute has, in the order in which they follow the latent."""
        found = self.values.get("attribKeysOrder")
        if not found:
            return []
        try:
            sizes = {entry["order"]: len(entry["values"]) for entry in found.values()}
            in_order = [sizes[i] for i in range(len(found))]
        except (AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(f"closest to {self.family}, but its attributes are described oddly") from error
        return in_order

    def split(self, inputs: int) -> int:
        """Length of the latent, given that of what the network takes."""
        z_dim = inputs - sum(self.attributes)
        if z_dim < 1:
            raise CheckpointError(
                f"closest to {self.family}, but it takes {inputs} numbers, {sum(self.attributes)} of them for classes"
            )
        return z_dim

    def warn(self, said: str) -> None:
        if not self.known:
            warnings.warn(
                f"the settings of the GAN zoo are not in the file, so it is assumed: {said}. If it is otherwise, build "
                "the network yourself: Generator.wrap(net, z_dim=…)",
                stacklevel=8,
            )


class Attributes(nn.Module):
    """Latents (N, Z) with one-hot attributes behind them.

    Labels are whole numbers (N,), counted over the values of all attributes, in which case the other attributes have
    equal weights; or weights (N, V) of all values.
    """

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.sizes = sizes

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if not self.sizes or labels is None:
            return z
        if labels.ndim == 2:
            return torch.cat([z, labels.to(z)], 1)
        hot = F.one_hot(labels, sum(self.sizes)).to(z).split(self.sizes, 1)
        return torch.cat([z, *(part + (1 - part.sum(1, keepdim=True)) / part.shape[1] for part in hot)], 1)
