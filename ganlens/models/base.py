"""Any generator, seen as: seeds to latents to layers to images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import RLock

import numpy as np
import torch
from torch import nn

from ganlens.instrument import Edit, Opened, as_edits, hooked, quantile_of, stoppable
from ganlens.names import close_match
from ganlens.statistics import Levels, Scale

LAWS = {
    "normal": lambda random, z_dim: random.standard_normal(z_dim),
    "uniform": lambda random, z_dim: random.uniform(-1, 1, z_dim),
}
LEVEL_SAMPLE = 256  # images 0 … 255 decide what "mean" and quantile levels are
SMALLEST_BATCH = 2  # with a batch of one, torch takes other kernels and rounds differently


class Generator:
    """A generator network whose images are numbered by seeds and whose layers can be read, edited and resumed.

    Make one with `ganlens.load_generator` or, from a network of your own, with `Generator.wrap`.

    Attributes
    ----------
    z_dim : int
        Length Z of a latent.
    layers : dict of str to (int, int, int)
        Name of each layer that yields a feature map, in the order of the forward pass, and its (U, H, W).
    name : str
        For tables and messages.
    law : {"normal", "uniform"}
        How latents are drawn: standard normal, or uniform in [-1, 1].
    about : str
        What is known of the network, where it was read from a file.
    """

    about = ""

    def __init__(
        self,
        net: nn.Module,
        z_dim: int,
        name: str | None = None,
        layers: Sequence[str] | None = None,
        law: str = "normal",
    ):
        if law not in LAWS:
            raise ValueError(close_match("law of latents", law, list(LAWS), "ganlens"))
        self.net = net.eval()
        self.z_dim, self.name, self.law = z_dim, name or type(net).__name__, law
        self._lock = RLock()
        self._levels: dict[str, Levels] = {}
        self._closed: dict[str, Opened] = {}
        self.layers, self.image_shape = self._discover(layers)

    @staticmethod
    def wrap(net: nn.Module, z_dim: int, name: str | None = None, layers: Sequence[str] | None = None) -> "Generator":
        """Make a Generator of any network from latents (N, Z) to images in [-1, 1], (N, 3, Y, X) or grey (N, 1, Y, X).

        Parameters
        ----------
        net : Module
            The network; it is put into evaluation mode and otherwise left as it is.
        z_dim : int
            Length of its latent vector.
        name : str, optional
            For tables; the class's name by default.
        layers : sequence of str, optional
            Dotted names of the layers to offer; all modules that yield one feature map by default.

        Examples
        --------
        >>> net = nn.Sequential(nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh())
        >>> Generator.wrap(net, z_dim=8).layers
        {'1': (3, 4, 4), '2': (3, 4, 4)}
        """
        return Generator(net, z_dim, name, layers)

    def _discover(self, names: Sequence[str] | None) -> tuple[dict[str, tuple[int, int, int]], tuple[int, ...]]:
        """Run one image and note which modules yield one feature map, in order."""
        shapes: dict[str, tuple[int, int, int]] = {}
        runs: Counter[str] = Counter()
        modules = [name for name, _ in self.net.named_modules() if name]
        for name in names or ():
            if name not in modules:
                raise ValueError(close_match("layer", name, modules, self.name))

        def note(name, output):
            runs[name] += 1
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                shapes.setdefault(name, tuple(output.shape[1:]))

        functions = {name: lambda output, name=name: note(name, output) for name in names or modules}
        with torch.no_grad(), hooked(self.net, functions):
            x = self._image(self.net(self.sample([0, 1])))
        self._repeated = {name for name in shapes if runs[name] > 1}  # an activation that layers share, for instance
        once = {name: shape for name, shape in shapes.items() if name not in self._repeated}
        missing = [name for name in names or () if name not in once]
        if missing:
            raise ValueError(self._no_layer(missing[0]))
        return once, tuple(x.shape[1:])

    def _no_layer(self, name: str) -> str:
        if name in self._repeated:
            return f"layer {name!r} of {self.name} runs more than once in a pass; name a module that runs once"
        return f"layer {name!r} of {self.name} yields no feature map (N, U, H, W)"

    def _image(self, output) -> torch.Tensor:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[1] == 1:
            output = output.expand(-1, 3, -1, -1)  # grey
        if not (isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[1] == 3):
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(f"{self.name} returned {found}; expected images (N, 3, Y, X) in [-1, 1]")
        return output.clamp(-1, 1)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> "Generator":
        """Move the network to a device; returns ``self``."""
        self.net.to(device)
        self._closed.clear()
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of the network's class and of every number in it."""
        law = "" if self.law == "normal" else f" {self.law}"
        digest = hashlib.sha256(f"{type(self.net).__qualname__} {self.z_dim}{law}".encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def sample(self, seeds: Iterable[int] | int) -> torch.Tensor:
        """Latents (N, Z) of the given seeds, each decided by its seed alone; standard normal, unless `law` differs.

        The numbers are those of ``numpy.random.RandomState(seed).standard_normal``, which numpy keeps for ever.
        """
        rows = [LAWS[self.law](np.random.RandomState(seed), self.z_dim) for seed in as_seeds(seeds)]
        return torch.from_numpy(np.asarray(rows, np.float32)).to(self.device)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1] of latents (N, Z); gradients flow where the caller wants them."""
        with self._lock:
            n = len(z)
            arguments = [grown(a) for a in (z, labels) if a is not None]
            return self._image(self.net(*arguments))[:n]

    def generate(
        self,
        seeds: Iterable[int] | int,
        edits: Sequence[Edit] | Edit = (),
        labels: torch.Tensor | None = None,
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
            Classes, for generators that take them.

        Examples
        --------
        >>> import ganlens as gl
        >>> G = gl.load_generator("scenes")
        >>> G.generate(seeds=range(2), edits=[gl.ablate("layer4", [0])]).shape
        torch.Size([2, 3, 64, 64])
        """
        seeds = as_seeds(seeds)
        functions = self._editing(edits)
        parts = []
        with torch.inference_mode(), self._lock, hooked(self.net, functions):
            for start in range(0, len(seeds), batch_size):
                some = slice(start, start + batch_size)
                parts.append(self.forward(self.sample(seeds[some]), None if labels is None else labels[some]))
        return torch.cat(parts)

    def read(
        self, z: torch.Tensor, layers: Sequence[str], labels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Images (N, 3, Y, X) of latents and, from the same pass, the features (N, U, H, W) of each named layer."""
        features: dict[str, torch.Tensor] = {}
        for layer in layers:
            self.check_layer(layer)

        def keep(layer, output):
            features[layer] = output.clone(
                memory_format=torch.contiguous_format
            )  # what follows may write into the output

        with self._lock, hooked(self.net, {n: lambda r, n=n: keep(n, r) for n in layers}):
            images = self.forward(z, labels)
        return images, {layer: r[: len(z)] for layer, r in features.items()}

    def open(
        self,
        layer: str,
        seeds: Iterable[int] | int,
        labels: torch.Tensor | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> "OpenedGenerator":
        """Stop at a layer: ``.features`` (N, U, H, W); ``.resume(features)`` runs the rest, as often as asked.

        ``.image`` (N, 3, Y, X) is the unedited image, ``.edited(edits)`` the edited one; ``stop`` is as in ``edited``.
        """
        self.check_layer(layer)
        arguments = tuple(a for a in (self.sample(seeds), labels) if a is not None)
        with torch.inference_mode(), self._lock, stoppable(self.net, stop):
            return OpenedGenerator(self, layer, arguments)

    def resume(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, Y, X) from features (N, U, H, W) of a layer; only what lies behind the layer runs.

        Works where the features alone decide the image. Where what lies behind also reads the latent, ValueError: use
        ``open(layer, seeds).resume(features)``, which remembers the rest.
        """
        self._check_features(layer, features)
        if layer not in self._closed:
            self._closed[layer] = self._prove_closed(layer)
        return self._closed[layer].resume(features)

    def _prove_closed(self, layer: str) -> Opened:
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
        if layer in self.layers:
            return self.layers[layer]
        if layer in dict(self.net.named_modules()):
            raise ValueError(f"{self._no_layer(layer)}; layers that do: {', '.join(self.layers)}")
        raise ValueError(close_match("layer", layer, list(self.layers), self.name))

    def earliest(self, layers: Collection[str]) -> str:
        """The one of some layers that comes first in the pass."""
        for layer in layers:
            self.check_layer(layer)
        return min(layers, key=list(self.layers).index)

    def check_edit(self, edit: Edit) -> None:
        """ValueError if the edit does not fit this generator."""
        units, height, width = self.check_layer(edit.layer)
        if max(edit.units) >= units:
            raise ValueError(f"unit {max(edit.units)} is out of range: {edit.layer} has units 0 … {units - 1}")
        for what, cells in (("region", np.shape(edit.region)), ("level maps", np.shape(edit.level)[1:])):
            if cells not in ((), (height, width)):
                raise ValueError(f"{what} of shape {cells}: {edit.layer} has {height} x {width} cells")

    def _check_features(self, layer: str, features: torch.Tensor) -> None:
        expected = self.check_layer(layer)
        if features.ndim != 4 or tuple(features.shape[1:]) != expected:
            raise ValueError(
                f"features of shape {tuple(features.shape)}: {layer} has (N, {', '.join(map(str, expected))})"
            )

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
        if layer not in self._levels:
            with torch.inference_mode(), self._lock:
                parts = [
                    self.read(self.sample(range(i, i + 32)), [layer])[1][layer] for i in range(0, LEVEL_SAMPLE, 32)
                ]
                values = torch.cat(parts).transpose(0, 1).flatten(1)
                levels = Levels(Scale(values.amin(1), values.amax(1)))
                for part in parts:
                    levels.update(part)
                self._levels[layer] = levels
        return self._levels[layer]

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
        return f"<Generator {self.name}: latent {self.z_dim}, {len(self.layers)} layers, images {shape}>"


class OpenedGenerator(Opened):
    """An opened network whose output is an image in [-1, 1]."""

    def __init__(self, generator: Generator, layer: str, arguments: tuple):
        self.generator = generator
        super().__init__(generator.net, layer, arguments)
        self.image = generator._image(self.image)

    def edited(self, edits: Sequence[Edit] | Edit, stop: Callable[[], bool] | None = None) -> torch.Tensor:
        """Images (N, 3, Y, X) with edits of this layer and of later ones, applied in their order.

        Parameters
        ----------
        edits : sequence of Edit
            Without any, the images are those of ``.image``, to the bit.
        stop : callable, optional
            Asked before each module runs; where it says True, the pass is given up.

        Raises
        ------
        ValueError
            An edit does not fit the generator, or its layer lies in front of this one.
        Abandoned
            ``stop`` said so.

        Examples
        --------
        >>> import ganlens as gl
        >>> opened = gl.load_generator("scenes").open("layer4", seeds=0)
        >>> opened.edited([gl.ablate("layer4", [3]), gl.insert("layer6", [5], level=2.0)]).shape
        torch.Size([1, 3, 64, 64])
        """
        functions = dict(self.generator._editing(edits))
        if not functions:
            return self.image.clone()
        first = self.generator.earliest(functions)
        if self.generator.earliest([first, self.layer]) != self.layer:
            raise ValueError(f"{first!r} lies in front of {self.layer!r}, which is open; open {first!r} instead")
        own = functions.pop(self.layer, torch.clone)
        with torch.inference_mode(), self.generator._lock, stoppable(self.net, stop), hooked(self.net, functions):
            return self.resume(own(self.features))

    def resume(self, features: torch.Tensor) -> torch.Tensor:
        self.generator._check_features(self.layer, features)
        with self.generator._lock:
            return self.generator._image(super().resume(features))


def as_seeds(seeds: Iterable[int] | int) -> list[int]:
    """Seeds as a list of whole numbers in 0 … 2^32 - 1; ValueError otherwise."""
    array = np.atleast_1d(np.asarray(list(seeds) if isinstance(seeds, Iterable) else seeds))
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"seeds {seeds!r}: expected whole numbers, at least one, for example range(8)")
    if array.min() < 0 or array.max() >= 2**32:
        raise ValueError(f"seed {array.min() if array.min() < 0 else array.max()} is outside 0 … 2^32 - 1")
    return array.tolist()


def grown(batch: torch.Tensor) -> torch.Tensor:
    """A batch of at least two, so that one image alone is rounded like one of many."""
    return batch.repeat(SMALLEST_BATCH, *[1] * (batch.ndim - 1)) if len(batch) == 1 else batch
