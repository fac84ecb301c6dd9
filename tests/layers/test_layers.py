"""Checks that every composite layer must pass."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_adaptive import layers

# A layer, and the shapes of its inputs.
CASES = {
    "conv": (lambda: layers.ConvBlock(5, 3, strides=2), [(9, 9, 3)]),
    "conv_bias": (lambda: layers.ConvBlock(5, 7, strides=2, use_bias=True), [(15, 15, 3)]),
    "bottleneck": (lambda: layers.BottleneckConv(5, 2, strides=2), [(9, 9, 3)]),
    "no_bottleneck": (lambda: layers.BottleneckConv(5, None), [(9, 9, 3)]),
    "downscaler": (lambda: layers.Downscaler(4, 8), [(8, 12, 3)]),
    "downscaler_area_first": (lambda: layers.Downscaler(2, 8, area="first"), [(8, 12, 3)]),
    "downscaler_area_added": (lambda: layers.Downscaler(2, 8, area="added"), [(8, 12, 3)]),
    "eight_bits": (lambda: layers.EightBits(), [(8, 12, 3)]),
    "feature_decoder": (lambda: layers.FeatureDecoder(5, 4), [(3, 2, 5)]),
    "thumbnail": (lambda: layers.Thumbnail(2, "bicubic"), [(8, 12, 3)]),
    "dense_layer": (lambda: layers.DenseLayer(4, 2), [(6, 6, 3)]),
    "dense_block": (lambda: layers.DenseBlock(3, 4, 2), [(6, 6, 3)]),
    "fusion_layer": (lambda: layers.FusionLayer(8, 2, 4, 0.25), [(9, 9, 6), (5, 5, 7)]),
    "fusion_layer_down": (
        lambda: layers.FusionLayer(8, 2, 4, 0.25, downsample=True), [(9, 9, 6), (5, 5, 7)]),
    "fusion_block": (
        lambda: layers.FusionBlock(2, 8, 2, 16, 4, 0.25), [(9, 9, 6), (5, 5, 40)]),
    "fusion_block_down": (
        lambda: layers.FusionBlock(3, 8, 2, 16, 4, 0.25, downsample=True),
        [(9, 9, 6), (9, 9, 40), (5, 5, 56)]),
    "gradient_scale": (lambda: layers.GradientScale(0.5), [(6, 6, 9)]),
    "transition": (lambda: layers.TransitionBlock(4), [(6, 6, 9)]),
    "transition_strided": (
        lambda: layers.TransitionBlock(4, strides=2, use_bias=True), [(6, 6, 9)]),
    "multi_scale": (lambda: layers.MultiScaleCell(6, 1, 2), [(9, 9, 4), (5, 5, 6)]),
    "resize": (lambda: layers.AlignedResize(7, 5), [(4, 9, 3)]),
    "exit_head": (lambda: layers.ExitHead(4, filters=8), [(7, 7, 6)]),
    "exit_head_boosted": (lambda: layers.ExitHead(4, filters=8), [(7, 7, 6), (4,)]),
    "exit_head_global": (lambda: layers.ExitHead(4, None, "global"), [(15, 3, 6)]),
}


def _inputs(shapes, num_pictures=2):
    random = np.random.default_rng(0)
    x = [random.normal(size=(num_pictures, *shape)).astype("float32") for shape in shapes]
    return x if len(x) > 1 else x[0]


def _numpy(outputs):
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [keras.ops.convert_to_numpy(y) for y in outputs]


@pytest.mark.parametrize("case", CASES)
def test_declared_shape_is_the_shape(case):
    """`compute_output_shape`, the symbolic output and the computed output agree."""
    make, shapes = CASES[case]
    x = _inputs(shapes)
    layer = make()

    outputs = _numpy(layer(x))

    symbols = [keras.KerasTensor((None, *shape)) for shape in shapes]
    symbolic = make()(symbols if len(symbols) > 1 else symbols[0])
    symbolic = symbolic if isinstance(symbolic, (list, tuple)) else [symbolic]
    assert [y.shape[1:] for y in outputs] == [tuple(y.shape[1:]) for y in symbolic]


@pytest.mark.parametrize("case", CASES)
def test_rebuilt_from_its_config_with_its_weights_it_gives_the_same(case):
    make, shapes = CASES[case]
    x = _inputs(shapes)
    layer = make()
    expected = _numpy(layer(x))

    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    again(x)
    again.set_weights(layer.get_weights())

    for ours, theirs in zip(_numpy(again(x)), expected):
        assert_allclose(ours, theirs, atol=1e-6)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("case", CASES)
def test_the_setting_of_keras_for_channels_changes_nothing(case):
    """Rows would pass for channels, silently where the sizes fit."""
    make, shapes = CASES[case]
    x = _inputs(shapes)
    layer = make()
    expected = _numpy(layer(x))
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = make()
        other(x)
        other.set_weights(layer.get_weights())
        received = _numpy(other(x))
    finally:
        keras.config.set_image_data_format(before)

    for ours, theirs in zip(received, expected):
        assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
def test_mixed_precision_computes_narrow_and_keeps_variables_wide(case, policy):
    """Outputs are close to float32's; variables and logits stay float32."""
    make, shapes = CASES[case]
    x = _inputs(shapes)
    layer = make()
    expected = _numpy(layer(x))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        narrow = make()
        outputs = narrow(x)
    finally:
        keras.config.set_dtype_policy(before)
    narrow.set_weights(layer.get_weights())

    outputs = narrow(x)

    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    wanted = "float32" if case.startswith(("exit_head", "downscaler")) else "bfloat16"
    assert {keras.backend.standardize_dtype(y.dtype) for y in outputs} == {wanted}
    assert {variable.dtype for variable in narrow.weights} <= {"float32"}
    for ours, theirs in zip(outputs, expected):
        ours = keras.ops.convert_to_numpy(keras.ops.cast(ours, "float32"))
        assert_allclose(ours, theirs, atol=0.15)


def test_every_public_layer_is_checked_here():
    """A new layer cannot be forgotten."""
    makes = {type(make()).__name__ for make, _ in CASES.values()}

    public = {name for name in layers.__all__ if issubclass(getattr(layers, name),
                                                            keras.layers.Layer)}
    assert makes == public


def test_strided_convolution_pads_one_pixel_on_every_side():
    """By hand on even sizes, where Keras's own `same` padding reads other pixels."""
    block = layers.ConvBlock(1, 3, strides=2)
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    block(x)
    block.conv.kernel.assign(np.ones((3, 3, 1, 1), "float32"))

    y = keras.ops.convert_to_numpy(block.conv(block.pad(x)))

    assert y[0, :, :, 0].tolist() == [[0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7],
                                      [4 + 5 + 8 + 9 + 12 + 13, 5 + 6 + 7 + 9 + 10 + 11 + 13 + 14
                                       + 15]]


def test_dense_features_are_prefixes_of_the_output():
    """What a block hands on as one tensor holds the features between its layers."""
    block = layers.DenseBlock(3, 4, 2)
    x = _inputs([(6, 6, 3)])

    y = _numpy(block(x))[0]

    features = x
    for i, layer in enumerate(block.layers):
        assert_allclose(y[..., :3 + 4 * i], _numpy(keras.ops.convert_to_tensor(features))[0],
                        atol=1e-6)
        features = layer(features)


@pytest.mark.parametrize("make, message", [
    (lambda: layers.ConvBlock(0, 3), "filters=0"),
    (lambda: layers.ConvBlock(4, 2), "kernel_size=2"),
    (lambda: layers.DenseBlock(0, 4, 2), "num_layers=0"),
    (lambda: layers.FusionLayer(3, 1, 1, 0.25), "gives 0 of 3"),
    (lambda: layers.FusionLayer(4, 1, 1, 1.0), "gives 4 of 4"),
    (lambda: layers.FusionBlock(1, 8, 2, 8, 2, 0.25), "at least 2 layers"),
    (lambda: layers.MultiScaleCell(5, 1, 1), "growth_rate=5"),
    (lambda: layers.ExitHead(1), "num_classes=1"),
    (lambda: layers.ExitHead(4, pooling="max"), "pooling='max'"),
    (lambda: layers.ExitHead(4)(keras.Input((13, 8, 3))), "13x8"),
])
def test_wrong_arguments_are_told_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
