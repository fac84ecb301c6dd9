import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive.training.datasets import (
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


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_damaged_file_of_arrays_is_told(tmp_path, keep):
    """A copy that was interrupted, say."""
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.zeros((50, 4, 4, 3), "uint8"))
    path.write_bytes(path.read_bytes()[:int(keep * path.stat().st_size)])

    with pytest.raises(ValueError, match="data.npz is no whole .npz file"):
        load_data(path)


def test_a_download_that_fails_is_told(monkeypatch):
    """Keras raises what no caller can expect."""
    def fail():
        raise Exception("URL fetch failure on https://nowhere")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)

    with pytest.raises(OSError, match="could not be downloaded: URL fetch failure.*--data FILE"):
        load_data("cifar10")


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


def test_a_pipeline_cuts_out_parts_where_it_is_told_to(tiny_data):
    """Shifts leave zeros at the sides, parts do not."""
    pictures = dataclasses.replace(tiny_data.train, x=np.maximum(tiny_data.train.x, 1))

    shifted, cut = (batches(training_pipeline(pictures, 10, 1, 3, crop_area=area))
                    for area in (0, 0.3))

    assert min(x.min() for x, _ in shifted) == 0 and min(x.min() for x, _ in cut) > 0
    for (_, y), (_, y2) in zip(shifted, cut):
        assert_array_equal(y, y2)


def test_a_pipeline_resumed_sees_the_batches_it_would_have_seen(tiny_data):
    whole = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3))
    resumed = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3, first_epoch=1))

    steps = steps_per_epoch(tiny_data.train, 16)
    assert len(resumed) == 2 * steps
    for (x, y), (x2, y2) in zip(whole[steps:], resumed):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)


def test_fewer_pictures_than_a_batch_is_an_error(tiny_data):
    with pytest.raises(ValueError, match="40 pictures, fewer than one batch of 64"):
        steps_per_epoch(tiny_data.train, 64)
