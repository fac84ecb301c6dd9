"""Layers that scale gradients, by hand; networks with them are in `tests/models`."""

import keras
import numpy as np
import pytest

from keras_adaptive.layers import GradientScale


def step_of(model, x):
    """Return by how much one step of plain gradient descent at rate 1 moves the weight."""
    before = model.get_weights()[0].copy()
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=lambda y, y_pred: y_pred)
    model.train_on_batch(x, np.zeros((len(x), 1)))
    return before - model.get_weights()[0]


@pytest.mark.parametrize("scale", [0.0, 0.25, 3.0])
def test_the_gradient_is_scaled_and_the_value_is_not(scale):
    """By hand: for the loss w·x, the gradient of w is x, here 2."""
    inputs = keras.Input((1,))
    weighted = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs)
    model = keras.Model(inputs, GradientScale(scale)(weighted))

    x = np.array([[2.0]], "float32")

    assert keras.ops.convert_to_numpy(model(x, training=True)).item() == 2
    assert step_of(model, x).item() == pytest.approx(2 * scale)


def test_values_stay_exactly_the_same():
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype("float32")

    for training in (True, False):
        y = keras.ops.convert_to_numpy(GradientScale(0.3)(x, training=training))
        np.testing.assert_array_equal(y, x)


def test_a_negative_scale_is_refused():
    with pytest.raises(ValueError, match="finite number of 0 or more. Received: -1"):
        GradientScale(-1)


def test_configuration_round_trip():
    layer = GradientScale(0.5, name="half")

    assert GradientScale.from_config(layer.get_config()).get_config() == layer.get_config()
