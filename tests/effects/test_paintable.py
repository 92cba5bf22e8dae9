"""What can be painted, against a planted network and edits made by hand."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.effects.paintable import PLACES, Start, paint, places

Z = 4


class Blocks(nn.Module):
    """Units 0 and 1 of a layer of 8 x 8 cells draw red and green where they are on; unit 2 does nothing."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, z):
        r = torch.zeros(len(z), 3, 8, 8)
        r[:, 0, :4] = 1 + z[:, :1, None].abs()  # red above
        r[:, 1, 6:] = 1 + z[:, 1:2, None].abs()  # green below
        r[:, 2] = z[:, 2:3, None]
        r = self.maps(r)
        x = torch.stack([(r[:, 0] > 0.5).float(), (r[:, 1] > 0.5).float(), r[:, 0] * 0], 1) * 2 - 1
        return x.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.fixture(scope="module")
def planted():
    G = gl.Generator.wrap(Blocks(), Z, output="[-1,1]", layers=["maps"])
    S = gl.Segmenter.wrap(lambda x: torch.where(x[:, 0] > 0, 1, torch.where(x[:, 1] > 0, 2, 0)), ["red", "green", "no"])
    return gl.dissect(G, S, "maps", n=16, progress=False, quantile=0.4)


def test_what_is_planted_is_found(planted):
    found = gl.paintable(planted, n=2, k=1, progress=False)
    assert [c.name for c in found.concepts] == ["red", "green", "no"]
    # Red fills a place that was empty; green only where no red hides it. Both go without a trace.
    np.testing.assert_allclose(found.gained[0, :2], [1, 1])
    np.testing.assert_allclose(found.removed[0, :2], [1, 1])
    np.testing.assert_allclose(found.beside[0, :2], [0, 0])
    assert np.isnan([found.gained[0, 2], found.removed[0, 2]]).all()
    assert found.layer_for("red") == "maps"
    with pytest.raises(ValueError, match="not known where no can be painted"):
        found.layer_for("no")
    assert "red" in repr(found)
    assert [row["gained"] for row in found.rows()][:2] == [1, 1]
    with pytest.raises(ValueError, match="did you mean 'green'"):
        found.layer_for("greeen")


def test_an_image_by_hand(D, G, S):
    c = S.index("tree")
    units = D.units("tree", 20)
    found = paint(D, Start.of(D, 3), c, units, "q0.995")
    levels = D.levels.quantile(0.995)[units].tolist()

    def count(edits):
        return int((S.labels(G.generate([3], edits)) == c + 1).sum())

    before = count([])
    assert (found.before, found.left) == (before, count([gl.ablate("layer4", units)]))
    for y, x in ((0, 0), (2, 3), (3, 1)):
        region = np.zeros((8, 8))
        region[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = 1
        assert found.gained[y, x] == count([gl.insert("layer4", units, levels, region=region)]) - before


@pytest.mark.parametrize("shape", [(8, 8), (16, 12), (5, 7), (4, 4), (2, 3), (1, 1)])
def test_places_cover_all_cells(shape):
    masks = places(*shape)
    assert masks.shape == (PLACES**2, 1, *shape)
    assert masks.any(0).all()
    assert masks.flatten(1).any(1).all()


def test_interrupted(planted):
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 3 of"):
        found = gl.paintable(replace(planted, painting={}), n=2, k=1, progress=stop)
    assert not found.complete
    assert np.isfinite(found.gained[0]).tolist() == [True, True, False]
    np.testing.assert_array_equal(found.gained[0, :1], gl.paintable(planted, n=2, k=1, progress=False).gained[0, :1])


def test_interrupted_at_the_very_end(planted):
    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    found = gl.paintable(replace(planted, painting={}), n=2, k=1, progress=stop)
    assert found.complete
    assert np.isfinite(found.gained[0]).tolist() == [True, True, False]


def test_kept_with_the_dissection(planted, tmp_path):
    D = replace(planted, painting={})
    found = gl.paintable(D, n=2, k=1, progress=False)
    D.save(tmp_path / "D.npz")
    again = gl.Dissection.load(tmp_path / "D.npz")  # without generator and segmenter: nothing can be measured
    for name in ("gained", "beside", "removed", "spoiled"):
        np.testing.assert_array_equal(getattr(gl.paintable(again, n=2, k=1), name), getattr(found, name))
    with pytest.raises(ValueError, match="no generator at hand"):
        gl.paintable(again, n=3, k=1)


def test_figure(D):
    ax = gl.plots.paintable(gl.paintable(D, n=1, progress=False))
    assert ax.get_title(loc="left") + ax.get_title() == "What can be painted"
    assert len(ax.get_yticklabels()) >= 8
    plt.close(ax.figure)
