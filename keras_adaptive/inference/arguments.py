"""Arguments of the predictor: each checked, and brought to one form."""

import numbers

import numpy as np

from keras_adaptive.labels import check_class_names


def check_batch_size(batch_size):
    """Return a batch size as an int.

    Raises:
        ValueError: If it is no integer of at least 1.
    """
    if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be an integer, at least 1. Received: {batch_size!r}."
        )
    return int(batch_size)


def check_deadline(deadline_ms):
    """Return a deadline, or None.

    Raises:
        ValueError: If it is no number of at least 0.
    """
    if deadline_ms is None:
        return None
    is_number = isinstance(deadline_ms, numbers.Real) and not isinstance(deadline_ms, bool)
    if not is_number or not deadline_ms >= 0:
        raise ValueError(
            "`deadline_ms` is a time in milliseconds, at least 0, or None for no deadline. "
            f"Received: {deadline_ms!r}."
        )
    return deadline_ms


def choose_exits(exits, max_exit, num_exits):
    """Return the numbers of the exits in use, increasing.

    Args:
        exits: sequence of ints, counted from 1, or None for all.
        max_exit: int or None. No exit beyond this one.
        num_exits: int. Exits of the network.

    Raises:
        ValueError: If a number is no exit, or none is left in use.
    """
    everyone = range(1, num_exits + 1)
    try:
        chosen = list(everyone if exits is None else exits)
    except TypeError:
        chosen = []
    if not chosen or not all(_is_int(number) and number in everyone for number in chosen):
        cure = ""
        if _is_int(exits):
            cure = f" Write `exits=[{exits}]`; or `max_exit={exits}` for all up to this one."
        raise ValueError(
            f"`exits` names exits in use, from 1 to {num_exits}, at least one. "
            f"Received: {exits!r}.{cure}"
        )
    chosen = sorted(set(chosen))
    if max_exit is None:
        return tuple(int(number) for number in chosen)
    if not _is_int(max_exit) or max_exit not in everyone:
        raise ValueError(
            f"`max_exit` is the number of an exit, from 1 to {num_exits}. Received: {max_exit!r}."
        )
    if chosen[0] > max_exit:
        raise ValueError(
            f"`max_exit`={max_exit} leaves none of the `exits` {chosen} in use. "
            f"Raise it to {chosen[0]}, or name an earlier exit."
        )
    return tuple(int(number) for number in chosen if number <= max_exit)


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_threshold(threshold, num_exits, network_name):
    """Return a float, or a tuple of one float per exit of the network.

    Raises:
        ValueError: If it is neither, or a value is negative or NaN.
    """
    try:
        values = np.asarray(threshold, np.float64)
    except (TypeError, ValueError):
        values = None
    if values is None or values.ndim > 1:
        raise ValueError(
            f"`threshold` takes one number, or one per exit: {num_exits} for {network_name!r}. "
            f"Received: {threshold!r}."
        )
    if values.ndim == 1 and len(values) != num_exits:
        raise ValueError(
            f"`threshold` takes one number, or one per exit: {num_exits} for {network_name!r}. "
            f"Received {len(values)}: {values.tolist()}. Exits that are not in use, and the last "
            "one, which takes the rest, have a value too, and it counts for nothing."
        )
    if not np.all(values >= 0):
        raise ValueError(
            "`threshold` must be a confidence of 0 or more, and not NaN: at 0 everybody leaves at "
            f"the first exit, above 1 nobody leaves early. Received: {threshold!r}."
        )
    return values.item() if values.ndim == 0 else tuple(values.tolist())


def choose_class_names(class_names, network):
    """Return a tuple of names, those of the network where none are given, or None.

    Raises:
        ValueError: If there is not one name per class.
    """
    if class_names is None:
        class_names = network.class_names
    if class_names is None:
        return None
    return tuple(map(str, check_class_names(class_names, network.num_classes, network.name)))
