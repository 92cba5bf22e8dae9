"""Parts of objects, and unions of segmenters, on label maps drawn by hand."""

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens import Segmenter
from ganlens.segmenters.parts import halves_of_objects
from ganlens.segmenters.union import UnionSegmenter, nearest


def drawn(*rows):
    """Label map (h, w) from lines of digits."""
    return torch.tensor([[int(c) for c in row] for row in rows])


def giving(maps, concepts=("tree", "house"), name="drawn"):
    """Segmenter that finds the given label planes in any images."""
    return Segmenter.wrap(lambda x: maps.expand(len(x), *maps.shape[-3:]), concepts, name)


def flood(labels, y, x):
    """Pixels of the object at (y, x): same label, touching by edge or corner."""
    found, todo = set(), [(y, x)]
    while todo:
        y, x = todo.pop()
        if (y, x) in found:
            continue
        found.add((y, x))
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        h, w = labels.shape
        todo += [(i, j) for i, j in around if 0 <= i < h and 0 <= j < w and labels[i, j] == labels[y, x]]
    return found


def slow_halves(labels):
    """Halves (2, h, w) pixel by pixel."""
    out = np.zeros((2, *labels.shape), int)
    for y, x in np.ndindex(*labels.shape):
        if labels[y, x]:
            ys, xs = (sorted(axis) for axis in zip(*flood(labels, y, x), strict=True))
            middle_y, middle_x = (ys[0] + ys[-1]) / 2, (xs[0] + xs[-1]) / 2
            out[0, y, x] = 1 if y < middle_y else 2 if y > middle_y else 0
            out[1, y, x] = 3 if x < middle_x else 4 if x > middle_x else 0
    return out


class TestHalves:
    def test_two_objects(self):
        labels = drawn("1100", "1100", "0022", "0022")  # they touch at a corner and have two labels
        up, left = halves_of_objects(labels[None, None].numpy())[0, 0]
        assert up.tolist() == [[1, 1, 0, 0], [2, 2, 0, 0], [0, 0, 1, 1], [0, 0, 2, 2]]
        assert left.tolist() == [[3, 4, 0, 0], [3, 4, 0, 0], [0, 0, 3, 4], [0, 0, 3, 4]]

    def test_corners_connect(self):
        up, left = halves_of_objects(drawn("10", "01")[None, None].numpy())[0, 0]
        assert up.tolist() == [[1, 0], [0, 2]]
        assert left.tolist() == [[3, 0], [0, 4]]

    def test_middle_is_in_neither(self):
        up, left = halves_of_objects(drawn("1", "1", "1")[None, None].numpy())[0, 0]
        assert up.flatten().tolist() == [1, 0, 2]
        assert (left == 0).all()

    def test_random_maps(self):
        labels = np.random.default_rng(0).choice(4, (6, 2, 9, 12), p=[0.55, 0.15, 0.15, 0.15])
        found = halves_of_objects(labels)
        for n, plane in np.ndindex(6, 2):
            np.testing.assert_array_equal(found[n, plane], slow_halves(labels[n, plane]))

    def test_flipped(self):
        labels = np.random.default_rng(1).choice(3, (3, 1, 10, 11), p=[0.5, 0.25, 0.25])
        flipped = halves_of_objects(np.ascontiguousarray(labels[..., ::-1, ::-1]))[..., ::-1, ::-1]
        np.testing.assert_array_equal(np.array([0, 2, 1, 4, 3])[flipped], halves_of_objects(labels))

    def test_nothing(self):
        assert not halves_of_objects(np.zeros((1, 1, 3, 3), int)).any()


class TestParts:
    def test_labels(self):
        P = giving(drawn("1102", "1102")[None]).parts()
        assert [c.name for c in P.concepts[2:6]] == ["top of tree", "bottom of tree", "left of tree", "right of tree"]
        assert [c.name for c in P.concepts[6:]] == [f"{side} of house" for side in ("top", "bottom", "left", "right")]
        assert {c.category for c in P.concepts[2:]} == {"part"}
        labels = P.labels(torch.zeros(3, 3, 2, 4))
        assert labels.shape == (3, 3, 2, 4)
        assert labels[2, 0].tolist() == [[1, 1, 0, 2], [1, 1, 0, 2]]
        assert labels[2, 1].tolist() == [[3, 3, 0, 7], [4, 4, 0, 8]]
        assert labels[2, 2].tolist() == [[5, 6, 0, 0], [5, 6, 0, 0]]

    def test_of_some(self):
        P = giving(drawn("1102", "1102")[None]).parts(of="house")
        assert len(P.concepts) == 6
        assert P.labels(torch.zeros(1, 3, 2, 4))[0, 1].tolist() == [[0, 0, 0, 3], [0, 0, 0, 4]]

    def test_objects_by_default(self):
        P = giving(drawn("12")[None], [("red", "color"), "tree"]).parts()
        assert [c.name for c in P.concepts][:3] == ["red", "tree", "top of tree"]
        with pytest.raises(ValueError, match=r"colors has no concept of category 'object'; say what to divide: of="):
            gl.load_segmenter("colors").parts()
        with pytest.raises(ValueError, match="did you mean 'tree'"):
            giving(drawn("1")[None]).parts(of=["trees"])

    def test_several_planes(self):
        maps = torch.stack([drawn("11", "11"), drawn("22", "00")])
        labels = giving(maps).parts().labels(torch.zeros(1, 3, 2, 2))[0]
        assert len(labels) == 6
        assert labels[2:4].tolist() == [[[3, 3], [4, 4]], [[5, 6], [5, 6]]]
        assert labels[5].tolist() == [[9, 10], [0, 0]]

    def test_scores_are_those_of_the_object_within_the_part(self, S, G):
        P, x = S.parts(of=["tree", "sky"]), G.generate([3, 4]).clone().requires_grad_()
        scores, labels, own = P.scores(x), P.labels(x), S.scores(x)
        assert scores.shape == (2, 21, 64, 64)
        for name in ("top of tree", "left of sky"):
            i = P.index(name)
            inside = (labels == i + 1).any(1)
            torch.testing.assert_close(scores[:, i], own[:, S.index(name.split()[-1])] * inside)
        scores[:, P.index("top of sky")].sum().backward()
        assert x.grad.abs().sum() > 0

    def test_no_parts_of_parts(self):
        """Parts are no objects: a second time finds only the objects again."""
        with pytest.raises(ValueError, match="has parts already"):
            giving(drawn("1")[None]).parts().parts()

    def test_fingerprints(self, S):
        assert len({S.fingerprint, S.parts().fingerprint, S.parts(of="tree").fingerprint}) == 3
        assert S.parts().fingerprint == S.parts().fingerprint

    def test_dissection(self, S, G):
        D = gl.dissect(G, S.parts(of=["hill", "tree"]), "layer4", n=16, progress=False)
        assert D.iou.shape == (192, 21)


class TestUnion:
    def test_labels_and_names(self, S, G):
        C = gl.load_segmenter("colors")
        U, x = S + C, G.generate([1, 2])
        assert U.name == "scenes + colors"
        assert U.concepts == S.concepts + C.concepts, "no category is shared, none is renamed"
        labels = U.labels(x)
        assert torch.equal(labels[:, :1], S.labels(x))
        assert torch.equal(labels[:, 1:], C.labels(x) + 13)
        torch.testing.assert_close(U.scores(x), torch.cat([S.scores(x), C.scores(x)], 1))

    def test_shared_categories_are_kept_apart(self):
        A = giving(drawn("10")[None], ["tree", ("red", "color")], "a")
        B = giving(drawn("21")[None], ["tree", "house"], "b")
        U = A + B
        names = [("tree", "object (a)"), ("red", "color"), ("tree", "object (b)"), ("house", "object (b)")]
        assert list(U.concepts) == names
        assert U.labels(torch.zeros(1, 3, 1, 2))[0, :, 0].tolist() == [[1, 0], [4, 3]]
        assert U.index("tree:object (b)") == 2

    def test_three(self):
        one = drawn("1")[None]
        U = giving(one, ["x"], "a") + giving(one, ["x"], "b") + giving(one, ["x"], "c")
        assert [c.category for c in U.concepts] == ["object (a)", "object (b)", "object (c)"]
        assert U.labels(torch.zeros(2, 3, 1, 1)).flatten(1).tolist() == [[1, 2, 3]] * 2

    def test_other_grids(self):
        coarse, fine = giving(drawn("12", "01")[None], name="a"), giving(torch.ones(1, 4, 6).long(), ["x"], "b")
        labels = (coarse + fine).labels(torch.zeros(1, 3, 8, 8))
        assert labels.shape == (1, 2, 4, 6)
        assert labels[0, 0].tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[0, 0, 0, 1, 1, 1]] * 2
        small = UnionSegmenter(coarse, fine, size=(2, 2)).labels(torch.zeros(1, 3, 8, 8))
        assert small[0].tolist() == [[[1, 2], [0, 1]], [[3, 3], [3, 3]]]

    @pytest.mark.parametrize("size", [(3, 5), (7, 4), (16, 2), (1, 1)])
    def test_nearest(self, size):
        labels = torch.randint(0, 9, (2, 2, 5, 7), generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.interpolate(labels.float(), size, mode="nearest-exact").long()
        assert torch.equal(nearest(labels, size), expected)

    def test_refused(self, S):
        with pytest.raises(ValueError, match="two segmenters or more, got 1"):
            UnionSegmenter(S)
        with pytest.raises(ValueError, match="have one name and share a concept"):
            S + S

    def test_of_parts_in_a_dissection(self, S, G):
        U = S.parts(of="tree") + gl.load_segmenter("colors")
        D = gl.dissect(G, U, "layer4", n=16, within_category=True, progress=False)
        assert D.iou.shape == (192, 13 + 4 + 11)
        assert len({U.fingerprint, S.fingerprint, (S + gl.load_segmenter("colors")).fingerprint}) == 3
