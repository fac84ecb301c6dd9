import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive.training.datasets import (
    Split,
    check_labels,
    load_data,
    steps_per_epoch,
    training_pipeline,
)


def batches(pipeline):
    return [pipeline[i] for i in range(len(pipeline))]


def test_an_npz_is_loaded_with_its_parts_and_names(tmp_path):
    arrays = {f"{array}_{part}": np.full((3, 4, 4, 3) if array == "x" else 3, i, "uint8")
              for i, part in enumerate(("train", "val", "test")) for array in "xy"}
    np.savez(tmp_path / "data.npz", class_names=np.array(["cat", "dog", "frog"]), **arrays)

    data = load_data(tmp_path / "data.npz")

    assert [int(split.y[0]) for split in (data.train, data.validation, data.test)] == [0, 1, 2]
    assert data.class_names == ("cat", "dog", "frog")


def test_missing_arrays_and_files_are_named(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros(1))

    with pytest.raises(ValueError, match="lacks the arrays .*x_test"):
        load_data(tmp_path / "data.npz")
    with pytest.raises(ValueError, match="does not exist"):
        load_data(tmp_path / "nothing.npz")


def test_pictures_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match="3 pictures and 2 labels"):
        Split(np.zeros((3, 4, 4, 3), "uint8"), np.zeros(2, int))


@pytest.mark.parametrize("x, y, message", [
    (np.zeros((2, 4, 4, 3)), np.zeros(2, int), "dtype float64"),
    (np.zeros((2, 4, 4), "uint8"), np.zeros(2, int), "shape .2, 4, 4."),
    (np.zeros((2, 4, 4, 3), "uint8"), np.zeros(2), "whole numbers"),
    (np.zeros((2, 4, 4, 3), "uint8"), np.eye(2, dtype=int), "one per picture"),
])
def test_other_pictures_and_labels_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        Split(x, y)


def test_labels_may_stand_in_a_column():
    assert Split(np.zeros((2, 4, 4, 3), "uint8"), np.array([[1], [0]])).y.tolist() == [1, 0]


def test_labels_beyond_the_classes_are_told(tiny_data):
    with pytest.raises(ValueError, match="from 0 to 9"):
        check_labels(tiny_data.train, [(None, 5), (None, 5)])


def test_a_pipeline_repeats_exactly_and_every_epoch_differs(tiny_data):
    first = batches(training_pipeline(tiny_data.train, 10, epochs=2, seed=3))
    again = batches(training_pipeline(tiny_data.train, 10, epochs=2, seed=3))

    for (x, y), (x2, y2) in zip(first, again):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)
    labels = [np.concatenate([y for _, y in part]) for part in (first[:4], first[4:])]
    assert_array_equal(*(np.sort(part) for part in labels))
    assert labels[0].tolist() != labels[1].tolist()


def test_a_pipeline_resumed_sees_the_batches_it_would_have_seen(tiny_data):
    whole = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3))
    resumed = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3, first_epoch=1))

    steps = steps_per_epoch(tiny_data.train, 16)
    assert len(resumed) == 2 * steps
    for (x, y), (x2, y2) in zip(whole[steps:], resumed):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)


def test_resizing_keeps_labels_and_mean_brightness(tiny_data):
    small = tiny_data.train.resized(24)

    assert small.x.shape == (40, 24, 24, 3)
    assert small.x.dtype == np.uint8
    assert_array_equal(small.y, tiny_data.train.y)
    assert abs(small.x.mean() - tiny_data.train.x.mean()) < 1
    assert tiny_data.train.resized(32) is tiny_data.train


def test_fewer_pictures_than_a_batch_is_an_error(tiny_data):
    with pytest.raises(ValueError, match="40 pictures, fewer than one batch of 64"):
        steps_per_epoch(tiny_data.train, 64)
