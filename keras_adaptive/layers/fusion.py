"""Fusion layers: dense layers that also take features of the coarser sub-network."""

import keras

from keras_adaptive.layers.convolution import BottleneckConv, ConvBlock
from keras_adaptive.layers.resize import AlignedResize


@keras.saving.register_keras_serializable(package="keras_adaptive")
class FusionLayer(keras.layers.Layer):
    """Dense layer whose new channels come partly from the previous sub-network.

    Of the `growth_rate` new channels, `floor(growth_rate * compress_factor)` are convolved from the
    coarser feature map at its own size and then enlarged; the rest are convolved from the
    layer's own input. The output is `concat(input, from the coarser map, from the input)`.

    Args:
        growth_rate: int. Channels that the layer adds.
        bottleneck_factor: int. Inner width of the layer's own branch, in multiples of its outputs.
        low_bottleneck_factor: int. The same for the branch on the coarser map: the previous
            sub-network's factor.
        compress_factor: float. Share of the new channels that come from the coarser map.
        downsample: bool. Whether the layer halves its input's size. Defaults to `False`.

    Input shape: list of two: `(batch, height, width, channels)` and the coarser map
        `(batch, low height, low width, low channels)`.
    Output shape: `(batch, height, width, channels + growth_rate)`, height and width halved and
        rounded up where the layer downsamples.

    Raises:
        ValueError: If `compress_factor` leaves one of the branches without a channel, or an input
            has unknown rows or columns.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.2, "Fusion Block".
    """

    def __init__(self, growth_rate, bottleneck_factor, low_bottleneck_factor, compress_factor,
                 downsample=False, **kwargs):
        from_low = int(growth_rate * compress_factor)
        if not 0 < from_low < growth_rate:
            raise ValueError(
                "A fusion layer needs at least one new channel from each of its two inputs. "
                f"Received: growth_rate={growth_rate}, compress_factor={compress_factor}, which "
                f"gives {from_low} of {growth_rate} to the coarser map. Use a larger growth rate, "
                "or a `compress_factor` farther from 0 and 1."
            )
        super().__init__(**kwargs)
        self.growth_rate = growth_rate
        self.bottleneck_factor = bottleneck_factor
        self.low_bottleneck_factor = low_bottleneck_factor
        self.compress_factor = compress_factor
        self.downsample = downsample
        self.own = BottleneckConv(growth_rate - from_low, bottleneck_factor,
                                  strides=2 if downsample else 1, dtype=self.dtype_policy,
                                  name="own")
        self.low = BottleneckConv(from_low, low_bottleneck_factor, dtype=self.dtype_policy,
                                  name="low")
        self.shrink = None
        self.enlarge = None
        self.concat = keras.layers.Concatenate(dtype=self.dtype_policy, name="concat")

    def build(self, input_shape):
        own_shape, low_shape = input_shape
        self.own.build(own_shape)
        self.low.build(low_shape)
        size = self.own.compute_output_shape(own_shape)[1:3]
        self.shrink = _resize_unless_equal(own_shape, size, self.dtype_policy, "shrink")
        self.enlarge = _resize_unless_equal(low_shape, size, self.dtype_policy, "enlarge")

    def call(self, inputs, training=None):
        x, low = inputs
        own = self.own(x, training=training)
        low = self.low(low, training=training)
        if self.shrink:
            x = self.shrink(x)
        if self.enlarge:
            low = self.enlarge(low)
        return self.concat([x, low, own])

    def compute_output_shape(self, input_shape):
        own_shape, _ = input_shape
        return (*self.own.compute_output_shape(own_shape)[:-1], own_shape[-1] + self.growth_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "bottleneck_factor": self.bottleneck_factor,
            "low_bottleneck_factor": self.low_bottleneck_factor,
            "compress_factor": self.compress_factor,
            "downsample": self.downsample,
        }


@keras.saving.register_keras_serializable(package="keras_adaptive")
class FusionBlock(keras.layers.Layer):
    """A chain of fusion layers, each fed by the same-numbered features of the coarser sub-network.

    A block's features x_0 … x_L are handed on as one tensor, of which the earlier ones are channel
    prefixes. A block that downsamples does so in its last layer, so it hands on two: x_(L-1) at the
    large size and x_L at the small one.

    Args:
        num_layers: int. Number of fusion layers L, at least 2.
        growth_rate: int. Channels that each layer adds.
        bottleneck_factor: int. As in `FusionLayer`.
        low_growth_rate: int. Growth rate of the previous sub-network: tells which prefix of its
            features belongs to which layer.
        low_bottleneck_factor: int. As in `FusionLayer`.
        compress_factor: float. As in `FusionLayer`; also the width, in shares of x_L, of the
            channels that the coarser block's last features add to the block's output.
        downsample: bool. Whether the last layer halves the size. Defaults to `False`.

    Input shape: list of the block's input `(batch, height, width, channels)`, followed by the
        features that the same-numbered block of the previous sub-network handed on.
    Output: list of the block's output, with
        `x_L channels + floor(x_L channels * compress_factor)` channels, followed by the features
        handed on: `[x_L]`, or `[x_(L-1), x_L]` where the block downsamples.

    Raises:
        ValueError: If `num_layers` is below 2: the block needs one layer at its input's size before
            the one that may downsample. Also if an input has unknown rows or columns.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.2, "Fusion Block".
    """

    def __init__(self, num_layers, growth_rate, bottleneck_factor, low_growth_rate,
                 low_bottleneck_factor, compress_factor, downsample=False, **kwargs):
        if num_layers < 2:
            raise ValueError(
                "A fusion block needs at least 2 layers. "
                f"Received: num_layers={num_layers}. Use `layers_per_block` of 2 or more."
            )
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.growth_rate = growth_rate
        self.bottleneck_factor = bottleneck_factor
        self.low_growth_rate = low_growth_rate
        self.low_bottleneck_factor = low_bottleneck_factor
        self.compress_factor = compress_factor
        self.downsample = downsample
        self.layers = [
            FusionLayer(growth_rate, bottleneck_factor, low_bottleneck_factor, compress_factor,
                        downsample=downsample and i == num_layers, dtype=self.dtype_policy,
                        name=f"layer{i}")
            for i in range(1, num_layers + 1)
        ]
        self.last_low = None
        self.enlarge = None
        self.concat = keras.layers.Concatenate(dtype=self.dtype_policy, name="concat")

    def build(self, input_shape):
        shape, *low_shapes = input_shape
        low_features = _low_features(low_shapes, self.num_layers, self.low_growth_rate,
                                     _narrowed_shape)
        for layer, low_shape in zip(self.layers, low_features):
            layer.build([shape, low_shape])
            shape = layer.compute_output_shape([shape, low_shape])
        self.last_low = ConvBlock(int(shape[-1] * self.compress_factor), 1,
                                  dtype=self.dtype_policy, name="last_low")
        self.last_low.build(low_features[-1])
        self.enlarge = _resize_unless_equal(low_features[-1], shape[1:3], self.dtype_policy,
                                            "enlarge")

    def call(self, inputs, training=None):
        x, *low = inputs
        low_features = _low_features(low, self.num_layers, self.low_growth_rate,
                                     _narrowed_tensor)
        features = []
        for layer, low_feature in zip(self.layers, low_features):
            features.append(x)
            x = layer([x, low_feature], training=training)
        last_low = self.last_low(low_features[-1], training=training)
        if self.enlarge:
            last_low = self.enlarge(last_low)
        output = self.concat([x, last_low])
        return [output, features[-1], x] if self.downsample else [output, x]

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape[0]
        before = (batch, height, width, channels + (self.num_layers - 1) * self.growth_rate)
        after = self.layers[-1].compute_output_shape([before, None])
        output = (*after[:-1], after[-1] + int(after[-1] * self.compress_factor))
        return [output, before, after] if self.downsample else [output, after]

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "growth_rate": self.growth_rate,
            "bottleneck_factor": self.bottleneck_factor,
            "low_growth_rate": self.low_growth_rate,
            "low_bottleneck_factor": self.low_bottleneck_factor,
            "compress_factor": self.compress_factor,
            "downsample": self.downsample,
        }


def _low_features(low, num_layers, low_growth_rate, narrow):
    """Return the features low_0 … low_L of the coarser block from the one or two it handed on."""
    source, last = low[0], low[-1]
    if len(low) == 2:  # the coarser block downsamples: its x_(L-1) is the widest large feature
        counts = range(num_layers - 1, 0, -1)
        return [*(narrow(source, count * low_growth_rate) for count in counts), source, last]
    counts = range(num_layers, 0, -1)
    return [*(narrow(source, count * low_growth_rate) for count in counts), last]


def _narrowed_tensor(x, num_dropped):
    return x[..., : x.shape[-1] - num_dropped]


def _narrowed_shape(shape, num_dropped):
    return (*shape[:-1], shape[-1] - num_dropped)


def _resize_unless_equal(shape, size, dtype, name):
    if None in (*shape[1:3], *size):
        # Two unknown sizes may differ: the coarser map is often of another size, which would show
        # only when pictures come.
        raise ValueError(
            "Fusion brings maps to one size, and needs the rows and columns of both. Received maps "
            f"of {_rows_and_columns(shape[1:3])} and {_rows_and_columns(size)}. Give the network a "
            "full `input_shape`, such as (32, 32, 3), or `keras.Input` a full size."
        )
    # A resize to the same size is the identity, and costs time in every backend.
    if tuple(shape[1:3]) == tuple(size):
        return None
    resize = AlignedResize(*size, dtype=dtype, name=name)
    resize.build(shape)
    return resize


def _rows_and_columns(size):
    return " x ".join("unknown" if side is None else str(side) for side in size)
