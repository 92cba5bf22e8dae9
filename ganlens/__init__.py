"""Look inside image generators: what each unit draws, and what happens when it is switched off or on.

>>> import ganlens as gl
>>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
>>> D = gl.dissect(G, S, "layer4", n=200, progress=False)
>>> images = G.generate(seeds=range(4), edits=[gl.ablate("layer4", D.units("tree"))])
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Concept": "segmenters.base",
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
    "dissect": "matching",
    "insert": "instrument",
    "list_models": "models",
    "load_generator": "models",
    "load_segmenter": "segmenters",
    "plots": "plots",
    "replay": "recipe",
    "unit_effects": "causal",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ganlens' has no attribute {name!r}")
    module = import_module(f"ganlens.{_HOMES[name]}")
    value = module if _HOMES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
