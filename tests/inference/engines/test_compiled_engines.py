"""The engines that run written stages: ONNX Runtime and OpenVINO."""

import subprocess
import sys
import threading
import weakref

import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.inference.engines import ENGINES, make_engine, prepare_engine
from keras_adaptive.inference.engines.rows import Buffers, gather_rows

pytest.importorskip("onnx")
IS_LOGITS = [True, False, True, True]


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request, network):
    pytest.importorskip(request.param)
    engine = make_engine(request.param)
    engine.prepare(split_into_stages(network), IS_LOGITS)
    return engine


def run_all(engine, pictures):
    """Run the four stages on everybody and return the probabilities of each."""
    values, results = {engine.reads(1)[0]: pictures}, []
    for index in (1, 2, 3, 4):
        probabilities, made = engine.run(
            index, [values[key] for key in engine.reads(index)], len(pictures))
        values.update(zip(engine.makes(index), made))
        results.append(probabilities)
    return np.stack(results)


@pytest.mark.parametrize("num_rows", [1, 3, 16, 41])
def test_stages_in_sequence_equal_the_network(engine, images, all_probabilities, num_rows):
    """Answers are those of Keras, softmax included, for any number of rows."""
    results = run_all(engine, images[:num_rows].astype("float32"))

    assert results.dtype == np.float32
    np.testing.assert_allclose(results, all_probabilities[:, :num_rows], atol=1e-5)


def test_results_of_one_run_survive_the_next(engine, images):
    """What was handed on is not written over when the stage runs again."""
    first = images[:5].astype("float32")
    _, made = engine.run(1, [first], 64)
    kept = [tensor.copy() for tensor in made]

    engine.run(1, [images[5:10].astype("float32")], 64)

    for tensor, before in zip(made, kept):
        np.testing.assert_array_equal(tensor, before)


def test_threads_share_an_engine(engine, images, all_probabilities):
    """Four threads at once get the answers of one."""
    failures = []

    def work():
        try:
            for _ in range(5):
                results = run_all(engine, images[:7].astype("float32"))
                np.testing.assert_allclose(results, all_probabilities[:, :7], atol=1e-5)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures


def test_bfloat16_is_close(network, images, all_probabilities):
    """In half precision probabilities differ in the second digit at most."""
    pytest.importorskip("openvino")
    engine = make_engine("openvino_bfloat16")
    engine.prepare(split_into_stages(network), IS_LOGITS)

    results = run_all(engine, images[:4].astype("float32"))

    np.testing.assert_allclose(results, all_probabilities[:, :4], atol=0.1)


def test_the_engine_that_runs_by_default(network):
    """ONNX Runtime is taken where it is installed, on a computer without accelerator."""
    pytest.importorskip("onnxruntime")

    engine = prepare_engine("auto", split_into_stages(network), IS_LOGITS)

    assert engine.name == "onnxruntime"


def test_keras_runs_what_cannot_be_written():
    """The default engine says so, and gives the model's answers."""
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.Dense(3)(keras.ops.reshape(inputs, (-1, 4)))
    x = keras.layers.Flatten()(keras.ops.reshape(x, (-1, 6, 6, 3)))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    pictures = np.random.default_rng(0).normal(size=(5, 6, 6, 4)).astype("float32")

    with pytest.warns(UserWarning, match="The Keras engine runs now"):
        engine = prepare_engine("auto", split_into_stages(model), [False])

    probabilities, _ = engine.run(1, [pictures], 5)
    np.testing.assert_allclose(probabilities, model.predict(pictures, verbose=0), atol=1e-6)


def test_unknown_engines_are_refused():
    """The message lists the engines and names the nearest."""
    with pytest.raises(ValueError, match="Did you mean 'onnxruntime'"):
        make_engine("onnx_runtime")


@pytest.mark.parametrize("name", ["onnx_engine", "openvino_engine"])
def test_engines_of_written_stages_import_no_keras(name):
    """They start in a fraction of a second, also where Keras is not installed."""
    code = (f"import sys; import keras_adaptive.inference.engines.{name}; "
            "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'onnx', 'onnxruntime', "
            "'openvino') if m in sys.modules])")

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True).stdout

    assert output.strip() == "[]"


def test_all_names_make_an_engine():
    """Every name that the messages list is one."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")

    assert all(hasattr(make_engine(name), "gather") for name in ENGINES)


def test_rows_of_several_arrays():
    """Rows come in the order of the parts; a whole single array is not copied."""
    a = np.arange(12, dtype="float32").reshape(4, 3)
    b = np.arange(12, 18).reshape(2, 3).astype("uint8")
    buffers = Buffers()

    assert gather_rows([(a, None)], buffers) is a
    np.testing.assert_array_equal(gather_rows([(a, np.array([3, 0]))], buffers), a[[3, 0]])
    np.testing.assert_array_equal(gather_rows([(b, np.array([1]))], buffers), b[1:])
    np.testing.assert_array_equal(
        gather_rows([(a, np.array([2])), (b, None)], buffers), np.concatenate([a[2:3], b]))


def test_memory_is_used_again_when_nobody_holds_it():
    """Not while somebody has an array, or a part of one in another shape."""
    buffers = Buffers()
    array = buffers.empty((300, 200))
    part = array[7:9].reshape(-1)
    address = array.ctypes.data

    assert buffers.empty((300, 200)).ctypes.data != address
    del array
    assert buffers.empty((300, 200)).ctypes.data != address
    del part
    addresses = [buffers.empty((299, 200)).ctypes.data for _ in range(3)]
    assert address in addresses


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_memory_in_use_is_told_on_every_version_of_python(difference, monkeypatch):
    """Counting references adds some of its own, one less since Python 3.14."""
    count = sys.getrefcount
    # This function in between adds one.
    monkeypatch.setattr(sys, "getrefcount", lambda array: count(array) - 1 + difference)
    buffers = Buffers()
    array = buffers.empty((300, 200))
    address = array.ctypes.data

    assert buffers.empty((300, 200)).ctypes.data != address
    del array
    assert address in [buffers.empty((300, 200)).ctypes.data for _ in range(3)]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_large_pictures_run_in_small_batches(name):
    """The larger the pictures, the fewer at a time, so that maps stay in the caches."""
    engine = make_engine(name)

    assert engine.best_rows((32, 32)) > engine.best_rows((64, 64)) > engine.best_rows((224, 224))
    assert engine.best_rows((5000, 5000)) >= 1


def test_arrays_of_a_rare_huge_batch_are_not_held():
    buffers = Buffers()
    size = Buffers._LARGEST_SIZE
    held = weakref.ref(buffers.empty([size]).base)
    gone = weakref.ref(buffers.empty([size + 1]))
    assert held() is not None and gone() is None
