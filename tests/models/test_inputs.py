"""The first node of every network."""

import keras
import pytest

from keras_adaptive.models import DenseNet, MSDNet, RANet, ResNet

SMALL = {ResNet: {"depth": 8, "channels": 4}, DenseNet: {"depth": 10, "growth_rate": 4},
         RANet: {}, MSDNet: {}}


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.__name__)
def test_channels_first_is_refused_with_the_cure(network):
    """Layers would take rows for channels, and say so somewhere deep inside."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format.'channels_last'"):
            network(**SMALL[network])
    finally:
        keras.config.set_image_data_format(before)
