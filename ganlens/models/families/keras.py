"""Generators of Keras: sequences, graphs and models within models, built in PyTorch from their configuration.

Layers go by their names, behind those of the models that they are in. What there is (N, H, W, C) is (N, C, H, W) here.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.arguments import close_match
from ganlens.models.base import Generator
from ganlens.models.families.keras_layers import LAYERS, Layer, Table, first
from ganlens.models.files.keras_files import KerasModel, Weights, layers_of, name_of
from ganlens.models.files.pickles import CheckpointError
from ganlens.models.files.records import short
from ganlens.models.files.states import State

FAMILY = "Keras"
FORMAT = "a generator of Keras (.h5 or .keras, the whole model)"
ENDS_AS_ASKED = True

MODELS = ("Sequential", "Functional", "Model")
MOST_STEPS, MOST_CALLS, MOST_DEPTH, MOST_LENGTH = 2000, 20_000, 8, 2**20
LABEL = re.compile(r"label|class|cond|categor|digit", re.I)


class Step(NamedTuple):
    """One call of a layer: which, for the how-manieth time, and the steps whose results it takes."""

    layer: str
    number: int
    inputs: tuple[tuple[str, int], ...]


class Graph(nn.Module):
    """Layers by name, called in the order in which their inputs are there.

    Parameters
    ----------
    layers : mapping of str to Module
    steps : sequence of Step
        In an order in which they can run.
    inputs, outputs : sequence of (str, int)
        The steps whose results are given, and that whose result is returned.
    """

    def __init__(self, layers: Mapping[str, nn.Module], steps: Sequence[Step], inputs, outputs):
        super().__init__()
        self._steps, self._given, self._returned = list(steps), list(inputs), outputs
        self._names = {name: module_name(name) for name in layers}
        if len(set(self._names.values())) < len(layers):
            raise CheckpointError(f"closest to {FAMILY}, but two of its layers differ by dots in their names alone")
        for name, module in layers.items():
            self.add_module(self._names[name], module)
        counts: dict[str, int] = {name: getattr(module, "_calls", 1) for name, module in layers.items()}
        self._calls = sum(counts[step.layer] for step in steps)
        if self._calls > MOST_CALLS:
            raise CheckpointError(f"closest to {FAMILY}, but one image takes {self._calls} calls of its layers")
        self._last = {key: i for i, step in enumerate(steps) for key in step.inputs}

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        known = dict(zip(self._given, given, strict=True))
        for i, step in enumerate(self._steps):
            found = self.get_submodule(self._names[step.layer])(*(known[name] for name in step.inputs))
            known[step.layer, step.number] = found
            for key in set(step.inputs):
                if self._last[key] == i and key != self._returned:
                    del known[key]  # nothing needs it any more
        return known[self._returned]


def module_name(name: str) -> str:
    """The name of a layer as one of a module, which has no dots and is no word of modules themselves."""
    plain = name.replace(".", "_")
    return f"{plain}_" if hasattr(nn.Module, plain) or plain.startswith("_") else plain


class KerasGenerator(Graph):
    """Latents (N, Z), and classes (N,) or weights (N, classes), to images (N, C, Y, X).

    Parameters
    ----------
    model : Graph
    latent : tuple of int
        Shape of a latent, channels last.
    classes : int or None
    hot : bool
        Whether classes are given as weights, or as whole numbers.
    label_shape : tuple of int
        Shape of the label of one image.
    label_first : bool
        Whether labels come before latents.
    """

    def __init__(self, model: Graph, latent, classes: int | None, hot: bool, label_shape, label_first: bool):
        layers = {name: model.get_submodule(own) for name, own in model._names.items()}
        super().__init__(layers, model._steps, model._given, model._returned)
        self._latent, self._classes, self._hot = latent, classes, hot
        self._label_shape, self._label_first = label_shape, label_first

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        given = [first(z.reshape(len(z), *self._latent))]
        if labels is not None and self._classes:
            if self._hot or labels.ndim == 2:  # weights
                weights = (labels if labels.ndim == 2 else F.one_hot(labels, self._classes)).to(z)
                labels = first(weights.reshape(len(z), *self._label_shape)) if self._hot else weights[:, None]
            else:
                labels = first(labels.reshape(len(z), *self._label_shape))
            given.insert(0 if self._label_first else 1, labels)
        return super().forward(*given)


def likeness(state: State) -> float:
    """Whether it was read from a file of Keras."""
    return float(isinstance(state.tree, KerasModel))


def build(state: State, name: str) -> Generator:
    """The generator of a model; with two inputs, one of them is taken for the class.

    Raises
    ------
    CheckpointError
        A layer is not known, or arrays are missing or left over.
    """
    weights = {key: list(arrays) for key, arrays in state.tree.weights.items()}
    model = model_of(state.tree.config, weights, ())
    left = [".".join(key) for key, arrays in weights.items() if arrays]
    if left:
        raise CheckpointError(
            f"closest to {FAMILY}, but it has arrays for {', '.join(left[:6])}, which it does not need"
        )
    shapes = [
        shape_of(config, key[0]) for key, config in zip(model._given, inputs_of(state.tree.config, model), strict=True)
    ]
    latent, classes, hot, label, label_first = roles(model, shapes)
    z_dim = 1
    for n in shapes[latent]:
        z_dim *= n
    if not 1 <= z_dim <= MOST_LENGTH:
        raise CheckpointError(f"closest to {FAMILY}, but its latent has the shape {short(tuple(shapes[latent]))}")
    net = KerasGenerator(model, shapes[latent], classes, hot, label, label_first).requires_grad_(False).eval()
    try:
        inputs = both if classes else None
        return Generator.wrap(net, z_dim, name, classes=classes, inputs=inputs, output=state.asked.get("output"))
    except ValueError as error:
        raise CheckpointError(f"closest to {FAMILY}, but {error}") from error


def model_of(config: Mapping[str, Any], weights: Weights, path: tuple[str, ...]) -> Graph:
    """The graph of a model's configuration; ``weights`` loses what it takes."""
    kind = config.get("class_name")
    if kind not in MODELS or len(path) > MOST_DEPTH:
        raise CheckpointError(f"closest to {FAMILY}, but it is a {short(kind)}; known are {', '.join(MODELS)}")
    layers: dict[str, nn.Module] = {}
    listed = layers_of(config)
    for layer in listed:
        name = name_of(layer)
        if name in layers:
            raise CheckpointError(f"closest to {FAMILY}, but it has two layers named {short(name)}")
        if layer.get("class_name") in MODELS:
            layers[name] = model_of(layer, weights, (*path, name))
        elif layer.get("class_name") != "InputLayer":
            layers[name] = layer_of(layer, name, taken(weights, (*path, name)))
    steps = chained(listed) if kind == "Sequential" else list(calls(listed))
    return wired(config, layers, steps, listed)


def taken(weights: Weights, path: tuple[str, ...]) -> list[torch.Tensor]:
    """The arrays of a layer; in models within models ``.h5`` files keep the first and the last of the names."""
    return weights.pop(path if path in weights else (path[0], path[-1]), [])


def layer_of(layer: Mapping[str, Any], name: str, arrays: Sequence[torch.Tensor]) -> Layer:
    kind = str(layer.get("class_name"))
    if kind not in LAYERS:
        raise CheckpointError(
            f"closest to {FAMILY}, but {close_match('kind of layer', kind[:80], list(LAYERS), 'ganlens')}"
        )
    settings = layer.get("config")
    settings = settings if isinstance(settings, dict) else {}
    return LAYERS[kind](name, settings | {"_class": kind}, arrays)


def chained(layers: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The calls of a sequence, one behind the other."""
    names = [name_of(layer) for layer in layers if layer.get("class_name") != "InputLayer"]
    given = next((name_of(layer) for layer in layers if layer.get("class_name") == "InputLayer"), "input")
    return [Step(name, 0, ((before, 0),)) for before, name in zip([given, *names], names, strict=False)]


def calls(layers: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    """The calls that the layers of a graph list, in either form: of Keras 2 and of Keras 3."""
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        for number, node in enumerate(nodes if isinstance(nodes, list) else []):
            if isinstance(node, dict) and isinstance(kept := node.get("kwargs"), dict) and kept.get("training"):
                raise CheckpointError(f"closest to {FAMILY}, but {short(name_of(layer))} is called as in training")
            if layer.get("class_name") != "InputLayer":
                yield Step(name_of(layer), number, tuple(histories(node)))


def histories(node) -> Iterator[tuple[str, int]]:
    """The steps that a call takes its inputs from."""
    if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
        node = node.get("config", {}).get("keras_history")
    if isinstance(node, dict):
        yield from histories(node.get("args", []))
        return
    if not isinstance(node, list | tuple):
        return
    if len(node) in (3, 4) and isinstance(node[0], str) and type(node[1]) is int:
        yield node[0], node[1]
        return
    for inner in node:
        yield from histories(inner)


def wired(config: Mapping[str, Any], layers: dict[str, nn.Module], steps: list[Step], listed) -> Graph:
    """The graph in an order in which it can run; CheckpointError where inputs never come."""
    inner = config["config"] if isinstance(config["config"], dict) else {}
    if config.get("class_name") == "Sequential":
        given, returned = [steps[0].inputs[0]] if steps else [], (steps[-1].layer, 0) if steps else ("", 0)
    else:
        given, outputs = list(histories(inner.get("input_layers"))), list(histories(inner.get("output_layers")))
        returned = outputs[0] if outputs else ("", 0)
        if returned not in {*given, *((step.layer, step.number) for step in steps)}:
            returned = returned[0], returned[1] - 1  # Keras 3 counts the making of a graph as its first call there
        if len(outputs) > 1:
            warnings.warn(f"the model has {len(outputs)} outputs; the first, of {returned[0]}, is taken", stacklevel=7)
    if len(steps) > MOST_STEPS:
        raise CheckpointError(f"closest to {FAMILY}, but it has {len(steps)} steps; known are {MOST_STEPS}")
    known, order, waiting = set(given), list[Step](), list(steps)
    while waiting and len(order) < MOST_STEPS:
        ready = [step for step in waiting if set(step.inputs) <= known and step.inputs and step.layer in layers]
        if not ready:
            break
        known |= {(step.layer, step.number) for step in ready}
        order += ready
        waiting = [step for step in waiting if step not in ready]
    if returned not in known or not given:
        raise CheckpointError(f"closest to {FAMILY}, but what gives its output, {short(returned[0])}, cannot run")
    return Graph(layers, needed(order, returned), given, returned)


def needed(steps: Sequence[Step], returned: tuple[str, int]) -> list[Step]:
    """The steps that the output depends on."""
    wanted, kept = {returned}, list[Step]()
    for step in reversed(steps):
        if (step.layer, step.number) in wanted:
            wanted |= set(step.inputs)
            kept.append(step)
    return kept[::-1]


def inputs_of(config: Mapping[str, Any], model: Graph) -> list[Mapping[str, Any]]:
    """The configurations that say the shapes of the inputs."""
    listed = {name_of(layer): layer for layer in layers_of(config)}
    found = [listed.get(name) for name, _ in model._given]
    return [layer if layer is not None else next(iter(listed.values()), {}) for layer in found]


def shape_of(layer: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Shape of one input, without the axis of images."""
    found = layer.get("config")
    inner = found if isinstance(found, dict) else {}
    shape = next((inner[key] for key in ("batch_shape", "batch_input_shape") if inner.get(key)), None)
    build = layer.get("build_config")
    shape = shape or (build.get("input_shape") if isinstance(build, dict) else None)
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    if layer.get("class_name") in MODELS:
        return shape_of(next(iter(layers_of(layer)), {}), name)
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape[1:]):
        raise CheckpointError(f"closest to {FAMILY}, but the shape of its input {short(name)} is {short(str(shape))}")
    return tuple(shape[1:])


def roles(model: Graph, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int | None, bool, tuple[int, ...], bool]:
    """Which input is the latent; how many classes there are; whether they are weights; their shape; whether first."""
    if len(shapes) == 1:
        return 0, None, False, (), False
    if len(shapes) != 2:
        raise CheckpointError(
            f"closest to {FAMILY}, but it has {len(shapes)} inputs; latents, or latents and classes are known"
        )
    tables = {step.inputs[0]: model.get_submodule(model._names[step.layer]) for step in model._steps if step.inputs}
    embedded = [i for i, key in enumerate(model._given) if isinstance(tables.get(key), Table)]
    named = [i for i, (name, _) in enumerate(model._given) if LABEL.search(name)]
    label = (embedded or named or [1])[0]
    if not embedded and not named:
        warn_of_roles(model._given[1][0])
    table = tables.get(model._given[label])
    classes = len(table.embeddings) if isinstance(table, Table) else shapes[label][-1]
    if classes < 2:
        raise CheckpointError(f"closest to {FAMILY}, but how many classes {model._given[label][0]} takes is not known")
    return 1 - label, classes, not isinstance(table, Table), shapes[label], label == 0


def both(z: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network is called with that takes labels (N,) and weights (N, classes)."""
    return z, labels


def warn_of_roles(second: str) -> None:
    """Say that nothing tells which of two inputs is the class."""
    warnings.warn(
        f"which of its two inputs is the class is not in the file; the second, {second!r}, is taken. If it is "
        "otherwise, build the network yourself: Generator.wrap(net, z_dim=…, inputs=…)",
        stacklevel=8,
    )
