"""The rule from a file to a picture: as a viewer shows it."""

import io

import numpy as np
import pytest
from PIL import Image

from edgestill.pipeline.data.decode import UnreadableError, decode, fitted_fast, header_of, pixels_of
from edgestill.pipeline.data.pixels import RESIZES, fitted

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 4, 3), np.uint8)


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_colour_and_grey_come_back_as_they_are(form):
    assert np.array_equal(decode(saved(Image.fromarray(COLOUR), form)), COLOUR)
    assert np.array_equal(decode(saved(Image.fromarray(COLOUR[..., 0]), form))[..., 0], COLOUR[..., 0])


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
def test_the_other_formats_are_read(form):
    assert decode(saved(Image.fromarray(COLOUR), form)).shape == (6, 4, 3)


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_picture_is_turned_as_its_orientation_tag_says(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
    }[tag]  # fmt: skip
    for form in ("PNG", "TIFF"):
        data = saved(Image.fromarray(COLOUR), form, exif=exif)
        assert np.array_equal(decode(data), turn(COLOUR))
        assert header_of(data)[:2] == turn(COLOUR).shape[:2]


def test_alpha_is_composed_on_white():
    alpha = np.array([[0, 128], [255, 51]], np.uint8)
    layer = np.dstack([np.full((2, 2, 3), 40, np.uint8), alpha])
    expected = np.round(40 * (alpha / 255) + 255 * (1 - alpha / 255))
    found = decode(saved(Image.fromarray(layer, "RGBA")))
    assert found.shape == (2, 2, 3)
    assert np.abs(found[..., 0] - expected).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(layer[..., 0]), Image.fromarray(alpha)])
    assert decode(saved(grey)).shape == (2, 2, 1)
    assert np.array_equal(decode(saved(grey)), found[..., :1])


def test_a_palette_becomes_colour_and_its_transparent_entry_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 10, 20, 1, 2, 3])
    assert decode(saved(image)).tolist() == [[[200, 10, 20], [1, 2, 3]]]
    assert decode(saved(image, transparency=1)).tolist() == [[[200, 10, 20], [255, 255, 255]]]


def test_cmyk_becomes_colour():
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert decode(saved(image, "TIFF")).tolist() == [[[255, 0, 0]] * 2] * 2


def test_one_bit_is_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode(saved(image))[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_the_upper_8_of_16_bits_are_kept(form):
    values = np.array([[0, 257, 32768, 65535, 300]], np.uint16)
    data = saved(Image.fromarray(values), form)
    assert decode(data)[..., 0].tolist() == (values >> 8).tolist()
    assert header_of(data).is_grey


def test_floats_are_refused():
    with pytest.raises(UnreadableError, match="floats"):
        pixels_of(Image.fromarray(np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize("data", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"])
def test_other_files_are_no_pictures(data):
    with pytest.raises(UnreadableError, match="no picture of PNG, JPEG"):
        decode(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_a_truncated_picture_is_unreadable(form):
    image = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    data = saved(image, form)
    with pytest.raises(UnreadableError):
        decode(data[: len(data) // 2])


def test_a_picture_too_large_is_refused_before_it_is_decoded():
    data = saved(Image.new("1", (2**15 + 1, 1)))
    with pytest.raises(UnreadableError, match="32769 x 1 pixels; a side has at most"):
        header_of(data)
    with pytest.raises(UnreadableError, match=r"at most 67,108,864 are read"):
        decode(saved(Image.new("1", (9000, 9000))))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("old", [(40, 61), (7, 5), (16, 12)])
def test_resizing_by_pillow_gives_the_rules_bytes(old, channels, resize):
    pixels = RNG.integers(0, 256, (*old, 3), np.uint8)
    assert np.array_equal(fitted_fast(pixels, channels, 16, 12, resize), fitted(pixels, channels, 16, 12, resize))
