"""Look inside image generators: what each unit draws, and what happens when it is switched off or on.

>>> import ganlens as gl
>>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
>>> D = gl.dissect(G, S, "layer4", n=200, progress=False)
>>> images = G.generate(seeds=range(4), edits=[gl.ablate("layer4", D.units("tree"))])
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "models.classifier",
    "Comparison": "comparisons.side_by_side",
    "ComparisonView": "widgets.comparison",
    "Concept": "segmenters.base",
    "Context": "effects.context_result",
    "Dissection": "dissection.result",
    "Edit": "models.editing",
    "Explorer": "widgets.explorer",
    "Generator": "models.base",
    "Recipe": "recipe",
    "Segmenter": "segmenters.base",
    "UnitGallery": "widgets.gallery",
    "IoUHeatmap": "widgets.heatmap",
    "InterventionCanvas": "widgets.canvas",
    "ablate": "models.editing",
    "ablation_effect": "effects.ablation",
    "average_causal_effect": "effects.insertion",
    "class_accuracy": "effects.accuracy",
    "compare": "comparisons.side_by_side",
    "compare_rankings": "effects.rankings",
    "context": "effects.context",
    "dissect": "dissection.dissect",
    "find_artifacts": "effects.artifacts",
    "important_units": "effects.importance",
    "insert": "models.editing",
    "insertion_effect": "effects.insertion",
    "list_models": "models",
    "list_segmenters": "segmenters",
    "load_generator": "models",
    "load_segmenter": "segmenters",
    "match_and_cause": "effects.rankings",
    "match_units": "comparisons.unit_matches",
    "minimal_units": "effects.minimal_units",
    "optimize_units": "effects.optimization",
    "painting_page": "pages.painting_page",
    "paintable": "effects.paintable",
    "plots": "plots",
    "replay": "recipe",
    "report": "pages.report",
    "sanity_checks": "dissection.sanity",
    "segmentation_distance": "comparisons.segmentation_distance",
    "unit_effects": "effects.single_units",
    "unit_formulas": "dissection.unit_formulas",
    "unit_gradients": "effects.rankings",
    "where": "effects.context",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        from difflib import get_close_matches

        meant = [known for known in __all__ if name.lower() in known.lower()] or get_close_matches(name, __all__)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise AttributeError(f"module 'ganlens' has no attribute {name!r}{hint}")
    module = import_module(f"ganlens.{_HOMES[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
