"""What users hand in, as one stream of checked arrays: pictures with values 0 to 255."""

import collections.abc
import dataclasses
import os
import sys

import numpy as np
from PIL import Image

from keras_adaptive.labels import read_labels
from keras_adaptive.picture_files import find_files, read_pictures

# Rows of a data set's element that are copied together: whole elements may be as large as memory.
_COPIED_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A stream of pictures; nothing is read before it is asked for."""

    arrays: collections.abc.Iterable  # of arrays (num, height, width, channels) with any `num`
    num_pictures: int | None  # None where only the end of the stream tells
    files: tuple | None = None  # paths in the order of the stream


def open_pictures(images, rule):
    """Accept pictures in any of the forms that users have them.

    Args:
        images: pictures with values 0 to 255, channels last, as one of

            * an array or tensor: one picture `(height, width, channels)` or a batch of them;
            * a path, a folder (searched with the folders below it), a `PIL.Image.Image`;
            * a list of paths, of pillow pictures or of single arrays;
            * a `tf.data.Dataset`, a grain dataset, a `keras.utils.PyDataset`, or any other finite
              iterable of pictures or batches, alone or as `(pictures, labels, ...)`.

            Files and pillow pictures are brought to the size that `rule` says. Arrays are never
            resized.
        rule: `InputRule`.

    Returns:
        `Pictures`. Arrays and lists are checked at once, streams as they come.

    Raises:
        ValueError: If an array has the wrong rank, channels, dtype or range of values, a folder
            holds no pictures, or a data set never ends.
        TypeError: If `images` is none of these.
        UnreadablePicturesError: From the stream, with all bad files of the list.
    """
    if isinstance(images, (str, os.PathLike)):
        is_folder = os.path.isdir(images)
        return _open_files(find_files(images) if is_folder else [images], rule)
    if isinstance(images, Image.Image):
        return _open_pillow([images], rule)
    if isinstance(images, (list, tuple)):
        return _open_list(images, rule)
    if hasattr(images, "__array__"):
        array = check_pictures(images, rule.num_channels, "The array")
        return Pictures([array], len(array))
    if isinstance(images, collections.abc.Mapping) or not _is_stream(images):
        raise TypeError(
            "`images` takes an array, a path, a folder, a list of these, a data set or a "
            f"generator of batches. Received: {type(images).__name__}."
        )
    return Pictures(_check_stream(_iterate(images), rule.num_channels), None)


class LabelledPictures:
    """A data set of `(pictures, labels)` as its pictures alone; labels are kept as they pass.

    So each picture has its own label also where a data set gives another order every time.

    Args:
        dataset: what `open_pictures` takes as a data set, with such elements.
        num_classes: int.

    Raises:
        ValueError: If it is no data set; while it is read, if an element has no labels, or these
            are no numbers of classes.
    """

    def __init__(self, dataset, num_classes):
        if isinstance(dataset, (str, os.PathLike, list, tuple, collections.abc.Mapping,
                                Image.Image)) or hasattr(dataset, "__array__") or (
                not _is_stream(dataset)):
            raise ValueError(
                "Labels are given beside the pictures, one per picture; or the pictures are a data "
                "set of (pictures, labels), such as a `tf.data.Dataset`. Received "
                f"{type(dataset).__name__} without labels."
            )
        self._dataset = dataset
        self._num_classes = num_classes
        self._labels = []

    def __iter__(self):
        self._labels.clear()
        for position, element in enumerate(_iterate(self._dataset)):
            _refuse_mapping(element, position)
            if not isinstance(element, (tuple, list)) or len(element) < 2:
                raise ValueError(
                    f"Element {position} of the data set has no labels. Without labels of their "
                    "own, its elements are tuples (pictures, labels)."
                )
            pictures = _first(element, position)
            is_single = len(getattr(pictures, "shape", ())) == 3
            labels = _to_numpy(element[1])
            labels = read_labels(
                labels[None] if is_single else labels,
                f"Element {position} of the data set, (pictures, labels),",
                1 if is_single else len(pictures) if hasattr(pictures, "__len__") else None,
                self._num_classes)
            # A copy, as for pictures: a generator may fill one buffer again and again.
            self._labels.append(labels.astype("int64"))
            yield pictures

    def labels(self):
        """Return the labels of all pictures that have passed, in their order, as an array."""
        return np.concatenate(self._labels)


def _check_rule(kind, rule):
    if rule.num_channels not in (1, 3):
        raise ValueError(
            f"{kind} give pictures with 3 channels, or 1 for a grey network; this network takes "
            f"{rule.num_channels}. Pass arrays."
        )


def _open_files(paths, rule):
    _check_rule("Files", rule)
    paths = tuple(os.fspath(path) for path in paths)
    return Pictures((picture[None] for picture in read_pictures(paths, rule)), len(paths), paths)


def _open_pillow(pictures, rule):
    _check_rule("Pillow pictures", rule)
    return Pictures((rule.apply(picture)[None] for picture in pictures), len(pictures))


def _open_list(images, rule):
    if not images:
        return Pictures([], 0)
    for kind, opener in (((str, os.PathLike), _open_files), (Image.Image, _open_pillow)):
        if isinstance(images[0], kind):
            stranger = next((entry for entry in images if not isinstance(entry, kind)), None)
            if stranger is not None:
                raise TypeError(
                    "A list of pictures holds paths, pillow pictures or arrays, not a mixture. "
                    f"Received {type(images[0]).__name__} and {type(stranger).__name__}."
                )
            return opener(images, rule)
    arrays = [
        check_pictures(entry, rule.num_channels, f"Entry {position} of the list", ranks=(3,))
        for position, entry in enumerate(images)
    ]
    return Pictures(arrays, len(arrays))


def _is_stream(images):
    return hasattr(images, "__iter__") or hasattr(images, "__getitem__")


def _iterate(images):
    """Return an iterator over the elements of a data set or generator."""
    _check_end(images)
    if hasattr(images, "as_numpy_iterator"):
        return images.as_numpy_iterator()
    if hasattr(images, "num_batches"):  # PyDataset: it has no end of its own
        return (images[index] for index in range(images.num_batches))
    if hasattr(images, "__iter__"):
        return iter(images)
    return (images[index] for index in range(len(images)))


def _check_end(images):
    if hasattr(images, "cardinality"):
        is_endless = int(images.cardinality()) == -1  # tf.data.INFINITE_CARDINALITY
    elif hasattr(images, "num_batches"):
        is_endless = images.num_batches is None
    else:
        # A repeated grain data set gives the largest length that Python has.
        is_endless = _length(images) == sys.maxsize
    if is_endless:
        raise ValueError(
            "`images` never ends, and a prediction needs all pictures. "
            f"Received an endless {type(images).__name__}: leave out `repeat`, or `take` a part."
        )


def _length(images):
    """Return the length of a data set, or None where only its end tells."""
    try:
        return len(images)
    except TypeError:  # also of a PyTorch `DataLoader`, which has `__len__` whatever it loads
        return None


def _check_stream(elements, num_channels):
    """Give the pictures of a stream, checked, as arrays that nobody else writes to.

    A generator may fill one buffer again and again, while pictures still wait for a full batch.
    """
    for position, element in enumerate(elements):
        _refuse_mapping(element, position)
        pictures = _first(element, position) if isinstance(element, (tuple, list)) else element
        array = check_pictures(pictures, num_channels, f"Element {position} of the data set")
        for start in range(0, len(array), _COPIED_ROWS):
            yield array[start:start + _COPIED_ROWS].copy()


def _refuse_mapping(element, position):
    if isinstance(element, collections.abc.Mapping):
        raise TypeError(
            "Elements of a data set are pictures, or tuples that begin with pictures. "
            f"Element {position} is a mapping with the keys {sorted(element)}: map it first."
        )


def _first(element, position):
    """Return the pictures of a tuple `(pictures, labels, ...)`."""
    if not element:
        raise ValueError(f"Element {position} of the data set is empty: {element!r}.")
    # Labels may be anything, also lists of different lengths, which have no shape.
    shapes = [tuple(getattr(part, "shape", ())) for part in element]
    if len(shapes[0]) == 3 and shapes[0] in shapes[1:]:
        raise ValueError(
            f"Element {position} of the data set holds {len(element)} single pictures. Elements "
            "are pictures, or tuples (pictures, labels): stack the pictures with `np.stack`, or "
            "yield them one by one."
        )
    return element[0]


def check_pictures(pictures, num_channels, name, ranks=(3, 4)):
    """Return one or several pictures as an array of rank 4, or say what is wrong with them.

    Args:
        pictures: array or tensor.
        num_channels: int. Channels that the network takes.
        name: string. What the pictures are, as the subject of an error message.
        ranks: accepted ranks. 3: one picture; 4: a batch.

    Raises:
        ValueError: If rank, channels, dtype or values are not those of pictures from 0 to 255.
    """
    if not hasattr(pictures, "__array__"):
        raise TypeError(
            f"{name} must be an array of pictures. Received: {type(pictures).__name__}."
        )
    array = _to_numpy(pictures)
    # Of rank 3 it is one picture without a row.
    if array.ndim not in (0, 3) and len(array) == 0 and 4 in ranks:
        return np.zeros((0, 1, 1, num_channels), np.uint8)
    _check_layout(array, num_channels, name, ranks)
    _check_dtype(array, name)
    if array.dtype != np.uint8:
        _check_range(array, name)
    return array if array.ndim == 4 else array[None]


def _to_numpy(pictures):
    if hasattr(pictures, "detach"):  # a torch tensor, which may live on a device
        pictures = pictures.detach().cpu()
    return np.asarray(pictures)


def _check_layout(array, num_channels, name, ranks):
    shape = array.shape
    if array.ndim not in ranks:
        forms = {3: "(height, width, channels)", 4: "(pictures, height, width, channels)"}
        message = (
            f"{name} must have the shape {' or '.join(forms[rank] for rank in ranks)}. "
            f"Received shape {shape}."
        )
        if array.ndim == 2:
            message += (
                " A grey picture becomes one with channels by "
                f"`np.repeat(picture[..., None], {num_channels}, axis=-1)`."
            )
        raise ValueError(message)
    if 0 in shape[-3:-1]:
        raise ValueError(
            f"{name} must hold pictures of at least 1x1 pixels. Received shape {shape}: look at "
            "what cut or resized them."
        )
    if shape[-1] == num_channels:
        return
    message = (
        f"{name} must have {num_channels} channels, on the last axis. "
        f"Received shape {shape}, {shape[-1]} on the last axis."
    )
    if num_channels == 3 and shape[-1] == 4:
        message += " Drop the alpha channel: `pictures[..., :3]`."
    elif num_channels == 3 and shape[-1] == 1:
        message += " Repeat the grey channel: `np.repeat(pictures, 3, axis=-1)`."
    elif shape[-3] == num_channels:
        message += " Channels seem to come first: `np.moveaxis(pictures, -3, -1)`."
    elif array.ndim == 3:
        message += (
            " For several grey pictures: "
            f"`np.repeat(pictures[..., None], {num_channels}, axis=-1)`."
        )
    raise ValueError(message)


def _check_dtype(array, name):
    if array.dtype.kind not in "uif":
        raise ValueError(
            f"{name} must hold uint8 values, or integers or floats from 0 to 255. "
            f"Received dtype {array.dtype}: convert it, such as with `astype('float32')`."
        )


def _check_range(array, name):
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        num_bad = int(np.sum(~np.isfinite(array).all(axis=(-3, -2, -1))))
        raise ValueError(
            f"{name} must hold numbers from 0 to 255. Received NaN or infinity in {num_bad} "
            "picture(s): find them with `np.isfinite(pictures).all(axis=(-3, -2, -1))`."
        )
    if low < 0 or high > 255:
        raise ValueError(
            f"{name} must hold values from 0 to 255. Received values from {low:g} to {high:g}. "
            "Pass pictures as they are in the file: networks normalise inside, and what a network "
            "of your own needs goes into `preprocess`."
        )
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"{name} must hold values from 0 to 255. Received floats from {low:g} to {high:g}, "
            "which look already scaled to 0..1. Multiply by 255; or pass uint8, where such dark "
            "pictures are not doubted."
        )


def rebatch(arrays, batch_size):
    """Cut and join a stream of arrays into batches of `batch_size` rows, keeping the order.

    Only the last batch is shorter, and one before arrays of another picture size begin.

    Args:
        arrays: iterable of arrays `(num, height, width, channels)`.
        batch_size: int.

    Yields:
        Arrays with 1 to `batch_size` rows.
    """
    waiting, num_waiting = [], 0
    for array in arrays:
        if waiting and array.shape[1:] != waiting[0].shape[1:]:
            yield _join(waiting)
            waiting, num_waiting = [], 0
        while num_waiting + len(array) >= batch_size:
            head, array = np.split(array, [batch_size - num_waiting])
            yield _join([*waiting, head])
            waiting, num_waiting = [], 0
        if len(array):
            waiting.append(array)
            num_waiting += len(array)
    if waiting:
        yield _join(waiting)


def _join(arrays):
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
