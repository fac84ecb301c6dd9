import concurrent.futures
import inspect
import threading
import time
import warnings

import keras
import numpy as np
import pytest
from keras.src.models.functional import Functional
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.graph import flatten
from keras_adaptive.graph.flattening import fingerprint


@keras.saving.register_keras_serializable(package="test_flattening")
class Block(keras.layers.Layer):
    """Dense and normalisation, no variables of its own."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, dtype=self.dtype_policy, name="dense")
        self.norm = keras.layers.BatchNormalization(dtype=self.dtype_policy, name="norm")
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.norm.build((*input_shape[:-1], self.units))

    def call(self, x, training=None):
        return self.relu(self.norm(self.dense(x), training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)


class Pair(keras.layers.Layer):
    """A block of blocks that takes a list and returns a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = Block(name="first")
        self.second = Block(name="second")

    def call(self, tensors, training=None):
        a, b = tensors
        a = self.first(a, training=training)
        return [a, self.second(a + b[..., :4], training=training) * 0.5]


class BlockWith(keras.layers.Layer):
    """A dense layer, and something beside it that a graph of layers does not show."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")
        self.spare = keras.layers.Dense(4, name="spare")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.spare.build(input_shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 4)


class BlockWithScale(BlockWith):
    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

    def call(self, x):
        return self.dense(x) * self.scale


class BlockThatReadsAKernel(BlockWith):
    def call(self, x):
        return keras.ops.matmul(self.dense(x), keras.ops.transpose(self.spare.kernel))


class BlockThatReadsTheBatchSize(BlockWith):
    def call(self, x):
        return keras.ops.reshape(self.dense(x), (keras.ops.shape(x)[0], 4))


class BlockThatMapsItsRows(BlockWith):
    def call(self, x):
        return keras.ops.map(lambda row: self.dense(row[None])[0], x)


class BlockThatMapsItsRowsAtOnce(BlockWith):
    def call(self, x):
        return keras.ops.vectorized_map(lambda row: self.dense(row[None])[0], x)


class BlockWithRandomState(BlockWith):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x, training=None):
        x = self.dense(x)
        if training:
            x = x + keras.random.normal(keras.ops.shape(x), seed=self.seed)
        return x


def run(graph, tensors):
    """Run all calls in order and return the outputs as arrays."""
    values = dict(zip(graph.inputs, map(keras.ops.convert_to_tensor, tensors)))
    for call in graph.calls:
        values.update(zip(call.outputs, call.run(values)))
    return [keras.ops.convert_to_numpy(values[value]) for value in graph.outputs]


def predict(model, tensors):
    tensors = list(map(keras.ops.convert_to_tensor, tensors))
    outputs = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def assert_runs_like_the_model(model, *tensors):
    for expected, actual in zip(predict(model, tensors), run(flatten(model), tensors), strict=True):
        assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def randomize(model):
    """Give every variable a value that a mistake would show in."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(rng.uniform(0.2, 1.0, variable.shape))


def node_counts(model):
    return [(len(layer._inbound_nodes), len(layer._outbound_nodes))
            for layer in model._flatten_layers()]


def kinds(graph):
    return [type(call.operation).__name__ for call in graph.calls]


def array(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def test_keras_still_has_the_private_names_that_are_read():
    """A Keras that renames them must be noticed here first, with the name in the message."""
    inputs = keras.Input((4,))
    block = Block()
    model = keras.Model(inputs, block(inputs))
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    node = model.output._keras_history.operation._inbound_nodes[0]

    assert isinstance(model, Functional)
    assert isinstance(sequential._functional, Functional)
    assert sum(map(len, model._nodes_by_depth.values())) == 2
    assert node.operation is block and not node.is_input
    assert [id(t) for t in node.input_tensors] == [id(inputs)]
    assert [id(t) for t in node.outputs] == [id(model.output)]
    assert node.arguments.args[0] is inputs and node.arguments.kwargs == {}
    assert [id(t) for t in node.arguments.keras_tensors] == [id(inputs)]
    assert node.arguments.fill_in({id(inputs): "x"}) == (("x",), {})
    for name in ("_inbound_nodes", "_outbound_nodes", "_trainable_variables",
                 "_non_trainable_variables", "_seed_generators", "_convert_input_args",
                 "_flatten_layers", "_open_name_scope", "quantization_mode"):
        assert hasattr(block, name), name
    masked = keras.layers.Embedding(3, 2, mask_zero=True)(keras.Input((5,), dtype="int32"))
    assert masked._keras_mask is not None
    assert "training" in inspect.signature(Functional.call).parameters


def test_layers_made_of_layers_are_looked_into():
    a, b = keras.Input((4,)), keras.Input((6,))
    model = keras.Model([a, b], Pair(name="pair")([a, b]))
    randomize(model)

    graph = flatten(model)

    block = ["Dense", "BatchNormalization", "ReLU"]
    assert kinds(graph) == [*block, "GetItem", "Add", *block, "Multiply"]
    assert [call.name for call in graph.calls[:2]] == ["pair/first/dense", "pair/first/norm"]
    assert {call.top_level_name for call in graph.calls} == {"pair"}
    assert graph.calls[0].operation is model.get_layer("pair").first.dense
    assert not any(call.opaque for call in graph.calls)
    assert_runs_like_the_model(model, array(3, 4), array(3, 6))


def test_a_keyword_tensor_reaches_the_parts():
    class Gate(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x, gate=None):
            return self.dense(x) * gate

    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], Gate()(a, gate=b))

    assert kinds(flatten(model)) == ["Dense", "Multiply"]
    assert_runs_like_the_model(model, array(3, 4), array(3, 4))


def test_looking_leaves_no_trace_on_the_model():
    """Nodes, paths and variables are the same after as before."""
    a, b = keras.Input((4,)), keras.Input((6,))
    model = keras.Model([a, b], Pair(name="pair")([a, b]))
    nodes, values = node_counts(model), model.get_weights()
    paths = [layer.path for layer in model._flatten_layers()]

    for _ in range(2):
        flatten(model)

    assert nodes == node_counts(model)
    assert paths == [layer.path for layer in model._flatten_layers()]
    for before, after in zip(values, model.get_weights(), strict=True):
        assert_array_equal(before, after)


def test_a_part_that_is_first_called_while_looking_gets_its_full_path():
    class Flat(BlockWith):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.flat = keras.layers.Flatten(name="flat")

        def call(self, x):
            return self.flat(self.dense(x))

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Flat(name="block")(inputs))

    flatten(model)

    assert model.get_layer("block").flat.path == "block/flat"


def test_nodes_are_taken_away_also_when_looking_fails():
    inputs = keras.Input((4,))

    class FailsLate(BlockWith):
        def call(self, x):
            x = self.dense(x)
            if isinstance(x, keras.KerasTensor):
                raise TypeError("no symbols\nplease")
            return x

    model = keras.Model(inputs, FailsLate()(inputs))
    nodes = node_counts(model)

    (call,) = flatten(model).calls

    assert nodes == node_counts(model)
    assert "TypeError: no symbols)" in call.opaque
    assert_runs_like_the_model(model, array(3, 4))


@pytest.mark.parametrize("block, reason", [
    (BlockWithScale, "variables of its own"),
    (BlockThatReadsAKernel, "tensors that do not come from its input"),
    (BlockThatReadsTheBatchSize, "a size that is not fixed"),
    (BlockThatMapsItsRows, "a function to an operation"),
    (BlockThatMapsItsRowsAtOnce, "a function to an operation"),
    (BlockWithRandomState, "random state"),
])
def test_a_layer_whose_parts_do_not_tell_all_stays_one_call(block, reason):
    """Looking into it would freeze a variable or a size; the call must follow later values."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, block(name="block")(inputs))

    graph = flatten(model)
    randomize(model)

    assert [call.name for call in graph.calls] == ["block"]
    assert reason in graph.calls[0].opaque
    x = array(3, 4)
    assert_allclose(run(graph, [x])[0], predict(model, [x])[0], rtol=1e-6)


def test_a_layer_that_makes_weights_while_it_runs_stays_one_call():
    class Careless(BlockWith):
        def call(self, x):
            return keras.layers.Dense(4)(self.dense(x))

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Careless()(inputs))

    (call,) = flatten(model).calls

    assert "a layer that it does not own" in call.opaque


def test_a_layer_that_returns_its_input_makes_no_call():
    class Switched(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5)

        def call(self, x, training=None):
            return self.dropout(x, training=True) if training else x

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Switched()(inputs)))

    graph = flatten(model)

    assert kinds(graph) == ["Dense"]
    assert graph.calls[0].inputs == graph.inputs
    assert_runs_like_the_model(model, array(3, 4))


@pytest.mark.parametrize("is_sequential", [False, True])
def test_a_nested_model_called_twice_is_two_rows_of_calls(is_sequential):
    if is_sequential:
        nested = keras.Sequential([keras.Input((4,)), Block(name="block"), keras.layers.Dense(4)],
                                  name="nested")
    else:
        inner = keras.Input((4,))
        nested = keras.Model(inner, keras.layers.Dense(4)(Block(name="block")(inner)),
                             name="nested")
    inputs = keras.Input((4,))
    # `training=` at the call is how frozen backbones are written.
    model = keras.Model(inputs, nested(nested(inputs, training=False)))
    randomize(model)

    graph = flatten(model)

    assert kinds(graph) == 2 * ["Dense", "BatchNormalization", "ReLU", "Dense"]
    assert len({value for call in graph.calls for value in call.outputs}) == 8
    assert {call.top_level_name for call in graph.calls} == {"nested"}
    assert_runs_like_the_model(model, array(3, 4))


def test_inputs_of_a_nested_model_may_be_named():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    nested = keras.Model({"left": left, "right": right}, keras.layers.Subtract()([left, right]))
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], nested({"right": a, "left": b}))

    assert kinds(flatten(model)) == ["Subtract"]
    assert_runs_like_the_model(model, array(3, 4), array(2, 3, 4)[1])


def test_a_nested_model_with_its_own_call_stays_one_call():
    @keras.saving.register_keras_serializable(package="test_flattening")
    class Doubled(keras.Model):
        def call(self, x, training=None):
            return 2.0 * super().call(x, training=training)

    inner, inputs = keras.Input((4,)), keras.Input((4,))
    nested = Doubled(inner, keras.layers.Dense(4)(inner))
    model = keras.Model(inputs, nested(inputs))

    assert_runs_like_the_model(model, array(3, 4))


def test_shapes_are_those_of_the_call_and_not_of_the_nested_model():
    inner = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inner)
    nested = keras.Model(inner, keras.layers.MaxPooling2D(2)(x))
    inputs = keras.Input((12, 10, 3))
    model = keras.Model(inputs, nested(inputs))

    graph = flatten(model)

    assert [graph.specs[call.outputs[0]].shape for call in graph.calls] == [
        (None, 10, 8, 4), (None, 5, 4, 4)]
    assert_runs_like_the_model(model, array(2, 12, 10, 3))


def test_training_is_off_whatever_was_recorded():
    inputs = keras.Input((50,))
    x = keras.layers.Dropout(0.9)(inputs, training=True)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(x))
    x = array(3, 50)

    assert_allclose(run(flatten(model), [x])[0], predict(model, [x])[0])
    assert_allclose(run(flatten(model), [x])[0], x, rtol=1e-2)


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_layer_that_trains_its_parts_stays_one_call(is_nested):
    """Keras switches off `training=True` in a model's graph, and leaves it in a layer's code."""

    class Adapting(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="adapting")
            norm = keras.layers.BatchNormalization()
            self.norm = keras.Sequential([keras.Input((4,)), norm]) if is_nested else norm

        def build(self, input_shape):
            if not is_nested:
                self.norm.build(input_shape)

        def call(self, x):
            return self.norm(x, training=True)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Adapting()(inputs))

    graph = flatten(model)

    assert [call.name for call in graph.calls] == ["adapting"]
    assert "`training=True`" in graph.calls[0].opaque
    x = 5 + array(6, 4)
    assert_allclose(run(graph, [x])[0], predict(model, [x])[0], rtol=1e-5)


def test_mixed_precision_casts_as_the_model_does():
    """A layer casts what it is called on, and a nested model what it receives."""
    inner = keras.Input((4,))
    nested = keras.Model(inner, keras.ops.exp(inner) * 1.001)
    inputs = keras.Input((4,))
    x = Block(dtype="mixed_float16", name="block")(inputs)
    model = keras.Model(inputs, [x, nested(x)])
    randomize(model)

    graph = flatten(model)

    assert kinds(graph)[0] == "Cast"
    assert [graph.specs[value].dtype for value in graph.outputs] == ["float16", "float32"]
    x = array(3, 4)
    for expected, actual in zip(predict(model, [x]), run(graph, [x]), strict=True):
        assert actual.dtype == expected.dtype
        assert_array_equal(actual, expected)


def _attention(x):
    return keras.layers.MultiHeadAttention(2, 3)(x, x)


def _attention_by_keyword(x):
    return keras.layers.MultiHeadAttention(2, 3, dropout=0.1)(x, value=x[:, :3])


def _bidirectional(x):
    return keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(x)


def _recurrent(x):
    return keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.SimpleRNNCell(2)])(x)


def _time_distributed(x):
    return keras.layers.TimeDistributed(keras.layers.Dense(3))(x)


def _activation_layer(x):
    return keras.layers.Conv1D(3, 2, activation=keras.layers.LeakyReLU())(x)


def _spectral(x):
    return keras.layers.SpectralNormalization(keras.layers.Dense(3))(x)


@pytest.mark.parametrize("layer", [_attention, _attention_by_keyword, _bidirectional, _recurrent,
                                   _time_distributed, _activation_layer, _spectral])
def test_layers_of_keras_that_hold_layers_compute_the_same(layer):
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layer(inputs))
    nodes = node_counts(model)
    randomize(model)

    graph = flatten(model)

    assert nodes == node_counts(model)
    assert graph.specs[graph.outputs[0]].shape == model.output.shape
    assert_runs_like_the_model(model, array(3, 5, 4))


def test_a_masked_input_keeps_a_layer_whole():
    class Summed(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x, mask=None):
            x = self.dense(x)
            if mask is not None:
                x = x * keras.ops.cast(mask[..., None], x.dtype)
            return keras.ops.sum(x, axis=1)

        def compute_mask(self, x, previous_mask):
            return None

    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(3, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, Summed()(x))
    randomize(model)

    graph = flatten(model)

    assert kinds(graph) == ["Embedding", "NotEqual", "Summed"]
    assert "mask" in graph.calls[2].opaque
    assert_runs_like_the_model(model, np.array([[1, 2, 0, 0, 1]], "int32"))


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(ValueError, match=r"Functional or Sequential.*Subclassed.*keras\.Model\("):
        flatten(Subclassed())
    with pytest.raises(ValueError, match="Received: a Dense"):
        flatten(keras.layers.Dense(2))

    # The cure of the message works.
    inputs = keras.Input((4,))
    assert kinds(flatten(keras.Model(inputs, Subclassed()(inputs)))) == ["Dense"]


def test_outputs_in_a_dict_need_an_order():
    inputs = keras.Input((4,))
    early = keras.layers.Dense(2, name="b")(inputs)
    late = keras.layers.Dense(2, name="a")(early)
    model = keras.Model(inputs, {"late": late, "early": early})

    with pytest.raises(ValueError, match=r"order=\['late', 'early'\]|order=\['early', 'late'\]"):
        flatten(model)
    with pytest.raises(ValueError, match="Did you mean 'early' by 'erly'"):
        flatten(model, order=["erly", "late"])
    with pytest.raises(ValueError, match="each output once"):
        flatten(model, order=["early"])

    graph = flatten(model, order=["early", "late"])
    assert graph.output_names == ("early", "late")
    assert graph.outputs == (graph.calls[0].outputs[0], graph.calls[1].outputs[0])


def test_outputs_nested_with_a_dict_are_refused():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, [x, {"b": keras.layers.Dense(2)(x)}])

    with pytest.raises(ValueError, match="flat list"):
        flatten(model)


def test_flattening_is_quiet():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Block()(inputs))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flatten(model)


class SlowBlock(Block):
    """A block that lets other threads run between its parts."""

    def call(self, x, training=None):
        x = self.dense(x)
        time.sleep(0.005)
        return self.relu(self.norm(x, training=training))


def test_threads_that_flatten_one_model_do_not_disturb_each_other():
    """Each sees all layers, and none leaves a trace."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, SlowBlock()(SlowBlock()(inputs)))
    expected, before = kinds(flatten(model)), node_counts(model)
    barrier = threading.Barrier(4)

    def flatten_at_once(_):
        barrier.wait()
        return flatten(model)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(flatten_at_once, range(4)))

    assert [kinds(graph) for graph in graphs] == [expected] * 4
    assert node_counts(model) == before


def test_a_fingerprint_stays_while_a_model_computes_the_same():
    """Whatever it is used for, and whatever its weights are."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Block()(inputs))
    before = fingerprint(model)

    flatten(model)
    keras.Model(inputs, keras.layers.Dense(2)(model(inputs)))
    model.set_weights([values + 1 for values in model.get_weights()])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    model.fit(np.zeros((2, 4)), np.zeros((2, 4)), verbose=0)

    assert fingerprint(model) == before


def test_a_fingerprint_tells_of_settings_at_all_depths():
    inputs = keras.Input((4,))
    block = Block()
    model = keras.Model(inputs, keras.Sequential([block])(inputs))
    marks = [fingerprint(model)]

    block.relu.negative_slope = 0.1
    marks.append(fingerprint(model))
    block.units = 5  # which its code may use
    marks.append(fingerprint(model))

    assert marks[0] != marks[1] != marks[2]
