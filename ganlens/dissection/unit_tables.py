"""What a dissection says of its units, in rows and in words."""

import json
from typing import TYPE_CHECKING

from ganlens.dissection.ranking import UnitLabel
from ganlens.dissection.saved import header_of
from ganlens.images import strip
from ganlens.segmenters.base import known_as
from ganlens.tables import html_table

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection


def rows_of(D: "Dissection") -> list[dict]:
    """One dict per unit: its label and numbers."""
    achieved, thresholds = D.achieved, D.thresholds
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
            **certificate_of(D, label.unit, D.concepts.index(label.concept)),
            "threshold": float(thresholds[label.unit]),
            "on": float(achieved[label.unit]),
            "top_seed": int(D.top[label.unit, 0]),
            **formula_of(D, label.unit),
        }
        for label in D.labels
    ]


def formula_of(D: "Dissection", unit: int) -> dict:
    """The formula that goes with a unit better than one concept, and its IoU; none where they were not searched."""
    if D.formulas is None:
        return {}
    found = D.formulas.of(unit)
    return {"formula": found.formula if found else "", "formula_iou": round(found.iou, 6) if found else float("nan")}


def certificate_of(D: "Dissection", unit: int, concept: int) -> dict:
    """How sure a match is: the interval of its IoU, whether it is certain, and the other measures; none if unknown."""
    known, names = D.certificates, ("pearson", "cosine", "average_precision")
    if known is None:
        return {}
    iou = float(D.iou[unit, concept])
    found = {"iou_low": known.low, "iou_high": known.high, "p": known.p, "q": known.q}
    return {
        **{name: float(f"{array[unit, concept]:.3g}") for name, array in found.items()},
        "certain": bool(known.certain[unit, concept]),
        "f1": round(2 * iou / (1 + iou), 6),
        **{name: round(float(getattr(known, name)[unit, concept]), 6) for name in names},
    }


def matches_of(D: "Dissection", index: int) -> list[dict]:
    """One dict per unit, best first: how well it matches the concept of an index, and what it draws."""
    return [
        {
            "unit": unit,
            "concept": D.concepts[index].name,
            "category": D.concepts[index].category,
            "iou": round(float(D.iou[unit, index]), 6),
            "chance": round(float(D.chance[index]), 6),
            "iqr": round(float(D.iqr[unit, index]), 6),
            **certificate_of(D, unit, index),
            "draws": D.labels[unit].concept.name if D.labels[unit].interpretable else "",
            "top_seed": int(D.top[unit, 0]),
        }
        for unit in D.units(D.concepts[index], k=None)
    ]


def summary_of(D: "Dissection") -> dict:
    """Counts of units, interpretable units and distinct concepts; and the concepts found, with their units."""
    found: dict[str, list[int]] = {}
    for label in sorted(D.labels, key=lambda label: -label.iou):
        if label.interpretable:
            found.setdefault(label.concept.name, []).append(label.unit)
    counts = {"units": len(D.iou), "interpretable": len(D.interpretable), "distinct": len(found)}
    if D.control is None:
        return counts | {"concepts": found}
    highest = dict(zip(known_as(D.concepts), D.control.round(6).tolist(), strict=True))
    return counts | {"concepts": found, "control": highest}


def json_of(D: "Dissection") -> str:
    """Settings, summary and rows as JSON."""
    return json.dumps(header_of(D) | {"summary": summary_of(D), "units": rows_of(D)}, indent=1)


def best_labels_of(D: "Dissection", k: int) -> list[UnitLabel]:
    """The interpretable units with the highest IoU, but the best of every concept first."""
    ranked = sorted((label for label in D.labels if label.interpretable), key=lambda label: -label.iou)
    first = {label.concept: label for label in reversed(ranked)}.values()
    heads = sorted(first, key=lambda label: -label.iou)
    return (heads + [label for label in ranked if label not in heads])[:k]


def title_of(D: "Dissection") -> str:
    s = summary_of(D)
    seen = f"{D.n:,} images" + ("" if D.complete else " (incomplete)")
    certain = sum(label.certain for label in D.labels if label.interpretable)
    known = D.certificates is not None and s["interpretable"]
    sure = "" if not known else "all certain, " if certain == s["interpretable"] else f"{certain} certain, "
    return (
        f"{D.layer} of {D.origin['generator']}: {s['interpretable']} of {s['units']} units draw one of "
        f"{s['distinct']} concepts ({sure}{seen}, rule {D.rule})"
    )


def spread_of(label: UnitLabel) -> str:
    """The interval of a label's IoU, and whether it may be by chance; empty if that is not known."""
    if label.low is None:
        return ""
    return f"{label.low:.3f} … {label.high:.3f}" + ("" if label.certain else ", maybe by chance")


def text_of(D: "Dissection") -> str:
    """The title, and a line for each of the best units."""
    lines = [title_of(D)]
    for b in D.best_labels():
        spread = f"{spread_of(b)}; " if spread_of(b) else ""
        iou = f"IoU {b.iou:.3f}  ({spread}chance {b.chance:.3f}; then {b.runner_up} {b.runner_up_iou:.3f})"
        lines.append(f"  unit {b.unit:4d}  {b.concept.name:<12} {iou}")
    return "\n".join(lines)


def html_of(D: "Dissection") -> str:
    """The same as a table, with top images where the generator is at hand."""
    best = D.best_labels()
    pictures = None
    if D.generator and best:
        pictures = [strip(row) for row in D.spotlights([b.unit for b in best], 6, factor=2)]
    columns = {
        "unit": [str(b.unit) for b in best],
        "draws": [b.concept.name for b in best],
        "IoU": [f"{b.iou:.3f}" for b in best],
        "95 %": [spread_of(b).replace(" ", "\u00a0") for b in best],
        "chance": [f"{b.chance:.3f}" for b in best],
        "runner-up": [f"{b.runner_up} {b.runner_up_iou:.3f}" for b in best],
    }
    return html_table(title_of(D), columns, pictures, "top images, lit where the unit is on")
