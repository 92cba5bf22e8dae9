"""One honest sentence about a unit, made of what was measured and of nothing else."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ganlens.arguments import first_few, short_repr

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection

LEAST = 0.005  # share of a concept's pixels; less is none


def describe(D: "Dissection", unit: int, context: Any = None) -> str:
    """What a unit is on for, how sure that is, what goes when it is switched off, and where it draws, if measured."""
    label = D.labels[unit]
    name, known = label.concept.name, label.low is not None
    if unit in D.broken:
        return f"Unit {unit} gave NaN or infinity, and matches nothing."
    if unit in D.dead:
        return f"Unit {unit} has the same value everywhere, and matches nothing."
    sure = "" if not known else ", certain" if label.certain else ", which may be chance"
    spread = f", 95 % {label.low:.2f} … {label.high:.2f}" if label.low is not None else ""
    numbers = f"(IoU {label.iou:.2f}{spread}{sure})"
    if label.interpretable:
        words = f"Unit {unit} is on where {name} is {numbers}."
    elif D.control is not None and usual_bar(D) < label.iou <= D.control[D.concepts.index(label.concept)]:
        words = f"Unit {unit} goes best with {name} {numbers}, no better than units of an untrained network do."
    else:
        words = f"Unit {unit} goes best with {name} {numbers}, too weakly to be called interpretable."
    return words + formula_of(D, unit) + effect_of(D, unit) + where_of(D, unit, context)


def usual_bar(D: "Dissection") -> float:
    """IoU that the rule asks of interpretable units."""
    return 0.05 if D.rule == "iqr" else 0.04


def where_of(D: "Dissection", unit: int, context: Any) -> str:
    """Where it draws, by a `ganlens.context` in which it was switched on."""
    if context is None:
        return ""
    edit = getattr(context, "edit", None)
    if edit is None or not hasattr(context, "sentence"):
        raise ValueError(f"context={short_repr(context)}: expected a Context, as gl.context returns it")
    if edit.layer != D.layer or unit not in edit.units:
        raise ValueError(f"the context is that of units {first_few(edit.units)} of {edit.layer}, without unit {unit}")
    return f" {context.sentence()}"


def formula_of(D: "Dissection", unit: int) -> str:
    """The formula that goes with it better than one concept, where formulas were searched."""
    found = D.formulas.of(unit) if D.formulas else None
    if found is None:
        return ""
    return (
        f" Closer, on held-out images: {found.formula} (IoU {found.iou:.2f}; the best single concept there, "
        f"{found.concept}, has {found.concept_iou:.2f}; that gain is certain)."
    )


def effect_of(D: "Dissection", unit: int) -> str:
    """What goes when it is switched off, where effects were measured."""
    if D.effects is None:
        return ""
    effects = np.asarray(D.effects)[unit]
    own = effects[D.concepts.index(D.labels[unit].concept)]
    if np.isnan(own):
        return ""
    name = D.labels[unit].concept.name
    first = f"{own:.0%} of the pixels of {name} go" if own >= LEAST else f"no pixels of {name} go"
    if own < -LEAST:
        first = f"{-own:.0%} more pixels of {name} come"
    most = int(np.nanargmax(np.abs(effects)))
    other = D.concepts[most].name
    if other == name or abs(effects[most]) < LEAST:
        return f" Switched off alone, {first}."
    way = "go" if effects[most] > 0 else "come"
    return f" Switched off alone, {first}; most of all, {abs(effects[most]):.0%} of those of {other} {way}."
