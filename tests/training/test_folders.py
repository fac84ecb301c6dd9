"""Labelled pictures in folders, one folder a class."""

import numpy as np
import pytest
from PIL import Image

from keras_adaptive.picture_files import InputRule, UnreadablePicturesError, read_picture
from keras_adaptive.training import folders
from keras_adaptive.training.datasets import load_data


@pytest.fixture
def write(tmp_path):
    """Return a function that writes `count` pictures of one grey into a class's folder."""
    def write(part, name, count, grey=0, size=(8, 8)):
        folder = tmp_path / part / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, (grey + i,) * 3).save(folder / f"{i:03}.png")
    return write


def test_classes_are_folders_in_alphabetical_order(write, tmp_path):
    """Every tenth training picture of each class is kept for validation."""
    for part, count in (("train", 20), ("test", 3)):
        write(part, "dog", count, grey=100)
        write(part, "cat", count)

    data = load_data(tmp_path)

    assert data.class_names == ("cat", "dog")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [36, 4, 6]
    assert data.validation.y.tolist() == [0, 0, 1, 1]
    assert data.validation.x[:, 0, 0, 0].tolist() == [9, 19, 109, 119]
    assert not {9, 19, 109, 119} & set(data.train.x[:, 0, 0, 0].tolist())


def test_a_folder_for_validation_is_used_where_it_is(write, tmp_path):
    for part in ("train", "val", "test"):
        write(part, "cat", 2)
        write(part, "dog", 3)

    data = load_data(str(tmp_path))

    assert [len(part) for part in (data.train, data.validation, data.test)] == [5, 5, 5]


def test_files_of_any_size_are_brought_to_the_one_wanted(write, tmp_path):
    write("train", "cat", 11, size=(8, 12))
    write("train", "dog", 11, size=(20, 10))
    write("test", "cat", 1)
    write("test", "dog", 1)

    assert load_data(tmp_path, image_size=6).train.x.shape == (20, 6, 6, 3)
    with pytest.raises(ValueError, match="2 different sizes.*Give an `image_size`"):
        load_data(tmp_path)


def test_files_follow_the_rule_that_is_given(tmp_path):
    """The rule of a trained network in place of the default, at the size wanted."""
    ramp = np.add.outer(np.arange(20), np.arange(0, 200, 5))[..., None] + np.zeros(3)
    for part in ("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"):
        (tmp_path / part).mkdir(parents=True)
        Image.fromarray(ramp.astype("uint8")).save(tmp_path / part / "0.png")
    rule = {"interpolation": "nearest", "crop": 0.5, "size": [99, 99]}

    test = load_data(tmp_path, 8, rule).test

    expected = read_picture(tmp_path / "test/cat/0.png", InputRule((8, 8), 3, "nearest", 0.5))
    np.testing.assert_array_equal(test.x[0], expected)
    assert (test.x[0] != load_data(tmp_path, 8).test.x[0]).any()


def test_what_is_missing_is_named(write, tmp_path):
    with pytest.raises(ValueError, match="no folder 'train'.*train/<class>/"):
        load_data(tmp_path)
    write("train", "cat", 1)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="needs a folder per class, two or more. It has: .'cat'."):
        load_data(tmp_path)
    write("train", "dog", 1)
    with pytest.raises(ValueError, match="No class of .* has 10 pictures"):
        load_data(tmp_path)
    write("val", "cat", 1)
    write("val", "dog", 1)
    write("test", "cat", 1)
    write("test", "fox", 1)
    with pytest.raises(ValueError, match="Only in one of them: .'dog', 'fox'."):
        load_data(tmp_path)


@pytest.mark.parametrize("wrong", ["val", "test"])
def test_classes_are_compared_before_a_picture_is_decoded(write, tmp_path, monkeypatch, wrong):
    """A data set that takes hours to decode fails at once where it must."""
    for part in ("train", "val", "test"):
        write(part, "cat", 1)
        write(part, "fox" if part == wrong else "dog", 1)
    monkeypatch.setattr(folders, "read_pictures", lambda *_: pytest.fail("a picture was decoded"))

    with pytest.raises(ValueError, match=f"{wrong} and train have different classes"):
        load_data(tmp_path)


def test_files_that_are_no_pictures_are_all_named(write, tmp_path):
    for part in ("train", "test"):
        write(part, "cat", 12)
        write(part, "dog", 12)
    (tmp_path / "train/cat/003.png").write_bytes(b"no picture")
    (tmp_path / "train/dog/004.png").write_bytes(np.zeros(9).tobytes())

    with pytest.raises(UnreadablePicturesError, match="2 of 22 ") as caught:
        load_data(tmp_path)

    assert len(caught.value.reasons) == 2
