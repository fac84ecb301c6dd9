"""Static networks for CIFAR, against which adaptive ones are measured: ResNet and DenseNet-BC.

[He et al., 2016](https://arxiv.org/abs/1512.03385), section 4.2, and
[Huang et al., 2017](https://arxiv.org/abs/1608.06993). Both have one exit, at the end. Initial
values follow the rules of MSDNet, so that networks that are compared differ in their wiring alone.
"""

import keras

from keras_adaptive.layers import ConvBlock, FanInUniform, FanOutNormal
from keras_adaptive.layers.convolution import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from keras_adaptive.layers.exits import check_num_classes
from keras_adaptive.models.inputs import normalize, picture_input
from keras_adaptive.models.multi_exit import ConfiguredModel, plain

# Both papers: three groups of layers, each at half the resolution of the one before.
_NUM_STAGES = 3


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ResidualBlock(keras.layers.Layer):
    """Two 3x3 convolutions, added to their input: the basic block of ResNet.

    The shortcut has no weights (option A of the paper): it takes every `strides`-th pixel, and
    channels of zeros are appended where the block has more than its input.

    Args:
        filters: int. Channels of the output, no fewer than the input's.
        strides: int. Step of the first convolution and of the shortcut. Defaults to `1`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: If the input has more than `filters` channels.

    Reference:
        [He et al., 2016](https://arxiv.org/abs/1512.03385), sections 3.3 and 4.2.
    """

    def __init__(self, filters, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.conv1 = ConvBlock(filters, 3, strides=strides, dtype=self.dtype_policy, name="conv1")
        self.conv2 = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer=FanOutNormal(),
            dtype=self.dtype_policy, name="conv2")
        self.norm = _batch_norm(self.dtype_policy)
        if strides > 1:
            # A window of one pixel: the average is the pixel itself.
            self.subsample = keras.layers.AveragePooling2D(1, strides=strides,
                                                           dtype=self.dtype_policy,
                                                           name="subsample")
        else:
            self.subsample = None
        self.add = keras.layers.Add(dtype=self.dtype_policy, name="add")
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")

    def build(self, input_shape):
        if input_shape[-1] > self.filters:
            raise ValueError(
                "`filters` must be at least the channels of the input, because the shortcut only "
                f"adds channels. Received: filters={self.filters} for {input_shape[-1]} channels."
            )
        self.conv1.build(input_shape)
        shape = self.conv1.compute_output_shape(input_shape)
        self.conv2.build(shape)
        self.norm.build(shape)

    def call(self, x, training=None):
        new = self.conv2(self.conv1(x, training=training))
        return self.relu(self.add([self._shortcut(x), self.norm(new, training=training)]))

    def _shortcut(self, x):
        if self.subsample:
            x = self.subsample(x)
        num_missing = self.filters - x.shape[-1]
        if num_missing:
            x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, num_missing)))
        return x

    def compute_output_shape(self, input_shape):
        return self.conv1.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ResNet(ConfiguredModel):
    """Residual network for CIFAR: a 3x3 stem, three stages of basic blocks, average pooling.

    A stage has `(depth - 2) / 6` blocks and twice the width of the one before, at half its
    resolution. The only output is `exit1`.

    Args:
        depth: int. Layers with weights, `6 n + 2` with `n` of 1 or more; the paper has 20, 32, 44,
            56 and 110.
        channels: int. Width of the stem and the first stage.
        num_classes: int, at least 2.
        input_shape: `(height, width, channels)`, of any size.
        normalization: first node of the graph, as in `RANet`.
        class_names, input_rule, exit_macs: records, see `MultiExitModel`.
        name: string.

    Input: pictures `(batch, *input_shape)`, 0 to 255, or normalised where `normalization=None`.
    Output: `(batch, num_classes)` logits.

    Raises:
        ValueError: If `depth` is not of the form above, or `num_classes` is below 2.

    Reference:
        [He et al., 2016](https://arxiv.org/abs/1512.03385), section 4.2, with shortcuts of
        option A.
    """

    def __init__(self, depth=20, channels=16, num_classes=10, input_shape=(32, 32, 3),
                 normalization=None, class_names=None, input_rule=None, exit_macs=None,
                 name="resnet"):
        num_blocks = _units_per_stage("ResNet", depth, other_layers=2)
        check_num_classes(num_classes)

        pictures = picture_input(input_shape)
        x = ConvBlock(channels, 3, name="stem")(normalize(pictures, normalization))
        for stage in range(1, _NUM_STAGES + 1):
            for block in range(1, num_blocks + 1):
                x = ResidualBlock(channels * 2 ** (stage - 1),
                                  strides=2 if stage > 1 and block == 1 else 1,
                                  name=f"stage{stage}_block{block}")(x)
        logits = _classify(x, num_classes)

        super().__init__(pictures, [logits], class_names, input_rule, exit_macs, name=name)
        self.configuration = plain({
            "depth": depth,
            "channels": channels,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "normalization": normalization,
        })


@keras.saving.register_keras_serializable(package="keras_adaptive")
class PreActivationConv(keras.layers.Layer):
    """Batch normalisation, ReLU, convolution without bias: the composite function of DenseNet.

    Args:
        filters: int. Channels of the output.
        kernel_size: int. Side of the square kernel.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, height, width, filters)`.

    Reference:
        [Huang et al., 2017](https://arxiv.org/abs/1608.06993), section 3, "Composite function".
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.norm = _batch_norm(self.dtype_policy)
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")
        self.conv = keras.layers.Conv2D(
            filters, kernel_size, padding="same", use_bias=False,
            kernel_initializer=FanOutNormal(), dtype=self.dtype_policy, name="conv")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.conv.build(input_shape)

    def call(self, x, training=None):
        return self.conv(self.relu(self.norm(x, training=training)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable(package="keras_adaptive")
class PreActivationDenseLayer(keras.layers.Layer):
    """`concat(x, new(x))` with a bottleneck: the layer of DenseNet-B.

    It differs from `DenseLayer`, that of MSDNet and RANet, in normalising before each convolution,
    not after.

    Args:
        growth_rate: int. Channels that the layer adds.
        bottleneck_factor: int. Width of the 1x1 convolution in multiples of `growth_rate`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, height, width, channels + growth_rate)`.

    Reference:
        [Huang et al., 2017](https://arxiv.org/abs/1608.06993), section 3, "Bottleneck layers".
    """

    def __init__(self, growth_rate, bottleneck_factor, **kwargs):
        super().__init__(**kwargs)
        self.growth_rate = growth_rate
        self.bottleneck_factor = bottleneck_factor
        self.narrow = PreActivationConv(bottleneck_factor * growth_rate, 1,
                                        dtype=self.dtype_policy, name="narrow")
        self.conv = PreActivationConv(growth_rate, 3, dtype=self.dtype_policy, name="conv")
        self.concat = keras.layers.Concatenate(dtype=self.dtype_policy, name="concat")

    def build(self, input_shape):
        self.narrow.build(input_shape)
        self.conv.build(self.narrow.compute_output_shape(input_shape))

    def call(self, x, training=None):
        new = self.conv(self.narrow(x, training=training), training=training)
        return self.concat([x, new])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.growth_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "bottleneck_factor": self.bottleneck_factor,
        }


@keras.saving.register_keras_serializable(package="keras_adaptive")
class DenseNet(ConfiguredModel):
    """DenseNet-BC for CIFAR: a 3x3 stem, three dense blocks with transitions, average pooling.

    A block has `(depth - 4) / 6` layers; a transition cuts the channels and halves the resolution.
    The only output is `exit1`. There is no dropout, as in the paper's runs with augmentation.

    Args:
        depth: int. Layers with weights, `6 n + 4` with `n` of 1 or more.
        growth_rate: int. Channels that a layer adds; the stem has twice as many.
        bottleneck_factor: int. Width of the 1x1 convolutions in multiples of `growth_rate`.
        reduction: float, above 0 and at most 1. Width factor of the transitions, the paper's
            compression factor.
        num_classes: int, at least 2.
        input_shape: `(height, width, channels)`, sides of 4 pixels or more.
        normalization: first node of the graph, as in `RANet`.
        class_names, input_rule, exit_macs: records, see `MultiExitModel`.
        name: string.

    Input: pictures `(batch, *input_shape)`, 0 to 255, or normalised where `normalization=None`.
    Output: `(batch, num_classes)` logits.

    Raises:
        ValueError: If `depth` is not of the form above, `reduction` is out of range, the pictures
            are smaller than 4x4, or `num_classes` is below 2.

    Reference:
        [Huang et al., 2017](https://arxiv.org/abs/1608.06993), section 3.
    """

    def __init__(self, depth=100, growth_rate=12, bottleneck_factor=4, reduction=0.5,
                 num_classes=10, input_shape=(32, 32, 3), normalization=None, class_names=None,
                 input_rule=None, exit_macs=None, name="densenet"):
        num_layers = _units_per_stage("DenseNet", depth, other_layers=4)
        check_num_classes(num_classes)
        if not 0 < reduction <= 1:
            raise ValueError(
                f"`reduction` must be above 0 and at most 1. Received: reduction={reduction}."
            )
        pictures = picture_input(input_shape)
        if any(side is not None and side < 4 for side in input_shape[:2]):
            raise ValueError(
                "`input_shape` must have sides of 4 pixels or more, because two transitions halve "
                f"them. Received: input_shape={tuple(input_shape)}."
            )

        x = keras.layers.Conv2D(2 * growth_rate, 3, padding="same", use_bias=False,
                                kernel_initializer=FanOutNormal(),
                                name="stem")(normalize(pictures, normalization))
        for block in range(1, _NUM_STAGES + 1):
            for layer in range(1, num_layers + 1):
                x = PreActivationDenseLayer(growth_rate, bottleneck_factor,
                                            name=f"block{block}_layer{layer}")(x)
            if block < _NUM_STAGES:
                x = PreActivationConv(int(reduction * x.shape[-1]), 1,
                                      name=f"transition{block}")(x)
                x = keras.layers.AveragePooling2D(2, name=f"transition{block}_pool")(x)
        x = _batch_norm(name="last_norm")(x)
        logits = _classify(keras.layers.ReLU(name="last_relu")(x), num_classes)

        super().__init__(pictures, [logits], class_names, input_rule, exit_macs, name=name)
        self.configuration = plain({
            "depth": depth,
            "growth_rate": growth_rate,
            "bottleneck_factor": bottleneck_factor,
            "reduction": reduction,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "normalization": normalization,
        })


def _units_per_stage(family, depth, other_layers):
    """Return how many blocks or layers, of two convolutions each, a stage has."""
    num_units, rest = divmod(depth - other_layers, 2 * _NUM_STAGES)
    if num_units < 1 or rest:
        raise ValueError(
            f"`depth` of a {family} is 6 n + {other_layers} with n of 1 or more, such as "
            f"{6 + other_layers}, {12 + other_layers} or {18 + other_layers}. "
            f"Received: depth={depth}."
        )
    return num_units


def _batch_norm(dtype=None, name="norm"):
    return keras.layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, dtype=dtype, name=name)


def _classify(features, num_classes):
    x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    # Confidences are compared with thresholds: logits stay float32 under mixed precision.
    return keras.layers.Dense(num_classes, kernel_initializer=FanInUniform(), dtype="float32",
                              name="exit1")(x)
