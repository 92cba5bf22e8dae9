"""Reference images are those that are meant, and wrong ones are refused with a reason."""

import numpy as np
import pytest
import torch
from PIL import Image

import ganlens as gl
from ganlens.comparisons.image_sources import reference_images
from ganlens.images import to_uint8
from ganlens.scenes.painter import paint_many


def whole(pictures):
    return torch.cat(list(pictures.batches))


def test_the_embedded_generator_has_paintings(G):
    """Those that evaluation holds back from the training."""
    pictures = reference_images(G, None, 34)
    assert pictures.count == 34
    assert (to_uint8(whole(pictures)) == paint_many(range(9_000_000, 9_000_034))[0]).all()


def test_other_generators_have_none():
    net = torch.nn.Sequential(torch.nn.Linear(4, 48), torch.nn.Unflatten(1, (3, 4, 4)), torch.nn.Tanh())
    assert reference_images(gl.Generator.wrap(net, 4), None, 8) is None


def test_a_folder_a_tensor_and_an_array_are_the_same(G, tmp_path):
    given = np.random.default_rng(0).integers(0, 256, (35, 64, 64, 3), np.uint8)
    for i, picture in enumerate(given):
        Image.fromarray(picture).save(tmp_path / f"{i:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    x = torch.from_numpy(given).permute(0, 3, 1, 2) / 127.5 - 1
    for reference in (tmp_path, str(tmp_path), given, x):
        pictures = reference_images(G, reference, 8)
        assert pictures.count == 35
        assert (to_uint8(whole(pictures)) == given).all()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.zeros(4, 3, 32, 64), r"reference images of 32 x 64 pixels, generated images of 64 x 64: resize them"),
        (np.zeros((4, 32, 64, 3), np.uint8), r"of 32 x 64 pixels"),
        (torch.zeros(4, 2, 64, 64), r"\(4, 2, 64, 64\): expected \(M, 3, Y, X\) in \[-1, 1\]"),
        (torch.zeros(0, 3, 64, 64), r"\(0, 3, 64, 64\): expected"),
        (torch.full((4, 3, 64, 64), 255.0), r"values up to 255: expected \[-1, 1\]"),
        (torch.full((4, 3, 64, 64), torch.nan), r"values up to nan: expected \[-1, 1\]"),
        ([1, 2], "list: expected"),
        ("no/such/folder", "there is no such folder"),
    ],
)
def test_wrong_references(G, reference, message):
    with pytest.raises(ValueError, match=message):
        reference_images(G, reference, 8)


def test_wrong_files(G, tmp_path):
    with pytest.raises(ValueError, match=r"no images in it or in its subfolders; expected files that end in \.bmp"):
        reference_images(G, tmp_path, 8)
    Image.new("RGB", (32, 64)).save(tmp_path / "narrow.png")
    with pytest.raises(ValueError, match=r"narrow\.png of 64 x 32 pixels, generated images of 64 x 64"):
        whole(reference_images(G, tmp_path, 8))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: not an image that can be read"):
        whole(reference_images(G, tmp_path, 8))
