"""Which units cause a concept together: the strengths that maximise the average causal effect.

alpha* = argmin over alpha in [0, 1]^U of -δ(alpha) + penalty (Bau et al., ICLR 2019, eq. 7), where δ is the difference
of the segmenter's score for the concept between units forced on and units forced off, each read where the edit is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ganlens.arguments import MOST_IMAGES, check_integer, check_number, check_sample
from ganlens.dissection.result import Dissection, check_dissection, generator_of
from ganlens.effects.counting import labels_of, samples
from ganlens.effects.insertion import downsampled, levels_for, patch_side
from ganlens.effects.rankings import differentiable_scores
from ganlens.models.base import OpenedGenerator
from ganlens.progress import steps as steps_of
from ganlens.segmenters.base import Concept, concept_index

PENALTY_WEIGHTS = {"l2": 0.005, "l1": 0.01}
RATE = 0.03  # of Adam; published: 0.01 and 500 steps
EVERY = 20  # steps between two entries of the history
SCANNED = 8  # at most so many times the images asked for are searched for the concept
UNIFORM = 0.1  # share of the insertions at any cell, the others where the concept is popular


@dataclass(frozen=True, eq=False, kw_only=True)
class OptimizedUnits:
    """Strengths of units that cause a concept together.

    Attributes
    ----------
    layer, concept : str, Concept
        What was asked for.
    alpha : array (U,)
        Strength of each unit in [0, 1], the best found.
    start : array (U,)
        Where the search began: IoU over the highest IoU. It decides the order of equal strengths.
    history : array (E, 3)
        Step, effect δ and penalty, on images that no step has seen; the best is that of the highest δ - penalty.
    penalty, penalty_weight : str, float
        The penalty, and its weight λ.
    complete : bool
        False where an interrupt came before the last step.
    """

    layer: str
    concept: Concept
    alpha: np.ndarray
    start: np.ndarray
    history: np.ndarray
    penalty: str
    penalty_weight: float
    complete: bool

    @property
    def order(self) -> list[int]:
        """All units, strongest first; equal ones in the order of their IoU."""
        return np.lexsort((-self.start, -self.alpha)).tolist()

    @property
    def units(self) -> list[int]:
        """Units of strength above 0, strongest first."""
        return [unit for unit in self.order if self.alpha[unit] > 0]

    @property
    def ties(self) -> list[list[int]]:
        """Groups of units of equal strength above 0, strongest first: their order says nothing about what they do."""
        levels = np.unique(self.alpha[self.alpha > 0])[::-1]
        groups = [np.flatnonzero(self.alpha == level).tolist() for level in levels]
        return [group for group in groups if len(group) > 1]

    @property
    def effect(self) -> float:
        """The effect δ of ``alpha`` on images that no step has seen."""
        return float(self.history[best_of(self.history), 1])

    def __repr__(self) -> str:
        tied = f", {sum(map(len, self.ties))} of them tied" if self.ties else ""
        done = "" if self.complete else f" (incomplete: {self.history[-1, 0]:.0f} steps)"
        return (
            f"{self.concept} in {self.layer}, {self.penalty}{done}: {len(self.units)} of {len(self.alpha)} units above "
            f"0{tied}; effect {self.effect:.2f}, at the start {self.history[0, 1]:.2f}"
        )


class Batch(NamedTuple):
    """Images that show the concept, stopped at the layer."""

    opened: OpenedGenerator
    presence: torch.Tensor  # (N, H, W) weight of each cell in the concept's pixels
    popular: torch.Tensor  # (H, W) distribution of the places of insertions


class Places(NamedTuple):
    """Where each image of a batch is edited, and how."""

    regions: torch.Tensor  # (N, H, W), 1 where units are forced
    on: torch.Tensor  # (N,) whether units are switched on, or off


def optimize_units(
    D: Dissection,
    concept: str | Concept,
    penalty: str = "l2",
    *,
    penalty_weight: float | None = None,
    level: float | str = "q0.995",
    n: int = 128,
    steps: int = 160,
    batch_size: int = 16,
    patch: int | None = None,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> OptimizedUnits:
    """Find the strengths of units with the highest average causal effect on a concept, by gradient descent.

    In each step, units are switched off in one half of a batch of images, where they show the concept, and on in the
    other half, where it is popular, and sometimes anywhere. The effect is read where the edit is, in both. An interrupt
    returns the best so far.

    Parameters
    ----------
    D : Dissection
        With its generator and a segmenter that has scores.
    concept : str or Concept
        A word of the vocabulary.
    penalty : {"l2", "l1"}
        λ Σ alpha², as published: many units, many of them equal; or λ Σ alpha: few units, in an order.
    penalty_weight : float, optional
        The weight λ; by default 0.005 for "l2", as published, and 0.01 for "l1".
    level : float or str
        What units that are switched on are forced to, as for `ganlens.insertion_effect`.
    n : int
        Images that show the concept. They are searched in the sample that ranks units, so that
        `ganlens.ablation_effect` judges on others, and opened at the layer once found.
    steps, batch_size : int
        Steps of Adam, and images per step.
    patch : int, optional
        Side of the square of cells that is edited; a quarter of the layer's side by default, 1 as published.
    sample : int, optional
        Which sample; by default the one two after the dissection's.

    Returns
    -------
    OptimizedUnits
        ``D.keep_ranking("ace", found.alpha, concept)`` makes ``D.units(concept, by="ace")`` know it.

    Raises
    ------
    TypeError
        The segmenter has no scores.
    ValueError
        Its scores cannot be differentiated; no image shows the concept; or a setting is out of range.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> D = gl.dissect(G, S, "layer5", n=64, progress=False)
    >>> found = gl.optimize_units(D, "tree", n=12, batch_size=4, steps=2, progress=False)
    >>> found.alpha.shape, found.history[:, 0].tolist()
    ((160,), [0.0, 2.0])
    """
    i = concept_index(check_dissection(D).concepts, concept, D.origin["segmenter"])
    check_settings(D, penalty, penalty_weight, n, steps, batch_size)
    n, steps, batch_size = int(n), int(steps), int(batch_size)
    check_scores(D)
    patch, sample = patch_side(D, patch), check_sample(sample, D.sample + 2)
    levels = torch.tensor(levels_for(D, D.concepts[i], level), device=generator_of(D).device)
    with steps_of(progress, steps, "optimize") as step:
        batches = open_batches(D, i, n, batch_size, sample)
        weight = PENALTY_WEIGHTS[penalty] if penalty_weight is None else penalty_weight
        search = Search(D, i, batches, levels, patch, (penalty, weight), np.random.default_rng(sample))
        while search.taken < steps and step.go_on():
            search.step()
            step.go_on(1)
    return search.result(steps)


class Search:
    """Gradient descent on the strengths of units: `step` by step, with a `judge` in between that remembers the best."""

    def __init__(self, D, i, batches, levels, patch, penalty, random):
        self.D, self.i, self.levels, self.patch, self.random = D, i, levels, patch, random
        self.penalty, self.penalty_weight = penalty
        held_out = max(1, len(batches) // 4)
        self.exam = [(some, draw_places(some, patch, random)) for some in batches[:held_out]]
        self.batches = batches[held_out:]
        self.start = D.iou[:, i] / max(D.iou[:, i].max(), 1e-12)
        self.alpha = torch.tensor(self.start, dtype=torch.float32, device=levels.device).requires_grad_()
        self.descent = torch.optim.Adam([self.alpha], lr=RATE)
        self.taken, self.tried, self.history = 0, [], []
        self.judge()

    def step(self) -> None:
        """Change the strengths a little, by the effect in one batch of images."""
        batch = self.batches[self.random.integers(len(self.batches))]
        loss = self.cost() - self.effect(batch, draw_places(batch, self.patch, self.random))
        (self.alpha.grad,) = torch.autograd.grad(loss, self.alpha)
        self.descent.step()
        with torch.no_grad():
            self.alpha.clamp_(0, 1)
        self.taken += 1
        if self.taken % EVERY == 0:
            self.judge()

    def cost(self) -> torch.Tensor:
        """Return the penalty."""
        return self.penalty_weight * (self.alpha.square() if self.penalty == "l2" else self.alpha).sum()

    def effect(self, batch: "Batch", places: "Places") -> torch.Tensor:
        """Mean score of the concept where units are on, minus that where they are off."""
        r = batch.opened.features.clone()
        level = torch.where(places.on[:, None], self.levels, 0.0)[..., None, None]
        a = self.alpha[:, None, None] * places.regions[:, None]  # (N, U, H, W)
        scores = differentiable_scores(self.D, batch.opened.resume((1 - a) * r + a * level))[:, self.i]
        below = F.interpolate(places.regions[:, None], scores.shape[1:], mode="nearest-exact")[:, 0]
        read = (scores * below).sum((1, 2)) / below.sum((1, 2))
        return read[places.on].mean() - read[~places.on].mean()

    @torch.no_grad()
    def judge(self) -> None:
        """Enter the effect on images that no step has seen into the history."""
        effect = np.mean([float(self.effect(*pair)) for pair in self.exam])
        self.tried.append(self.alpha.detach().cpu().numpy().astype(float))
        self.history.append([self.taken, effect, float(self.cost())])

    def result(self, steps: int) -> OptimizedUnits:
        """Give the best of all that was judged, the last strengths among them."""
        if self.history[-1][0] != self.taken:
            self.judge()
        history = np.array(self.history)
        return OptimizedUnits(
            layer=self.D.layer,
            concept=self.D.concepts[self.i],
            alpha=self.tried[best_of(history)],
            start=self.start,
            history=history,
            penalty=self.penalty,
            penalty_weight=self.penalty_weight,
            complete=self.taken == steps,
        )


def best_of(history: np.ndarray) -> int:
    """The entry of a history (E, 3) with the highest effect minus penalty; the first of equal ones."""
    return int(np.argmax(history[:, 1] - history[:, 2]))


def open_batches(D: Dissection, i: int, n: int, batch_size: int, sample: int) -> list[Batch]:
    """Find ``n`` images that show a concept, and open them at the layer; ValueError if there are too few."""
    generator, found, scanned = generator_of(D), [], 0
    _, height, width = generator.check_layer(D.layer)
    shares = []
    for seeds in samples(sample, min(SCANNED * n, MOST_IMAGES), batch_size):
        shown = (labels_of(D, generator.generate(seeds)) == i + 1).any(1, keepdim=True)
        some = shown.flatten(1).any(1)
        found += [s for s, there in zip(seeds, some.tolist(), strict=True) if there]
        shares.append(downsampled(shown[some], (height, width))[:, 0])
        scanned += len(seeds)
        if len(found) >= n:
            break
    if len(found) < 4:
        raise ValueError(
            f"{D.concepts[i]} is in {len(found)} of {scanned} images: take more (n=…), or others (sample=…)"
        )
    presence = torch.cat(shares).clamp(min=0)
    popular = presence.mean(0) / presence.mean(0).sum()
    parts = np.array_split(np.arange(min(len(found), n)), max(2, -(-min(len(found), n) // batch_size)))
    return [Batch(generator.open(D.layer, [found[j] for j in part]), presence[part], popular) for part in parts]


def draw_places(batch: Batch, patch: int, random: np.random.Generator) -> Places:
    """Squares in which one half of a batch is switched on, and the other off where the concept is."""
    n, height, width = batch.presence.shape
    on = random.permutation(n) < n // 2
    popular = (1 - UNIFORM) * batch.popular.flatten() + UNIFORM / (height * width)
    weights = torch.where(torch.tensor(on)[:, None], popular.cpu(), batch.presence.flatten(1).cpu()).double().numpy()
    regions = torch.zeros(n, height, width)
    for where, weight in zip(regions, weights, strict=True):
        y, x = divmod(int(random.choice(len(weight), p=weight / weight.sum())), width)
        y, x = min(max(y - patch // 2, 0), height - patch), min(max(x - patch // 2, 0), width - patch)
        where[y : y + patch, x : x + patch] = 1
    device = batch.presence.device
    return Places(regions.to(device), torch.tensor(on, device=device))


def check_settings(
    D: Dissection, penalty: str, penalty_weight: float | None, n: int, steps: int, batch_size: int
) -> None:
    """ValueError if a setting is out of range."""
    if not isinstance(penalty, str) or penalty not in PENALTY_WEIGHTS:
        raise ValueError(f"penalty={penalty!r}: expected 'l2', as published, or 'l1' for few units in an order")
    if penalty_weight is not None:
        check_number("penalty_weight", penalty_weight, 0)
    for name, value, least in (("n", n, 4), ("steps", steps, 1), ("batch_size", batch_size, 2)):
        check_integer(name, value, least, MOST_IMAGES)


def check_scores(D: Dissection) -> None:
    """An error if the segmenter has no scores that can be differentiated."""
    image = torch.zeros(2, *generator_of(D).image_shape, device=generator_of(D).device)
    scores = differentiable_scores(D, image.requires_grad_())
    if scores.ndim != 4 or scores.shape[1] != len(D.concepts):
        raise ValueError(f"scores of shape {tuple(scores.shape)}: expected (N, {len(D.concepts)}, h, w)")
