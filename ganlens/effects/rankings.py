"""Rankings of units for a concept: by gradient, compared with each other, and what matches against what causes."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import as_list, check_image_count, check_number, check_sample
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.ablation import Effect, as_units_of, check_count, check_steps, effects_of
from ganlens.effects.counting import BATCH, seeds_of
from ganlens.measuring import measure
from ganlens.models.editing import ablate
from ganlens.progress import steps
from ganlens.segmenters.base import Concept, checked_scores, concept_index
from ganlens.shards import Arrays


class Causes(NamedTuple):
    """Units of one concept, sorted by what they match and what they do, best first."""

    causes: list[int]  # match and remove
    decoys: list[int]  # match, and remove nothing
    hidden: list[int]  # do not match, and remove


def compare_rankings(
    D: Dissection,
    concept: str | Concept,
    by: Sequence[str] | Mapping[str, Sequence[int]] = ("iou", "effect"),
    *,
    k: int = 20,
    n: int = 100,
    to: str = "zero",
    draws: int = 3,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    curve: bool | Sequence[int] = True,
    executor: Executor | None = None,
    shards: int | None = None,
) -> dict[str, Effect]:
    """Ablation effects of several rankings of units, on the same images and beside the same random sets.

    Parameters
    ----------
    D, concept, k, n, to, draws, sample, curve, executor, shards
        As for `ablation_effect`.
    by : sequence of str, or dict of str to sequence of int
        Rankings that ``D.units(concept, by=…)`` knows, or units of your own, best first, under any name.

    Returns
    -------
    dict of str to Effect
        Each with its ``curve``; `ganlens.plots.ranking_curves` draws them.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> list(gl.compare_rankings(D, "tree", ["iou", "iqr"], k=2, n=4, draws=0, progress=False))
    ['iou', 'iqr']
    """
    check_dissection(D)
    names = as_list("by", by, "several rankings, for example ['iou', 'effect']")
    if not names:
        raise ValueError(f"by={by!r}: expected several rankings, for example ['iou', 'effect']")
    check_count(D, k)
    orders = {}
    for name in names:
        order = as_units_of(D, by[name]) if isinstance(by, Mapping) else D.units(concept, None, name)
        orders[name] = order[:k]
    sizes = check_steps(curve, min(map(len, orders.values())))
    return effects_of(D, concept, orders, sizes, n, to, draws, sample, progress, executor=executor, shards=shards)


def match_and_cause(D: Dissection, concept: str | Concept, match: float = 0.04, *, cause: float = 0.02) -> Causes:
    """Tell the units that cause a concept from those that only match it, and from those that cause it unmatched.

    Parameters
    ----------
    D : Dissection
        With ``effects``.
    concept : str or Concept
        A word of the vocabulary.
    match : float
        A unit matches where its IoU exceeds this and chance.
    cause : float
        A unit causes where it alone removes at least this share of the concept's pixels.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer9", n=16, progress=False)
    >>> D.effects = gl.unit_effects(D, n=2, progress=False)
    >>> gl.match_and_cause(D, "tree")._fields
    ('causes', 'decoys', 'hidden')
    """
    check_dissection(D).check_effects()
    match, cause = check_number("match", match, 0, 1), check_number("cause", cause, -np.inf)
    i = concept_index(D.concepts, concept, D.origin["segmenter"])
    matches = D.iou[:, i] > max(match, D.chance[i])
    removes = np.asarray(D.effects)[:, i] >= cause
    by_effect, by_iou = D.units(D.concepts[i], None, "effect"), D.units(D.concepts[i], None)
    return Causes(
        [unit for unit in by_effect if matches[unit] and removes[unit]],
        [unit for unit in by_iou if matches[unit] and not removes[unit]],
        [unit for unit in by_effect if removes[unit] and not matches[unit]],
    )


def unit_gradients(
    D: Dissection,
    concepts: Sequence[str | Concept] | None = None,
    n: int = 64,
    *,
    to: str = "zero",
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> np.ndarray:
    """Estimate what `unit_effects` measures, by gradient × activation of the segmenter's scores (U, C).

    The sum over cells of (activation - level) × (gradient of the concept's mean score), over the mean score: to first
    order the share of the score that is lost where a unit is forced to that level. It takes one backward pass per
    concept and batch, whatever the number of units. It is judged by the network that it differentiates, so measure
    `ablation_effect` before you trust it.

    Parameters
    ----------
    D : Dissection
        With its generator and a segmenter that has scores.
    concepts : sequence of str or Concept, optional
        All by default; the columns of others are nan.
    n : int
        Number of images.
    to : {"zero", "mean"}
        Level of the ablation that is estimated.
    sample : int, optional
        Which sample; by default the one two after the dissection's, like `unit_effects`.

    Returns
    -------
    array (U, C)
        For ``D.keep_ranking("gradient", …)``. After an interrupt, the estimate from the images seen so far.

    Raises
    ------
    TypeError
        The segmenter has no scores.
    ValueError
        Its scores cannot be differentiated.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer9", n=16, progress=False)
    >>> gl.unit_gradients(D, n=4, progress=False).shape
    (32, 13)
    """
    check_dissection(D)
    wanted = D.concepts if concepts is None else as_list("concepts", concepts, "names, for example ['tree']")
    columns = [concept_index(D.concepts, c, D.origin["segmenter"]) for c in wanted]
    if not columns:
        raise ValueError("no concepts given: name at least one, or None for all")
    n, generator, sample = check_image_count(n), generator_of(D), check_sample(sample, D.sample + 2)
    base = generator.level(ablate(D.layer, range(len(D.iou)), to=to)).reshape(-1, 1, 1)
    with steps(progress, n, "gradient") as step:  # a backward pass keeps everything in memory: half of the usual batch
        found = measure(gradients, (D, columns, base), seeds_of(sample, n), step, BATCH // 2)
    lost, total = (found[name].sum(0) for name in ("lost", "scores"))
    effects = np.full((len(D.iou), len(D.concepts)), np.nan)
    effects[:, columns] = np.divide(lost, total, out=np.zeros_like(lost), where=total > 0)
    return effects


def gradients(D: Dissection, columns: Sequence[int], base: torch.Tensor, seeds: Sequence[int], go_on) -> Arrays:
    """Of a batch: gradient × (activation - base) summed over images and cells (1, U, K), sums of the scores (1, K)."""
    opened = generator_of(D).open(D.layer, seeds)
    r = opened.features.clone().requires_grad_()
    scores = differentiable_scores(D, opened.resume(r))[:, columns].sum((0, 2, 3))  # (K,)
    lost = [(torch.autograd.grad(s, r, retain_graph=True)[0] * (r.detach() - base)).sum((0, 2, 3)) for s in scores]
    go_on(len(seeds))
    parts = {"lost": torch.stack(lost, 1), "scores": scores.detach()}
    return {name: part.double().cpu().numpy()[None] for name, part in parts.items()}


def differentiable_scores(D: Dissection, x: torch.Tensor) -> torch.Tensor:
    """Scores (N, C, h, w) of images; TypeError where there are none, ValueError where gradients do not pass."""
    segmenter = D.attached("segmenter")
    scores = checked_scores(segmenter, x)
    if x.requires_grad and not scores.requires_grad:
        raise ValueError(f"the scores of {segmenter.name} cannot be differentiated: compute them without torch.no_grad")
    return scores
