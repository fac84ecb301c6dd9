"""Boosting of exits: values and gradients by hand, and the tools that read the graph."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.export import export_stages
from keras_adaptive.graph import exit_macs, split_into_stages
from keras_adaptive.layers import ExitHead
from keras_adaptive.models import MSDNet, MultiExitModel, RANet
from keras_adaptive.models.precision import use_precision


def numbers(tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.fixture
def pictures():
    """As a predictor takes them."""
    return np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")


@pytest.fixture(params=["ranet", "msdnet"])
def networks(request, tiny_arguments):
    """The same network with and without boosting, of the same weights."""
    network, arguments = {
        "ranet": (RANet, tiny_arguments),
        "msdnet": (MSDNet, {"channels": 4, "growth_rate": 4, "blocks": 3, "num_classes": 5,
                            "layers_in_first_block": 2}),
    }[request.param]
    arguments = {**arguments, "normalization": "cifar10"}
    plain, boosted = network(**arguments), network(**arguments, boosted_exits=True)
    values = {w.path: w for w in plain.weights}
    for weight in boosted.weights:
        weight.assign(values.pop(weight.path))
    assert not values
    return plain, boosted


def test_logits_are_sums_of_the_exits_own(networks, pictures):
    plain, boosted = networks

    own = numbers(plain(pictures, training=False))
    sums = numbers(boosted(pictures, training=False))

    assert_allclose(sums, np.cumsum(own, axis=0), rtol=1e-4, atol=1e-5)
    assert boosted.output_names == plain.output_names


def test_cost_is_that_of_the_network_without(networks):
    """Additions are not multiply-adds."""
    plain, boosted = networks

    for convention in ("lazy", "convolution_dense", "reference"):
        assert exit_macs(boosted, convention) == exit_macs(plain, convention)


def heads_by_hand():
    """Two exits on one pixel of one channel, whose convolutions pass it on, after a trunk w = 1."""
    inputs = keras.Input((1, 1, 1))
    trunk = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="trunk")(
        inputs)
    heads = [ExitHead(2, filters=1, pooling="global", name=f"exit{k}") for k in (1, 2)]
    first = heads[0](trunk)
    outputs = [first, heads[1]([trunk, first])]
    for head in heads:
        for block in (head.conv1, head.conv2):
            block.conv.kernel.assign(np.eye(9)[4].reshape(3, 3, 1, 1))
            block.trainable = False  # normalisation by its moving statistics, 0 and 1
        head.classifier.kernel.assign([[1.0, 0.0]])
        head.classifier.bias.assign([0.0, 0.0])
    return MultiExitModel(inputs, outputs)


def test_gradients_by_hand():
    """Logits of a picture x = 1 are (1, 0) and, summed, (2, 0). With the loss of class 0 at exit 2
    alone, its gradient for the first logit is p - 1 = sigmoid(2) - 1 = g; head 2 and trunk get it
    times x and times head 2's weight, 1: both g. The sum hands nothing to head 1, and through it
    nothing to the trunk, which would get 2g."""
    model = heads_by_hand()
    model.compile(keras.optimizers.SGD(1.0), exit_weights=[0, 1], metrics=None)
    before = numbers(model.trainable_variables)
    x = np.ones((1, 1, 1, 1), "float32")
    assert_allclose(numbers(model(x)), [[[1, 0]], [[2, 0]]], rtol=1e-4)

    model.train_on_batch(x, np.zeros(1))

    gradient = {w.path: was - now for w, was, now in zip(
        model.trainable_variables, before, numbers(model.trainable_variables))}
    g = 1 / (1 + np.exp(-2)) - 1
    assert_allclose(gradient["trunk/kernel"].item(), g, rtol=1e-4)
    assert_allclose(gradient["exit2/classifier/kernel"], [[g, -g]], rtol=1e-4)
    assert_array_equal(gradient["exit1/classifier/kernel"], [[0, 0]])
    assert_array_equal(gradient["exit1/classifier/bias"], [0, 0])


def test_stages_give_the_whole_network_s_answers(networks, pictures):
    """A later stage reads the logits of the exit before it."""
    _, boosted = networks
    whole = numbers(boosted(pictures, training=False))

    assert len(split_into_stages(boosted)) == boosted.num_exits
    for number, logits in enumerate(whole, start=1):
        alone = [number] if number > 1 else None  # its sum needs heads that nobody leaves at
        for exits in (None, alone):
            predictor = EarlyExitPredictor(boosted, NEVER, engine="keras", exits=exits,
                                           max_exit=number if exits is None else None)
            given = [answer.probabilities for answer in predictor.predict(pictures, verbose=0)]
            assert_allclose(given, softmax(logits), rtol=1e-3, atol=1e-5)


def test_exported_stages_give_the_whole_network_s_answers(networks, pictures, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    _, boosted = networks
    export_stages(boosted, tmp_path / "stages", format="onnx")

    for number, logits in enumerate(numbers(boosted(pictures, training=False)), start=1):
        predictor = EarlyExitPredictor.from_export(tmp_path / "stages", NEVER, max_exit=number)
        given = [answer.probabilities for answer in predictor.predict(pictures, verbose=0)]
        assert_allclose(given, softmax(logits), rtol=1e-3, atol=1e-5)


def test_a_file_keeps_the_sum(networks, pictures, tmp_path):
    _, boosted = networks
    boosted.save(tmp_path / "model.keras")

    again = keras.models.load_model(tmp_path / "model.keras")

    assert_array_equal(numbers(again(pictures)), numbers(boosted(pictures)))


def test_summed_logits_are_not_rounded_under_mixed_precision():
    """Those of earlier exits stay float32: 1/3 comes out as it went in."""
    with use_precision("mixed_bfloat16"):
        head = ExitHead(2, filters=4, pooling="global")
    features = np.zeros((1, 8, 8, 3), "float32")
    earlier = np.full((1, 2), 1 / 3, "float32")
    head([features, earlier])
    head.classifier.bias.assign([0, 0])
    head.classifier.kernel.assign(np.zeros((4, 2)))

    assert_array_equal(numbers([head([features, earlier])])[0], earlier)
