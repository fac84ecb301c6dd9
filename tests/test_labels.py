import numpy as np
import pytest

from keras_adaptive.labels import check_class_names, read_labels


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


@pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_names_of_classes_become_a_list(names):
    assert check_class_names(names, 2, "net") == ["a", "b"]


@pytest.mark.parametrize("names, received", [
    ({0: "a", 1: "b"}, "Received dict: {0: 'a', 1: 'b'}"),  # its keys would be the names
    ({"a", "b"}, "Received set"),  # without an order
    ("ab", "Received str: 'ab'"),
    (5, "Received int: 5"),
    (["a"], "Received 1: ['a']"),
])
def test_names_of_classes_without_order_or_number_are_refused(names, received):
    with pytest.raises(ValueError, match="one name per class: 2 for 'net', a list") as error:
        check_class_names(names, 2, "net")

    assert received in str(error.value)
