"""Where a concept appeared, by what was there before: the result of `ganlens.context`, to be read, saved and drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ganlens.arguments import check_integer, check_kind
from ganlens.files import arrays_to_bytes, read_arrays, with_header, write_atomically
from ganlens.intervals import middle_of, ratio, resamples
from ganlens.models.editing import Edit
from ganlens.segmenters.base import Concept, as_concept
from ganlens.tables import Tabular

FORMAT = 1
ARRAYS = ("before", "gained", "change")  # what is found in images
NOTHING = Concept("nothing", "")
HEADER = ("concepts", "target", "grid", "size", "stride", "sample", "complete", "origin")
GAINED, RANDOM = ("gained", "low", "high"), ("random", "random_low", "random_high")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Context(Tabular):
    """What appears when the units of a concept are switched on in one cell, by what was there before.

    N images, L label planes, C concepts; H x W cells, of which R x Q were tried. A trial is one cell of one image. Made
    by `ganlens.context`.

    Attributes
    ----------
    edit : Edit
        What was done in each cell, as an edit of all cells: ``edit.replace(region=…)`` does it elsewhere.
    concepts, target : tuple of Concept, int
        The vocabulary, and the place of the concept in it.
    grid, size : (H, W), (h, w)
        Cells of the layer, pixels of the segmentation.
    stride : int
        Of the cells, every ``stride``-th row and column was tried.
    sample, complete : int, bool
        Which sample, and whether it was seen to its end.
    origin : dict
        Name and fingerprint of generator and segmenter.
    before : integer array (N, R, Q, L)
        The most frequent label of the cell's pixels in the unedited image, 0 for none.
    gained : integer array (N, R, Q)
        Pixels of the concept gained near the cell: in it, and in those that touch it.
    change : integer array (N, R, Q, C)
        Pixels of each concept gained in the whole image; negative where they are lost.
    random_units : tuple of tuple of int
        Sets of as many random units, which take turns: image i has set i modulo their number.
    random_gained : integer array (N, R, Q) or None
        The same as ``gained``, for the random units.
    """

    index: ClassVar[str] = "before"

    edit: Edit
    concepts: tuple[Concept, ...]
    target: int
    grid: tuple[int, int]
    size: tuple[int, int]
    stride: int
    sample: int
    complete: bool
    origin: dict[str, str]
    before: np.ndarray
    gained: np.ndarray
    change: np.ndarray
    random_units: tuple[tuple[int, ...], ...] = ()
    random_gained: np.ndarray | None = None

    @property
    def concept(self) -> Concept:
        """What was inserted."""
        return self.concepts[self.target]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.before)

    # ---- by place

    @property
    def map(self) -> np.ndarray:
        """Pixels of the concept gained near each cell (H, W), mean over the images."""
        return self.maps.mean(0)

    @property
    def maps(self) -> np.ndarray:
        """The same for each image (N, H, W); a cell that was not tried has the number of one beside it that was."""
        return on_all_cells(self.gained, self.grid, self.stride)

    # ---- by what was there: all arrays have C + 1 rows, the first for cells in which nothing was labelled

    @cached_property
    def was(self) -> np.ndarray:
        """Which concept each trial's cell had before (N, R·Q, C + 1), boolean; one of every label plane."""
        labels = self.before.reshape(self.n, -1, self.before.shape[-1])
        found = np.zeros((*labels.shape[:2], len(self.concepts) + 1), bool)
        for plane in np.moveaxis(labels, -1, 0):
            np.put_along_axis(found, plane[..., None].astype(np.int64), True, 2)
        found[..., 0] = (labels == 0).all(2)
        return found

    @property
    def trials(self) -> np.ndarray:
        """Number of trials (C + 1,)."""
        return self.was.sum((0, 1))

    @property
    def images(self) -> np.ndarray:
        """Number of images with such trials (C + 1,)."""
        return self.was.any(1).sum(0)

    @property
    def gain(self) -> np.ndarray:
        """Pixels of the concept gained near the cell (C + 1,), mean over the trials; nan without trials."""
        return self.mean_over_trials(self.gained)

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``gain`` (C + 1,), (C + 1,); nan where fewer than two images have trials."""
        return self.interval_of(self.gained)

    @property
    def random(self) -> np.ndarray:
        """Pixels of the concept that random units bring near the cell (C + 1,), mean over the trials.

        No null control: at a high level they add texture that may pass for the concept. What counts is the gain over
        that. It is nan where there are no trials, or no random units.
        """
        return self.nan if self.random_gained is None else self.mean_over_trials(self.random_gained)

    @property
    def random_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``random`` (C + 1,), (C + 1,)."""
        return (self.nan, self.nan) if self.random_gained is None else self.interval_of(self.random_gained)

    @property
    def nan(self) -> np.ndarray:
        """Nothing known (C + 1,)."""
        return np.full(len(self.concepts) + 1, np.nan)

    def interval_of(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval of the mean of values (N, R, Q): bootstrap over images, 1,000 draws, fixed seed."""
        draws = resamples(self.n)
        means = ratio(draws @ self.sums(values), draws @ self.was.sum(1))  # (draws, C + 1)
        ends, known = np.stack([self.nan, self.nan]), self.images > 1
        ends[:, known] = middle_of(means[:, known])
        return ends[0], ends[1]

    def appears(self, least: int | None = None) -> np.ndarray:
        """Share of the trials (C + 1,) in which at least so many pixels are gained near the cell.

        Parameters
        ----------
        least : int, optional
            By default a quarter of a cell.
        """
        return self.mean_over_trials(self.gained >= (self.quarter if least is None else least))

    @property
    def quarter(self) -> int:
        """Pixels in a quarter of a cell, at least 1."""
        return max(1, self.size[0] * self.size[1] // (4 * self.grid[0] * self.grid[1]))

    @property
    def everywhere(self) -> np.ndarray:
        """Pixels of the concept gained in the whole image (C + 1,), mean over the trials."""
        return self.mean_over_trials(self.change[..., self.target])

    @property
    def collateral(self) -> np.ndarray:
        """Pixels of the other concepts that come or go in the whole image (C + 1,), those replaced included."""
        return self.mean_over_trials(np.abs(np.delete(self.change, self.target, -1)).sum(-1))

    def changes(self) -> np.ndarray:
        """Pixels of each concept gained in the whole image, by what was there (C + 1, C), mean over the trials."""
        return np.stack([self.mean_over_trials(self.change[..., c]) for c in range(len(self.concepts))], 1)

    def mean_over_trials(self, values: np.ndarray) -> np.ndarray:
        """Mean over the trials of values (N, R, Q), by what was there: (C + 1,)."""
        return ratio(self.sums(values).sum(0), self.trials)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each image's trials of values (N, R, Q), by what was there: (N, C + 1)."""
        return np.einsum("nk,nkc->nc", values.reshape(self.n, -1).astype(float), self.was)

    # ---- tables

    def rows(self) -> list[dict]:
        """One dict for each concept that was there before, the one where most is gained first."""
        columns = {"gained": self.gain} | dict(zip(("low", "high"), self.interval, strict=True))
        columns |= {"random": self.random} | dict(zip(("random_low", "random_high"), self.random_interval, strict=True))
        columns |= {"appears": self.appears(), "gained_in_image": self.everywhere, "change_of_others": self.collateral}
        names, trials, images = (NOTHING, *self.concepts), self.trials, self.images
        return [
            {
                "before": names[v].name,
                "category": names[v].category,
                "trials": int(trials[v]),
                "images": int(images[v]),
                **{name: round(float(values[v]), 4) for name, values in columns.items()},
            }
            for v in sorted(np.flatnonzero(trials).tolist(), key=lambda v: -columns["gained"][v])
        ]

    def __repr__(self) -> str:
        seen = f"{self.n:,} images" + ("" if self.complete else " (incomplete)")
        rows, columns = self.gained.shape[1:]
        cells = f"{rows} x {columns}" + (f" (of {self.grid[0]} x {self.grid[1]})" if self.stride > 1 else "")
        units = f"{len(self.edit.units)} units switched on in one of {cells} cells at a time"
        title = f"{self.concept} into {self.edit.layer} of {self.origin['generator']}: {units}, {seen}"
        names = f"{'pixels gained near it':<24} {'by random units':<22} {f'≥ {self.quarter}':>6}"
        head = f"  {'there before':<16} {names}  trials"
        return "\n".join([title, head, *map(line, self.rows())])

    def sentence(self) -> str:
        """Where the concept comes, and where not, in words; up to three places each are named.

        It comes where at least 5 % of a cell are gained and the interval of that lies above what random units bring; it
        does not where the interval lies below a fifth of the highest gain.
        """
        rows = [r for r in self.rows() if r["images"] > 1 and (r["before"], r["category"]) != tuple(self.concept)]
        best = max((row["gained"] for row in rows), default=0)
        least = 0.05 * self.size[0] * self.size[1] / (self.grid[0] * self.grid[1])
        comes = [
            row
            for row in rows
            if row["gained"] >= max(least, np.nan_to_num(row["random_high"]))
            and row["low"] > max(0, np.nan_to_num(row["random"]))
        ]
        never = [row for row in rows[::-1] if row["high"] < best / 5 and row not in comes]
        there, not_there = (listed([row["before"] for row in some[:3]]) for some in (comes, never))
        count, name = len(self.edit.units), self.concept.name
        others = {1: "", 2: " with another one"}.get(count, f" with {count - 1} others")
        start = f"Switched on in one cell{others}"
        if not comes:
            return f"{start}, it brings no {name} to speak of."
        return f"{start}, it brings {name} where {there} was{f', not where {not_there} was' if never else ''}."

    # ---- files

    def save(self, path: str | Path) -> None:
        """Write everything to an ``.npz`` file, whole or not at all."""
        header = {"format": FORMAT, "edit": self.edit.to_json()} | {name: getattr(self, name) for name in HEADER}
        arrays = {name: getattr(self, name) for name in ARRAYS}
        if self.random_gained is not None:
            header["random_units"], arrays["random_gained"] = self.random_units, self.random_gained
        write_atomically(path, arrays_to_bytes(with_header(header, arrays)))

    @classmethod
    def load(cls, path: str | Path) -> "Context":
        """Read a file written by `save`; ValueError if it is damaged or no context."""
        header, arrays = read_arrays(
            Path(check_kind("path", path, str | Path, "that of a saved context")), "context", check_claims
        )
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            found = header.get("format") if isinstance(header, dict) else None
            raise ValueError(f"{path} has format version {found}; this ganlens reads version {FORMAT}")
        try:
            check_header(header)
            fields = {name: header[name] for name in HEADER} | {"edit": Edit.from_json(header["edit"])}
            fields |= {name: tuple(header[name]) for name in ("grid", "size")}
            fields |= {"concepts": tuple(Concept(*pair) for pair in header["concepts"])}
            fields |= {"random_units": tuple(map(tuple, header.get("random_units", ())))}
            fields |= {name: arrays[name] for name in ARRAYS} | {"random_gained": arrays.get("random_gained")}
            gained, before = (fields[name].shape for name in ("gained", "before"))
            fit = len(gained) == 3 and all(array.dtype.kind in "biuf" for array in arrays.values())
            fit &= fields["change"].shape == (*gained, len(fields["concepts"])) and before[:-1] == gained
            fit &= fields["random_gained"] is None or fields["random_gained"].shape == gained
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no context ({error!r})") from error
        if not fit:
            raise ValueError(f"{path} is damaged: its arrays do not fit each other")
        return cls(**fields)


def check_claims(header: dict, claims: Mapping[str, np.ndarray]) -> None:
    """ValueError if a file holds arrays that no context has, or larger ones."""
    for name, claim in claims.items():
        if name not in (*ARRAYS, "random_gained") or claim.size > 2**28:
            raise ValueError(f"it holds {name!r} of shape {claim.shape}, which no context has")


def check_header(header: dict) -> None:
    """ValueError if an entry of the header of a file is not of its kind."""
    texts = isinstance(header["origin"], dict) and isinstance(header["origin"].get("generator"), str)
    lists = all(isinstance(header[name], list) for name in ("grid", "size", "concepts"))
    if not texts or not lists or not isinstance(header["complete"], bool):
        raise ValueError("origin, grid, size, concepts or complete")
    check_integer("stride", header["stride"])
    check_integer("sample", header["sample"], 0)
    check_integer("target", header["target"], 0, len(header["concepts"]) - 1)
    for pair in (header["grid"], header["size"]):
        if [check_integer("grid and size", side) for side in pair][2:] or len(pair) != 2:
            raise ValueError("grid and size: expected rows and columns")
    for pair in header["concepts"]:
        as_concept(pair)


def line(row: dict) -> str:
    """A row of the table as a line of text."""
    gained, random = (with_interval(*(row[name] for name in names)) for names in (GAINED, RANDOM))
    trials = f"{row['trials']:,} in {row['images']:,} images"
    return f"  {row['before']:<16} {gained:<24} {random:<22} {row['appears']:>6.0%}  {trials}"


def with_interval(mean: float, low: float, high: float) -> str:
    """A number with its interval, as far as they are known."""
    number = "" if np.isnan(mean) else f"{mean:7.1f}"
    return number + ("" if np.isnan(low) else f"  ({low:.1f} … {high:.1f})")


def on_all_cells(values: np.ndarray, grid: tuple[int, int], stride: int) -> np.ndarray:
    """Values (…, R, Q) of the cells that were tried as values of all cells (…, H, W)."""
    return values.repeat(stride, -2).repeat(stride, -1)[..., : grid[0], : grid[1]]


def listed(names: list[str]) -> str:
    """Names as in a sentence."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
