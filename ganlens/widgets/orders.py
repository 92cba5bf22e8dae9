"""What the units of a concept can be ranked by on the canvas, measured when it is first asked for."""

from collections.abc import Callable

from ganlens.dissection.result import Dissection
from ganlens.effects.optimization import optimize_units
from ganlens.effects.rankings import unit_gradients
from ganlens.effects.single_units import unit_effects

ORDERS = {"highest IoU": "iou", "largest effect": "effect", "gradient": "gradient", "optimised together": "ace"}


def measure_order(D: Dissection, concept: str, order: str, progress: Callable[[int, int], None]) -> None:
    """Have a dissection know an order of the units for a concept, so that ``D.units(concept, by=order)`` answers."""
    if order == "effect":
        D.effects = unit_effects(D, progress=progress)
    elif order == "gradient":
        D.keep_ranking(order, unit_gradients(D, progress=progress))
    elif order == "ace":
        D.keep_ranking(order, optimize_units(D, concept, progress=progress).alpha, concept)
