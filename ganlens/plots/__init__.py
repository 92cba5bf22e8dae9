"""Matplotlib figures: pictures in sheets, numbers in charts. Nothing is measured here.

A function draws into ``ax``, or into a new figure where none is given, and returns what it drew into: Axes. New figures
belong to pyplot, like those of ``plt.subplots``: a notebook shows them below the cell and closes them, a script calls
``ax.figure.savefig(…)`` or ``plt.show()``, and ``plt.close()`` where it makes many.
"""

from ganlens.plots.artifacts import artifact_repair, distance_bars
from ganlens.plots.charts import concept_bars, effect_bars, iou_matrix, layers_bars
from ganlens.plots.classes import class_bars
from ganlens.plots.comparison import area_bars, best_units, concept_matrix, match_curves
from ganlens.plots.context import context_bars, context_map
from ganlens.plots.context_sheet import context_sheet
from ganlens.plots.effects import correlation_vs_cause, ranking_curves
from ganlens.plots.paintable import paintable
from ganlens.plots.sheets import before_after, images, segmentation, unit_maps, unit_strips

__all__ = [
    "area_bars",
    "artifact_repair",
    "before_after",
    "best_units",
    "class_bars",
    "concept_bars",
    "concept_matrix",
    "context_bars",
    "context_map",
    "context_sheet",
    "correlation_vs_cause",
    "distance_bars",
    "effect_bars",
    "images",
    "iou_matrix",
    "layers_bars",
    "match_curves",
    "paintable",
    "ranking_curves",
    "segmentation",
    "unit_maps",
    "unit_strips",
]
