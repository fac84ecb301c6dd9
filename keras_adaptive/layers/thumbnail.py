"""Thumbnails by resizing that learns nothing: what a learned downscaler is measured against."""

import keras
import numpy as np

# The resampling filters reach this many source pixels, times the ratio, to either side.
_REACH = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0}
METHODS = (*_REACH, "nearest")


@keras.saving.register_keras_serializable(package="keras_adaptive")
class Thumbnail(keras.layers.Layer):
    """Shrink pictures by a whole number, with antialiasing.

    The filters are widened by the ratio and normalised at the borders, as in Pillow. Results do not
    depend on the backend. Bicubic thumbnails may leave the range of the picture's values a little.

    Args:
        ratio: int. Pixels of the picture, to a side, that become one of the thumbnail.
        method: string. `"area"` is the mean of `ratio * ratio` pixels; `"bilinear"` and `"bicubic"`
            are smoothing filters; `"nearest"` takes one pixel of each square, which is aliased, and
            is there for comparison only.

    Input shape: `(batch, height, width, channels)`, sizes known and multiples of `ratio`. Channels
        come last whatever `keras.config.image_data_format()` is.
    Output shape: `(batch, height / ratio, width / ratio, channels)`.

    Raises:
        ValueError: If `ratio` is below 1, `method` is unknown, a size is unknown or no multiple, or
            channels come first.
    """

    def __init__(self, ratio, method="area", **kwargs):
        if not isinstance(ratio, int) or ratio < 1:
            raise ValueError(f"`ratio` is a whole number of 1 or more. Received: ratio={ratio!r}.")
        if method not in METHODS:
            raise ValueError(f"`method` is one of {list(METHODS)}. Received: method={method!r}.")
        super().__init__(**kwargs)
        self.ratio = ratio
        self.method = method

    def build(self, input_shape):
        refuse_channels_first("Thumbnail", input_shape)
        if None in tuple(input_shape)[1:3]:
            raise ValueError(
                "Thumbnail needs the input's rows and columns. Received an input of shape "
                f"{tuple(input_shape)}. Give `keras.Input` a full size, such as (32, 32, 3)."
            )
        check_divisible(input_shape[1:3], self.ratio)

    def call(self, x):
        _, rows, columns, channels = x.shape
        x = keras.ops.reshape(x, (-1, rows, columns * channels))
        x = keras.ops.matmul(self._matrix(rows), x)
        x = keras.ops.reshape(x, (-1, columns, channels))
        x = keras.ops.matmul(self._matrix(columns), x)
        return keras.ops.reshape(
            x, (-1, rows // self.ratio, columns // self.ratio, channels))

    def _matrix(self, size):
        return keras.ops.convert_to_tensor(
            shrinking_matrix(size, self.ratio, self.method), dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        batch, rows, columns, channels = input_shape
        return (batch, rows // self.ratio, columns // self.ratio, channels)

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio, "method": self.method}


def shrinking_matrix(size, ratio, method):
    """Return the float32 matrix `(size / ratio, size)` that shrinks a line of pixels."""
    if method == "nearest":
        return np.eye(size, dtype="float32")[ratio // 2::ratio]
    centers = (np.arange(size // ratio)[:, None] + 0.5) * ratio
    distance = np.abs(np.arange(size)[None] + 0.5 - centers) / ratio
    weights = _FILTERS[method](distance) * (distance < _REACH[method])
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _cubic(distance):
    """The cubic convolution filter with parameter -0.5, as in Pillow."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance < 1, near, far)


_FILTERS = {"area": np.ones_like, "bilinear": lambda distance: 1 - distance, "bicubic": _cubic}


def has_channels_first(shape):
    """Return whether a batch is of grey or RGB pictures with channels in front of their sizes."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)


def refuse_channels_first(taker, shape):
    """Raise `ValueError` for grey or RGB pictures whose channels stand in front of their sizes.

    Args:
        taker: string. Who takes the pictures.
        shape: `(batch, height, width, channels)`.
    """
    if has_channels_first(shape):
        raise ValueError(
            f"{taker} takes pictures (batch, height, width, channels), also where "
            "`keras.config.image_data_format()` is 'channels_first'. Received an input of shape "
            f"{tuple(shape)}. Put `keras.layers.Permute((2, 3, 1))` in front."
        )


def check_divisible(sizes, ratio):
    """Raise `ValueError` unless the known sizes are multiples of the ratio."""
    if any(size is not None and (size % ratio or size < ratio) for size in sizes):
        smaller = tuple(max(size // ratio, 1) * ratio for size in sizes)
        larger = tuple(-(-size // ratio) * ratio for size in sizes)
        raise ValueError(
            f"Pictures must have sides that are multiples of the ratio {ratio}. Received: "
            f"{tuple(sizes)}. Nearest good sizes: {smaller} and {larger}."
        )
