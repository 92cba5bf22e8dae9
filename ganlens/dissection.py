"""What a dissection found: a value that can be asked, saved, loaded and exported."""

import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ganlens.files import read_arrays, write_atomically, write_csv
from ganlens.images import html_table, spotlight, strip, to_uint8
from ganlens.models.base import Generator
from ganlens.names import close_match
from ganlens.segmenters.base import Concept, Segmenter, concept_index
from ganlens.statistics import Levels, information_quality, upsample

FORMAT = 1
SETTINGS = ("layer", "rule", "quantile", "n", "seed", "complete", "within_category", "shape", "origin", "flags")
FLAGS = ("artifact", "favourite")
ORIGIN = ("generator", "generator_fingerprint", "segmenter", "segmenter_fingerprint")
ARRAYS = ("thresholds_by_concept", "on", "overlap", "area", "scope", "valid", "top", "top_values")
# The axes of all arrays of a file: U units, C concepts, K top images, B bins.
AXES = dict.fromkeys(("levels_low", "levels_slope", "levels_below", "levels_total"), "U")
AXES |= {"levels_lowest": "U", "levels_highest": "U", "levels_counts": "UB", "levels_bins": "", "levels_cells": ""}
AXES |= dict.fromkeys(ARRAYS, "UC") | {"area": "C", "scope": "C", "top": "UK", "top_values": "UK"}
KEPT_RANKINGS = {
    "gradient": "gl.unit_gradients(D)",
    "ace": "gl.optimize_units(D, {concept!r}).alpha, {concept!r}",
}
OPTIONAL = {"effects": "UC"} | {f"ranking_{by}": "UC" for by in KEPT_RANKINGS}


class UnitLabel(NamedTuple):
    """What one unit draws, if anything."""

    unit: int
    concept: Concept
    iou: float
    runner_up: Concept | None
    runner_up_iou: float
    iqr: float
    chance: float
    interpretable: bool


class Counts(NamedTuple):
    """The integers that everything else is computed from, in pixels of the segmentation's grid."""

    on: np.ndarray  # (U, C) the unit is on
    overlap: np.ndarray  # (U, C) the unit is on and the concept is there
    area: np.ndarray  # (C,) the concept is there
    scope: np.ndarray  # (C,) all pixels that count for the concept


@dataclass(eq=False, repr=False)
class Dissection:
    """The units of one layer, matched with concepts.

    U units, C concepts, K top images per unit. Made by `ganlens.dissect`.

    Attributes
    ----------
    layer : str
        Dotted module name.
    concepts : tuple of Concept
        The segmenter's vocabulary.
    rule, quantile : str, float
        How thresholds were set.
    n, seed, complete : int, int, bool
        Images seen, which sample, and whether it was seen to its end.
    thresholds_by_concept : array (U, C)
        A unit is on where its upsampled features exceed this.
    on, overlap, area, scope : integer arrays (U, C), (U, C), (C,), (C,)
        See `Counts`. All pixels count, or, within categories, those of the images that show the concept's category.
    top, top_values : arrays (U, K)
        Seeds of the images with the unit's highest maximum, best first, and these maxima; seed -1 where there is none.
    levels : Levels
        Quantiles and mean of the units' features over the cells.
    origin : dict
        Name and fingerprint of generator and segmenter.
    generator, segmenter : Generator, Segmenter or None
        The live objects; not saved.
    flags : dict of str to list of int
        Units marked by hand, see `flag`.
    effects : array (U, C) or None
        Share of each concept's pixels that each unit removes alone: set it to ``gl.unit_effects(D)``.
    """

    layer: str
    concepts: tuple[Concept, ...]
    rule: str
    quantile: float
    n: int
    seed: int
    complete: bool
    within_category: bool
    shape: tuple[int, int, int, int]
    thresholds_by_concept: np.ndarray
    on: np.ndarray
    overlap: np.ndarray
    area: np.ndarray
    scope: np.ndarray
    valid: np.ndarray
    top: np.ndarray
    top_values: np.ndarray
    levels: Levels
    origin: dict[str, str]
    generator: Generator | None = None
    segmenter: Segmenter | None = None
    flags: dict[str, list[int]] = field(default_factory=dict)
    effects: np.ndarray | None = None
    # ---- numbers

    @property
    def counts(self) -> Counts:
        """The integer counts."""
        return Counts(self.on, self.overlap, self.area, self.scope)

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union (U, C), pooled over the sample: one ratio of sums, no mean of ratios."""
        union = self.on + self.area - self.overlap
        return np.divide(self.overlap, union, out=np.zeros(union.shape), where=union > 0)

    @cached_property
    def iqr(self) -> np.ndarray:
        """Information quality ratio I / H of "unit on" and "concept there" (U, C), Bau et al., ICLR 2019.

        Under the rule "iqr" it is 0 where no threshold met the conditions (agreement over 0.8, positive level, concept
        frequency of at least 0.001, unit and concept positively associated).
        """
        quality = information_quality(self.on, self.overlap, self.area, self.scope)
        return np.where(self.valid, quality, 0.0) if self.rule == "iqr" else quality

    @cached_property
    def chance(self) -> np.ndarray:
        """IoU (C,) that a mask reaches without looking at the image.

        Under the quantile rule: a random mask of the same size. Under rules that choose the threshold: a mask that is
        on everywhere, whose IoU is the concept's frequency.
        """
        f = np.divide(self.area, self.scope, out=np.zeros(len(self.area)), where=self.scope > 0)
        if self.rule != "quantile":
            return f
        q = self.quantile
        return q * f / (q + f - q * f)

    @property
    def thresholds(self) -> np.ndarray:
        """Level (U,) above which each unit is on, for the concept that it is labelled with."""
        best = self.merit.argmax(1)
        return self.thresholds_by_concept[np.arange(len(best)), best]

    @property
    def achieved(self) -> np.ndarray:
        """Share of the pixels (U,) at which each unit is on, for the concept that it is labelled with."""
        best = self.merit.argmax(1)
        return self.on[np.arange(len(best)), best] / np.maximum(self.scope[best], 1)

    @property
    def merit(self) -> np.ndarray:
        """What the label is chosen by (U, C): IQR under the rule "iqr", otherwise IoU."""
        return self.iqr if self.rule == "iqr" else self.iou

    @cached_property
    def labels(self) -> tuple[UnitLabel, ...]:
        """The concept of each unit with its runner-up; U of them."""
        order = np.argsort(-self.merit, axis=1, kind="stable")
        return tuple(self._label(unit, *order[unit, :2]) for unit in range(len(order)))

    def _label(self, unit: int, best: int, second: int | None = None) -> UnitLabel:
        iou, iqr = self.iou[unit], self.iqr[unit]
        if self.rule == "quantile":
            interpretable = iou[best] > 0.04
        elif self.rule == "iqr":
            interpretable = iou[best] > 0.05 and iqr[best] > 0.01
        else:
            interpretable = iou[best] > max(0.04, self.chance[best])
        runner_up = None if second is None else self.concepts[second]
        runner_up_iou = 0.0 if second is None else float(iou[second])
        values = float(iou[best]), runner_up, runner_up_iou, float(iqr[best]), float(self.chance[best])
        return UnitLabel(unit, self.concepts[best], *values, bool(interpretable))

    @property
    def interpretable(self) -> list[int]:
        """Numbers of the units that draw a concept: IoU > 0.04 (quantile), IoU > 0.05 and IQR > 0.01 (iqr)."""
        return [label.unit for label in self.labels if label.interpretable]

    def units(self, concept: str | Concept, k: int | None = 20, by: str = "iou") -> list[int]:
        """Unit numbers for a concept, best first.

        Parameters
        ----------
        concept : str or Concept
            A word of the vocabulary.
        k : int or None
            At most how many; None for all.
        by : {"iou", "iqr", "effect", "gradient", "ace"}
            What they are ranked by. ``"effect"`` is the causal order, known once ``effects`` is set; ``"gradient"`` and
            ``"ace"`` are known once `keep_ranking` was called. Equal ones are in the order of their numbers, in the
            last two in that of their IoU.
        """
        if k is not None and k < 1:
            raise ValueError(f"k={k}: {self.layer} has {len(self.iou)} units; expected at least 1, or None for all")
        index = concept_index(self.concepts, concept, f"the vocabulary of {self.origin['segmenter']}")
        merit = self._merit_for(by, index)
        second = self.iou[:, index] if by in KEPT_RANKINGS else np.zeros(len(merit))
        return np.lexsort((-second, -merit))[:k].tolist()

    def ranks(self, concept: str | Concept, by: str) -> bool:
        """Whether `units` can rank by that for a concept, or it must be measured first."""
        index = concept_index(self.concepts, concept, f"the vocabulary of {self.origin['segmenter']}")
        try:
            self._merit_for(by, index)
        except ValueError:
            return False
        return True

    def _merit_for(self, by: str, index: int) -> np.ndarray:
        """What units (U,) are ranked by for a concept; ValueError if it is not known for all of them."""
        if by in ("iou", "iqr"):
            return getattr(self, by)[:, index]
        if by == "effect":
            self.check_effects()
            merit, remedy = np.asarray(self.effects)[:, index], "go on: D.effects = gl.unit_effects(D, known=D.effects)"
        elif by in KEPT_RANKINGS:
            merit = self.rankings.get(by, np.full(self.iou.shape, np.nan))[:, index]
            values = KEPT_RANKINGS[by].format(concept=self.concepts[index].name)
            remedy = f'measure it: D.keep_ranking("{by}", {values})'
        else:
            measured = ", ".join(map(repr, ("effect", *KEPT_RANKINGS)))
            raise ValueError(f"by={by!r}: expected 'iou' or 'iqr', or one that was measured: {measured}")
        unknown = np.count_nonzero(np.isnan(merit))
        if unknown:
            what = f"the {by} of {unknown} of {len(merit)} units of {self.layer} on {self.concepts[index]}"
            raise ValueError(f"{what} is not known; {remedy}")
        return merit

    def keep_ranking(self, by: str, values: np.ndarray, concept: str | Concept | None = None) -> None:
        """Remember what units can be ranked by, for `units`; `save` keeps it.

        Parameters
        ----------
        by : {"gradient", "ace"}
            Its name.
        values : array (U, C), or (U,) for one concept
            The higher the better.
        concept : str or Concept, optional
            The concept that ``values`` (U,) are for; those for others stay as they are.

        Examples
        --------
        >>> import ganlens as gl
        >>> D = gl.dissect(gl.load_generator("scenes"), gl.load_segmenter("scenes"), "layer9", n=8, progress=False)
        >>> D.keep_ranking("gradient", gl.unit_gradients(D, n=4, progress=False))
        >>> len(D.units("tree", k=3, by="gradient"))
        3
        """
        if by not in KEPT_RANKINGS:
            raise ValueError(close_match("ranking", by, list(KEPT_RANKINGS), "this dissection"))
        kept = np.array(self.rankings.get(by, np.full(self.iou.shape, np.nan)))
        place = slice(None) if concept is None else concept_index(self.concepts, concept, self.origin["segmenter"])
        values = np.asarray(values, float)
        if values.shape != kept[:, place].shape:
            raise ValueError(f"ranking {by!r} of shape {values.shape}: expected {kept[:, place].shape}")
        kept[:, place] = values
        self.rankings[by] = kept

    def check_effects(self) -> None:
        """ValueError if ``effects`` is not set, or not for all units."""
        if np.shape(self.effects) != self.iou.shape:
            found = "not set" if self.effects is None else f"of shape {np.shape(self.effects)}, not {self.iou.shape}"
            raise ValueError(f"the effects of the units are {found}; measure them: D.effects = gl.unit_effects(D)")

    @cached_property
    def rankings(self) -> dict[str, np.ndarray]:
        """What else units can be ranked by (U, C), see `keep_ranking`; nan where it is not known."""
        return {}

    # ---- pictures

    def strip(self, unit: int, k: int = 8) -> np.ndarray:
        """The unit's top images in a row, lit where the unit is on: a picture (Y, X, 3)."""
        return strip(self.spotlights([unit], k)[0])

    def spotlights(self, units: list[int], k: int = 8, factor: int = 3) -> list[np.ndarray]:
        """For each unit its ``k`` top images, lit where it is on: (k, Y, X, 3); each image is generated once."""
        self.check_units(units)
        generator = self.attached("generator")
        seeds = {unit: [s for s in self.top[unit, :k].tolist() if s >= 0] for unit in units}
        every = sorted(set().union(*seeds.values()))
        size = tuple(generator.image_shape[1:])
        pictures, masks = {}, {}
        for start in range(0, len(every), 32):
            some = every[start : start + 32]
            x, features = generator.read(generator.sample(some), [self.layer])
            pictures |= dict(zip(some, to_uint8(x), strict=True))
            for unit in units:
                inside = [s for s in some if s in seeds[unit]]
                if inside:
                    r = features[self.layer][[some.index(s) for s in inside], unit : unit + 1]
                    on = (upsample(r, size)[:, 0] > float(self.thresholds[unit])).cpu().numpy()
                    masks |= {(unit, s): m for s, m in zip(inside, on, strict=True)}
        return [np.stack([spotlight(pictures[s], masks[unit, s], factor) for s in seeds[unit]]) for unit in units]

    def check_units(self, units) -> None:
        """ValueError if a unit is out of range."""
        for unit in units:
            if not 0 <= unit < len(self.iou):
                raise ValueError(f"unit {unit} is out of range: {self.layer} has units 0 … {len(self.iou) - 1}")

    def attached(self, what: str) -> Any:
        """The live ``"generator"`` or ``"segmenter"``; ValueError if there is none at hand."""
        found = getattr(self, what)
        if found is None:
            raise ValueError(f"this dissection has no {what} at hand; load it with Dissection.load(path, {what}=…)")
        return found

    def flag(self, unit: int, name: str, on: bool = True) -> None:
        """Mark a unit by hand, or take the mark away; `save` keeps the marks.

        Parameters
        ----------
        unit : int
            Which unit.
        name : {"artifact", "favourite"}
            Which mark.
        on : bool
            Whether it is set.
        """
        self.check_units([unit])
        check_flag(name)
        units = {*self.flags.get(name, ())} - {unit} | ({int(unit)} if on else set())
        others = {known: marked for known, marked in self.flags.items() if known != name}
        self.flags = others | ({name: sorted(units)} if units else {})

    # ---- tables

    def rows(self) -> list[dict]:
        """One dict per unit: its label and numbers."""
        achieved, thresholds = self.achieved, self.thresholds
        return [
            {
                "unit": label.unit,
                "concept": label.concept.name,
                "category": label.concept.category,
                "iou": round(label.iou, 6),
                "chance": round(label.chance, 6),
                "iqr": round(label.iqr, 6),
                "runner_up": label.runner_up.name if label.runner_up else "",
                "runner_up_iou": round(label.runner_up_iou, 6),
                "interpretable": label.interpretable,
                "threshold": float(thresholds[label.unit]),
                "on": float(achieved[label.unit]),
                "top_seed": int(self.top[label.unit, 0]),
            }
            for label in self.labels
        ]

    def matches(self, concept: str | Concept) -> list[dict]:
        """One dict per unit, best first: how well it matches a concept, and what it draws."""
        units = self.units(concept, k=None)
        index = concept_index(self.concepts, concept, self.origin["segmenter"])
        return [
            {
                "unit": unit,
                "concept": self.concepts[index].name,
                "category": self.concepts[index].category,
                "iou": round(float(self.iou[unit, index]), 6),
                "chance": round(float(self.chance[index]), 6),
                "iqr": round(float(self.iqr[unit, index]), 6),
                "draws": self.labels[unit].concept.name if self.labels[unit].interpretable else "",
                "top_seed": int(self.top[unit, 0]),
            }
            for unit in units
        ]

    def table(self):
        """One row per unit: a pandas DataFrame when pandas is installed, otherwise a list of dicts."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows()).set_index("unit")

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV."""
        write_csv(path, self.rows())

    def to_json(self, path: str | Path | None = None) -> str:
        """Settings, summary and table as JSON; written to ``path`` if one is given."""
        content = self._header() | {"summary": self.summary(), "units": self.rows()}
        text = json.dumps(content, indent=1)
        if path is not None:
            write_atomically(path, text.encode())
        return text

    def summary(self) -> dict:
        """Counts of units, interpretable units and distinct concepts; and the concepts found, with their units."""
        found: dict[str, list[int]] = {}
        for label in sorted(self.labels, key=lambda label: -label.iou):
            if label.interpretable:
                found.setdefault(label.concept.name, []).append(label.unit)
        return {
            "units": len(self.iou),
            "interpretable": len(self.interpretable),
            "distinct": len(found),
            "concepts": found,
        }

    def best(self, count: int = 12) -> list[UnitLabel]:
        """The interpretable units with the highest IoU, but the best of every concept first."""
        ranked = sorted((label for label in self.labels if label.interpretable), key=lambda label: -label.iou)
        first = {label.concept: label for label in reversed(ranked)}.values()
        heads = sorted(first, key=lambda label: -label.iou)
        return (heads + [label for label in ranked if label not in heads])[:count]

    def __repr__(self) -> str:
        lines = [self._title()]
        for b in self.best():
            iou = f"IoU {b.iou:.3f}  (chance {b.chance:.3f}; then {b.runner_up} {b.runner_up_iou:.3f})"
            lines.append(f"  unit {b.unit:4d}  {b.concept.name:<12} {iou}")
        return "\n".join(lines)

    def _title(self) -> str:
        s = self.summary()
        seen = f"{self.n:,} images" + ("" if self.complete else " (incomplete)")
        return (
            f"{self.layer} of {self.origin['generator']}: {s['interpretable']} of {s['units']} units draw one of "
            f"{s['distinct']} concepts ({seen}, rule {self.rule})"
        )

    def _repr_html_(self) -> str:
        best = self.best()
        pictures = None
        if self.generator and best:
            pictures = [strip(row) for row in self.spotlights([b.unit for b in best], 6, factor=2)]
        columns = {
            "unit": [str(b.unit) for b in best],
            "draws": [b.concept.name for b in best],
            "IoU": [f"{b.iou:.3f}" for b in best],
            "chance": [f"{b.chance:.3f}" for b in best],
            "runner-up": [f"{b.runner_up} {b.runner_up_iou:.3f}" for b in best],
        }
        return html_table(self._title(), columns, pictures, "top images, lit where the unit is on")

    # ---- files

    def _header(self) -> dict:
        settings = {name: getattr(self, name) for name in SETTINGS if name != "flags" or self.flags}
        return {"format": FORMAT, "concepts": [list(c) for c in self.concepts], **settings}

    def save(self, path: str | Path) -> None:
        """Write everything but the live objects to an ``.npz`` file, whole or not at all."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"levels_{name}": array for name, array in self.levels.state().items()}
        if self.effects is not None:
            self.check_effects()
            arrays["effects"] = np.asarray(self.effects, float)
        arrays |= {f"ranking_{by}": values for by, values in self.rankings.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=np.array(json.dumps(self._header())), **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(
        cls, path: str | Path, generator: Generator | None = None, segmenter: Segmenter | None = None
    ) -> "Dissection":
        """Read a file written by `save`, and attach the live objects if given.

        Raises
        ------
        ValueError
            The file is damaged or no dissection, or it was made with another generator or segmenter.
        """
        header, arrays = read_archive(Path(path))
        for what, live in (("generator", generator), ("segmenter", segmenter)):
            known = header["origin"][f"{what}_fingerprint"]
            if live is not None and live.fingerprint != known:
                raise ValueError(
                    f"{path} was made with the {what} {header['origin'][what]} (fingerprint {known}), not with "
                    f"{live.name} (fingerprint {live.fingerprint}); its numbers can be read without a {what}"
                )
        levels = Levels.from_state({k.removeprefix("levels_"): v for k, v in arrays.items() if k.startswith("levels_")})
        settings = {k: header[k] for k in SETTINGS} | {"shape": tuple(header["shape"])}
        concepts = tuple(Concept(*pair) for pair in header["concepts"])
        settings |= {k: arrays[k] for k in ARRAYS} | {"concepts": concepts, "levels": levels}
        rankings = {by: arrays[f"ranking_{by}"] for by in KEPT_RANKINGS if f"ranking_{by}" in arrays}
        self = cls(**settings, effects=arrays.get("effects"), generator=generator, segmenter=segmenter)
        self.rankings.update(rankings)
        return self


def read_archive(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a saved dissection; ValueError if it is none."""
    header, arrays = read_arrays(path, "dissection")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise ValueError(f"{path} has format version {found}; this ganlens reads version {FORMAT}")
    header = {"flags": {}} | header  # a dissection without flags has no such entry
    check_parts(path, header, arrays)
    return header, arrays


def check_parts(path: Path, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """ValueError if a part is missing or does not fit the others."""
    origin = header["origin"] if isinstance(header.get("origin"), dict) else {}
    missing = [name for name in ("concepts", *SETTINGS) if name not in header]
    missing += [f"origin.{name}" for name in ORIGIN if name not in origin]
    missing += [name for name in AXES if name not in arrays]
    if missing:
        raise ValueError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    sizes = {"C": len(header["concepts"])}
    for name, axes in ((name, axes) for name, axes in (AXES | OPTIONAL).items() if name in arrays):
        shape = arrays[name].shape
        if len(shape) != len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, shape, strict=True)):
            raise ValueError(f"{path} is damaged: {name} of shape {shape} does not fit the other parts")
    check_flags(path, header["flags"], sizes["U"])


def check_flags(path: Path, flags: dict, count: int) -> None:
    """ValueError if the flags of a file are not lists of units among ``count``."""
    for name, units in flags.items() if isinstance(flags, dict) else [("flags", None)]:
        whole = isinstance(units, list) and all(type(unit) is int for unit in units)
        if name not in FLAGS or not whole or not all(0 <= unit < count for unit in units):
            raise ValueError(f"{path} is damaged: its flags {name!r} are no list of units 0 … {count - 1}")


def check_flag(name: str) -> None:
    """ValueError with close matches if there is no such flag."""
    if name not in FLAGS:
        raise ValueError(close_match("flag", name, FLAGS, "this dissection"))
