"""Statistics of batch normalisation, estimated anew with the weights fixed."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import ThumbNet
from keras_adaptive.models import ResNet
from keras_adaptive.training import reestimate_statistics

L = keras.layers


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def statistics(layer):
    return [values(v) for v in (layer.moving_mean, layer.moving_variance)]


def norm(**arguments):
    return L.BatchNormalization(epsilon=0, **arguments)


def test_statistics_by_hand():
    """Of 1, 3, 5, 7 in two batches: mean 4, variance 5. Each batch is normalised to -1 and 1, of
    which the ReLU leaves 0 and 1: mean 1/2, variance 1/4."""
    first, second = norm(), norm()
    model = keras.Sequential([keras.Input((1,)), first, L.ReLU(), second])

    reestimate_statistics(model, np.array([[1.0], [3], [5], [7]]), batch_size=2)

    assert_allclose(np.ravel(statistics(first)), [4, 5], atol=1e-6)
    assert_allclose(np.ravel(statistics(second)), [0.5, 0.25], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 9))
def test_first_layer_gets_the_moments_of_all_pictures(sizes, seed):
    """However they are cut into batches, of one picture even."""
    rng = np.random.default_rng(seed)
    batches = [rng.normal(100, 3, (size, 4, 3, 2)).astype("float32") for size in sizes]
    layer = norm()
    model = keras.Sequential([keras.Input((4, 3, 2)), layer])

    reestimate_statistics(model, batches)

    everything = np.concatenate(batches).astype("float64")
    mean, variance = statistics(layer)
    assert_allclose(mean, everything.mean((0, 1, 2)), rtol=1e-5)
    assert_allclose(variance, everything.var((0, 1, 2)), rtol=1e-3)


def nested():
    """Models inside a model, a layer of layers, dropout, augmentation, a frozen normalisation, one
    that is called twice, and weights that moved away from their start."""
    inputs = keras.Input((8, 8, 3))
    inside = keras.Sequential([L.RandomFlip(), L.Conv2D(4, 3, padding="same", use_bias=False),
                               L.BatchNormalization(name="low"), L.ReLU()], name="inside")
    twice = L.BatchNormalization(name="twice")
    x = L.Dropout(0.5)(inside(L.Rescaling(1 / 255)(inputs)))
    x = L.Add()([twice(x), twice(L.Conv2D(4, 3, padding="same")(x))])
    x = L.GlobalAveragePooling2D()(x)
    x = L.BatchNormalization(name="frozen", trainable=False)(x)
    model = keras.Model(inputs, L.Dense(5)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(values(weight) + rng.uniform(0, 0.3, weight.shape))
    return model


def test_nothing_but_the_statistics_changes():
    """Weights and random state to the bit, and what is frozen stays frozen."""
    model, x = nested(), np.random.default_rng(1).uniform(0, 255, (20, 8, 8, 3))
    before = {v.path: values(v).copy() for v in model.variables}

    names = reestimate_statistics(model, x, batch_size=8)

    assert names == ["inside/low", "twice", "frozen"]
    for variable in model.variables:
        is_statistic = "moving_" in variable.path
        assert np.array_equal(values(variable), before[variable.path]) != is_statistic
    assert not model.get_layer("frozen").trainable


def test_inference_answers_as_training_did():
    """With all pictures in one batch, statistics of the pass are those of the batch, so that
    inference gives what training mode gave; for a layer of layers, too."""
    teacher = ResNet(8, 4, num_classes=5, input_shape=(16, 16, 3), normalization="cifar10")
    model = ThumbNet.from_teacher(teacher, 2, hidden_filters=6).on_pictures()
    x = np.random.default_rng(1).uniform(0, 255, (16, 16, 16, 3)).astype("float32")
    weights = model.get_weights()
    wanted = values(model(x, training=True))
    model.set_weights(weights)
    assert np.abs(values(model(x)) - wanted).max() > 0.01

    names = reestimate_statistics(model, x)

    assert {"downscaler/downscaler/norm1", "downscaler/downscaler/norm2"} < set(names)
    assert_allclose(values(model(x)), wanted, atol=1e-3)


def test_batches_of_a_labelled_data_set_are_taken():
    layer = norm()
    model = keras.Sequential([keras.Input((1,)), layer])

    reestimate_statistics(model, [(np.array([[1.0], [3]]), [0, 1]), (np.array([[8.0]]), [1])])

    assert_allclose(np.ravel(statistics(layer)), [4, 26 / 3], rtol=1e-6)


def test_channels_may_be_another_axis():
    layer = norm(axis=1)
    x = np.arange(12.0).reshape(2, 3, 2)

    reestimate_statistics(keras.Sequential([keras.Input((3, 2)), layer]), x)

    assert_allclose(statistics(layer)[0], x.mean((0, 2)), rtol=1e-6)


def test_a_model_without_batch_normalisation_is_left_alone():
    model = keras.Sequential([keras.Input((1,)), L.Dense(2)])

    assert reestimate_statistics(model, np.ones((3, 1))) == []


@pytest.mark.parametrize("pictures, error", [
    (np.zeros((0, 1)), "`pictures` are none"), ([np.ones((2, 1)), np.ones((2, 7))], "norm")])
def test_after_an_error_the_statistics_are_the_former_ones(pictures, error):
    """No pictures; or a batch of another shape behind a good one."""
    layer = norm(name="norm")
    model = keras.Sequential([keras.Input((1,)), layer, L.Dense(2)])
    layer.set_weights([np.array([value]) for value in (1.0, 2.0, 3.0, 4.0)])

    with pytest.raises(Exception, match=error):
        reestimate_statistics(model, pictures)

    assert_array_equal(np.ravel(statistics(layer)), [3, 4])


@keras.saving.register_keras_serializable(package="test_statistics")
class Hidden(L.Layer):
    """Normalises in code that needs real values."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = L.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("real values needed")
        return self.norm(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_models_that_cannot_be_followed_are_refused():
    inputs = keras.Input((1,))
    with pytest.raises(ValueError, match="'hidden' .*real values needed.*symbolic tensors"):
        reestimate_statistics(keras.Model(inputs, Hidden(name="hidden")(inputs)), np.ones((2, 1)))
    other = keras.Input((1,))
    with pytest.raises(ValueError, match="has 2"):
        reestimate_statistics(keras.Model([inputs, other], L.Add()([inputs, other])), [])
