"""Memory of maps: by hand, and how it falls with the size of pictures."""

import keras
import pytest

from keras_adaptive.graph import peak_activations
from keras_adaptive.models import ResNet


def test_the_largest_pair_of_maps_by_hand():
    """The first convolution writes the largest map; its normalisation and ReLU need no other."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(10, 3, padding="same")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(12, 3, strides=2, padding="same")(x)
    x = keras.layers.Dense(1000)(keras.layers.Flatten()(x))

    assert peak_activations(keras.Model(inputs, x)) == max(
        64 * (3 + 10), 64 * 10 + 16 * 12, 16 * 12 + 1000) == 1192


def test_a_sum_writes_over_what_it_reads_and_is_read_once():
    """A block with a shortcut needs two maps; the same map twice is one."""
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(2, 1)(inputs)
    outputs = keras.layers.Add()([inputs, keras.layers.ReLU()(x + inputs)])

    assert peak_activations(keras.Model(inputs, outputs)) == 2 * 32
    assert peak_activations(keras.Model(inputs, keras.layers.Concatenate()([inputs] * 2))) == 96


def test_an_operation_of_ones_own_needs_both_maps():
    """Whatever its name, nothing says that it writes over what it reads."""
    class Relu(keras.Operation):
        def call(self, x):
            return keras.ops.relu(x)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    inputs = keras.Input((4, 4, 2))

    assert peak_activations(keras.Model(inputs, Relu()(inputs))) == 2 * 32
    assert peak_activations(keras.Model(inputs, keras.ops.relu(inputs))) == 32


@pytest.mark.parametrize("ratio", [2, 4])
def test_it_falls_with_the_square_of_the_sides(ratio):
    """A network of thumbnails needs `ratio * ratio` times less, exactly."""
    full, small = (ResNet(20, 16, input_shape=(size, size, 3)) for size in (32, 32 // ratio))

    assert peak_activations(full) == ratio**2 * peak_activations(small) == 2 * 16 * 32 * 32


def test_sizes_must_be_known():
    inputs = keras.Input((None, None, 3))

    with pytest.raises(ValueError, match="Memory needs fixed sizes"):
        peak_activations(keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)))
