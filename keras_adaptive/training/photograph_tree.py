"""ImageNet's folder tree: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`."""

import collections
import pathlib

import numpy as np

from keras_adaptive.picture_files import find_files
from keras_adaptive.training.folders import find_class_names
from keras_adaptive.training.photographs import PhotographData, Photographs

# Huang et al., 2018, section 5: of ImageNet's training pictures 50,000 choose the thresholds.
VALIDATION_SHARE = 50_000 / 1_281_167
IMAGE_SIZE = 224
NAMES = "LOC_synset_mapping.txt"  # comes with ImageNet: `n01440764 tench, Tinca tinca`

_SEED = 0  # of the part that is held back, the same in every run


def is_photograph_tree(folder):
    """Return whether a path is a folder with `train` and `val` and without labelled `test`.

    A folder `test` whose pictures lie side by side, as ImageNet's from Kaggle, has no labels.
    """
    folder = pathlib.Path(folder)
    if not all((folder / part).is_dir() for part in ("train", "val")):
        return False
    return not (folder / "test").is_dir() or not find_class_names(folder / "test", least=0)


def load_photographs(folder, image_size=None, input_rule=None):
    """List ImageNet's folder tree, or another of this form; no picture is read.

    Of `train` a part, 50,000 of ImageNet's pictures and the same share of others, is held back for
    validation, always the same; `val`, ImageNet's official validation part, is the test part.

    Args:
        folder: path of a folder with `train/<class>/` and `val/<class>/`. Names of the classes are
            taken from `LOC_synset_mapping.txt` in it, where that is there.
        image_size: int or `None`. Side of the pictures; `None` for 224.
        input_rule: dict or `None`. How evaluation reads them, as `Photographs` takes it.

    Returns:
        `PhotographData`. Class numbers follow the names of the folders, ordered by code points.

    Raises:
        ValueError: If a folder is empty, `val` has other classes than `train`, or the list of names
            is not UTF-8.
    """
    folder, size = pathlib.Path(folder), image_size or IMAGE_SIZE
    classes = find_class_names(folder / "train")
    in_val = find_class_names(folder / "val", least=0)
    if in_val != classes:
        raise ValueError(
            f"{folder} has {len(classes)} classes in train and {len(in_val)} in val. Only in one "
            f"of them: {sorted(set(classes) ^ set(in_val))[:5]}. Pictures of val, too, lie in a "
            "folder per class; the script valprep.sh that is often used with ImageNet moves them "
            "there."
        )
    train, test = (_list(folder / part, classes, size, input_rule) for part in ("train", "val"))
    # Each part notes what it could not read for itself, hence not `take`.
    return PhotographData(*(Photographs(train.x[rows], train.y[rows], size, input_rule)
                            for rows in hold_back(len(train))), test, _names(folder, classes))


def hold_back(count):
    """Divide `count` training pictures.

    Returns:
        Two int arrays: the numbers of those that train, and of the share held back for validation,
        always the same. Both are sorted, so that neighbours, which replace each other, are mostly
        of one class.
    """
    order = np.random.default_rng(_SEED).permutation(count)
    held_back = max(1, round(VALIDATION_SHARE * count))
    return np.sort(order[held_back:]), np.sort(order[:held_back])


def _list(folder, classes, size, input_rule):
    files = [find_files(folder / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in files])
    # As objects: an array of text would give each path the room of the longest.
    return Photographs(np.array([path for names in files for path in names], dtype=object), labels,
                       size, input_rule)


def _names(folder, classes):
    if not (folder / NAMES).is_file():
        return tuple(classes)
    try:
        lines = (folder / NAMES).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{folder / NAMES} is no UTF-8 text: {error}. Save it as UTF-8, or take it away: the "
            "classes are then called as their folders."
        ) from error
    known = {wnid: names.split(",")[0].strip()
             for wnid, _, names in (line.partition(" ") for line in lines)}
    names = [known.get(wnid) or wnid for wnid in classes]
    counts = collections.Counter(names)  # ImageNet has two kinds of crane
    return tuple(name if counts[name] == 1 else f"{name} ({wnid})"
                 for name, wnid in zip(names, classes))
