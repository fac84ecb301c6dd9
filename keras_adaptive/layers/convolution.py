"""Convolution blocks: the parts that every adaptive network here is made of."""

import keras

from keras_adaptive.layers.initializers import FanOutNormal

# Values of the reference programs (PyTorch's momentum of 0.1 is Keras's 0.9).
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ConvBlock(keras.layers.Layer):
    """Convolution, batch normalisation, ReLU.

    Padding is `kernel_size // 2` on every side, also for strided convolutions, where Keras's
    `padding="same"` reads other pixels than the reference programs do.

    Args:
        filters: int. Channels of the output, at least 1.
        kernel_size: int. Odd side of the square kernel.
        strides: int. Step of the convolution in both directions. Defaults to `1`.
        use_bias: bool. Whether the convolution has a bias, as the ImageNet stem has.
        kernel_initializer: Initial values of the kernel. Defaults to `FanOutNormal`.

    Input shape: `(batch, height, width, channels)`. Channels come last whatever
        `keras.config.image_data_format()` is.
    Output shape: `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: If `filters` is below 1 or `kernel_size` is even.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4.
    """

    def __init__(self, filters, kernel_size, strides=1, use_bias=False, kernel_initializer=None,
                 **kwargs):
        if filters < 1:
            raise ValueError(
                "`filters` must be at least 1. Received: "
                f"filters={filters}. Widen the network or raise its compression factors."
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that both sides get the same padding. "
                f"Received: kernel_size={kernel_size}."
            )
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer or FanOutNormal())
        if strides > 1 and kernel_size > 1:
            self.pad = keras.layers.ZeroPadding2D(
                kernel_size // 2, data_format="channels_last", dtype=self.dtype_policy, name="pad")
        else:
            self.pad = None
        self.conv = keras.layers.Conv2D(
            filters, kernel_size, strides=strides, padding="valid" if self.pad else "same",
            use_bias=use_bias, data_format="channels_last",
            kernel_initializer=self.kernel_initializer, dtype=self.dtype_policy, name="conv")
        self.norm = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, dtype=self.dtype_policy,
            name="norm")
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")

    def build(self, input_shape):
        if self.pad:
            input_shape = self.pad.compute_output_shape(input_shape)
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, x, training=None):
        if self.pad:
            x = self.pad(x)
        return self.relu(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, _divide_up(height, self.strides), _divide_up(width, self.strides),
                self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_adaptive")
class BottleneckConv(keras.layers.Layer):
    """1x1 convolution that narrows, then a 3x3 convolution; each with batch norm and ReLU.

    The 1x1 convolution has `min(input channels, bottleneck_factor * filters)` outputs.

    Args:
        filters: int. Channels of the output.
        bottleneck_factor: int or `None`. Inner width in multiples of `filters`; `None` leaves the
            1x1 convolution out.
        strides: int. Step of the 3x3 convolution. Defaults to `1`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.2.
    """

    def __init__(self, filters, bottleneck_factor, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.bottleneck_factor = bottleneck_factor
        self.strides = strides
        self.narrow = None
        self.conv = ConvBlock(filters, 3, strides=strides, dtype=self.dtype_policy, name="conv")

    def build(self, input_shape):
        # The inner width depends on the input, so the 1x1 convolution is made here.
        if self.bottleneck_factor is not None:
            inner = min(input_shape[-1], self.bottleneck_factor * self.filters)
            self.narrow = ConvBlock(inner, 1, dtype=self.dtype_policy, name="narrow")
            self.narrow.build(input_shape)
            input_shape = self.narrow.compute_output_shape(input_shape)
        self.conv.build(input_shape)

    def call(self, x, training=None):
        if self.narrow:
            x = self.narrow(x, training=training)
        return self.conv(x, training=training)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "bottleneck_factor": self.bottleneck_factor,
            "strides": self.strides,
        }


def _divide_up(size, step):
    return None if size is None else -(-size // step)
