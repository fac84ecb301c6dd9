import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive.training.splits import Split


def test_pictures_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match="3 pictures and 2 labels"):
        Split(np.zeros((3, 4, 4, 3), "uint8"), np.zeros(2, int))


@pytest.mark.parametrize("x, y, message", [
    (np.zeros((2, 4, 4, 3)), np.zeros(2, int), "dtype float64"),
    (np.zeros((2, 4, 4), "uint8"), np.zeros(2, int), "shape .2, 4, 4."),
    (np.zeros((2, 4, 4, 3), "uint8"), np.zeros(2), "one whole number per picture"),
    (np.zeros((2, 4, 4, 3), "uint8"), np.eye(2, dtype=int), "One-hot"),
])
def test_other_pictures_and_labels_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        Split(x, y)


def test_labels_may_stand_in_a_column():
    assert Split(np.zeros((2, 4, 4, 3), "uint8"), np.array([[1], [0]])).y.tolist() == [1, 0]


def test_resizing_keeps_labels_and_mean_brightness(tiny_data):
    small = tiny_data.train.resized(24)

    assert small.x.shape == (40, 24, 24, 3)
    assert small.x.dtype == np.uint8
    assert_array_equal(small.y, tiny_data.train.y)
    assert abs(small.x.mean() - tiny_data.train.x.mean()) < 1
    assert tiny_data.train.resized(32) is tiny_data.train


def test_pictures_that_are_not_square_are_not_squashed():
    """How much of them is wanted is not ours to say."""
    split = Split(np.zeros((2, 20, 32, 3), "uint8"), np.zeros(2, "int64"))

    with pytest.raises(ValueError, match="20 x 32 pixels would be squashed to 32 x 32. Cut the ce"):
        split.resized(32)
