"""Labelled pictures in memory, in the parts that training, choosing and reporting use."""

import dataclasses

import keras
import numpy as np

from keras_adaptive.labels import read_labels


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures `(n, height, width, 3)` uint8 and their labels `(n,)`."""

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self):
        if self.x.ndim != 4 or self.x.dtype != np.uint8:
            cure = (" Values from 0 to 1 become such by `np.rint(255 * x).astype('uint8')`."
                    if self.x.dtype.kind == "f" else "")
            raise ValueError(
                "Pictures of a split have the shape (n, height, width, channels) and dtype uint8. "
                f"Received: shape {self.x.shape}, dtype {self.x.dtype}.{cure}"
            )
        object.__setattr__(self, "y", read_labels(self.y, "`y` of a split"))
        if len(self.x) != len(self.y):
            raise ValueError(
                f"A split needs one label per picture. Received {len(self.x)} pictures and "
                f"{len(self.y)} labels."
            )

    def __len__(self):
        return len(self.y)

    @property
    def pictures(self):
        """The pictures, as `ExitOutputs.from_model` takes them."""
        return self.x

    @property
    def label_range(self):
        """Pair of ints, the smallest and the largest label."""
        return int(self.y.min()), int(self.y.max())

    def take(self, rows):
        """Return some of the pictures and their labels, an array of whose numbers is given."""
        return Split(self.x[rows], self.y[rows])

    def head(self, count):
        """Return the first `count` pictures and labels."""
        return Split(self.x[:count], self.y[:count])

    def resized(self, size):
        """Return the split at another size, antialiased; itself where the size is the same.

        Args:
            size: int. Side of the square pictures wanted.

        Raises:
            ValueError: If the pictures are not square, which would be squashed.
        """
        height, width = self.x.shape[1:3]
        if height == width == size:
            return self
        if height != width:
            raise ValueError(
                f"Pictures of {height} x {width} pixels would be squashed to {size} x {size}. Cut "
                "the centre square out first: `side = min(height, width)`, "
                "`top, left = (height - side) // 2, (width - side) // 2`, "
                "`x[:, top:top + side, left:left + side]`."
            )
        resized = np.empty((len(self), size, size, self.x.shape[3]), "uint8")
        for i in range(0, len(self), 1000):
            part = keras.ops.convert_to_numpy(keras.ops.image.resize(
                self.x[i:i + 1000].astype("float32"), (size, size), antialias=True,
                data_format="channels_last"))
            resized[i:i + 1000] = np.clip(np.rint(part), 0, 255)
        return Split(resized, self.y)


@dataclasses.dataclass(frozen=True)
class Data:
    """The three parts of a data set. `validation` chooses checkpoints; `test` is read once."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple
