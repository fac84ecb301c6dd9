"""Labelled photographs that `tensorflow_datasets` has prepared, read one by one, as files are."""

import dataclasses
import io
from typing import Any

import numpy as np

from keras_adaptive.names import did_you_mean
from keras_adaptive.picture_files import read_picture, unreadable
from keras_adaptive.training.photograph_tree import IMAGE_SIZE, hold_back
from keras_adaptive.training.photographs import NotingGrey, PhotographData, Photographs

_PREFIX = "tfds:"
_PREPARE = (
    "Prepare it once: `tensorflow_datasets.builder({!r}, file_format=\"array_record\")"
    ".download_and_prepare()`"
)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a prepared data set, whose examples can be read in any order."""

    name: str  # such as "imagenet2012/5.1.0, train"
    examples: Any  # sequence of dicts, the pictures in it still encoded
    image_key: str
    label_key: str
    num_classes: int

    def read(self, number):
        """Return the encoded picture of an example, and its label."""
        example = self.examples[number]
        return example[self.image_key], int(example[self.label_key])


@dataclasses.dataclass(frozen=True)
class Examples(Photographs):
    """Examples of a prepared data set, read one by one at the size wanted.

    As `Photographs`, but that a label comes with its picture and is not known before: to list a
    million, the whole data set would have to be read.

    Args:
        x: int array `(n,)`, the numbers of the examples.
        y: `None`.
        size, rule: as for `Photographs`.
        part: where the examples lie.
    """

    part: _Part | None = None

    _kind = "examples"
    _cure = "Prepare the data set anew"

    @property
    def label_range(self):
        """Pair of ints, the smallest and the largest label that there may be."""
        return 0, self.part.num_classes - 1

    def take(self, rows):
        """Return some of the photographs, an array of whose numbers is given."""
        return dataclasses.replace(self, x=self.x[rows])

    def load(self, place, rule):
        """Return the picture at a place and its label, or raise `UnreadablePicturesError`."""
        number = int(self.x[place])
        name = f"{self.part.name}, example {number}"
        try:
            encoded, label = self.part.read(number)
        except Exception as error:  # of any kind: the format of the record is not ours
            raise unreadable(name, error) from error
        rule = NotingGrey(rule, name, self._bad)
        return read_picture(io.BytesIO(encoded), rule, name), label


def is_tfds_name(source):
    """Return whether a data set is named as one that `tensorflow_datasets` has prepared."""
    return str(source).startswith(_PREFIX)


def load_examples(source, image_size=None, input_rule=None):
    """Open a data set that `tensorflow_datasets` has prepared; no picture is read.

    Where the data set has `validation` and a `test` with labels, these are the parts. Where it has
    one of them, as ImageNet does, whose labels of `test` are not public, that is the test part, and
    of `train` the share that `load_photographs` holds back is the validation part.

    Args:
        source: string `"tfds:NAME"`, `"tfds:NAME/CONFIG:VERSION"` and so on, such as
            `"tfds:imagenet2012"`. The environment variable `TFDS_DATA_DIR` says where it lies.
        image_size: int or `None`. Side of the pictures; `None` for 224.
        input_rule: dict or `None`. How evaluation reads them, as `Photographs` takes it.

    Returns:
        `PhotographData`, whose parts are `Examples`, with the class names of the data set.

    Raises:
        ImportError: If `tensorflow_datasets` is not installed.
        ValueError: If it has no data set of this name, has not prepared it, or in a format that
            cannot be read in any order; or if the examples are not pictures with one label each.
    """
    tfds = _import_tfds()
    name = source.removeprefix(_PREFIX)
    builder = _find_builder(tfds, name)
    if not builder.info.splits:
        raise ValueError(
            f"{source!r} is not prepared in {builder.data_dir}; the environment variable "
            f"TFDS_DATA_DIR names another place. {_PREPARE.format(name)}. Data sets whose "
            "archives are fetched by hand, as ImageNet's, say in their description where to put "
            "them."
        )
    image, label = _keys(tfds, source, builder.info)
    labels = builder.info.features[label]

    def open_part(part):
        try:
            examples = builder.as_data_source(
                part, decoders={image: tfds.decode.SkipDecoding()})
        except NotImplementedError as error:
            raise ValueError(
                f"{source!r} lies in {builder.data_dir} in a format whose examples cannot be read "
                f"in any order, such as TFRecord. {_PREPARE.format(name)}, in another folder, "
                "which TFDS_DATA_DIR names."
            ) from error
        return _Part(f"{builder.info.full_name}, {part}", examples, image, label,
                     labels.num_classes)

    def choose(part, rows=None):
        rows = np.arange(len(part.examples)) if rows is None else rows
        return Examples(rows, None, image_size or IMAGE_SIZE, input_rule, part=part)

    splits = builder.info.splits
    labelled = [part for part in (open_part(name) for name in ("validation", "test")
                                  if name in splits) if part.read(0)[1] >= 0]
    if "train" not in splits or not labelled:
        raise ValueError(
            f"{source!r} needs `train`, and `validation` or `test` with labels. It has the parts "
            f"{sorted(splits)}."
        )
    train = open_part("train")
    if len(labelled) == 2:
        parts = [choose(part) for part in (train, *labelled)]
    else:
        parts = [*(choose(train, rows) for rows in hold_back(len(train.examples))),
                 choose(*labelled)]
    return PhotographData(*parts, tuple(map(str, labels.names)))


def _import_tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "Data sets named 'tfds:…' need the `tensorflow_datasets` package: "
            "`pip install keras_adaptive[tfds]`."
        ) from error
    return tensorflow_datasets


def _find_builder(tfds, name):
    try:
        return tfds.builder(name)
    except ValueError as error:
        reason, *_ = str(error).splitlines() or [""]  # what follows are the names of all data sets
        raise ValueError(
            f"`tensorflow_datasets` does not give {name!r}: {reason}"
            f"{did_you_mean(name, tfds.list_builders(with_community_datasets=False))}"
        ) from None


def _keys(tfds, source, info):
    """Return under which keys of an example its picture and its label are."""
    keys, features = info.supervised_keys, info.features
    if (keys is None or len(keys) != 2 or any(key not in features for key in keys)
            or not isinstance(features[keys[0]], tfds.features.Image)
            or not isinstance(features[keys[1]], tfds.features.ClassLabel)):
        raise ValueError(
            f"Examples of {source!r} are not pictures with one label each: {features}. Use a data "
            "set for the classification of pictures."
        )
    return keys
