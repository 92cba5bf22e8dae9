"""Segmenters around functions, which may return labels, masks, scores or logits."""

import warnings
from collections.abc import Callable, Sequence

import torch

from ganlens.arguments import close_match, short_repr
from ganlens.borrowed import borrowed, modules_in
from ganlens.segmenters.base import Segmenter, as_concepts, check_ignore, check_scores, without

OUTPUTS = ("labels", "masks", "scores", "logits", "sigmoid")
BEYOND = 0.01  # by which scores may leave [0, 1]


class FunctionSegmenter(Segmenter):
    """A segmenter around a plain function; see `Segmenter.wrap`.

    Attributes
    ----------
    output : str or None
        What the function returns; None as long as nothing that tells was seen.
    about : str
        Why it is taken for that.
    """

    # What is found out is kept under hidden names, so that it does not make another segmenter of this one.

    def __init__(
        self,
        function: Callable,
        concepts: Sequence,
        name: str | None = None,
        output: str | None = None,
        ignore: int | None = None,
    ):
        if not callable(function):
            raise ValueError(f"function: {type(function).__name__} given; expected one from images to labels or scores")
        if not (output is None or (isinstance(output, str) and output in OUTPUTS)):
            raise ValueError(close_match("output", output, OUTPUTS, "Segmenter.wrap"))
        check_ignore(ignore)
        self.function, self.said, self.ignore = function, output, ignore
        self._output, self._about = output, "as you say" if output else "not run yet"
        self.concepts = as_concepts(concepts)
        usual: str = getattr(function, "__qualname__", type(function).__name__)
        self.name = name or usual

    @property
    def output(self) -> str | None:
        return self._output

    @property
    def about(self) -> str:
        return self._about

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        result = self.result(images)
        return self.as_scores(result) if self.output in ("scores", "logits", "sigmoid") else super().scores(images)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result = self.result(images)
        if self.output == "masks":
            number = torch.arange(1, len(self.concepts) + 1, device=result.device)[:, None, None]
            return (result != 0) * number
        if self.output == "labels":
            return without(result.long(), self.ignore, len(self.concepts))
        return self.planes(self.as_scores(result), self.threshold or self.usual_threshold())

    def usual_threshold(self) -> float:
        """What a score must exceed: half, where no other concept competes."""
        return 0.5 if self.output == "sigmoid" or (self.output == "scores" and self.stand_alone()) else 0.0

    def stand_alone(self) -> bool:
        """Whether each concept has a category of its own."""
        return all(len(members) == 1 for members in self.members())

    def as_scores(self, result: torch.Tensor) -> torch.Tensor:
        """Scores (N, C, h, w) in [0, 1] of what the function returned."""
        if self.output == "sigmoid":
            return result.sigmoid()
        if self.output == "scores":
            return result
        scores = torch.empty_like(result)
        for members in self.members():
            scores[:, members] = result[:, members].softmax(1)
        return scores

    def result(self, images: torch.Tensor) -> torch.Tensor:
        """What the function returns, with four axes; ValueError if that is not what it is taken for."""
        if not isinstance(images, torch.Tensor) or images.ndim != 4:
            raise ValueError(f"images: {short_repr(images)} given; expected a tensor (N, 3, Y, X)")
        with borrowed(*modules_in(self.function)):
            result = self.function(images.clone())
        if not isinstance(result, torch.Tensor):
            raise ValueError(
                f"{self.name} returned {type(result).__name__}; expected a tensor of labels or scores: give a function "
                'that takes it out, such as lambda x: net(x)["out"], or torch.from_numpy(…)'
            )
        if result.is_complex():
            raise ValueError(f"{self.name} returned {result.dtype}; expected labels or scores")
        result = result.to_dense()
        if result.is_floating_point():
            check_scores(result, len(images), len(self.concepts), self.name)
        elif result.ndim not in (3, 4):
            raise ValueError(f"{self.name} returned labels {tuple(result.shape)}; expected (N, L, h, w) or (N, h, w)")
        result = result if result.ndim == 4 else result[:, None]
        self.look_at(result)
        return result

    def look_at(self, result: torch.Tensor) -> None:
        """Decide what the function returns, where it is not known; ValueError where it is something else after all."""
        if self.output is None:
            self._output, self._about, warning = self.guess(result)
            if warning:
                warnings.warn(f"{self.name}: {warning}", stacklevel=5)
        if self.ignore is not None and self.output != "labels":
            raise ValueError(
                f"{self.name}: ignore={self.ignore} is a label, but it returns {self.output} ({self.about})"
            )
        real = result.is_floating_point()
        if real != (self.output in ("scores", "logits", "sigmoid")):
            raise ValueError(
                f"{self.name} returned {result.dtype}, but is taken for output={self.output!r}: {self.about}"
            )
        if self.output == "masks" and (result.shape[1] != len(self.concepts) or highest(result) not in (0, 1, 255)):
            raise ValueError(
                f"{self.name} returned {tuple(result.shape)} with values up to {highest(result)}, but is taken for "
                f"masks of {len(self.concepts)} concepts ({self.about}); give output='labels' if it numbers them"
            )
        if self.output == "scores" and self.said is None and is_outside(result):
            raise ValueError(
                f"{self.name} returned scores {result.min():.3g} … {result.max():.3g}, but is taken for "
                f"output='scores', in [0, 1] ({self.about}); give output='logits' or 'sigmoid'"
            )

    def doubt(self, scores: torch.Tensor) -> str:
        """A warning where scores of one category may stand alone: a softmax adds up to 1, or less without the rest."""
        sums = [scores[:, members].sum(1) for members in self.members() if len(members) > 1]
        if not sums or max(float(some.detach().max()) for some in sums) <= 1 + BEYOND:
            return ""
        return (
            "scores that add up to more than 1: the highest one of a category wins in each pixel. If each stands "
            "alone, set .threshold = 0.5, or give each concept a category of its own"
        )

    def guess(self, result: torch.Tensor) -> tuple[str, str, str]:
        """What a first result is taken for, why, and a warning where it could be something else."""
        one_each = result.shape[1] == len(self.concepts)
        if result.is_floating_point():
            if result.isnan().any():
                raise ValueError(f"{self.name} returned {int(result.isnan().sum())} values that are no numbers")
            if not is_outside(result):
                return "scores", "values in [0, 1]", self.doubt(result)
            seen = f"values {result.min():.3g} … {result.max():.3g} of {tuple(result.shape)}"
            if self.stand_alone():
                return "sigmoid", f"{seen}, and one concept in each category", ""
            said = f"{seen} are taken for logits of which one concept wins in each pixel"
            return "logits", seen, f"{said}; say so by output='logits', or give 'sigmoid' where each stands alone"
        if result.dtype == torch.bool:
            if not one_each:
                shape = f"{tuple(result.shape)} for {len(self.concepts)} concepts"
                raise ValueError(f"{self.name} returned booleans {shape}; expected one plane for each, (N, C, h, w)")
            return "masks", "booleans, one plane for each concept", ""
        if (
            one_each
            and self.ignore is None
            and len(self.concepts) < 255
            and {255} <= set(result.unique().tolist()) <= {0, 255}
        ):
            said = "values 0 and 255 are taken for masks; give ignore=255 if 255 is to count nowhere"
            return "masks", "values 0 and 255", said
        if one_each and len(self.concepts) > 1 and highest(result) == 1:
            seen = f"one plane for each of {len(self.concepts)} concepts, all values 0 or 1"
            said = f"{seen}, taken for masks; say so by output='masks', or give 'labels' if 1 is a number"
            return "masks", seen, said
        return "labels", "whole numbers", ""


def highest(result: torch.Tensor) -> int:
    return int(result.long().max()) if result.numel() else 0


def is_outside(scores: torch.Tensor) -> bool:
    """Whether values leave [0, 1] by more than rounding."""
    low, high = scores.detach().aminmax()
    return bool(low < -BEYOND or high > 1 + BEYOND)
