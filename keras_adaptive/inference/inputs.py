"""From pictures of 0 to 255 to the batches that one network takes."""

import contextlib

import numpy as np

from keras_adaptive.inference.images import open_pictures, rebatch
from keras_adaptive.inference.prefetch import Prefetch
from keras_adaptive.picture_files import InputRule

# Enough for the reader to go on while a deep stage runs; each costs memory.
_BATCHES_AHEAD = 2


class NetworkInput:
    """The input of a network: its shape, how files are brought to it, and what prepares a batch.

    Args:
        network: `Network`. Its input rule, where it has one, says how files are resized.
        preprocess: function from a NumPy batch of pictures to the batch that the network takes, or
            None.

    Raises:
        ValueError: If `preprocess` is no function, or the input rule is not valid.
    """

    def __init__(self, network, preprocess=None):
        if preprocess is not None and not callable(preprocess):
            raise ValueError(
                "`preprocess` is a function from a batch of pictures to the network's input, or "
                f"None. Received: {preprocess!r}."
            )
        self.preprocess = preprocess
        self.shape = tuple(network.input_shape)
        self._dtype = network.input_dtype
        self._network_name = network.name
        self.rule = self._read_rule(network.input_rule)

    @property
    def size(self):
        """Height and width in pixels, or None where the network takes any."""
        return None if None in self.shape[:2] else self.shape[:2]

    def _read_rule(self, record):
        if record:
            return InputRule.from_dict(record, self.shape[-1])
        return InputRule(self.size, self.shape[-1])

    def open(self, images):
        """Return the `Pictures` that a user handed in."""
        return open_pictures(images, self.rule)

    def batches(self, pictures, batch_size):
        """Give full batches for the network, checked, and a shorter one at the end.

        Files are read ahead in a thread, which ends with the context.

        Args:
            pictures: `Pictures`.
            batch_size: int.

        Returns:
            Context manager of an iterable of arrays. The iterable raises `ValueError` if the
            pictures, after `preprocess`, do not have the network's shape, or do not all have one
            size.
        """
        arrays = pictures.arrays
        if type(arrays) is list and len(arrays) == 1 and 0 < len(arrays[0]) <= batch_size:
            return contextlib.nullcontext((self._prepare(arrays[0]),))
        if pictures.files is None:
            return contextlib.nullcontext(self._cut(rebatch(arrays, batch_size), batch_size))
        return self._read_ahead(arrays, batch_size)

    @contextlib.contextmanager
    def _read_ahead(self, arrays, batch_size):
        with Prefetch(arrays, _BATCHES_AHEAD, lambda files: rebatch(files, batch_size)) as batches:
            yield self._cut(batches, batch_size)

    def _cut(self, batches, batch_size):
        return rebatch(self._prepare_all(batches), batch_size)

    def _prepare_all(self, batches):
        size = None
        for batch in batches:
            inputs = self._prepare(batch)
            if size not in (None, inputs.shape[1:3]):
                raise ValueError(
                    "All pictures of one call must have one size, also where the network takes "
                    f"any. Received {_times(size)} and {_times(inputs.shape[1:3])} pixels. Resize "
                    "them, or call once per size."
                )
            size = inputs.shape[1:3]
            yield inputs

    def _prepare(self, batch):
        inputs = batch
        if self.preprocess is not None:
            # A copy: those of `keras.applications` write into floats that they are given, and the
            # batch may be the caller's own array.
            inputs = np.asarray(self.preprocess(np.array(batch)))
        self._check_shape(inputs, len(batch))
        # What `preprocess` returned may be its own buffer, while pictures still wait for a stage.
        return inputs.astype(self._dtype, copy=self.preprocess is not None)

    def blank(self, num_pictures):
        """Return black pictures as a batch for the network, whose size is fixed."""
        return np.zeros((num_pictures, *self.shape), self._dtype)

    def _check_shape(self, inputs, num_pictures):
        expected = (num_pictures, *self.shape)
        if inputs.shape == expected:
            return
        if inputs.ndim == 4 and all(
            wanted in (None, received) for wanted, received in zip(expected, inputs.shape)
        ):
            return
        if self.preprocess is not None:
            raise ValueError(
                f"`preprocess` must return the shape {expected}, which {self._network_name!r} "
                f"takes. It returned {inputs.shape}."
            )
        raise ValueError(
            f"{self._network_name!r} takes pictures of {_times(self.shape[:2])} pixels. Received "
            f"{_times(inputs.shape[1:3])}, and arrays are never resized. Resize them; or pass "
            "files or `PIL.Image.fromarray(picture)`, which are scaled and cropped to fit; or "
            "resize in `preprocess`."
        )


def _times(size):
    return "x".join(str(side) for side in size)
