"""A layer's cells must lie under the pixels that they change."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ganlens as gl
from ganlens.models.alignment import changed_places, is_shifted

Z = 12


class Drawing(nn.Module):
    """Maps of 8 x 8 cells become images of 32 x 32."""

    def __init__(self, everywhere: bool = False):
        super().__init__()
        self.dense = nn.Linear(Z, 6 * 64)
        self.maps, self.up = nn.Conv2d(6, 6, 3, padding=1), nn.ConvTranspose2d(6, 6, 4, 4)
        self.paint, self.everywhere = nn.Conv2d(6, 3, 3, padding=1), everywhere

    def forward(self, z):
        r = self.maps(self.dense(z).relu().unflatten(1, (6, 8, 8)))
        r = r.mean((2, 3), keepdim=True).expand_as(r) if self.everywhere else r
        return self.paint(self.up(r.relu()).relu()).tanh()


S = gl.Segmenter.wrap(lambda x: (x.mean(1) > 0).int(), ["bright"])
WRONG = {
    "a corner": lambda x: x[:, :, :14, :14],
    "the left": lambda x: x[..., :12],
    "the middle": lambda x: x[:, :, 8:24, 8:24],
    "padded": lambda x: F.pad(x, (0, 40, 0, 40)),
    "flipped": lambda x: x.flip(3),
    "turned": lambda x: x.rot90(1, (2, 3)),
    "a few pixels less": lambda x: x[:, :, 2:30, 2:30],
    "at one side": lambda x: x[:, :, :, :28],
    "a frame": lambda x: F.pad(x, (4, 4, 4, 4)),
    "the middle, larger": lambda x: F.interpolate(x[:, :, 4:28, 4:28], (32, 32)),
    "transposed": lambda x: x.transpose(2, 3),
    "mirrored beside it": lambda x: torch.cat([x, x.flip(3)], 3),
    "mirrored upon it": lambda x: (x + x.flip(3)) / 2,
    "three quarters": lambda x: x[..., :24],
    "rolled a quarter": lambda x: x.roll(8, 3),
    "rolled": lambda x: x.roll(6, -1),
}
RIGHT = {
    "as it is": lambda x: x,
    "half the size": lambda x: F.avg_pool2d(x, 2),
    "a pixel less": lambda x: x[:, :, 1:-1, 1:-1],
    "twice the size": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "a thin frame": lambda x: F.pad(x, (1, 1, 1, 1)),
    "a vignette": lambda x: torch.where(
        (torch.linspace(-1, 1, 32) ** 2 + torch.linspace(-1, 1, 32)[:, None] ** 2) < 0.5, x, 1
    ),
    "a black frame": lambda x: F.pad(x[..., 6:-6, 6:-6], (6,) * 4),
    "stretched": lambda x: (x - x.amin((1, 2, 3), True)) / (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True)) * 2 - 1,
    "brighter": lambda x: (x * 1.5 + 0.2).clamp(-1, 1),
}


def wrapped(output, everywhere: bool = False) -> gl.Generator:
    torch.manual_seed(1)
    return gl.Generator.wrap(Drawing(everywhere), Z, output=output)


@pytest.mark.parametrize("name", WRONG)
def test_what_lies_elsewhere_is_refused(name):
    G = wrapped(WRONG[name])
    with pytest.raises(ValueError, match=r"(output= of Drawing shows|maps of Drawing: its (rows|columns))"):
        gl.dissect(G, S, "maps", n=4, progress=False)
    assert G.generate(0).shape[1] == 3  # all else is left as it is


@pytest.mark.parametrize("name", RIGHT)
def test_what_lies_where_it_should_is_not(name):
    assert gl.dissect(wrapped(RIGHT[name]), S, ["maps", "up"], n=4, progress=False)["up"].n == 4


def test_a_layer_without_places_is_let_pass():
    assert gl.dissect(wrapped(lambda x: x, everywhere=True), S, "maps", n=4, progress=False).n == 4


def test_where_the_output_makes_maps_of_a_vector():
    """Nothing is to be seen of the output alone: each layer is looked at."""
    torch.manual_seed(1)
    net = nn.Sequential(Drawing(), nn.Flatten())
    for flip in (False, True):
        G = gl.Generator.wrap(net, Z, output=lambda x, flip=flip: x.unflatten(1, (3, 32, 32)).flip([3] * flip))
        if flip:
            with pytest.raises(ValueError, match=r"0\.maps of Sequential: its columns"):
                gl.dissect(G, S, "0.maps", n=4, progress=False)
        else:
            assert gl.dissect(G, S, "0.maps", n=4, progress=False).n == 4


def test_places_of_a_known_wiring():
    """Four rows of eight each change their own quarter; of a corner of 16 rows, the first ones change halves."""
    torch.manual_seed(1)
    centres, across, felt = changed_places(wrapped(lambda x: x), "up", 2)
    np.testing.assert_allclose(across, 0.5, atol=0.1)
    np.testing.assert_allclose(centres, [0.125, 0.375, 0.625, 0.875], atol=0.05)
    assert felt.all()
    centres, _, felt = changed_places(wrapped(lambda x: x[:, :, :16]), "up", 2)
    np.testing.assert_allclose(centres[:2], [0.25, 0.75], atol=0.06)
    assert felt.tolist() == [True, True, False, False]


def test_what_is_shifted():
    places = np.array([0.125, 0.375, 0.625, 0.875])
    assert not is_shifted(places, places)
    assert not is_shifted(places, np.full(4, 0.5))
    assert is_shifted(places, places[::-1])
    assert is_shifted(places, places * 0.45)
    assert is_shifted(places, places + 0.3)
    assert is_shifted(places[:1], np.array([0.6]))
