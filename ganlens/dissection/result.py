"""What a dissection found: a value that can be asked, saved, loaded and exported."""

import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ganlens.arguments import as_list, check_integer, check_kind, close_match, short_repr
from ganlens.dissection.layer_statistics import Counts
from ganlens.dissection.ranking import KEPT_RANKINGS, Ranked, UnitLabel
from ganlens.dissection.saved import ARRAYS, FLAGS, FORMAT, OPTIONAL, SETTINGS, read_archive
from ganlens.files import write_atomically
from ganlens.images import spotlight, strip, to_uint8
from ganlens.models.base import Generator
from ganlens.segmenters.base import Concept, Segmenter, concept_index
from ganlens.statistics import Levels, information_quality, upsample
from ganlens.tables import Tabular, html_table


@dataclass(eq=False, repr=False, kw_only=True)
class Dissection(Ranked, Tabular):
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
    n, sample, complete : int, int, bool
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
        Name and fingerprint of generator and segmenter; the generator's settings, where they are not the usual ones.
    generator, segmenter : Generator, Segmenter or None
        The live objects; not saved.
    flags : dict of str to list of int
        Units marked by hand, see `flag`.
    broken : list of int
        Units that gave NaN or infinity in some image: they match nothing, and count as 0 in that image.
    effects : array (U, C) or None
        Share of each concept's pixels that each unit removes alone: set it to ``gl.unit_effects(D)``.
    rankings : dict of str to array (U, C)
        What else units can be ranked by, see `keep_ranking`; nan where it is not known.
    """

    index: ClassVar[str] = "unit"

    layer: str
    concepts: tuple[Concept, ...]
    rule: str
    quantile: float
    n: int
    sample: int
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
    origin: dict[str, Any]
    generator: Generator | None = None
    segmenter: Segmenter | None = None
    flags: dict[str, list[int]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    effects: np.ndarray | None = None
    rankings: dict[str, np.ndarray] = field(default_factory=dict)

    # ---- numbers

    @property
    def counts(self) -> Counts:
        """The integer counts."""
        return Counts(self.on, self.overlap, self.area, self.scope)

    @cached_property
    def iou(self) -> np.ndarray:  # type: ignore[override]  # computed when it is first asked for
        """Intersection over union (U, C), pooled over the sample: one ratio of sums, no mean of ratios."""
        union = self.on + self.area - self.overlap
        return np.divide(self.overlap, union, out=np.zeros(union.shape), where=union > 0)

    @cached_property
    def iqr(self) -> np.ndarray:  # type: ignore[override]
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

    @property
    def dead(self) -> list[int]:
        """Numbers of the units that have the same value in all cells of all images."""
        return (self.levels.lowest == self.levels.highest).nonzero()[:, 0].tolist()

    # ---- pictures

    def strip(self, unit: int, k: int = 8) -> np.ndarray:
        """The unit's top images in a row, lit where the unit is on: a picture (Y, X, 3)."""
        return strip(self.spotlights([unit], k)[0])

    def spotlights(self, units: list[int], k: int = 8, factor: int = 3) -> list[np.ndarray]:
        """For each unit its ``k`` top images, lit where it is on: (k, Y, X, 3); each image is generated once."""
        self.check_units(units)
        units, k, generator = list(map(int, units)), check_integer("k", k), self.attached("generator")
        seeds = {unit: [s for s in self.top[unit, :k].tolist() if s >= 0] for unit in units}
        every = sorted(set().union(*seeds.values()))
        size = tuple(generator.image_shape[1:])
        pictures: dict[int, np.ndarray] = {}
        masks: dict[tuple[int, int], np.ndarray] = {}
        for start in range(0, len(every), 32):
            some = every[start : start + 32]
            x, features = generator.read(generator.latents(some), [self.layer])
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
        for unit in as_list("units", units, "unit numbers, for example [3, 17]"):
            plain = unit.item() if isinstance(unit, torch.Tensor) and not unit.ndim else unit
            whole = isinstance(plain, Integral) and not isinstance(plain, bool)
            if not whole or not 0 <= plain < len(self.iou):
                has = f"{self.layer} has units 0 … {len(self.iou) - 1}"
                raise ValueError(f"unit {short_repr(unit)} is out of range: {has}")

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
        settings = {name: getattr(self, name) for name in SETTINGS}
        settings = {name: value for name, value in settings.items() if value or name not in OPTIONAL}
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
            The file is damaged or no dissection, or it was made with another generator or segmenter, or with other
            settings of the generator.
        """
        header, arrays = read_archive(Path(check_kind("path", path, str | Path, "that of a file that D.save wrote")))
        for what, live in (("generator", generator), ("segmenter", segmenter)):
            known = header["origin"][f"{what}_fingerprint"]
            if live is not None and live.fingerprint != known:
                raise ValueError(
                    f"{path} was made with the {what} {header['origin'][what]} (fingerprint {known}), not with "
                    f"{live.name} (fingerprint {live.fingerprint}); its numbers can be read without a {what}"
                )
        chosen = header["origin"].get("generator_settings", {})
        if generator is not None and generator.chosen != chosen:
            wanted = ", ".join(f"{name}={value!r}" for name, value in (generator.defaults | chosen).items())
            raise ValueError(
                f"{path} was made with {header['origin']['generator']}, not with {generator.title}: "
                f"give generator.variant({wanted})"
            )
        levels = Levels.from_state({k.removeprefix("levels_"): v for k, v in arrays.items() if k.startswith("levels_")})
        settings = {k: header[k] for k in SETTINGS} | {"shape": tuple(header["shape"])}
        concepts = tuple(Concept(*pair) for pair in header["concepts"])
        settings |= {k: arrays[k] for k in ARRAYS} | {"concepts": concepts, "levels": levels}
        settings |= {"rankings": {by: arrays[f"ranking_{by}"] for by in KEPT_RANKINGS if f"ranking_{by}" in arrays}}
        return cls(**settings, effects=arrays.get("effects"), generator=generator, segmenter=segmenter)


def check_flag(name: str) -> None:
    """ValueError with close matches if there is no such flag."""
    if not isinstance(name, str) or name not in FLAGS:
        raise ValueError(close_match("flag", name, FLAGS, "this dissection"))


def check_dissection(D) -> Dissection:
    """A dissection as it is; ValueError for anything else."""
    return check_kind("D", D, Dissection, "a Dissection, as gl.dissect returns it")
