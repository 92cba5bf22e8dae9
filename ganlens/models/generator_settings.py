"""What can be chosen for a generator beside the seed: truncation and class."""

from collections.abc import Callable
from inspect import Parameter, signature
from threading import RLock
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ganlens.arguments import close_match
from ganlens.models.latents import check_label, check_labels, check_truncation, scattered, titled
from ganlens.models.layers import Layers

Self = TypeVar("Self", bound="Choices")


class Choices:
    """The part of a generator that knows its settings, and what the network is called with under them."""

    net: nn.Module
    name: str
    z_dim: int
    layers: Layers
    classes: int | None
    inputs: Callable | None
    _defaults: dict[str, Any]
    _settings: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def settings(self) -> dict:
        """What can be chosen beside the seed, and what is chosen: see `variant`."""
        return dict(self._settings)

    @property
    def defaults(self) -> dict:
        """The usual settings."""
        return dict(self._defaults)

    @property
    def chosen(self) -> dict:
        """Those of the settings that are not the usual ones."""
        return {name: value for name, value in self._settings.items() if value != self._defaults[name]}

    @property
    def title(self) -> str:
        """The name, with the settings that are not the usual ones: ``"church (truncation 0.7)"``."""
        return titled(self.name, self.chosen)

    def variant(self: Self, **settings) -> Self:
        """The same network with other settings; nothing is copied, and this generator stays as it is.

        Parameters
        ----------
        truncation : float
            Psi of StyleGAN2, in [0, 1]; 1 is none.
        label : int or None
            The class of all images; None lets each seed decide, so that a sample covers all classes.

        Raises
        ------
        ValueError
            The network has no such setting, or the value is out of range.

        Examples
        --------
        >>> import ganlens as gl
        >>> G = gl.load_generator("scenes")
        >>> G.settings, G.variant() == G, G.variant().fingerprint == G.fingerprint
        ({}, True, True)
        """
        checked = {name: self._checked(name, value) for name, value in settings.items()}
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))  # the lock is the same, as hooks are set on the same modules
        other._settings = self._settings | checked
        return other

    def __getstate__(self) -> dict:
        """Pickle without the lock, which cannot be pickled, and without caches, which the copy makes anew."""
        return vars(self) | {"_lock": None, "_levels": {}, "_closed": {}, "_whole": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = RLock()

    def __eq__(self, other) -> bool:
        same = isinstance(other, Choices) and self.net is other.net and self.name == other.name
        return same and self.layers == other.layers and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self.net)

    def _key(self, layer: str) -> tuple:
        """What is known of a layer under these settings."""
        return layer, *self._settings.values()

    def _checked(self, name: str, value) -> float | int | None:
        """A setting as it is kept; ValueError if there is none of that name, or the value is out of range."""
        if name not in self._settings:
            if name in ("label", "truncation") or not self._settings:
                rest = f"; it has {', '.join(self._settings)}" if self._settings else ", nor anything else to choose"
                what = "classes" if name == "label" else name
                raise ValueError(f"{self.name} has no {what}{rest}; leave {name} away")
            raise ValueError(close_match("setting", name, list(self._settings), self.name))
        if name == "label":
            return check_label(value, cast(int, self.classes))  # known where labels are a setting
        return check_truncation(value)

    def labels(self, z: torch.Tensor) -> torch.Tensor | None:
        """Classes (N,) of latents (N, Z): the chosen one, or else that of each latent; None without classes.

        The class of a latent follows from its bits, so an image is its seed here too, and all classes are equally
        frequent.
        """
        if self.classes is None:
            return None
        if self._settings["label"] is not None:
            return torch.full((len(z),), self._settings["label"], device=z.device)
        return scattered(z) % self.classes

    def _arguments(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> tuple:
        """What the network is called with."""
        z = z.flatten(1)  # maps of one cell are vectors
        if z.shape[1] != self.z_dim:
            raise ValueError(f"latents of shape {tuple(z.shape)}: {self.name} takes (N, {self.z_dim})")
        labels = self.labels(z) if labels is None else self._check_labels(labels, len(z))
        if self.inputs is not None:
            found = self.inputs(z, labels)
            return tuple(found) if isinstance(found, tuple | list) else (found,)
        arguments: tuple = (z,) if labels is None else (z, labels)
        if "truncation" in self._settings:
            arguments = (z, labels, self._settings["truncation"])
        return arguments

    def _check_labels(self, labels, n: int) -> torch.Tensor | None:
        """Labels (N,) or weights (N, classes), on the generator's device; ValueError if they do not fit."""
        labels = torch.as_tensor(labels, device=self.device)
        if self.classes is None and tuple(labels.shape) == (n, 0):
            return None  # weights of no classes
        if self.classes is None and not self._takes_labels():
            raise ValueError(f"labels were given, but {self.name} knows no classes; leave them away")
        return labels if self.classes is None else check_labels(labels, n, self.classes)

    def _takes_labels(self) -> bool:
        """Whether the network itself has a second argument that it can do without."""
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
        parameters = list(signature(self.net.forward).parameters.values())
        return self.inputs is None and not self._settings and sum(p.kind in kinds for p in parameters) > 1
