"""A network small enough for many runs, pictures that leave it at different exits, and the rule
that its answers must follow."""

import collections
import types

import keras
import numpy as np
import pytest

from keras_adaptive.inference.engines import keras_engine

NUM_CLASSES = 5


def _randomize(model, rng):
    """Give every weight, moving statistics included, a value that matters."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights([
                rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape),
                rng.normal(0, 0.3, shape), rng.uniform(0.5, 1.5, shape),
            ])
        elif layer.weights:
            kernel, bias = layer.get_weights()
            fan_in = np.prod(kernel.shape[:-1])
            layer.set_weights([
                rng.normal(0, (2 / fan_in) ** 0.5, kernel.shape), rng.normal(0, 0.1, bias.shape)
            ])


def _spread_confidences(model, pictures):
    """Scale the heads so that logits are centred and of a size at which confidences differ."""
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    logits = keras.Model(model.inputs, [head.output for head in heads])
    for head, values in zip(heads, outputs_of(logits, pictures)):
        kernel, bias = head.get_weights()
        mean = values.mean(axis=0)
        scale = 2 / (values - mean).std()
        head.set_weights([kernel * scale, (bias - mean) * scale])


def outputs_of(model, pictures):
    """Return the outputs of the whole network as float32 NumPy arrays."""
    outputs = model.predict(pictures.astype("float32"), batch_size=len(pictures), verbose=0)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(output, "float32") for output in outputs]


@pytest.fixture(scope="session")
def images():
    """Return 41 coloured patterns of different contrast, uint8."""
    rng = np.random.default_rng(7)
    coarse = rng.uniform(0, 255, (41, 4, 4, 3)).repeat(2, axis=1).repeat(2, axis=2)
    fine = rng.uniform(0, 255, (41, 8, 8, 3))
    mixture = rng.uniform(0, 1, (41, 1, 1, 1))
    return (mixture * coarse + (1 - mixture) * fine).astype("uint8")


@pytest.fixture(scope="session")
def make_network(images):
    """Return a function that builds a network of four exits from a seed.

    The first exit's features are read again by the third and fourth, so that tensors travel past
    stages that have no use for them. Exit 2 gives probabilities, the others logits.
    """

    def make(seed=1):
        def conv(x, filters, strides=1):
            # On JAX a random initializer compiles once per shape; all values are set below.
            x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same",
                                    kernel_initializer="zeros")(x)
            return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))

        def head(x):
            x = keras.layers.GlobalAveragePooling2D()(x)
            return keras.layers.Dense(NUM_CLASSES, kernel_initializer="zeros")(x)

        pictures = keras.Input((8, 8, 3))
        stem = conv(keras.layers.Rescaling(1 / 64, -2)(pictures), 6)
        small = conv(stem, 6, strides=2)
        exit2 = keras.layers.Softmax()(head(small))
        joined = keras.layers.Concatenate()([conv(stem, 6, strides=2), small])
        exit4 = head(conv(keras.layers.Concatenate()([joined, conv(stem, 4, strides=2)]), 8))
        model = keras.Model(pictures, [head(stem), exit2, head(conv(joined, 6)), exit4])
        _randomize(model, np.random.default_rng(seed))
        _spread_confidences(model, images)
        return model

    return make


@pytest.fixture(scope="session")
def network(make_network):
    return make_network()


@pytest.fixture(scope="session")
def all_probabilities(network, images):
    """Return the probabilities of every exit, shape (exits, pictures, classes)."""
    return probabilities_of(network, images, gives_logits=(True, False, True, True))


def probabilities_of(model, pictures, gives_logits):
    return np.stack([
        _softmax(values) if is_logits else values
        for values, is_logits in zip(outputs_of(model, pictures), gives_logits)
    ])


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def simulate_exits(probabilities, threshold, exits=None):
    """Choose exits after the whole network has run, one picture after the other.

    Returns a namespace with `exits`, `probabilities` and `is_close`: whether a confidence that
    was compared lies within 1e-5 of its threshold.
    """
    num_exits, num_pictures, _ = probabilities.shape
    thresholds = np.broadcast_to(np.float32(threshold), num_exits)
    exits = sorted(exits or range(1, num_exits + 1))
    taken, is_close = [], []
    for picture in range(num_pictures):
        close = False
        for number in exits:
            confidence = probabilities[number - 1, picture].max()
            if number == exits[-1]:
                break
            close |= abs(confidence - thresholds[number - 1]) <= 1e-5
            if confidence >= thresholds[number - 1]:
                break
        taken.append(number)
        is_close.append(close)
    taken = np.array(taken)
    return types.SimpleNamespace(
        exits=taken,
        probabilities=probabilities[taken - 1, np.arange(num_pictures)],
        is_close=np.array(is_close),
    )


@pytest.fixture(scope="session")
def simulate():
    return simulate_exits


@pytest.fixture(scope="session")
def whole():
    """Return the function that runs a whole network: model, pictures, kinds of outputs."""
    return probabilities_of


@pytest.fixture
def executions(monkeypatch):
    """Count how often the Python code of each stage runs: once per compilation, if compiled."""
    counts = collections.Counter()
    call = keras_engine._StageProgram.__call__

    def counting_call(self, tensors):
        counts[self.stage.index] += 1
        return call(self, tensors)

    monkeypatch.setattr(keras_engine._StageProgram, "__call__", counting_call)
    return counts
