"""Classifiers: what generators have seeds for, they have images for; the rest is one analysis for both."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from ganlens.arguments import as_list, check_integer, check_kind, close_match, first_few
from ganlens.borrowed import as_arguments
from ganlens.models.base import Generator
from ganlens.models.editing import Edit
from ganlens.models.latents import as_seeds
from ganlens.models.network import ImageNetwork
from ganlens.models.opened import OpenedNetwork
from ganlens.models.photographs import Folder, Held
from ganlens.models.wrapping import tensors_in


def as_they_are(x: torch.Tensor) -> torch.Tensor:
    return x


def from_zero(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) / 2


def normalized(x: torch.Tensor) -> torch.Tensor:
    """Images minus the mean of ImageNet, over its deviation."""
    mean, deviation = x.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return (from_zero(x) - mean) / deviation


def in_grey(prepared: Callable, x: torch.Tensor) -> torch.Tensor:
    """Prepared images (N, 1, Y, X), the mean of their channels."""
    return prepared(x).mean(1, keepdim=True)


INPUTS: dict[str, Callable] = {"[-1,1]": as_they_are, "[0,1]": from_zero, "imagenet": normalized}
CHANGES = (
    "Edits of a classifier change its scores, not its images: "
    "use C.scores(seeds, edits), gl.class_accuracy and gl.important_units"
)


class Classifier(ImageNetwork):
    """A classifier network with images: image i takes the place of what a generator makes of seed i.

    Make one with `Classifier.wrap`. `ganlens.dissect`, the gallery, the heat map and the report take it like a
    generator. Edits change scores, not images: `scores`, `ganlens.class_accuracy` and `ganlens.important_units` measure
    that; what needs edited images, such as the intervention canvas, says that it cannot be had.

    Attributes
    ----------
    count : int
        Number of images N; they are one sample, of seed 0.
    class_names : tuple of str
        Names of the K classes, in the order of the scores.
    truth : array (N,)
        The class of each image, -1 where it is not known.
    files : tuple of Path
        Where image i was read from; empty for tensors.
    layers, image_shape, name, fingerprint
        As for `Generator`.
    """

    count: int
    inputs: Callable

    def __init__(
        self,
        net: nn.Module,
        images: "Folder | Held",
        truth: np.ndarray,
        *,
        class_names: Sequence[str] | None,
        inputs: str | Callable,
        name: str | None = None,
        layers: Sequence[str] | None = None,
    ):
        super().__init__(net, name, settings={}, trusted=False)
        self.images, self.count, self.files = images, len(images), images.files
        self._prepared = inputs if isinstance(inputs, str) else "by a function"
        self.inputs = INPUTS[inputs] if isinstance(inputs, str) else inputs
        self.image_shape = 3, images.size[0], images.size[1]
        try:
            scores = self._scores_in(layers)
        except (RuntimeError, TypeError) as error:
            shape = ", ".join(map(str, images.size))
            raise ValueError(
                f"{name or type(net).__name__} could not be called with images (2, 3, {shape}): {error}; "
                "give the size or the inputs that it takes"
            ) from error
        self.class_names = tuple(map(str, range(scores))) if class_names is None else tuple(class_names)
        self.truth = truth
        if len(self.class_names) != scores:
            raise ValueError(
                f"{len(self.class_names)} classes ({first_few(self.class_names)}), but {self.name} gives {scores} "
                f"scores; give class_names=[…], the names of all {scores} in the order of the scores"
            )
        if truth.max() >= scores:
            raise ValueError(f"label {truth.max()}: {self.name} gives {scores} scores; labels are 0 … {scores - 1}")

    def _scores_in(self, layers: Sequence[str] | None) -> int:
        """Find the layers, and how many scores there are; networks that want one channel get grey images."""
        try:
            return self._discover(layers).shape[1]
        except RuntimeError:
            if self._prepared not in INPUTS:
                raise
            prepared, self.inputs = self.inputs, partial(in_grey, self.inputs)
            try:
                scores = self._discover(layers).shape[1]
            except (RuntimeError, TypeError):
                self.inputs = prepared
            else:
                self._prepared += " in grey"
                return scores
            raise

    @staticmethod
    def wrap(
        net: nn.Module,
        images,
        labels: Sequence[int] | Sequence[str] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        inputs: str | Callable = "[-1,1]",
        name: str | None = None,
        layers: Sequence[str] | None = None,
    ) -> "Classifier":
        """Make a Classifier of any network and a folder of images, or images at hand.

        Parameters
        ----------
        net : Module
            The network; it stays as it is, and is run in evaluation mode. It returns scores (N, K), alone or
            in a tuple, a dict or an object.
        images : path, Tensor (N, 3, Y, X) in [-1, 1], or uint8 array (N, Y, X, 3)
            A folder with a subfolder for each class, or without subfolders. Files are read when they are needed; their
            order is a fixed shuffle of that of their names, so that the first n are a fair sample of all classes.
            Tensors keep their order.
        labels : sequence of N int or str, optional
            For tensors: the class of each image; -1 where it is none of the K.
        class_names : sequence of K str, optional
            Names of the classes in the order of the scores. By default the subfolders in the order of their names.
        size : int or (int, int), optional
            Height and width that images of a folder are scaled and cut to, around their centre; not needed where all
            have one size.
        inputs : {"[-1,1]", "[0,1]", "imagenet"} or callable
            What the network takes: images in a range, or normalized with the usual mean and deviation of ImageNet; or a
            function from images in [-1, 1] to what it takes.
        name : str, optional
            For tables; the class's name by default.
        layers : sequence of str, optional
            Dotted names of the layers to offer; all modules that yield one feature map by default.

        Raises
        ------
        ValueError
            No images, fewer than 8, or files that are none; labels or names of classes that do not fit; a network that
            returns something else.

        Examples
        --------
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> x, types = torch.zeros(8, 3, 16, 16), ["dome", "tower"]
        >>> C = Classifier.wrap(net, x, labels=types * 4, class_names=types)
        >>> C
        <Classifier Sequential: 2 classes, 3 layers, 8 images 16x16>
        >>> C.scores(range(3)).shape
        torch.Size([3, 2])
        """
        if isinstance(inputs, str) and inputs not in INPUTS:
            raise ValueError(close_match("inputs", inputs, list(INPUTS), "Classifier.wrap"))
        if class_names is not None:
            class_names = as_list("class_names", class_names, "different names, one for each score")
        if class_names is not None and len({*map(str, class_names)}) < len(class_names):
            raise ValueError(f"class_names={class_names!r}: expected different names, one for each score")
        if isinstance(images, str | Path):
            if labels is not None:
                raise ValueError(
                    "labels are for images at hand; those of a folder are in subfolders, one for each class"
                )
            folder = Folder(Path(images), size)
            truth, class_names = folder.truth(class_names)
            source: Folder | Held = folder
        else:
            if size is not None:
                raise ValueError("size is for images of a folder; images at hand are taken as they are")
            source = Held(images)
            truth = as_truth(labels, len(source), class_names)
        return Classifier(net, source, truth, class_names=class_names, inputs=inputs, name=name, layers=layers)

    # ---- what every network has

    @property
    def fingerprint(self) -> str:
        """Hash of the network's class and numbers, of every image, and of how these are prepared."""
        height, width = self.images.size
        network = self._hash(str(3 * height * width))
        return hashlib.sha256(f"{network} {self.images.digest} {self._prepared}".encode()).hexdigest()[:16]

    def __eq__(self, other) -> bool:
        return super().__eq__(other) and self.images is other.images

    __hash__ = ImageNetwork.__hash__

    def latents(self, seeds: Iterable[int] | int) -> torch.Tensor:
        """The images (N, 3, Y, X) of these numbers, in [-1, 1]; ValueError if there are none."""
        seeds = as_seeds(seeds)
        if max(seeds) >= self.count:
            raise ValueError(
                f"image {max(seeds)}: {self.name} has images 0 … {self.count - 1}, which are one "
                f"sample, sample=0. {CHANGES}"
            )
        return self.images.read(seeds).to(self.device)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """The images themselves, after the network has seen them."""
        self._run(z, labels)
        return z

    def open(
        self, layer: str, seeds: Iterable[int] | int, labels=None, *, stop: Callable[[], bool] | None = None
    ) -> "OpenedClassifier":
        """Stop at a layer: ``.features`` (N, U, H, W); ``.scores(edits)`` runs the rest, as often as asked."""
        opened = cast(OpenedClassifier, super().open(layer, seeds, labels, stop=stop))
        opened.seeds = as_seeds(seeds)
        return opened

    def _opened(self, layer: str, arguments: tuple | dict, whole: bool = False) -> "OpenedClassifier":
        return OpenedClassifier(self, layer, arguments, whole)

    def _arguments(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> tuple | dict:
        expected = 3, *self.images.size
        if z.ndim != 4 or tuple(z.shape[1:]) != expected:
            raise ValueError(f"images of shape {tuple(z.shape)}: expected (N, {', '.join(map(str, expected))})")
        if labels is not None:
            raise ValueError(f"labels were given, but {self.name} takes images alone; leave them away")
        return as_arguments(self.inputs(z))

    def _output(self, output) -> torch.Tensor:
        """Scores (N, K) in what the network returned: what it gives instead of images."""
        every = [x[..., 0, 0] if x.ndim == 4 and x.shape[2:] == (1, 1) else x for _, x in tensors_in(output)]
        found = [x for x in every if x.ndim == 2 and x.shape[1] > 1 and x.is_floating_point()]
        if not found:
            shapes = ", ".join(str(tuple(x.shape)) for x in every) or type(output).__name__
            raise ValueError(
                f"{self.name} returned {shapes}; expected scores (N, K), one for each of 2 classes or more"
            )
        return found[0]

    # ---- what a classifier has

    def scores(
        self, seeds: Iterable[int] | int, edits: Sequence[Edit] | Edit = (), batch_size: int = 32
    ) -> torch.Tensor:
        """Scores (N, K) of images, with edits applied in their order; the class with the highest is what it says.

        Parameters
        ----------
        seeds : iterable of int, or int
            Which images.
        edits : sequence of Edit
            Applied one after the other; the network itself is never changed.
        """
        return self._edited_output(as_seeds(seeds), edits, None, check_integer("batch_size", batch_size))

    def class_index(self, name: str) -> int:
        """Place of a class among the scores; ValueError with close matches if there is none of that name."""
        if name not in self.class_names:
            raise ValueError(close_match("class", name, self.class_names, self.name))
        return self.class_names.index(name)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape[1:]))
        return (
            f"<Classifier {self.name}: {len(self.class_names)} classes, {len(self.layers)} layers, "
            f"{self.count} images {size}>"
        )


class OpenedClassifier(OpenedNetwork):
    """A classifier, stopped at a layer: ``features`` (N, U, H, W), and the images as ``image`` (N, 3, Y, X)."""

    network: Classifier
    seeds: list[int]

    @property
    def image(self) -> torch.Tensor:
        """The images (N, 3, Y, X)."""
        return self.network.latents(self.seeds)

    def scores(self, edits: Sequence[Edit] | Edit = (), stop: Callable[[], bool] | None = None) -> torch.Tensor:
        """Scores (N, K) with edits of this layer and of later ones, applied in their order; see `Classifier.scores`."""
        return self._edited(edits, stop)


def as_generator(network) -> Generator:
    """A generator as it is; ValueError for a classifier, whose edits change no image, and for anything else."""
    if isinstance(network, Classifier):
        raise ValueError(f"{network.name} is a classifier. {CHANGES}")
    return check_kind("generator", network, Generator, "one from gl.load_generator or gl.Generator.wrap")


# ---- classes


def as_truth(labels, n: int, class_names: Sequence[str] | None) -> np.ndarray:
    """Classes (N,) of images, -1 where they are not known; ValueError if they do not fit."""
    if labels is None:
        return np.full(n, -1)
    found = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else list(labels))
    if found.shape != (n,):
        raise ValueError(f"labels of shape {found.shape}: expected one for each of {n} images, ({n},)")
    if found.dtype.kind in "UO":
        if class_names is None:
            raise ValueError("labels are names: give class_names=[…] too, the names in the order of the scores")
        for name in dict.fromkeys(found.tolist()):
            if name not in class_names:
                raise ValueError(close_match("class", name, list(class_names), "class_names=[…]"))
        return np.array([list(class_names).index(name) for name in found.tolist()])
    if found.dtype.kind not in "iu" or found.min() < -1:
        raise ValueError("labels: expected whole numbers from 0, -1 where there is none, or names of classes")
    return found.astype(int)
