"""What a GPU finds is what a processor finds; run where there is one."""

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.dissection.passes import Pass, Question

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RULES = ["quantile", "iqr", "iou"]


@pytest.fixture(scope="module")
def pair():
    return gl.load_generator().to("cuda"), gl.load_segmenter()


def test_finds_what_a_processor_finds(pair, G, S):
    here, there = (gl.dissect(g, s, "layer4", n=136, rule=RULES, progress=False) for g, s in (pair, (G, S)))
    for rule in RULES:
        assert np.abs(here[rule].iou - there[rule].iou).max() < 0.01
        both = [(a, b) for a, b in zip(here[rule].labels, there[rule].labels, strict=True) if b.iou > 0.08]
        assert sum(a.concept != b.concept for a, b in both) <= 0.02 * len(both)


def test_the_same_in_any_batch_and_run(pair):
    whole, again = (gl.dissect(*pair, "layer4", n=136, batch_size=size, progress=False) for size in (32, 8))
    np.testing.assert_allclose(whole.iou, again.iou, atol=1e-3)
    np.testing.assert_array_equal(whole.iou, gl.dissect(*pair, "layer4", n=136, batch_size=32, progress=False).iou)


def test_half_precision(pair):
    assert gl.dissect(*pair, "layer4", n=136, half=True, progress=False).origin.get("precision") == "float16"


def test_counting_does_not_wait_for_the_device(pair):
    """After the pilot, nothing is asked of it: not by any rule, in several layers."""
    pass_ = Pass(*pair, Question(("layer4", "layer7"), tuple(RULES), 0, 128, 0.01, False, 8), 32)
    pass_.run(range(64), lambda *_: False, lambda _: None)
    batch = pass_.look(list(range(64, 96)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        pass_.count(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
