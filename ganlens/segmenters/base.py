"""What a segmenter is: something that says, pixel by pixel, which concepts an image shows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

import torch

from ganlens.arguments import as_list, close_match, printable, short_repr
from ganlens.borrowed import borrowed, modules_in

IGNORED = -1  # label of pixels that count nowhere


class Concept(NamedTuple):
    """One word of a vocabulary: "glass" the object is not "glass" the material."""

    name: str
    category: str = "object"

    def __str__(self) -> str:
        return self.name


class Segmenter:
    """Base of all segmenters; subclasses set ``concepts`` and define ``scores`` or ``labels``.

    Attributes
    ----------
    concepts : tuple of Concept
        The vocabulary. Label v > 0 means ``concepts[v - 1]``; 0 means none, -1 that a pixel counts nowhere: not for a
        threshold, not for a union.
    name : str
        For tables and messages.
    threshold : float
        A pixel is labelled only where the best score of its category exceeds this.

    Examples
    --------
    >>> bright = Segmenter.wrap(lambda x: (x.mean(1, keepdim=True) > 0).int(), ["bright"])
    >>> bright.labels(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 1, 4, 4])
    """

    concepts: tuple[Concept, ...] = ()
    name: str = "segmenter"
    threshold: float = 0.0

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Differentiable probability of each concept, (N, C, h, w) in [0, 1], for images (N, 3, Y, X) in [-1, 1]."""
        raise TypeError(f"{self.name} gives labels only, no differentiable scores; use a segmenter that has scores()")

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Label planes (N, L, h, w), integers, one plane per category, for images (N, 3, Y, X) in [-1, 1]."""
        with torch.no_grad():
            return self.planes(self.scores(images))

    def planes(self, scores: torch.Tensor, threshold: float | None = None) -> torch.Tensor:
        """Label planes (N, L, h, w) of scores (N, C, h, w): the best concept of each category, above ``threshold``."""
        threshold = self.threshold if threshold is None else threshold
        planes = []
        for members in self.members():
            best, index = scores[:, members].max(1)
            number = torch.tensor(members, device=scores.device)[index] + 1
            planes.append(torch.where(best > threshold, number, 0))
        return torch.stack(planes, 1)

    def members(self) -> list[list[int]]:
        """The concepts of each category, by their places in the vocabulary."""
        categories = dict.fromkeys(concept.category for concept in self.concepts)
        return [[c for c, concept in enumerate(self.concepts) if concept.category == one] for one in categories]

    def index(self, concept: str | Concept) -> int:
        """Position of a concept in the vocabulary, by name or by (name, category)."""
        return concept_index(self.concepts, concept, self.name)

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the labels; a wrapped function is known by its name and vocabulary only."""
        return hashlib.sha256(f"{self.name} {self.concepts} {self.threshold}".encode()).hexdigest()[:16]

    @staticmethod
    def wrap(
        function: Callable[[torch.Tensor], torch.Tensor],
        concepts: Sequence[str | tuple[str, str] | Concept],
        name: str | None = None,
        *,
        output: str | None = None,
        ignore: int | None = None,
    ) -> "Segmenter":
        """Make a segmenter of any function from images to labels, masks or scores.

        Parameters
        ----------
        function : callable
            Takes images (N, 3, Y, X) in [-1, 1]: a copy of its own. Networks that it refers to run in evaluation mode
            and are put back into theirs.
        concepts : sequence
            Names, or (name, category) pairs, in label order.
        name : str, optional
            For tables; the function's name by default.
        output : {"labels", "masks", "scores", "logits", "sigmoid"}, optional
            What the function returns: integer labels (N, L, h, w) or (N, h, w), 0 = none; masks (N, C, h, w), one plane
            of booleans, or of 0 and 1, for each concept; scores (N, C, h, w) in [0, 1]; logits (N, C, h, w), of which a
            softmax over the concepts of a category makes scores, or the sigmoid of each. By default that is seen from
            its first result, with a warning where it could be two things.
        ignore : int, optional
            The label of pixels that count nowhere, as at edges that nobody has labelled; 255, by custom, where there
            are fewer concepts.

        Raises
        ------
        ValueError
            When labels are asked for: the function returned something else.
        """
        from ganlens.segmenters.functions import FunctionSegmenter

        return FunctionSegmenter(function, concepts, name, output, ignore)

    @staticmethod
    def from_masks(
        images: torch.Tensor,
        masks: torch.Tensor,
        concepts: Sequence,
        *,
        name: str = "masks",
        ignore: int | None = None,
    ) -> "Segmenter":
        """Make a segmenter of masks drawn for certain images: see `ganlens.segmenters.masks.MaskSegmenter`."""
        from ganlens.segmenters.masks import MaskSegmenter

        return MaskSegmenter(images, masks, concepts, name, ignore)

    def parts(self, of: Sequence[str | Concept] | None = None) -> "Segmenter":
        """Divide objects into halves: see `ganlens.segmenters.parts.PartSegmenter`."""
        from ganlens.segmenters.parts import PartSegmenter

        return PartSegmenter(self, of)

    def only(self, *concepts: str | Concept) -> "Segmenter":
        """Some of the concepts; pixels of others are of none: see `ganlens.segmenters.selection.SelectedSegmenter`.

        Examples
        --------
        >>> import ganlens as gl
        >>> [str(concept) for concept in gl.load_segmenter("scenes").only("door", "window").concepts]
        ['door', 'window']
        """
        from ganlens.segmenters.selection import only

        return only(self, concepts)

    def merge(self, merged: Mapping[str, Sequence[str | Concept]]) -> "Segmenter":
        """Several concepts of a category as one: see `ganlens.segmenters.selection.SelectedSegmenter`.

        Examples
        --------
        >>> import ganlens as gl
        >>> S = gl.load_segmenter("scenes").merge({"plant": ["tree", "grass"]})
        >>> len(S.concepts), "plant" in [concept.name for concept in S.concepts]
        (12, True)
        """
        from ganlens.segmenters.selection import merge

        return merge(self, merged)

    def __add__(self, other: "Segmenter") -> "Segmenter":
        """Join two vocabularies: see `ganlens.segmenters.union.UnionSegmenter`."""
        from ganlens.segmenters.union import UnionSegmenter

        return UnionSegmenter(self, other)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.concepts)} concepts>"


def as_concepts(concepts: Sequence[str | tuple[str, str] | Concept]) -> tuple[Concept, ...]:
    """Vocabulary of names and (name, category) pairs; an error if it is empty or lists a concept twice."""
    found = tuple(map(as_concept, as_list("concepts", concepts, "names, for example ['tree', 'sky']")))
    if not found:
        raise ValueError("no concepts given: name at least one, for example ['tree']")
    if len(set(found)) < len(found):
        raise ValueError("a concept is listed twice; (name, category) pairs must differ")
    return found


def known_as(concepts: Sequence[Concept]) -> list[str]:
    """What each concept is called where its category is not shown: its name, with the category if it is there twice."""
    names = [concept.name for concept in concepts]
    return [f"{c.name}:{c.category}" if names.count(c.name) > 1 else c.name for c in concepts]


def concept_index(concepts: Sequence[Concept], concept: str | Concept, owner: str) -> int:
    """Position of a concept, by name, by name:category or by both; an error if it is missing or ambiguous."""
    if isinstance(concept, str):
        found = [i for i, known in enumerate(concepts) if concept in (known.name, f"{known.name}:{known.category}")]
    else:
        found = [i for i, known in enumerate(concepts) if known == as_concept(concept)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(str(tuple(concepts[i])) for i in found)
        raise ValueError(f"concept {concept!r} is ambiguous in {owner}: give one of {choices}")
    raise ValueError(close_match("concept", concept, [c.name for c in concepts], owner))


def as_concept(concept: str | tuple[str, str] | Concept) -> Concept:
    """A concept of its name, or of name and category; ValueError for anything else."""
    parts = (concept,) if isinstance(concept, str) else concept
    if not isinstance(parts, tuple | list) or not 1 <= len(parts) <= 2 or not all(isinstance(p, str) for p in parts):
        raise ValueError(f"concept {short_repr(concept)}: expected a name, or a pair of name and category")
    if any(part != printable(part) or not part for part in parts):
        raise ValueError(f"concept {short_repr(concept)}: expected a name of letters that can be shown, not too many")
    return Concept(*parts)


def checked_labels(segmenter: Segmenter, images: torch.Tensor, ignored: bool = False) -> torch.Tensor:
    """Label planes (N, L, h, w) of images by any segmenter; ValueError if they are not what it promises.

    Pixels that count nowhere have 0, as those of no concept; or `IGNORED` in all planes, where ``ignored`` are told.
    """
    with torch.no_grad(), borrowed(*modules_in(segmenter)):
        labels = segmenter.labels(images.clone())
    labels = check_labels(labels, len(images), len(segmenter.concepts), segmenter.name)
    if not ignored:
        return labels.clamp(min=0)
    return labels if labels.shape[1] == 1 else torch.where((labels < 0).any(1, keepdim=True), IGNORED, labels)


def without(labels: torch.Tensor, ignore: int | None, concepts: int) -> torch.Tensor:
    """Labels with `IGNORED` where they have the number that says so: by custom 255, where that is no concept."""
    number = 255 if ignore is None and concepts < 255 else ignore
    return labels if number is None else torch.where(labels == number, IGNORED, labels)


def check_ignore(ignore: int | None) -> None:
    """ValueError unless this is a label, or None."""
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, Integral)):
        raise ValueError(f"ignore={short_repr(ignore)}: expected the label of pixels that count nowhere, or None")


def checked_scores(segmenter: Segmenter, images: torch.Tensor) -> torch.Tensor:
    """Scores (N, C, h, w) of images by any segmenter; ValueError if they are not what it promises."""
    with borrowed(*modules_in(segmenter)):
        scores = segmenter.scores(images.clone())
    return check_scores(scores, len(images), len(segmenter.concepts), segmenter.name)


def check_labels(labels: torch.Tensor, n: int, concepts: int, name: str) -> torch.Tensor:
    """Label planes (N, L, h, w) as whole numbers of 64 bits; ValueError if they are none."""
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"segmenter {name} returned {type(labels).__name__}; expected a tensor ({n}, L, h, w)")
    real = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    if labels.ndim != 4 or len(labels) != n or not labels.numel() or real:
        raise ValueError(
            f"segmenter {name} returned {labels.dtype} {tuple(labels.shape)} for {n} images; "
            f"expected integer label planes ({n}, L, h, w)"
        )
    labels = labels.to_dense().long()
    low, high = labels.aminmax()
    if low < IGNORED or high > concepts:
        raise ValueError(
            f"segmenter {name} returned labels {low} … {high}; expected 0 … {concepts}, 0 for none, and {IGNORED} for "
            "pixels that count nowhere; another number for these: ignore=…"
        )
    return labels


def check_scores(scores: torch.Tensor, n: int, concepts: int, name: str) -> torch.Tensor:
    """Scores (N, C, h, w) as they are; ValueError if they are of another shape."""
    if scores.ndim != 4 or tuple(scores.shape[:2]) != (n, concepts) or not scores.numel():
        raise ValueError(f"{name} returned scores {tuple(scores.shape)}; expected ({n}, {concepts}, h, w)")
    return scores
