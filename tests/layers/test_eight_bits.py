"""Rounding to 8 bits that training sees through."""

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.layers import EightBits
from keras_adaptive.thumbnails import quantize


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def rounded(x, training):
    return values(EightBits()(np.asarray(x, "float32"), training=training))


def test_rounding_by_hand():
    """Values 0..1 times 255, clipped and rounded half to even, in training as in inference."""
    x = 255 * np.array([0, 0.5, 1.2, -0.1, 0.12345, 0.25, 0.002])

    for training in (False, True):
        assert_array_equal(rounded(x, training), [0, 128, 255, 0, 31, 64, 1])


@settings(max_examples=30, deadline=None)
@given(hnp.arrays("float32", (2, 3, 3, 1), elements=st.floats(-300, 600, width=32)))
def test_a_file_keeps_exactly_what_comes_out(x):
    """The same whole numbers as the writer of files makes of what goes in."""
    for training in (False, True):
        y = rounded(x, training)
        assert_array_equal(y, quantize(x))
        assert np.abs(y - x)[(x >= 0) & (x <= 255)].max(initial=0) <= 0.5


def test_gradient_is_one_inside_and_zero_outside():
    """By hand: for the sum of the rounded weights, one step of rate 1 moves each weight by its
    gradient. Limits are inside, on every backend."""
    weights = np.array([[-7, 0, 0.4, 127.5, 255, 255.2]], "float32")
    inputs = keras.Input((1,))
    dense = keras.layers.Dense(6, use_bias=False)
    rounded = EightBits()(dense(inputs))
    model = keras.Model(inputs, keras.ops.sum(rounded, axis=-1, keepdims=True))
    dense.set_weights([weights])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: y_pred)

    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))

    assert_allclose(weights - values(dense.kernel), [[0, 1, 1, 1, 1, 0]], atol=1e-4)


def test_configuration_round_trip():
    layer = EightBits(name="bits", dtype="float32")

    assert EightBits.from_config(layer.get_config()).get_config() == layer.get_config()
