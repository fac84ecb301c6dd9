"""Thumbnails without a network: sizes, antialiasing, and JPEG's reduced decoding."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from keras_adaptive.picture_files import InputRule, read_picture
from keras_adaptive.shrinking import METHODS, read_reduced, shrink


def test_area_is_the_mean_of_pixels_at_ratio_4():
    """A border of white around black: 12 of 16 pixels. Without antialiasing it would be black."""
    picture = np.full((4, 4, 3), 255, "uint8")
    picture[1:3, 1:3] = 0

    assert (shrink(picture, 4) == round(0.75 * 255)).all()
    for method in ("bilinear", "bicubic"):
        assert (np.abs(shrink(picture, 4, method) - 0.667 * 255) < 5).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 19), st.integers(1, 19), st.sampled_from([2, 3, 4, 8]),
       st.sampled_from(METHODS), st.sampled_from([1, 3]))
def test_sizes_are_rounded_up(height, width, ratio, method, channels):
    """Every picture has a thumbnail, also where the ratio does not divide its sides."""
    small = shrink(np.full((height, width, channels), 77, "uint8"), ratio, method)

    assert small.shape == (-(-height // ratio), -(-width // ratio), channels)
    assert (small == 77).all()


def _jpeg(height, width, **options):
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 255 // height, columns * 255 // width, rows * 0 + 90], -1)
    content = io.BytesIO()
    Image.fromarray(picture.astype("uint8")).save(content, "jpeg", quality=95, **options)
    content.seek(0)
    return picture.astype("uint8"), content


@pytest.mark.parametrize("height, width, ratio", [
    (64, 64, 2), (64, 64, 4), (375, 500, 2), (47, 33, 4), (64, 96, 3), (40, 33, 8),
])
def test_reduced_decoding_is_nearly_the_area_thumbnail(height, width, ratio):
    """On a smooth picture it gives the same size and the same values, but for the JPEG's loss."""
    picture, content = _jpeg(height, width)

    small = read_reduced(content, ratio)

    expected = shrink(picture, ratio)
    assert small.shape == expected.shape and small.dtype == np.uint8
    assert np.abs(small.astype(int) - expected).mean() < 6


def test_the_decoder_itself_reduces(monkeypatch):
    """An odd size does not keep it from leaving out frequencies: the request is rounded down."""
    _, content = _jpeg(375, 500)
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: (
        decoded.append(self.size), convert(self, mode))[1])

    read_reduced(content, 2)

    assert decoded[0] == (250, 188)


def test_reduced_pictures_lie_upright():
    """A camera held sideways gives an upright thumbnail, as the whole picture is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, content = _jpeg(32, 64, exif=exif)

    small = read_reduced(content, 2)

    expected = np.rot90(shrink(picture, 2), -1)
    assert small.shape == (32, 16, 3)
    assert np.abs(small.astype(int) - expected).mean() < 6


def test_other_formats_are_shrunk_too():
    content = io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8")
    Image.fromarray(picture).save(content, "png")

    assert np.abs(read_reduced(content, 2).astype(int) - shrink(picture, 2)).max() <= 1


@pytest.mark.parametrize("picture", [
    Image.new("RGBA", (8, 4), (255, 0, 0, 0)), Image.fromarray(np.full((4, 8), 40000, "uint16"))])
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_mean_what_they_do_to_a_network(picture, orientation):
    """What is transparent is white, and deep grey is scaled to 8 bits, upright or not."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(content, "png", exif=exif)

    np.testing.assert_array_equal(
        read_reduced(content, 2), shrink(read_picture(content, InputRule(None, 3)), 2))


def test_postscript_is_not_opened():
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "eps")

    with pytest.raises(UnidentifiedImageError):
        read_reduced(content, 2)


@pytest.mark.parametrize("ratio, method, message", [
    (1, "area", "2 or more"), (2.0, "area", "2 or more"), (True, "area", "2 or more"),
    (2, "bicubik", "Did you mean 'bicubic'"),
])
def test_wrong_arguments_are_named(ratio, method, message):
    with pytest.raises(ValueError, match=message):
        shrink(np.zeros((4, 4, 3), "uint8"), ratio, method)
