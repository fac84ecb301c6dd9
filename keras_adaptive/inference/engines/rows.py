"""Rows of NumPy arrays, for the engines that run on a CPU."""

import math
import sys
import threading

import numpy as np

# Pixels of the pictures in one run of a stage. Beyond this, what one operation has written has left
# the processor's caches when the next one reads it, and arrays are so large that the system hands
# out new memory for each: RANet C-1 is slower on 256 pictures at a time than on 128.
_PIXELS_PER_RUN = 128 * 32 * 32
_LEAST_ROWS = 8  # so that the threads have something to share


def rows_for_caches(picture_size):
    """Return how many pictures of a size are best computed at once on a CPU.

    Args:
        picture_size: pair of ints, height and width in pixels.
    """
    height, width = picture_size
    return max(_LEAST_ROWS, _PIXELS_PER_RUN // (height * width))


class Buffers:
    """Memory that is used again: for large arrays, getting new one from the system takes as long as
    filling it.

    An array is handed out again when nobody holds it or a part of it any longer.
    """

    _LEAST_SIZE = 2**15  # numbers; smaller arrays come from the heap, which is fast
    _LARGEST_SIZE = 2**23  # larger ones, of a rare huge batch, would be held for ever
    _MOST_ARRAYS = 32  # a stage's results, its inputs, and what waits in queues

    def __init__(self):
        self._arrays = []
        self._lock = threading.Lock()

    def empty(self, shape):
        """Return a float32 array of any values that nobody else holds.

        Args:
            shape: sequence of ints.
        """
        size = math.prod(shape)
        if not self._LEAST_SIZE <= size <= self._LARGEST_SIZE:
            return np.empty(shape, np.float32)
        with self._lock:
            # How many references counting itself adds depends on the version of Python: what is
            # passed to a function may be lent. So an array that only a list holds, as a free one
            # is held by `_arrays`, is counted along with the others.
            unheld = [np.empty(0, np.float32)]
            least, *counts = [sys.getrefcount(array) for array in (*unheld, *self._arrays)]
            for array, count in zip(self._arrays, counts):
                if size <= len(array) <= 2 * size and count == least:
                    return array[:size].reshape(shape)
            array = np.empty(size, np.float32)
            self._arrays = [*self._arrays[1 - self._MOST_ARRAYS:], array]
            return array.reshape(shape)


def gather_rows(parts, buffers):
    """Return rows of several arrays as one array, copying each number once.

    Args:
        parts: list of pairs `(array, rows)`: an int array, or `None` for all rows. A single array
            of which all rows are wanted is returned as it is.
        buffers: `Buffers` that the result comes from.
    """
    if len(parts) == 1 and parts[0][1] is None:
        return parts[0][0]
    counts = [len(array) if rows is None else len(rows) for array, rows in parts]
    result = buffers.empty((sum(counts), *parts[0][0].shape[1:]))
    start = 0
    for (array, rows), count in zip(parts, counts):
        place = result[start:start + count]
        if rows is None:
            place[:] = array
        elif array.dtype == place.dtype:
            np.take(array, rows, axis=0, out=place, mode="clip")  # without a copy in between
        else:  # pictures in another dtype, which the engine makes float32 of
            place[:] = array[rows]
        start += count
    return result
