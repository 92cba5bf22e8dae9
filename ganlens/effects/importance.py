"""Which units of a classifier a class needs: what its accuracy loses without each of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import check_count
from ganlens.effects.accuracy import (
    balanced,
    batch_of,
    check_n,
    classifier_of,
    labelled_seeds,
    scores_of,
    split_ranking_and_judging,
)
from ganlens.effects.counting import on_levels
from ganlens.measuring import measure
from ganlens.models.classifier import Classifier
from ganlens.models.editing import Edit, ablate
from ganlens.progress import steps
from ganlens.shards import Arrays, check_executor


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportantUnits:
    """Units that a class needs: what its accuracy loses when each of U units alone is switched off.

    Attributes
    ----------
    layer, class_name : str
        Of which layer, for which class.
    units : tuple of int
        The most important ones, best first.
    drops : array (U,)
        What the accuracy of the class loses without each unit.
    fading : array (U,)
        What the probability of the class loses, on average over its images; decides between equal drops.
    accuracy : float
        With all units; a half is chance.
    seeds : array (N,)
        Which images were looked at.
    to : {"zero", "mean"}
        Level of the ablation.
    complete : bool
        False where an interrupt left some of the images out.
    """

    layer: str
    class_name: str
    units: tuple[int, ...]
    drops: np.ndarray
    fading: np.ndarray
    accuracy: float
    seeds: np.ndarray
    to: str = "zero"
    complete: bool = True

    @property
    def edit(self) -> Edit:
        """Switches them all off."""
        return ablate(self.layer, self.units, to=self.to)

    @property
    def order(self) -> list[int]:
        """All units, the most important one first."""
        return np.lexsort((-self.fading, -self.drops)).tolist()

    def __repr__(self) -> str:
        some = ", ".join(f"{unit} ({self.drops[unit]:.1%})" for unit in self.units[:8])
        images = f"{len(self.seeds)} images" + ("" if self.complete else ", incomplete")
        return (
            f"{self.class_name} is told apart at {self.accuracy:.1%} ({images}); loss without a unit of {self.layer}: "
            f"{some}{' …' if len(self.units) > 8 else ''}"
        )


def important_units(
    D: Dissection,
    class_name: str,
    k: int = 4,
    *,
    n: int = 400,
    to: str = "zero",
    seeds: Sequence[int] | None = None,
    progress: bool | Callable[[int, int], None] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> ImportantUnits:
    """Rank units by what the accuracy of a class loses when each alone is switched off (Bau et al., PNAS 2020).

    Of each class, every second image ranks units, and the others judge: `class_accuracy` looks at those.

    Each batch of images is taken up to the layer once; what lies behind it runs for every unit. An interrupt returns
    the ranking by the batches that were finished, marked as incomplete; where none was, it is raised.

    Parameters
    ----------
    D : Dissection
        Of a classifier's layer.
    class_name : str
        One of the classes.
    k : int
        How many units ``.units`` and ``.edit`` have; ``.order`` has all.
    n : int
        Number of images at most, half of them of the class; `class_accuracy` judges on others.
    to : {"zero", "mean"}
        Level of the ablation.
    seeds : sequence of int, optional
        Which images instead.
    executor, shards
        Who works, as for `ganlens.dissect`; the result is the same to the bit.

    Raises
    ------
    ValueError
        A generator, no such class, no images of it or none of others.

    Examples
    --------
    >>> import ganlens as gl, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> x, types = 2 * torch.rand(32, 3, 64, 64) - 1, ["dome", "tower"]
    >>> C = gl.Classifier.wrap(net, x, labels=[0, 1] * 16, class_names=types)
    >>> D = gl.dissect(C, gl.load_segmenter("scenes"), "0", n=32, progress=False)
    >>> gl.important_units(D, "dome", k=1, progress=False).drops.shape
    (2,)
    """
    if not isinstance(D, Dissection):
        raise ValueError(f"{type(D).__name__} given; expected a Dissection, of the layer whose units are meant")
    check_executor(executor, shards)
    C = classifier_of(D)
    target = C.class_index(class_name)
    check_count(D, k)
    chosen = of_class_and_others(C, target, check_n(n)) if seeds is None else labelled_seeds(C, seeds)
    truth = C.truth[chosen] == target
    if truth.all() or not truth.any():
        raise ValueError(
            f"{truth.sum()} of {len(truth)} images are of class {class_name}; expected some of it and some of others"
        )
    edits = [on_levels(C, ablate(D.layer, [unit], to=to)) for unit in range(len(D.iou))]
    with steps(progress, len(chosen) * (1 + len(edits)), "ablate") as step:
        things, who = (C, D.layer, edits, target), (executor, shards)
        found = measure(said_and_sure, things, chosen.tolist(), step, batch_of(C), *who, cost=1 + len(edits))
    said, sure = found["said"].T, found["sure"].T  # (1 + U, N)
    truth = truth[: said.shape[1]]
    if truth.all() or not truth.any():  # too few to tell anything
        raise KeyboardInterrupt
    accuracy = balanced(truth[:, None], said.T, np.ones((1, len(truth))))[0]  # (1 + U,)
    fading = (sure[0] - sure[1:])[:, truth].mean(1)
    drops, seen = accuracy[0] - accuracy[1:], chosen[: len(truth)]
    units = tuple(np.lexsort((-fading, -drops))[:k].tolist())
    return ImportantUnits(
        layer=D.layer,
        class_name=class_name,
        units=units,
        drops=drops,
        fading=fading,
        accuracy=float(accuracy[0]),
        seeds=seen,
        to=to,
        complete=len(seen) == len(chosen),
    )


def said_and_sure(
    C: Classifier, layer: str, edits: Sequence[Edit], target: int, images: Sequence[int], go_on
) -> Arrays | None:
    """Whether a class is said of images, and its probability (N, 1 + U), whole and under each edit."""
    scores = scores_of(C, layer, [(edit,) for edit in edits], images, go_on)
    if scores is None:
        return None
    sure = scores.softmax(2)[..., target]
    return {"said": (scores.argmax(2) == target).cpu().numpy(), "sure": sure.double().cpu().numpy()}


def of_class_and_others(C: Classifier, target: int, n: int) -> np.ndarray:
    """At most n images that rank units, half of them of a class where there are as many; the two take turns."""
    ranking = split_ranking_and_judging(C)[0]
    own = ranking[C.truth[ranking] == target][: max(n // 2, 1)]
    others = ranking[C.truth[ranking] != target][: max(n - len(own), 1)]
    turns = np.concatenate([np.linspace(0, 1, len(part)) for part in (own, others)])
    return np.concatenate([own, others])[np.argsort(turns, kind="stable")]
