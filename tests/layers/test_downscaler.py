import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_adaptive import exit_macs
from keras_adaptive.graph import flatten
from keras_adaptive.layers import Downscaler, FeatureDecoder, Thumbnail


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def model_of(layer, size):
    pictures = keras.Input((size, size, 3))
    return keras.Model(pictures, layer(pictures))


@pytest.mark.parametrize("size, ratio, filters, macs", [
    (32, 2, 32, 1_228_800), (32, 2, 16, 614_400), (32, 4, 32, 768_000), (32, 4, 16, 384_000),
    (64, 2, 32, 4_915_200), (64, 4, 32, 3_072_000), (224, 2, 32, 60_211_200),
    (224, 4, 32, 37_632_000)])
def test_costs_are_those_of_the_formula(size, ratio, filters, macs):
    """75 products per pixel and hidden channel, in each convolution at its own size."""
    model = model_of(Downscaler(ratio, filters), size)

    assert exit_macs(model) == [macs]
    assert model.output_shape == (None, size // ratio, size // ratio, 3)


@pytest.mark.parametrize("filters, total, trainable", [
    (32, 4940, 4870), (16, 2476, 2438), (8, 1244, 1222)])
@pytest.mark.parametrize("ratio", [2, 4])
def test_parameters_by_hand(ratio, filters, total, trainable):
    """They do not depend on the ratio."""
    layer = model_of(Downscaler(ratio, filters), 16).layers[-1]

    assert layer.count_params() == total
    assert sum(np.prod(w.shape) for w in layer.trainable_weights) == trainable


@pytest.mark.parametrize("ratio, strides", [(2, [2, 1]), (4, [2, 2]), (8, [4, 2])])
def test_two_convolutions_with_norm_and_relu(ratio, strides):
    """The layer opens into stock layers, so that every tool sees what it computes."""
    calls = flatten(model_of(Downscaler(ratio, 48), 16)).calls

    kinds = [type(call.operation).__name__ for call in calls]
    assert [kind for kind in kinds if kind != "Cast"] == [
        "Conv2D", "BatchNormalization", "ReLU"] * 2
    convolutions = [call.operation for call in calls if hasattr(call.operation, "kernel_size")]
    assert [layer.kernel_size for layer in convolutions] == [(5, 5)] * 2
    assert [layer.strides for layer in convolutions] == [(stride,) * 2 for stride in strides]
    assert [layer.filters for layer in convolutions] == [48, 3]


def test_first_thumbnails_are_not_half_black():
    """The last normalisation starts at the data's mean and deviation, which the ReLU spares."""
    layer = Downscaler(2, 32)
    pictures = np.random.default_rng(0).uniform(size=(64, 16, 16, 3)).astype("float32")

    thumbnails = values(layer(pictures, training=True))

    assert thumbnails.min() >= 0
    assert (thumbnails == 0).mean() < 0.06  # 2 to 4 % by the normal distribution
    assert_allclose(thumbnails.mean((0, 1, 2)), layer.mean, atol=0.02)
    assert_allclose(thumbnails.std((0, 1, 2)), layer.std, atol=0.04)


def test_thumbnails_are_float32_under_mixed_precision():
    layer = Downscaler(2, 8, dtype="mixed_bfloat16")
    x = np.zeros((1, 8, 8, 3), "float32")

    assert layer(keras.KerasTensor((1, 8, 8, 3))).dtype == "float32"
    assert keras.backend.standardize_dtype(layer(x).dtype) == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_pictures_are_averaged_in_float32_under_mixed_precision(policy):
    """bfloat16 has 8 bits, and would round the pictures before the averages."""
    layer = Downscaler(2, 8, area="added", dtype=policy)  # at first the averages alone
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")

    assert_allclose(values(layer(x)), x.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)), atol=1e-6)
    assert layer.conv1.compute_dtype == policy.removeprefix("mixed_")


def test_errors_say_the_cure():
    with pytest.raises(ValueError, match="2, 4 or 8, because"):
        Downscaler(3)
    with pytest.raises(ValueError, match="48 or more for a ratio of 8"):
        Downscaler(8, 32)
    with pytest.raises(ValueError, match=r"\(28, 32\) and \(32, 32\)"):
        Downscaler(4).build((None, 30, 32, 3))
    with pytest.raises(ValueError, match="channels=1"):
        Downscaler(2).build((None, 8, 8, 1))
    with pytest.raises(ValueError, match="`mean` has one number per channel"):
        Downscaler(2, mean=[0.5])
    with pytest.raises(ValueError, match="`method` is one of"):
        Thumbnail(2, "lanczos")
    with pytest.raises(ValueError, match="rows and columns"):
        Thumbnail(2).build((None, None, None, 3))


@pytest.mark.parametrize("method, expected", [
    ("area", 0.75), ("bilinear", 0.659722), ("bicubic", 0.675258)])
def test_ring_becomes_one_pixel_of_its_antialiased_mean(method, expected):
    """At a ratio of 4 aliased resizing would give 0 or less; these numbers are Pillow's, too."""
    ring = np.ones((1, 4, 4, 1), "float32")
    ring[:, 1:3, 1:3] = 0

    assert values(Thumbnail(4, method)(ring)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("ratio", [2, 4])
def test_equals_antialiased_resizing_of_keras(method, ratio):
    x = np.random.default_rng(0).uniform(size=(2, 16, 24, 3)).astype("float32")

    expected = keras.ops.image.resize(x, (16 // ratio, 24 // ratio), interpolation=method,
                                      antialias=True, data_format="channels_last")

    assert_allclose(values(Thumbnail(ratio, method)(x)), values(expected), atol=1e-5)


def test_area_and_nearest_by_hand():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)

    assert_allclose(values(Thumbnail(2, "area")(x))[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])
    assert_allclose(values(Thumbnail(2, "nearest")(x))[0, ..., 0], [[5, 7], [13, 15]])


@pytest.mark.parametrize("ratio", [2, 4])
def test_added_to_averages_it_starts_from_honest_thumbnails(ratio):
    """Before training it gives the averaged picture, and what it learns is a difference to that."""
    layer = Downscaler(ratio, 12, area="added")
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")

    assert_allclose(values(layer(x)), values(Thumbnail(ratio)(x)), atol=1e-6)

    layer.norm2.beta.assign([0.5, 0.0, -2.0])
    expected = np.maximum(values(Thumbnail(ratio)(x)) + [0.5, 0.0, -2.0], 0)
    assert_allclose(values(layer(x)), expected, atol=1e-6)


def test_unknown_use_of_averages_is_refused():
    with pytest.raises(ValueError, match="`area` is None, 'first' or 'added'"):
        Downscaler(area="before")


@pytest.mark.parametrize("ratio, count", [(1, 0), (2, 1), (4, 2), (8, 3)])
def test_decoder_has_a_convolution_per_doubling(ratio, count):
    decoder = FeatureDecoder(3, ratio)
    x = np.random.default_rng(0).uniform(size=(1, 4, 4, 3)).astype("float32")

    decoded = values(decoder(x))

    assert len(decoder.convolutions) == count
    assert decoded.shape == (1, 4 * ratio, 4 * ratio, 3)


def test_decoder_kernel_of_ones_by_hand():
    """Each pixel spreads over 4x4 places around its own 2x2."""
    decoder = FeatureDecoder(1, 2, ends_in_relu=False)
    x = np.array([[1.0, 2], [3, 4]], "float32").reshape(1, 2, 2, 1)
    decoder.build(x.shape)
    decoder.convolutions[0].kernel.assign(np.ones((4, 4, 1, 1)))

    assert_allclose(values(decoder(x))[0, ..., 0],
                    [[1, 3, 3, 2], [4, 10, 10, 6], [4, 10, 10, 6], [3, 7, 7, 4]])


def test_decoder_starts_as_bilinear_enlarging():
    """So that a student that starts as its teacher starts with nearly the teacher's features."""
    x = np.random.default_rng(0).uniform(size=(1, 6, 6, 4)).astype("float32")

    expected = keras.ops.image.resize(x, (12, 12), interpolation="bilinear",
                                      data_format="channels_last")

    assert_allclose(values(FeatureDecoder(4, 2)(x))[:, 1:-1, 1:-1],
                    values(expected)[:, 1:-1, 1:-1], atol=1e-5)


def test_decoder_ends_as_the_map_that_it_imitates():
    x = np.full((1, 2, 2, 1), -1.0, "float32")

    assert values(FeatureDecoder(1, 2, ends_in_relu=True)(x)).max() == 0
    assert values(FeatureDecoder(1, 2, ends_in_relu=False)(x)).max() < 0
    with pytest.raises(ValueError, match="power of 2"):
        FeatureDecoder(1, 3)
