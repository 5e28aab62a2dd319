"""The rule from a picture to pixels, held against Pillow byte by byte."""

import numpy as np
import pytest
from PIL import Image

from edgestill.pipeline.data.pixels import RESIZES, fitted, inner_size, placed, resized, with_channels


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    ("old", "new"),
    [((40, 30), (20, 10)), ((17, 23), (64, 5)), ((8, 8), (32, 32)), ((301, 223), (96, 96)), ((5, 7), (1, 1))],
)
def test_resizing_gives_pillows_bytes(old, new):
    pixels = picture(*old)
    expected = Image.fromarray(pixels).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    assert np.array_equal(resized(pixels, *new), np.asarray(expected))


def test_grey_is_pillows():
    pixels = picture(64, 64)
    assert np.array_equal(with_channels(pixels, 1)[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))
    grey = picture(4, 4, 1)
    assert np.array_equal(with_channels(grey, 3), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(("resize", "expected"), [("crop", (32, 64)), ("pad", (16, 32)), ("stretch", (32, 32))])
def test_the_inner_size_of_a_wide_picture(resize, expected):
    assert inner_size(100, 200, 32, 32, resize) == expected


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("old", [(100, 33), (7, 90), (32, 32), (1, 1)])
def test_the_result_has_the_asked_size(old, resize):
    assert fitted(picture(*old), 3, 32, 24, resize).shape == (32, 24, 3)


def test_a_picture_of_the_right_size_is_left_alone():
    pixels = picture(32, 24)
    assert np.array_equal(fitted(pixels, 3, 32, 24, "pad"), pixels)


def test_borders_are_black_and_cuts_are_central():
    pixels = np.full((2, 4, 1), 9, np.uint8)
    assert placed(pixels, 5, 4)[:, 0, 0].tolist() == [0, 9, 9, 0, 0]
    assert placed(np.arange(5, dtype=np.uint8).reshape(1, 5, 1), 1, 2)[0, :, 0].tolist() == [1, 2]
