import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.inference.engines.keras_engine import bucket_sizes, make_keras_engine

IS_LOGITS = [True, False, True, True]


@pytest.fixture
def engine(network):
    engine = make_keras_engine()
    engine.prepare(split_into_stages(network), IS_LOGITS)
    return engine


@pytest.fixture
def inputs(images):
    return images.astype("float32")


def run_all(engine, pictures, batch_size=64):
    """Run the four stages on everybody and return the probabilities of each."""
    carried, results = dict(zip(engine.reads(1), [pictures])), []
    for index in (1, 2, 3, 4):
        tensors = [carried[key] for key in engine.reads(index)]
        probabilities, made = engine.run(index, tensors, batch_size)
        carried.update(zip(engine.makes(index), made))
        results.append(probabilities)
    return np.stack(results)


@pytest.mark.parametrize("num_rows", [1, 3, 16, 41])
def test_stages_in_sequence_equal_the_network(engine, inputs, all_probabilities, num_rows):
    """Softmax included, for any number of rows, whatever they are padded to."""
    results = run_all(engine, inputs[:num_rows])

    assert results.dtype == np.float32
    np.testing.assert_allclose(results, all_probabilities[:, :num_rows], atol=1e-5)


def test_rows_can_be_gathered_between_stages(engine, inputs, all_probabilities):
    """Carried tensors keep their rows together through any regrouping."""
    first = dict(zip(engine.makes(1), engine.run(1, [inputs[:20]], 64)[1]))
    second = dict(zip(engine.makes(1), engine.run(1, [inputs[20:23]], 64)[1]))
    regrouped = [
        engine.gather([(second[key], np.array([2, 0])), (first[key], np.array([0])),
                       (second[key], None), (first[key], np.array([19, 7]))])
        for key in engine.reads(2)
    ]

    probabilities, _ = engine.run(2, regrouped, 64)

    np.testing.assert_allclose(
        probabilities, all_probabilities[1, [22, 20, 0, 20, 21, 22, 19, 7]], atol=1e-5)


def test_pictures_can_be_gathered_like_tensors(engine, inputs, all_probabilities):
    """A network that reads its input again late gets the survivors' pictures."""
    gathered = engine.gather([(inputs[:5], np.array([3, 1])), (inputs[5:7], None)])

    probabilities, _ = engine.run(1, [gathered], 64)

    np.testing.assert_allclose(probabilities, all_probabilities[0, [3, 1, 5, 6]], atol=1e-5)


def test_stages_read_what_they_need_and_hand_on_what_they_make(engine):
    """What only passes a stage by is neither its input nor its output."""
    made = [set(engine.makes(index)) for index in (1, 2, 3, 4)]
    reads = [set(engine.reads(index)) for index in (1, 2, 3, 4)]

    assert len(reads[0]) == 1
    assert all(not made[i] & made[j] for i in range(4) for j in range(i))
    assert reads[3] & made[0] and reads[3] & made[2], "exit 4 reads the stem again"
    assert not reads[3] & made[1] and not made[3]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs eagerly")
def test_nothing_is_compiled_anew_for_other_numbers_of_survivors(engine, inputs, executions):
    """TensorFlow traces a stage once; JAX compiles it for four sizes at most."""
    limit = {"tensorflow": 1, "jax": 4}[keras.backend.backend()]

    for num_rows in range(1, 33):
        run_all(engine, inputs[:num_rows], batch_size=32)

    assert set(executions) == {1, 2, 3, 4}
    assert max(executions.values()) <= limit


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 16, 17, 64, 100, 256, 4096])
def test_bucket_sizes_cover_every_batch_with_few_programs(batch_size):
    """From one row to a full batch something fits, and no more than four sizes are compiled."""
    sizes = bucket_sizes(batch_size)

    assert sizes[0] == 1 and sizes[-1] == batch_size
    assert len(sizes) <= 4
    assert sizes == sorted(set(sizes))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX's accelerators")
def test_on_an_accelerator_rows_stay_on_it(network, inputs, all_probabilities):
    """Rows of several batches are brought together on the device, in few sizes, with no change."""
    from keras_adaptive.inference.engines.keras_engine import JaxEngine, move_rows

    engine = JaxEngine(on_device=True)
    engine.prepare(split_into_stages(network), IS_LOGITS)
    batches = [inputs[:16], inputs[16:32], inputs[32:41]]
    made = [engine.run(1, [batch], 16)[1] for batch in batches]
    rng = np.random.default_rng(0)

    for _ in range(12):
        chosen = [np.sort(rng.choice(len(b), rng.integers(1, 6), replace=False)) for b in batches]
        tensors = [engine.gather([(tensors[i], rows) for tensors, rows in zip(made, chosen)])
                   for i in range(len(made[0]))]
        values = dict(zip(engine.makes(1), tensors))
        probabilities, _ = engine.run(2, [values[key] for key in engine.reads(2)], 16)

        positions = np.concatenate([16 * i + rows for i, rows in enumerate(chosen)])
        np.testing.assert_allclose(probabilities, all_probabilities[1, positions], atol=1e-5)
        assert not any(isinstance(tensor, np.ndarray) for tensor in tensors)
    num_programs = move_rows()._cache_size()
    assert num_programs <= 2 * 3 * 3 * len(made[0])


def test_frozen_layers_do_not_confuse_variables(make_network, inputs, all_probabilities):
    """Which variables are trainable may change between calls; answers do not."""
    network = make_network()
    engine = make_keras_engine()
    engine.prepare(split_into_stages(network), IS_LOGITS)
    layers = [layer for layer in network.layers if layer.weights]

    for frozen in (layers[:3], layers[3:]):
        for layer in layers:
            layer.trainable = layer not in frozen
        np.testing.assert_allclose(run_all(engine, inputs), all_probabilities, atol=1e-5)


L = keras.layers


@pytest.mark.parametrize("dtype, layers", [
    ("float32", [L.Activation("linear", dtype="float16"), L.Conv2D(3, 3, dtype="float32")]),
    ("float32", [L.Conv2D(3, 3), L.BatchNormalization(dtype="float16")]),
    ("float32", [L.Conv2D(3, 3), L.Activation("relu", dtype="float16")]),
    ("float32", [L.Activation("linear", dtype="float16"), L.ZeroPadding2D(1), L.Conv2D(3, 3)]),
    ("float16", [L.Conv2D(3, 3, activation="relu")]),
    ("float64", [L.Conv2D(3, 3)]),
], ids=["convolution", "norm", "activation", "padding", "float16 pictures", "float64 pictures"])
def test_dtypes_that_change_between_layers(dtype, layers, images):
    """Layers convert what they read, so that any mixture computes what the model computes."""
    inputs = x = keras.Input((8, 8, 3), dtype=dtype)
    for layer in layers:
        layer = type(layer).from_config(layer.get_config())
        x = layer(x)
    model = keras.Model(inputs, L.Dense(2, dtype="float32")(L.Flatten(dtype="float32")(x)))
    pictures = (images[:3] / 255).astype(dtype)
    engine = make_keras_engine()
    engine.prepare(split_into_stages(model), [False])

    outputs, _ = engine.run(1, [pictures], 3)

    np.testing.assert_allclose(outputs, model.predict(pictures, verbose=0), atol=2e-3)


def test_a_batch_that_changes_between_exits_is_an_error():
    """Rows that are no longer pictures cannot be picked; the message says where."""
    inputs = keras.Input((4, 4, 3))
    halves = keras.layers.Rescaling(2.0)(keras.ops.reshape(inputs, (-1, 2, 4, 3)))
    exit1 = keras.layers.Dense(2)(keras.ops.reshape(halves, (-1, 48)))
    exit2 = keras.layers.Dense(2)(keras.ops.reshape(halves * 2, (-1, 48)))
    engine = make_keras_engine()
    engine.prepare(split_into_stages(keras.Model(inputs, [exit1, exit2])), [True, True])

    with pytest.raises(ValueError, match="one row per picture"):
        engine.run(1, [np.zeros((3, 4, 4, 3), "float32")], 8)
