"""Segmenters: by name, from a folder, and any function of your own through `Segmenter.wrap`."""

import os
import re

from ganlens.arguments import check_kind, close_match
from ganlens.segmenters.base import Concept, Segmenter

HUB = {  # short names of networks that the transformers package runs
    "upernet": "openmmlab/upernet-convnext-tiny",
    "upernet-swin": "openmmlab/upernet-swin-tiny",
    "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
    "mask2former": "facebook/mask2former-swin-tiny-ade-semantic",
    "clipseg": "CIDAS/clipseg-rd64-refined",
}

SEGMENTERS = {
    "scenes": "thirteen concepts of painted scenes; embedded, needs no download",
    "colors": "the eleven basic colors; needs no network and no download",
    "upernet": f"150 concepts of ADE20K, the network of the paper ({HUB['upernet']})",
    "upernet-swin": f"150 concepts of ADE20K ({HUB['upernet-swin']})",
    "segformer": f"150 concepts of ADE20K, fast ({HUB['segformer']})",
    "mask2former": f"150 concepts of ADE20K ({HUB['mask2former']})",
    "clipseg": f"the concepts that you type: concepts=[…] ({HUB['clipseg']})",
}


def load_segmenter(name: str | os.PathLike = "scenes", **options) -> Segmenter:
    """Load a segmenter by name, by model id or from a folder.

    Segmenters can be joined, ``load_segmenter("scenes") + load_segmenter("colors")``, and can divide objects into
    halves: ``load_segmenter("scenes").parts()``.

    Parameters
    ----------
    name : str or path
        A name in ``SEGMENTERS``, names joined by "+", a model id of huggingface.co, or a folder with a model that
        `transformers` saved.
    **options
        For networks of `transformers`: ``size``, ``grid`` and ``batch_size`` of
        `ganlens.segmenters.huggingface.HuggingFaceSegmenter`; for CLIPSeg ``concepts``, ``level``, ``prompt``, ``grid``
        and ``batch_size`` of `ganlens.segmenters.clipseg.ClipSegSegmenter`.

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
    name = os.fspath(check_kind("segmenter", name, str | os.PathLike, "a name, a model id or a folder"))
    if name == "scenes":
        from ganlens.segmenters.scenes import SceneSegmenter

        return SceneSegmenter(**options)
    if name == "colors":
        from ganlens.segmenters.colors import ColorSegmenter

        return ColorSegmenter(**options)
    if name in HUB:
        return load_network(HUB[name], options, typed=name == "clipseg")
    if os.path.exists(name):
        return load_network(name, options)
    if "+" in name and not options:
        from ganlens.segmenters.union import UnionSegmenter

        return UnionSegmenter(*(load_segmenter(part.strip()) for part in name.split("+")))
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return load_network(name, options)
    raise ValueError(close_match("segmenter", name, list(SEGMENTERS), "ganlens") + ", model ids and folders")


def load_network(source: str, options: dict, typed: bool = False) -> Segmenter:
    """Open a folder or model id: a CLIPSeg if concepts are typed, else a network that has its own."""
    if typed or "concepts" in options:
        from ganlens.segmenters.clipseg import ClipSegSegmenter

        return ClipSegSegmenter(source, **options)
    from ganlens.segmenters.huggingface import HuggingFaceSegmenter

    return HuggingFaceSegmenter(source, **options)


__all__ = ["SEGMENTERS", "Concept", "Segmenter", "load_segmenter"]
