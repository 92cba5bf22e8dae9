"""Important units are found by switching each off: a known wiring comes out, and the numbers are counted by hand."""

import signal

import classifiers
import numpy as np
import planted
import pytest
from test_accuracy import accuracy_by_hand, said_without

import ganlens as gl
from ganlens.segmenters.base import Segmenter

WIRED = {"red": 2, "green": 4, "blue": 0}


@pytest.fixture(scope="module")
def D():
    S = Segmenter.wrap(planted.two_planes, planted.TWO_PLANES)
    return gl.dissect(classifiers.sign_classifier(), S, "layer", n=60, progress=False)


@pytest.mark.parametrize("name", WIRED)
def test_the_wired_unit_comes_first(D, name):
    found = gl.important_units(D, name, k=2, progress=False)
    assert found.units[0] == WIRED[name]
    assert found.order[0] == WIRED[name]
    assert sorted(found.order) == list(range(6))
    assert (found.drops[[1, 3, 5]] == 0).all()
    assert (np.abs(found.fading[[1, 3, 5]]) < 1e-6).all()
    assert found.edit == gl.ablate("layer", found.units)
    assert found.complete
    assert f"{name} is told apart at" in repr(found)


def test_drops_are_those_of_a_count_by_hand(D):
    x, labels = classifiers.signs()
    found = gl.important_units(D, "green", seeds=range(10, 50), progress=False)
    truth = labels[10:50].tolist()
    before = accuracy_by_hand(truth, said_without(x[10:50], None), 1)
    assert found.accuracy == pytest.approx(before)
    for unit in range(6):
        after = accuracy_by_hand(truth, said_without(x[10:50], unit), 1)
        assert found.drops[unit] == pytest.approx(before - after)


def test_equal_drops_are_ordered_by_probability(D):
    """Nothing is called by another name where one of two equal units is off, but it is less sure."""
    x, labels = classifiers.signs()
    C = D.generator
    found = gl.important_units(D, "red", k=6, seeds=range(60), progress=False)
    means = ((x + 1) / 2).mean((2, 3)).double()
    less = means.clone()
    less[:, 2] = 0  # blue, unit 0
    gain = means.softmax(1)[:, 0] - less.softmax(1)[:, 0]
    assert found.fading[0] == pytest.approx(gain[labels == 0].mean().item(), abs=1e-6)
    assert C.class_names[0] == "red"


def test_half_of_the_images_are_of_the_class(D):
    found = gl.important_units(D, "blue", n=12, progress=False)
    assert len(found.seeds) == 12
    assert (D.generator.truth[found.seeds] == 2).sum() == 6
    all_ = gl.important_units(D, "blue", n=400, progress=False)
    judged = gl.class_accuracy(D, all_.edit, progress=False)
    assert sorted([*all_.seeds, *judged.seeds]) == list(range(60))


def test_each_batch_is_taken_to_the_layer_once(D):
    net = D.generator.net
    D.generator.open("layer", [0])  # whether the network can be resumed is tried once
    net.layer.calls = net.late.calls = 0
    gl.important_units(D, "red", n=20, progress=False)
    assert net.layer.calls == 1
    assert net.late.calls == 1 + 6  # unedited, and without each unit


def test_an_interrupt_keeps_whole_batches():
    x, labels = classifiers.signs(200)
    C = gl.Classifier.wrap(classifiers.Signs(), x, labels, class_names=classifiers.COLORS)
    D = gl.dissect(C, Segmenter.wrap(planted.two_planes, planted.TWO_PLANES), "layer", n=16, progress=False)

    def pressing(step):
        told = []

        def press(done, total):
            told.append(done)
            if len(told) == step:
                signal.raise_signal(signal.SIGINT)

        return press

    part = gl.important_units(D, "red", progress=pressing(10))
    assert (len(part.seeds), part.complete) == (32, False)
    again = gl.important_units(D, "red", seeds=part.seeds, progress=False)
    assert np.array_equal(part.drops, again.drops)
    assert "incomplete" in repr(part)
    with pytest.raises(KeyboardInterrupt):
        gl.important_units(D, "red", progress=pressing(3))
    assert not any(module._forward_hooks or "forward" in vars(module) for module in C.net.modules())


def test_what_cannot_be_ranked(D, G):
    with pytest.raises(ValueError, match="no class 'rad' in signs; did you mean 'red'"):
        gl.important_units(D, "rad")
    with pytest.raises(ValueError, match="k=7: layer has 6 units"):
        gl.important_units(D, "red", k=7)
    with pytest.raises(ValueError, match="n=0"):
        gl.important_units(D, "red", n=0)
    with pytest.raises(ValueError, match="to='one'"):
        gl.important_units(D, "red", to="one")
    with pytest.raises(ValueError, match="Classifier given; expected a Dissection"):
        gl.important_units(D.generator, "red")
    for images in (np.flatnonzero(D.generator.truth == 0), np.flatnonzero(D.generator.truth == 1)):
        with pytest.raises(ValueError, match="are of class red; expected some of it and some of others"):
            gl.important_units(D, "red", seeds=images, progress=False)
    S = Segmenter.wrap(planted.two_planes, planted.TWO_PLANES)
    with pytest.raises(ValueError, match="scenes is no classifier"):
        gl.important_units(gl.dissect(G, S, "layer9", n=8, progress=False), "dome")


def test_units_are_ablated_to_their_mean(D):
    found = gl.important_units(D, "red", to="mean", progress=False)
    assert found.edit.level == "mean"
    x, labels = classifiers.signs()
    truth, means = labels[found.seeds].numpy(), ((x + 1) / 2).mean((2, 3)).numpy()
    level = means[:, 0].mean()
    means = means[found.seeds]
    before = accuracy_by_hand(truth, means.argmax(1), 0)
    means[:, 0] = level
    assert found.drops[2] == pytest.approx(before - accuracy_by_hand(truth, means.argmax(1), 0))
