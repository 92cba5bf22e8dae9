"""Edits as values: what units of a layer are forced to, where and how far."""

import json
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
import torch

from ganlens.arguments import as_list, short_repr


@dataclass(frozen=True)
class Edit:
    """Force units of a layer to a level: r' = (1 - a) r + a k with a = strength x region (Bau et al., 2019, eq. 4).

    Edits are values: they can be compared, stored, sent and combined in a list. Make them with `ablate` and `insert`.

    Attributes
    ----------
    layer : str
        Dotted module name.
    units : tuple of int
        Units (channels) that are forced.
    level : float, tuple of float, tuple of maps, or str
        The level k: one number, one per unit, ``"mean"``, a quantile of the unit such as ``"q0.995"``, or one map
        (H, W) per unit, (K, H, W) in all: what units do in one place can be forced upon another.
    region : tuple of tuples of float, or None
        Weight in [0, 1] of each cell, (H, W), row by row; None is everywhere.
    strength : float
        Between 0 (nothing happens) and 1 (fully forced).
    """

    layer: str
    units: tuple[int, ...]
    level: float | tuple[float, ...] | tuple[tuple[tuple[float, ...], ...], ...] | str = 0.0
    _: KW_ONLY
    region: tuple[tuple[float, ...], ...] | None = None
    strength: float = 1.0

    def __post_init__(self):
        set_ = object.__setattr__
        if not isinstance(self.layer, str):
            raise ValueError(f"layer {self.layer!r}: expected a name, for example 'layer4'")
        set_(self, "units", as_units(self.units))
        set_(self, "region", as_region(self.region))
        set_(self, "level", as_level(self.level, len(self.units), self.region))
        strength = as_array("strength", self.strength)
        if strength.shape or not 0 <= strength <= 1:
            raise ValueError(f"strength {short_repr(self.strength)} is outside [0, 1]")
        set_(self, "strength", float(strength))

    def apply(self, features: torch.Tensor, level: torch.Tensor | float | None = None) -> torch.Tensor:
        """Edited copy of features (N, U, H, W); the given features stay as they are, gradients pass through.

        ``level`` holds the numbers (K,) behind a named level.
        """
        if isinstance(self.level, str) and level is None:
            raise ValueError(f"level {self.level!r} has no numbers here; let a Generator apply the edit")
        k = torch.as_tensor(self.level if level is None else level, dtype=features.dtype, device=features.device)
        a: torch.Tensor | float = self.strength
        if self.region is not None:
            a = a * torch.tensor(self.region, dtype=features.dtype, device=features.device)
        index = torch.tensor(self.units, device=features.device)
        forced = (1 - a) * features[:, index] + a * (k if k.ndim == 3 else k.reshape(-1, 1, 1))
        return features.index_copy(1, index, forced.to(features.dtype))

    def replace(self, **changes) -> "Edit":
        """The same edit with some fields changed, for instance ``edit.replace(region=mask)``."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """One line of JSON; `from_json` is the way back."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Edit":
        """Read an edit written by `to_json`; ValueError if it is none."""
        try:
            fields = json.loads(text)
            return cls(**fields)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not an edit: {error}; expected the JSON of Edit.to_json()") from error

    def __repr__(self) -> str:
        units = ", ".join(map(str, self.units[:8])) + (f", … ({len(self.units)})" if len(self.units) > 8 else "")
        where = "everywhere" if self.region is None else f"in {np.count_nonzero(self.region)} cells"
        strength = "" if self.strength == 1 else f", strength {self.strength:g}"
        level = "their own levels" if isinstance(self.level, tuple) else self.level
        level = "maps of their own" if np.ndim(self.level) == 3 else level
        return f"<Edit {self.layer}: units {units} to {level} {where}{strength}>"


def ablate(layer: str, units: Sequence[int], region=None, *, to: str = "zero", strength: float = 1.0) -> Edit:
    """Switch units off.

    Parameters
    ----------
    layer : str
        Dotted module name.
    units : sequence of int
        Which units.
    region : array-like (H, W), optional
        Weight in [0, 1] of each cell; everywhere by default.
    to : {"zero", "mean"}
        Zero as published; the unit's mean where zero would tint the picture.

    Examples
    --------
    >>> ablate("layer4", [3, 5])
    <Edit layer4: units 3, 5 to 0.0 everywhere>
    """
    if to not in ("zero", "mean"):
        raise ValueError(f"to={to!r}: units are ablated to 'zero' or to their 'mean'; other levels: ganlens.insert")
    return Edit(layer, as_units(units), 0.0 if to == "zero" else "mean", region=region, strength=strength)


def insert(layer: str, units: Sequence[int], level="q0.995", *, region=None, strength: float = 1.0) -> Edit:
    """Switch units on.

    Parameters
    ----------
    layer : str
        Dotted module name.
    units : sequence of int
        Which units.
    level : float, array-like (K,) or (K, H, W), or str
        One level, one or one map per unit, ``"mean"`` or a quantile of each unit over the cells of images 0 … 255. Bau
        et al. (PNAS 2020) take the quantile 0.995 over upsampled pixels. Over cells it does not depend on the size of
        the image; in the embedded generator it is 1.05 to 1.14 times as high on average (20 units each of tree, dome
        and cloud in layer4 and layer6), and gains 0.00 to 0.02 more pixels per edited pixel.
    region : array-like (H, W), optional
        Weight in [0, 1] of each cell; everywhere by default.

    Examples
    --------
    >>> import numpy as np
    >>> insert("layer4", [3], level=2.0, region=np.eye(8))
    <Edit layer4: units 3 to 2.0 in 8 cells>
    """
    return Edit(layer, as_units(units), level, region=region, strength=strength)


def as_units(units) -> tuple[int, ...]:
    try:
        array = np.atleast_1d(np.asarray(units))
    except (TypeError, RuntimeError):  # tensors of numbers that numpy does not know, or with gradients
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"units {units!r}: expected whole numbers, at least one, for example [3, 17]")
    if array.min() < 0:
        raise ValueError(f"unit {array.min()} is negative; units are numbered from 0")
    if len(set(array.tolist())) < array.size:
        raise ValueError(f"units {units!r}: a unit is listed twice")
    return tuple(array.tolist())


def as_edits(edits: Sequence[Edit] | Edit) -> tuple[Edit, ...]:
    """One edit or several as a tuple; ValueError for anything else."""
    if isinstance(edits, Edit):
        return (edits,)
    found = as_list("edits", edits, "those of ganlens.ablate and insert, for example [ablate('layer4', [3])]")
    for edit in found:
        if not isinstance(edit, Edit):
            raise ValueError(f"{type(edit).__name__} among the edits; expected those of ganlens.ablate and insert")
    return tuple(found)


def as_level(level, count: int, region=None) -> float | tuple | str:
    if isinstance(level, str):
        quantile_of(level)
        return level
    array = as_array("level", level)
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > np.finfo(np.float32).max:
        raise ValueError("a level is not finite")
    if not (array.shape in ((), (count,)) or (array.ndim == 3 and len(array) == count and array.size)):
        raise ValueError(
            f"level of shape {array.shape} for {count} units: expected one number, one per unit ({count},), "
            f"or one map per unit ({count}, H, W)"
        )
    if region is not None and array.ndim == 3 and array.shape[1:] != np.shape(region):
        raise ValueError(f"level maps of {array.shape[1:]} cells in a region of {np.shape(region)}: expected the same")
    return as_tuples(array.tolist())


def as_array(name: str, values) -> np.ndarray:
    """Real numbers as an array of floats; ValueError for anything else."""
    try:
        if isinstance(values, torch.Tensor) and not values.is_complex():
            values = values.detach().cpu().double()
        array = np.asarray(values)
        if array.dtype.kind in "biufO":  # what is too large for whole numbers of 64 bits is an object
            return array.astype(float)
    except (TypeError, OverflowError, RuntimeError):
        pass
    raise ValueError(f"{name} {short_repr(values)}: expected real numbers")


def as_tuples(values):
    return tuple(map(as_tuples, values)) if isinstance(values, list) else values


def quantile_of(level: str) -> float | None:
    """The quantile that a level's name stands for, None for the mean; ValueError for other names."""
    if level == "mean":
        return None
    if re.fullmatch(r"q(0?\.\d+|0|1)", level):
        return float(level[1:])
    raise ValueError(f"level {level!r}: expected a number, 'mean', or a quantile such as 'q0.995'")


def as_region(region) -> tuple[tuple[float, ...], ...] | None:
    if region is None:
        return None
    array = as_array("region", region)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"region of shape {array.shape}: expected (H, W), one weight for each cell of the layer")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            "region has weights outside [0, 1]; expected 0 where nothing happens, 1 where units are forced"
        )
    return as_tuples(array.tolist())
