"""A network, stopped at a layer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ganlens.models.editing import Edit, Opened, hooked, stoppable

if TYPE_CHECKING:
    from ganlens.models.network import ImageNetwork


class OpenedNetwork(Opened):
    """An opened network whose output is looked for as `ImageNetwork` says; see `ganlens.models.editing.Opened`."""

    def __init__(self, network: "ImageNetwork", layer: str, arguments: tuple, whole: bool = False):
        self.network = network
        super().__init__(network.net, layer, arguments, whole)
        self.output = network._output(self.output)

    def resume(self, features: torch.Tensor) -> torch.Tensor:
        self.network._check_features(self.layer, features)
        n = len(self.features)
        if n not in (1, len(features)):
            raise ValueError(f"features of {len(features)} images; {self.layer} was opened for {n}")
        features = features.to(self.features.dtype)
        with self.network._lock:
            return self.network._output(super().resume(features))

    def _edited(self, edits: Sequence[Edit] | Edit, stop: Callable[[], bool] | None) -> torch.Tensor:
        """The output with edits of this layer and of later ones, applied in their order."""
        functions = dict(self.network._editing(edits))
        if not functions:
            return self.output.clone()
        first = self.network.earliest(functions)
        if self.network.earliest([first, self.layer]) != self.layer:
            raise ValueError(f"{first!r} lies in front of {self.layer!r}, which is open; open {first!r} instead")
        own = functions.pop(self.layer, torch.clone)
        with torch.inference_mode(), self.network._lock, stoppable(self.net, stop), hooked(self.net, functions):
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
    with torch.inference_mode(), network._lock:
        openings = [network._arguments(network.latents(seeds)) for seeds in ([1, 2], [1])]
        quick = [network._opened(layer, arguments) for arguments in openings]
        features = 1.25 * quick[0].features.flip(0) + 0.1
        expected = [network._opened(layer, a, whole=True).resume(features) for a in openings]
        network.net(*network._arguments(network.latents([3, 4])))
        try:
            found = [opened.resume(features) for opened in quick]
        except Exception:  # whatever a network does when some of its modules do not run
            return False
        return all(a.shape == b.shape and close(a, b) for a, b in zip(found, expected, strict=True))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether images are the same but for rounding."""
    scale = expected.abs().nan_to_num().max().clamp(min=1).item()
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
