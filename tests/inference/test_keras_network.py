"""A network of a predictor that is a Keras model."""

import concurrent.futures
import gc
import threading
import time
import weakref

import keras
import numpy as np
import pytest

from keras_adaptive.graph import exit_macs
from keras_adaptive.inference import keras_network
from keras_adaptive.inference.keras_network import KerasNetwork
from keras_adaptive.inference.predictor import EarlyExitPredictor


def test_a_model_is_split_once(make_network):
    """A second predictor of the same model need not wait for its stages, and shares them."""
    model = make_network()
    first, second = KerasNetwork(model), KerasNetwork(model)

    assert first.stages((1, 2)) is second.stages([1, 2])
    assert first.stages((1,)) is not first.stages((1, 2))
    assert KerasNetwork(make_network()).stages((1, 2)) is not first.stages((1, 2))


def test_a_model_that_nobody_holds_is_forgotten(make_network):
    """Stages that are kept do not keep their model in memory."""
    model = make_network()
    KerasNetwork(model).stages(range(1, len(model.outputs) + 1))

    model = weakref.ref(model)
    gc.collect()

    assert model() is None


def test_stages_of_a_few_choices_of_exits_are_kept(make_network):
    """Whoever tries every subset of exits does not fill the memory."""
    network = KerasNetwork(make_network())
    subsets = [(1,), (2,), (3,), (4,), (1, 2)]
    kept = {exits: network.stages(exits) for exits in subsets}

    assert network.stages((1, 2)) is kept[1, 2]
    assert network.stages((1,)) is not kept[1,]


def test_threads_split_a_model_once(make_network, monkeypatch):
    """Whoever comes while it is split waits, and gets the same stages."""
    network, barrier = KerasNetwork(make_network()), threading.Barrier(4)
    split_into_stages = keras_network.split_into_stages
    monkeypatch.setattr(keras_network, "split_into_stages",
                        lambda model: time.sleep(0.01) or split_into_stages(model))

    def split(_):
        barrier.wait()
        return network.stages((1, 3))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stages = list(pool.map(split, range(4)))

    assert all(each is stages[0] for each in stages)


class Scaled(keras.layers.Layer):
    """A layer made of layers, whose code takes a setting for a number."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self._strength = 1.0

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self._strength * self.dense(x)

    def compute_output_shape(self, input_shape):
        return self.dense.compute_output_shape(input_shape)


def replace_last(model):
    model.pop()
    model.add(keras.layers.Dense(3, name="another"))


def set_strength(model):
    model.layers[-1]._strength = 5.0


def replace_last_inside(model):
    replace_last(model.layers[-1])


@pytest.mark.parametrize("last, change", [
    (lambda: keras.layers.Dense(3), replace_last),
    (Scaled, set_strength),
    (lambda: keras.Sequential([keras.Input((192,)), keras.layers.Dense(3)]), replace_last_inside),
], ids=["another layer", "setting of a layer made of layers", "model inside the model"])
def test_a_model_that_was_changed_is_split_anew(last, change, images):
    """Whoever changes a model gets its answers, and not those that it gave before."""
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), last()])
    EarlyExitPredictor(model, engine="keras", from_logits=True).predict(images)

    change(model)

    found = EarlyExitPredictor(model, engine="keras", from_logits=True).predict(images)
    expected = keras.ops.softmax(model(images.astype("float32")))
    np.testing.assert_allclose(found.probabilities, keras.ops.convert_to_numpy(expected), atol=1e-5)


def test_costs_of_the_callers_own_are_not_mixed_with_counted_ones(make_network):
    """Shares of the whole network stay shares, whichever exits are in use."""
    model = make_network()
    model.exit_macs = [10, 20, 30, 40]

    assert KerasNetwork(model).count_macs((1, 3), (8, 8)) == ([10, 30], 40)


def test_costs_that_a_model_carries_as_counted_leave_out_heads(make_network):
    """A network of the zoo carries what would be counted."""
    model = make_network()
    expected = KerasNetwork(model).count_macs((1, 3), (8, 8))
    model.exit_macs = exit_macs(model)

    assert KerasNetwork(model).count_macs((1, 3), (8, 8)) == expected


def test_costs_that_a_model_carries_need_no_rule_for_its_layers():
    """Whichever exits are in use."""
    class Shift(keras.layers.Layer):
        def build(self, input_shape):
            self.shift = self.add_weight(shape=(input_shape[-1],))

        def call(self, x):
            return x + self.shift

    pictures = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(Shift()(pictures))
    model = keras.Model(pictures, [keras.layers.Dense(2)(x) for _ in range(3)])
    model.exit_macs = [10, 20, 30]

    assert KerasNetwork(model).count_macs((1, 3), (8, 8)) == ([10, 30], 30)


@pytest.fixture
def marked(make_network):
    """A model, and a function that tells whether its weights look as they did before."""
    model = make_network()
    network = KerasNetwork(model)
    before = network.weights_mark((1, 2, 3, 4))
    return model, lambda: network.weights_mark((1, 2, 3, 4)) == before


def test_weights_that_stay_are_not_taken_for_others(marked):
    _, is_same = marked

    assert is_same()


@pytest.mark.parametrize("number", range(4))
def test_other_weights_for_one_exit_are_noticed(marked, number):
    """For any, as only the first may be trained."""
    model, is_same = marked
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]

    heads[number].bias.assign(heads[number].bias + 1)

    assert not is_same()


def test_other_moving_statistics_are_noticed(marked):
    """They are estimated anew without training."""
    model, is_same = marked

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(layer.moving_mean + 1)

    assert not is_same()


def test_steps_of_the_optimizer_are_noticed(marked):
    """Whatever they train; a second optimizer that has made as many is another."""
    model, is_same = marked
    network = KerasNetwork(model)
    marks = [network.weights_mark((1,))]
    for _ in range(2):
        model.compile("sgd")
        model.optimizer.iterations.assign(3)
        marks.append(network.weights_mark((1,)))

    assert marks[0] != marks[1] != marks[2] == network.weights_mark((1,))
    assert not is_same()


def test_stages_without_small_variables_are_looked_at_too():
    """A network may have nothing but large kernels."""
    pictures = keras.Input((16, 16, 3))
    kernel = keras.layers.Dense(2, use_bias=False)
    flat = keras.layers.Flatten()(pictures)
    model = keras.Model(pictures, [kernel(flat), keras.layers.Softmax()(kernel(flat))])
    network = KerasNetwork(model)
    before = network.weights_mark((1, 2))

    kernel.set_weights([np.ones((768, 2))])

    assert network.weights_mark((1, 2)) != before
