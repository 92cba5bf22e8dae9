"""A network over numbered images, whose layers are read and edited: what generators and classifiers have in common."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ganlens.arguments import as_list, check_kind, printable
from ganlens.borrowed import borrowed, call, changing_buffers, lock_of, weights_version
from ganlens.models.code_hash import content_of
from ganlens.models.editing import Edit, as_edits, quantile_of
from ganlens.models.hooks import hooked, stoppable
from ganlens.models.latents import grown, titled
from ganlens.models.layers import discover
from ganlens.models.opened import OpenedNetwork, can_resume
from ganlens.statistics import Levels, Scale
from ganlens.tables import as_table, html_table

LEVEL_SAMPLE = 256  # images 0 … 255 decide what "mean" and quantile levels are

EMBEDDED = "scenes"  # the name of the networks that ship inside the package

Self = TypeVar("Self", bound="ImageNetwork")


def changed(then: str, now: str, what: str = "generator") -> str:
    """What to say where something was made with other weights of an embedded network."""
    return f"the embedded {what} has changed since it was made (fingerprint {then}, now {now})"


class Known:
    """What was found out about a network, for as long as its weights are the same."""

    def __init__(self):
        self.version: tuple | None = None
        self.forget()

    def forget(self) -> None:
        self.levels: dict[tuple, Levels] = {}
        self.closed: dict[tuple, OpenedNetwork] = {}
        self.whole: dict[str, bool] = {}
        self.aligned: set[str] = set()
        self.hashes: dict[str, str] = {}

    def of(self, version: tuple) -> "Known":
        """What is known of a network: nothing, if its weights have changed since."""
        if version != self.version:
            self.forget()
            self.version = version
        return self


class ImageNetwork(ABC):
    """A network that is run for images with numbers, the seeds, and whose layers can be read, edited and resumed.

    A `Generator` draws the images, a `Classifier` looks at them; `ganlens.dissect` takes both.

    Attributes
    ----------
    net : Module
        The network; it is run in evaluation mode, whatever mode it is in.
    name : str
        For tables and messages.
    layers : dict of str to (int, int, int)
        Name of each layer that yields a feature map, in the order of the forward pass, and its (U, H, W). Layers that
        yield a vector (N, U), such as the styles of StyleGAN2, are not listed, but their names are taken everywhere;
        they are maps of one cell, (U, 1, 1). `table` shows all.
    image_shape : (int, int, int)
        Shape of an image, (3, Y, X).
    settings : dict
        What can be chosen beside the seed, and what is chosen.
    precision : str
        Type of number that the network computes in.
    count : int or None
        How many images there are; None where every seed has one.
    """

    precision = "float32"
    count: int | None = None
    image_shape: tuple[int, int, int]

    def __init__(self, net: nn.Module, name: str | None, *, settings: dict[str, Any], trusted: bool):
        self.net, self.name = net, printable(name or type(net).__name__)
        self._defaults, self._settings = settings, dict(settings)
        self._memory = Known()  # shared with the variants
        self._trusted = trusted
        self._changing: set[str] = set()  # buffers that change in each pass

    def _discover(self, layers: Sequence[str] | None, vectors: Sequence[str] = ()) -> torch.Tensor:
        """Find the layers in a pass of two images; returns the output of that pass."""
        arguments = self._arguments(self.latents([0, 1]))
        with borrowed(self.net), changing_buffers(self.net) as self._changing:
            self.layers, output = discover(
                self.net, lambda: self._output(call(self.net, arguments)), 2, self.name, layers, vectors
            )
        return output

    # ---- what each kind of network says of itself

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides the numbers of a dissection."""

    @abstractmethod
    def latents(self, seeds: Iterable[int] | int) -> torch.Tensor:
        """What the network is run for: N latents or images, each decided by its seed alone."""

    @abstractmethod
    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Run the network for N latents; returns their images (N, 3, Y, X) in [-1, 1]."""

    @abstractmethod
    def _arguments(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> tuple | dict:
        """What the network is called with, by place or by name; ValueError if the latents do not fit."""

    @abstractmethod
    def _output(self, output) -> torch.Tensor:
        """Images or scores in what the network returned; ValueError if there are none."""

    def _opened(self, layer: str, arguments: tuple | dict, whole: bool = False) -> OpenedNetwork:
        return OpenedNetwork(self, layer, arguments, whole)

    # ---- itself

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def settings(self) -> dict:
        """What can be chosen beside the seed, and what is chosen."""
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

    def __getstate__(self) -> dict:
        """Pickle without what is remembered, which a copy finds anew."""
        return vars(self) | {"_memory": Known()}

    @property
    def _lock(self):
        """The lock of the network, which all share that wrap it."""
        return lock_of(self.net)

    @property
    def _known(self) -> "Known":
        """What is remembered of the network as it is now."""
        return self._memory.of(self._version)

    @property
    def _version(self) -> tuple:
        """Differs once the weights of the network were changed."""
        return weights_version(self.net, self._changing)

    def __eq__(self, other) -> bool:
        same = type(self) is type(other) and self.net is other.net and self.name == other.name
        return same and self.layers == other.layers and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self.net)

    def to(self: Self, device: torch.device | str) -> Self:
        """Move the network to a device; returns ``self``."""
        self.net.to(device)
        self._memory = Known()
        return self

    def _hash(self, described: str) -> str:
        """Hash of the network's class, of what is said beside it, and of every number in the network."""
        known = self._known.hashes
        if described not in known:
            digest = hashlib.sha256(f"{type(self.net).__qualname__} {described}".encode())
            for name, value in sorted(self.net.state_dict().items()):
                if isinstance(value, torch.Tensor):
                    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
                else:  # the extra state of a module
                    digest.update(f"{name} {content_of(value)}".encode())
            known[described] = digest.hexdigest()[:16]
        return known[described]

    # ---- layers

    def read(
        self, z: torch.Tensor, layers: Sequence[str], labels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Images (N, 3, Y, X) of latents and, from the same pass, the features (N, U, H, W) of each named layer."""
        features: dict[str, torch.Tensor] = {}
        traced = torch.is_grad_enabled()
        layers = as_list("layers", layers, "names of layers")
        for layer in layers:
            self.check_layer(layer)

        def keep(layer, output):
            # a copy, since what follows may write into the output
            output = output.clone(memory_format=torch.contiguous_format)
            features[layer] = output if traced else output.detach()

        with borrowed(self.net), hooked(self.net, {layer: partial(keep, layer) for layer in layers}):
            images = self.forward(z, labels)
        return images, {layer: r[: len(z)] for layer, r in features.items()}

    def open(
        self,
        layer: str,
        seeds: Iterable[int] | int,
        labels: torch.Tensor | None = None,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> OpenedNetwork:
        """Stop at a layer: ``.features`` (N, U, H, W); ``.resume(features)`` runs the rest, as often as asked."""
        self.check_layer(layer)
        whole = self._runs_whole(layer)
        with torch.no_grad(), borrowed(self.net), stoppable(self.net, stop):
            return self._opened(layer, self._arguments(self.latents(seeds), labels), whole)

    def _runs_whole(self, layer: str) -> bool:
        """Whether the network cannot be resumed at a layer; tried once, and then said."""
        known = self._known.whole
        if layer not in known:
            known[layer] = not (self._trusted or can_resume(self, layer))
            if known[layer]:
                warnings.warn(
                    f"{self.name} cannot be resumed at {layer!r}, as what lies behind it is not decided by outputs of "
                    "modules alone; edits are right, but each runs the whole network",
                    stacklevel=3,
                )
        return known[layer]

    def resume(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        """What the network gives for features (N, U, H, W) of a layer; only what lies behind the layer runs.

        Works where the features alone decide it. Where what lies behind also reads the latent, ValueError: use
        ``open(layer, seeds).resume(features)``, which remembers the rest.
        """
        self._check_features(layer, features)
        key, closed = self._key(layer), self._known.closed
        if key not in closed:
            closed[key] = self._prove_closed(layer)
        return closed[key].resume(features)

    def _prove_closed(self, layer: str) -> OpenedNetwork:
        """Image 0, opened, after checking that image 1 can be resumed through it, as any image can then."""
        opened = self.open(layer, 0)
        other = self.open(layer, 1)
        with torch.no_grad():
            if not torch.allclose(opened.resume(other.features), other.output, atol=1e-4):
                raise ValueError(
                    f"what lies behind {layer!r} of {self.name} also reads the latent; "
                    f"use G.open({layer!r}, seeds).resume(features), which remembers it"
                )
        return opened

    def check_layer(self, layer: str) -> tuple[int, int, int]:
        """(U, H, W) of a layer; ValueError with close matches if there is none of that name."""
        return self.layers.check(layer)

    def earliest(self, layers: Collection[str]) -> str:
        """The one of some layers that comes first in the pass."""
        return self.layers.earliest(layers)

    def table(self):
        """All layers with their types and shapes: a pandas DataFrame when pandas is installed, or a list of dicts.

        Layers that yield a vector are there too, with one cell.

        Examples
        --------
        >>> import ganlens as gl
        >>> len(gl.load_generator("scenes").table())
        9
        """
        return as_table(self.layers.rows(), "layer")

    def check_edit(self, edit: Edit) -> None:
        """ValueError if the edit does not fit this network."""
        check_kind("edit", edit, Edit, "one of ganlens.ablate or insert")
        units, height, width = self.check_layer(edit.layer)
        if max(edit.units) >= units:
            raise ValueError(f"unit {max(edit.units)} is out of range: {edit.layer} has units 0 … {units - 1}")
        for what, cells in (
            ("region", np.asarray(edit.region).shape),
            ("level maps", np.asarray(edit.level).shape[1:]),
        ):
            if cells not in ((), (height, width)):
                raise ValueError(f"{what} of shape {cells}: {edit.layer} has {height} x {width} cells")

    def _check_features(self, layer: str, features: torch.Tensor) -> None:
        expected = self.check_layer(layer)
        check_kind("features", features, torch.Tensor, f"a tensor (N, {', '.join(map(str, expected))})")
        if features.ndim != 4 or tuple(features.shape[1:]) != expected:
            raise ValueError(
                f"features of shape {tuple(features.shape)}: {layer} has (N, {', '.join(map(str, expected))})"
            )
        if not features.is_floating_point() or not len(features):
            found = f"features of {features.dtype} of {len(features)} images"
            raise ValueError(f"{found}: expected real numbers, of at least one image")

    def edited_features(self, features: torch.Tensor, edits: Sequence[Edit]) -> torch.Tensor:
        """Features (N, U, H, W) of a layer after edits of that layer, in their order."""
        for edit in edits:
            features = edit.apply(features, self.level(edit))
        return features

    def level(self, edit: Edit) -> torch.Tensor:
        """The numbers that an edit forces its K units to: one for all (), one each (K,), or maps (K, H, W)."""
        if isinstance(edit.level, str):
            levels, q = self.levels(edit.layer), quantile_of(edit.level)
            return (levels.mean() if q is None else levels.quantile(q))[list(edit.units)]
        return torch.as_tensor(edit.level, dtype=torch.float32, device=self.device)

    def levels(self, layer: str) -> Levels:
        """Mean and quantiles of a layer's features over images 0 … 255; computed once."""
        key, known = self._key(layer), self._known.levels
        if key not in known:
            seeds = range(LEVEL_SAMPLE)[: self.count]
            with torch.no_grad(), borrowed(self.net):
                parts = [self.read(self.latents(seeds[i : i + 32]), [layer])[1][layer] for i in seeds[::32]]
                values = torch.cat(parts).transpose(0, 1).flatten(1)
                levels = Levels(Scale(values.amin(1), values.amax(1)))
                for part in parts:
                    levels.update(part)
                known[key] = levels
        return known[key]

    def _key(self, layer: str) -> tuple:
        """What is known of a layer under these settings."""
        return layer, *self._settings.values()

    def _edited_output(
        self, seeds: Sequence[int], edits: Sequence[Edit] | Edit, labels: torch.Tensor | None, batch_size: int
    ) -> torch.Tensor:
        """What the network gives for seeds, in batches, with edits applied in their order."""
        functions = self._editing(edits)
        parts = []
        with torch.no_grad(), borrowed(self.net), hooked(self.net, functions):
            for start in range(0, len(seeds), batch_size):
                some = slice(start, start + batch_size)
                parts.append(self._run(self.latents(seeds[some]), None if labels is None else labels[some]))
        return torch.cat(parts)

    def _run(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """What the network gives for latents; an odd batch gets a spare row, since odd ones round otherwise."""
        given = z.clone(), labels
        if labels is None or len(labels) == len(z):  # else they are refused
            given = grown(given[0]), None if labels is None else grown(labels.clone())
        with borrowed(self.net):
            return self._output(call(self.net, self._arguments(*given)))[: len(z)]

    def _editing(self, edits: Sequence[Edit] | Edit) -> Mapping:
        """One function per edited layer, for `hooked`."""
        by_layer: dict[str, list[Edit]] = {}
        for edit in as_edits(edits):
            self.check_edit(edit)
            self.level(edit)  # so that named levels are known before hooks are set
            by_layer.setdefault(edit.layer, []).append(edit)
        return {layer: lambda r, some=some: self.edited_features(r, some) for layer, some in by_layer.items()}

    def _repr_html_(self) -> str:
        rows = [row for row in self.layers.rows() if row["layer"] in self.layers]
        hidden = f"; and {len(self.layers.vectors)} vectors, see G.table()" if self.layers.vectors else ""
        cells = [" × ".join(str(row[side]) for side in ("height", "width")) for row in rows]
        columns = {name: [str(row[name]) for row in rows] for name in ("layer", "type", "units")} | {"cells": cells}
        return html_table(f"{repr(self)[1:-1]}{hidden}", columns)
