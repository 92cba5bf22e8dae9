"""Several segmenters as one, with their categories kept apart."""

import hashlib
from collections import Counter

import torch
from torch.nn import functional as F

from ganlens.segmenters.base import Concept, Segmenter


class UnionSegmenter(Segmenter):
    """What several segmenters find, side by side: their label planes one after the other, their vocabularies joined.

    No concept competes with those of another segmenter. A category that several of them have is told apart by the
    segmenter's name: "object (scenes)", "object (clipseg)".

    Parameters
    ----------
    *segmenters : Segmenter
        Two or more, of different names where they share a category; ``A + B`` is short for ``UnionSegmenter(A, B)``.
    size : tuple of int, optional
        Height and width of the label planes; by default the finest among the segmenters'. Labels are brought to it by
        their nearest pixel, scores by bilinear interpolation.

    Raises
    ------
    ValueError
        Fewer than two segmenters, or two of one name that share a concept.

    Examples
    --------
    >>> from ganlens.segmenters import load_segmenter
    >>> S = load_segmenter("scenes") + load_segmenter("colors")
    >>> S.labels(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    def __init__(self, *segmenters: Segmenter, size: tuple[int, int] | None = None):
        if len(segmenters) < 2:
            raise ValueError(f"a union takes two segmenters or more, got {len(segmenters)}")
        self.segmenters, self.size = segmenters, size
        self.name = " + ".join(segmenter.name for segmenter in segmenters)
        owners = Counter(category for s in segmenters for category in {c.category for c in s.concepts})
        self.concepts = tuple(
            Concept(name, f"{category} ({s.name})" if owners[category] > 1 else category)
            for s in segmenters
            for name, category in s.concepts
        )
        if len(set(self.concepts)) < len(self.concepts):
            raise ValueError(f"two segmenters of {self.name} have one name and share a concept; set their .name")

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        found, before = [], 0
        for segmenter in self.segmenters:
            labels = segmenter.labels(images).long()
            found.append(torch.where(labels > 0, labels + before, labels))
            before += len(segmenter.concepts)
        size = self.common_size(found)
        return torch.cat([nearest(labels, size) for labels in found], 1)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        found = [segmenter.scores(images) for segmenter in self.segmenters]
        size = self.common_size(found)
        return torch.cat([x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear") for x in found], 1)

    def __add__(self, other: Segmenter) -> "UnionSegmenter":
        return UnionSegmenter(*self.segmenters, other, size=self.size)

    def common_size(self, found: list[torch.Tensor]) -> tuple[int, int]:
        """Height and width of the finest of several maps, or the size that was asked for."""
        height, width = self.size or max((x.shape[2:] for x in found), key=lambda size: size[0] * size[1])
        return height, width

    @property
    def fingerprint(self) -> str:
        text = f"union {[segmenter.fingerprint for segmenter in self.segmenters]} {self.concepts} {self.size}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def nearest(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Label planes (N, L, h, w) on another grid: each pixel takes the label at the pixel that its centre lies in."""
    if tuple(labels.shape[2:]) == tuple(size):
        return labels
    rows, columns = (
        ((torch.arange(new, device=labels.device) * 2 + 1) * old).div(2 * new, rounding_mode="floor")
        for old, new in zip(labels.shape[2:], size, strict=True)
    )
    return labels[:, :, rows[:, None], columns]
