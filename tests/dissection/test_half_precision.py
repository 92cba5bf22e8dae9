"""Half precision is taken where it changes no concept, and left where it does."""

import multiprocessing
import signal
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from planted import Between
from test_dissect import assert_same
from torch import nn

import ganlens as gl

Z = 16


class Fine(nn.Module):
    """Two units draw stripes; what tells one from the other is ``detail`` of their height.

    Their maps come from a matrix product, which autocast computes in half precision: details below 1/256 are lost.
    """

    def __init__(self, detail: float, breaks: bool = False):
        super().__init__()
        self.layer, self.detail, self.breaks = Between(), detail, breaks
        rows = torch.arange(8)[:, None].expand(8, 8).flatten()
        self.register_buffer("one", (rows < 4).float())
        self.register_buffer("eye", torch.eye(64))

    def forward(self, z):
        r = (z.abs().mean(1) > 0.7).float()[:, None, None] * torch.stack([self.one, 1 - self.one])
        r = nn.functional.linear(1 + self.detail * r, self.eye).unflatten(2, (8, 8))
        if self.breaks and r.dtype == torch.bfloat16:
            r = r / 0
        r = self.layer(r)
        return ((r.float() - 1) / self.detail)[:, [0, 1, 1]].clamp(-1, 1)


def halves(x):
    """Concept 1 in the upper and concept 2 in the lower half, everywhere: whatever the network draws."""
    label = torch.ones_like(x[:, :1], dtype=torch.int64)
    label[:, :, 4:] = 2
    return label


def pair(detail: float, breaks: bool = False):
    net = Fine(detail, breaks)
    return gl.Generator.wrap(net, Z, "fine", layers=["layer"]), gl.Segmenter.wrap(halves, ["upper", "lower"])


def ask(G, S, **options):
    return gl.dissect(G, S, "layer", **{"n": 80, "quantile": 0.3, "half": True, "progress": False} | options)


@pytest.fixture(scope="module")
def whole(G, S):
    return gl.dissect(G, S, "layer4", n=136, half=True, progress=False)


class TestTaken:
    def test_where_it_changes_no_concept(self):
        G, S = pair(detail=0.5)
        D = ask(G, S)
        assert D.origin["precision"] == "bfloat16"
        assert [str(label.concept) for label in D.labels] == ["upper", "lower"]
        assert "precision" not in ask(G, S, half=False).origin

    def test_embedded_networks(self, G, S, whole, untouched):
        """Concepts stay, numbers differ a little: it is really computed in another precision."""
        untouched(G.net)
        full = gl.dissect(G, S, "layer4", n=136, progress=False)
        assert whole.origin == full.origin | {"precision": "bfloat16"}
        both = [(a, b) for a, b in zip(whole.labels, full.labels, strict=True) if b.iou > 0.06]
        assert len(both) > 40
        assert sum(a.concept != b.concept for a, b in both) <= 0.02 * len(both)
        difference = np.abs(whole.iou - full.iou).max()
        assert 0 < difference < 0.01

    @pytest.mark.slow
    def test_same_in_any_batch_and_shard(self, G, S, whole):
        """To the bit, as in float32."""
        options = {"n": 136, "half": True, "progress": False}
        assert_same(gl.dissect(G, S, "layer4", batch_size=8, **options), whole)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            assert_same(gl.dissect(G, S, "layer4", executor=executor, shards=3, **options), whole)

    def test_saved(self, whole, tmp_path):
        whole.save(tmp_path / "half.npz")
        assert gl.Dissection.load(tmp_path / "half.npz").origin == whole.origin


class TestLeft:
    def test_where_it_changes_a_concept(self):
        G, S = pair(detail=0.001)
        with pytest.warns(UserWarning, match=r"half precision changes the concepts of units \(layer: 1\); going on in"):
            D = ask(G, S)
        assert "precision" not in D.origin
        assert_same(D, ask(G, S, half=False))

    def test_where_it_breaks_units(self):
        G, S = pair(detail=0.5, breaks=True)
        with pytest.warns(UserWarning, match=r"concepts of units \(layer: 0, 1\)"):
            assert_same(ask(G, S), ask(G, S, half=False))

    def test_where_the_networks_know_no_such_numbers(self):
        """Here the segmenter, which goes through numpy."""
        G, _ = pair(detail=0.5)
        S = gl.Segmenter.wrap(lambda x: halves(torch.from_numpy((x @ x.mT).numpy())), ["upper", "lower"], "by numpy")
        with pytest.warns(UserWarning, match=r"does not work \(TypeError: .*BFloat16\); going on in float32"):
            assert_same(ask(G, S), ask(G, S, half=False))

    def test_all_of_the_first_images_are_looked_at(self):
        """With a bar, too, and however slow it is."""
        G, _ = pair(detail=0.5)
        slow = gl.Segmenter.wrap(lambda x: time.sleep(0.11) or halves(x), ["upper", "lower"])
        G.net.layer.calls = 0
        assert ask(G, slow, progress=True).n == 80
        assert G.net.layer.calls == 8 + 8 + 10


class TestInterrupt:
    @pytest.mark.parametrize("call", [2, 9])
    def test_during_the_check(self, call, tmp_path):
        """Nothing was done yet, so that there is nothing to return."""
        G, _ = pair(detail=0.5)
        calls = []

        def press(x):
            calls.append(1)
            if len(calls) == call:
                signal.raise_signal(signal.SIGINT)
            return halves(x)

        with pytest.raises(KeyboardInterrupt):
            ask(G, gl.Segmenter.wrap(press, ["upper", "lower"]), checkpoint=tmp_path / "c.npz")
        assert len(calls) == call
        assert not (tmp_path / "c.npz").exists()


class TestCheckpoint:
    @pytest.mark.parametrize("detail", [0.5, 0.001])
    def test_what_was_found_out_is_kept(self, detail, tmp_path):
        """The same call goes on in the same precision, without another check."""
        G, S = pair(detail)

        def stop(done, n):
            if done > 64:
                raise RuntimeError("as asked")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = ask(G, S)
            with pytest.raises(RuntimeError, match="as asked"):
                ask(G, S, checkpoint=tmp_path / "c.npz", progress=stop, batch_size=8)
        G.net.layer.calls = 0
        found = ask(G, S, checkpoint=tmp_path / "c.npz", batch_size=8)
        assert 0 < G.net.layer.calls <= 10
        assert found.origin == whole.origin
        assert_same(found, whole)

    def test_is_another_question(self, tmp_path):
        G, S = pair(detail=0.5)
        ask(G, S, checkpoint=tmp_path / "c.npz", half=False)
        with pytest.raises(ValueError, match=r"checkpoint of another dissection .half false, not true"):
            ask(G, S, checkpoint=tmp_path / "c.npz")


@pytest.mark.parametrize("half", [1, "bfloat16", None])
def test_bad_input(half):
    with pytest.raises(ValueError, match=r"half=.*: expected True or False"):
        ask(*pair(0.5), half=half)
