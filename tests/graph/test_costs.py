import math

import keras
import numpy as np
import pytest

from keras_adaptive.graph import exit_macs, exit_parameters, flatten, layer_macs
from keras_adaptive.models import MSDNet, RANet

CONVENTIONS = ["lazy", "convolution_dense", "reference"]

# The authors' op counter on their own networks, in its three readings.
RANET_C1_EVEN = {
    "lazy": [13378816, 28813824, 42102912, 47793536, 57955648, 60942912],
    "convolution_dense": [13378816, 28813824, 42102912, 47793536, 57955648, 60942912],
    "reference": [13438730, 28907540, 42279710, 47982632, 58278898, 61272316],
    "parameters": [468106, 1071444, 1474420, 1866078, 2163276, 2451158],
}


def cost(layer, *shapes, dtype="float32"):
    """Return what one layer costs on inputs of the given shapes."""
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    outputs = keras.tree.flatten(layer(*inputs))
    return layer_macs(layer, [keras.KerasTensor(x.shape) for x in inputs],
                      [keras.KerasTensor(x.shape) for x in outputs])


def unallocated(make, *args, **kwargs):
    """Return what `make` returns when variables get shapes and no values."""
    with keras.StatelessScope(initialize_variables=False):
        result = make(*args, **kwargs)
    # Keras remembers them, and would give them values at the end of the next such scope.
    keras.utils.clear_session(free_memory=False)
    return result


# --- Networks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def c1():
    return unallocated(RANet)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_ranet_costs_what_its_authors_count(c1, convention):
    assert exit_macs(c1, convention) == RANET_C1_EVEN[convention]
    assert exit_parameters(c1, convention) == RANET_C1_EVEN["parameters"]


def test_counting_reads_no_values(c1):
    """Networks of hundreds of megabytes are counted without their weights."""
    assert all(variable._value is None for variable in c1.variables)


def test_msdnet_runs_fine_scales_that_an_exit_does_not_need():
    """Of the first block's four layers, exit 1 needs neither the finest scale of the third nor the
    two finest of the fourth; the authors' program computes them before its exit all the same."""
    model = unallocated(MSDNet, blocks=6, layers_in_first_block=4, layers_per_block=2,
                        layer_growth="even")

    lazy, dense, reference = (exit_macs(model, convention) for convention in CONVENTIONS)

    assert dense[0] - lazy[0] == 540672 + 666624 + 503808
    assert [round(macs / 1e6, 2) for macs in lazy] == [13.24, 22.70, 32.27, 41.75, 51.39, 59.85]
    assert [round(macs / 1e6, 2) for macs in reference] == [
        15.13, 25.73, 33.62, 43.29, 51.76, 60.24]
    assert exit_parameters(model, "lazy")[-1] == exit_parameters(model, "reference")[-1] == 2361892
    assert exit_parameters(model, "lazy")[0] < exit_parameters(model, "reference")[0]


@pytest.mark.parametrize("make, macs, parameters", [
    # 300 million multiply-adds and 3.4 million parameters in the paper's table 4.
    (keras.applications.MobileNetV2, 300774272, 3504872),
    # 569 million and 4.2 million in the paper's table 8.
    (keras.applications.MobileNet, 568740352, 4231976),
])
def test_applications_cost_what_their_papers_say(make, macs, parameters):
    model = unallocated(make, weights=None)

    assert exit_macs(model) == [macs]
    assert exit_parameters(model) == [parameters]


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer, shapes, expected", [
    (keras.layers.Dense(5), [(3,)], 15),
    (keras.layers.Dense(5), [(2, 7, 3)], 14 * 15),
    (keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3)), [(7, 5)], 7 * 5 * 6),
    (keras.layers.EinsumDense("abcd,cde->abe", (None, 6)), [(7, 2, 3)], 7 * 2 * 3 * 6),
    (keras.layers.EinsumDense("...x,xy->...y", 6), [(7, 2, 3)], 7 * 2 * 3 * 6),
    (keras.layers.Conv1D(4, 3), [(10, 2)], 8 * 3 * 2 * 4),
    (keras.layers.Conv2D(4, 3, strides=2), [(9, 7, 2)], 4 * 3 * 9 * 2 * 4),
    (keras.layers.Conv2D(4, (3, 1), padding="same", groups=2), [(9, 7, 6)], 63 * 3 * 3 * 4),
    (keras.layers.Conv2D(4, 3, dilation_rate=2), [(9, 7, 2)], 5 * 3 * 9 * 2 * 4),
    (keras.layers.Conv3D(4, 2), [(3, 3, 3, 2)], 8 * 8 * 2 * 4),
    (keras.layers.Conv1DTranspose(4, 3, strides=2), [(10, 2)], 10 * 3 * 2 * 4),
    (keras.layers.Conv2DTranspose(4, 3, strides=2), [(5, 6, 2)], 30 * 9 * 2 * 4),
    (keras.layers.Conv3DTranspose(4, 2), [(3, 3, 3, 2)], 27 * 8 * 2 * 4),
    (keras.layers.DepthwiseConv1D(3, depth_multiplier=2), [(10, 2)], 8 * 3 * 2 * 2),
    (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), [(5, 6, 2)], 12 * 9 * 2 * 2),
    (keras.layers.SeparableConv1D(4, 3), [(10, 2)], 8 * (3 * 2 + 2 * 4)),
    (keras.layers.SeparableConv2D(4, 3, depth_multiplier=2), [(5, 6, 2)],
     12 * (9 * 2 * 2 + 4 * 4)),
    (keras.layers.SpectralNormalization(keras.layers.Dense(5)), [(3,)], 15),
    (keras.layers.BatchNormalization(), [(5, 6, 2)], 0),
    (keras.layers.LayerNormalization(), [(5, 6, 2)], 0),
    (keras.layers.GroupNormalization(2), [(5, 6, 2)], 0),
    (keras.layers.RMSNormalization(), [(5, 6, 2)], 0),
    (keras.layers.Normalization(), [(5, 6, 2)], 0),
    (keras.layers.Rescaling(2.0), [(5, 6, 2)], 0),
    (keras.layers.PReLU(), [(5, 6, 2)], 0),
    (keras.layers.ReLU(), [(5, 6, 2)], 0),
    (keras.layers.Dropout(0.5), [(5, 6, 2)], 0),
    (keras.layers.MaxPooling2D(), [(5, 6, 2)], 0),
    (keras.layers.GlobalAveragePooling2D(), [(5, 6, 2)], 0),
    (keras.layers.Embedding(5, 3), [(4,)], 0),
])
def test_cost_of_a_layer(layer, shapes, expected):
    assert unallocated(cost, layer, *shapes) == expected


@pytest.mark.parametrize("make", [
    lambda: keras.layers.MultiHeadAttention(2, 3),
    lambda: keras.layers.GroupQueryAttention(3, 2, 2),
])
def test_attention_costs_its_projections(make):
    """Queries of 7 tokens, keys and values of 9: to 2 heads of 3, and back."""
    tokens, image = keras.Input((7, 4)), keras.Input((9, 4))
    x = make()(tokens, image)
    model = keras.Model([tokens, image], keras.layers.Dense(5)(x))

    assert exit_macs(model) == [4 * 6 * (7 + 9 + 9 + 7) + 7 * 4 * 5]


def test_attention_s_tensors_are_known_by_their_names():
    """Also where a mask is given, and where keywords come in an order of their own."""
    query, value, key = (keras.Input(shape) for shape in ((4, 8), (10, 12), (10, 6)))
    mask = keras.Input((4, 10), dtype="bool")
    own_mask = keras.Input((1, 4), dtype="bool")

    def cost(inputs, **arguments):
        output = keras.layers.MultiHeadAttention(2, 4)(**arguments)
        return exit_macs(keras.Model(inputs, output))[-1]

    assert cost([query, value, mask], query=query, value=value, attention_mask=mask) == (
        8 * (4 * 8 + 10 * 12 + 10 * 12 + 4 * 8))
    assert cost([query, own_mask], query=query, value=query, attention_mask=own_mask) == 8 * 4 * 32
    assert cost([query, value, key], query=query, value=value, key=key) == (
        8 * (4 * 8 + 10 * 12 + 10 * 6 + 4 * 8))


def test_a_gate_of_attention_is_counted():
    query = keras.Input((5, 8))
    layer = keras.layers.GroupQueryAttention(4, 4, 2, use_gate=True)
    plain = keras.layers.GroupQueryAttention(4, 4, 2)

    costs = [exit_macs(keras.Model(query, made(query, query)))[-1] for made in (layer, plain)]

    assert costs[0] - costs[1] == 5 * 8 * 16


@pytest.mark.skipif(not hasattr(keras.layers, "ReversibleEmbedding"), reason="a later Keras")
@pytest.mark.parametrize("options", [{}, {"tie_weights": False}])
def test_an_embedding_that_is_reversed_is_a_dense_layer(options):
    """Looking up costs nothing, also where there are as many numbers as words."""
    words = keras.Input((7,), dtype="int32")
    layer = keras.layers.ReversibleEmbedding(5, 5, **options)
    embedded = layer(words)
    model = keras.Model(words, [embedded, layer(embedded, reverse=True)])

    assert exit_macs(model) == [0, 7 * 5 * 5]


def test_channels_first_costs_the_same():
    shape, spec = (None, 2, 9, 7), [keras.KerasTensor((None, 2, 9, 7))]
    layer = keras.layers.Conv2D(4, 3, data_format="channels_first")
    layer.build(shape)

    output = layer.compute_output_shape(shape)

    assert output == (None, 4, 7, 5)
    assert layer_macs(layer, spec, [keras.KerasTensor(output)]) == 35 * 9 * 2 * 4


def test_operations_without_weights_are_free():
    a, b = keras.Input((4, 5)), keras.Input((5, 6))
    model = keras.Model([a, b], keras.ops.softmax(keras.ops.matmul(a, b)))

    assert len(flatten(model).calls) == 2
    assert exit_macs(model) == [0]


class Scale(keras.layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale


def test_an_unknown_layer_with_weights_is_an_error_that_tells_the_cure():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Scale(name="mine")(inputs)))

    with pytest.raises(ValueError, match=r"'mine'.*@layer_macs\.register\(Scale\)"):
        exit_macs(model)

    class Registered(Scale):
        pass

    @layer_macs.register(Registered)
    def _(layer, input_specs, output_specs):
        return math.prod(output_specs[0].shape[1:])

    model = keras.Model(inputs, keras.layers.Dense(2)(Registered()(inputs)))
    assert exit_macs(model) == [3 + 6]


def test_a_size_that_is_not_fixed_is_an_error_that_tells_the_cure():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="conv")(inputs))

    with pytest.raises(ValueError, match=r"'conv'.*\(None, None\).*keras\.Input"):
        exit_macs(model)


# --- Exits and conventions ------------------------------------------------------------------------


def test_later_exits_cost_what_they_add_and_a_shared_layer_counts_its_parameters_once():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4)
    x = shared(inputs)
    first = keras.layers.Dense(2, name="exit1")(x)
    model = keras.Model(inputs, [first, keras.layers.Dense(3, name="exit2")(shared(x))])

    assert exit_macs(model) == [16 + 8, 16 + 8 + 16 + 12]
    assert exit_parameters(model) == [20 + 10, 20 + 10 + 15]


def test_frozen_layers_count_and_moving_statistics_do_not():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(4)(inputs)))
    before = exit_parameters(model)

    model.trainable = False

    assert before == exit_parameters(model) == [20 + 8]


@pytest.mark.parametrize("layer, shape, expected", [
    # One operation per element that goes into a ReLU.
    (keras.layers.ReLU(), (5, 6, 2), 60),
    (keras.layers.Activation("relu"), (5, 6, 2), 60),
    (keras.ops.relu, (5, 6, 2), 60),
    (keras.layers.Conv2D(4, 3, activation="relu"), (5, 6, 2), 12 * 9 * 2 * 4 + 12 * 4),
    (keras.layers.Activation("tanh"), (5, 6, 2), 0),
    # A pooling's map counts as a square of its height.
    (keras.layers.MaxPooling2D(3, strides=2), (9, 7, 2), 2 * 4 * 4 * 9),
    (keras.layers.AveragePooling2D(2), (5, 5, 2), 2 * 2 * 2 * 4),
    (keras.layers.AveragePooling1D(2), (5, 3), 2 * 3 * 2),
    (keras.layers.GlobalAveragePooling2D(), (5, 6, 2), 60),
    # A dense layer's bias adds, a convolution's does not.
    (keras.layers.Dense(4), (3,), 12 + 4),
    (keras.layers.Dense(4, use_bias=False), (3,), 12),
    (keras.layers.Conv2D(4, 3), (5, 6, 2), 12 * 9 * 2 * 4),
    (keras.layers.BatchNormalization(), (5, 6, 2), 0),
])
def test_what_the_reference_counter_adds(layer, shape, expected):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))

    assert exit_macs(model, "reference") == [expected]


@pytest.mark.parametrize("name", ["Relu", "ReLU"])
def test_the_reference_counter_adds_nothing_for_layers_of_ones_own(name):
    """Also where their names are those of Keras's layers and operations."""
    kind = type(name, (keras.layers.Layer,), {"call": lambda self, x: -x})
    inputs = keras.Input((4,))

    assert exit_macs(keras.Model(inputs, kind()(inputs)), "reference") == [0]


def test_layers_that_ran_before_an_exit_count_for_it_unless_lazy():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4, name="needed")(inputs)
    ahead = keras.layers.Dense(5, name="ahead")(x)
    model = keras.Model(inputs, [keras.layers.Dense(2, name="exit1")(x),
                                 keras.layers.Dense(3, name="exit2")(ahead)])
    model.layers_run_by_exit = [["needed", "ahead", "exit1"],
                                ["needed", "ahead", "exit1", "exit2"]]

    assert exit_macs(model, "lazy") == [16 + 8, 16 + 8 + 20 + 15]
    assert exit_macs(model, "convolution_dense") == [16 + 8 + 20, 16 + 8 + 20 + 15]
    assert exit_parameters(model, "lazy")[0] + 25 == exit_parameters(model, "reference")[0]

    model.layers_run_by_exit = [["needed"]]
    with pytest.raises(ValueError, match="a list of layer names per exit: 2.*Received 1"):
        exit_macs(model, "reference")


def test_costs_follow_the_order_of_the_exits():
    inputs = keras.Input((4,))
    early = keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, {"late": keras.layers.Dense(3)(early), "early": early})

    assert exit_macs(model, order=["early", "late"]) == [8, 14]
    assert exit_parameters(model, order=["early", "late"]) == [10, 19]


def test_costs_are_plain_integers(c1):
    assert all(type(macs) is int for macs in exit_macs(c1))
    assert np.all(np.diff(exit_macs(c1)) > 0)


def test_an_unknown_convention_is_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))

    with pytest.raises(ValueError, match="Did you mean 'reference'"):
        exit_macs(model, "refrence")
