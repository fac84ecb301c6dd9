"""ThumbNets where channels come first, in the teacher or in Keras's settings."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_adaptive import ThumbNet
from keras_adaptive.layers import Downscaler, Thumbnail
from keras_adaptive.models.resized import copy_for_size

L = keras.layers
FIRST = {"data_format": "channels_first"}


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def trains_channels_first():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no convolutions with channels first on processors")


def make(kind):
    """Return a classifier with the same layers in either order, from pictures with channels last.
    """
    axis = 1 if kind else -1
    order = FIRST if kind else {"data_format": "channels_last"}
    inputs = keras.Input((16, 16, 3))
    y = L.Rescaling(1 / 127.5, -1)(inputs)
    y = L.Permute((3, 1, 2))(y) if kind else y
    y = L.Conv2D(4, 3, padding="same", name="low", **order)(y)
    y = L.ReLU(name="low_relu")(L.BatchNormalization(axis=axis)(y))
    y = L.Conv2D(6, 3, strides=2, padding="same", name="high", activation="relu", **order)(y)
    y = L.Dense(5, name="top")(L.Flatten(**order)(y))
    return keras.Model(inputs, y)


def test_a_teacher_with_channels_first_is_refused_with_the_cure():
    inputs = keras.Input((3, 16, 16))
    teacher = keras.Model(inputs, L.Dense(5)(L.Flatten()(inputs)), name="given")

    with pytest.raises(ValueError, match=r"'given' takes .*first, \(3, 16, 16\).*Permute"):
        ThumbNet.from_teacher(teacher)


@pytest.mark.parametrize("layer", [Downscaler(2, 4), Thumbnail(2)], ids=["learned", "area"])
def test_layers_say_that_channels_come_last(layer):
    with pytest.raises(ValueError, match=r"\(batch, height, width, channels\).*Permute"):
        layer(np.zeros((1, 3, 8, 8), "float32"))


def test_maps_inside_may_have_channels_first(x):
    """Behind a `Permute`: the teacher, its smaller copy with a folded kernel, the losses and the
    steps are those of the same network with channels last."""
    trains_channels_first()
    first, last = make(True), make(False)
    last.set_weights(first.get_weights())
    models = []
    for teacher in (first, last):
        model = ThumbNet.from_teacher(teacher, 2, "area")
        assert model.taps == ["high"]
        model.compile(keras.optimizers.SGD(0.01))
        history = model.fit(x, np.arange(8) % 5, shuffle=False, verbose=0).history
        models.append((model, history))
    (one, own), (other, expected) = models

    assert_allclose(values(one.teacher(x)), values(first(x)), atol=1e-4)
    for term in expected:
        assert own[term] == pytest.approx(expected[term], rel=1e-3), term
    assert_allclose(one.predict(x, verbose=0), other.predict(x, verbose=0), atol=1e-3)


def test_the_setting_of_keras_changes_nothing(channels_first, x):
    """Downscaler and decoder have channels last by themselves, so that a teacher that says which it
    has learns and answers under any setting."""
    model = ThumbNet.from_teacher(make(False), 2, hidden_filters=4)
    model.compile(keras.optimizers.SGD(0.01))

    model.fit(x, np.arange(8) % 5, verbose=0)

    assert values(model.downscaler(x)).shape == (8, 8, 8, 3)
    assert model.decoders[0].convolutions[0].data_format == "channels_last"
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_a_smaller_copy_folds_kernels_in_either_order(x):
    """Flattening puts channels last first, and so does the folded kernel."""
    order = []
    for kind in (True, False):
        y = keras.Input((16, 16, 3))
        inputs = y
        y = L.Permute((3, 1, 2))(y) if kind else y
        data_format = "channels_first" if kind else "channels_last"
        y = L.Dense(5, kernel_initializer=keras.initializers.RandomNormal(seed=3))(
            L.Flatten(data_format=data_format)(y))
        order.append(values(copy_for_size(keras.Model(inputs, y), (8, 8, 3))(x[:, ::2, ::2])))

    assert_allclose(*order, rtol=1e-4, atol=1e-2)
