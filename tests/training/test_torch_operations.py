"""Layers computed by PyTorch's operations give what Keras's give, and the same gradients."""

import keras
import numpy as np
import pytest

from keras_adaptive.layers import AlignedResize, ConvBlock

if keras.backend.backend() != "torch":
    pytest.skip("it is PyTorch's", allow_module_level=True)

import torch

from keras_adaptive.training.torch_operations import use_torch_operations

LAYERS = {
    "1x1": lambda: keras.layers.Conv2D(5, 1, use_bias=False),
    "1x1 with bias": lambda: keras.layers.Conv2D(5, 1, bias_initializer="ones"),
    "1x1 strided": lambda: keras.layers.Conv2D(5, 1, strides=2, use_bias=False),
    "3x3": lambda: keras.layers.Conv2D(5, 3, padding="same"),
    "3x3 strided": lambda: keras.layers.Conv2D(5, 3, strides=2),
    "3x5": lambda: keras.layers.Conv2D(5, (3, 5), padding="same"),
    "even side": lambda: keras.layers.Conv2D(5, 2, padding="same"),
    "strided, same": lambda: keras.layers.Conv2D(5, 3, strides=2, padding="same"),
    "groups": lambda: keras.layers.Conv2D(6, 3, groups=3),
    "dilated": lambda: keras.layers.Conv2D(5, 3, dilation_rate=2),
    "activated": lambda: keras.layers.Conv2D(5, 3, activation="relu"),
    "larger": lambda: AlignedResize(13, 9),
    "smaller": lambda: AlignedResize(3, 4),
    "block": lambda: ConvBlock(5, 3, strides=2),
}


def _outputs_and_gradients(model, x):
    x = torch.tensor(x, requires_grad=True)
    model.zero_grad()
    outputs = model(x)
    (outputs * torch.arange(outputs.numel()).view(outputs.shape)).mean().backward()
    return [outputs, x.grad, *(weight.value.grad for weight in model.trainable_weights)]


@pytest.mark.parametrize("channels", (1, 3, 6))
@pytest.mark.parametrize("layer", LAYERS)
def test_the_same_numbers_and_gradients(layer, channels):
    if layer == "groups" and channels == 1:
        pytest.skip("one channel makes no three groups")
    model = keras.Sequential([keras.Input((8, 7, channels)), LAYERS[layer]()])
    x = np.random.default_rng(0).normal(size=(4, 8, 7, channels)).astype("float32")
    kerass = _outputs_and_gradients(model, x)

    use_torch_operations(model)
    ours = _outputs_and_gradients(model, x)

    for one, other in zip(kerass, ours, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_batch_normalisation_by_hand():
    """1 and 3: mean 2, biased variance 1, unbiased 2. Half of each moves into the averages."""
    norm = keras.layers.BatchNormalization(momentum=0.5, epsilon=1e-12)
    model = keras.Sequential([keras.Input((1,)), norm])
    use_torch_operations(model)
    pictures = np.array([[1.0], [3.0]], "float32")

    outputs = model(pictures, training=True)

    assert keras.ops.convert_to_numpy(outputs).ravel() == pytest.approx([-1, 1])
    assert float(norm.moving_mean.value) == pytest.approx(1.0)
    assert float(norm.moving_variance.value) == pytest.approx(0.5 * 1 + 0.5 * 2)
    # (x - 1) / sqrt(1.5), of the averages
    expected = (pictures - 1) / np.sqrt(1.5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(pictures)), expected, rtol=1e-6)


def test_frozen_batch_normalisation_keeps_its_averages():
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((1,)), norm])
    norm.trainable = False
    use_torch_operations(model)

    model(np.array([[1.0], [3.0]], "float32"), training=True)

    assert float(norm.moving_mean.value) == 0


@pytest.mark.parametrize("settings", ({"scale": False}, {"center": False}, {"axis": 1}))
def test_other_batch_normalisation_stays_kerass(settings):
    norm = keras.layers.BatchNormalization(**settings)
    model = keras.Sequential([keras.Input((3, 3)), norm])

    use_torch_operations(model)

    assert norm.call.__func__ is keras.layers.BatchNormalization.call
