"""A generator, stopped at a layer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ganlens.models.editing import Edit, Opened, hooked, stoppable

if TYPE_CHECKING:
    from ganlens.models.base import Generator


class OpenedGenerator(Opened):
    """An opened network whose output is an image in [-1, 1]; see `ganlens.models.editing.Opened`."""

    def __init__(self, generator: "Generator", layer: str, arguments: tuple, whole: bool = False):
        self.generator = generator
        super().__init__(generator.net, layer, arguments, whole)
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
        n = len(self.features)
        if n not in (1, len(features)):
            raise ValueError(f"features of {len(features)} images; {self.layer} was opened for {n}")
        features = features.to(self.features.dtype)
        with self.generator._lock:
            return self.generator._image(super().resume(features))


def can_resume(generator: "Generator", layer: str) -> bool:
    """Whether the network, resumed at a layer with other features, gives what a whole pass with them gives.

    It is tried with a pair of images whose features change places, and with one image for both; in between, the
    network makes other images, so that what it may keep for later is not theirs.
    """
    with torch.inference_mode(), generator._lock:
        openings = [generator._arguments(generator.latents(seeds)) for seeds in ([1, 2], [1])]
        quick = [OpenedGenerator(generator, layer, arguments) for arguments in openings]
        features = 1.25 * quick[0].features.flip(0) + 0.1
        expected = [OpenedGenerator(generator, layer, a, whole=True).resume(features) for a in openings]
        generator.net(*generator._arguments(generator.latents([3, 4])))
        try:
            found = [opened.resume(features) for opened in quick]
        except Exception:  # whatever a network does when some of its modules do not run
            return False
        return all(a.shape == b.shape and close(a, b) for a, b in zip(found, expected, strict=True))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether images are the same but for rounding."""
    scale = expected.abs().nan_to_num().max().clamp(min=1).item()
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
