"""Numbers on thumbnails, worked out by hand."""

import numpy as np
import pytest

from keras_adaptive.shrinking import shrink
from keras_adaptive.thumbnail_quality import (
    average,
    measure_thumbnails,
    structural_similarity,
)


def _picture(values):
    return np.array(values, "float64")[None, ..., None] * 255


def test_moments_by_hand():
    """Mean 0.5 against 0.4, deviation 0.5 against 0.2: 0.1 of squared differences."""
    quality = measure_thumbnails(_picture([[0, 1, 0, 1], [0, 1, 0, 1]]), _picture([[0.2, 0.6]]))

    assert quality.moment_difference == pytest.approx(0.1)
    assert quality.colour_cast == pytest.approx(25.5)


def test_averaged_pixels_lose_the_contrast_of_a_chessboard():
    """The definition's own example: 0.25, though the thumbnail is an honest one."""
    board = _picture(np.indices((4, 4)).sum(axis=0) % 2)

    quality = measure_thumbnails(board, average(board, 2))

    assert quality.moment_difference == pytest.approx(0.25) and quality.psnr is None


def test_a_swapped_batch_is_noticed():
    """Moments are compared picture by picture: two flat ones, exchanged, are as wrong as can be."""
    flat = np.stack([np.zeros((2, 2, 3)), np.full((2, 2, 3), 255)])

    assert measure_thumbnails(flat, flat[::-1, :1, :1]).moment_difference == pytest.approx(1)


def test_distance_in_decibels_and_clipped_values():
    """Off by 25.5 everywhere is 20 dB; values beyond the range count as clipped, once."""
    grey = np.full((1, 4, 4, 3), 100.0)
    thumbnail = np.full((1, 2, 2, 3), 125.5)

    assert measure_thumbnails(grey, thumbnail).psnr == pytest.approx(20, abs=1e-6)
    thumbnail[0, 0, 0] = (-3, 0, 300)
    assert measure_thumbnails(grey, thumbnail).clipped_share == pytest.approx(3 / 12)


def test_averaged_pixels_are_pillows():
    picture = np.random.default_rng(0).integers(0, 256, (12, 8, 3), "uint8")

    assert np.abs(average(picture[None], 4)[0] - shrink(picture, 4)).max() <= 0.5


@pytest.mark.parametrize("shape", [(1, 3, 2, 3), (2, 2, 2, 3), (1, 2, 2, 1), (1, 4, 4, 3), (2, 2)])
def test_thumbnails_of_other_pictures_are_refused(shape):
    with pytest.raises(ValueError, match="whole ratio of 2 or more"):
        measure_thumbnails(np.zeros((1, 4, 4, 3)), np.zeros(shape))


def test_structural_similarity_by_hand():
    """Flat pictures of 100 and 150 differ in brightness alone: (2 ab + c) / (a² + b² + c)."""
    first, second = (np.full((1, 8, 9, 3), value) for value in (100.0, 150.0))
    constant = 2.55**2

    expected = (2 * 100 * 150 + constant) / (100**2 + 150**2 + constant)
    assert structural_similarity(first, second) == pytest.approx(expected)


def test_structural_similarity_of_half_the_contrast_by_hand():
    """One window, its mean kept: (v + c) / (v + v / 4 + c), v the variance."""
    pattern = np.array([50.0] * 24 + [-50.0] * 24 + [0.0]).reshape(1, 7, 7, 1)
    variance, constant = 48 * 50**2 / 49, 7.65**2

    expected = (variance + constant) / (1.25 * variance + constant)
    for order in (1, -1):
        assert structural_similarity(
            *(100 + pattern, 100 + pattern / 2)[::order]) == pytest.approx(expected)


def test_structural_similarity_sees_structure():
    """Equal pictures have 1; less contrast is below it; light and dark exchanged is below 0."""
    board = _picture(np.indices((16, 16)).sum(axis=0) % 2)

    assert structural_similarity(board, board) == pytest.approx(1)
    assert 0.5 < structural_similarity(board, 0.5 * board + 63.75) < 0.95
    assert structural_similarity(board, 255 - board) < -0.9


@pytest.mark.parametrize("shape", [(1, 6, 8, 3), (2, 8, 8, 3), (8, 8, 3)])
def test_similarity_of_other_shapes_is_refused(shape):
    with pytest.raises(ValueError, match="sides of 7 pixels or more"):
        structural_similarity(np.zeros((1, 8, 8, 3) if shape[1] != 6 else shape), np.zeros(shape))
