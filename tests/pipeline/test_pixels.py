"""The rule from a picture to pixels, held against Pillow byte by byte."""

import numpy as np
import pytest
from PIL import Image

from edgestill.pipeline.data.pixels import (
    RESIZES,
    eight_bits,
    fitted,
    inner_size,
    on_white,
    placed,
    resized,
    with_channels,
)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    ("old", "new"),
    [((40, 30), (20, 10)), ((17, 23), (64, 5)), ((8, 8), (32, 32)), ((301, 223), (96, 96)), ((5, 7), (1, 1))],
)
def test_resizing_gives_pillows_bytes(old, new):
    pixels = picture(*old)
    assert np.array_equal(resized(pixels, *new), np.asarray(by_pillow(Image.fromarray(pixels), *new)))


def by_pillow(image: Image.Image, height: int, width: int) -> Image.Image:
    """The width first, then the height: alone, Pillow 13 and later take the height first where that is faster."""
    narrow = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return narrow.resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("resize", RESIZES)
def test_pictures_of_any_size_are_cut_and_padded_to_pillows_bytes(resize):
    rng = np.random.default_rng(0)
    for number in range(60):
        height, width, old_height, old_width = (int(side) for side in rng.integers(1, 150, 4))
        pixels = picture(old_height, old_width, seed=number)
        inner = inner_size(old_height, old_width, height, width, resize)
        image = by_pillow(Image.fromarray(pixels), *inner)
        top, left = (int((old - new) / 2) for old, new in zip(inner, (height, width), strict=True))  # towards zero
        expected = image.crop((left, top, left + width, top + height))  # black beyond the picture
        assert np.array_equal(fitted(pixels, 3, height, width, resize), np.asarray(expected)), (pixels.shape, inner)


def test_alpha_is_composed_on_white_as_pillow_pastes():
    pixels = picture(40, 40, 4)
    paper, image = Image.new("RGB", (40, 40), "white"), Image.fromarray(pixels)
    paper.paste(image, mask=image.getchannel("A"))
    assert np.array_equal(on_white(pixels), np.asarray(paper))
    grey = on_white(np.array([[[10, 0], [10, 255]]], np.uint8))
    assert grey[0, :, 0].tolist() == [255, 10]


def test_of_16_bits_the_upper_8_stay():
    assert eight_bits(np.array([0, 255, 256, 65535], np.uint16)).tolist() == [0, 0, 1, 255]


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
