"""Exit heads: the small classifiers at which a picture may leave."""

import numbers

import keras

from keras_adaptive.layers.convolution import ConvBlock
from keras_adaptive.layers.initializers import FanInUniform

# Sides of a feature map from which two strided convolutions and the pooling of the reference
# programs leave exactly one pixel.
REFERENCE_SIZES = range(5, 13)


def check_num_classes(num_classes):
    """Raise a `ValueError` if a number of classes is no whole number of 2 or more."""
    if not isinstance(num_classes, numbers.Integral) or num_classes < 2:
        raise ValueError(
            "`num_classes` must be a whole number, at least 2, because the confidence of a single "
            f"class is always 1. Received: num_classes={num_classes!r}."
        )


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ExitHead(keras.layers.Layer):
    """Classifier attached to an intermediate feature map.

    Two strided 3x3 convolutions shrink the map; average pooling and a dense layer turn it into
    logits. Nothing in the backbone reads the head's output, so a trained network can be cut after
    any exit.

    Args:
        num_classes: int. Number of classes, at least 2.
        filters: int or `None`. Width of both convolutions; `None` keeps the input's width, as the
            ImageNet networks do. Defaults to `128`, as the CIFAR networks have.
        pooling: `"reference"` pools a 2x2 window as the reference programs do and needs a map of
            5 to 12 pixels a side; `"global"` averages over whatever is left and takes any size.

    Called on `[features, earlier]`, where `earlier` are the logits of the exit before, it gives the
    sum of these and its own: boosting. It then learns what the earlier exits together leave wrong.
    In training no gradient flows into `earlier`, so that their heads learn from their own losses
    alone; the features learn from all.

    Input shape: `(batch, height, width, channels)`, or a list of it and `(batch, num_classes)`.
    Output shape: `(batch, num_classes)`, float32 logits before softmax.

    Raises:
        ValueError: If `num_classes` is below 2, `pooling` is not one of the two, or the map does
            not fit the reference pooling.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4, "Classifiers". Boosting
        is that of [Yu et al., 2023](https://arxiv.org/abs/2211.16726), without their weighing of
        the sum and of the gradients.
    """

    def __init__(self, num_classes, filters=128, pooling="reference", **kwargs):
        check_num_classes(num_classes)
        if pooling not in ("reference", "global"):
            raise ValueError(
                f'`pooling` is "reference" or "global". Received: pooling={pooling!r}.'
            )
        # Keras would cast the earlier logits, too; the layers inside cast the features themselves.
        super().__init__(autocast=False, **kwargs)
        self.num_classes = num_classes
        self.filters = filters
        self.pooling = pooling
        self.conv1 = None
        self.conv2 = None
        if pooling == "global":
            self.pool = keras.layers.GlobalAveragePooling2D(
                data_format="channels_last", dtype=self.dtype_policy, name="pool")
            self.flatten = None
        else:
            self.pool = keras.layers.AveragePooling2D(
                2, data_format="channels_last", dtype=self.dtype_policy, name="pool")
            self.flatten = keras.layers.Flatten(
                data_format="channels_last", dtype=self.dtype_policy, name="flatten")
        # Confidences are compared with thresholds: logits stay float32 under mixed precision.
        self.classifier = keras.layers.Dense(num_classes, kernel_initializer=FanInUniform(),
                                             dtype="float32", name="classifier")

    def build(self, input_shape):
        # In a file the shape of one map is a list, too.
        input_shape = input_shape[0] if isinstance(input_shape[0], (list, tuple)) else input_shape
        sides = tuple(input_shape[1:3])
        if self.pooling == "reference" and any(side not in REFERENCE_SIZES for side in sides):
            raise ValueError(
                f"The head of exit {self.name!r} receives a map of {sides[0]}x{sides[1]} pixels; "
                f"the reference pooling works for {REFERENCE_SIZES[0]} to {REFERENCE_SIZES[-1]} "
                'a side. Use `pooling="global"`, which takes any size, or another `input_shape`.'
            )
        filters = self.filters or input_shape[-1]
        self.conv1 = ConvBlock(filters, 3, strides=2, dtype=self.dtype_policy, name="conv1")
        self.conv2 = ConvBlock(filters, 3, strides=2, dtype=self.dtype_policy, name="conv2")
        for layer in (self.conv1, self.conv2):
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.classifier.build((None, filters))

    def call(self, x, training=None):
        x, earlier = x if isinstance(x, (list, tuple)) else (x, None)
        x = self.conv1(x, training=training)
        x = self.pool(self.conv2(x, training=training))
        if self.flatten:
            x = self.flatten(x)
        logits = self.classifier(x)
        if earlier is None:
            return logits
        return logits + (keras.ops.stop_gradient(earlier) if training else earlier)

    def compute_output_spec(self, x, training=None):
        x = x[0] if isinstance(x, (list, tuple)) else x
        return keras.KerasTensor((x.shape[0], self.num_classes), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "filters": self.filters,
            "pooling": self.pooling,
        }
