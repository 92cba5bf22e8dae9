"""Any generator, seen as: seeds to latents to layers to images."""

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ganlens.arguments import check_integer, close_match, short_repr
from ganlens.borrowed import as_arguments
from ganlens.models.editing import Edit
from ganlens.models.latents import (
    LAWS,
    as_labels,
    as_latents,
    as_seeds,
    check_class_label,
    check_class_labels,
    check_truncation,
    drawn,
    scattered,
)
from ganlens.models.network import ImageNetwork
from ganlens.models.opened import OpenedGenerator, copied
from ganlens.models.untrained import untrained

Self = TypeVar("Self", bound="Generator")


class Generator(ImageNetwork):
    """A generator network whose images are numbered by seeds and whose layers can be read, edited and resumed.

    Make one with `ganlens.load_generator` or, from a network of your own, with `Generator.wrap`.

    Attributes
    ----------
    z_dim : int
        Length Z of a latent.
    law : {"normal", "uniform", "truncated"}
        How latents are drawn: standard normal; uniform in [-1, 1]; or standard normal within [-2, 2], times the
        truncation where that is a setting, as BigGAN takes them.
    classes : int or None
        How many classes the network knows; None where it takes no labels.
    called : str
        What stands between latents, network and images of a wrapped network, in few words; "" where nothing does.
    about : str
        What is known of the network, where it was read from a file.
    net, name, layers, image_shape, settings, precision, count
        As for every `ImageNetwork`; `variant` chooses other settings. ``"truncation"``: psi of StyleGAN, in [0, 1].
        ``"label"``: the class of all images; None where each seed has a class of its own.
    """

    about, called = "", ""
    free_output = False  # a function of the user makes the images, and may move what the layers draw

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
        trusted: bool = False,
    ):
        if not isinstance(law, str) or law not in LAWS:
            raise ValueError(close_match("law of latents", law, list(LAWS), "ganlens"))
        settings: dict[str, Any] = ({"truncation": 1.0} if truncates else {}) | ({"label": None} if classes else {})
        super().__init__(net, name, settings=settings, trusted=trusted)
        self.z_dim, self.law, self.classes, self.inputs, self.output = z_dim, law, classes, inputs, output
        _, *shape = self._discover(layers, vectors).shape
        self.image_shape = shape[0], shape[1], shape[2]

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
            The network; it stays as it is, and is run in evaluation mode.
        z_dim : int
            Length Z of its latent vector.
        name : str, optional
            For tables; the class's name by default.
        layers : sequence of str, optional
            Dotted names of the layers to offer; all modules that yield one feature map by default.
        classes : int, optional
            For networks that are called with latents and labels: how many classes there are.
        inputs : callable, optional
            From latents (N, Z) and labels, (N,) or None, to what the network is called with: one argument, a tuple, or
            a dict of arguments by name. By default what the network takes is found by trying: latents (N, Z) or
            (N, Z, 1, 1), and labels (N,) or one-hot (N, classes). Examples: ``lambda z, labels: (labels, z)``,
            ``lambda z, labels: {"z": z, "noise_mode": "const"}``, ``lambda z, labels: z.split(64, 1)`` for two latents,
            ``lambda z, labels: mapping(z)`` for the style of another network.
        output : {"[-1,1]", "[0,1]", "tanh", "sigmoid", "classes", "rgba"} or callable, optional
            What the network returns: images in a range; something that an activation is still to be applied to; one
            score per class and pixel, to be painted as a map of classes; colours and opacity, to be laid over white.
            Or a function from it to images (N, 3, Y, X) in [-1, 1]. By default the first image in it, its range found
            by looking. Images have 3 channels, or 1 (grey); others stay as they are, (N, C, Y, X), and pictures of them
            show the strongest channel by a colour.
        law : {"normal", "uniform", "truncated"}
            How latents are drawn; the last is standard normal within [-2, 2].

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

    def _output(self, output) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1], or (N, C, Y, X) as they are, of what the network returned."""
        output = output if self.output is None else self.output(copied(output, 1))
        if not (isinstance(output, torch.Tensor) and output.ndim == 4):
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(f"{self.name} returned {found}; expected images (N, 3, Y, X) in [-1, 1]")
        if output.shape[1] == 1:
            output = output.expand(-1, 3, -1, -1)  # grey
        return output.clamp(-1, 1) if output.shape[1] == 3 else output

    @property
    def fingerprint(self) -> str:
        """Hash of the network's class, of every number in it, and of what was chosen when it was wrapped."""
        usual = {"normal", "float32"}
        special = "".join(f" {word}" for word in (self.law, self.precision, self.called) if word and word not in usual)
        return self._hash(f"{self.z_dim}{special}")

    def latents(self, seeds: Iterable[int] | int) -> torch.Tensor:
        """Latents (N, Z) of the given seeds, each decided by its seed alone; standard normal, unless `law` differs.

        The numbers are those of ``numpy.random.RandomState(seed).standard_normal``, which numpy keeps for ever.
        """
        z = drawn(seeds, self.z_dim, self.law).to(self.device)
        return z * self._settings.get("truncation", 1.0) if self.law == "truncated" else z

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Images (N, 3, Y, X) in [-1, 1] of latents (N, Z); gradients flow where the caller wants them."""
        return self._run(as_latents(z), as_labels(labels))

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
        labels, batch_size = as_labels(labels), check_integer("batch_size", batch_size)
        return self._edited_output(as_seeds(seeds), edits, labels, batch_size)

    def open(
        self,
        layer: str,
        seeds: Iterable[int] | int,
        labels: torch.Tensor | None = None,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> OpenedGenerator:
        """Stop at a layer: ``.features`` (N, U, H, W); ``.resume(features)`` runs the rest, as often as asked.

        ``.image`` (N, 3, Y, X) is the unedited image, ``.edited(edits)`` the edited one; ``stop`` is as in ``edited``.
        """
        return cast(OpenedGenerator, super().open(layer, seeds, labels, stop=stop))

    def _opened(self, layer: str, arguments: tuple | dict, whole: bool = False) -> OpenedGenerator:
        return OpenedGenerator(self, layer, arguments, whole)

    # ---- settings

    def variant(self: Self, **settings) -> Self:
        """The same network with other settings; nothing is copied, and this generator stays as it is.

        Parameters
        ----------
        truncation : float
            Psi of StyleGAN, or how far latents of BigGAN reach, in [0, 1]; 1 is none.
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

    def untrained(self: Self, seed: int = 0) -> Self:
        """The same architecture with shuffled weights and like levels of activation: a control for dissections.

        Its units go with brightness and place as those of any network may; what a trained unit does beyond that was
        learnt. See `Dissection.keep_control`.

        Parameters
        ----------
        seed : int
            Which shuffle.

        Examples
        --------
        >>> import ganlens as gl
        >>> gl.load_generator("scenes").untrained(seed=0).name
        'scenes, untrained'
        """
        return untrained(self, check_integer("seed", seed, 0, 2**63 - 1))

    def _checked(self, name: str, value) -> float | int | None:
        """A setting as it is kept; ValueError if there is none of that name, or the value is out of range."""
        if name not in self._settings:
            if name in ("label", "truncation") or not self._settings:
                rest = f"; it has {', '.join(self._settings)}" if self._settings else ", nor anything else to choose"
                what = "classes" if name == "label" else name
                raise ValueError(f"{self.name} has no {what}{rest}; leave {name} away")
            raise ValueError(close_match("setting", name, list(self._settings), self.name))
        if name == "label":
            return check_class_label(value, cast(int, self.classes))  # known where labels are a setting
        return check_truncation(value)

    def labels(self, z: torch.Tensor) -> torch.Tensor | None:
        """Classes (N,) of latents (N, Z): the chosen one, or else that of each latent; None without classes.

        The class of a latent follows from its bits, so an image is its seed here too, and all classes are equally
        frequent.
        """
        if not isinstance(z, torch.Tensor):
            raise ValueError(f"z={short_repr(z)}: expected latents (N, {self.z_dim}), such as G.latents([0, 1])")
        if self.classes is None:
            return None
        if self._settings["label"] is not None:
            return torch.full((len(z),), self._settings["label"], device=z.device)
        return scattered(z) % self.classes

    def _arguments(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> tuple | dict:
        """What the network is called with, by place or by name."""
        z = z.flatten(1)  # maps of one cell are vectors
        if z.shape[1] != self.z_dim:
            raise ValueError(f"latents of shape {tuple(z.shape)}: {self.name} takes (N, {self.z_dim})")
        labels = self.labels(z) if labels is None else self._check_class_labels(labels, len(z))
        if self.inputs is not None:
            return as_arguments(self.inputs(z, labels))
        arguments: tuple = (z,) if labels is None else (z, labels)
        if "truncation" in self._settings:
            arguments = (z, labels, self._settings["truncation"])
        return arguments

    def _check_class_labels(self, labels, n: int) -> torch.Tensor | None:
        """Labels (N,) or weights (N, classes), on the generator's device; ValueError if they do not fit."""
        labels = torch.as_tensor(labels, device=self.device)
        if self.classes is None and tuple(labels.shape) == (n, 0):
            return None  # weights of no classes
        if self.classes is None and not self._takes_labels():
            raise ValueError(f"labels were given, but {self.name} knows no classes; leave them away")
        return labels if self.classes is None else check_class_labels(labels, n, self.classes)

    def _takes_labels(self) -> bool:
        """Whether the network itself has a second argument that it can do without."""
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
        parameters = list(signature(self.net.forward).parameters.values())
        return self.inputs is None and not self._settings and sum(p.kind in kinds for p in parameters) > 1

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape[1:]))
        return f"<Generator {self.title}: latent {self.z_dim}, {len(self.layers)} layers, images {shape}>"
