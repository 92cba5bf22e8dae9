"""How well a classifier tells each class apart, before and after edits.

Accuracy is that of Bau et al. (PNAS 2020) for a single class: the share of its images that are called by its name and
the share of all others that are not, averaged. Guessing gives a half, however rare the class is.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ganlens.arguments import as_list, check_integer
from ganlens.dissection.result import Dissection
from ganlens.effects.counting import check_draws, on_levels
from ganlens.intervals import middle_of, ratio, resamples
from ganlens.measuring import measure
from ganlens.models.batch_size import default_batch
from ganlens.models.classifier import Classifier
from ganlens.models.editing import Edit, as_edits
from ganlens.progress import steps
from ganlens.shards import Arrays, check_executor
from ganlens.tables import Tabular


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassAccuracy(Tabular):
    """How well each class is told apart, before and after edits, and after random edits of the same size.

    N images, K classes, R random sets. Arrays (K,) are nan for classes that are not in the images.

    Attributes
    ----------
    edits : tuple of Edit
        What was done.
    class_names : tuple of str
        Names of the K classes.
    seeds : array (N,)
        Which images were looked at.
    truth, said_before, said_after : arrays (N,)
        The class of each image, and what the network says.
    said_random : array (R, N)
        What it says when as many random units are edited instead.
    complete : bool
        False where an interrupt left some of the images out.
    """

    index: ClassVar[str] = "class"

    edits: tuple[Edit, ...]
    class_names: tuple[str, ...]
    seeds: np.ndarray
    truth: np.ndarray
    said_before: np.ndarray
    said_after: np.ndarray
    said_random: np.ndarray
    complete: bool = True

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.truth)

    @property
    def before(self) -> np.ndarray:
        """Accuracy (K,) of telling each class from all others, without edits; a half is chance."""
        return self._accuracy(self.said_before)

    @property
    def after(self) -> np.ndarray:
        """The same with the edits (K,)."""
        return self._accuracy(self.said_after)

    @property
    def random(self) -> np.ndarray:
        """The same with each random set (R, K)."""
        return np.array([self._accuracy(said) for said in self.said_random]).reshape(-1, len(self.class_names))

    @property
    def recognized(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of each class's own images that are called by its name, before and after (K,), (K,)."""
        own, said = self._is(self.truth), (self.said_before, self.said_after)
        before, after = (ratio((own & self._is(what)).sum(0), own.sum(0)) for what in said)
        return before, after

    @property
    def drop(self) -> np.ndarray:
        """How much accuracy each class loses (K,)."""
        return self.before - self.after

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 99 % interval of ``drop`` (K,), (K,): bootstrap over images, 1,000 draws from a fixed seed."""
        weights = resamples(self.n)
        ends = np.full((2, len(self.class_names)), np.nan)
        known = ~np.isnan(self.drop)
        draws = self._accuracy(self.said_before, weights) - self._accuracy(self.said_after, weights)
        ends[:, known] = middle_of(draws[:, known])
        return ends[0], ends[1]

    def collateral_of(self, class_name: str) -> float:
        """What becomes of images of other classes: the share that is not recognized any more, averaged over classes.

        Images of the class itself that are called by another name now are false alarms there: they lower the accuracy
        of the other classes, but are not counted here.
        """
        if class_name not in self.class_names:
            raise ValueError(f"no class {class_name!r}; there are {', '.join(self.class_names)}")
        before, after = self.recognized
        return float(np.nanmean(np.delete(before - after, self.class_names.index(class_name))))

    def rows(self) -> list[dict]:
        """One dict per class that is in the images, the one that loses most first."""
        (low, high), (known, still) = self.interval, self.recognized
        order = [c for c in np.argsort(-self.drop, kind="stable").tolist() if not np.isnan(self.drop[c])]
        random = self.random.mean(0) if len(self.random) else np.full(len(self.drop), np.nan)
        columns = {"before": self.before, "after": self.after, "drop": self.drop, "low": low, "high": high}
        columns |= {"random": random, "recognized_before": known, "recognized_after": still}
        counts = np.bincount(self.truth, minlength=len(self.class_names))
        return [
            {"class": self.class_names[c], "images": int(counts[c])}
            | {name: round(float(values[c]), 4) for name, values in columns.items()}
            for c in order
        ]

    def _is(self, said: np.ndarray) -> np.ndarray:
        """Whether each class was said (N, K)."""
        return said[:, None] == np.arange(len(self.class_names))

    def _accuracy(self, said: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Accuracy (K,), or (draws, K) where each image counts as often as ``weights`` (draws, N) say."""
        found = balanced(self._is(self.truth), self._is(said), np.ones((1, self.n)) if weights is None else weights)
        return found[0] if weights is None else found

    def __repr__(self) -> str:
        images = f"{self.n} images" + ("" if self.complete else ", incomplete")
        if not self.edits:
            return f"{np.nanmean(self.before):.1%} of single-class accuracy on average ({images})"
        worst = int(np.nanargmax(self.drop))
        (low, high), name = self.interval, self.class_names[worst]
        units = sum(len(edit.units) for edit in self.edits)
        layers = ", ".join(dict.fromkeys(edit.layer for edit in self.edits))
        lost = self.collateral_of(name)
        others = f"{abs(lost):.1%} {'more' if lost < 0 else 'less'}"
        random = ", ".join(f"{drop:.1%}" for drop in (self.before - self.random)[:, worst])
        random = f"; with as many random units: {random}" if random else ""
        return (
            f"{units} unit{'s' * (units > 1)} of {layers} edited: accuracy of {name} "
            f"{self.before[worst]:.1%} → {self.after[worst]:.1%}, {self.drop[worst]:.1%} less ({low[worst]:.1%} … "
            f"{high[worst]:.1%}, {images}){random}; of the images of other classes {others} are recognized"
        )


def class_accuracy(
    D: Dissection | Classifier,
    edits: Sequence[Edit] | Edit = (),
    seeds: Sequence[int] | None = None,
    *,
    n: int = 1000,
    draws: int = 3,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> ClassAccuracy:
    """Accuracy of each class before and after edits, and after edits of as many random units.

    An interrupt returns what was seen so far, marked as incomplete; where nothing was, it is raised.

    Parameters
    ----------
    D : Dissection or Classifier
        Of a classifier.
    edits : sequence of Edit
        For example ``gl.important_units(D, "church").edit``; none gives the accuracy as it is.
    seeds : sequence of int, optional
        Which images; by default those that `important_units` does not look at, at most ``n``, of all
        classes alike.
    draws : int
        Number of random sets. They are of other units than the edited ones, where the layer has as many.
    executor, shards
        Who works, as for `ganlens.dissect`; the result is the same to the bit.

    Raises
    ------
    ValueError
        A generator; images whose classes are not known; edits that do not fit.

    Examples
    --------
    >>> import ganlens as gl, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> C = gl.Classifier.wrap(net, 2 * torch.rand(8, 3, 4, 4) - 1, labels=[0, 1] * 4)
    >>> gl.class_accuracy(C, gl.ablate("0", [1]), draws=1, progress=False).random.shape
    (1, 2)
    """
    check_executor(executor, shards)
    C, edits = classifier_of(D), as_edits(edits)
    for edit in edits:
        C.check_edit(edit)
    draws = check_draws(draws)
    chosen = split_ranking_and_judging(C)[1][: check_n(n)] if seeds is None else labelled_seeds(C, seeds)
    if len(np.unique(C.truth[chosen])) < 2:
        raise ValueError(f"the {len(chosen)} images are all of one class; expected images of several")
    sets = [edits, *random_edits(C, edits, draws)] if edits else []
    opened_at = C.earliest([edit.layer for edit in edits]) if edits else None
    sets, cost = [tuple(on_levels(C, edit) for edit in some) for some in sets], 1 + len(sets)
    with steps(progress, len(chosen) * cost, "classify") as step:
        who = executor, shards
        said = measure(said_of, (C, opened_at, sets), chosen.tolist(), step, batch_of(C), *who, cost=cost)["said"].T
    if len(np.unique(C.truth[chosen[: said.shape[1]]])) < 2:  # too few to tell anything
        raise KeyboardInterrupt
    seen = chosen[: said.shape[1]]
    after, random = (said[1], said[2:]) if edits else (said[0], said[1:])
    whole = len(seen) == len(chosen)
    return ClassAccuracy(
        edits=edits,
        class_names=C.class_names,
        seeds=seen,
        truth=C.truth[seen],
        said_before=said[0],
        said_after=after,
        said_random=random,
        complete=whole,
    )


# ---- how


def balanced(truth: np.ndarray, said: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the shares (draws, K) of hits and of right rejections, from (N, K) and weights (draws, N) of images."""
    truth, said = np.broadcast_arrays(truth, said)
    hits = ratio(weights @ (truth & said), weights @ truth)
    rejections = ratio(weights @ (~truth & ~said), weights @ ~truth)
    return (hits + rejections) / 2


def said_of(C: Classifier, layer: str | None, sets: Sequence, images: Sequence[int], go_on) -> Arrays | None:
    """What the network says of images (N, 1 + E) without edits and with each set of edits; None if interrupted."""
    scores = scores_of(C, layer, sets, images, go_on)
    return None if scores is None else {"said": scores.argmax(2).cpu().numpy()}


def scores_of(C: Classifier, layer: str | None, sets: Sequence, images: Sequence[int], go_on) -> torch.Tensor | None:
    """Scores (N, 1 + E, K), from the layer on; None if interrupted before the end."""
    if layer is None:  # there are no edits
        every = [C.scores(images)]
    else:
        opened = C.open(layer, images)
        every = [opened.scores()]
        for edits in sets:
            if not go_on(len(images)):
                return None
            every.append(opened.scores(edits))
    go_on(len(images))
    return torch.stack(every, 1)


def classifier_of(D: Dissection | Classifier) -> Classifier:
    """The classifier that is meant, with images whose classes are known; ValueError if there is none."""
    C = D.attached("generator") if isinstance(D, Dissection) else D
    if not isinstance(C, Classifier):
        raise ValueError(
            f"{getattr(C, 'name', type(C).__name__)} is no classifier: make one of a network and images, "
            "gl.Classifier.wrap(net, images); for generators there is gl.ablation_effect"
        )
    if not (C.truth >= 0).any():
        raise ValueError(
            f"the classes of the images of {C.name} are not known: put them into subfolders, one for each class, or "
            "give labels=[…]"
        )
    return C


def split_ranking_and_judging(C: Classifier) -> tuple[np.ndarray, np.ndarray]:
    """Images that rank units, and images that judge: of each class every second one, the classes taking turns."""
    place = np.zeros(C.count, int)
    for c in range(len(C.class_names)):
        of_class = C.truth == c
        place[of_class] = np.arange(of_class.sum())
    order = np.argsort(place, kind="stable")
    order = order[C.truth[order] >= 0]
    return order[place[order] % 2 == 0], order[place[order] % 2 == 1]


def labelled_seeds(C: Classifier, seeds: Sequence[int]) -> np.ndarray:
    """Numbers of images whose classes are known; ValueError if some are not."""
    chosen = np.asarray(as_list("seeds", seeds, "whole numbers, at least one, for example range(100)"))
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise ValueError("seeds: expected whole numbers, at least one, for example range(100)")
    if chosen.min() < 0 or chosen.max() >= C.count:
        raise ValueError(f"images {chosen.min()} … {chosen.max()}: {C.name} has 0 … {C.count - 1}")
    unknown = chosen[C.truth[chosen] < 0]
    if len(unknown):
        raise ValueError(
            f"the class of image {unknown[0]} is not known; leave out the {len(unknown)} images without one"
        )
    return chosen


def check_n(n: int) -> int:
    return check_integer("n", n)


def random_edits(C: Classifier, edits: Sequence[Edit], draws: int) -> list[tuple[Edit, ...]]:
    """The same edits of random units, always the same; of units that are not edited, where there are as many."""
    random = np.random.default_rng(0)
    taken = {edit.layer: {u for e in edits if e.layer == edit.layer for u in e.units} for edit in edits}

    def other(edit: Edit) -> Edit:
        every = range(C.layers[edit.layer][0])
        free = [unit for unit in every if unit not in taken[edit.layer]]
        pool = free if len(free) >= len(edit.units) else every
        return edit.replace(units=random.choice(pool, len(edit.units), replace=False).tolist())

    return [tuple(other(edit) for edit in edits) for _ in range(draws)]


def batch_of(C: Classifier) -> int:
    """Images of which the features of all layers are near 64 MB."""
    return default_batch(C, list(C.layers))
