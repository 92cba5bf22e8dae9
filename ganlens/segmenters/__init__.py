"""Segmenters: the embedded one, and any function of your own through `Segmenter.wrap`."""

from ganlens.names import close_match
from ganlens.segmenters.base import Concept, Segmenter

SEGMENTERS = {"scenes": "thirteen concepts of painted scenes; embedded, needs no download"}


def load_segmenter(name: str = "scenes") -> Segmenter:
    """Load a segmenter by name; ValueError with close matches if there is none of that name.

    Examples
    --------
    >>> S = load_segmenter("scenes")
    >>> [str(concept) for concept in S.concepts[:3]]
    ['sky', 'cloud', 'sun']
    """
    if name == "scenes":
        from ganlens.segmenters.scenes import SceneSegmenter

        return SceneSegmenter()
    raise ValueError(close_match("segmenter", str(name), list(SEGMENTERS), "ganlens"))


__all__ = ["SEGMENTERS", "Concept", "Segmenter", "load_segmenter"]
