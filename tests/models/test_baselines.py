"""The static baselines are the papers' networks, and every tool takes them as networks of one exit.
"""

import math

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.graph import exit_macs, exit_parameters, flatten
from keras_adaptive.models import DenseNet, ResNet, build
from keras_adaptive.models.baselines import ResidualBlock
from keras_adaptive.models.precision import use_precision

TINY = {
    ResNet: {"depth": 8, "channels": 4, "num_classes": 5},
    DenseNet: {"depth": 10, "growth_rate": 4, "num_classes": 5},
}
LABELS = np.array([0, 1, 2, 3, 4, 0, 1, 2])
# For a single step, tracing takes longer than computing; JAX is slow eagerly.
EAGER = keras.backend.backend() != "jax"

both = pytest.mark.parametrize("network", [ResNet, DenseNet])


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def counts_by_hand(convolutions, norms, last_width, num_classes):
    """Return parameters and multiply-adds.

    `convolutions` are (kernel size, channels in, channels out, side of the output); `norms` are
    the channels of the batch normalisations, each with a scale and a shift.
    """
    kernels = [(size**2 * before * after, side) for size, before, after, side in convolutions]
    parameters = (sum(kernel for kernel, _ in kernels) + 2 * sum(norms)
                  + (last_width + 1) * num_classes)
    macs = sum(kernel * side**2 for kernel, side in kernels) + last_width * num_classes
    return parameters, macs


def resnet_by_hand(depth, num_classes):
    """He et al., 2016, section 4.2: the table of output sizes, layers and filters."""
    convolutions = [(3, 3, 16, 32)]
    for width, side in ((16, 32), (32, 16), (64, 8)):
        for _ in range(2 * (depth - 2) // 6):
            convolutions.append((3, convolutions[-1][2], width, side))
    return counts_by_hand(convolutions, [after for _, _, after, _ in convolutions], 64,
                          num_classes)


def densenet_by_hand(depth, num_classes):
    """Huang et al., 2017, section 3: growth rate 12, bottlenecks of 48, channels halved twice."""
    convolutions, norms, width = [(3, 3, 24, 32)], [], 24
    for side in (32, 16, 8):
        for _ in range((depth - 4) // 6):
            convolutions += [(1, width, 48, side), (3, 48, 12, side)]
            norms += [width, 48]
            width += 12
        if side > 8:
            convolutions.append((1, width, width // 2, side))  # before the pooling
            norms.append(width)
            width //= 2
    return counts_by_hand(convolutions, [*norms, width], width, num_classes)


@pytest.mark.parametrize("name, papers_millions, by_hand", [
    ("resnet8_cifar10", None, resnet_by_hand(8, 10)),
    ("resnet20_cifar10", 0.27, resnet_by_hand(20, 10)),
    ("resnet32_cifar10", 0.46, resnet_by_hand(32, 10)),
    ("resnet56_cifar10", 0.85, resnet_by_hand(56, 10)),
    ("resnet20_cifar100", None, resnet_by_hand(20, 100)),
    ("densenet_bc40_k12_cifar10", None, densenet_by_hand(40, 10)),
    ("densenet_bc100_k12_cifar10", 0.8, densenet_by_hand(100, 10)),
    ("densenet_bc100_k12_cifar100", 0.8, densenet_by_hand(100, 100)),
])
def test_counts_equal_the_papers(name, papers_millions, by_hand):
    """To the last digit by the papers' tables of layers, and rounded as the papers state them."""
    with keras.StatelessScope(initialize_variables=False):
        model = build(name)
    keras.utils.clear_session(free_memory=False)  # or Keras would make the values later

    parameters = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    assert (parameters, *exit_macs(model)) == by_hand
    assert exit_parameters(model) == [parameters]
    if papers_millions is not None:
        digits = len(str(papers_millions)) - 2
        assert round(parameters / 1e6, digits) == papers_millions


def test_counts_by_hand_are_the_ones_commonly_quoted():
    assert resnet_by_hand(20, 10) == (269_722, 40_551_040)
    assert densenet_by_hand(100, 10)[0] == 769_162


@both
def test_the_only_output_is_exit1(network, pictures):
    model = network(**TINY[network])

    logits = model(pictures)

    assert model.output_names == ["exit1"]
    assert model.num_exits == 1
    assert tuple(logits.shape) == (8, 5)


@both
@pytest.mark.parametrize("shape", [(64, 64, 3), (20, 28, 3)])
def test_other_sizes_cost_in_proportion_to_their_pixels(network, shape):
    """The same weights fit, so that enlarged pictures can be compared with small ones."""
    small, large = network(**TINY[network]), network(**TINY[network], input_shape=shape)

    large.set_weights(small.get_weights())

    assert large(np.zeros((2, *shape), "float32")).shape == (2, 5)
    head = values(small.get_layer("exit1").kernel).size
    convolutions = exit_macs(small)[0] - head
    assert exit_macs(large)[0] - head == convolutions * shape[0] * shape[1] // 32**2


@both
def test_every_composite_layer_is_looked_into(network):
    """Costs are counted on stock operations; none stays closed."""
    graph = flatten(network(**TINY[network], normalization="cifar10"))

    assert [call.name for call in graph.calls if call.opaque] == []


@both
def test_every_weight_gets_a_gradient(network, pictures):
    """One step changes each variable: no layer hangs loose."""
    model = network(**TINY[network])
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=EAGER)

    model.train_on_batch(pictures, LABELS)

    unchanged = [variable.path for variable, old in zip(model.weights, before)
                 if np.array_equal(values(variable), old)]
    assert unchanged == []


@both
def test_rebuilt_from_its_config_a_network_keeps_class_and_arguments(network):
    model = network(**TINY[network], input_shape=(36, 40, 3), normalization="cifar10",
                    class_names=list("abcde"), exit_macs=[7])

    again = network.from_config(model.get_config())

    assert again.get_config() == model.get_config()
    assert [v.path for v in again.weights] == [v.path for v in model.weights]


@both
def test_keras_file_round_trip_keeps_class_and_weights(network, pictures, tmp_path):
    model = network(**TINY[network])
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=EAGER)
    model.train_on_batch(pictures, LABELS)  # moving statistics have left their initial values

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    assert type(again) is network
    assert_allclose(values(again(pictures)), values(model(pictures)), atol=1e-6)


@both
def test_every_layer_is_rebuilt_from_its_config(network):
    for layer in network(**TINY[network], normalization="cifar10").layers:
        again = type(layer).from_config(layer.get_config())

        assert again.get_config() == layer.get_config()


@both
def test_mixed_precision_gives_float32_logits(network, pictures):
    with use_precision("mixed_bfloat16"):
        model = network(**TINY[network])

    assert keras.backend.standardize_dtype(model(pictures).dtype) == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    convolutions = [layer for layer in model._flatten_layers()
                    if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}


@both
def test_the_predictor_takes_a_network_of_one_exit(network):
    """Everybody leaves at exit 1, with the network's own answer, at its whole cost."""
    model = network(**TINY[network], normalization="cifar10")
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")

    prediction = EarlyExitPredictor(model, threshold=0.5).predict(pictures)

    expected = values(keras.ops.softmax(model(pictures)))
    assert_array_equal(prediction.exits, 1)
    assert_allclose(prediction.probabilities, expected, atol=1e-5)
    assert_array_equal(prediction.macs, exit_macs(model)[0])


def test_the_shortcut_takes_every_other_pixel_and_appends_zeros():
    """Option A: with the convolutions' branch at zero, a block shows what its shortcut does."""
    block = ResidualBlock(5, strides=2)
    x = np.arange(1, 1 + 2 * 4 * 6 * 3, dtype="float32").reshape(2, 4, 6, 3)
    block.build(x.shape)
    block.conv2.kernel.assign(np.zeros(block.conv2.kernel.shape))

    y = values(block(x))

    assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert_array_equal(y[..., 3:], 0)


def test_a_shortcut_cannot_drop_channels():
    with pytest.raises(ValueError, match="filters=2 for 3 channels"):
        ResidualBlock(2).build((None, 8, 8, 3))


@pytest.mark.parametrize("network, arguments, message", [
    (ResNet, {"depth": 18}, "6 n . 2 .* such as 8, 14 or 20. Received: depth=18"),
    (ResNet, {"depth": 2}, "depth=2"),
    (ResNet, {"num_classes": 1}, "num_classes=1"),
    (DenseNet, {"depth": 20}, "6 n . 4 .* such as 10, 16 or 22. Received: depth=20"),
    (DenseNet, {"reduction": 0.0}, "reduction=0.0"),
    (DenseNet, {"input_shape": (32, 3, 3)}, r"input_shape=\(32, 3, 3\)"),
    (DenseNet, {"num_classes": 1}, "num_classes=1"),
])
def test_what_cannot_be_built_is_a_clear_error(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        network(**{**TINY[network], **arguments})
