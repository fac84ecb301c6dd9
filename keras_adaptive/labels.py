"""Labels of pictures, in the forms that data sets have them, and names of their classes."""

import numpy as np


def read_labels(labels, name, num_pictures=None, num_classes=None):
    """Return labels as an array `(n,)`.

    Args:
        labels: whole numbers `(n,)`, or `(n, 1)`, as `keras.datasets` gives them.
        name: string. What they are, as the subject of an error message.
        num_pictures: int, or `None` where it is not known yet.
        num_classes: int, or `None` where it is not known.

    Raises:
        ValueError: If these are no such numbers, not one per picture, or one is no class.
    """
    labels = np.asarray(labels)
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    is_count_right = flat.ndim == 1 and num_pictures in (None, len(flat))
    if not is_count_right or labels.dtype.kind not in "iu":
        count = "" if num_pictures is None else f": {num_pictures}"
        is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
        cure = " One-hot labels become numbers by `argmax(axis=-1)`." if is_one_hot else ""
        raise ValueError(
            f"{name} takes one whole number per picture{count}. Received: shape {labels.shape}, "
            f"dtype {labels.dtype}.{cure}"
        )
    if num_classes is not None and flat.size and not 0 <= flat.min() <= flat.max() < num_classes:
        raise ValueError(
            f"{name} takes labels from 0 to {num_classes - 1}, as there are {num_classes} classes. "
            f"Received labels from {flat.min()} to {flat.max()}."
        )
    return flat


def check_class_names(class_names, num_classes, name):
    """Return names of classes as a list.

    Args:
        class_names: sequence of strings, in the order of the classes.
        num_classes: int.
        name: string. The network, for the message.

    Raises:
        ValueError: If it is no sequence of one name per class; a dict or a set has no such order.
    """
    wanted = (f"`class_names` takes one name per class: {num_classes} for {name!r}, "
              "a list in the order of the classes.")
    if isinstance(class_names, (str, bytes, dict, set, frozenset)) or not hasattr(
            class_names, "__iter__"):
        raise ValueError(f"{wanted} Received {type(class_names).__name__}: {class_names!r}.")
    names = list(class_names)
    if len(names) != num_classes:
        raise ValueError(f"{wanted} Received {len(names)}: {names!r}.")
    return names
