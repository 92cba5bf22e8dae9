"""Whether the state in a checkpoint is one that a pass can have left: looked at before anything of it is counted."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ganlens.statistics import Scale

if TYPE_CHECKING:
    from ganlens.dissection.passes import Pass

SIGNED = (
    "waiting.planes",
    ".top",
    ".total",
    ".sums",
    ".dots",
)  # from -1, or sums of activations
MOST_BINS = 2**16
LARGEST = 2**14  # pixels on a side of a label plane


def check_state(pass_: "Pass", state: dict[str, np.ndarray]) -> None:
    """ValueError if names, types, shapes or ranges are not those of this pass's own state."""
    done = state["done"]
    seeds = pass_.question.seeds
    if done.dtype != np.int64 or done.ndim != 2 or done.shape[1] != 2:
        raise ValueError(f"what was done is {done.dtype} {done.shape}")
    ends = done.ravel()
    if (np.diff(ends) < 0).any() or (done[:, 0] >= done[:, 1]).any() or outside(ends, seeds):
        raise ValueError(f"images {done.tolist()} of {seeds.start} … {seeds.stop - 1} are said to be done")
    template = template_of(pass_, state, int((done[:, 1] - done[:, 0]).sum()))
    if template.keys() != state.keys():
        odd = sorted(template.keys() ^ state.keys())
        raise ValueError(f"it lacks, or has too many: {', '.join(odd[:5])}")
    for name, (dtype, shape) in template.items():
        array = state[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
        if array.dtype.kind in "iu" and not name.endswith(SIGNED) and (array < 0).any():
            raise ValueError(f"{name} has negative counts")
        if array.dtype.kind == "f" and np.isnan(array).any() and not name.startswith("waiting."):
            raise ValueError(f"{name} has values that are no numbers")
    planes = state.get("waiting.planes")
    if planes is not None and (planes.min() < -2 or planes.max() >= pass_.columns.count):
        raise ValueError("its labels are none of the vocabulary")


def outside(ends: np.ndarray, seeds: range) -> bool:
    return bool(len(ends)) and not (seeds.start <= ends[0] and ends[-1] <= seeds.stop)


def template_of(pass_: "Pass", state: dict[str, np.ndarray], images: int) -> dict[str, tuple[np.dtype, tuple]]:
    """Type and shape of every array that the pass's state has after so many images."""
    names: dict[str, np.ndarray] = {"done": state["done"], "half": np.array(False)}
    names |= {f"areas.{odd}.{name}": a for odd in range(2) for name, a in pass_.areas[odd].state().items()}
    layers = pass_.question.layers
    if "0.size" in state:
        for i, layer in enumerate(layers):
            names |= layer_template(pass_, state, i, pass_.generator.check_layer(layer)[0])
    found = {name: (array.dtype, array.shape) for name, array in names.items()}
    if "waiting.planes" in state:
        _, *rest = state["waiting.planes"].shape
        if len(rest) != 3 or not 0 < max(rest) <= LARGEST:
            raise ValueError(f"its labels have the shape {tuple(rest)}")
        found["waiting.planes"] = np.dtype(np.int16), (images, *rest)
        for i, layer in enumerate(layers):
            units, height, width = pass_.generator.check_layer(layer)
            found[f"waiting.{i}.features"] = np.dtype(np.float32), (images, units, height, width)
            found[f"waiting.{i}.broken"] = np.dtype(bool), (images, units)
    return found


def layer_template(pass_: "Pass", state: dict[str, np.ndarray], i: int, units: int) -> dict[str, np.ndarray]:
    """The arrays of one layer's tally, empty, on the scales that the state has."""
    size = state.get(f"{i}.size", np.zeros(0))
    if size.shape != (2,) or size.dtype.kind not in "iu" or not 0 < size.min() <= size.max() <= LARGEST:
        raise ValueError(f"the size of the label planes of layer {i}")
    kinds = {key.split(".")[1] for key in state if key.startswith(f"{i}.") and key.count(".") == 2}
    scales = {}
    for kind, at in (("levels", "levels"), ("tail", "tail"), ("full", "even")):
        if at in kinds:
            scales[kind] = checked_scale(state, f"{i}.{at}.", units)
    try:
        tally = pass_.tally(pass_.question.layers[i], scales, (int(size[0]), int(size[1])))
    except KeyError as error:
        raise ValueError(f"its layer {i} has no scale {error}") from error
    found = {f"{i}.size": np.array(tally.size)}
    for kind, statistic in tally.statistics.items():
        found |= {f"{i}.{kind}.{name}": array for name, array in statistic.state().items()}
    return found


def checked_scale(state: dict[str, np.ndarray], prefix: str, units: int) -> Scale:
    """A scale for so many units; ValueError if it is none."""
    low, slope, bins = (state.get(f"{prefix}{name}", np.zeros(0)) for name in ("low", "slope", "bins"))
    fit = all(array.shape == (units,) and array.dtype == np.float32 for array in (low, slope))
    if not fit or bins.shape or bins.dtype.kind not in "iu" or not 0 < int(bins) <= MOST_BINS:
        raise ValueError(f"its scale {prefix}… is none for {units} units")
    if not (np.isfinite(low).all() and np.isfinite(slope).all() and (slope >= 0).all()):
        raise ValueError(f"its scale {prefix}… is not finite")
    return Scale.from_state({"low": low, "slope": slope, "bins": bins}, torch.device("cpu"))
