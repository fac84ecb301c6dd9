import keras
import numpy as np
import pytest

from keras_adaptive.models import RANet


def test_outputs_are_named_after_their_exits(tiny_ranet, pictures):
    logits = tiny_ranet(pictures)

    assert tiny_ranet.output_names == ["exit1", "exit2", "exit3", "exit4"]
    assert [tuple(y.shape) for y in logits] == [(8, 5)] * 4


@pytest.mark.parametrize("arguments, message", [
    ({"layers_per_block": 1}, "layers_per_block=1"),
    ({"growth_factors": (4, 2)}, "2 for 3 `scales`"),
    ({"growth_factors": (4, 2, 1, 1)}, "4 for 3 `scales`"),
    ({"bottleneck_factors": (4, 2)}, "`bottleneck_factors` needs"),
    ({"compress_factor": 0.1}, "compress_factor=0.1"),
    ({"compress_factor": 0.0}, "compress_factor=0.0"),
    ({"compress_factor": 1.0}, "compress_factor=1.0"),
    ({"reduction": 0.0}, "filters=0"),
    ({"blocks": 0}, "16x16 pixels"),
    ({"blocks": 0, "block_step": 0}, "blocks=0"),
    ({"blocks": -1}, "blocks=-1"),
    ({"block_step": -1}, "block_step=-1"),
    ({"input_shape": (16, 16, 3)}, "4x4 pixels"),
    ({"input_shape": (49, 49, 3)}, "13x13 pixels"),
    ({"input_shape": (20, 50, 3)}, "5x13 pixels"),
    ({"scales": (1, 1, 2)}, "pixels"),
    ({"input_shape": (None, None, 3), "pooling": "global"}, "unknown x unknown.*`input_shape`"),
    ({"input_shape": (32, None, 3), "pooling": "global"}, "unknown.*`input_shape`"),
    ({"layer_growth": "lg"}, "layer_growth='lg'"),
    ({"stem": "resnet"}, "stem='resnet'"),
    ({"normalization": "cifar"}, "Known are"),
    ({"normalization": (1, 2, 3)}, "pair"),
])
def test_what_crashes_the_authors_program_is_a_clear_error(tiny_arguments, arguments, message):
    with pytest.raises(ValueError, match=message):
        RANet(**{**tiny_arguments, **arguments})


@pytest.mark.parametrize("size", [17, 33, 48])
def test_the_reference_pooling_takes_the_authors_sizes(tiny_arguments, size):
    model = RANet(**tiny_arguments, input_shape=(size, size, 3))

    assert model.num_exits == 4


@pytest.mark.parametrize("shape", [(8, 8, 3), (64, 96, 3), (13, 57, 3)])
def test_global_pooling_takes_any_size(tiny_arguments, shape):
    model = RANet(**tiny_arguments, input_shape=shape, pooling="global")

    logits = model(np.zeros((2, *shape), "float32"))

    assert [tuple(y.shape) for y in logits] == [(2, 5)] * 4


def test_head_filters_set_the_width_of_all_heads(tiny_arguments):
    model = RANet(**tiny_arguments, head_filters=24)

    widths = {model.get_layer(f"exit{k}").conv2.filters for k in range(1, 5)}
    assert widths == {24}


def test_imagenet_stem_and_heads():
    """The stem divides the size by four; heads are as wide as the features they read."""
    model = RANet(scales=(1, 2), channels=4, growth_rate=4, growth_factors=(2, 1), blocks=1,
                  block_step=1, layers_per_block=2, stem="imagenet", head="imagenet",
                  num_classes=7, input_shape=(40, 40, 3))

    assert tuple(model.get_layer("stem_pool").output.shape) == (None, 10, 10, 4)
    head = model.get_layer("exit1")
    assert head.conv1.filters == head.input.shape[-1]


def test_normalization_is_the_first_node():
    """Pictures of 0 to 255 and no other node before the first convolution."""
    model = RANet(layers_per_block=2, channels=4, growth_rate=4,
                  normalization=((0.5, 0.5, 0.5), (0.5, 0.25, 0.125)))
    layer = model.get_layer("normalization")

    y = keras.ops.convert_to_numpy(layer(np.full((1, 1, 1, 3), 255.0, "float32")))

    np.testing.assert_allclose(y[0, 0, 0], [1.0, 2.0, 4.0], rtol=1e-5)


def test_sub_networks_without_an_exit_are_left_out_with_a_warning(tiny_arguments):
    with pytest.warns(UserWarning, match="block_step=0"):
        model = RANet(**{**tiny_arguments, "block_step": 0})

    assert model.num_exits == 2
    assert not [layer for layer in model.layers if layer.name.startswith("subnetwork2")]


def test_one_sub_network_may_have_blocks_of_one_layer():
    model = RANet(scales=(1,), growth_factors=(1,), layers_per_block=1, input_shape=(8, 8, 3))

    assert model.num_exits == 2
