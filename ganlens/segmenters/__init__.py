"""Segmenters: by name, from a folder, and any function of your own through `Segmenter.wrap`."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from pkgutil import iter_modules
from types import ModuleType

from ganlens.arguments import check_kind, close_match
from ganlens.segmenters.base import Concept, Segmenter, as_concepts

FIRST = ("scenes", "colors")  # of the list: those that need no download


def known_segmenters() -> dict[str, ModuleType]:
    """What loads each segmenter that has a name: the file of this folder that says so.

    Such a file says two things: ``NAMES``, what there is by name and in a line each; and ``load(name, **options)``.
    """
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: module for module in modules for name in getattr(module, "NAMES", ())}


def list_segmenters() -> dict[str, str]:
    """The names that `load_segmenter` takes, and what each is.

    Examples
    --------
    >>> list_segmenters()["colors"]
    'the eleven basic colors; needs no network and no download'
    """
    known = known_segmenters()
    return {name: known[name].NAMES[name] for name in sorted(known, key=lambda name: (name not in FIRST, name))}


def load_segmenter(name: str | os.PathLike = "scenes", **options) -> Segmenter:
    """Load a segmenter by name, by model id or from a folder.

    Segmenters can be joined, ``load_segmenter("scenes") + load_segmenter("colors")``, and can divide objects into
    halves: ``load_segmenter("scenes").parts()``.

    Parameters
    ----------
    name : str or path
        A name that `list_segmenters` gives, names joined by "+", a model id of huggingface.co, or a folder with a model
        that `transformers` saved.
    **options
        For networks of `transformers`: ``size``, ``grid`` and ``batch_size`` of
        `ganlens.segmenters.huggingface.HuggingFaceSegmenter`; for CLIPSeg ``concepts``, ``threshold``, ``prompt``,
        ``grid`` and ``batch_size`` of `ganlens.segmenters.clipseg.ClipSegSegmenter`.

    Raises
    ------
    ValueError
        There is none of that name (with close matches), or the model is of another kind.
    ImportError
        The segmenter needs transformers, which is not installed.
    OSError
        A file is missing or cannot be downloaded; the message says where to put which files.

    Examples
    --------
    >>> S = load_segmenter("scenes")
    >>> [str(concept) for concept in S.concepts[:3]]
    ['sky', 'cloud', 'sun']
    """
    source = os.fspath(check_kind("segmenter", name, str | os.PathLike, "a name, a model id or a folder"))
    known = known_segmenters()
    if source in known:
        return loaded(known[source].load, source, options)
    if os.path.exists(source):
        return load_network(source, options)
    if "+" in source and not options:
        from ganlens.segmenters.union import UnionSegmenter

        return UnionSegmenter(*(load_segmenter(part.strip()) for part in source.split("+")))
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        return load_network(source, options)
    raise ValueError(close_match("segmenter", source, list(list_segmenters()), "ganlens") + ", model ids and folders")


def loaded(load: Callable[..., Segmenter], name: str, options: dict) -> Segmenter:
    """A segmenter by its file's ``load``; ValueError for options that it does not have."""
    parameters = signature(load).parameters.values()
    if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        names = [p.name for p in parameters][1:]
        for option in options:
            if option not in names:
                has = f"it has {', '.join(names)}" if names else "it has none"
                raise ValueError(f"segmenter {name!r} has no option {option!r}; {has}")
    segmenter = load(name, **options)
    segmenter.concepts = as_concepts(segmenter.concepts)
    return segmenter


def load_network(source: str, options: dict) -> Segmenter:
    """Open a folder or model id: a CLIPSeg if concepts are typed, else a network that has its own."""
    if "concepts" in options:
        from ganlens.segmenters.clipseg import ClipSegSegmenter

        return ClipSegSegmenter(source, **options)
    from ganlens.segmenters.huggingface import HuggingFaceSegmenter

    return HuggingFaceSegmenter(source, **options)


__all__ = ["Concept", "Segmenter", "list_segmenters", "load_segmenter"]
