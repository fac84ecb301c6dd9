"""The cell of multi-scale dense networks."""

import keras

from keras_adaptive.layers.convolution import BottleneckConv


@keras.saving.register_keras_serializable(package="keras_adaptive")
class MultiScaleCell(keras.layers.Layer):
    """One scale of one MSDNet layer: adds channels from its own scale and from the finer one.

    The output is `concat(x, strided convolution of the finer map, convolution of x)`, each of the
    two convolutions with half of the growth rate. Every scale is a layer of its own, so that
    lazy evaluation can leave out the scales that an exit does not need.

    Args:
        growth_rate: int. Channels that the cell adds, even.
        finer_bottleneck_factor: int or `None`. Inner width of the branch on the finer map.
        bottleneck_factor: int or `None`. Inner width of the branch on the cell's own scale.

    Input shape: list of two: the finer map `(batch, height, width, finer channels)` and the cell's
        own `(batch, ceil(height / 2), ceil(width / 2), channels)`.
    Output shape: `(batch, ceil(height / 2), ceil(width / 2), channels + growth_rate)`.

    Raises:
        ValueError: If `growth_rate` is odd.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4, "Subsequent layers".
    """

    def __init__(self, growth_rate, finer_bottleneck_factor, bottleneck_factor, **kwargs):
        if growth_rate % 2:
            raise ValueError(
                "The growth rate of a scale that also reads the finer one must be even, because "
                f"each of the two gives half of it. Received: growth_rate={growth_rate}."
            )
        super().__init__(**kwargs)
        self.growth_rate = growth_rate
        self.finer_bottleneck_factor = finer_bottleneck_factor
        self.bottleneck_factor = bottleneck_factor
        self.down = BottleneckConv(growth_rate // 2, finer_bottleneck_factor, strides=2,
                                   dtype=self.dtype_policy, name="down")
        self.own = BottleneckConv(growth_rate // 2, bottleneck_factor, dtype=self.dtype_policy,
                                  name="own")
        self.concat = keras.layers.Concatenate(dtype=self.dtype_policy, name="concat")

    def build(self, input_shape):
        finer_shape, own_shape = input_shape
        self.down.build(finer_shape)
        self.own.build(own_shape)

    def call(self, inputs, training=None):
        finer, x = inputs
        return self.concat([x, self.down(finer, training=training),
                            self.own(x, training=training)])

    def compute_output_shape(self, input_shape):
        _, own_shape = input_shape
        return (*own_shape[:-1], own_shape[-1] + self.growth_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "finer_bottleneck_factor": self.finer_bottleneck_factor,
            "bottleneck_factor": self.bottleneck_factor,
        }
