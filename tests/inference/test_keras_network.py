"""A network of a predictor that is a Keras model."""

import gc
import weakref

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
