import numpy as np
import pytest

from keras_adaptive.labels import read_labels


@pytest.mark.parametrize("labels", [[0, 2, 1], np.array([[0], [2], [1]], "uint8")])
def test_labels_come_in_a_row_or_a_column(labels):
    """`keras.datasets` gives columns."""
    assert read_labels(labels, "`y`", 3, 3).tolist() == [0, 2, 1]


def test_no_labels_fit_no_pictures():
    assert read_labels(np.zeros(0, int), "`y`", 0, 3).shape == (0,)


@pytest.mark.parametrize("labels, message", [
    ([0, 1], "`y` takes one whole number per picture: 3. Received: shape .2,., dtype int64.$"),
    ([0.0, 1.0, 1.0], "dtype float64"),
    ([[0, 1], [1, 0], [1, 0]], "One-hot labels become numbers by `argmax"),
    (1, "Received: shape .., dtype"),
    ([0, 1, 3], "labels from 0 to 2, as there are 3 classes. Received labels from 0 to 3"),
    ([0, 1, -1], "Received labels from -1 to 1"),
])
def test_what_are_no_labels_is_refused(labels, message):
    """With what was expected, and what came."""
    with pytest.raises(ValueError, match=message):
        read_labels(labels, "`y`", 3, 3)
