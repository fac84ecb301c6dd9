"""Labelled pictures for training and evaluation, and the pipeline that feeds `fit`."""

import pathlib
import zipfile
import zlib

import keras
import numpy as np

from keras_adaptive.training.augment import (
    change,
    crop_and_flip,
    random_erasing,
    resized_crop_and_flip,
)
from keras_adaptive.training.folders import load_folder
from keras_adaptive.training.grain_package import import_grain
from keras_adaptive.training.photograph_tree import is_photograph_tree, load_photographs
from keras_adaptive.training.splits import Data, Split
from keras_adaptive.training.tfds_examples import is_tfds_name, load_examples

VALIDATION_SIZE = 5000  # pictures of CIFAR's training part that the papers keep for thresholds


def check_labels(split, output_shape):
    """Raise a `ValueError` if a network has no class for a label of the split.

    Args:
        split: `Split` or `Photographs`.
        output_shape: shape of a network's output, or list of such shapes, one per exit.
    """
    shape = output_shape[0] if isinstance(output_shape, list) else output_shape
    low, high = split.label_range
    if low < 0 or high >= shape[-1]:
        raise ValueError(
            f"Labels must be 0 to {shape[-1] - 1} for a network of {shape[-1]} classes. Received "
            f"labels from {low} to {high}. Use the network of this data set, or give "
            "`num_classes`."
        )


def check_channels(split, input_shape):
    """Raise a `ValueError` if a network takes pictures of other channels than the split's.

    Args:
        split: `Split`, or `Photographs`, which are RGB always.
        input_shape: shape of the network's input.
    """
    if isinstance(split, Split) and split.x.shape[-1] != input_shape[-1]:
        cure = (" Grey pictures become RGB by `np.repeat(x, 3, axis=-1)`."
                if (split.x.shape[-1], input_shape[-1]) == (1, 3) else "")
        raise ValueError(
            f"The network takes pictures of {input_shape[-1]} channels. Received an array of the "
            f"shape {split.x.shape}.{cure}"
        )


def check_phases(source, sizes):
    """Raise a `ValueError` if phases want larger pictures than `load_data` makes of the files.

    Args:
        source: as for `load_data`.
        sizes: sequence of ints. Side of the pictures of each phase. Those of a folder whose files
            are all read before training are read at the last one's, as evaluation reads them.
    """
    path = pathlib.Path(source)
    if max(sizes) == sizes[-1] or not path.is_dir() or is_photograph_tree(path):
        return
    raise ValueError(
        f"{path} is read at the {sizes[-1]} pixels of the last phase, of which phases of "
        f"{max(sizes)} would make larger pictures that show no more. Let no phase have larger ones "
        "than the last; or name test/ val/, in place of one that is there: the files of train/ and "
        "val/ alone are read anew at every size."
    )


def check_classes(data, source, name, class_names):
    """Raise a `ValueError` if a data set has other classes than a trained network.

    Args:
        data: `Data`, as `load_data` gave it for `source`.
        source: as for `load_data`.
        name: string. Names the network.
        class_names: sequence of strings, the network's, or `None` where it has none.
    """
    if class_names is not None and list(data.class_names) != list(class_names):
        raise ValueError(
            f"{name!r} tells the classes {_short(class_names)} apart, {source!r} has "
            f"{_short(data.class_names)}. Give the data set that the network was trained on."
        )


def _short(names):
    return f"{', '.join(names[:3])}, … ({len(names)})" if len(names) > 3 else ", ".join(names)


def load_data(source, image_size=None, input_rule=None):
    """Load a labelled data set.

    Args:
        source: path of an `.npz` with `x_train`, `y_train`, `x_val`, `y_val`, `x_test`, `y_test`
            and `class_names`; path of a folder with `train/<class>/`, `test/<class>/` and perhaps
            `val/<class>/`, see `load_folder`; path of a folder with `train/<class>/` and
            `val/<class>/` and no `test`, or one without class folders, such as ImageNet's, whose
            files are read when a batch wants them, see `load_photographs`; `"tfds:NAME"`, a data
            set that `tensorflow_datasets` has prepared, see `load_examples`; or `"cifar10"`,
            `"cifar100"`, which Keras downloads, the last 5,000 training pictures kept for
            validation.
        image_size: int or `None`. Side that files and examples are brought to.
        input_rule: dict or `None`. How evaluation makes them pictures of that side: the rule that
            a trained model carries, or `None` for that of training. Arrays stay as they are.

    Returns:
        `Data`, or `PhotographData` where pictures are read when a batch wants them.

    Raises:
        ValueError: If the file does not exist, lacks an array, or the name is unknown.
        ImportError: If a package is missing that reads the data set.
    """
    if source in ("cifar10", "cifar100"):
        return _from_keras(source)
    if is_tfds_name(source):
        return load_examples(source, image_size, input_rule)
    path = pathlib.Path(source)
    if is_photograph_tree(path):
        return load_photographs(path, image_size, input_rule)
    if path.is_dir():
        return load_folder(path, image_size, input_rule)
    if path.suffix != ".npz" or not path.is_file():
        raise ValueError(
            "`data` is an existing .npz file, a folder, 'tfds:NAME', 'cifar10' or 'cifar100'. "
            f"Received: {str(source)!r}, "
            + ("which is neither." if path.exists() else "which does not exist.")
        )
    try:
        return _read_arrays(path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{path} is no whole .npz file: {error or 'it ends too early'}. Copy or make it anew."
        ) from error


def _read_arrays(path):
    try:
        arrays = np.load(path, allow_pickle=False)
    except ValueError as error:  # whose message advises to unpickle whatever it is
        with open(path, "rb") as file:
            start = file.read(20)
        raise ValueError(
            f"{path} is no .npz file: it begins with {start!r}. Make one with `numpy.savez`; a web "
            "page in place of a download means that its address is another."
        ) from error
    if isinstance(arrays, np.ndarray):
        raise ValueError(
            f"{path} holds one array without a name, of the shape {arrays.shape}, as `numpy.save` "
            "writes it. Write all arrays into one file by `numpy.savez(path, x_train=x_train, …)`."
        )
    with arrays:
        wanted = [f"{array}_{part}" for part in ("train", "val", "test") for array in "xy"]
        missing = sorted({*wanted, "class_names"} - set(arrays))
        if missing:
            raise ValueError(f"{path} lacks the arrays {missing}. It holds {sorted(arrays)}.")
        train, validation, test = (
            _read_split(path, arrays, part) for part in ("train", "val", "test"))
        class_names = _read_array(path, arrays, "class_names")
        if class_names.ndim != 1:
            raise ValueError(
                f"{path}: `class_names` is a list of names, one per class. Received: shape "
                f"{class_names.shape}. Save `np.array(['cat', 'dog', …])`."
            )
        return Data(train, validation, test, tuple(str(name) for name in class_names))


def _read_split(path, arrays, part):
    x, y = (_read_array(path, arrays, f"{array}_{part}") for array in "xy")
    try:
        split = Split(x, y)
    except ValueError as error:
        raise ValueError(f"{path}, x_{part} and y_{part}: {error}") from error
    if not len(split):
        raise ValueError(
            f"{path}: `x_{part}` has the shape {x.shape}, and every part needs pictures. Keep some "
            "of the training pictures for it."
        )
    return split


def _read_array(path, arrays, name):
    try:
        return arrays[name]
    except ValueError as error:  # whose message advises to unpickle them
        raise ValueError(
            f"{path}: `{name}` holds Python objects, which are not read, or is damaged. Save "
            "pictures and labels as arrays of whole numbers, names as `np.array(names, dtype=str)`."
        ) from error


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                   "truck")


def _from_keras(name):
    try:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # of no narrower class where a download fails
        raise OSError(
            f"{name!r} could not be downloaded: {error}. Try again later, or give the data set as "
            "an .npz file, `--data FILE.npz`; `load_data` says which arrays it holds."
        ) from error
    y, y_test = y.reshape(-1).astype("int64"), y_test.reshape(-1).astype("int64")
    names = CIFAR10_CLASSES if name == "cifar10" else tuple(str(i) for i in range(100))
    cut = len(y) - VALIDATION_SIZE
    return Data(Split(x[:cut], y[:cut]), Split(x[cut:], y[cut:]), Split(x_test, y_test), names)


def training_pipeline(split, batch_size, epochs, seed, first_epoch=0, augmentation=None,
                      crop_area=0.0, erasing=0.0):
    """Return a grain pipeline of augmented batches, a pure function of its arguments.

    Every epoch has another order and other augmentations. A run resumed at `first_epoch` sees the
    batches that it would have seen undisturbed.

    Args:
        split: `Split` to draw from.
        batch_size: int.
        epochs: int. Number of the last epoch, counted from 1.
        seed: int.
        first_epoch: int. Epochs to leave out at the start.
        augmentation: dict, layer or function, see `change`, or `None` for crops and flips only.
        crop_area: float. Smallest share of a picture's area in a random resized crop, see
            `resized_crop_and_flip`; 0 for the papers' shifts by up to an eighth.
        erasing: float. Share of the pictures that lose a rectangle, see `random_erasing`.

    Returns:
        `grain.MapDataset` of `(pictures, labels)`, `steps_per_epoch(split, batch_size)` batches per
        epoch.

    Raises:
        ImportError: If grain is not installed.
    """
    grain = import_grain()

    def load(indices, rng):
        pictures = split.x[indices]
        pictures = (resized_crop_and_flip(pictures, rng, crop_area) if crop_area
                    else crop_and_flip(pictures, rng))
        if augmentation:
            pictures = change(pictures, rng.integers(2**31), augmentation)
        if erasing:
            pictures = random_erasing(pictures, rng.integers(2**31), erasing)
        return pictures, split.y[indices]

    steps = steps_per_epoch(split, batch_size)
    order = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat(epochs)
    batches = order.batch(batch_size, drop_remainder=True).random_map(load)
    return batches.slice(slice(first_epoch * steps, epochs * steps))


def steps_per_epoch(split, batch_size):
    """Return the number of full batches in one pass over the split.

    Raises:
        ValueError: If the split is smaller than one batch.
    """
    if len(split) < batch_size:
        raise ValueError(
            f"The training part has {len(split)} pictures, fewer than one batch of {batch_size}. "
            "Give more pictures, or a smaller `batch_size` in the recipe."
        )
    return len(split) // batch_size
