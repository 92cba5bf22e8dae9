"""What the units of a layer can be ranked by, for each concept."""

from numbers import Integral
from typing import NamedTuple

import numpy as np

from ganlens.arguments import close_match, short_repr
from ganlens.models.editing import as_array
from ganlens.segmenters.base import Concept, concept_index

KEPT_RANKINGS = {
    "gradient": "gl.unit_gradients(D)",
    "ace": "gl.optimize_units(D, {concept!r}).alpha, {concept!r}",
}


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


class Ranked:
    """Units in order, for a `Dissection`: by what was counted, and by what was measured later.

    U units, C concepts. ``iou`` and ``iqr`` (U, C) are always known, ``effects`` and ``rankings`` (U, C) once set.
    """

    layer: str
    concepts: tuple[Concept, ...]
    origin: dict[str, str]
    iou: np.ndarray
    iqr: np.ndarray
    effects: np.ndarray | None
    rankings: dict[str, np.ndarray]

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
        if not (k is None or (isinstance(k, Integral) and not isinstance(k, bool) and k >= 1)):
            have = f"{self.layer} has {len(self.iou)} units"
            raise ValueError(f"k={short_repr(k)}: {have}; expected at least 1, or None for all")
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
        if not isinstance(by, str):
            raise ValueError(f"by={short_repr(by)}: expected the name of a ranking, such as 'iou'")
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
        if not isinstance(by, str) or by not in KEPT_RANKINGS:
            raise ValueError(close_match("ranking", by, list(KEPT_RANKINGS), "this dissection"))
        kept = np.array(self.rankings.get(by, np.full(self.iou.shape, np.nan)))
        place = slice(None) if concept is None else concept_index(self.concepts, concept, self.origin["segmenter"])
        values = as_array("ranking", values)
        if values.shape != kept[:, place].shape:
            raise ValueError(f"ranking {by!r} of shape {values.shape}: expected {kept[:, place].shape}")
        kept[:, place] = values
        self.rankings = self.rankings | {by: kept}

    def check_effects(self) -> None:
        """ValueError if ``effects`` is not set, or not for all units."""
        if self.effects is None or np.shape(self.effects) != self.iou.shape:
            found = "not set" if self.effects is None else f"of shape {np.shape(self.effects)}, not {self.iou.shape}"
            raise ValueError(f"the effects of the units are {found}; measure them: D.effects = gl.unit_effects(D)")
