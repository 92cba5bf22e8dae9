"""What a dissection found: a value that can be asked, saved, loaded and exported."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ganlens.arguments import as_list, check_integer, check_kind, close_match, short_repr
from ganlens.dissection import unit_tables as tables
from ganlens.dissection.certificates import Certificates
from ganlens.dissection.formulas import Formulas
from ganlens.dissection.layer_statistics import Counts
from ganlens.dissection.ranking import KEPT_RANKINGS, UnitLabel, check_control, label_of, merit_for, settled
from ganlens.dissection.saved import check_flag, check_origin, fields_of, read_archive, write_archive
from ganlens.dissection.sentences import describe
from ganlens.dissection.top_images import spotlights
from ganlens.files import write_atomically
from ganlens.images import strip
from ganlens.models.base import Generator
from ganlens.models.classifier import as_generator
from ganlens.models.editing import as_array
from ganlens.models.network import ImageNetwork
from ganlens.segmenters.base import Concept, Segmenter, concept_index
from ganlens.statistics import Levels, information_quality
from ganlens.tables import Tabular


@dataclass(eq=False, repr=False, kw_only=True)
class Dissection(Tabular):
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
    generator, segmenter : Generator (or Classifier), Segmenter or None
        The live objects; not saved.
    flags : dict of str to list of int
        Units marked by hand, see `flag`.
    broken : list of int
        Units that gave NaN or infinity in some image: they match nothing, and count as 0 in that image.
    effects, formulas : array (U, C) or None, Formulas or None
        Share of each concept's pixels that each unit removes alone, and units that formulas describe better: set them
        to ``gl.unit_effects(D)`` and ``gl.unit_formulas(D)``.
    rankings : dict of str to array (U, C)
        What else units can be ranked by, see `keep_ranking`; nan where it is not known.
    painting : dict
        What `ganlens.paintable` measured here: its settings, and an array (C,) by the name of each number.
    certificates, control : Certificates or None, array (C,) or None
        How sure each match is; the highest IoU of any unit of an untrained network, see `keep_control`.
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
    generator: ImageNetwork | None = None
    segmenter: Segmenter | None = None
    flags: dict[str, list[int]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    effects: np.ndarray | None = None
    rankings: dict[str, np.ndarray] = field(default_factory=dict)
    painting: dict[str, Any] = field(default_factory=dict)
    certificates: Certificates | None = None
    control: np.ndarray | None = None
    formulas: Formulas | None = None

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
        return tuple(label_of(self, unit, *order[unit, :2]) for unit in range(len(order)))

    @property
    def interpretable(self) -> list[int]:
        """Numbers of the units that draw a concept: IoU > 0.04 (quantile), IoU > 0.05 and IQR > 0.01 (iqr).

        After `keep_control` it must be higher than that of any unit of the untrained network, too.
        """
        return [label.unit for label in self.labels if label.interpretable]

    @property
    def certain(self) -> list[int]:
        """Numbers of the units whose label is not by chance, see `Certificates`."""
        return [label.unit for label in self.labels if label.certain]

    @property
    def settled(self) -> float:
        """Probability that a unit has the label that all images would give it, the mean over the units."""
        return settled(self)

    @property
    def unit_counts(self) -> Counter[Concept]:
        """How many units draw each concept: those of `interpretable` that are labelled with it."""
        return Counter(label.concept for label in self.labels if label.interpretable)

    @property
    def dead(self) -> list[int]:
        """Numbers of the units that have the same value in all cells of all images."""
        return (self.levels.lowest == self.levels.highest).nonzero()[:, 0].tolist()

    # ---- rankings

    def units(self, concept: str | Concept, k: int | None = 20, by: str = "iou") -> list[int]:
        """Unit numbers for a concept, best first.

        Parameters
        ----------
        concept : str or Concept
            A word of the vocabulary.
        k : int or None
            At most how many; None for all.
        by : {"iou", "iqr", "f1", "pearson", "cosine", "average_precision", "effect", "gradient", "ace"}
            What they are ranked by; see `Certificates` for the measures of cells. ``"effect"`` is the causal order,
            known once ``effects`` is set; ``"gradient"`` and ``"ace"`` are known once `keep_ranking` was called. Equal
            ones are in the order of their numbers, in the last two in that of their IoU.
        """
        if not (k is None or (isinstance(k, Integral) and not isinstance(k, bool) and k >= 1)):
            have = f"{self.layer} has {len(self.iou)} units"
            raise ValueError(f"k={short_repr(k)}: {have}; expected at least 1, or None for all")
        index = concept_index(self.concepts, concept, f"the vocabulary of {self.origin['segmenter']}")
        merit = merit_for(self, by, index)
        second = self.iou[:, index] if by in KEPT_RANKINGS else np.zeros(len(merit))
        return np.lexsort((-second, -merit))[:k].tolist()

    def ranks(self, concept: str | Concept, by: str) -> bool:
        """Whether `units` can rank by that for a concept, or it must be measured first."""
        index = concept_index(self.concepts, concept, f"the vocabulary of {self.origin['segmenter']}")
        try:
            merit_for(self, by, index)
        except ValueError:
            return False
        return True

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
        if not isinstance(by, str) or by not in KEPT_RANKINGS:
            raise ValueError(close_match("ranking", by, list(KEPT_RANKINGS), "this dissection"))
        kept = np.array(self.rankings.get(by, np.full(self.iou.shape, np.nan)))
        place = slice(None) if concept is None else concept_index(self.concepts, concept, self.origin["segmenter"])
        if (values := as_array("ranking", values)).shape != kept[:, place].shape:
            raise ValueError(f"ranking {by!r} of shape {values.shape}: expected {kept[:, place].shape}")
        kept[:, place] = values
        self.rankings = self.rankings | {by: kept}

    def keep_control(self, untrained: "Dissection") -> None:
        """Ask of interpretable units more than an untrained network does; `save` keeps it.

        Parameters
        ----------
        untrained : Dissection
            Of ``G.untrained()``, made in the same way.

        Examples
        --------
        >>> import ganlens as gl
        >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
        >>> D, U = (gl.dissect(g, S, "layer4", n=64, progress=False) for g in (G, G.untrained(seed=0)))
        >>> D.keep_control(U)
        >>> float(D.iou.max()) > float(D.control.max())
        True
        """
        check_control(self, check_dissection(untrained))
        self.control = untrained.iou.max(0)
        vars(self).pop("labels", None)

    def describe(self, unit: int, context: Any = None) -> str:
        """What a unit draws, how sure that is, what goes when it is off; with a `gl.context`, where it draws, too."""
        self.check_units([unit])
        return describe(self, int(unit), context)

    def check_effects(self) -> None:
        """ValueError if ``effects`` is not set, or not for all units."""
        shape = None if self.effects is None else np.shape(self.effects)
        if shape != self.iou.shape:
            found = f"of shape {shape}, not {self.iou.shape}" if shape else "not set"
            raise ValueError(f"the effects of the units are {found}; measure them: D.effects = gl.unit_effects(D)")

    # ---- pictures

    def strip(self, unit: int, k: int = 8) -> np.ndarray:
        """The unit's top images in a row, lit where the unit is on: a picture (Y, X, 3)."""
        return strip(self.spotlights([unit], k)[0])

    def spotlights(self, units: list[int], k: int = 8, factor: int = 3) -> list[np.ndarray]:
        """For each unit its ``k`` top images, lit where it is on: (k, Y, X, 3); each image is generated once."""
        self.check_units(units)
        return spotlights(self, list(map(int, units)), check_integer("k", k), factor)

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

    def flag(self, unit: int, name: str, flagged: bool = True) -> None:
        """Mark a unit by hand, or take the mark away; `save` keeps the marks.

        Parameters
        ----------
        unit : int
            Which unit.
        name, flagged : {"artifact", "favourite"}, bool
            Which mark, and whether it is set.
        """
        self.check_units([unit])
        check_flag(name)
        units = {*self.flags.get(name, ())} - {unit} | ({int(unit)} if flagged else set())
        others = {known: marked for known, marked in self.flags.items() if known != name}
        self.flags = others | ({name: sorted(units)} if units else {})

    # ---- tables

    def rows(self) -> list[dict]:
        """One dict per unit: its label and numbers."""
        return tables.rows_of(self)

    def matches(self, concept: str | Concept) -> list[dict]:
        """One dict per unit, best first: how well it matches a concept, and what it draws."""
        return tables.matches_of(self, concept_index(self.concepts, concept, self.origin["segmenter"]))

    def to_json(self, path: str | Path | None = None) -> str:
        """Settings, summary and table as JSON; written to ``path`` if one is given."""
        text = tables.json_of(self)
        if path is not None:
            write_atomically(path, text.encode())
        return text

    def summary(self) -> dict:
        """Counts of units, interpretable units and distinct concepts; and the concepts found, with their units."""
        return tables.summary_of(self)

    def best_labels(self, k: int = 12) -> list[UnitLabel]:
        """The interpretable units with the highest IoU, but the best of every concept first."""
        return tables.best_labels_of(self, k)

    def __repr__(self) -> str:
        return tables.text_of(self)

    def _repr_html_(self) -> str:
        return tables.html_of(self)

    def save(self, path: str | Path) -> None:
        """Write everything but the live objects to an ``.npz`` file, whole or not at all."""
        write_archive(self, path)

    @classmethod
    def load(
        cls, path: str | Path, generator: ImageNetwork | None = None, segmenter: Segmenter | None = None
    ) -> "Dissection":
        """Read a file written by `save`, and attach the live objects if given.

        Raises
        ------
        ValueError
            The file is damaged or no dissection, or it was made with another generator or segmenter, or with other
            settings of the generator.
        """
        header, arrays = read_archive(Path(check_kind("path", path, str | Path, "that of a file that D.save wrote")))
        check_origin(path, header["origin"], generator, segmenter)
        return cls(**fields_of(header, arrays), generator=generator, segmenter=segmenter)


def check_dissection(D) -> Dissection:
    """A dissection as it is; ValueError for anything else."""
    return check_kind("D", D, Dissection, "a Dissection, as gl.dissect returns it")


def generator_of(D: Dissection) -> Generator:
    """The live generator; ValueError if none is at hand, or it is a classifier, whose edits change no image."""
    generator = as_generator(D.attached("generator"))
    if generator.fingerprint != D.origin["generator_fingerprint"]:
        made = f"(fingerprint {D.origin['generator_fingerprint']}, now {generator.fingerprint})"
        raise ValueError(
            f"the weights of {generator.name} have changed since this dissection was made {made}, so that its units "
            "and levels are those of another network; dissect it again"
        )
    return generator
