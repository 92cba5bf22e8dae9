"""Generators in ONNX files: each node becomes a module, and goes by the node's name."""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.arguments import close_match
from ganlens.models.base import Generator
from ganlens.models.families.keras import LABEL, both, module_name, warn_of_roles
from ganlens.models.families.onnx_operations import OPERATIONS
from ganlens.models.files.onnx_files import Node, OnnxModel
from ganlens.models.files.pickles import CheckpointError
from ganlens.models.files.reading import MAX_CELLS
from ganlens.models.files.records import short
from ganlens.models.files.states import State

FAMILY = "ONNX"
FORMAT = "a generator in an ONNX file (.onnx, exported with a free number of images)"
ENDS_AS_ASKED = True

MOST_LENGTH = 2**20
RANDOM = {"RandomNormalLike", "RandomNormal", "RandomUniformLike", "RandomUniform", "Bernoulli", "Multinomial"}


class Operation(nn.Module):
    """One node, with what it takes of the file as parameters; ``forward`` takes the rest, in order."""

    def __init__(self, node: Node, tensors: Mapping[str, torch.Tensor], opset: int):
        super().__init__()
        self.kind, self.settings = node.kind, {**node.settings, "_outputs": len(node.outputs), "_opset": opset}
        self.own = [f"input_{i}" if name in tensors else None for i, name in enumerate(node.inputs)]
        self.empty = [not name for name in node.inputs]
        for i, name in enumerate(node.inputs):
            if name in tensors:
                value = tensors[name]
                if value.is_floating_point() and value.ndim:
                    self.register_parameter(f"input_{i}", nn.Parameter(value))
                else:
                    self.register_buffer(f"input_{i}", value)

    def forward(self, *given: torch.Tensor):
        waiting = iter(given)
        values = [
            None if empty else getattr(self, own) if own else next(waiting)
            for own, empty in zip(self.own, self.empty, strict=True)
        ]
        found = OPERATIONS[self.kind](self.settings, *values)
        if isinstance(found, torch.Tensor) and math.prod(found.shape[1:]) > MAX_CELLS:
            raise CheckpointError(
                f"closest to {FAMILY}, but a {self.kind} gives a tensor of shape {tuple(found.shape)}"
            )
        return found


class OnnxGenerator(nn.Module):
    """Latents (N, Z), and classes (N,) or weights (N, classes), to images.

    Parameters
    ----------
    model : OnnxModel
    latent : str
        Name of the input for latents.
    label : str, optional
        That for classes.
    shape : tuple of int
        Shape of one latent.
    classes : int, optional
    """

    def __init__(self, model: OnnxModel, latent: str, shape, label: str | None, classes: int | None):
        super().__init__()
        self._nodes = needed(model)
        self._latent, self._shape, self._label, self._classes = latent, shape, label, classes
        self._hot = label is not None and not model.inputs[label][1]
        self._returned, self._known = model.outputs[0], set(model.tensors)
        self._last = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        for node in self._nodes:
            self.add_module(module_name(node.name), Operation(node, model.tensors, model.opset))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        values = {self._latent: z.reshape(len(z), *self._shape)}
        if self._label is not None and labels is not None and self._classes:
            if self._hot and labels.ndim == 1:
                labels = F.one_hot(labels, self._classes)
            values[self._label] = labels.to(z) if labels.ndim == 2 else labels
        for i, node in enumerate(self._nodes):
            taken = [name for name in node.inputs if name and name not in self._known]
            found = self.get_submodule(module_name(node.name))(*(values[name] for name in taken))
            found = found if isinstance(found, tuple | list) else (found,)
            for name, value in zip(node.outputs, found, strict=False):
                values[name] = value if isinstance(value, torch.Tensor) and value.ndim == 0 else value.to(z.device)
            for name in set(taken):
                if self._last[name] == i and name != self._returned:
                    del values[name]  # nothing needs it any more
        return values[self._returned]


def needed(model: OnnxModel) -> list[Node]:
    """The nodes that the output depends on; CheckpointError for unknown ones, or where inputs are missing."""
    wanted, kept = {model.outputs[0]}, list[Node]()
    for node in reversed(model.nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    known = set(model.tensors) | set(model.inputs) | {""}
    for node in reversed(kept):
        if node.kind in RANDOM:
            raise CheckpointError(
                f"closest to {FAMILY}, but {node.name} ({node.kind}) draws numbers in each pass, so that a seed would "
                "not decide its image; export it with fixed noise"
            )
        if node.kind not in OPERATIONS:
            raise CheckpointError(
                f"closest to {FAMILY}, but " + close_match("operation", node.kind[:80], list(OPERATIONS), "ganlens")
            )
        if missing := [name for name in node.inputs if name not in known]:
            raise CheckpointError(
                f"closest to {FAMILY}, but {node.name} takes {short(missing[0])}, which nothing gives"
            )
        known |= set(node.outputs)
    if model.outputs[0] not in known:
        raise CheckpointError(f"closest to {FAMILY}, but nothing gives its output {short(model.outputs[0])}")
    return kept[::-1]


def likeness(state: State) -> float:
    """Whether it was read from an ONNX file."""
    return float(isinstance(state.tree, OnnxModel))


def build(state: State, name: str) -> Generator:
    """The generator of a graph; with two inputs, one of them is taken for the class.

    Raises
    ------
    CheckpointError
        An operation is not known, or its inputs are others than latents and classes.
    """
    model: OnnxModel = state.tree
    latent, label = roles(model)
    sizes = model.inputs[latent][0]
    shape = tuple(n or 0 for n in sizes[1:])
    if not shape or not all(0 < n <= MOST_LENGTH for n in shape):
        raise CheckpointError(f"closest to {FAMILY}, but its latent has the shape {short(str(sizes))}")
    if sizes[0] not in (None, 0):
        raise CheckpointError(
            f"closest to {FAMILY}, but it was exported for {sizes[0]} images at once; export it with a free number: "
            "torch.onnx.export(…, dynamic_axes={'z': {0: 'n'}, 'image': {0: 'n'}}), or dynamic_shapes"
        )
    net = OnnxGenerator(model, latent, shape, label, None if label is None else classes_of(model, label))
    try:
        net, inputs = net.requires_grad_(False).eval(), both if net._classes else None
        output = state.asked.get("output")
        return Generator.wrap(net, math.prod(shape), name, classes=net._classes, inputs=inputs, output=output)
    except ValueError as error:
        raise CheckpointError(f"closest to {FAMILY}, but {error}") from error


def roles(model: OnnxModel) -> tuple[str, str | None]:
    """The inputs for latents and for classes."""
    names = list(model.inputs)
    if len(names) == 1:
        return names[0], None
    if len(names) != 2:
        raise CheckpointError(
            f"closest to {FAMILY}, but it has {len(names)} inputs; latents, or latents and classes are known"
        )
    whole = [name for name in names if model.inputs[name][1]]
    named = [name for name in names if LABEL.search(name)]
    if not whole and not named:
        warn_of_roles(names[1])
    label = (whole or named or names[1:])[0]
    return next(name for name in names if name != label), label


def classes_of(model: OnnxModel, label: str) -> int:
    """How many classes an input takes: the rows of the table that they choose from, or the length of their weights."""
    sizes, whole = model.inputs[label]
    found = [model.tensors[node.inputs[0]] for node in model.nodes
             if node.kind == "Gather" and label in node.inputs[1:] and node.inputs[0] in model.tensors]  # fmt: skip
    count = len(found[0]) if found and found[0].ndim else (sizes[-1] if not whole and sizes else None)
    if not count or count > MOST_LENGTH:
        raise CheckpointError(f"closest to {FAMILY}, but how many classes {short(label)} takes is not in the file")
    return count
