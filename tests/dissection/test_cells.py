"""The cells' statistics against their definition, and what follows from them against other libraries."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ganlens.dissection.cells import Cells
from ganlens.statistics import Scale


def make(grid=(5, 4), size=(10, 12), units=6, concepts=3, blocks=2, images=5, planes=2, seed=0):
    """A `Cells`, features and label columns with none (-1) and ignored (-2) pixels."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(images, units, *grid, generator=random)
    features[:, 0] = 1.5  # a unit that never changes
    labels = torch.randint(-1, concepts + 1, (images, planes, *size), generator=random)  # one column that is no concept
    labels[:, 0][torch.rand(images, *size, generator=random) < 0.1] = -2
    scale = Scale(features.amin((0, 2, 3)), features.amax((0, 2, 3)))
    thresholds = torch.stack([features.amin((0, 2, 3)) / 2, features.amax((0, 2, 3)) / 2], 1)
    cells = Cells(scale, thresholds, grid, size, concepts, blocks)
    return cells, features, labels.to(torch.int16)


SHAPES = [((5, 4), (10, 12)), ((7, 7), (10, 24)), ((1, 1), (9, 9)), ((20, 18), (40, 36)), ((8, 8), (4, 5))]


@pytest.mark.parametrize(("grid", "size"), SHAPES)
@pytest.mark.parametrize("planes", [1, 2])
def test_the_compiled_loop_is_the_definition(grid, size, planes):
    compiled, features, labels = make(grid, size, planes=planes)
    plain, _, _ = make(grid, size, planes=planes)
    for start, block in ((0, 0), (2, 1)):
        r, planes_ = features[start : start + 3], labels[start : start + 3]
        compiled.update(r, planes_, block)
        pooled = (pool(r, plain.places).flatten(2) for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d))
        plain.update_by_definition(*pooled, planes_, block)
    assert compiled.images.tolist() == [3, 3]
    for name in plain.merges.keys() - {"images"}:
        a, b = getattr(compiled, name), getattr(plain, name)
        assert a.dtype == b.dtype
        slack = 2 * 6 if name in ("sums", "squares", "dots") else 0  # in parts of 2^-20: the order of a sum's terms
        assert (a - b).abs().max() <= slack, name


def average_precision(there: np.ndarray, r: np.ndarray) -> float:
    """Mean of the precisions at each hit, of a ranking in which equal values come together."""
    precisions = [there[r >= value].mean() for value in r[there]]
    return float(np.mean(precisions))


def test_measures_against_their_definitions():
    grid, concepts = (8, 8), 2
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(-1, concepts, (40, 1, *grid), generator=random).to(torch.int16)
    pull = torch.stack([labels[:, 0] == 0, labels[:, 0] == 1, labels[:, 0] < 5], 1).float()
    features = torch.randn(40, 3, *grid, generator=random) + 2 * pull
    features = (features * 8).round() / 8
    scale = Scale(features.amin((0, 2, 3)), features.amax((0, 2, 3)))
    cells = Cells(scale, torch.zeros(3, 1), grid, grid, concepts, 1)
    cells.update(features, labels, 0)
    for u in range(3):
        r = features[:, u].flatten().double().numpy()
        for c in range(concepts):
            there = (labels[:, 0] == c).flatten().numpy()
            assert cells.pearson()[u, c] == pytest.approx(np.corrcoef(r, there)[0, 1], abs=1e-6)
            cosine = (r * there).sum() / np.sqrt((r**2).sum() * there.sum())
            assert cells.cosine()[u, c] == pytest.approx(cosine, abs=1e-6)
            # 32 steps of activation, where the definition takes as many as there are values
            assert cells.average_precision()[u, c] == pytest.approx(average_precision(there, r), abs=0.03)


def test_a_constant_unit_or_concept_goes_with_nothing():
    cells, features, labels = make()
    labels[labels == 2] = -1  # a concept that is nowhere
    cells.update(features, labels, 0)
    assert (cells.pearson()[0] == 0).all()
    for found in (cells.pearson(), cells.cosine(), cells.average_precision()):
        assert np.isfinite(found).all()
        assert (found[:, 2] == 0).all()
