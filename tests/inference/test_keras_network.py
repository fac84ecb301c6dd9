"""A network of a predictor that is a Keras model."""

import concurrent.futures
import gc
import threading
import time
import weakref

from keras_adaptive.inference import keras_network
from keras_adaptive.inference.keras_network import KerasNetwork


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
