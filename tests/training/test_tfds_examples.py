"""Data sets that `tensorflow_datasets` has prepared, read from a stand-in of that package."""

import io
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.training import Recipe, train
from keras_adaptive.training.datasets import check_labels, load_data
from keras_adaptive.training.photographs import photograph_pipeline
from keras_adaptive.training.tfds_examples import Examples

CLASSES = ["n01", "n02"]


class _Image:
    pass


class _Text:
    pass


class _ClassLabel:
    names, num_classes = CLASSES, len(CLASSES)


class _SkipDecoding:
    pass


def _jpeg(number, label):
    pixels = np.random.default_rng(number).integers(0, 60, (40, 60 + number, 3)) + 150 * label
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, "JPEG")
    return file.getvalue()


def _examples(count, labels=(0, 1)):
    return [{"file_name": f"{i}.JPEG", "image": _jpeg(i, labels[i % 2]), "label": labels[i % 2]}
            for i in range(count)]


class _Builder:
    """As `tfds.core.DatasetBuilder`, for one data set."""

    def __init__(self, parts, features=None, is_random_access=True):
        self.parts, self.is_random_access = parts, is_random_access
        self.data_dir = "/data/imagenet2012/5.1.0"
        self.info = types.SimpleNamespace(
            splits=parts, full_name="imagenet2012/5.1.0", supervised_keys=("image", "label"),
            features=features or {"image": _Image(), "label": _ClassLabel()})

    def as_data_source(self, split=None, *, decoders=None, deserialize_method=None,
                       file_format=None):
        if not self.is_random_access:
            raise NotImplementedError("Random access data source for TFRECORD is not supported.")
        assert isinstance(decoders["image"], _SkipDecoding), "pictures are to be decoded by pillow"
        return self.parts[split]


@pytest.fixture
def install(monkeypatch):
    """Function that installs the stand-in with one data set, `imagenet2012`."""
    def install(builder):
        def find(name, *, try_gcs=False, **builder_kwargs):
            if name.split(":")[0] != "imagenet2012":
                raise ValueError(f"Dataset {name} not found.\nAvailable datasets:\n\t- abc")
            return builder

        module = types.ModuleType("tensorflow_datasets")
        module.builder = find
        module.list_builders = lambda *, with_community_datasets=True: ["abc", "imagenet2012"]
        module.features = types.SimpleNamespace(Image=_Image, ClassLabel=_ClassLabel)
        module.decode = types.SimpleNamespace(SkipDecoding=_SkipDecoding)
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
        return builder

    return install


@pytest.fixture
def builder(install):
    """ImageNet in small: the labels of its test part are not public."""
    return install(_Builder({"train": _examples(14), "validation": _examples(6),
                             "test": _examples(3, labels=(-1, -1))}))


@pytest.fixture
def data(builder):
    return load_data("tfds:imagenet2012", 16)


def test_the_parts_are_those_of_a_folder_tree(data, builder):
    """`validation` is the test part, and a share of `train` is held back, always the same."""
    assert [len(part) for part in (data.train, data.validation, data.test)] == [13, 1, 6]
    assert data.class_names == tuple(CLASSES) and data.test.label_range == (0, 1)
    assert data.test[1].shape == (16, 16, 3) and data.test[1].mean() > 120
    assert not set(data.train.x) & set(data.validation.x)
    again = load_data("tfds:imagenet2012:5.1.0")
    assert again.validation.x.tolist() == data.validation.x.tolist() and again.train.size == 224


def test_a_labelled_test_part_is_the_test_part(install):
    """And `validation` then chooses checkpoints; without it, a share of `train` does."""
    parts = {"train": _examples(14), "validation": _examples(4), "test": _examples(6)}
    install(_Builder(parts))
    data = load_data("tfds:imagenet2012")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [14, 4, 6]

    install(_Builder({name: parts[name] for name in ("train", "test")}))
    data = load_data("tfds:imagenet2012")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [13, 1, 6]


@pytest.mark.parametrize("augmentation", [None, {"num_ops": 1, "factor": 0.4}])
def test_a_pipeline_repeats_and_resumes_exactly(data, augmentation):
    """Random crops and labels belong together, and depend on seed and epoch only."""
    pytest.importorskip("grain")
    whole = list(photograph_pipeline(data.train, 4, 2, 3, augmentation=augmentation))

    resumed = list(photograph_pipeline(data.train, 4, 2, 3, 1, augmentation=augmentation))

    assert len(whole) == 6 and len(resumed) == 3
    for (x, y), (x2, y2) in zip(whole[3:], resumed):
        assert_array_equal(x, x2)
        assert_array_equal(y, y2)
    if augmentation is None:
        for x, y in whole:
            assert_array_equal(x.mean(axis=(1, 2, 3)) > 120, y)


def test_damaged_examples_are_replaced_counted_and_named(data, builder):
    """By their number in the data set, whether the picture or the record is damaged."""
    first, second = (int(data.train.x[i]) for i in (2, 5))
    builder.parts["train"][first]["image"] = builder.parts["train"][first]["image"][:300]
    del builder.parts["train"][second]["label"]
    rule = data.train._rule()

    picture, label = data.train.read(2, rule)

    following, truth = data.train.read(3, rule)
    assert_array_equal(picture, following)
    assert label == truth
    data.train.read(5, rule)
    names = [f"imagenet2012/5.1.0, train, example {number}" for number in (first, second)]
    assert sorted(data.train.bad_files) == sorted(names)
    with pytest.warns(UserWarning, match=r"2 of 13 examples cannot(.|\n)*Prepare the data set anew"
                                         r"(.|\n)*example \d+: it is cut short"):
        data.train.warn_of_bad_files()


def test_evaluation_takes_a_part_and_its_labels(data):
    """As it does with files: evenly spread, batch by batch, by the rule that is given."""
    pytest.importorskip("grain")
    rule = {"interpolation": "nearest", "crop": 1.0, "size": [16, 16]}
    test = spread(load_data("tfds:imagenet2012", 16, rule).test, 4)

    assert test.x.tolist() == [0, 1, 3, 5] and isinstance(test, Examples)
    assert [labels.tolist() for _, labels in test.batches(3)] == [[0], [1, 1, 1]]
    assert not np.array_equal(test[1], spread(data.test, 4)[1])
    check_labels(test, (None, 2))
    with pytest.raises(ValueError, match="Received labels from 0 to 1"):
        check_labels(test, (None, 1))


def test_a_recipe_trains_on_examples(builder, content, tmp_path):
    """The same recipe as for files, and the network knows the data set's classes."""
    pytest.importorskip("grain")
    recipe = Recipe.from_dict("test", {
        **content, "data": {"name": "tfds:imagenet2012"},
        "model": {**content["model"], "num_classes": 2, "normalization": "imagenet"},
        "training": {**content["training"], "batch_size": 4,
                     "phases": [{"epochs": 1, "image_size": 20}]}})

    model = train(recipe, load_data(recipe.data["name"], recipe.image_size), tmp_path, verbose=0)

    assert model.class_names == CLASSES and model.input_rule["crop"] == 0.875


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)

    with pytest.raises(ImportError, match=r"pip install keras_adaptive\[tfds\]"):
        load_data("tfds:imagenet2012")


def test_an_unknown_name_suggests_the_nearest(builder):
    with pytest.raises(ValueError, match="'imagenet': Dataset imagenet not found. Did you mean "
                                         "'imagenet2012'") as error:
        load_data("tfds:imagenet")
    assert "abc" not in str(error.value)


@pytest.mark.parametrize("builder, message", [
    (_Builder({}), r"not prepared in /data/imagenet2012(.|\n)*download_and_prepare"),
    (_Builder({"train": [], "validation": []}, is_random_access=False),
     "cannot be read in any order(.|\n)*array_record"),
    (_Builder({"train": [], "validation": []}, {"text": _Text(), "label": _ClassLabel()}),
     "not pictures with one label each"),
    (_Builder({"train": _examples(2), "test": _examples(2, (-1, -1))}),
     r"needs `train`, and `validation` or `test` with labels. It has the parts \['test', 'train'"),
])
def test_what_cannot_be_used_is_told_with_the_cure(install, builder, message):
    """Nothing is downloaded behind the user's back."""
    install(builder)

    with pytest.raises(ValueError, match=message):
        load_data("tfds:imagenet2012")
