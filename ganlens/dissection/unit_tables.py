"""What a dissection says of its units, one row for each."""

from typing import TYPE_CHECKING

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
            "threshold": float(thresholds[label.unit]),
            "on": float(achieved[label.unit]),
            "top_seed": int(D.top[label.unit, 0]),
        }
        for label in D.labels
    ]


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
            "draws": D.labels[unit].concept.name if D.labels[unit].interpretable else "",
            "top_seed": int(D.top[unit, 0]),
        }
        for unit in D.units(D.concepts[index], k=None)
    ]
