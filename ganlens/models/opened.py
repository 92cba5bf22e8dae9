"""A network, stopped at a layer."""

from collections.abc import Callable, Sequence
from numbers import Number
from typing import TYPE_CHECKING

import torch
from torch import nn

from ganlens.borrowed import borrowed, call, untraced
from ganlens.models.editing import Edit
from ganlens.models.hooks import alike, answering, hooked, hooks, maps_of, stoppable, with_maps

if TYPE_CHECKING:
    from ganlens.models.network import ImageNetwork


class Opened:
    """A network stopped at a layer: ``features`` (N, U, H, W) as they were, and `resume` to run what lies behind.

    While the network ran up to the layer, the outputs of all modules that came before were kept. `resume` runs the
    network with those modules answering from memory, so it works for modules that are no chain, and pays only for what
    lies behind the layer (and for plain functions between the modules in front of it). It does not work for modules
    that hand something on by other ways than their outputs: then ``whole`` runs the whole network each time.

    Parameters
    ----------
    net : Module
        The network.
    layer : str
        Dotted name of a module that runs once.
    arguments : tuple or dict
        What the network is called with, by place or by name; N images.
    whole : bool
        Whether `resume` runs everything.
    """

    def __init__(self, net: nn.Module, layer: str, arguments: tuple | dict, whole: bool = False):
        self.net, self.layer, self.arguments, self.whole = net, layer, arguments, whole
        self.target = net.get_submodule(layer)
        self.memory: dict[nn.Module, list] = {}
        self.features = self.record()

    def record(self) -> torch.Tensor:
        """Run the network once, and keep its output and what came before the layer; returns the layer's features."""
        found: list[torch.Tensor] = []
        forgotten = set()
        traced = torch.is_grad_enabled()

        def keep(module, inputs, output):
            if found:
                return
            output = output if traced else untraced(output)
            if module is self.target:
                kept = copied(output, 1)  # what follows may write into the output
                self.memory[module], maps = [kept], maps_of(kept)
                found.extend([] if maps is None else [maps])
            elif not self.whole and can_be_kept(output):
                self.memory.setdefault(module, []).append(copied(output, 1))
            else:
                forgotten.add(module)

        with hooks((module, keep) for module in self.net.modules()):
            self.output = call(self.net, copied(self.arguments, 1))
        if not found:
            raise ValueError(f"layer {self.layer!r} did not run during the forward pass")
        for module in forgotten:
            self.memory.pop(module, None)
        self.forget_inner_modules()
        return found[0]

    def forget_inner_modules(self) -> None:
        """Keep only the outermost modules: what runs inside them is skipped with them."""
        for module in list(self.memory):
            for inner in list(module.modules())[1:]:
                self.memory.pop(inner, None)

    def resume(self, features: torch.Tensor) -> torch.Tensor:
        """Output of the network if the layer's output were ``features`` (M, U, H, W); M is N, or any if N is 1."""
        n = len(features)
        arguments = copied(self.arguments, n)
        if self.whole:
            with hooked(self.net, {self.layer: lambda r: features.clone()}):
                return call(self.net, arguments)
        kept = {module: [copied(o, n) for o in outputs] for module, outputs in self.memory.items()}
        kept[self.target] = [with_maps(kept[self.target][0], features.clone())]
        with answering({module: iter(outputs) for module, outputs in kept.items()}):
            return call(self.net, arguments)


def can_be_kept(value) -> bool:
    """Whether a module's output can be copied: tensors, plain values, and tuples, lists and dicts of them."""
    if isinstance(value, tuple | list):
        return all(map(can_be_kept, value))
    if type(value) is dict:
        return all(map(can_be_kept, value.values()))
    return value is None or isinstance(value, torch.Tensor | str | Number)


def copied(value, n: int):
    """Copy tensors, those of batch 1 as a batch of n; inside tuples, lists and dicts too."""
    if isinstance(value, torch.Tensor):
        single = value.ndim and len(value) == 1 and n > 1
        return value.repeat(n, *[1] * (value.ndim - 1)) if single else value.clone()
    if isinstance(value, tuple | list):
        return alike(value, [copied(v, n) for v in value])
    return {name: copied(v, n) for name, v in value.items()} if type(value) is dict else value


class OpenedNetwork(Opened):
    """An opened network whose output is looked for as `ImageNetwork` says; see `Opened`."""

    def __init__(self, network: "ImageNetwork", layer: str, arguments: tuple | dict, whole: bool = False):
        self.network, self.version = network, network._version
        super().__init__(network.net, layer, arguments, whole)
        self.output = network._output(self.output)

    def resume(self, features: torch.Tensor) -> torch.Tensor:
        self.network._check_features(self.layer, features)
        n = len(self.features)
        if n not in (1, len(features)):
            raise ValueError(f"features of {len(features)} images; {self.layer} was opened for {n}")
        if self.outdated:
            raise ValueError(f"the weights of {self.network.name} have changed since {self.layer} was opened: open it")
        features = features.to(self.features.dtype)
        with borrowed(self.net):
            return self.network._output(super().resume(features))

    @property
    def outdated(self) -> bool:
        """Whether the network's weights have changed since, so that what was kept is not its own any more."""
        return self.version != self.network._version

    def _edited(self, edits: Sequence[Edit] | Edit, stop: Callable[[], bool] | None) -> torch.Tensor:
        """The output with edits of this layer and of later ones, applied in their order."""
        functions = dict(self.network._editing(edits))
        if not functions:
            return self.output.clone()
        first = self.network.earliest(functions)
        if self.network.earliest([first, self.layer]) != self.layer:
            raise ValueError(f"{first!r} lies in front of {self.layer!r}, which is open; open {first!r} instead")
        own = functions.pop(self.layer, torch.clone)
        with torch.no_grad(), borrowed(self.net), stoppable(self.net, stop), hooked(self.net, functions):
            return self.resume(own(self.features))


class OpenedGenerator(OpenedNetwork):
    """A generator, stopped at a layer: ``features`` (N, U, H, W), and the images as ``image`` (N, 3, Y, X)."""

    @property
    def image(self) -> torch.Tensor:
        """The unedited images (N, 3, Y, X) in [-1, 1]."""
        return self.output

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
        return self._edited(edits, stop)


def can_resume(network: "ImageNetwork", layer: str) -> bool:
    """Whether the network, resumed at a layer with other features, gives what a whole pass with them gives.

    It is tried with a pair of images whose features change places, and with one image for both; in between, the
    network makes other images, so that what it may keep for later is not theirs.
    """
    with torch.no_grad(), borrowed(network.net):
        openings = [network._arguments(network.latents(seeds)) for seeds in ([1, 2], [1])]
        quick = [network._opened(layer, arguments) for arguments in openings]
        features = 1.25 * quick[0].features.flip(0) + 0.1
        expected = [network._opened(layer, a, whole=True).resume(features) for a in openings]
        call(network.net, network._arguments(network.latents([3, 4])))
        try:
            found = [opened.resume(features) for opened in quick]
        except Exception:  # whatever a network does when some of its modules do not run
            return False
        return all(a.shape == b.shape and close(a, b) for a, b in zip(found, expected, strict=True))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether images are the same but for rounding."""
    scale = expected.abs().nan_to_num().max().clamp(min=1).item()
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
