"""Rounding of thumbnails as a picture file rounds them, which training sees through."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_adaptive")
class EightBits(keras.layers.Layer):
    """Clip values to 0..255 and round them, half to even, as a picture file of 8 bits does.

    In training and in inference alike. The gradient is that of the clipping alone: the values'
    own from 0 to 255, both included, and zero outside. A network that learnt behind this layer sees
    the same numbers in memory and from a lossless file.

    Input and output shape: any, the same.

    Reference:
        The "straight-through estimator" of [Bengio et al., 2013](https://arxiv.org/abs/1308.3432).
    """

    def call(self, x, training=None):
        whole = ops.round(ops.clip(x, 0, 255))
        if not training:
            return whole
        # At the limits themselves the gradients of `clip` differ between backends.
        inside = ops.cast(ops.logical_and(x >= 0, x <= 255), x.dtype)
        # The difference is exactly zero, so that the value is exactly `whole`.
        return ops.stop_gradient(whole) + ops.stop_gradient(inside) * (x - ops.stop_gradient(x))

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(x.shape, dtype=x.dtype)
