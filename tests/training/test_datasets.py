import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive.training.datasets import (
    check_channels,
    check_labels,
    check_phases,
    load_data,
    steps_per_epoch,
    training_pipeline,
)
from keras_adaptive.training.splits import Split


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


def write_arrays(path, **changes):
    arrays = {f"{array}_{part}": np.zeros((3, 4, 4, 3) if array == "x" else 3, "uint8")
              for part in ("train", "val", "test") for array in "xy"}
    np.savez(path, **{"class_names": np.array(["cat", "dog"]), **arrays, **changes})


@pytest.mark.parametrize("changes, message", [
    ({"class_names": np.array(["cat", "dog"], object)},
     "data.npz: `class_names` holds Python objects.*`np.array.names, dtype=str.`"),
    ({"class_names": np.array("cat")}, "data.npz: `class_names` is a list of names.*shape ()"),
    ({"x_val": np.zeros((0, 4, 4, 3), "uint8"), "y_val": np.zeros(0, int)},
     r"data.npz: `x_val` has the shape \(0, 4, 4, 3\).*Keep some"),
    ({"x_test": np.array(3)}, r"data.npz, x_test and y_test: Pictures.*shape \(\), dtype int64"),
    ({"x_train": np.zeros((3, 4, 4, 3))}, r"x_train and .*float64. Values from 0 to 1 become"),
    ({"y_train": np.array(3)}, "x_train and y_train: `y` of a split takes one whole number"),
])
def test_arrays_that_cannot_be_right_are_named_with_the_cure(changes, message, tmp_path):
    write_arrays(tmp_path / "data.npz", **changes)

    with pytest.raises(ValueError, match=message) as caught:
        load_data(tmp_path / "data.npz")

    assert "pickle" not in str(caught.value)


def test_files_that_only_have_the_name_are_told(tmp_path):
    """A single array, and a page that a server gave in place of the file."""
    path = tmp_path / "data.npz"
    np.save(tmp_path / "one.npy", np.zeros((3, 4)))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(ValueError, match=r"data.npz holds one array .*\(3, 4\).*`numpy.savez"):
        load_data(path)
    path.write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match="no .npz file: it begins with b'<!DOCTYPE") as caught:
        load_data(path)
    assert "pickle" not in str(caught.value)


def test_grey_pictures_for_a_network_of_colours_are_told():
    grey = Split(np.zeros((2, 32, 32, 1), "uint8"), np.zeros(2, int))

    with pytest.raises(ValueError, match=r"of 3 channels.*\(2, 32, 32, 1\).*`np.repeat"):
        check_channels(grey, (None, 32, 32, 3))
    check_channels(grey, (None, 32, 32, 1))


def test_phases_larger_than_what_is_read_are_refused(tmp_path):
    """They would learn from enlarged pictures."""
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)

    with pytest.raises(ValueError, match="read at the 32 pixels .*of 64 .*or name test/ val"):
        check_phases(tmp_path, [64, 32])
    check_phases(tmp_path, [24, 32])
    check_phases("cifar10", [64, 32])
    (tmp_path / "test").rename(tmp_path / "val")
    check_phases(tmp_path, [64, 32])


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


def test_a_pipeline_erases_where_it_is_told_to(tiny_data):
    pictures = dataclasses.replace(tiny_data.train, x=np.full_like(tiny_data.train.x, 255))

    erased = batches(training_pipeline(pictures, 10, 1, 3, erasing=0.5))

    is_grey = np.concatenate([(x == 128).all(axis=-1).any(axis=(1, 2)) for x, _ in erased])
    assert 0.2 < is_grey.mean() < 0.8


@pytest.mark.parametrize("erasing", [0, 0.5])
def test_a_pipeline_resumed_sees_the_batches_it_would_have_seen(tiny_data, erasing):
    whole = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3, erasing=erasing))
    resumed = batches(training_pipeline(tiny_data.train, 16, epochs=3, seed=3, first_epoch=1,
                                        erasing=erasing))

    steps = steps_per_epoch(tiny_data.train, 16)
    assert len(resumed) == 2 * steps
    for (x, y), (x2, y2) in zip(whole[steps:], resumed):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)


def test_fewer_pictures_than_a_batch_is_an_error(tiny_data):
    with pytest.raises(ValueError, match="40 pictures, fewer than one batch of 64"):
        steps_per_epoch(tiny_data.train, 64)
