"""Arguments of evaluations: costs, budgets, shares and thresholds, each checked."""

import numbers

import numpy as np


def check_exit_macs(exit_macs, num_exits):
    """Return the costs of the exits as a float64 array.

    Raises:
        ValueError: If they are not one finite positive number per exit, not decreasing.
    """
    macs = _to_numbers(exit_macs, "float64")
    if macs is None or macs.shape != (num_exits,):
        raise ValueError(
            f"`exit_macs` takes one number per exit: {num_exits}. Received: {exit_macs!r}."
        )
    if not np.all((macs > 0) & (macs < np.inf)) or np.any(np.diff(macs) < 0):
        raise ValueError(
            "`exit_macs` are multiply-adds up to each exit: above 0, and no later exit is cheaper. "
            f"Received: {macs.tolist()}."
        )
    return macs


def check_positive(name, value, unit):
    """Raise a `ValueError` if an argument is no number above 0."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"`{name}` is a number of {unit} above 0. Received: {value!r}.")


def check_share(name, value):
    """Raise a `ValueError` if an argument is no share from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` is a share from 0 to 1. Received: {value!r}.{_hint(value)}")


def check_inner_share(name, value):
    """Raise a `ValueError` if an argument is no share above 0 and below 1."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"`{name}` is a share between 0 and 1, and neither of them. "
                         f"Received: {value!r}.{_hint(value)}")


def check_thresholds(thresholds, num_exits):
    """Return thresholds, one number or one per exit, as a float32 array.

    Raises:
        ValueError: If they are neither, or one is negative or NaN.
    """
    values = _to_numbers(thresholds, "float32")
    if values is None or values.shape not in ((), (num_exits,)):
        received = repr(thresholds) if values is None else f"an array of shape {values.shape}"
        raise ValueError(
            f"`thresholds` is one number, or one per exit: {num_exits}. Received {received}."
        )
    _check_confidences(values)
    return values


def check_shared_thresholds(thresholds):
    """Raise a `ValueError` if thresholds are no sequence of numbers, each for all exits.

    Args:
        thresholds: sequence of floats of 0 or more.
    """
    values = _to_numbers(thresholds, "float32")
    if values is None or values.ndim != 1:
        raise ValueError(
            "`thresholds` is a sequence of numbers, each of which is used at all exits, such as "
            f"[0.5, 0.8]. Received: {thresholds!r}."
        )
    _check_confidences(values)


def _check_confidences(values):
    if not np.all(values >= 0):
        raise ValueError(
            f"`thresholds` are confidences of 0 or more, and not NaN. Received: {values.tolist()}."
        )


def _to_numbers(values, dtype):
    """Return an array of numbers, or `None` where they are none."""
    try:
        return np.asarray(values, dtype)
    except (TypeError, ValueError):
        return None


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _hint(value):
    """Return a question for those who wrote percent."""
    return f" Did you mean {value / 100:g}?" if _is_number(value) and 1 < value < 100 else ""
