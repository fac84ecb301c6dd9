"""Transition between blocks of a densely connected network."""

import keras

from keras_adaptive.layers.convolution import ConvBlock


@keras.saving.register_keras_serializable(package="keras_adaptive")
class TransitionBlock(ConvBlock):
    """1x1 convolution with batch norm and ReLU that cuts the number of channels.

    Args:
        filters: int. Channels of the output.
        **kwargs: `strides`, `use_bias` and `kernel_initializer` as in `ConvBlock`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4, "Network reduction".
    """

    def __init__(self, filters, **kwargs):
        super().__init__(filters, kernel_size=1, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["kernel_size"]
        return config
