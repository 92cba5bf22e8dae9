"""What a function returns is seen from its first result, said where it could be two things, and held to afterwards."""

import pickle

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.effects.counting import seeds_of
from ganlens.segmenters.base import checked_labels

COLORS = ["red", "green", "blue"]


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(4, 3, 6, 5) * 2 - 1


def test_booleans_are_one_plane_for_each_concept(x):
    S = gl.Segmenter.wrap(lambda x: x > 0, COLORS)
    labels = S.labels(x)
    for c in range(3):
        assert torch.equal(labels[:, c] == c + 1, x[:, c] > 0)
    assert S.output == "masks"
    with pytest.raises(ValueError, match=r"booleans \(4, 2, 6, 5\) for 3 concepts"):
        gl.Segmenter.wrap(lambda x: x[:, :2] > 0, COLORS).labels(x)


def test_planes_of_0_and_1_could_be_labels(x):
    S = gl.Segmenter.wrap(lambda x: (x > 0).byte(), COLORS)
    with pytest.warns(UserWarning, match="taken for masks; say so by output='masks', or give 'labels'"):
        labels = S.labels(x)
    assert labels.max() == 3
    said = gl.Segmenter.wrap(lambda x: (x > 0).byte(), COLORS, output="labels")
    assert torch.equal(said.labels(x), (x > 0).long())


def test_logits(x):
    logits = 5 * x - 8
    S = gl.Segmenter.wrap(lambda x: 5 * x - 8, COLORS)
    with pytest.warns(UserWarning, match="taken for logits of which one concept wins"):
        labels = S.labels(x)
    assert torch.equal(labels[:, 0], logits.argmax(1) + 1)
    assert torch.allclose(S.scores(x), logits.softmax(1))
    alone = gl.Segmenter.wrap(lambda x: 5 * x, [(c, c) for c in COLORS])
    assert torch.equal(alone.labels(x) > 0, x > 0)
    assert alone.output == "sigmoid"


def test_a_softmax_is_taken_within_categories(x):
    S = gl.Segmenter.wrap(lambda x: 9 * x - 4, [("a", "one"), ("b", "one"), ("c", "two")], output="logits")
    expected = (9 * x[:, :2] - 4).softmax(1)
    assert torch.allclose(S.scores(x)[:, :2], expected)
    assert (S.scores(x)[:, 2] == 1).all()


@pytest.mark.filterwarnings("ignore:.*add up to more than 1")
def test_what_changes_afterwards_is_refused(x):
    kinds = iter([lambda x: x.sigmoid(), lambda x: 4 * x, lambda x: (x > 0).int()])
    S = gl.Segmenter.wrap(lambda x: next(kinds)(x), COLORS)
    S.labels(x)
    with pytest.raises(ValueError, match=r"returned scores .* but is taken for output='scores'"):
        S.labels(x)
    with pytest.raises(ValueError, match=r"returned torch.int32, but is taken for output='scores'"):
        S.labels(x)


@pytest.mark.filterwarnings("ignore:.*add up to more than 1")
def test_what_was_seen_makes_no_other_segmenter_of_it(x):
    def find(x):
        return x.sigmoid()

    S = gl.Segmenter.wrap(find, COLORS)
    before = S.fingerprint
    S.labels(x)
    assert S.fingerprint == before
    with pytest.raises(ValueError, match="did you mean 'masks'"):
        gl.Segmenter.wrap(find, COLORS, output="mask")
    with pytest.raises(ValueError, match="expected one from images"):
        gl.Segmenter.wrap(3, COLORS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int16])
def test_labels_of_every_whole_type(x, dtype):
    S = gl.Segmenter.wrap(lambda x: (x.argmax(1) + 1).to(dtype), COLORS)
    assert torch.equal(checked_labels(S, x)[:, 0], x.argmax(1) + 1)


def test_sparse_labels(x):
    S = gl.Segmenter.wrap(lambda x: (x.argmax(1) + 1).to_sparse(), COLORS)
    assert torch.equal(checked_labels(S, x)[:, 0], x.argmax(1) + 1)


def test_planes_keep_their_size():
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    calls = []

    def shrinking(x):
        calls.append(1)
        return S.labels(x)[:, :, :: 1 + (len(calls) > 2), :: 1 + (len(calls) > 2)]

    with pytest.raises(ValueError, match="returned label planes of 32 x 32 pixels, before that of 64 x 64"):
        gl.dissect(G, gl.Segmenter.wrap(shrinking, S.concepts, output="labels"), "layer9", n=64, progress=False)


def test_more_concepts_than_can_be_counted():
    G = gl.load_generator("scenes")
    S = gl.Segmenter.wrap(lambda x: x[:, :1].long(), [str(i) for i in range(40_000)], "many", output="labels")
    with pytest.raises(ValueError, match="40,000 concepts: at most 32,767"):
        gl.dissect(G, S, "layer9", n=8, progress=False)


def test_options_of_named_segmenters():
    with pytest.raises(ValueError, match="segmenter 'colors' has no option 'size'; it has none"):
        gl.load_segmenter("colors", size=3)


def outlined(x):
    return (x > 0).byte()


def test_what_is_decided_travels():
    S = gl.Segmenter.wrap(outlined, COLORS, output="masks")
    assert pickle.loads(pickle.dumps(S)).output == "masks"


class TestIgnored:
    """Pixels that count nowhere: the numbers are those of the other pixels alone."""

    @pytest.fixture
    def G(self):
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(6, 4 * 16 * 16), torch.nn.Unflatten(1, (4, 16, 16)))
        return gl.Generator.wrap(torch.nn.Sequential(net, torch.nn.Conv2d(4, 3, 1), torch.nn.Tanh()), 6)

    @staticmethod
    def labels(x, ignored):
        bright, edge = (x.mean(1) > 0).long() + 1, x[:, 0] > 0.4
        return torch.where(edge, ignored, bright)

    @pytest.mark.parametrize("rule", ["quantile", "iqr", "iou"])
    @pytest.mark.parametrize("within", [False, True])
    def test_counts_are_those_of_the_other_pixels(self, G, rule, within):
        S = gl.Segmenter.wrap(lambda x: self.labels(x, 255), ["dark", "bright"], "s")
        D = gl.dissect(G, S, "0", n=24, rule=rule, within_category=within, quantile=0.05, progress=False)
        x, r = G.read(G.latents(range(24)), ["0"])
        labels, r = self.labels(x, -1).flatten(), r["0"].transpose(0, 1).flatten(1)
        mine = torch.arange(24).repeat_interleave(256) % 2 == 1 if rule != "quantile" else torch.ones(24 * 256).bool()
        kept = (labels >= 0) & mine
        assert 0 < (labels < 0).sum() < len(labels) / 2
        for c in range(2):
            on = r > torch.tensor(D.thresholds_by_concept[:, c])[:, None]
            assert abs(D.on[:, c] - (on & kept).sum(1).numpy()).max() <= 2
            assert abs(D.overlap[:, c] - (on & (labels == c + 1) & mine).sum(1).numpy()).max() <= 2
            assert D.scope[c] == kept.sum()
            assert D.area[c] == ((labels == c + 1) & mine).sum()
        if rule == "quantile":
            np.testing.assert_allclose(D.on[:, 0] / kept.sum().item(), 0.05, atol=1e-3)

    @pytest.mark.parametrize(("number", "options"), [(255, {}), (7, {"ignore": 7}), (-1, {}), (0, {"ignore": 0})])
    def test_by_custom_or_by_name(self, G, number, options):
        S = gl.Segmenter.wrap(lambda x: self.labels(x, number), ["dark", "bright"], "s", **options)
        labels = S.labels(G.generate(range(3)))
        assert set(labels.unique().tolist()) == {-1, 1, 2}
        assert checked_labels(S, G.generate(range(3))).min() == 0
        union = gl.load_segmenter("colors") + S
        both = checked_labels(union, G.generate(range(3)), ignored=True)
        assert torch.equal((both < 0).all(1), labels[:, 0] < 0)
        assert torch.equal((both < 0).any(1), labels[:, 0] < 0)
        assert checked_labels(S.parts(["dark"]), G.generate(range(3)), ignored=True).min() == -1

    def test_drawn_masks(self, G):
        x = G.generate(range(4))
        S = gl.Segmenter.from_masks(x, self.labels(x, 255), ["dark", "bright"])
        assert S.labels(x).min() == -1

    def test_a_number_without_meaning_is_refused(self, G):
        S = gl.Segmenter.wrap(lambda x: self.labels(x, 9), ["dark", "bright"])
        with pytest.raises(ValueError, match=r"labels 1 … 9; expected 0 … 2, .* another number for these: ignore=…"):
            checked_labels(S, G.generate(0))
        with pytest.raises(ValueError, match="ignore='edge': expected the label of pixels that count nowhere"):
            gl.Segmenter.wrap(lambda x: x, ["dark"], ignore="edge")

    def test_effects_leave_them_out(self, G):
        S = gl.Segmenter.wrap(lambda x: self.labels(x, 255), ["dark", "bright"], "s")
        D = gl.dissect(G, S, "0", n=8, progress=False)
        effect = gl.ablation_effect(D, "bright", [0], n=8, draws=1, progress=False)
        labels = self.labels(G.generate(seeds_of(D.sample + 1, 8)), -1)
        assert effect.before.sum() == (labels > 0).sum() < labels.numel()
        assert gl.context(D, "bright", [0], n=1, stride=8, progress=False).n == 1
        assert gl.segmentation_distance(G, G, S, n=8, progress=False).rows()
