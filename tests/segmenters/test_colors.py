"""Color names: against a survey's other names, against published values, and as a segmenter."""

import numpy as np
import pytest
import torch
from matplotlib.colors import CSS4_COLORS, XKCD_COLORS, to_rgb

import ganlens as gl
from ganlens.segmenters.colors import PROTOTYPES, oklab

TERMS = list(PROTOTYPES)


@pytest.fixture(scope="module")
def C():
    return gl.load_segmenter("colors")


def picture(codes):
    """Image (1, 3, 1, k) in [-1, 1] with one pixel of each color."""
    return torch.tensor([to_rgb(code) for code in codes]).T[None, :, None] * 2 - 1


def named(C, codes):
    return [C.concepts[v - 1].name for v in C.labels(picture(codes)).flatten()]


class TestNames:
    def test_prototypes_are_in_the_survey(self):
        survey = {}
        for name, code in XKCD_COLORS.items():
            survey.setdefault(code[1:], []).append(name.removeprefix("xkcd:").split()[-1])
        for term, line in PROTOTYPES.items():
            assert all(term in survey[code] for code in line.split())

    def test_prototypes_have_their_own_name(self, C):
        for term, line in PROTOTYPES.items():
            assert set(named(C, ["#" + code for code in line.split()])) == {term}

    def test_other_names_of_the_survey(self, C):
        """Names that end with a term, without another color in them and not among the prototypes."""
        taken = set(" ".join(PROTOTYPES.values()).split())
        stems = (*TERMS, "redd", "purpl", "violet", "oliv", "teal", "turquoise", "gray", "tan", "gold", "rust")
        others = []
        for name, code in XKCD_COLORS.items():
            *before, last = name.removeprefix("xkcd:").split()
            mixed = "/" in name or any(word.startswith(stems) or word.endswith("ish") for word in before)
            if before and last in TERMS and not mixed and code[1:] not in taken:
                others.append((code, last))
        found = named(C, [code for code, _ in others])
        right = np.array([term == last for term, (_, last) in zip(found, others, strict=True)])
        assert len(right) > 300
        assert right.mean() > 0.92

    def test_colors_of_the_web(self, C):
        """Values from another source, the CSS standard."""
        names = "black white red orange yellow green blue purple pink brown gray skyblue forestgreen navy gold crimson"
        found = named(C, [CSS4_COLORS[name] for name in names.split()])
        expected = "black white red orange yellow green blue purple pink brown grey blue green blue yellow red"
        assert sum(a == b for a, b in zip(found, expected.split(), strict=True)) >= 15

    def test_oklab_of_published_values(self):
        """The primaries, as in the CSS Color 4 specification and Ottosson's text."""
        found = oklab(picture(["#ffffff", "#ff0000", "#00ff00", "#0000ff"]))[0, :, 0].T
        expected = [[1, 0, 0], [0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.1795], [0.45201, -0.03246, -0.31153]]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


class TestSegmenter:
    def test_labels_are_the_best_scores(self, C, G):
        x = G.generate(range(8))
        scores, labels = C.scores(x), C.labels(x)
        assert scores.shape == (8, 11, 64, 64)
        assert labels.shape == (8, 1, 64, 64)
        assert torch.equal(scores.argmax(1) + 1, labels[:, 0])
        torch.testing.assert_close(scores.sum(1), torch.ones(8, 64, 64))

    def test_gradients_are_finite_everywhere(self, C):
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, -0.93, 0.0, 1.0])] * 3).T[None, :, None].contiguous()
        x = corners.requires_grad_()
        C.scores(x)[:, C.index("blue")].sum().backward()
        assert x.grad.isfinite().all()
        assert (x.grad != 0).any()

    def test_gradient_makes_it_bluer(self, C):
        x = torch.full((1, 3, 2, 2), 0.1, requires_grad=True)
        before = C.scores(x)[:, C.index("blue")].mean()
        before.backward()
        after = C.scores(x.detach() + 0.1 * x.grad.sign())[:, C.index("blue")].mean()
        assert after > before

    def test_out_of_range_is_clamped(self, C):
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
        assert torch.equal(C.labels(x), C.labels(x.clamp(-1, 1)))

    def test_grey_images(self, C):
        with pytest.raises(ValueError, match=r"colors need images \(N, 3, Y, X\), got \(2, 1, 4, 4\)"):
            C.labels(torch.zeros(2, 1, 4, 4))

    def test_dissection(self, C, G):
        """A unit of the last layers draws blue."""
        D = gl.dissect(G, C, "layer6" if "layer6" in G.layers else list(G.layers)[-1], n=32, progress=False)
        assert D.iou.shape[1] == 11
        assert D.iou.max() > 0.05
