"""Rows of NumPy arrays, for the engines that run on a CPU."""

import math

import numpy as np

# Numbers that the largest tensor read by a stage may have in one run. Beyond it, what one operation
# has written has left the processor's caches when the next one reads it: RANet C-1 is slower on 256
# pictures at a time than on 64.
_NUMBERS_PER_CHUNK = 64 * 32 * 32 * 32
_LEAST_ROWS = 8  # so that the threads have something to share


def rows_per_chunk(tensors):
    """Return how many rows of these arrays are best computed at once."""
    largest = max(math.prod(tensor.shape[1:]) for tensor in tensors)
    return max(_LEAST_ROWS, _NUMBERS_PER_CHUNK // max(largest, 1))


def gather_rows(parts):
    """Return rows of several arrays as one array, copying each number once.

    Args:
        parts: list of pairs `(array, rows)`: an int array, or `None` for all rows. A single array
            of which all rows are wanted is returned as it is.
    """
    if len(parts) == 1:
        array, rows = parts[0]
        return array if rows is None else array.take(rows, axis=0)
    counts = [len(array) if rows is None else len(rows) for array, rows in parts]
    first = parts[0][0]
    result = np.empty((sum(counts), *first.shape[1:]), first.dtype)
    start = 0
    for (array, rows), count in zip(parts, counts):
        place = result[start:start + count]
        if rows is None:
            place[:] = array
        else:
            np.take(array, rows, axis=0, out=place, mode="clip")  # without a buffer of its own
        start += count
    return result
