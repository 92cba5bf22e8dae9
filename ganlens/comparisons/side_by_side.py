"""Dissections side by side: layers of a model, models, data sets, the steps of a training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ganlens.arguments import close_match
from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import Concept, concept_index
from ganlens.tables import Tabular, as_table, html_table


class BestUnit(NamedTuple):
    """The unit of one dissection that matches a concept best."""

    name: str  # of the dissection
    unit: int
    iou: float
    chance: float
    unit_count: int  # interpretable units whose label is the concept


@dataclass(eq=False, repr=False)
class BestUnits:
    """One concept in all dissections: the unit that matches it best in each.

    Attributes
    ----------
    concept : Concept
        Which one.
    best : tuple of BestUnit
        One for each dissection, in their order.
    dissections : mapping of str to Dissection
        Where they are from.
    """

    concept: Concept
    best: tuple[BestUnit, ...]
    dissections: Mapping[str, Dissection]

    def strips(self, k: int = 6) -> dict[str, np.ndarray]:
        """Top images of each unit in a row, lit where it is on: pictures (Y, X, 3) by name of the dissection."""
        return {best.name: self.dissections[best.name].strip(best.unit, k) for best in self.best}

    def __repr__(self) -> str:
        width = max(len(best.name) for best in self.best)
        lines = [f"{self.concept}: the best unit of each"]
        for best in self.best:
            numbers = f"unit {best.unit:4d}  IoU {best.iou:.3f}  (chance {best.chance:.3f})"
            lines.append(f"  {best.name:<{width}}  {numbers}  {best.unit_count} units draw it")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        live = all(self.dissections[best.name].generator is not None for best in self.best)
        columns = {
            "": [best.name for best in self.best],
            "best unit": [str(best.unit) for best in self.best],
            "IoU": [f"{best.iou:.3f}" for best in self.best],
            "units that draw it": [str(best.unit_count) for best in self.best],
        }
        pictures = list(self.strips().values()) if live else None
        return html_table(f"{self.concept}", columns, pictures, "top images, lit where the unit is on")


class Comparison(Tabular, Mapping):
    """Dissections side by side, by name. Made by `compare`; a mapping of names to dissections.

    K dissections, C concepts.

    Attributes
    ----------
    dissections : dict of str to Dissection
        What is compared, in its order.
    concepts : tuple of Concept
        The vocabulary that all of them share.
    """

    def __init__(self, dissections: Mapping[str, Dissection]):
        self.dissections = dict(dissections)
        self.concepts = next(iter(self.dissections.values())).concepts

    def __getitem__(self, name: str) -> Dissection:
        if name not in self.dissections:
            raise KeyError(close_match("dissection", name, list(self.dissections), "this comparison"))
        return self.dissections[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.dissections)

    def __len__(self) -> int:
        return len(self.dissections)

    # ---- numbers

    @cached_property
    def unit_counts(self) -> np.ndarray:
        """How many interpretable units of each dissection have each concept as label (K, C)."""
        index = {concept: c for c, concept in enumerate(self.concepts)}
        counts = np.zeros((len(self), len(self.concepts)), int)
        for row, D in zip(counts, self.values(), strict=True):
            for label in D.labels:
                row[index[label.concept]] += label.interpretable
        return counts

    @cached_property
    def iou(self) -> np.ndarray:
        """IoU of the best unit of each dissection for each concept (K, C)."""
        return np.stack([D.iou.max(0) for D in self.values()])

    def drawn_in(self, concept: str | Concept) -> list[str]:
        """Names of the dissections in which a unit draws the concept."""
        index = concept_index(self.concepts, concept, "this comparison")
        return [name for name, count in zip(self, self.unit_counts[:, index], strict=True) if count]

    def best_units(self, concept: str | Concept) -> BestUnits:
        """The unit of each dissection that matches a concept best, with its pictures.

        Examples
        --------
        >>> import ganlens as gl
        >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
        >>> C = gl.compare(gl.dissect(G, S, ["layer4", "layer5"], n=16, progress=False))
        >>> {name: picture.shape for name, picture in C.best_units("tree").strips(k=2).items()}
        {'layer4': (192, 387, 3), 'layer5': (192, 387, 3)}
        """
        index = concept_index(self.concepts, concept, "this comparison")
        units = (
            BestUnit(
                name, D.units(self.concepts[index], 1)[0], float(iou[index]), float(D.chance[index]), int(count[index])
            )
            for (name, D), iou, count in zip(self.items(), self.iou, self.unit_counts, strict=True)
        )
        return BestUnits(self.concepts[index], tuple(units), self.dissections)

    # ---- tables

    def summary_rows(self) -> list[dict]:
        """One dict per dissection: units, interpretable units and distinct concepts, in all and by category."""
        categories = dict.fromkeys(concept.category for concept in self.concepts)
        members = {c: [i for i, concept in enumerate(self.concepts) if concept.category == c] for c in categories}
        rows = []
        for (name, D), counts in zip(self.items(), self.unit_counts, strict=True):
            row = {"name": name, "generator": D.origin["generator"], "layer": D.layer, "units": len(D.iou)}
            row |= {"interpretable": int(counts.sum()), "distinct": int(np.count_nonzero(counts))}
            for category, some in members.items():
                row |= {f"{category} units": int(counts[some].sum())}
                row |= {f"{category} concepts": int(np.count_nonzero(counts[some]))}
            rows.append(row)
        return rows

    def rows(self) -> list[dict]:
        """One dict per concept and dissection: how many units draw it, the best one, and its IoU."""
        best = [self.best_units(concept) for concept in self.concepts]
        return [
            {
                "concept": each.concept.name,
                "category": each.concept.category,
                "name": unit.name,
                "units": unit.unit_count,
                "best_unit": unit.unit,
                "iou": round(unit.iou, 6),
                "chance": round(unit.chance, 6),
            }
            for each in best
            for unit in each.best
        ]

    def summary_table(self):
        """The summary: a pandas DataFrame when pandas is installed, otherwise a list of dicts."""
        return as_table(self.summary_rows(), "name")

    def __repr__(self) -> str:
        rows = self.summary_rows()
        width = max(len(row["name"]) for row in rows)
        lines = [self._title()]
        for row in rows:
            found = f"{row['interpretable']:4d} of {row['units']:4d} units draw one of {row['distinct']:3d} concepts"
            lines.append(f"  {row['name']:<{width}}  {found}")
        return "\n".join(lines)

    def _title(self) -> str:
        D = next(iter(self.values()))
        generators = ", ".join(dict.fromkeys(D.origin["generator"] for D in self.values()))
        seen = f"{D.n:,} images, segmenter {D.origin['segmenter']}, rule {D.rule}"
        return f"{len(self)} dissections of {generators} ({seen})"

    def _repr_html_(self) -> str:
        rows = self.summary_rows()
        shown = [key for key in rows[0] if key not in ("generator", "layer")]
        counts = {"" if key == "name" else key: [str(row[key]) for row in rows] for key in shown}
        drawn = sorted(np.flatnonzero(self.unit_counts.any(0)), key=lambda c: -self.iou[:, c].max())
        concepts = {"concept": [str(self.concepts[c]) for c in drawn]}
        for name, iou, units in zip(self, self.iou, self.unit_counts, strict=True):
            concepts[f"{name} "] = [f"{iou[c]:.3f} ({units[c]})" if units[c] else "–" for c in drawn]
        text = "Best IoU of each concept, and how many units draw it"
        return html_table(self._title(), counts) + html_table(text, concepts)


def compare(dissections: Mapping[str, Dissection]) -> Comparison:
    """Put dissections side by side: of layers, models, data sets, or the steps of a training.

    They must have been made with the same segmenter, the same sample and the same rule; generators and layers may
    differ. What `ganlens.dissect` gives for several layers can be compared as it is.

    Parameters
    ----------
    dissections : dict of str to Dissection
        At least two, each with a name of your choice.

    Returns
    -------
    Comparison
        ``gl.plots.layers_bars(C)`` and ``gl.plots.concept_matrix(C)`` draw it.

    Raises
    ------
    TypeError
        Something else than dissections was given.
    ValueError
        Fewer than two, or made in different ways; the message says in which, and how to make them comparable.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> C = gl.compare(gl.dissect(G, S, ["layer1", "layer5"], n=16, progress=False))
    >>> [row["units"] for row in C.summary_rows()]
    [256, 160]
    """
    if not isinstance(dissections, Mapping):
        raise TypeError(f"{type(dissections).__name__} given; expected a dict of dissections by name")
    for name, D in dissections.items():
        if not isinstance(D, Dissection):
            hint = "; choose one rule: {layer: by_rule['quantile'] …}" if isinstance(D, Mapping) else ""
            raise TypeError(f"{name!r} is a {type(D).__name__}; expected a Dissection{hint}")
    if len(dissections) < 2:
        raise ValueError(f"{len(dissections)} dissections given: a comparison takes at least two")
    (first, D), *others = dissections.items()
    for name, other in others:
        check_comparable(first, D, name, other)
    return Comparison({str(name): D for name, D in dissections.items()})


def check_comparable(first: str, D: Dissection, second: str, other: Dissection) -> None:
    """ValueError if two dissections were made in different ways."""
    mine, theirs = made_how(D), made_how(other)
    different = [what for what in mine if mine[what] != theirs[what]]
    if D.rule != other.rule and "quantile" in different:
        different.remove("quantile")
    if different:
        differences = "; ".join(f"{what}: {cut(mine[what])} and {cut(theirs[what])}" for what in different)
        settings = f"n={D.n}, rule={D.rule!r}, quantile={D.quantile:g}, sample={D.sample}"
        settings += ", within_category=True" if D.within_category else ""
        raise ValueError(
            f"{first!r} and {second!r} cannot be compared, they were made in different ways ({differences}); "
            f"make both with the same segmenter S and the same settings: gl.dissect(G, S, layer, {settings})"
        )


def made_how(D: Dissection) -> dict[str, object]:
    """What must be equal for counts and IoU to be comparable."""
    return {
        "segmenter": f"{D.origin['segmenter']} (fingerprint {D.origin.get('segmenter_fingerprint')})",
        "concepts": ", ".join(concept.name for concept in D.concepts),
        "n": D.n,
        "sample": D.sample,
        "rule": D.rule,
        "quantile": D.quantile if D.rule == "quantile" else None,
        "within_category": D.within_category,
    }


def cut(value: object, longest: int = 80) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
