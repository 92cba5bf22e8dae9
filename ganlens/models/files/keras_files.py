"""Files of Keras (``.h5`` of Keras 2 and 3, ``.keras``) read as data: the configuration, and the weights of each layer.

They are read by h5py, an extra (``pip install "ganlens[keras]"``). Nothing in them is executed: layers that hold code
(``Lambda``) are names here, and refused where a network is built. Links to other files and compressed arrays that are
larger than their file are refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ganlens.models.files.pickles import CheckpointError

MOST_CONFIG = 2**24  # bytes of a configuration
MOST_ARRAYS = 10_000
MOST_PARTS = 1000  # of a list of names
HDF5 = b"\x89HDF\r\n\x1a\n"
Weights = dict[tuple[str, ...], list[torch.Tensor]]


@dataclass(eq=False)
class KerasModel:
    """A model of Keras.

    Attributes
    ----------
    config : mapping
        Class and settings of the model, and within it of each layer, as its ``to_json`` has them.
    weights : mapping
        Arrays of each layer, by its name behind those of the models that it is in.
    """

    config: Mapping[str, Any]
    weights: Weights


def read_keras(data: bytes) -> KerasModel:
    """A file of Keras; CheckpointError if it is damaged, holds weights alone, or claims more than it holds."""
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError('it is a file of Keras; reading it needs h5py: pip install "ganlens[keras]"') from error
    budget = Budget(4 * len(data) + 2**20)
    try:
        if data[:2] == b"PK":
            return read_archive(data, budget, h5py)
        with h5py.File(io.BytesIO(data), "r") as file:
            return KerasModel(config_of(file.attrs.get("model_config")), legacy_weights(file, budget, h5py))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"it is a damaged file of Keras ({str(error)[:200]})") from error


def read_archive(data: bytes, budget: "Budget", h5py) -> KerasModel:
    """A ``.keras`` file: a zip of a configuration and a file of weights."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for name in ("config.json", "model.weights.h5"):
            if name not in members:
                raise CheckpointError(f"it is a damaged file of Keras: {name} is missing")
        budget.spend(sum(members[name].file_size for name in ("config.json", "model.weights.h5")) // 4)
        config = config_of(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(weights), "r") as file:
        return KerasModel(config, dict(nested_weights(file, config, (), budget, h5py)))


@dataclass
class Budget:
    """Bytes and arrays that a file may still claim."""

    bytes: int
    arrays: int = MOST_ARRAYS

    def spend(self, size: int) -> None:
        self.bytes -= size
        self.arrays -= 1
        if self.bytes < 0 or self.arrays < 0:
            raise CheckpointError("it claims far more than it holds")


def config_of(text) -> Mapping[str, Any]:
    """The configuration of a model; CheckpointError where there is none."""
    if text is None:
        raise CheckpointError(
            "it holds weights of Keras without the model's configuration; save the whole model: model.save('it.keras')"
        )
    if not isinstance(text, str | bytes) or len(text) > MOST_CONFIG:
        raise CheckpointError("it is a damaged file of Keras: its configuration is no text")
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise CheckpointError("it is a damaged file of Keras: its configuration is nested without end") from error
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict | list):
        raise CheckpointError("it is a damaged file of Keras: its configuration describes no model")
    return found


def array(group, name: str, budget: Budget, h5py) -> torch.Tensor:
    """An array of numbers; CheckpointError for links out of the file, and for what is no array."""
    found = member(group, name, h5py)
    plain = isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external
    if not plain or found.dtype.kind not in "fiu" or len(found.shape) > 6:
        raise CheckpointError(f"it is a damaged file of Keras: {name[:80]} is no array of numbers")
    budget.spend(found.size * found.dtype.itemsize)
    return torch.from_numpy(found[()].astype("float32").reshape(found.shape))


def member(group, path: str, h5py):
    """What is in a group under a path, link by link; CheckpointError where one leads elsewhere."""
    for name in path.split("/"):
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise CheckpointError(f"it is a damaged file of Keras: {path[:80]} is missing, or a link to elsewhere")
        group = group[name]
    return group


def texts(attributes, key: str, budget: Budget) -> list[str]:
    """A list of names; long ones are stored in parts, with a number behind the key."""
    found: list[str] = []
    for name in [key, *(f"{key}{i}" for i in range(MOST_PARTS))]:
        if name in attributes:
            values = attributes[name]
            budget.spend(sum(len(value) for value in values))
            found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        elif name != key:
            break
    return found


def legacy_weights(file, budget: Budget, h5py) -> Weights:
    """The weights of an ``.h5`` file, in which each layer lists its own; those inside models carry their names."""
    root = member(file, "model_weights", h5py) if "model_weights" in file else file
    found: Weights = {}
    for layer in texts(root.attrs, "layer_names", budget):
        group = member(root, layer, h5py)
        for name in texts(group.attrs, "weight_names", budget):
            parts = name.split("/")
            inner = (parts[-2],) if len(parts) > 1 and parts[-2] != layer else ()
            found.setdefault((layer, *inner), []).append(array(group, name, budget, h5py))
    return found


def nested_weights(group, config, path: tuple[str, ...], budget: Budget, h5py) -> Iterator:
    """The weights of a ``.keras`` file, in which layers are numbered by their classes."""
    if len(path) > 8:
        raise CheckpointError("it is a damaged file of Keras: its models are nested without end")
    folder = next((name for name in ("layers", "_layer_checkpoint_dependencies") if name in group), None)
    if folder is None:
        return
    layers, counts = member(group, folder, h5py), dict[str, int]()
    named = {name: key for key in layers if (name := stored_name(layers, key, h5py)) is not None}
    for layer in layers_of(config):
        kind, name = snake(str(layer.get("class_name"))), name_of(layer)
        number = counts[kind] = counts.get(kind, -1) + 1
        by_kind = f"{kind}_{number}" if number else kind
        key = named.get(name, by_kind)
        if key not in layers:
            continue
        inside = member(layers, key, h5py)
        if "vars" in inside:
            variables = member(inside, "vars", h5py)
            numbers = sorted(int(n) for n in variables if re.fullmatch(r"\d{1,4}", n))
            yield (*path, name), [array(variables, str(n), budget, h5py) for n in numbers]
        yield from nested_weights(inside, layer, (*path, name), budget, h5py)


def stored_name(layers, key: str, h5py) -> str | None:
    """The name of the layer that a group says it is of."""
    inside = member(layers, key, h5py)
    variables = member(inside, "vars", h5py) if "vars" in inside else None
    name = None if variables is None else variables.attrs.get("name")
    return name.decode() if isinstance(name, bytes) else name


def layers_of(config) -> list[dict]:
    """The layers that a model's configuration lists; none for other layers."""
    inner = config.get("config") if isinstance(config, dict) else None
    found = inner.get("layers", []) if isinstance(inner, dict) else inner
    return [layer for layer in found if isinstance(layer, dict)] if isinstance(found, list) else []


def name_of(layer: Mapping[str, Any]) -> str:
    inner = layer.get("config")
    return str(layer.get("name") or (inner.get("name") if isinstance(inner, dict) else None))


def snake(name: str) -> str:
    """The name of a class as Keras numbers its layers: Conv2DTranspose is conv2d_transpose."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
