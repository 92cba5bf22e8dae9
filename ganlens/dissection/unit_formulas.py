"""Which units follow a formula of concepts better than any single one: found on half of the images, judged on others.

Compositional explanations are those of Mu and Andreas (2020), found by trying all formulas instead of by beam search. A
longer formula nearly always fits the images better that it was found on; it is kept only if it does so on other images,
too, beyond chance (`ganlens.dissection.certificates`), and gains more than formulas do with the labels of other images.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import MOST_IMAGES, as_list, check_image_count, check_integer, check_sample
from ganlens.dissection.certificates import CONFIDENCE, FALSE_DISCOVERIES, FEWEST, adjusted
from ganlens.dissection.formulas import Formulas, UnitFormula
from ganlens.dissection.layer_statistics import Columns, mended
from ganlens.dissection.result import Dissection, check_dissection
from ganlens.models.bit_exact import GRANULE
from ganlens.progress import steps
from ganlens.segmenters.base import checked_labels, known_as
from ganlens.statistics import JointCounts, Scale

MOST_BLOCKS = 64  # of images; half of them are held out
FEWEST_IMAGES = 2 * FEWEST * GRANULE
MOST_SETS = 2**15 - 1  # of concepts that pixels show together
MOST_TRIPLES = 400  # concepts, where a pixel may show three
SMALL = 1e-9
BARS = {"quantile": 0.04, "iqr": 0.05, "iou": 0.04}  # IoU that a formula must have to be worth a test, by rule


def unit_formulas(
    D: Dissection,
    units: Sequence[int] | None = None,
    n: int | None = None,
    *,
    length: int = 3,
    sample: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> Formulas:
    """Units that a formula such as "tree or hill" describes better than any single concept.

    All formulas of up to three concepts with "and", "or" and "and not" are tried on half of the images. The best one is
    kept where, on the other half, its gain over the best single concept is certain (false discoveries held at 5 % over
    all units) and larger than that of any unit whose maps are matched with the labels of other images; one of three
    concepts also has to gain over that of two. ``D.formulas = gl.unit_formulas(D)`` keeps them, in its file too.

    Parameters
    ----------
    D : Dissection
        With generator and segmenter. A unit is on where it exceeds its threshold there.
    units : sequence of int, optional
        All units by default.
    n : int, optional
        Number of images, at least 128, rounded up to eights; by default as many as the dissection saw.
    length : int
        Most concepts in a formula, up to 3.
    sample : int, optional
        Which sample; by default that of the dissection.
    progress : bool or callable
        As for `ganlens.dissect`. An interrupt leaves the rest of the images, or of the units, out.

    Returns
    -------
    Formulas
        Most gain first.

    Raises
    ------
    ValueError
        Fewer than 128 images; more than 400 concepts where three may share a pixel; a dissection within categories.

    Examples
    --------
    >>> import ganlens as gl
    >>> D = gl.dissect(gl.load_generator("scenes"), gl.load_segmenter("scenes"), "layer9", n=16, progress=False)
    >>> found = gl.unit_formulas(D, units=[0, 1, 2], n=128, progress=False)
    >>> found.n, found.units
    (128, 3)
    """
    check_dissection(D)
    units = list(range(len(D.iou))) if units is None else as_list("units", units, "unit numbers, for example [3, 17]")
    D.check_units(units)
    length, sample = check_length(length), check_sample(sample, D.sample)
    n = images_of(D, sample, max(D.n, FEWEST_IMAGES) if n is None else check_image_count(n))
    if D.within_category:
        raise ValueError("formulas mix concepts of several categories; give a dissection with within_category=False")
    silent = {*D.broken, *D.dead}
    chosen = [unit for unit in dict.fromkeys(map(int, units)) if unit not in silent]
    if not chosen:
        return Formulas((), n, 0)
    evidence = Evidence(D, chosen)
    with steps(progress, n, "look") as step:
        evidence.look(sample, n, step.go_on)
    if evidence.batches < 2 * FEWEST:
        raise KeyboardInterrupt
    with steps(progress, len(chosen), "search") as step:
        candidates = evidence.candidates(length, step.go_on)
    return judged(chosen[: len(candidates)], candidates, GRANULE * evidence.batches)


def images_of(D: Dissection, sample: int, n: int) -> int:
    """How many images to look at, in whole batches; ValueError if there are too few, or they are of another network."""
    generator = D.attached("generator")
    if generator.fingerprint != D.origin["generator_fingerprint"]:
        raise ValueError(f"the generator at hand is not the one that was dissected, {D.origin['generator']}")
    n, count = GRANULE * -(-n // GRANULE), generator.count
    if count is not None:
        n = min(n, GRANULE * (count // GRANULE))
        if sample:
            raise ValueError(f"sample={sample}: {generator.name} has {count} images, which are one sample")
    if n < FEWEST_IMAGES:
        raise ValueError(f"n={n}: gains are judged on blocks of held-out images; give n >= {FEWEST_IMAGES}")
    return n


def check_length(length: int) -> int:
    """How many concepts a formula may have; ValueError unless 2 or 3."""
    if check_integer("length", length) not in (2, 3):
        raise ValueError(f"length={length}: expected 2 or 3 concepts in a formula")
    return int(length)


class Evidence:
    """How often units are on, by the set of concepts that a pixel shows and by block of images.

    Even blocks are for the search, odd ones for the judgement. Two tables: with the labels of the same image, and with
    those of the image before.
    """

    def __init__(self, D: Dissection, units: list[int]):
        self.D, self.units, self.columns = D, units, Columns(D.concepts, False)
        self.sets: dict[tuple[int, ...], int] = {}
        self.area = np.zeros((MOST_BLOCKS, 0), np.int64)
        self.on = [np.zeros((MOST_BLOCKS, len(units), 0), np.int32) for _ in range(2)]  # with room for more sets
        self.batches = 0

    def look(self, sample: int, n: int, go_on: Callable[[int], bool]) -> None:
        """Count images, in whole batches, until interrupted."""
        first = sample * MOST_IMAGES
        seeds = range(first, first + n)
        threshold = torch.from_numpy(np.array(self.D.thresholds[self.units], np.float32))
        generator, segmenter = self.D.attached("generator"), self.D.attached("segmenter")
        scale = Scale(threshold.to(generator.device), threshold.to(generator.device), 1)
        for start in range(0, len(seeds), GRANULE):
            with torch.no_grad():
                images, features = generator.read(generator.latents(seeds[start : start + GRANULE]), [self.D.layer])
                planes = self.columns.of(checked_labels(segmenter, images.float(), ignored=True))
            r = mended(features[self.D.layer][:, self.units].float())[0]
            self.count(r, planes.to(r.device), scale)
            if not go_on(GRANULE):
                break

    def count(self, features: torch.Tensor, planes: torch.Tensor, scale: Scale) -> None:
        """Take in a batch of features (N, U, H, W) and label columns (N, L, h, w)."""
        place, sets = sets_of(planes.cpu().numpy())
        index = [self.sets.setdefault(one, len(self.sets)) for one in sets]
        if len(self.sets) > MOST_SETS:
            raise ValueError(f"pixels show over {MOST_SETS:,} sets of concepts; give a segmenter of fewer concepts")
        if len(self.sets) > self.area.shape[1]:
            wider = [(0, 0), (0, 2 * len(self.sets) - self.area.shape[1])]
            self.area, self.on = np.pad(self.area, wider), [np.pad(on, [(0, 0), *wider]) for on in self.on]
        block = self.batches % MOST_BLOCKS
        self.area[block][index] += np.bincount(place[place >= 0], minlength=len(sets))
        columns = torch.from_numpy(place).to(features.device)[:, None]
        for on, shift in zip(self.on, range(2), strict=True):
            joint = JointCounts(scale, len(sets))
            joint.update(features, columns.roll(shift, 0))
            on[block][:, index] += joint.counts[:, :, 0].cpu().numpy()
        self.batches += 1

    def candidates(self, length: int, go_on: Callable[[int], bool]) -> "list[Candidate]":
        """For each unit what may be said of it; until interrupted."""
        from ganlens.dissection.formula_search import best_formula, together

        members, count, found = np.array(list(self.sets)), len(self.D.concepts), []
        self.area, self.on = self.area[:, : len(members)], [on[:, :, : len(members)] for on in self.on]
        if length > 2 and members.shape[1] > 2 and count > MOST_TRIPLES:
            raise ValueError(
                f"{count} concepts, of which a pixel may show three: at most {MOST_TRIPLES} can be searched; "
                "give length=2, or a segmenter of fewer concepts"
            )
        area = together(self.area[::2].sum(0), members, count, length)
        held_out = self.area[1::2]
        used = held_out.sum(1) > 0
        for row in range(len(self.units)):
            sides = []
            for on in self.on:
                search = on[::2, row].sum(0)
                there = together(search, members, count, length)
                best = [best_formula(search.sum(), there, area, size) for size in range(2, length + 1)]
                sides.append((best, HeldOut(on[1::2, row][used], held_out[used], members, count)))
            found.append(Candidate.of(self.D, *sides[0], *sides[1]))
            if not go_on(1):
                break
        return found


def sets_of(planes: np.ndarray) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The set of columns that each pixel (N, h, w) of label planes (N, L, h, w) shows, and these sets, L numbers each.

    Sets are sorted, -1 for none; pixels that count nowhere have -2.
    """
    ordered = -np.sort(-np.maximum(planes, -1).astype(np.int64), axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    ordered = -np.sort(-ordered, axis=1)
    code = np.zeros((len(planes), *planes.shape[2:]), np.int64)
    for plane in ordered.swapaxes(0, 1):
        code = np.unique(code * (int(plane.max()) + 2) + plane + 1, return_inverse=True)[1].reshape(code.shape)
    first = np.unique(code, return_index=True)[1]
    sets = ordered.swapaxes(0, 1).reshape(planes.shape[1], -1)[:, first].T
    return np.where(planes[:, 0] < -1, -2, code).astype(np.int16), list(map(tuple, sets.tolist()))


class Gain(NamedTuple):
    """How much more IoU one has than another, and what each block of images (B,) adds to that beyond its share.

    A ratio of sums varies as the sum of these (the delta method), so that they have a t statistic.
    """

    value: float
    blocks: np.ndarray

    @property
    def error(self) -> float:
        """Standard error."""
        return float(self.blocks.std(ddof=1) / np.sqrt(len(self.blocks)))

    @property
    def p(self) -> float:
        """Probability of as much, or more, where there is nothing to gain."""
        from scipy.special import stdtr

        if self.error <= SMALL:
            return float(self.value <= 0)
        return float(stdtr(len(self.blocks) - 1, -self.value / self.error))

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval."""
        from scipy.special import stdtrit

        reach = self.error * float(stdtrit(len(self.blocks) - 1, (1 + CONFIDENCE) / 2))
        return self.value - reach, self.value + reach

    def beyond(self, other: "Gain") -> "Gain":
        """How much more this is than another gain on the same images."""
        return Gain(self.value - other.value, self.blocks - other.blocks)


class Counts(NamedTuple):
    """Pixels of blocks (B,) where a unit is on and a formula holds, and where either is so."""

    both: np.ndarray
    union: np.ndarray

    @property
    def iou(self) -> float:
        """Over all blocks."""
        return float(self.both.sum() / max(self.union.sum(), 1))

    def gain(self, simpler: "Counts") -> Gain:
        """What this has more than a simpler formula."""
        each = [(one.both - one.iou * one.union) / max(one.union.mean(), SMALL) for one in (self, simpler)]
        return Gain(self.iou - simpler.iou, each[0] - each[1])


class HeldOut:
    """Counts of a unit on images that formulas were not searched on.

    Parameters
    ----------
    on, area : array (B, K)
        Pixels of each block by the set of concepts that they show: where the unit is on, and all.
    members : array (K, L)
        These sets.
    concepts : int
        How many there are.
    """

    def __init__(self, on: np.ndarray, area: np.ndarray, members: np.ndarray, concepts: int):
        from ganlens.dissection.formula_search import Formula

        self.on, self.area, self.members = on, area, members
        singles = [self.counts(Formula(0, (concept,))) for concept in range(concepts)]
        self.concept = int(np.argmax([one.iou for one in singles]))  # the best single one
        self.single = singles[self.concept]

    def counts(self, formula) -> Counts:
        """Of a formula."""
        holds = formula.holds(self.members)
        both = self.on[:, holds].sum(1)
        return Counts(both, self.on.sum(1) + self.area[:, holds].sum(1) - both)

    def frequency(self, formula) -> float:
        """Share of the pixels in which a formula holds: the IoU of being on everywhere."""
        return float(self.area[:, formula.holds(self.members)].sum() / max(self.area.sum(), 1))


class Step(NamedTuple):
    """A formula on held-out images: its words, its IoU, and what it gains over simpler ones, one concept, and chance.

    Chance is the most that is gained with the labels of other images, by this formula or the best that is found there.
    """

    words: str
    iou: float
    over_simpler: Gain
    over_one: Gain
    chance: Gain

    @property
    def p(self) -> float:
        """Probability if it gains nothing over what is simpler, or no more than by chance."""
        return max(self.over_simpler.p, self.over_one.beyond(self.chance).p)


class Candidate(NamedTuple):
    """The best single concept of a unit, and what may be said instead, simplest first."""

    concept: str
    iou: float
    steps: list[Step]

    @classmethod
    def of(cls, D: Dissection, formulas: list, own: HeldOut, false_ones: list, shifted: HeldOut) -> "Candidate":
        """Of the best formulas by length and their IoU on other images; the same with the labels of other images."""
        from ganlens.dissection.formula_search import FORMS

        names = known_as(D.concepts)
        nothing = Gain(0.0, np.zeros(len(own.on)))
        found_by_chance = [shifted.counts(formula).gain(shifted.single) for formula, _ in false_ones]
        simpler, steps = own.single, []
        for size, (formula, iou) in enumerate(formulas, 2):
            bar = max(BARS[D.rule], own.frequency(formula) * (D.rule == "iou"))
            if len(formula.concepts) < size:
                continue
            words, counts = FORMS[formula.form].format(*(names[c] for c in formula.concepts)), own.counts(formula)
            same = shifted.counts(formula).gain(shifted.single)
            chance = max([nothing, same, *found_by_chance], key=lambda gain: gain.value)
            if iou > bar:
                steps.append(Step(words, counts.iou, counts.gain(simpler), counts.gain(own.single), chance))
            simpler = max(simpler, counts, key=lambda one: one.iou)
        return cls(names[own.concept], own.single.iou, steps)


def judged(units: list[int], candidates: list[Candidate], n: int) -> Formulas:
    """Formulas whose gains are certain, over what is simpler and over what chance gives."""
    tests = [step.p for candidate in candidates for step in candidate.steps]
    q, found = iter(adjusted(np.array(tests)).tolist() if tests else []), []
    for unit, one in zip(units, candidates, strict=True):
        certain = [(step, value) for step, value in zip(one.steps, q, strict=False) if value <= FALSE_DISCOVERIES]
        if certain:
            step, value = certain[-1]
            numbers = step.over_one.value, *step.over_one.interval, step.chance.value, value
            found.append(UnitFormula(unit, step.words, step.iou, one.concept, one.iou, *numbers))
    return Formulas(tuple(sorted(found, key=lambda one: -one.gain)), n, len(units))
