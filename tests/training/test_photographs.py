"""Photographs read from their files: repeatable crops, resumed runs, and files that are damaged."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.models import RANet
from keras_adaptive.picture_files import InputRule, UnreadablePicturesError, read_picture
from keras_adaptive.training import Recipe, train
from keras_adaptive.training import photographs as photographs_module
from keras_adaptive.training.augment import rand_augment
from keras_adaptive.training.bad_files import keep_bad_files, raising_own_failure
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.photographs import (
    LEAST_AREA,
    RATIOS,
    PhotographData,
    Photographs,
    RandomCrop,
    photograph_pipeline,
    random_box,
)
from keras_adaptive.training.splits import Data, Split

CLASSES = ("n01", "n02")


@pytest.fixture
def tree(tmp_path):
    """Folder like ImageNet's: two classes, dark and bright, in JPEGs of several sizes and kinds."""
    random = np.random.default_rng(0)
    for part, count in (("train", 7), ("val", 3)):
        for number, name in enumerate(CLASSES):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (40 + 5 * i, 60, 3)) + 150 * number
                picture = Image.fromarray(pixels.astype("uint8"))
                kind = {1: "L", 2: "CMYK"}.get(i, "RGB")
                picture.convert(kind).save(folder / f"{name}_{i}.JPEG")
    return tmp_path


@pytest.fixture
def data(tree):
    return load_data(tree, 16)


def all_batches(pipeline):
    return list(pipeline)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for (x, y), (x2, y2) in zip(ours, theirs):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)


def test_a_tree_like_imagenets_is_listed_and_not_read(data, tree):
    """A part of the training pictures is held back; `val` is what is reported."""
    assert isinstance(data, PhotographData)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [13, 1, 6]
    assert data.class_names == CLASSES and data.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert not set(data.train.x) & set(data.validation.x)
    assert load_data(tree).validation.x.tolist() == data.validation.x.tolist()
    assert load_data(tree).train.size == 224


def test_names_of_classes_come_from_imagenets_list(tree):
    """Two classes of one name are told apart."""
    path = tree / "LOC_synset_mapping.txt"
    path.write_text("n01 tench, Tinca tinca\nn02 goldfish, Carassius auratus\n")
    assert load_data(tree).class_names == ("tench", "goldfish")
    path.write_text("n01 crane\nn02 crane\n")
    assert load_data(tree).class_names == ("crane (n01)", "crane (n02)")


@pytest.mark.parametrize("text, expected", [
    ("\ufeffn01 tench\nn02 goldfish\n", ("tench", "goldfish")),  # as Windows' editor saves it
    ("n01\nn02 , goldfish\n", ("n01", "n02")),
    ("n01  tench \nn02 \n", ("tench", "n02")),
])
def test_a_list_of_names_that_people_edited_is_read(tree, text, expected):
    """A class without a name is called as its folder, not by an empty text."""
    (tree / "LOC_synset_mapping.txt").write_text(text, encoding="utf-8")

    assert load_data(tree).class_names == expected


def test_kaggles_test_pictures_without_labels_do_not_count(tree):
    """They lie side by side; the tree is still one whose files stay on the disk."""
    (tree / "test").mkdir()
    Image.new("RGB", (8, 8)).save(tree / "test" / "ILSVRC2012_test_00000001.JPEG")

    data = load_data(tree, 16)

    assert isinstance(data, PhotographData)
    assert all(path.startswith(str(tree / "val")) for path in data.test.x)


def test_a_list_of_names_in_another_encoding_is_named(tree):
    (tree / "LOC_synset_mapping.txt").write_bytes(b"n01 caf\xe9\n")

    with pytest.raises(ValueError, match="LOC_synset_mapping.txt is no UTF-8 text.*Save it"):
        load_data(tree)


def test_a_val_folder_without_classes_is_told(tree):
    """As ImageNet's comes out of its archive."""
    for path in sorted((tree / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    Image.new("RGB", (8, 8)).save(tree / "val" / "ILSVRC2012_val_00000001.JPEG")

    with pytest.raises(ValueError, match="2 classes in train and 0 in val.*'n01', 'n02'"):
        load_data(tree)


def test_grey_and_cmyk_files_become_rgb(data):
    """Every picture has the size and the three channels of the network's input."""
    for picture, label in (data.test.read(i, RandomCrop(16, np.random.default_rng(i)))
                           for i in range(6)):
        assert (picture.shape, picture.dtype) == ((16, 16, 3), np.uint8)
        assert (picture.mean() > 120) == label
    for batch, _ in data.test.batches(4):
        assert batch.shape[1:] == (16, 16, 3)


def test_a_pipeline_repeats_exactly_and_every_epoch_differs(data):
    pytest.importorskip("grain")
    first = all_batches(photograph_pipeline(data.train, 4, 2, seed=3))

    assert_same(first, all_batches(photograph_pipeline(data.train, 4, 2, seed=3)))
    assert len(first) == 6
    assert not np.array_equal(first[0][0], first[3][0])
    other = all_batches(photograph_pipeline(data.train, 4, 2, seed=4))
    assert not np.array_equal(first[0][0], other[0][0])


def test_a_pipeline_takes_another_least_area(data, monkeypatch):
    pytest.importorskip("grain")
    asked = []
    monkeypatch.setattr(photographs_module, "RandomCrop", lambda size, rng, least_area: (
        asked.append(least_area) or RandomCrop(size, rng, least_area)))

    for area in (0, 0.7):
        all_batches(photograph_pipeline(data.train, 4, 1, 0, crop_area=area))

    assert set(asked) == {LEAST_AREA, 0.7}


@pytest.mark.parametrize("augmentation", [None, {"num_ops": 2, "factor": 0.4}])
def test_a_pipeline_resumed_sees_the_batches_it_would_have_seen(data, augmentation):
    """Crops and strengths of changes, too, depend on the place in the whole run only."""
    pytest.importorskip("grain")
    whole = all_batches(photograph_pipeline(data.train, 6, 2, 3, augmentation=augmentation))

    resumed = photograph_pipeline(data.train, 6, 2, 3, first_epoch=1, augmentation=augmentation)

    assert_same(whole[2:], all_batches(resumed))


def test_a_pipeline_erases_where_it_is_told_to(data):
    pytest.importorskip("grain")
    plain, erased = (all_batches(photograph_pipeline(data.train, 6, 2, 3, erasing=erasing))
                     for erasing in (0, 1))

    for (x, y), (x2, y2) in zip(plain, erased):
        changed = (x != x2).any(axis=-1)
        assert changed.any(axis=(1, 2)).all() and (x2[changed] == 128).all()
        assert_array_equal(y, y2)


def test_rand_augment_changes_pictures_and_repeats():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype="uint8")

    changed = rand_augment(pictures, 5, num_ops=2, factor=0.6)

    assert (changed.shape, changed.dtype) == (pictures.shape, np.uint8)
    assert_array_equal(changed, rand_augment(pictures, 5, num_ops=2, factor=0.6))
    assert any((rand_augment(pictures, seed, num_ops=2, factor=0.6) != pictures).any()
               for seed in range(3))


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
def test_a_crop_lies_in_the_picture(width, height, seed):
    """Of any picture, also of one that is a line; where it fits, area and shape are the paper's."""
    left, top, right, bottom = random_box(width, height, np.random.default_rng(seed))

    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if min(width, height) > 100 and max(width, height) < 1.3 * min(width, height):
        share = (right - left) * (bottom - top) / (width * height)
        assert 0.97 * LEAST_AREA <= share <= 1
        assert 0.96 * RATIOS[0] <= (right - left) / (bottom - top) <= 1.04 * RATIOS[1]


def test_damaged_files_are_replaced_counted_and_named(data):
    """Training goes on, with the same neighbour each time; the end tells which files were bad."""
    pytest.importorskip("grain")
    broken = [data.train.x[2], data.train.x[5]]
    with open(broken[0], "r+b") as file:
        file.truncate(600)
    with open(broken[1], "wb") as file:
        file.write(b"no picture")
    rule = data.train._rule()

    picture, label = data.train.read(2, rule)

    assert_array_equal(picture, data.train.read(3, rule)[0])
    assert label == data.train.y[3]
    assert_same(all_batches(photograph_pipeline(data.train, 4, 1, 0)),
                all_batches(photograph_pipeline(data.train, 4, 1, 0)))
    assert sorted(data.train.bad_files) == sorted(broken)
    with pytest.warns(UserWarning, match=r"2 of 13 files cannot be read(.|\n)*cut short"):
        data.train.warn_of_bad_files()


def test_bad_files_are_listed_as_they_are_met(data, tmp_path):
    """A run that is killed has named them; one that goes on names none twice."""
    path = tmp_path / "bad_files.csv"
    broken = data.train.x[2]
    with open(broken, "wb") as file:
        file.write(b"no picture")
    keep_bad_files(data, tmp_path)
    assert not path.exists()

    data.train[2]

    listed = path.read_text()
    header, line = listed.splitlines()
    assert header == "file,reason"
    assert line.startswith(f"{broken},") and "not a picture" in line
    again = load_data(tmp_path, 16)
    keep_bad_files(again, tmp_path)
    again.train[2]
    assert path.read_text() == listed
    in_memory = Split(np.zeros((1, 8, 8, 3), "uint8"), np.zeros(1, "int64"))
    keep_bad_files(Data(in_memory, in_memory, in_memory, ("a",)), tmp_path)


def test_grey_files_are_counted(data):
    """Each once; the warning at the end tells how many."""
    for position in (0, 1, 1, 4, 5):
        data.test[position]

    assert data.test.num_grey == 2  # one of each class
    with open(data.test.x[0], "wb"):
        pass
    data.test[0]
    with pytest.warns(UserWarning, match="2 grey ones were brought to RGB"):
        data.test.warn_of_bad_files()


def test_a_disk_that_is_gone_is_an_error(data):
    for path in data.test.x:
        with open(path, "wb"):
            pass

    with pytest.raises(UnreadablePicturesError, match="6 of 6 files"):
        data.test[0]


@pytest.mark.slow_on_jax
def test_a_recipe_trains_on_the_tree(tree, content, tmp_path):
    """To the end, beside a damaged file; the predictor will cut pictures as validation did."""
    pytest.importorskip("grain")
    phases = [{"epochs": 2, "image_size": 20}]
    recipe = Recipe.from_dict("test", {
        **content, "model": {**content["model"], "num_classes": 2, "normalization": "imagenet"},
        "training": {**content["training"], "batch_size": 4, "phases": phases,
                     "rand_augment": {"num_ops": 1}}})
    data = load_data(tree, recipe.image_size)
    with open(data.train.x[3], "r+b") as file:
        file.truncate(300)

    with pytest.warns(UserWarning, match="1 of 13 files cannot be read") as caught:
        model = train(recipe, data, tmp_path / "run", verbose=0)

    assert not [warning for warning in caught if "ran out of data" in str(warning.message)]
    assert model.class_names == list(CLASSES)
    assert model.input_rule == {"resize": "shorter_side_then_centre_crop", "size": [20, 20],
                                "interpolation": "bilinear", "crop": 0.875}


def test_every_validation_sees_every_photograph_once(data):
    """Repeated without end, the pipeline begins anew with its first, smaller batch."""
    pytest.importorskip("grain")
    batches = iter(data.test.batches(4, repeat=True))

    labels = [next(batches)[1].tolist() for _ in range(4)]

    assert labels == [[0, 0], [0, 1, 1, 1]] * 2


@pytest.mark.slow_on_jax
def test_evaluation_reads_photographs_batch_by_batch(data, tiny_arguments):
    """Whatever the batch size, each picture has its answer and its label."""
    pytest.importorskip("grain")
    model = RANet(**{**tiny_arguments, "num_classes": 2, "pooling": "global"},
                  normalization="imagenet")
    photographs = spread(data.test, 5).resized(32)

    outputs = ExitOutputs.from_model(model, photographs.pictures, photographs.y, batch_size=2)

    pictures = np.stack([photographs[i] for i in range(5)])
    expected = ExitOutputs.from_model(model, pictures, photographs.y)
    np.testing.assert_allclose(outputs.probabilities, expected.probabilities, atol=1e-5)
    assert_array_equal(outputs.labels, photographs.y)


def test_evaluation_follows_the_rule_that_is_given(data, tree):
    """The rule of a trained network, in place of the tree's own; training crops as before."""
    pytest.importorskip("grain")
    rule = {"resize": "shorter_side_then_centre_crop", "interpolation": "bicubic", "crop": 1.0,
            "size": [99, 99]}
    given = load_data(tree, 16, rule)

    for part in (given.validation, given.test.resized(16), spread(given.test, 4)):
        assert part.input_rule == {**rule, "size": [16, 16]}
    expected = np.stack([read_picture(path, InputRule((16, 16), 3)) for path in data.test.x])
    pictures = np.concatenate([batch for batch, _ in given.test.batches(4)])
    assert_array_equal(pictures, expected)
    assert not np.array_equal(pictures, np.stack([data.test[i] for i in range(6)]))
    assert_same(all_batches(photograph_pipeline(given.train, 4, 1, 0)),
                all_batches(photograph_pipeline(data.train, 4, 1, 0)))


def test_a_tree_without_class_folders_is_told(tmp_path):
    """Pictures that lie side by side have no labels."""
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / part / "a.jpg")

    with pytest.raises(ValueError, match="needs a folder per class, two or more"):
        load_data(tmp_path, 32)


def test_what_ended_the_reading_is_raised_itself(data, monkeypatch):
    """TensorFlow raises an error of its own, whose message is a traceback."""
    pytest.importorskip("grain")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    load, calls = Photographs.load, itertools.count()

    def load_for_a_while(self, place, rule):
        if next(calls) > 100:
            raise OSError("the disk is gone")
        return load(self, place, rule)

    monkeypatch.setattr(Photographs, "load", load_for_a_while)
    with pytest.raises(OSError, match="^the disk is gone"):
        with raising_own_failure(data):
            model.fit(photograph_pipeline(data.train, 4, 100, seed=0), steps_per_epoch=3,
                      epochs=100, verbose=0)
    with pytest.raises(KeyError):  # of before, and no cause of this
        with raising_own_failure(data):
            raise KeyError


def test_a_run_says_itself_why_reading_ended(tree, data, content, tmp_path, monkeypatch):
    recipe = Recipe.from_dict("test", {
        **content, "model": {**content["model"], "num_classes": 2, "normalization": "imagenet"},
        "training": {**content["training"], "batch_size": 4}})

    def fit(self, **arguments):
        for path in data.train.x:
            with open(path, "wb"):
                pass
        with contextlib.suppress(UnreadablePicturesError):
            data.train[0]
        raise RuntimeError("Graph execution error")

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(UnreadablePicturesError, match="13 of 13 files"):
        train(recipe, data, tmp_path / "run", verbose=0)
