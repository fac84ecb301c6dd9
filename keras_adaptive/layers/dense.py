"""Densely connected layers: each adds channels to everything that came before."""

import keras

from keras_adaptive.layers.convolution import BottleneckConv


@keras.saving.register_keras_serializable(package="keras_adaptive")
class DenseLayer(keras.layers.Layer):
    """`concat(x, bottleneck(x))`: old channels first, then `growth_rate` new ones.

    Args:
        growth_rate: int. Channels that the layer adds.
        bottleneck_factor: int or `None`. Inner width in multiples of `growth_rate`; `None` for a
            plain 3x3 convolution.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, height, width, channels + growth_rate)`.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.2.
    """

    def __init__(self, growth_rate, bottleneck_factor, **kwargs):
        super().__init__(**kwargs)
        self.growth_rate = growth_rate
        self.bottleneck_factor = bottleneck_factor
        self.new = BottleneckConv(growth_rate, bottleneck_factor, dtype=self.dtype_policy,
                                  name="new")
        self.concat = keras.layers.Concatenate(dtype=self.dtype_policy, name="concat")

    def build(self, input_shape):
        self.new.build(input_shape)

    def call(self, x, training=None):
        return self.concat([x, self.new(x, training=training)])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.growth_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "bottleneck_factor": self.bottleneck_factor,
        }


@keras.saving.register_keras_serializable(package="keras_adaptive")
class DenseBlock(keras.layers.Layer):
    """A chain of dense layers at one resolution.

    The features between the layers are channel prefixes of the output, so the output alone is
    handed on to a sub-network that fuses with them.

    Args:
        num_layers: int. Number of dense layers, at least 1.
        growth_rate: int. Channels that each layer adds.
        bottleneck_factor: int or `None`. As in `DenseLayer`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, height, width, channels + num_layers * growth_rate)`.

    Raises:
        ValueError: If `num_layers` is below 1.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.2, "Dense Block".
    """

    def __init__(self, num_layers, growth_rate, bottleneck_factor, **kwargs):
        if num_layers < 1:
            raise ValueError(
                f"`num_layers` must be at least 1. Received: num_layers={num_layers}."
            )
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.growth_rate = growth_rate
        self.bottleneck_factor = bottleneck_factor
        self.layers = [
            DenseLayer(growth_rate, bottleneck_factor, dtype=self.dtype_policy, name=f"layer{i}")
            for i in range(1, num_layers + 1)
        ]

    def build(self, input_shape):
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, x, training=None):
        for layer in self.layers:
            x = layer(x, training=training)
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.num_layers * self.growth_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "growth_rate": self.growth_rate,
            "bottleneck_factor": self.bottleneck_factor,
        }
