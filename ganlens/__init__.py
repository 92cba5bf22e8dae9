"""Look inside image generators: what each unit draws, and what happens when it is switched off or on.

>>> import ganlens as gl
>>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
>>> D = gl.dissect(G, S, "layer4", n=200, progress=False)
>>> images = G.generate(seeds=range(4), edits=[gl.ablate("layer4", D.units("tree"))])
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "models.classifier",
    "Comparison": "comparison",
    "ComparisonView": "widgets.comparison",
    "Concept": "segmenters.base",
    "Context": "context",
    "Dissection": "dissection",
    "Edit": "instrument",
    "Explorer": "widgets.explorer",
    "Generator": "models.base",
    "Recipe": "recipe",
    "Segmenter": "segmenters.base",
    "UnitGallery": "widgets.gallery",
    "IoUHeatmap": "widgets.heatmap",
    "InterventionCanvas": "widgets.canvas",
    "ablate": "instrument",
    "ablation_effect": "causal",
    "average_causal_effect": "insertion",
    "class_accuracy": "accuracy",
    "compare": "comparison",
    "compare_rankings": "rankings",
    "context": "context",
    "dissect": "matching",
    "find_artifacts": "artifacts",
    "important_units": "importance",
    "insert": "instrument",
    "insertion_effect": "insertion",
    "list_models": "models",
    "load_generator": "models",
    "load_segmenter": "segmenters",
    "match_and_cause": "rankings",
    "match_units": "correspondence",
    "minimal_units": "selection",
    "optimize_units": "optimization",
    "plots": "plots",
    "replay": "recipe",
    "report": "report",
    "segmentation_distance": "areas",
    "unit_effects": "causal",
    "unit_gradients": "rankings",
    "where": "context",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ganlens' has no attribute {name!r}")
    module = import_module(f"ganlens.{_HOMES[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """A package in which `context` and `report` are functions: Python would bind these names to their modules."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in ("context", "report") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
