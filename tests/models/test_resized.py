"""Copies of classifiers for pictures of another size."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.models import ResNet
from keras_adaptive.models.resized import copy_for_size, enlarging_matrix, fold_enlarging

L = keras.layers


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def randomized(model, seed=0):
    """Give the variables values that matter, statistics included."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.3, 0.3)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def body(size=16, name="body"):
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", name="conv")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.ops.relu(x), name=name)


def nested(activation="softmax", size=16):
    """A model inside a model, called twice over, with equal names in both; and a shared layer."""
    pictures = keras.Input((size, size, 3))
    x = L.Rescaling(1 / 127.5, -1)(pictures)
    x = body(size)(x)
    shared = L.Conv2D(4, 3, padding="same", name="conv")
    x = L.Add()([shared(x), shared(shared(x))])
    x = L.GlobalAveragePooling2D()(x)
    x = L.Dense(5, activation=activation, name="top")(x)
    return randomized(keras.Model(pictures, x, name="nested"))


def pictures(size=16, count=3):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype("float32")


def test_same_size_is_the_same_network():
    """At a ratio of 1 the copy gives the logits behind the model's probabilities."""
    model, x = nested(), pictures()

    copy = copy_for_size(model, (16, 16, 3))

    assert_allclose(values(keras.ops.softmax(copy(x))), values(model(x)), atol=1e-6)
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    assert [tuple(w.shape) for w in copy.weights] == [tuple(w.shape) for w in model.weights]


@pytest.mark.parametrize("end", [
    [L.Dense(5, activation="softmax")], [L.Dense(5), L.Softmax()],
    [L.Dense(5), L.Activation("softmax")], [L.Dense(5, activation="softmax"), L.Identity()],
    [L.Dense(5), L.Activation("softmax", dtype="float32")]])
def test_every_softmax_is_read_before(end):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.GlobalMaxPooling2D(),
                              *[layer.__class__.from_config(layer.get_config()) for layer in end]])
    x = pictures(8) / 255

    logits = values(copy_for_size(model, (8, 8, 3))(x))

    assert np.abs(logits.sum(1) - 1).max() > 1e-3
    assert_allclose(values(keras.ops.softmax(logits)), values(model(x)), atol=1e-6)


def test_smaller_copy_has_the_same_layers_on_smaller_maps():
    """Layer by layer: names, kernels, maps of half the size; and all weights one for one."""
    model = randomized(ResNet(8, 4, num_classes=5, normalization="cifar10"))

    copy = copy_for_size(model, (16, 16, 3))

    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    for own, other in zip(copy.layers, model.layers):
        assert type(own) is type(other)
        for ours, theirs in zip(own.get_weights(), other.get_weights(), strict=True):
            assert_array_equal(ours, theirs)
        if len(own.output.shape) == 4:
            assert own.output.shape[1] * 2 == other.output.shape[1]
    assert copy.output_shape == (None, 5)


def test_random_copy_keeps_what_is_not_learned():
    """A `Normalization` layer that was adapted holds the data's statistics."""
    normalization = L.Normalization()
    normalization.adapt(pictures())
    model = keras.Sequential([keras.Input((16, 16, 3)), normalization, L.Conv2D(4, 3),
                              L.GlobalMaxPooling2D(), L.Dense(5)])

    copy = copy_for_size(model, (8, 8, 3), weights="random")

    assert_array_equal(copy.layers[1].get_weights()[0], normalization.get_weights()[0])
    assert np.abs(copy.layers[2].get_weights()[0] - model.layers[1].get_weights()[0]).max() > 0


def flat_head(size, side):
    """As VGG: a flattened map, dropout, two dense layers."""
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(4, 3, strides=size // side, padding="same", name="conv")(inputs)
    x = L.Dropout(0.5)(L.Flatten()(x))
    x = L.Dense(6, activation="relu", name="fc1")(x)
    return randomized(keras.Model(inputs, L.Dense(5, name="top")(x)))


@pytest.mark.parametrize("size, side, small", [(16, 4, 8), (28, 7, 12), (28, 7, 4)])
def test_flattened_maps_give_what_enlarging_them_would(size, side, small):
    """4 from 2 by repeating pixels; 7 from 3 by linear interpolation; 7 from 1."""
    model, x = flat_head(size, side), pictures(small) / 255

    copy = copy_for_size(model, (small, small, 3))

    mode = "nearest" if side % (small * side // size) == 0 else "bilinear"
    features = copy.get_layer("conv")(x)
    enlarged = keras.ops.image.resize(features, (side, side), interpolation=mode,
                                      data_format="channels_last")
    expected = model.get_layer("top")(model.get_layer("fc1")(L.Flatten()(enlarged)))
    assert_allclose(values(copy(x)), values(expected), atol=1e-5)
    assert copy.count_params() < model.count_params()


def test_folded_kernels_by_hand():
    """The kernel of a 4x4 map, folded for 2x2: sums over the pixels that each one stands for."""
    ones, counting = np.ones((16, 1)), np.arange(16.0).reshape(16, 1)
    small = np.array([1.0, 2, 3, 4])
    shapes = (4, 4, 1), (2, 2, 1)

    assert_array_equal(fold_enlarging(ones, *shapes).ravel(), [4] * 4)
    assert small @ fold_enlarging(ones, *shapes) == 40
    assert_array_equal(fold_enlarging(counting, *shapes).ravel(), [10, 18, 42, 50])
    assert small @ fold_enlarging(counting, *shapes) == 372
    assert_allclose(enlarging_matrix(3, 7).sum(1), 1)


def test_augmentation_does_nothing_in_the_copy():
    """Teacher and student must see the same view of a picture."""
    model = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), L.RandomTranslation(0.5, 0.5),
                              L.Flatten(), L.Dense(5)])
    x = pictures(8)

    copy = copy_for_size(model, (8, 8, 3))

    assert_allclose(values(copy(x, training=True)), values(model(x, training=False)), rtol=1e-5)
    cropped = keras.Sequential([keras.Input((8, 8, 3)), L.RandomCrop(6, 6), L.Flatten(),
                                L.Dense(5)])
    with pytest.raises(ValueError, match="layer 'random_crop"):
        copy_for_size(cropped, (8, 8, 3))


def test_mixed_precision_leaves_pixels_and_logits_exact():
    copy = copy_for_size(nested(None), (8, 8, 3), precision="mixed_bfloat16")

    assert copy.get_layer("conv").compute_dtype == "bfloat16"
    assert copy.layers[1].compute_dtype == "float32"
    assert copy.output.dtype == "float32"
    assert all(weight.dtype == "float32" for weight in copy.weights)


def test_errors_name_the_layer_and_the_sizes():
    deep = keras.Sequential([keras.Input((16, 16, 3)), L.Conv2D(4, 3, name="low"),
                             L.MaxPooling2D(4, name="pool"), L.Conv2D(4, 3, name="high"),
                             L.GlobalMaxPooling2D(), L.Dense(5)])
    with pytest.raises(ValueError, match=r"8 x 8: layer 'high' \(Conv2D\) takes "
                                         r"\(None, 3, 3, 4\).* cannot take \(None, 1, 1, 4\)"):
        copy_for_size(deep, (8, 8, 3))

    fixed = keras.Sequential([keras.Input((8, 8, 3)), L.Reshape((64, 3)), L.Flatten(), L.Dense(5)])
    with pytest.raises(ValueError, match="layer 'reshape.*' .*smaller ratio"):
        copy_for_size(fixed, (4, 4, 3))
    seen_by_dense = keras.Sequential([keras.Input((8, 8, 3)), L.Permute((3, 1, 2)), L.Flatten(),
                                      L.ReLU(), L.Dense(5, name="top")])
    with pytest.raises(ValueError, match="layer 'top'"):
        copy_for_size(seen_by_dense, (4, 4, 3))
