import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from keras_adaptive.training.augment import (
    RATIOS,
    change,
    crop_and_flip,
    random_erasing,
    resized_crop_and_flip,
)


def test_every_picture_is_a_shifted_and_perhaps_mirrored_copy():
    """Each result is found in the padded original at one of the allowed places."""
    random = np.random.default_rng(1)
    pictures = random.integers(1, 256, (12, 16, 16, 3)).astype("uint8")

    augmented = crop_and_flip(pictures, np.random.default_rng(5))

    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for picture, result in zip(padded, augmented):
        places = [(r, c, mirror) for r in range(5) for c in range(5) for mirror in (False, True)
                  if np.array_equal(picture[r:r + 16, c:c + 16][:, ::-1 if mirror else 1], result)]
        assert places
        found.append(places[0])
    assert len({place[:2] for place in found}) > 3
    assert {mirror for *_, mirror in found} == {False, True}


def test_same_generator_same_result():
    pictures = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype("uint8")

    first, second = (crop_and_flip(pictures, np.random.default_rng(5)) for _ in range(2))

    assert_array_equal(first, second)
    assert first.dtype == np.uint8


@given(st.floats(0.05, 1), st.integers(0, 2**32))
def test_a_resized_crop_is_a_part_of_the_picture(least_area, seed):
    """Pictures whose values tell column and row show which part each result is."""
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    picture = np.stack([8 * columns, 8 * rows, 0 * rows], axis=2).astype("uint8")
    pictures = np.stack([picture] * 24)

    crops = resized_crop_and_flip(pictures, np.random.default_rng(seed), least_area)

    assert crops.shape == pictures.shape and crops.dtype == np.uint8
    # From the middle of the second pixel to that of the last but one: the filter is cut at sides.
    ends = crops[:, [1, -2, 16, 16], [16, 16, 1, -2]].astype(float)
    heights = (ends[:, 1, 1] - ends[:, 0, 1]) / (8 * 29)
    widths = np.abs(ends[:, 3, 0] - ends[:, 2, 0]) / (8 * 29)
    assert (heights > 0).all()
    # Whole values of pixels tell a side to one part in sixty.
    assert (widths * heights > 0.94 * least_area).all()
    assert (widths < 1.03).all() and (heights < 1.03).all()
    assert (widths / heights > 0.9 * RATIOS[0]).all()
    if least_area < 0.5:
        assert np.std(widths * heights) > 0.05
    mirrored = ends[:, 3, 0] < ends[:, 2, 0]
    assert 0 < mirrored.sum() < 24


@pytest.mark.parametrize("side", [20, 24, 48, 56])
def test_a_resized_crop_stays_within_the_picture(side):
    """Also where the square root of a square is rounded up."""
    pictures = np.full((128, side, side, 3), 7, "uint8")
    for seed in range(8):
        assert (resized_crop_and_flip(pictures, np.random.default_rng(seed), 0.35) == 7).all()


def test_a_resized_crop_of_the_same_generator_is_the_same():
    pictures = np.random.default_rng(1).integers(0, 256, (4, 16, 20, 3)).astype("uint8")

    first, second = (resized_crop_and_flip(pictures, np.random.default_rng(5), 0.3)
                     for _ in range(2))

    assert_array_equal(first, second)
    assert (first != pictures).any()


def test_random_erasing_hides_a_rectangle_of_a_share_of_the_pictures():
    """In grey, 2 to 33 % of the area; the same seed hides the same."""
    pictures = np.random.default_rng(1).integers(0, 100, (512, 32, 32, 3)).astype("uint8")

    erased = random_erasing(pictures, 5, 0.25)

    is_hidden = (erased != pictures).any(axis=-1)
    assert (erased[is_hidden] == 128).all()
    share = is_hidden.mean(axis=(1, 2))
    assert 0.15 < (share > 0).mean() < 0.35
    # Sides are whole pixels: one more or less than the share's root.
    assert share.max() <= ((0.33**0.5 * 32 + 1) / 32)**2
    rows, columns = is_hidden.any(axis=2).sum(axis=1), is_hidden.any(axis=1).sum(axis=1)
    assert (is_hidden.sum(axis=(1, 2)) == rows * columns).all()
    assert rows[rows > 0].min() >= int(0.02**0.5 * 32)
    assert_array_equal(erased, random_erasing(pictures, 5, 0.25))
    assert (erased != random_erasing(pictures, 6, 0.25)).any()
    assert_array_equal(random_erasing(pictures, 5, 0), pictures)


@pytest.mark.parametrize("augmentation", [
    keras.layers.RandomBrightness((1, 1), (0, 255), seed=0), lambda pictures: pictures + 255],
    ids=["layer", "function"])
def test_a_layer_or_function_of_ones_own_changes_pictures(augmentation):
    """A layer in its training mode; what it gives is cut to 0 to 255."""
    pictures = np.full((2, 8, 8, 3), 3, "uint8")

    changed = change(pictures, 0, augmentation)

    assert changed.dtype == np.uint8 and (changed == 255).all()
    with pytest.raises(ValueError, match="of the shape that it takes"):
        change(pictures, 0, lambda pictures: pictures[:1])
