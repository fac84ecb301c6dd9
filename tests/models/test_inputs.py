"""The first node of every network."""

import keras
import numpy as np
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


@pytest.mark.parametrize("normalization", ["cifar10", ((0.5, 0.5, 0.5), (0.2,)), ((), ())])
def test_a_normalisation_for_other_channels_is_refused_with_the_cure(normalization):
    """Grey pictures would fail in the first prediction, deep inside."""
    with pytest.raises(ValueError, match=r"have 1 channels.*such as \(\(0.5,\), \(0.25,\)\)"):
        ResNet(depth=8, channels=4, input_shape=(32, 32, 1), normalization=normalization)

    grey = ResNet(depth=8, channels=4, input_shape=(32, 32, 1), normalization=((0.5,), (0.25,)))
    assert grey.predict(np.zeros((1, 32, 32, 1)), verbose=0).shape == (1, 10)


@pytest.mark.parametrize("normalization, message", [
    (((0.5, 0.5, 0.5), (0.2, 0, 0.2)), "deviations .* above 0.*Received.*0, 0.2"),
    (((0.5, 0.5, 0.5), (0.2, -0.2, 0.2)), "above 0"),
    (((0.5, 0.5, float("nan")), (0.2, 0.2, 0.2)), "a finite number per channel"),
    ((("a", 0.5, 0.5), (0.2, 0.2, 0.2)), "a finite number per channel"),
    ((0.5, 0.2), "a pair .mean, std."),
    (0.5, "a pair .mean, std."),
    ((1, 2, 3), "a pair .mean, std."),
])
def test_what_is_no_normalisation_is_told(normalization, message):
    """A deviation of 0 would be a division by zero somewhere inside."""
    with pytest.raises(ValueError, match=message):
        ResNet(depth=8, channels=4, normalization=normalization)


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.__name__)
@pytest.mark.parametrize("shape", [(48, 48), 48, ("48", 48, 3), (48, 48, None), (0, 48, 3),
                                   (48.0, 48, 3)])
def test_what_is_no_shape_of_pictures_is_told(network, shape):
    """A pair without channels was taken for pictures of 48 channels."""
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*Received: .*48"):
        network(**SMALL[network], input_shape=shape)
