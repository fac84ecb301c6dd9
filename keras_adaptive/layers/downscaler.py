"""The layers of ThumbNet that are not a classifier's: the downscaler and the feature decoder."""

import math

import keras

from keras_adaptive.layers.convolution import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from keras_adaptive.layers.initializers import BilinearUpsampling, ChannelValues
from keras_adaptive.layers.thumbnail import Thumbnail, check_divisible, refuse_channels_first

# Strides of the two convolutions. The first one takes the larger step: at full size its
# multiply-adds are the downscaler's largest share.
STRIDES = {2: (2, 1), 4: (2, 2), 8: (4, 2)}

# Mean and standard deviation of photographs' pixels in 0..1 (those of ImageNet).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="keras_adaptive")
class Downscaler(keras.layers.Layer):
    """Turn pictures into thumbnails that keep what a classifier needs: ThumbNet's downscaler.

    Two 5x5 convolutions, each with batch normalisation and ReLU; the second has as many outputs as
    the picture has channels, so that a thumbnail is a picture. The strides follow from the ratio.

    The last batch normalisation starts with the scale and shift of the data's pixels. With the
    usual ones and zeros the ReLU would make half of the thumbnail black.

    Strides, width and initial values are choices of ours; the paper's text was not at hand.

    Args:
        ratio: int, 2, 4 or 8. Pixels of the picture, to a side, that become one of the thumbnail.
        hidden_filters: int. Channels between the convolutions; 48 or more for a ratio of 8, whose
            first convolution takes steps of 4 and could not keep what it sees with fewer.
        channels: int. Channels of pictures and thumbnails.
        mean, std: sequences of `channels` floats or `None`. Mean and standard deviation of the
            data's pixels in 0..1. Default to those of photographs.
        area: `None`; `"first"`, to shrink the picture by averaging before the convolutions, then of
            stride 1: the control that tells learned shrinking from more layers; or `"added"`, to
            add the averaged picture to what the convolutions give, at first nothing: training then
            starts from honest thumbnails, as the resizer of Talebi and Milanfar does.

    Input shape: `(batch, height, width, channels)`, values 0 to 1, sizes multiples of `ratio`.
        Channels come last whatever `keras.config.image_data_format()` is.
    Output shape: `(batch, height / ratio, width / ratio, channels)`, 0 or more, float32 also under
        mixed precision.

    Raises:
        ValueError: If `ratio` is none of these, `hidden_filters` are too few, the input has other
            channels, or its sizes are no multiples of the ratio.

    Reference:
        [Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034), as described there; see above.
        For `area="added"`: [Talebi and Milanfar, 2021](https://arxiv.org/abs/2103.09950).
    """

    def __init__(self, ratio=2, hidden_filters=32, channels=3, mean=None, std=None, area=None,
                 **kwargs):
        if ratio not in STRIDES:
            raise ValueError(
                "`ratio` is 2, 4 or 8, because each of the two convolutions shrinks by a power of 2"
                f". Received: ratio={ratio!r}."
            )
        least = 48 if ratio == 8 else 1
        if hidden_filters < least:
            raise ValueError(
                f"`hidden_filters` are {least} or more for a ratio of {ratio}, so that the first "
                f"convolution can keep what it sees. Received: hidden_filters={hidden_filters}."
            )
        if area not in (None, "first", "added"):
            raise ValueError(f"`area` is None, 'first' or 'added'. Received: area={area!r}.")
        # Keras would cast the pictures before they are averaged; the convolutions cast their own.
        super().__init__(autocast=False, **kwargs)
        self.ratio = ratio
        self.hidden_filters = hidden_filters
        self.channels = channels
        self.mean = _per_channel("mean", mean, _MEAN, channels)
        self.std = _per_channel("std", std, _STD, channels)
        self.area = area
        strides = (1, 1) if area == "first" else STRIDES[ratio]
        # A thumbnail of 8 bits of precision would lose what bfloat16 drops.
        self.shrink = Thumbnail(ratio, dtype="float32", name="shrink") if area else None
        self.add = keras.layers.Add(dtype="float32", name="add") if area == "added" else None
        self.conv1 = _convolution(hidden_filters, strides[0], self.dtype_policy, "conv1")
        self.norm1 = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, dtype=self.dtype_policy,
            name="norm1")
        self.relu1 = keras.layers.ReLU(dtype=self.dtype_policy, name="relu1")
        self.conv2 = _convolution(channels, strides[1], self.dtype_policy, "conv2")
        scale, shift = (self.std, self.mean) if area != "added" else ([0.0] * channels,) * 2
        self.norm2 = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON,
            gamma_initializer=ChannelValues(scale), beta_initializer=ChannelValues(shift),
            dtype="float32", name="norm2")
        self.relu2 = keras.layers.ReLU(dtype="float32", name="relu2")

    def build(self, input_shape):
        refuse_channels_first("Downscaler", input_shape)
        if input_shape[-1] != self.channels:
            raise ValueError(
                f"Downscaler was made for {self.channels} channels. Received an input of shape "
                f"{tuple(input_shape)}. Make it with `channels={input_shape[-1]}`."
            )
        check_divisible(input_shape[1:3], self.ratio)
        shape = tuple(input_shape)
        if self.shrink:
            self.shrink.build(shape)
        if self.area == "first":
            shape = self.shrink.compute_output_shape(shape)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
            norm.build(shape)

    def call(self, pictures, training=None):
        x = self.shrink(pictures) if self.area == "first" else pictures
        x = self.relu1(self.norm1(self.conv1(x), training=training))
        x = self.norm2(self.conv2(x), training=training)
        return self.relu2(self.add([x, self.shrink(pictures)]) if self.add else x)

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        sizes = [None if size is None else size // self.ratio for size in sizes]
        return (batch, *sizes, self.channels)

    def compute_output_spec(self, pictures, training=None):
        return keras.KerasTensor(self.compute_output_shape(pictures.shape), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "hidden_filters": self.hidden_filters,
            "channels": self.channels,
            "mean": self.mean,
            "std": self.std,
            "area": self.area,
        }


@keras.saving.register_keras_serializable(package="keras_adaptive")
class FeatureDecoder(keras.layers.Layer):
    """Enlarge a student's feature map to the size of its teacher's, for training only.

    One transposed convolution with stride 2 per doubling, 4x4 so that its steps overlap evenly,
    with ReLU between them. They start as bilinear enlarging of each channel.

    Args:
        channels: int. Channels of the map and of all convolutions.
        ratio: int, a power of 2. With 1 there is no convolution.
        ends_in_relu: bool. Whether a ReLU follows the last convolution, too, as it should where the
            teacher's map comes from one.

    Input shape: `(batch, height, width, channels)`, channels always last.
    Output shape: `(batch, ratio * height, ratio * width, channels)`.

    Reference:
        [Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034), "feature mapping" as described
        there. Kernel size and initial values are ours.
    """

    def __init__(self, channels, ratio=2, ends_in_relu=True, **kwargs):
        if ratio < 1 or ratio & (ratio - 1):
            raise ValueError(f"`ratio` is a power of 2. Received: ratio={ratio!r}.")
        super().__init__(**kwargs)
        self.channels = channels
        self.ratio = ratio
        self.ends_in_relu = ends_in_relu
        count = int(math.log2(ratio))
        self.convolutions = [
            keras.layers.Conv2DTranspose(
                channels, 4, strides=2, padding="same", data_format="channels_last",
                activation="relu" if ends_in_relu or i < count else None,
                kernel_initializer=BilinearUpsampling(), dtype=self.dtype_policy, name=f"conv{i}")
            for i in range(1, count + 1)
        ]

    def build(self, input_shape):
        for layer in self.convolutions:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, features):
        for layer in self.convolutions:
            features = layer(features)
        return features

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        return (batch, *(None if s is None else s * self.ratio for s in sizes), self.channels)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels, "ratio": self.ratio,
                "ends_in_relu": self.ends_in_relu}


def _convolution(filters, strides, dtype, name):
    return keras.layers.Conv2D(filters, 5, strides=strides, padding="same", use_bias=False,
                               data_format="channels_last", kernel_initializer="he_normal",
                               dtype=dtype, name=name)


def _per_channel(argument, values, default, channels):
    if values is None:
        values = default if channels == 3 else [sum(default) / 3] * channels
    values = [float(value) for value in values]
    if len(values) != channels:
        raise ValueError(
            f"`{argument}` has one number per channel, {channels}. Received: {values}."
        )
    return values
