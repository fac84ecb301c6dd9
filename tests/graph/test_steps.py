import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.graph.calls import Call
from keras_adaptive.graph.steps import Alias, ChannelSlice, Convolution, Folded, simplify

L = keras.layers


def steps_of(*layers, shape=(8, 8, 4)):
    inputs = keras.Input(shape)
    x = inputs
    for layer in layers:
        x = layer(x)
    (stage,) = split_into_stages(keras.Model(inputs, x))
    return simplify(stage)


def test_padding_norm_and_activation_become_part_of_a_convolution():
    """Four layers are one step, with the padding's zeros and the ReLU."""
    (step,) = steps_of(L.ZeroPadding2D(((1, 2), (0, 3))), L.Conv2D(5, 3, strides=2),
                       L.BatchNormalization(), L.ReLU())

    assert isinstance(step, Convolution)
    assert step.padding == ((1, 2), (0, 3)) and step.strides == (2, 2)
    assert step.activation is keras.activations.relu
    assert len(step.calls) == 4


def test_folding_by_hand():
    """gamma / sqrt(variance + epsilon) scales the kernel; the bias follows."""
    layer, norm = L.Conv2D(1, 1), L.BatchNormalization(epsilon=0.0)
    layer.build((None, 1, 1, 1))
    norm.build((None, 1, 1, 1))
    layer.set_weights([np.full((1, 1, 1, 1), 3.0), np.array([1.0])])
    norm.set_weights([np.array([2.0]), np.array([5.0]), np.array([7.0]), np.array([16.0])])

    kernel, bias = Folded(layer, norm).compute(np, keras.ops.convert_to_numpy)

    assert kernel.item() == 1.5  # 3 * 2 / 4
    assert bias.item() == 2.0  # (1 - 7) * 2 / 4 + 5


@pytest.mark.parametrize("size, padding", [(8, ((0, 1), (0, 1))), (7, ((1, 1), (1, 1)))])
def test_same_padding_of_a_strided_convolution(size, padding):
    """Keras pads the end first, and what it pads depends on the size."""
    (step,) = steps_of(L.Conv2D(2, 3, strides=2, padding="same"), shape=(size, size, 4))

    assert step.padding == padding


def test_a_value_that_is_read_twice_is_kept():
    """A batch normalisation is not folded where the convolution's output has another reader."""
    inputs = keras.Input((8, 8, 4))
    x = L.Conv2D(4, 1)(inputs)
    model = keras.Model(inputs, L.Add()([x, L.BatchNormalization()(x)]))

    steps = simplify(split_into_stages(model)[0])

    assert [type(step) for step in steps] == [Convolution, Call, Call]


def test_a_value_that_leaves_the_stage_is_kept():
    """An exit between convolution and activation is still there."""
    inputs = keras.Input((8, 8, 4))
    x = L.Conv2D(4, 1)(inputs)
    model = keras.Model(inputs, [x, L.ReLU()(x)])

    first, second = (simplify(stage) for stage in split_into_stages(model))

    assert first[0].activation is None and len(first) == len(second) == 1


@pytest.mark.parametrize("key, expected", [
    ((Ellipsis, slice(None, 3)), (0, 3)),
    ((Ellipsis, slice(1, -1)), (1, 3)),
    ((slice(None), slice(None), slice(None), slice(2, None)), (2, 4)),
    ((Ellipsis, slice(None, None, 2)), None),
    ((slice(None), slice(0, 2)), None),
    ((slice(0, 1), Ellipsis, slice(0, 2)), None),
])
def test_slices_of_channels_are_recognised(key, expected):
    """Other ways of indexing stay calls."""
    inputs = keras.Input((8, 8, 4))
    (stage,) = split_into_stages(keras.Model(inputs, inputs[key]))

    (step,) = simplify(stage)

    received = (step.start, step.stop) if isinstance(step, ChannelSlice) else None
    assert received == expected


def test_what_does_nothing_in_inference_is_an_alias():
    """Dropout, noise and linear activations cost nothing."""
    steps = steps_of(L.Dropout(0.5), L.GaussianNoise(0.1), L.Activation("linear"))

    assert all(isinstance(step, Alias) for step in steps)


def test_functions_and_layers_of_ones_own_stay_calls():
    """A function that is only called `relu`, and a subclass of an activation, are not Keras's."""

    class Doubled(L.Activation):
        def call(self, x):
            return 2 * x

    def relu(x):
        return keras.ops.maximum(x, 0.3)

    steps = steps_of(L.Conv2D(4, 1, activation=relu), L.Conv2D(4, 1), Doubled("linear"),
                     L.Conv2D(4, 1), Doubled("relu"))

    assert [type(step) for step in steps] == [Call, Convolution, Call, Convolution, Call]


@pytest.mark.parametrize("name", ["Relu", "Relu6", "GetItem"])
def test_operations_of_ones_own_with_the_names_of_kerass_stay_calls(name):
    """Keras's own are told by their module too."""

    class Halved(keras.Operation):
        def call(self, x):
            return x * 0.5

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    Halved.__name__ = name

    assert [type(step) for step in steps_of(L.Conv2D(4, 1), Halved())] == [Convolution, Call]


@pytest.mark.parametrize("layers, types", [
    ([L.Activation("linear", dtype="float16"), L.Conv2D(4, 1)], [Call, Call]),
    ([L.Activation("linear", dtype="float16"), L.ZeroPadding2D(1), L.Conv2D(4, 1)],
     [Call, Call, Convolution]),
    ([L.Conv2D(4, 1), L.BatchNormalization(dtype="float16")], [Convolution, Call]),
    ([L.Conv2D(4, 1), L.Activation("relu", dtype="float16")], [Convolution, Call]),
    ([L.Conv2D(4, 1), L.ReLU(dtype="float64")], [Convolution, Call]),
], ids=["input", "input of a padding", "norm", "activation", "wider activation"])
def test_what_converts_between_dtypes_stays_a_call(layers, types):
    """A step does not convert what it reads or makes, as layers do."""
    assert [type(step) for step in steps_of(*layers)] == types


def test_half_precision_is_not_put_together():
    """Steps are put together only where all of them compute in float32."""
    steps = steps_of(L.Conv2D(4, 1, dtype="mixed_bfloat16"),
                     L.BatchNormalization(dtype="mixed_bfloat16"))

    assert all(isinstance(step, Call) for step in steps)
