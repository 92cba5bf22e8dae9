"""What CONTRIBUTING promises: a family of generators, or a segmenter with a name, is one file and nothing else."""

import pytest
import torch

import ganlens as gl
from ganlens import segmenters
from ganlens.models import families

FAMILY = '''
"""Made up: one linear map, and its images are grey."""
import torch
from ganlens.models.base import Generator

FAMILY, FORMAT = "Flat", "Flat (flat.weight)"

def likeness(state):
    return float(set(state.items) == {"flat.weight", "flat.bias"})

def build(state, name):
    tensors = state.tensors()
    net = torch.nn.Sequential()
    net.flat = torch.nn.Linear(*reversed(tensors["flat.weight"].shape))
    net.load_state_dict(tensors)
    net.image = torch.nn.Unflatten(1, (3, 4, 4))
    return Generator.wrap(net, z_dim=net.flat.in_features, layers=["image"], name=name, output="[-1,1]")
'''

SEGMENTER = '''
"""Made up: what is bright."""
from ganlens.segmenters.base import Segmenter

NAMES = {"bright": "what is bright"}

def load(name, level=0.0):
    return Segmenter.wrap(lambda x: (x.mean(1) > level).long(), ["bright"])
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Put a file beside those of a package, for the time of a test."""

    def add(package, name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    return add


def test_a_family_is_one_file(added, tmp_path):
    state = {"flat.weight": torch.randn(48, 7), "flat.bias": torch.randn(48)}
    torch.save({"epoch": 3, "generator": state}, tmp_path / "flat.pt")
    with pytest.raises(ValueError, match=r"fits no known format(?s:.*)Known are: (?!.*Flat)"):
        gl.load_generator(tmp_path / "flat.pt")
    added(families, "flat_family", FAMILY)
    G = gl.load_generator(tmp_path / "flat.pt")
    expected = (G.latents([5]) @ state["flat.weight"].T + state["flat.bias"]).reshape(1, 3, 4, 4)
    assert torch.allclose(G.generate([5]), expected.clamp(-1, 1), atol=1e-5)
    torch.save({"other": torch.zeros(2), "names": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"Known are: .*Flat \(flat.weight\)"):
        gl.load_generator(tmp_path / "other.pt")


def test_a_segmenter_is_one_file(added):
    with pytest.raises(ValueError, match="no segmenter 'bright'"):
        gl.load_segmenter("bright")
    added(segmenters, "bright_things", SEGMENTER)
    x = torch.rand(2, 3, 4, 4) * 2 - 1
    assert torch.equal(gl.load_segmenter("bright", level=0.5).labels(x)[:, 0], (x.mean(1) > 0.5).long())
    assert segmenters.list_segmenters()["bright"] == "what is bright"
    with pytest.raises(ValueError, match="did you mean 'bright'"):
        gl.load_segmenter("brigt")
