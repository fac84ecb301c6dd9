import warnings
from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.graph import Call, flatten, split_into_stages
from keras_adaptive.models import MSDNet, RANet

# --- Small layers, and random graphs made of them -------------------------------------------------

WIDTH = 4


@keras.saving.register_keras_serializable(package="test_stages")
class Residual(keras.layers.Layer):
    """A layer made of layers, with an operation between them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = _dense(name="dense")
        self.norm = keras.layers.BatchNormalization(name="norm")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.norm.build(input_shape)

    def call(self, x, training=None):
        return x + keras.ops.tanh(self.norm(self.dense(x), training=training))

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="test_stages")
class TwoBranches(keras.layers.Layer):
    """A layer made of layers made of layers: list in, list out, one output needs less."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left = Residual(name="left")
        self.right = Residual(name="right")

    def build(self, input_shape):
        self.left.build(input_shape[0])
        self.right.build(input_shape[0])

    def call(self, tensors, training=None):
        a, b = tensors
        left = self.left(a, training=training)
        return [left, self.right(left - b, training=training)]


@keras.saving.register_keras_serializable(package="test_stages")
class Whole(keras.layers.Layer):
    """As `TwoBranches`, but with a variable of its own: it cannot be looked into."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = _dense(name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")

    def call(self, x):
        return [self.dense(x), x * self.scale]


def _dense(**kwargs):
    # A constant initial value: JAX compiles random ones, which takes long. Values are set later.
    return keras.layers.Dense(WIDTH, kernel_initializer="ones", **kwargs)


def _nested(is_sequential):
    if is_sequential:
        return keras.Sequential([keras.Input((WIDTH,)), _dense(), Residual()])
    inputs = keras.Input((WIDTH,))
    x = Residual()(inputs)
    return keras.Model(inputs, [x, _dense()(x), inputs])


def _grow(draw, values, reusable):
    """Add one to three random values to a graph; a layer may be one that was called before."""
    kind = draw(st.sampled_from(
        ["dense", "residual", "add", "ops", "split", "branches", "whole", "nested", "sequential"]))

    def pick():
        return values[draw(st.integers(0, len(values) - 1))]

    def layer(make):
        known = reusable.setdefault(kind, [])
        if not known or draw(st.booleans()):
            known.append(make())
        return known[draw(st.integers(0, len(known) - 1))]

    if kind == "dense":
        new = layer(_dense)(pick())
    elif kind == "residual":
        new = layer(Residual)(pick())
    elif kind == "add":
        new = keras.layers.Add()([pick(), pick()])
    elif kind == "ops":
        new = keras.ops.concatenate([pick()[:, 2:], 0.5 * pick()[:, :2]], axis=-1)
    elif kind == "split":
        new = [keras.ops.tile(half, (1, 2)) for half in keras.ops.split(pick(), 2, axis=-1)]
    elif kind == "branches":
        new = layer(TwoBranches)([pick(), pick()])
    elif kind == "whole":
        new = layer(Whole)(pick())
    else:
        new = layer(lambda: _nested(kind == "sequential"))(pick())
    values.extend(new if isinstance(new, list) else [new])


@st.composite
def random_models(draw):
    inputs = [keras.Input((WIDTH,)) for _ in range(draw(st.integers(1, 2)))]
    values, reusable = list(inputs), {}
    for _ in range(draw(st.integers(2, 9))):
        _grow(draw, values, reusable)
    made = values[len(inputs):]
    num_exits = draw(st.integers(1, 4))
    # A value may be an exit twice, and an exit may lie before an earlier one.
    chosen = [made[draw(st.integers(0, len(made) - 1))] for _ in range(num_exits)]
    exits = [_dense(name=f"exit{i}")(x) if draw(st.booleans()) else x
             for i, x in enumerate(chosen, start=1)]
    used = keras.Model(inputs, exits)
    randomize(used)
    return used


# --- Helpers --------------------------------------------------------------------------------------


def randomize(model):
    """Give every variable a value that a mistake would show in."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(rng.uniform(0.1, 0.6, variable.shape))


def _he_normal(initializer, shape, dtype=None):
    is_depthwise = shape[-1] == 1
    fan_in = np.prod(shape[:2] if is_depthwise else shape[:3])
    return np.random.default_rng(shape).normal(0, (2 / fan_in) ** 0.5, shape).astype("float32")


def arrays(model, batch=3):
    rng = np.random.default_rng(1)
    return [rng.uniform(-1, 1, (batch, *x.shape[1:])).astype("float32") for x in model.inputs]


def predict(model, tensors):
    tensors = list(map(keras.ops.convert_to_tensor, tensors))
    outputs = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    return list(map(keras.ops.convert_to_numpy, keras.tree.flatten(outputs)))


def run_stages(stages, tensors, call=lambda stage, tensors: stage(tensors)):
    outputs, carried = [], list(tensors)
    for stage in stages:
        output, *carried = call(stage, carried)
        assert len(carried) == len(stage.hands_on)
        outputs.append(keras.ops.convert_to_numpy(output))
    assert not carried, "the last stage hands nothing on"
    return outputs


def quiet_split(model, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return split_into_stages(model, **kwargs)


def assert_stages_equal_the_model(model, stages, rtol=1e-5, atol=1e-6):
    tensors = arrays(model)
    expected = predict(model, tensors)
    for want, got in zip(expected, run_stages(stages, tensors), strict=True):
        assert_allclose(got, want, rtol=rtol, atol=atol)


def state_of(model):
    return [(layer.name, layer.path, len(layer._inbound_nodes), len(layer._outbound_nodes),
             [v.path for v in layer.variables]) for layer in model._flatten_layers()]


def reload(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def ancestors(calls, value):
    """Return the positions of the calls that a value depends on, by following every read."""
    found = set()
    for i, call in enumerate(calls):
        if value in call.outputs:
            found.add(i)
            for read in call.inputs:
                found |= ancestors(calls[:i], read)
    return found


# --- Random graphs --------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(model=random_models())
def test_stages_of_random_graphs(model, tmp_path_factory):
    """In sequence they are the model; no call runs twice; nothing is carried that nobody reads."""
    before = state_of(model)
    tensors = arrays(model)
    expected = predict(model, tensors)
    graph = flatten(model)

    stages = quiet_split(model)

    # The stages compute what the model computes, each call once.
    runs = []
    original = Call.run
    with mock.patch.object(Call, "run", autospec=True,
                           side_effect=lambda c, v: runs.append(c.outputs) or original(c, v)):
        outputs = run_stages(stages, tensors)
    for want, got in zip(expected, outputs, strict=True):
        assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert len(runs) == len(set(runs)) == sum(len(stage.calls) for stage in stages)

    # A stage holds what its exit needs and no earlier exit needed.
    done = set()
    for stage, output in zip(stages, graph.outputs, strict=True):
        needed = ancestors(graph.calls, output) - done
        assert [c.outputs for c in stage.calls] == [graph.calls[i].outputs for i in sorted(needed)]
        done |= needed

    # A value is handed on exactly if somebody later reads it.
    for i, stage in enumerate(stages):
        read_later = {v for later in stages[i + 1:] for c in later.calls for v in c.inputs}
        read_later |= {later.exit_value for later in stages[i + 1:]}
        known = set(graph.inputs) | {v for s in stages[:i + 1] for c in s.calls for v in c.outputs}
        assert set(stage.hands_on) == read_later & known
        assert len(stage.hands_on) == len(set(stage.hands_on))
        assert stage.reads == (stages[i - 1].hands_on if i else graph.inputs)

    # The model is as before, and a file of it splits equally.
    assert state_of(model) == before
    restored = reload(model, tmp_path_factory.mktemp("saved"))
    assert state_of(model) == before
    assert [len(s.calls) for s in quiet_split(restored)] == [len(s.calls) for s in stages]
    for want, got in zip(expected, predict(restored, tensors), strict=True):
        assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# --- Networks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranet():
    model = RANet(scales=(1, 2, 3), channels=4, growth_rate=4, growth_factors=(2, 2, 1), blocks=1,
                  block_step=1, layers_per_block=2, compress_factor=0.5)
    randomize(model)
    return model


def test_ranet(ranet, tmp_path):
    tensors = arrays(ranet)
    expected = predict(ranet, tensors)
    before = state_of(ranet)

    stages = split_into_stages(ranet)

    assert len(stages) == len(ranet.outputs)
    for want, got in zip(expected, run_stages(stages, tensors), strict=True):
        # Random values make large logits, so the error is measured against the largest.
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    # Nothing that a picture leaving at exit 1 does not need is in stage 1.
    first = {call.top_level_name for call in stages[0].calls}
    assert first == {"stem", "base2", "base3", "subnetwork1_block1", "exit1"}
    assert state_of(ranet) == before
    restored = reload(ranet, tmp_path)
    for want, got in zip(expected, predict(restored, tensors), strict=True):
        assert_array_equal(got, want)


def test_dense_features_are_handed_on_as_one_tensor(ranet):
    """A block of the next sub-network reads prefixes of one tensor, so that one is carried."""
    stages = split_into_stages(ranet)

    # The base features of two sub-networks, and the first sub-network's block.
    shapes = [stages[0].specs[value].shape[1:] for value in stages[0].hands_on]
    assert len(shapes) == 3


def test_msdnet_leaves_the_fine_scales_at_the_end_of_a_block_to_the_next_stage():
    """Lazy evaluation: with d layers to the exit, only the d + 1 coarsest scales are needed."""
    model = MSDNet(channels=4, growth_rate=2, blocks=2, layers_in_first_block=3,
                   layers_per_block=1, layer_growth="even")
    randomize(model)

    stages = split_into_stages(model)

    names = [{call.top_level_name for call in stage.calls} for stage in stages]
    assert {name for name in names[0] if name.startswith("layer")} == {
        "layer1_scale1", "layer1_scale2", "layer1_scale3", "layer2_scale2", "layer2_scale3",
        "layer3_scale3"}
    # Two more layers follow in the second stage's path; the finest scales feed no exit at all.
    assert "layer3_scale2" in names[1] and "layer3_scale2" not in names[0]
    tensors = arrays(model)
    for want, got in zip(predict(model, tensors), run_stages(stages, tensors), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_mobilenet_with_two_exits_and_the_backbone_nested_inside():
    """The backbone is one layer of the model, and is cut where the first exit leaves it."""
    # Values from NumPy: JAX compiles every initial value by its shape.
    with mock.patch.object(keras.initializers.GlorotUniform, "__call__", _he_normal):
        whole = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False,
                                               weights=None)
    backbone = keras.Model(
        whole.input, [whole.get_layer("block_6_expand_relu").output, whole.output],
        name="backbone")
    inputs = keras.Input((32, 32, 3))
    early, late = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    pool = keras.layers.GlobalAveragePooling2D()
    model = keras.Model(inputs, [keras.layers.Dense(5, name="exit1")(pool(early)),
                                 keras.layers.Dense(5, name="exit2")(pool(late))])
    before = state_of(model)

    stages = split_into_stages(model)

    tensors = [100 * (1 + x) for x in arrays(model)]
    for want, got in zip(predict(model, tensors), run_stages(stages, tensors), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    names = [{call.name for call in stage.calls} for stage in stages]
    assert "backbone/block_5_add" in names[0] and "backbone/block_6_project" in names[1]
    assert not any(name.startswith("backbone/block_7") for name in names[0])
    assert len(stages[0].hands_on) == 1
    assert state_of(model) == before


def test_a_layer_reused_across_stages():
    """It is called in both, and both hold its one variable."""
    inputs = keras.Input((WIDTH,))
    shared, head = Residual(name="shared"), _dense(name="head")
    first = shared(inputs)
    model = keras.Model(inputs, [head(first), head(shared(first))])
    randomize(model)

    stages = split_into_stages(model)

    dense = [[c.name for c in s.calls if "dense" in c.name] for s in stages]
    assert dense == [["shared/dense"], ["shared/dense"]]
    assert_stages_equal_the_model(model, stages)
    model.get_layer("shared").dense.kernel.assign(np.eye(WIDTH))
    assert_stages_equal_the_model(model, stages)


def test_a_model_with_two_inputs_reads_the_second_late():
    a, b = keras.Input((WIDTH,), name="a"), keras.Input((WIDTH,), name="b")
    x = _dense()(a)
    model = keras.Model([a, b], [x, keras.layers.Add()([x, b])])

    stages = split_into_stages(model)

    assert_stages_equal_the_model(model, stages)
    assert stages[0].hands_on == (stages[0].reads[1], stages[0].calls[0].outputs[0])
    tensors = [keras.ops.convert_to_tensor(x) for x in arrays(model)]
    assert stages[0](tensors)[1] is tensors[1], "what passes through is not copied"


def test_a_model_with_one_output_is_one_stage():
    model = keras.Sequential([keras.Input((WIDTH,)), Residual(), _dense()])

    (stage,) = split_into_stages(model)

    assert stage.hands_on == ()
    assert_stages_equal_the_model(model, [stage])


def test_inputs_are_converted_as_the_model_converts_them():
    inputs = keras.Input((WIDTH,))
    model = keras.Model(inputs, [inputs * inputs, inputs + inputs])
    integers = np.arange(200, 208, dtype="uint8").reshape(2, WIDTH)  # twice that is no uint8

    outputs = run_stages(split_into_stages(model), [integers])

    for want, got in zip(predict(model, [integers]), outputs, strict=True):
        assert got.dtype == "float32"
        assert_allclose(got, want, rtol=1e-6)


# --- A stage as a layer ---------------------------------------------------------------------------


def test_a_stage_shares_the_variables_of_its_layers(ranet):
    stages = split_into_stages(ranet)

    shared = {id(v) for v in ranet.variables}
    in_stages = [id(v) for stage in stages for v in stage.variables]

    assert set(in_stages) == shared
    assert len(in_stages) == len(shared), "RANet uses every layer in one stage"


def test_a_compiled_stage_is_as_exact(ranet):
    """The ways in which engines run stages: stateless, traced, or without gradients."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def call(stage, tensors):
            program = jax.jit(lambda t, n, x: stage.stateless_call(t, n, x, training=False)[0])
            return program([v.value for v in stage.trainable_variables],
                           [v.value for v in stage.non_trainable_variables], tensors)
    elif backend == "tensorflow":
        import tensorflow as tf

        def call(stage, tensors):
            return tf.function(stage)([tf.convert_to_tensor(x) for x in tensors])
    else:
        import torch

        def call(stage, tensors):
            with torch.inference_mode():
                return stage.eval()([torch.as_tensor(x) for x in tensors])

    # Two stages suffice: they hand on several tensors.
    model = keras.Model(ranet.inputs, ranet.outputs[:2])
    tensors = arrays(model)

    for want, got in zip(predict(model, tensors),
                         run_stages(split_into_stages(model), tensors, call), strict=True):
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_a_stage_lets_go_of_tensors_that_are_no_longer_needed():
    """With a large batch the feature maps of a whole stage would not fit into memory."""
    inputs = keras.Input((WIDTH,))
    x = inputs
    for _ in range(6):
        x = _dense()(x)
    model = keras.Model(inputs, x)
    held = []
    original = Call.run

    (stage,) = split_into_stages(model)
    with mock.patch.object(Call, "run", autospec=True,
                           side_effect=lambda c, v: held.append(len(v)) or original(c, v)):
        stage(arrays(model))

    assert held == [1] * 6


def test_tensors_keep_their_dtypes_under_mixed_precision():
    """Float32 tensors are not rounded, nor float16 ones widened, between stages."""
    inputs = keras.Input((WIDTH,))
    half = keras.layers.Dense(WIDTH, dtype="mixed_float16")(inputs)
    full = keras.layers.Dense(WIDTH, dtype="float32")(inputs)
    model = keras.Model(inputs, [keras.layers.Add(dtype="float32")([half, full]),
                                 keras.layers.Subtract(dtype="float32")([half, full])])
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        stages = split_into_stages(model)
    finally:
        keras.config.set_dtype_policy(before)

    output, *carried = stages[0](arrays(model))

    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert sorted(keras.backend.standardize_dtype(x.dtype) for x in carried) == [
        "float16", "float32"]
    assert_stages_equal_the_model(model, stages, rtol=1e-6)


def test_a_stage_says_what_it_takes(ranet):
    stages = split_into_stages(ranet)

    with pytest.raises(ValueError, match=r"list of 1 tensors: the inputs of the model\. Received: "
                                         "a single tensor"):
        stages[0](arrays(ranet)[0])
    with pytest.raises(ValueError, match="what the stage before hands on. Received: 1"):
        stages[1](arrays(ranet))


def test_a_stage_is_not_saved(ranet):
    with pytest.raises(NotImplementedError, match="Save the model"):
        split_into_stages(ranet)[0].get_config()


# --- Order, and warnings --------------------------------------------------------------------------


def test_the_order_of_a_dict_of_outputs_is_asked_for():
    inputs = keras.Input((WIDTH,))
    early = Residual()(inputs)
    late = _dense(name="late")(early)
    model = keras.Model(inputs, {"late": late, "early": early})
    randomize(model)

    with pytest.raises(ValueError, match="order="):
        split_into_stages(model)
    stages = split_into_stages(model, order=["early", "late"])

    assert [call.name for call in stages[1].calls] == ["late"]
    outputs = model(arrays(model)[0], training=False)
    early, late = run_stages(stages, arrays(model))
    assert_allclose(early, keras.ops.convert_to_numpy(outputs["early"]), rtol=1e-6)
    assert_allclose(late, keras.ops.convert_to_numpy(outputs["late"]), rtol=1e-6)


def test_the_order_of_a_list_can_be_changed():
    inputs = keras.Input((WIDTH,))
    a = _dense(name="a")(inputs)
    model = keras.Model(inputs, [_dense(name="b")(a), a])

    stages = split_into_stages(model, order=["a", "b"])

    assert [[call.name for call in stage.calls] for stage in stages] == [["a"], ["b"]]


def test_an_exit_without_work_is_pointed_out():
    """The stage exists and gives the exit's output, but there is no sense in waiting for it."""
    inputs = keras.Input((WIDTH,))
    x = _dense(name="before")(inputs)
    model = keras.Model(inputs, [_dense(name="after")(x), x])

    with pytest.warns(UserWarning, match="Exit 2 .'before'. needs no operation"):
        stages = split_into_stages(model)

    assert stages[1].calls == ()
    assert_stages_equal_the_model(model, stages)


def test_an_opaque_layer_that_feeds_several_exits_is_pointed_out():
    inputs = keras.Input((WIDTH,))
    early, late = Whole(name="backbone")(inputs)
    model = keras.Model(inputs, [_dense()(early), _dense()(late)])

    with pytest.warns(UserWarning, match="'backbone'.*variables of its own.*exits 1, 2.*stage 1"):
        stages = split_into_stages(model)

    assert_stages_equal_the_model(model, stages)


def test_nothing_is_pointed_out_where_nothing_is_lost():
    """An opaque layer for one exit, and a convolution whose activation is a layer."""
    inputs = keras.Input((WIDTH, WIDTH, 3))
    x = keras.layers.Conv2D(WIDTH, 1, activation=keras.layers.LeakyReLU())(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, [_dense()(x), keras.layers.Add()(Whole()(x))])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stages = split_into_stages(model)

    assert_stages_equal_the_model(model, stages)


def test_a_mask_that_is_handed_on_is_pointed_out():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(3, 4, mask_zero=True)(inputs)
    first = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, [first, keras.layers.LSTM(2)(x)])

    with pytest.warns(UserWarning, match="Stage 1 hands on 1 tensors with a Keras mask"):
        split_into_stages(model)
