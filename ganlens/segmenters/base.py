"""What a segmenter is: something that says, pixel by pixel, which concepts an image shows."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ganlens.arguments import as_list, close_match, short_repr


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
        The vocabulary. Label v > 0 means ``concepts[v - 1]``; 0 means none.
    name : str
        For tables and messages.
    level : float
        A pixel is labelled only where the best score of its category exceeds this.

    Examples
    --------
    >>> bright = Segmenter.wrap(lambda x: (x.mean(1, keepdim=True) > 0).int(), ["bright"])
    >>> bright.labels(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 1, 4, 4])
    """

    concepts: tuple[Concept, ...] = ()
    name: str = "segmenter"
    level: float = 0.0

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Differentiable probability of each concept, (N, C, h, w) in [0, 1], for images (N, 3, Y, X) in [-1, 1]."""
        raise TypeError(f"{self.name} gives labels only, no differentiable scores; use a segmenter that has scores()")

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Label planes (N, L, h, w), integers, one plane per category, for images (N, 3, Y, X) in [-1, 1]."""
        with torch.no_grad():
            return self.planes(self.scores(images))

    def planes(self, scores: torch.Tensor) -> torch.Tensor:
        """Label planes (N, L, h, w) of scores (N, C, h, w): the best concept of each category."""
        planes = []
        for category in dict.fromkeys(concept.category for concept in self.concepts):
            members = [c for c, concept in enumerate(self.concepts) if concept.category == category]
            best, index = scores[:, members].max(1)
            number = torch.tensor(members, device=scores.device)[index] + 1
            planes.append(torch.where(best > self.level, number, 0))
        return torch.stack(planes, 1)

    def index(self, concept: str | Concept) -> int:
        """Position of a concept in the vocabulary, by name or by (name, category)."""
        return concept_index(self.concepts, concept, self.name)

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the labels; a wrapped function is known by its name and vocabulary only."""
        return hashlib.sha256(f"{self.name} {self.concepts} {self.level}".encode()).hexdigest()[:16]

    @staticmethod
    def wrap(
        function: Callable[[torch.Tensor], torch.Tensor],
        concepts: Sequence[str | tuple[str, str] | Concept],
        name: str | None = None,
    ) -> "Segmenter":
        """Make a segmenter of any function from images to label planes or to scores.

        Parameters
        ----------
        function : callable
            Images (N, 3, Y, X) in [-1, 1] to integer labels (N, L, h, w) or (N, h, w), 0 = none, or to floating-point
            scores (N, C, h, w) in [0, 1].
        concepts : sequence
            Names, or (name, category) pairs, in label order.
        name : str, optional
            For tables; the function's name by default.
        """
        return FunctionSegmenter(function, concepts, name)

    @staticmethod
    def from_masks(
        images: torch.Tensor, masks: torch.Tensor, concepts: Sequence, *, name: str = "masks"
    ) -> "Segmenter":
        """Make a segmenter of masks drawn for certain images: see `ganlens.segmenters.masks.MaskSegmenter`."""
        from ganlens.segmenters.masks import MaskSegmenter

        return MaskSegmenter(images, masks, concepts, name)

    def parts(self, of: Sequence[str | Concept] | None = None) -> "Segmenter":
        """Divide objects into halves: see `ganlens.segmenters.parts.PartSegmenter`."""
        from ganlens.segmenters.parts import PartSegmenter

        return PartSegmenter(self, of)

    def __add__(self, other: "Segmenter") -> "Segmenter":
        """Join two vocabularies: see `ganlens.segmenters.union.UnionSegmenter`."""
        from ganlens.segmenters.union import UnionSegmenter

        return UnionSegmenter(self, other)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.concepts)} concepts>"


class FunctionSegmenter(Segmenter):
    """A segmenter around a plain function; see `Segmenter.wrap`."""

    def __init__(self, function: Callable, concepts: Sequence, name: str | None = None):
        self.function = function
        self.concepts = as_concepts(concepts)
        usual: str = getattr(function, "__qualname__", type(function).__name__)
        self.name = name or usual

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        result = self.result(images)
        return result if result.is_floating_point() else super().scores(images)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result = self.result(images)
        if result.is_floating_point():
            return self.planes(result)
        return result if result.ndim == 4 else result[:, None]

    def result(self, images: torch.Tensor) -> torch.Tensor:
        """What the function returns; ValueError if that can be neither labels nor scores."""
        if not isinstance(images, torch.Tensor) or images.ndim != 4:
            raise ValueError(f"images: {short_repr(images)} given; expected a tensor (N, 3, Y, X)")
        result = self.function(images)
        if not isinstance(result, torch.Tensor):
            raise ValueError(f"{self.name} returned {type(result).__name__}; expected a tensor of labels or scores")
        if result.is_floating_point():
            check_scores(result, len(images), len(self.concepts), self.name)
        elif result.ndim not in (3, 4):
            raise ValueError(f"{self.name} returned labels {tuple(result.shape)}; expected (N, L, h, w) or (N, h, w)")
        return result


def as_concepts(concepts: Sequence[str | tuple[str, str] | Concept]) -> tuple[Concept, ...]:
    """Vocabulary of names and (name, category) pairs; an error if it is empty or lists a concept twice."""
    found = tuple(map(as_concept, as_list("concepts", concepts, "names, for example ['tree', 'sky']")))
    if not found:
        raise ValueError("no concepts given: name at least one, for example ['tree']")
    if len(set(found)) < len(found):
        raise ValueError("a concept is listed twice; (name, category) pairs must differ")
    return found


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
    return Concept(*parts)


def check_labels(labels: torch.Tensor, n: int, concepts: int, name: str) -> torch.Tensor:
    """Label planes (N, L, h, w) as they are; ValueError if they are not what `Segmenter.labels` promises."""
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"segmenter {name} returned {type(labels).__name__}; expected a tensor ({n}, L, h, w)")
    real = labels.is_floating_point() or labels.is_complex()
    if labels.ndim != 4 or len(labels) != n or not labels.numel() or real:
        raise ValueError(
            f"segmenter {name} returned {labels.dtype} {tuple(labels.shape)} for {n} images; "
            f"expected integer label planes ({n}, L, h, w)"
        )
    low, high = labels.aminmax()
    if low < 0 or high > concepts:
        raise ValueError(f"segmenter {name} returned labels {low} … {high}; expected 0 … {concepts}, 0 for none")
    return labels


def check_scores(scores: torch.Tensor, n: int, concepts: int, name: str) -> torch.Tensor:
    """Scores (N, C, h, w) as they are; ValueError if they are of another shape."""
    if scores.ndim != 4 or tuple(scores.shape[:2]) != (n, concepts) or not scores.numel():
        raise ValueError(f"{name} returned scores {tuple(scores.shape)}; expected ({n}, {concepts}, h, w)")
    return scores
