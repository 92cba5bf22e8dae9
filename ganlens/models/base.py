"""Any generator, seen as: seeds to latents to layers to images."""

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from threading import RLock

import numpy as np
import torch
from torch import nn

from ganlens.arguments import as_list, check_integer, check_kind, close_match
from ganlens.models.editing import Edit, as_edits, hooked, quantile_of, stoppable
from ganlens.models.generator_settings import Choices
from ganlens.models.latents import LAWS, as_labels, as_latents, as_seeds, drawn, grown
from ganlens.models.layers import discover
from ganlens.models.opened import OpenedGenerator, can_resume
from ganlens.statistics import Levels, Scale
from ganlens.tables import as_table, html_table

LEVEL_SAMPLE = 256  # images 0 … 255 decide what "mean" and quantile levels are


class Generator(Choices):
    """A generator network whose images are numbered by seeds and whose layers can be read, edited and resumed.

    Make one with `ganlens.load_generator` or, from a network of your own, with `Generator.wrap`.

    Attributes
    ----------
    z_dim : int
        Length Z of a latent.
    layers : dict of str to (int, int, int)
        Name of each layer that yields a feature map, in the order of the forward pass, and its (U, H, W). Layers that
        yield a vector (N, U), such as the styles of StyleGAN2, are not listed, but their names are taken everywhere;
        they are maps of one cell, (U, 1, 1). `table` shows all.
    name : str
        For tables and messages.
    law : {"normal", "uniform"}
        How latents are drawn: standard normal, or uniform in [-1, 1].
    classes : int or None
        How many classes the network knows; None where it takes no labels.
    settings : dict
        What can be chosen beside the seed, and what is chosen; `variant` chooses otherwise. ``"truncation"``: psi of
        StyleGAN2, in [0, 1]. ``"label"``: the class of all images; None where each seed has a class of its own.
    precision : str
        Type of number that the network computes in.
    called : str
        What stands between latents, network and images of a wrapped network, in few words; "" where nothing does.
    about : str
        What is known of the network, where it was read from a file.
    count : int or None
        How many images there are; None where every seed has one.
    """

    about, precision, called = "", "float32", ""
    count: int | None = None

    def __init__(
        self,
        net: nn.Module,
        z_dim: int,
        name: str | None = None,
        *,
        layers: Sequence[str] | None = None,
        law: str = "normal",
        classes: int | None = None,
        truncates: bool = False,
        vectors: Sequence[str] = (),
        inputs: Callable | None = None,
        output: Callable | None = None,
        trusted: bool = True,
    ):
        if not isinstance(law, str) or law not in LAWS:
            raise ValueError(close_match("law of latents", law, list(LAWS), "ganlens"))
        self.net, self.classes, self.inputs, self.output = net.eval(), classes, inputs, output
        self._defaults = ({"truncation": 1.0} if truncates else {}) | ({"label": None} if classes else {})
        self._settings = dict(self._defaults)
        self.z_dim, self.name, self.law = z_dim, name or type(net).__name__, law
        self._lock = RLock()
        # What is known is shared with the variants.
        self._levels: dict[tuple, Levels] = {}
        self._closed: dict[tuple, OpenedGenerator] = {}
        self._whole: dict[str, bool] = {}
        self._trusted = trusted
        arguments = self._arguments(self.latents([0, 1]))
        self.layers, x = discover(net, lambda: self._image(net(*arguments)), 2, self.name, layers, vectors)
        self.image_shape = tuple(x.shape[1:])

    @staticmethod
    def wrap(
        net: nn.Module,
        z_dim: int,
        name: str | None = None,
        *,
        layers: Sequence[str] | None = None,
        classes: int | None = None,
        inputs: Callable | None = None,
        output: str | Callable | None = None,
        law: str = "normal",
    ) -> "Generator":
        """Make a Generator of any network; ``about`` says what was found out about it.

        Parameters
        ----------
        net : Module
            The network; it is put into evaluation mode and otherwise left as it is.
        z_dim : int
            Length Z of its latent vector.
        name : str, optional
            For tables; the class's name by default.
        layers : sequence of str, optional
            Dotted names of the layers to offer; all modules that yield one feature map by default.
        classes : int, optional
            For networks that are called with latents and labels: how many classes there are.
        inputs : callable, optional
            From latents (N, Z) and labels, (N,) or None, to what the network is called with: one argument, or a tuple.
            By default what the network takes is found by trying: latents (N, Z) or (N, Z, 1, 1), and labels (N,) or
            one-hot (N, classes). Examples: ``lambda z, labels: (labels, z)``, ``lambda z, labels: z.split(64, 1)`` for
            two latents, ``lambda z, labels: mapping(z)`` for the style of another network.
        output : {"[-1,1]", "[0,1]", "tanh", "sigmoid", "classes"} or callable, optional
            What the network returns: images in a range; something that an activation is still to be applied to; one
            score per class and pixel, to be painted as a map of classes. Or a function from it to images (N, 3, Y, X)
            in [-1, 1]. By default the first image in it, its range found by looking. Images have 3 channels, or 1
            (grey); others stay as they are, (N, C, Y, X), and pictures of them show the strongest channel by a colour.
        law : {"normal", "uniform"}
            How latents are drawn.

        Raises
        ------
        ValueError
            The network takes or returns something else.

        Examples
        --------
        >>> net = nn.Sequential(nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh())
        >>> Generator.wrap(net, z_dim=8).layers
        {'1': (3, 4, 4), '2': (3, 4, 4)}
        """
        from ganlens.models.wrapping import wrapped

        return wrapped(net, z_dim, name, layers, classes, inputs, output, law)

    def _image(self, output) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1], or (N, C, Y, X) as they are, of what the network returned."""
        output = output if self.output is None else self.output(output)
        if not (isinstance(output, torch.Tensor) and output.ndim == 4):
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(f"{self.name} returned {found}; expected images (N, 3, Y, X) in [-1, 1]")
        if output.shape[1] == 1:
            output = output.expand(-1, 3, -1, -1)  # grey
        return output.clamp(-1, 1) if output.shape[1] == 3 else output

    def to(self, device: torch.device | str) -> "Generator":
        """Move the network to a device; returns ``self``."""
        self.net.to(device)
        self._closed.clear()
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of the network's class, of every number in it, and of what was chosen when it was wrapped."""
        usual = {"normal", "float32"}
        special = "".join(f" {word}" for word in (self.law, self.precision, self.called) if word and word not in usual)
        digest = hashlib.sha256(f"{type(self.net).__qualname__} {self.z_dim}{special}".encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def latents(self, seeds: Iterable[int] | int) -> torch.Tensor:
        """Latents (N, Z) of the given seeds, each decided by its seed alone; standard normal, unless `law` differs.

        The numbers are those of ``numpy.random.RandomState(seed).standard_normal``, which numpy keeps for ever.
        """
        return drawn(seeds, self.z_dim, self.law).to(self.device)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1] of latents (N, Z); gradients flow where the caller wants them."""
        z, labels = as_latents(z), as_labels(labels)
        given = z, labels
        if labels is None or len(labels) == len(z):  # else they are refused
            given = grown(z), None if labels is None else grown(labels)
        with self._lock:
            return self._image(self.net(*self._arguments(*given)))[: len(z)]

    def generate(
        self,
        seeds: Iterable[int] | int,
        edits: Sequence[Edit] | Edit = (),
        labels: torch.Tensor | None = None,
        *,
        batch_size: int = 32,
    ) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1] of seeds, with edits applied in their order.

        Parameters
        ----------
        seeds : iterable of int, or int
            Which images.
        edits : sequence of Edit
            Applied one after the other; the network itself is never changed.
        labels : Tensor (N,), optional
            Classes, for generators that take them, in place of those that the settings say.

        Examples
        --------
        >>> import ganlens as gl
        >>> G = gl.load_generator("scenes")
        >>> G.generate(seeds=range(2), edits=[gl.ablate("layer4", [0])]).shape
        torch.Size([2, 3, 64, 64])
        """
        seeds, labels, batch_size = as_seeds(seeds), as_labels(labels), check_integer("batch_size", batch_size)
        functions = self._editing(edits)
        parts = []
        with torch.inference_mode(), self._lock, hooked(self.net, functions):
            for start in range(0, len(seeds), batch_size):
                some = slice(start, start + batch_size)
                parts.append(self.forward(self.latents(seeds[some]), None if labels is None else labels[some]))
        return torch.cat(parts)

    def read(
        self, z: torch.Tensor, layers: Sequence[str], labels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Images (N, 3, Y, X) of latents and, from the same pass, the features (N, U, H, W) of each named layer."""
        features: dict[str, torch.Tensor] = {}
        layers = as_list("layers", layers, "names of layers")
        for layer in layers:
            self.check_layer(layer)

        def keep(layer, output):
            features[layer] = output.clone(
                memory_format=torch.contiguous_format
            )  # what follows may write into the output

        with self._lock, hooked(self.net, {layer: partial(keep, layer) for layer in layers}):
            images = self.forward(z, labels)
        return images, {layer: r[: len(z)] for layer, r in features.items()}

    def open(
        self,
        layer: str,
        seeds: Iterable[int] | int,
        labels: torch.Tensor | None = None,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> "OpenedGenerator":
        """Stop at a layer: ``.features`` (N, U, H, W); ``.resume(features)`` runs the rest, as often as asked.

        ``.image`` (N, 3, Y, X) is the unedited image, ``.edited(edits)`` the edited one; ``stop`` is as in ``edited``.
        """
        self.check_layer(layer)
        whole = self._runs_whole(layer)
        with torch.inference_mode(), self._lock, stoppable(self.net, stop):
            return OpenedGenerator(self, layer, self._arguments(self.latents(seeds), labels), whole)

    def _runs_whole(self, layer: str) -> bool:
        """Whether the network cannot be resumed at a layer; tried once, and then said."""
        if layer not in self._whole:
            self._whole[layer] = not (self._trusted or can_resume(self, layer))
            if self._whole[layer]:
                warnings.warn(
                    f"{self.name} cannot be resumed at {layer!r}, as what lies behind it is not decided by outputs of "
                    "modules alone; edits are right, but each runs the whole network",
                    stacklevel=3,
                )
        return self._whole[layer]

    def resume(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, Y, X) from features (N, U, H, W) of a layer; only what lies behind the layer runs.

        Works where the features alone decide the image. Where what lies behind also reads the latent, ValueError: use
        ``open(layer, seeds).resume(features)``, which remembers the rest.
        """
        self._check_features(layer, features)
        key = self._key(layer)
        if key not in self._closed:
            self._closed[key] = self._prove_closed(layer)
        return self._closed[key].resume(features)

    def _prove_closed(self, layer: str) -> OpenedGenerator:
        """Open image 0; it may stand for any image if image 1 resumed through it is image 1."""
        opened = self.open(layer, 0)
        other = self.open(layer, 1)
        with torch.inference_mode():
            if not torch.allclose(opened.resume(other.features), other.image, atol=1e-4):
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

    def check_draws(self) -> None:
        """ValueError where edits change no image: with classifiers."""

    def check_edit(self, edit: Edit) -> None:
        """ValueError if the edit does not fit this generator."""
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

    def edited(self, features: torch.Tensor, edits: Sequence[Edit]) -> torch.Tensor:
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
        key = self._key(layer)
        if key not in self._levels:
            seeds = range(LEVEL_SAMPLE)[: self.count]
            with torch.inference_mode(), self._lock:
                parts = [self.read(self.latents(seeds[i : i + 32]), [layer])[1][layer] for i in seeds[::32]]
                values = torch.cat(parts).transpose(0, 1).flatten(1)
                levels = Levels(Scale(values.amin(1), values.amax(1)))
                for part in parts:
                    levels.update(part)
                self._levels[key] = levels
        return self._levels[key]

    def _editing(self, edits: Sequence[Edit] | Edit) -> Mapping:
        """One function per edited layer, for `hooked`."""
        by_layer: dict[str, list[Edit]] = {}
        for edit in as_edits(edits):
            self.check_edit(edit)
            self.level(edit)  # so that named levels are known before hooks are set
            by_layer.setdefault(edit.layer, []).append(edit)
        return {layer: lambda r, some=some: self.edited(r, some) for layer, some in by_layer.items()}

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape[1:]))
        return f"<Generator {self.title}: latent {self.z_dim}, {len(self.layers)} layers, images {shape}>"

    def _repr_html_(self) -> str:
        rows = [row for row in self.layers.rows() if row["layer"] in self.layers]
        hidden = f"; and {len(self.layers.vectors)} vectors, see G.table()" if self.layers.vectors else ""
        cells = [" × ".join(str(row[side]) for side in ("height", "width")) for row in rows]
        columns = {name: [str(row[name]) for row in rows] for name in ("layer", "type", "units")} | {"cells": cells}
        return html_table(f"{repr(self)[1:-1]}{hidden}", columns)
