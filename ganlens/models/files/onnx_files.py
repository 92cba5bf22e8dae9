"""ONNX files read as data: the nodes of the graph, and the tensors that are in the file.

The container is parsed by the ``onnx`` package, an extra (``pip install "ganlens[onnx]"``); nothing is run. Tensors
that lie outside of the file are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ganlens.models.files.pickles import CheckpointError

MOST_NODES = 20_000


@dataclass(eq=False, frozen=True)
class Node:
    """One operation: its kind, its name, the names of what it takes and gives, and its settings."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(eq=False, frozen=True)
class OnnxModel:
    """The graph of an ONNX file.

    Attributes
    ----------
    nodes : sequence of Node
    tensors : mapping of str to Tensor
        What the file holds, by name.
    inputs : mapping of str to (tuple, bool)
        Sizes of each input, None where they are free, and whether it takes whole numbers.
    outputs : sequence of str
    opset : int
        Version of the operations.
    """

    nodes: Sequence[Node]
    tensors: Mapping[str, torch.Tensor]
    inputs: Mapping[str, tuple[tuple[int | None, ...], bool]]
    outputs: Sequence[str]
    opset: int


def read_onnx(data: bytes) -> OnnxModel:
    """An ONNX file; CheckpointError if it is damaged, or refers to other files."""
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError('it is an ONNX file; reading it needs onnx: pip install "ganlens[onnx]"') from error
    try:
        model = onnx.load_model_from_string(data)
        return taken(model, onnx)
    except CheckpointError:
        raise
    except Exception as error:  # whatever the parser says to a damaged file
        raise CheckpointError(f"it is a damaged ONNX file ({str(error)[:200]})") from error


def taken(model, onnx) -> OnnxModel:
    """The graph as plain data."""
    graph = model.graph
    every = [*(x.name for x in (*graph.initializer, *graph.input, *graph.output, *graph.node)), ""]
    for node in graph.node:
        every += [node.op_type, node.domain, *node.input, *node.output]
    if not all(isinstance(name, str) for name in every):
        raise CheckpointError("it is a damaged ONNX file: a name is no text")
    if not graph.node or len(graph.node) > MOST_NODES:
        raise CheckpointError(f"it is a damaged ONNX file: its graph has {len(graph.node)} nodes")
    tensors = {item.name: tensor(item, onnx) for item in graph.initializer}
    whole = {onnx.TensorProto.INT64, onnx.TensorProto.INT32}
    inputs = {
        item.name: (
            tuple(d.dim_value if d.HasField("dim_value") else None for d in item.type.tensor_type.shape.dim),
            item.type.tensor_type.elem_type in whole,
        )
        for item in graph.input
        if item.name not in tensors
    }
    nodes, used = [], set[str]()
    for i, node in enumerate(graph.node):
        settings = {a.name: setting(a, onnx) for a in node.attribute}
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        name = (node.name or f"{kind}_{i}").replace(".", "_")
        name = f"{name}_{i}" if name in used else name
        used.add(name)
        nodes.append(Node(kind, name, tuple(node.input), tuple(node.output), settings))
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
    return OnnxModel(nodes, tensors, inputs, [item.name for item in graph.output], opset)


def setting(attribute, onnx):
    """A setting of a node as plain data; graphs within graphs are named only."""
    if attribute.type == onnx.AttributeProto.TENSOR:
        return tensor(attribute.t, onnx)
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        return None
    value = onnx.helper.get_attribute_value(attribute)
    return (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else list(value)
        if hasattr(value, "__len__")
        else value
    )


def tensor(item, onnx) -> torch.Tensor:
    if item.data_location == onnx.TensorProto.EXTERNAL or item.external_data:
        raise CheckpointError("it is an ONNX file whose tensors lie in another file; export it with all in one file")
    found = torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
    return found.float() if found.is_floating_point() else found
