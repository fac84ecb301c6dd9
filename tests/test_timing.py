"""Timing: turns are fair, and the whole network is the model."""

import keras
import numpy as np
import pytest

from keras_adaptive.models import ResNet
from keras_adaptive.timing import (
    compile_whole,
    describe_machine,
    in_batches,
    median_ratio,
    time_in_turns,
)


def test_whole_network_compiled_equals_the_model(tiny_ranet, pictures):
    """What early exit is measured against gives every exit's logits, for any batch size."""
    whole = compile_whole(tiny_ranet)

    for batch in (pictures, pictures[:3]):
        expected = tiny_ranet.predict(batch, verbose=0)
        for output, logits in zip(whole(batch), expected, strict=True):
            np.testing.assert_allclose(output, logits, atol=1e-4)


def test_a_network_of_one_output_has_all_its_rows(pictures):
    """Keras gives its output as it is, not in a list; it is one array all the same."""
    model = ResNet(8, 4, num_classes=5)

    (output,) = compile_whole(model)(pictures)

    np.testing.assert_allclose(output, model.predict(pictures, verbose=0), atol=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_whole_network_on_an_engine_equals_the_model(tiny_ranet, pictures, engine):
    """One ONNX graph with all exits gives their logits in the exits' order."""
    pytest.importorskip("onnx")
    pytest.importorskip(engine)
    whole = compile_whole(tiny_ranet, engine)

    expected = tiny_ranet.predict(pictures, verbose=0)
    for output, logits in zip(whole(pictures), expected, strict=True):
        np.testing.assert_allclose(output, logits, atol=1e-4)


@pytest.mark.parametrize("exits", [(0, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exits_that_give_the_same_on_an_engine(exits, engine):
    """A tensor may be an output twice."""
    pytest.importorskip("onnx")
    pytest.importorskip(engine)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    outputs = [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)]
    model = keras.Model(inputs, [outputs[number] for number in exits])
    pictures = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("float32")

    found = compile_whole(model, engine)(pictures)

    for output, logits in zip(found, model.predict(pictures, verbose=0), strict=True):
        np.testing.assert_allclose(output, logits, atol=1e-5)


def test_batches_together_are_all_pictures_at_the_last_exit():
    def run(batch):
        return [batch * 0, batch + 1]

    assert in_batches(run, np.arange(7), 3).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_functions_take_turns():
    """After the warm-up each round calls every function once, in the same order."""
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}

    times_ms = time_in_turns(calls, repeats=3, warmups=1)

    assert order == ["a", "b"] * 4
    assert {name: len(samples) for name, samples in times_ms.items()} == {"a": 3, "b": 3}
    assert all(sample >= 0 for samples in times_ms.values() for sample in samples)


def test_ratio_is_that_of_the_medians():
    times_ms = {"a": [1, 2, 90], "b": [4, 4, 4]}

    assert median_ratio(times_ms, "a", "b") == pytest.approx(0.5)


def test_machine_is_told():
    machine = describe_machine()

    assert machine["processor"] and machine["cores"] >= 1
    assert machine["backend"] in ("tensorflow", "jax", "torch") and machine["backend_version"]
