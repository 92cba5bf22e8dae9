"""Hashes of networks and functions: alike for what answers alike, in every process; else different."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.models.code_hash import content_of

ROOT = Path(__file__).parents[2]
LEVEL = 0.5


def at_level(x, factor=2):
    """Refers to a global, has a default."""
    return x > LEVEL * factor


def made(level, words=frozenset({"a", "b", "c", "d"})):
    def inner(x):
        return x > level and x in words

    return inner


class Net(nn.Module):
    """Counts what it does."""

    def __init__(self, gain=1.0, mode="plain"):
        super().__init__()
        self.calls, self.gain, self.mode = 0, gain, mode
        self.register_buffer("hidden", torch.ones(2), persistent=False)

    def forward(self, z):
        self.calls += 1
        return z * self.gain


class Subclass(Net):
    def forward(self, z):
        return super().forward(z) + 1


CASES = {
    "float": lambda: 1.0,
    "whole": lambda: 1,
    "truth": lambda: True,
    "text": lambda: "1",
    "nothing": lambda: None,
    "tuple": lambda: (1.0, 2.0),
    "list": lambda: [1.0, 2.0],
    "dict": lambda: {"a": 1.0},
    "other key": lambda: {"b": 1.0},
    "whole key": lambda: {1: 1.0},
    "set": lambda: {"a", "b", "c"},
    "tensor": lambda: torch.zeros(3),
    "other tensor": lambda: torch.tensor([0.0, 0.0, 1e-30]),
    "other shape": lambda: torch.zeros(3, 1),
    "half": lambda: torch.zeros(3).half(),
    "bfloat": lambda: torch.zeros(3).bfloat16(),
    "array": lambda: np.zeros(3, np.float32),
    "empty": lambda: torch.zeros(0),
    "function": lambda: at_level,
    "method": lambda: Net().forward,
    "partial": lambda: functools.partial(at_level, factor=3),
    "other partial": lambda: functools.partial(at_level, factor=4),
    "closure": lambda: made(0.3),
    "other closure": lambda: made(0.4),
    "other words": lambda: made(0.3, frozenset({"a"})),
    "defaults": lambda: lambda x, *, factor=2: x,
    "other defaults": lambda: lambda x, *, factor=3: x,
    "net": lambda: Net(),
    "net of other gain": lambda: Net(2.0),
    "net of other mode": lambda: Net(mode="other"),
    "subclass": lambda: Subclass(),
    "library": lambda: nn.Linear,
    "builtin": lambda: len,
}


def test_each_is_itself_and_nothing_else():
    first = {name: content_of(make()) for name, make in CASES.items()}
    assert first == {name: content_of(make()) for name, make in CASES.items()}
    assert len(set(first.values())) == len(CASES)


def test_same_in_another_process():
    """With other seeds of Python's own hashes."""
    code = "import sys; sys.path[:0] = ['tests', 'tests/models']; import test_code_hash as t; "
    code += "print({name: t.content_of(make()) for name, make in t.CASES.items()})"
    expected = {name: content_of(make()) for name, make in CASES.items()}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.returncode == 0, done.stderr
        assert eval(done.stdout) == expected


def test_global_counts(monkeypatch):
    before = content_of(at_level)
    monkeypatch.setattr(sys.modules[__name__], "LEVEL", 0.6)
    assert content_of(at_level) != before


def test_hidden_numbers_count():
    net = Net()
    before = content_of(net)
    net.hidden[1] = 2
    assert content_of(net) != before


def test_counters_do_not():
    net = Net()
    before = content_of(net)
    net(torch.ones(1))
    assert content_of(net) == before


def test_circles():
    a, b = Net(), Net(2.0)
    a.list, b.list = [b], [a]
    assert content_of(a) == content_of(a) != content_of(b)
    nested = []
    nested.append(nested)
    assert content_of(nested) == content_of(nested)


@pytest.mark.parametrize("segmenter", ["scenes", "colors", "scenes+colors", "parts"])
def test_embedded_networks(G, segmenter):
    """Their content stays the same while they work."""
    S = gl.load_segmenter("scenes").parts() if segmenter == "parts" else gl.load_segmenter(segmenter)
    before = content_of(G.net, G.inputs, G.output), content_of(S)
    S.labels(G.generate(range(2)))
    assert (content_of(G.net, G.inputs, G.output), content_of(S)) == before
