"""Some concepts of a segmenter, or several as one: always as if the labels were renamed by hand."""

import pickle

import numpy as np
import pytest
import torch
from planted import TWO_PLANES, two_planes

import ganlens as gl


@pytest.fixture(scope="module")
def x(G):
    return G.generate(range(6))


def test_only(S, x):
    some = S.only("window", "door")
    assert [c.name for c in some.concepts] == [c.name for c in S.concepts if c.name in ("door", "window")]
    full, found = S.labels(x), some.labels(x)
    for number, concept in enumerate(some.concepts, 1):
        assert ((found == number) == (full == S.index(concept) + 1)).all()
    assert (found > 0).sum() == sum((full == S.index(name) + 1).sum() for name in ("door", "window"))
    torch.testing.assert_close(some.scores(x)[:, 0], S.scores(x)[:, S.index(some.concepts[0])])


def test_merge(S, x):
    merged = S.merge({"plant": ["tree", "grass"], "church": ["wall", "roof"]})
    full, found = S.labels(x), merged.labels(x)
    for name, members in (("plant", ("tree", "grass")), ("church", ("wall", "roof")), ("sky", ("sky",))):
        wanted = sum((full == S.index(member) + 1) for member in members) > 0
        assert ((found == merged.index(name) + 1) == wanted).all()
        scores = sum(S.scores(x)[:, S.index(member)] for member in members)
        torch.testing.assert_close(merged.scores(x)[:, merged.index(name)], scores)
    assert len(merged.concepts) == len(S.concepts) - 2


def test_dissections_count_what_is_merged(G, S):
    D = gl.dissect(G, S, "layer6", n=32, progress=False)
    M = gl.dissect(G, S.merge({"plant": ["tree", "grass"]}), "layer6", n=32, progress=False)
    tree, grass, plant = D.units("tree", None)[0], S.index("grass"), M.segmenter.index("plant")
    np.testing.assert_array_equal(M.overlap[:, plant], D.overlap[:, S.index("tree")] + D.overlap[:, grass])
    assert tree in range(len(M.iou))


def test_several_planes_and_pixels_that_count_nowhere():
    x = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    S = gl.Segmenter.wrap(two_planes, TWO_PLANES)
    some = S.only("below", "hot")
    full, found = S.labels(x), some.labels(x)
    assert found.shape == full.shape
    assert ((found == 1) == (full == 2)).all()
    assert ((found == 2) == (full == 4)).all()
    holes = gl.Segmenter.wrap(lambda x: torch.where(x[:, 0] > 0, 255, 1), ["all"])
    assert (holes.only("all").labels(x) == holes.labels(x)).all()
    assert (holes.labels(x) == -1).any()


def test_it_is_another_segmenter(S):
    some = [S, S.only("door"), S.only("door", "tree"), S.merge({"a": ["tree", "grass"]})]
    assert len({one.fingerprint for one in some}) == 4
    assert S.only("door").fingerprint == S.only("door").fingerprint
    assert pickle.loads(pickle.dumps(some[1])).fingerprint == some[1].fingerprint
    assert [c.name for c in S.merge({"plant": ["tree", "grass"]}).only("plant").concepts] == ["plant"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda S: S.only(), "no concept given"),
        (lambda S: S.only("dor"), "door"),
        (lambda S: S.merge({}), "expected names with concepts"),
        (lambda S: S.merge({"plant": "tree"}), "expected a list of concepts"),
        (lambda S: S.merge({"plant": []}), "are none"),
        (lambda S: S.merge({"x": ["tree", "dome"]}), "of one category"),
        (lambda S: S.merge({"sky": ["tree", "grass"]}), "twice"),
        (lambda S: S.merge({"a": ["tree", "grass"], "b": ["tree", "hill"]}), "into 'a' and into 'b'"),
        (lambda S: S.merge({"": ["tree", "grass"]}), "letters"),
    ],
)
def test_errors(S, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(S)
