"""Bilinear resizing with aligned corners."""

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="keras_adaptive")
class AlignedResize(keras.layers.Layer):
    """Resize feature maps bilinearly so that the corner pixels keep their values.

    Output row `i` reads source row `i * (in - 1) / (out - 1)` with linear weights, and row 0 where
    the output has a single row; columns likewise. Nothing is smoothed when shrinking. The result
    equals PyTorch's `interpolate(mode="bilinear", align_corners=True)`; `keras.ops.image.resize`
    has no such mode.

    Args:
        height: int. Rows of the output.
        width: int. Columns of the output.

    Input shape: `(batch, rows, columns, channels)`, rows and columns known.
    Output shape: `(batch, height, width, channels)`.

    Raises:
        ValueError: If a wanted size is below 1, or the input's rows or columns are not known.
    """

    def __init__(self, height, width, **kwargs):
        if height < 1 or width < 1:
            raise ValueError(
                "`height` and `width` must be at least 1. "
                f"Received: height={height}, width={width}."
            )
        super().__init__(**kwargs)
        self.height = height
        self.width = width

    def build(self, input_shape):
        if input_shape[1] is None or input_shape[2] is None:
            raise ValueError(
                "AlignedResize needs the input's rows and columns. "
                f"Received an input of shape {tuple(input_shape)}. "
                "Give `keras.Input` a full size, such as (32, 32, 3)."
            )

    def call(self, x):
        _, rows, columns, channels = x.shape
        # Two products with constant matrices are faster than gathering, on every backend.
        if rows != self.height:
            x = keras.ops.reshape(x, (-1, rows, columns * channels))
            x = keras.ops.matmul(self._matrix(rows, self.height), x)
        if columns != self.width:
            x = keras.ops.reshape(x, (-1, columns, channels))
            x = keras.ops.matmul(self._matrix(columns, self.width), x)
        return keras.ops.reshape(x, (-1, self.height, self.width, channels))

    def _matrix(self, size_in, size_out):
        return keras.ops.convert_to_tensor(
            interpolation_matrix(size_in, size_out), dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.height, self.width, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "height": self.height, "width": self.width}


def interpolation_matrix(size_in, size_out):
    """Return the float32 matrix `(size_out, size_in)` of linear interpolation, corners aligned."""
    step = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    position = np.arange(size_out, dtype="float64") * step
    low = np.minimum(np.floor(position).astype(int), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    weight = position - low
    matrix = np.zeros((size_out, size_in))
    np.add.at(matrix, (np.arange(size_out), low), 1.0 - weight)
    np.add.at(matrix, (np.arange(size_out), high), weight)
    return matrix.astype("float32")
