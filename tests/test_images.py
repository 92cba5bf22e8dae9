"""Pixels, checked one by one."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from ganlens import images
from ganlens.images import OUTLINE


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    return np.random.default_rng(1).random((7, 9)) < 0.25


class TestToUint8:
    @pytest.mark.parametrize("convert", [torch.from_numpy, lambda x: x, lambda x: torch.from_numpy(x).requires_grad_()])
    def test_every_level_comes_back(self, convert):
        levels = np.arange(256).repeat(3).reshape(1, 16, 16, 3)
        x = (np.moveaxis(levels, -1, 1) / 127.5 - 1).astype(np.float32)
        found = images.to_uint8(convert(x))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, levels)

    def test_clips(self):
        x = torch.tensor([-9, -1, 1, 9.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
        assert images.to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 255, 255]

    def test_channels_go_last(self):
        x = np.zeros((2, 3, 4, 5), np.float32)
        x[1, 2, 3, 4] = 1
        assert np.argwhere(images.to_uint8(x) == 255).tolist() == [[1, 3, 4, 2]]

    @pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4, 3), (1, 1, 4, 4)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"images of shape .*expected \(N, 3, Y, X\)"):
            images.to_uint8(np.zeros(shape))


class TestEncode:
    def test_png_is_exact(self, picture):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(images.encode(picture, "png")))), picture)

    def test_jpeg_is_near(self):
        y, x = np.mgrid[:64, :64]
        smooth = np.stack([y * 2, x * 3, y + x], 2).astype(np.uint8)
        found = Image.open(io.BytesIO(images.encode(smooth)))
        assert found.format == "JPEG"
        assert np.abs(np.asarray(found).astype(int) - smooth).mean() < 3

    def test_unknown_kind(self, picture):
        with pytest.raises(ValueError, match="kind 'gif': expected one of jpeg, png"):
            images.encode(picture, "gif")

    def test_data_uri(self, picture):
        head, _, body = images.data_uri(picture, "png").partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body) == images.encode(picture, "png")


class TestSize:
    def test_enlarge_repeats(self, picture):
        found = images.enlarge(np.stack([picture, picture]), 3)
        assert found.shape == (2, 21, 27, 3)
        for y, x in np.ndindex(21, 27):
            assert (found[1, y, x] == picture[y // 3, x // 3]).all()

    def test_resize_by_whole_factors(self, picture):
        np.testing.assert_array_equal(images.resize(picture, (14, 18)), images.enlarge(picture, 2))
        assert images.resize(picture[..., 0], (10, 4)).shape == (10, 4)

    def test_smooth_keeps_the_mean(self, picture):
        small = images.resize(images.enlarge(picture, 8), (7, 9), smooth=True)
        assert np.abs(small.astype(int) - picture).mean() < 25
        assert small.mean() == pytest.approx(picture.mean(), abs=3)


class TestDrawing:
    def test_dilate_by_hand(self, mask):
        found = images.dilate(mask)
        for y, x in np.ndindex(mask.shape):
            cross = [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            assert found[y, x] == any(mask[p] for p in cross if 0 <= p[0] < 7 and 0 <= p[1] < 9)

    def test_outline_is_around_the_mask(self, picture, mask):
        before = picture.copy()
        found = images.outline(picture, mask)
        line = images.dilate(mask) & ~mask
        assert (found[line] == OUTLINE).all()
        np.testing.assert_array_equal(found[~line], picture[~line])
        np.testing.assert_array_equal(picture, before)

    def test_spotlight(self, picture, mask):
        found = images.spotlight(picture, mask, factor=3, dim=0.25)
        large, inside = images.enlarge(picture, 3), mask.repeat(3, 0).repeat(3, 1)
        dark = ~images.dilate(inside)
        np.testing.assert_array_equal(found[inside], large[inside])
        assert np.abs(found[dark] - (0.25 * large[dark] + 0.08 * 255)).max() <= 1

    @pytest.mark.parametrize("value", [0, 1])
    def test_spotlight_on_nothing_and_on_everything(self, picture, value):
        found = images.spotlight(picture, np.full((7, 9), bool(value)), factor=1)
        assert (found == picture).all() == bool(value)

    def test_overlay(self, picture):
        values = np.zeros((7, 9))
        values[2, 3], values[4, 5] = 1, 9
        found = images.overlay(picture, values, opacity=1)
        assert (found[2, 3] == OUTLINE).all()
        assert (found[4, 5] == OUTLINE).all()
        values[2, 3] = values[4, 5] = 0
        assert (np.ptp(images.overlay(picture, values), axis=2) == 0).all()

    def test_palette(self):
        colors = images.palette(24)
        assert colors.shape == (24, 3)
        assert colors.dtype == np.uint8
        np.testing.assert_array_equal(colors[:7], images.palette(7))
        distance = np.abs(colors[:, None].astype(int) - colors).sum(2) + 999 * np.eye(24)
        assert distance.min() > 15

    def test_colorize(self):
        labels, colors = np.array([[0, 1], [3, 2]]), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
        assert images.colorize(labels, colors).tolist() == [[[128] * 3, [1, 2, 3]], [[7, 8, 9], [4, 5, 6]]]


class TestSheets:
    @pytest.mark.parametrize(("n", "columns"), [(1, 8), (8, 8), (9, 4), (5, 1)])
    def test_grid_by_hand(self, n, columns):
        pictures = np.random.default_rng(0).integers(0, 255, (n, 4, 5, 3), dtype=np.uint8)
        sheet = images.grid(pictures, columns, gap=2)
        across = min(n, columns)
        assert sheet.shape == (-(-n // across) * 6 - 2, across * 7 - 2, 3)
        for i in range(n):
            y, x = i // columns * 6, i % columns * 7
            np.testing.assert_array_equal(sheet[y : y + 4, x : x + 5], pictures[i])
            sheet[y : y + 4, x : x + 5] = 255
        assert (sheet == 255).all()

    def test_strip_is_one_row(self):
        pictures = np.zeros((6, 4, 5, 3), np.uint8)
        assert images.strip(pictures, gap=3).shape == (4, 6 * 8 - 3, 3)
