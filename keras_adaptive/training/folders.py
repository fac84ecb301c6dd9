"""Labelled pictures in folders, one folder a class."""

import pathlib

import numpy as np

from keras_adaptive.picture_files import InputRule, find_files, read_pictures
from keras_adaptive.training.splits import Data, Split

# Of a class's pictures, one in so many is kept for validation where there is no folder for it.
VALIDATION_INTERVAL = 10


def load_folder(folder, image_size, input_rule=None):
    """Load `train/<class>/…`, `test/<class>/…` and, where it exists, `val/<class>/…`.

    Without `val`, every tenth picture of each class of `train`, in the order of the paths, is kept
    for validation. Pictures are scaled and cut out of the centre as the predictor does it.

    Args:
        folder: path.
        image_size: int or `None`. Side of the square pictures wanted; `None` where all files have
            the same size, and keep it.
        input_rule: dict or `None`. How a file becomes a picture of that size, see `MultiExitModel`;
            `None` for the predictor's default.

    Returns:
        `Data`. Class numbers follow the names of the folders in `train`, ordered by code points
        (`B` before `a`).

    Raises:
        ValueError: If a folder is missing or empty, classes differ between the parts, or files
            differ in size and no size is wanted. `UnreadablePicturesError` names all bad files.
    """
    folder = pathlib.Path(folder)
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{folder} has no folder {part!r}. A data set in folders has train/<class>/ and "
                "test/<class>/ with pictures, and perhaps val/<class>/."
            )
    class_names = find_class_names(folder / "train")
    rule = _rule(image_size, input_rule)
    # All parts are listed before a picture is decoded, which may take long.
    training = _list(folder / "train", class_names)
    if (folder / "val").is_dir():
        held_back = _list(folder / "val", class_names)
    else:
        training, held_back = _hold_back(training, folder / "train")
    parts = training, held_back, _list(folder / "test", class_names)
    train, validation, test = (_read(files, rule) for files in parts)
    return Data(train, validation, test, class_names)


def _hold_back(files_by_class, folder):
    """Return the files of each class without those for validation, and those."""
    kept = [[file for i, file in enumerate(files, start=1) if i % VALIDATION_INTERVAL]
            for files in files_by_class]
    held_back = [files[VALIDATION_INTERVAL - 1::VALIDATION_INTERVAL] for files in files_by_class]
    if not any(held_back):
        raise ValueError(
            f"No class of {folder} has {VALIDATION_INTERVAL} pictures, of which one is kept for "
            "validation. Add pictures, or a folder val/<class>/ with some."
        )
    return kept, held_back


def find_class_names(folder, least=2):
    """Return the names of a folder's folders, one per class, sorted.

    Raises:
        ValueError: If there are fewer than `least`.
    """
    names = tuple(sorted(path.name for path in folder.iterdir()
                         if path.is_dir() and not path.name.startswith(".")))
    if len(names) < least:
        raise ValueError(f"{folder} needs a folder per class, two or more. It has: {list(names)}.")
    return names


def _list(folder, class_names):
    """Return the files of each class."""
    found = find_class_names(folder)
    if found != class_names:
        raise ValueError(
            f"{folder} and train have different classes. Only in one of them: "
            f"{sorted(set(found) ^ set(class_names))}."
        )
    return [find_files(folder / name) for name in class_names]


def _rule(image_size, input_rule):
    if image_size is None:
        return InputRule(None, 3)
    return InputRule.from_dict({**(input_rule or {}), "size": [image_size, image_size]}, 3)


def _read(files_by_class, rule):
    files = [file for files in files_by_class for file in files]
    labels = [number for number, files in enumerate(files_by_class) for _ in files]
    pictures = list(read_pictures(files, rule))
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1:
        raise ValueError(
            f"Pictures have {len(shapes)} different sizes, such as {sorted(shapes)[:3]} (height, "
            "width, channels). Give an `image_size` to bring them to one."
        )
    return Split(np.stack(pictures), np.array(labels, "int64"))
