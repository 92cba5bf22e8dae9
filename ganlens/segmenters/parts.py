"""Parts of objects: the top, bottom, left and right half of each, from the labels of any segmenter."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ganlens.segmenters.base import Concept, Segmenter

SIDES = ("top", "bottom", "left", "right")


class PartSegmenter(Segmenter):
    """A segmenter's own concepts, and the four halves of each connected object.

    An object is a region of pixels of one label that touch by edge or corner. Its halves are those of its bounding box;
    the pixels of a middle row or column, where there is one, belong to neither half.

    Parameters
    ----------
    segmenter : Segmenter
        Finds the objects. Its labels are kept: they come first. ``S.parts()`` is short for ``PartSegmenter(S)``.
    of : sequence of str or Concept, optional
        What to divide; by default all of category "object".

    Raises
    ------
    ValueError
        The segmenter has no such concept, or none of category "object".

    Notes
    -----
    The label planes (N, 3 L, h, w) are the segmenter's, then for each of these one of top and bottom and one of left
    and right: a pixel is in two parts. The scores of a part are its object's, inside the labelled part only.

    Examples
    --------
    >>> S = Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["tree"]).parts()
    >>> [str(concept) for concept in S.concepts]
    ['tree', 'top of tree', 'bottom of tree', 'left of tree', 'right of tree']
    >>> S.labels(torch.ones(1, 3, 2, 2))[0, 1:].tolist()
    [[[2, 2], [3, 3]], [[4, 5], [4, 5]]]
    """

    def __init__(self, segmenter: Segmenter, of: Sequence[str | Concept] | None = None):
        self.segmenter, self.name = segmenter, f"parts of {segmenter.name}"
        own = segmenter.concepts
        if of is None:
            self.divided = [i for i, concept in enumerate(own) if concept.category == "object"]
        else:
            self.divided = sorted({segmenter.index(concept) for concept in ([of] if isinstance(of, str) else of)})
        if not self.divided:
            raise ValueError(f"{segmenter.name} has no concept of category 'object'; say what to divide: of=[…]")
        parts = [Concept(f"{side} of {own[i].name}", "part") for i in self.divided for side in SIDES]
        self.concepts = own + tuple(parts)
        if len(set(self.concepts)) < len(self.concepts):
            raise ValueError(f"{segmenter.name} has parts already, or two objects of one name; give the others: of=[…]")
        first = torch.zeros(len(own) + 1, dtype=torch.int64)  # label of the first part of each label; 0 for no parts
        first[torch.tensor(self.divided) + 1] = len(own) + 1 + len(SIDES) * torch.arange(len(self.divided))
        self.first = first

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        labels = self.segmenter.labels(images).long()
        first = self.first.to(labels.device)[labels.clamp(min=0)]
        sides = torch.from_numpy(halves_of_objects(first.cpu().numpy())).to(labels.device)
        parts = torch.where(sides > 0, first[:, :, None] + sides - 1, 0)
        return torch.cat([labels, parts.flatten(1, 2)], 1)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.segmenter.scores(images)
        labels = self.labels(images)[:, :, None]
        parts = []
        for k, i in enumerate(self.divided):
            numbers = torch.arange(len(SIDES), device=labels.device) + len(self.segmenter.concepts) + 1 + len(SIDES) * k
            inside = (labels == numbers[:, None, None]).any(1)
            parts.append(scores[:, i : i + 1] * inside)
        return torch.cat([scores, *parts], 1)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"parts {self.segmenter.fingerprint} {self.divided}".encode()).hexdigest()[:16]


def halves_of_objects(labels: np.ndarray) -> np.ndarray:
    """In which halves of its object each pixel lies.

    Parameters
    ----------
    labels : ndarray (N, L, h, w)
        Integer label planes, 0 = none.

    Returns
    -------
    ndarray (N, L, 2, h, w)
        int64: 1 top and 2 bottom in the first plane, 3 left and 4 right in the second; 0 for neither.
    """
    sides = np.zeros((*labels.shape[:2], 2, *labels.shape[2:]), np.int64)
    for n, plane in np.ndindex(*labels.shape[:2]):
        if labels[n, plane].any():
            sides[n, plane] = halves_of_plane(labels[n, plane])
    return sides


def halves_of_plane(labels: np.ndarray) -> np.ndarray:
    """Halves (2, h, w), as in `halves`, of one label plane (h, w)."""
    from skimage.measure import label as connected

    objects, count = connected(labels, return_num=True)
    sides = np.zeros((2, *labels.shape), np.int64)
    inside = np.nonzero(objects)
    which = objects[inside]
    for axis, at in enumerate(inside):
        low, high = np.full(count + 1, labels.shape[axis]), np.zeros(count + 1, np.int64)
        np.minimum.at(low, which, at)
        np.maximum.at(high, which, at)
        beyond = np.sign(2 * at - (low + high)[which])  # -1 before the middle of the box, 1 behind it
        sides[axis][inside] = np.where(beyond, (beyond + 3) // 2 + 2 * axis, 0)
    return sides
