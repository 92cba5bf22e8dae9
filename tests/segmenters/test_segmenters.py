"""Segmenters: label planes from scores, wrapped functions, vocabularies, and the embedded one."""

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens import Concept, Segmenter

MIXED = [("glass", "object"), ("glass", "material"), ("tree", "object"), ("red", "color"), ("brick", "material")]


class Bands(Segmenter):
    """Scores that are the images' channels, weighted."""

    name = "bands"
    concepts = tuple(Concept(*pair) for pair in MIXED)
    threshold = 0.25

    def scores(self, images):
        mix = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
        return torch.einsum("cd,ndyx->ncyx", mix, images).sigmoid() - 0.3


@pytest.fixture
def images():
    return torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 4 - 3


class TestLabels:
    def test_best_score_of_each_category(self, images):
        """Pixel by pixel: one plane for each category, in order; none where the best is not above the level."""
        found, scores = Bands().labels(images), Bands().scores(images)
        assert found.shape == (4, 3, 6, 5)
        assert not found.is_floating_point()
        members = {"object": [0, 2], "material": [1, 4], "color": [3]}
        for n, y, x in np.ndindex(4, 6, 5):
            for plane, concepts in enumerate(members.values()):
                best = max(concepts, key=lambda c, n=n, y=y, x=x: scores[n, c, y, x].item())
                expected = best + 1 if scores[n, best, y, x] > 0.25 else 0
                assert found[n, plane, y, x] == expected
        assert (found == 0).any()

    @pytest.mark.filterwarnings("ignore:.*add up to more than 1")
    def test_keep_no_graph(self, images):
        assert not Bands().labels(images.requires_grad_()).requires_grad
        S = Segmenter.wrap(lambda x: x.sigmoid(), ["r", "g", "b"])
        assert S.scores(images).requires_grad
        assert not S.labels(images).requires_grad

    def test_labels_only(self):
        class Labels(Segmenter):
            name = "mine"

            def labels(self, images):
                return torch.ones(len(images), 1, 2, 2).int()

        with pytest.raises(TypeError, match=r"mine gives labels only, no differentiable scores; use .* scores\(\)"):
            Labels().scores(torch.zeros(1, 3, 2, 2))


class TestWrap:
    def test_labels_get_their_plane(self, images):
        flat = Segmenter.wrap(lambda x: (x[:, 0] > 0).long(), ["red"])
        planes = Segmenter.wrap(lambda x: (x[:, :2] > 0).byte(), ["red", "green"], output="labels")
        assert flat.labels(images).shape == (4, 1, 6, 5)
        assert torch.equal(flat.labels(images)[:, 0], (images[:, 0] > 0).long())
        assert planes.labels(images).shape == (4, 2, 6, 5)
        with pytest.raises(TypeError, match="gives labels only"):
            flat.scores(images)

    def test_scores_become_labels(self, images):
        calls = []

        def scores(x):
            calls.append(len(x))
            return Bands().scores(x)

        S = Segmenter.wrap(scores, MIXED, output="scores")
        assert torch.equal(S.scores(images), Bands().scores(images))
        calls.clear()
        found = S.labels(images)
        assert calls == [4], "every image is looked at once"
        scores = Bands().scores(images)
        assert torch.equal(found[:, 2] == 4, scores[:, 3] > 0)

    def test_names(self):
        def find(x):
            return x

        assert Segmenter.wrap(find, ["a"]).name.endswith("find")
        assert Segmenter.wrap(find, ["a"], name="mine").name == "mine"
        assert repr(Segmenter.wrap(find, ["a", "b"], name="mine")) == "<FunctionSegmenter mine: 2 concepts>"

    def test_concepts(self):
        S = Segmenter.wrap(abs, ["tree", ("brick", "material"), Concept("dome", "part")])
        assert S.concepts == (("tree", "object"), ("brick", "material"), ("dome", "part"))
        assert all(isinstance(concept, Concept) for concept in S.concepts)
        assert [str(concept) for concept in S.concepts] == ["tree", "brick", "dome"]

    @pytest.mark.parametrize(
        ("concepts", "message"),
        [([], "no concepts given: name at least one"), (["tree", ("tree", "object")], "a concept is listed twice")],
    )
    def test_bad_concepts(self, concepts, message):
        with pytest.raises(ValueError, match=message):
            Segmenter.wrap(abs, concepts)


class TestVocabulary:
    def test_index(self):
        assert [Bands().index(concept) for concept in Bands.concepts] == list(range(5))
        assert [Bands().index(tuple(pair)) for pair in MIXED] == list(range(5))
        assert Bands().index("tree") == 2
        assert [Bands().index(":".join(pair)) for pair in MIXED] == list(range(5))

    def test_ambiguous(self):
        with pytest.raises(ValueError, match=r"'glass' is ambiguous in bands: give one of .*object.*material"):
            Bands().index("glass")

    @pytest.mark.parametrize("concept", ["tre", ("tree", "material"), "xyz"])
    def test_unknown(self, concept):
        with pytest.raises(ValueError, match=r"no concept .* in bands.* It has glass, glass, tree, red, brick"):
            Bands().index(concept)

    def test_close_match(self):
        with pytest.raises(ValueError, match="did you mean 'brick'"):
            Bands().index("bricks")

    def test_fingerprint(self):
        def make(name="a", concepts=("x", "y"), threshold=0.0):
            S = Segmenter.wrap(abs, concepts, name=name)
            S.threshold = threshold
            return S.fingerprint

        assert make() == make()
        assert len({make(), make("b"), make(concepts=("x",)), make(concepts=("y", "x")), make(threshold=0.5)}) == 5


class TestEmbedded:
    def test_labels_are_the_best_scores(self, S, G):
        images = G.generate(range(6))
        scores, labels = S.scores(images), S.labels(images)
        assert scores.shape == (6, len(S.concepts), 64, 64)
        torch.testing.assert_close(scores.sum(1), torch.ones(6, 64, 64))
        assert labels.shape == (6, 1, 64, 64)
        assert torch.equal(labels[:, 0], scores.argmax(1) + 1)

    def test_scores_are_differentiable(self, S, G):
        images = G.generate([1, 2]).clone().requires_grad_()
        S.scores(images)[0, 0].mean().backward()
        assert images.grad[0].abs().sum() > 0
        assert (images.grad[1] == 0).all()

    def test_same_in_any_batch_of_eight(self, S, G):
        """Labels do not depend on the company that an image is looked at in."""
        images = G.generate(range(24))
        every = S.labels(images)
        assert all(torch.equal(S.labels(images[i : i + 8]), every[i : i + 8]) for i in (0, 8, 16))

    def test_knows_the_painted_scenes(self, S):
        """On scenes whose labels are known: most pixels right, though it was never given these."""
        from ganlens.scenes.painter import paint_many

        pictures, truth = paint_many(range(900_000, 900_008))[:2]
        found = S.labels(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)[:, 0]
        assert (found.numpy() == truth).mean() > 0.85

    def test_fingerprint_is_stable(self, S):
        assert gl.load_segmenter("scenes").fingerprint == S.fingerprint

    def test_concepts_are_distinct(self, S):
        assert len(set(S.concepts)) == len(S.concepts) == 13


class TestMasks:
    @pytest.fixture
    def drawn(self):
        """Masks for the images 0 … 15 of the embedded generator."""
        return torch.randint(0, 3, (16, 2, 8, 8), generator=torch.Generator().manual_seed(5))

    @pytest.fixture
    def M(self, G, drawn):
        return Segmenter.from_masks(G.generate(range(16)), drawn, ["tree", ("red", "color")])

    def test_are_found_again(self, M, G, drawn):
        """In any order and company, although images are then rounded otherwise."""
        order = [7, 3, 3, 11, 0]
        assert torch.equal(M.labels(G.generate(order)), drawn[order])
        assert torch.equal(M.labels(G.generate([5])), drawn[5:6])

    def test_dissection_is_that_of_a_function_of_the_seed(self, M, G, drawn):
        batches = [drawn[:8], drawn[8:]]
        S = Segmenter.wrap(lambda x: batches.pop(0), M.concepts)
        theirs = gl.dissect(G, S, "layer4", n=16, batch_size=8, progress=False)
        ours = gl.dissect(G, M, "layer4", n=16, batch_size=8, progress=False)
        np.testing.assert_array_equal(ours.iou, theirs.iou)

    def test_booleans_are_planes(self, G):
        images, masks = G.generate([1, 2]), torch.rand(2, 3, 4, 4) > 0.5
        labels = Segmenter.from_masks(images, masks, ["a", "b", "c"]).labels(images)
        assert torch.equal(labels > 0, masks)
        assert all(set(labels[:, c].unique().tolist()) <= {0, c + 1} for c in range(3))
        single = Segmenter.from_masks(images, masks[:, 0], ["a"]).labels(images)
        assert torch.equal(single[:, 0], masks[:, 0].long())

    def test_other_images_are_refused(self, M, G):
        with pytest.raises(ValueError, match="image 1 of 2 is none of the 16 that masks were given for"):
            M.labels(G.generate([3, 16]))

    @pytest.mark.parametrize(
        ("masks", "message"),
        [
            (
                torch.zeros(2, 4, 4),
                r"torch.float32 masks \(2, 1, 4, 4\) for 2 images and 2 concepts; expected integers",
            ),
            (torch.zeros(3, 4, 4).int(), r"masks \(3, 1, 4, 4\) for 2 images"),
            (torch.zeros(2, 3, 4, 4).bool(), r"or booleans \(K, C, h, w\)"),
            (torch.full((2, 4, 4), 3), r"masks hold 3 … 3; expected 0 … 2"),
        ],
    )
    def test_bad_masks(self, G, masks, message):
        with pytest.raises(ValueError, match=message):
            Segmenter.from_masks(G.generate([0, 1]), masks, ["a", "b"])

    def test_fingerprint(self, M, G, drawn):
        other = Segmenter.from_masks(G.generate(range(16)), drawn.flip(0), M.concepts)
        assert other.fingerprint != M.fingerprint
        assert len(M.fingerprint) == 16


def test_joined_by_name():
    S = gl.load_segmenter("scenes+colors")
    assert S.name == "scenes + colors"
    assert len(S.concepts) == 24
    with pytest.raises(ValueError, match="did you mean 'colors'"):
        gl.load_segmenter("scenes+colours")


def test_unknown_segmenter():
    with pytest.raises(ValueError, match="no segmenter 'scene' in ganlens; did you mean 'scenes'"):
        gl.load_segmenter("scene")
