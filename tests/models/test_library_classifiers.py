"""Classifiers of model libraries as teachers, and with exits attached: random weights, made here.

Their classes have constructors of their own, nested backbones, and rules for pixels. Where
keras-hub and keras-cv are missing, `pip install keras-hub keras-cv` beside TensorFlow.
"""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor, ThumbNet, attach_exits, exit_macs
from keras_adaptive.attach import exit_places
from keras_adaptive.models.resized import copy_for_size

SHAPE = (64, 64, 3)


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")


@pytest.fixture
def hub():
    return pytest.importorskip("keras_hub")


def hub_resnet(hub, before_convolution=False, shape=SHAPE, **arguments):
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
        use_pre_activation=before_convolution, image_shape=shape)
    return hub.models.ResNetImageClassifier(backbone=backbone, num_classes=5, **arguments)


def hub_densenet(hub):
    backbone = hub.models.DenseNetBackbone(stackwise_num_repeats=[2, 2], compression_ratio=0.5,
                                           growth_rate=8, image_shape=SHAPE)
    return hub.models.DenseNetImageClassifier(backbone=backbone, num_classes=5)


def hub_mobilenet(hub):
    pairs = {"stackwise_expansion": [[8, 8]] * 2, "stackwise_num_filters": [[8, 8]] * 2,
             "stackwise_kernel_size": [[3, 3]] * 2, "stackwise_num_strides": [[2, 1], [1, 1]],
             "stackwise_se_ratio": [[0.25, None], [None, None]],
             "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 2],
             "stackwise_padding": [[1, 1]] * 2}
    backbone = hub.models.MobileNetBackbone(
        **pairs, stackwise_num_blocks=[2, 2], output_num_filters=16,
        input_activation="hard_swish", output_activation="hard_swish", input_num_filters=8,
        depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, squeeze_and_excite=0.5,
        last_layer_filter=16, image_shape=SHAPE)
    return hub.models.MobileNetImageClassifier(backbone=backbone, num_classes=5)


HUB = {"resnet": hub_resnet, "resnet_v2": lambda hub: hub_resnet(hub, True),
       "softmax": lambda hub: hub_resnet(hub, activation="softmax"),
       "densenet": hub_densenet, "mobilenet": hub_mobilenet}


def cv_resnet(cv):
    backbone = cv.models.ResNetBackbone(
        stackwise_filters=[8, 16], stackwise_blocks=[1, 1], stackwise_strides=[1, 2],
        include_rescaling=True, input_shape=SHAPE)
    return cv.models.ImageClassifier(backbone=backbone, num_classes=5)  # ends in a softmax


def cv_efficientnet(cv):
    pairs = {"stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [1, 1],
             "stackwise_input_filters": [8, 8], "stackwise_output_filters": [8, 8],
             "stackwise_expansion_ratios": [1, 4], "stackwise_strides": [1, 2],
             "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
             "stackwise_conv_types": ["unfused", "fused"]}
    backbone = cv.models.EfficientNetV2Backbone(
        **pairs, include_rescaling=True, width_coefficient=1.0, depth_coefficient=1.0,
        input_shape=SHAPE)
    return cv.models.ImageClassifier(backbone=backbone, num_classes=5, activation=None)


def assert_teaches(classifier, x):
    """The teacher gives the classifier's answers, and a step of training runs."""
    model = ThumbNet.from_teacher(classifier, 2, hidden_filters=4)
    answers, logits = values(classifier(x)), values(model.teacher(x))
    if np.allclose(answers.sum(1), 1):
        logits = values(keras.ops.softmax(logits))
    scale = max(1, np.abs(answers).max())
    assert_allclose(logits / scale, answers / scale, atol=1e-5)
    assert model.student.input_shape == (None, 32, 32, 3) and model.taps
    assert model.student.count_params() == classifier.count_params()
    model.compile(keras.optimizers.SGD(1e-4))
    history = model.fit(x, np.arange(len(x)), verbose=0).history
    assert np.isfinite(history["feature_loss"]).all()


def assert_gets_exits(classifier, x):
    """Exits stand inside the backbone; every stage runs in the predictor; the last exit is the
    classifier."""
    expected = values(classifier(x))

    model = attach_exits(classifier, count=1)

    costs = list(exit_places(classifier).values())
    assert len(costs) > 1 and costs[0] < costs[-1] <= exit_macs(classifier)[0]
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    prediction = EarlyExitPredictor(model, threshold=1.01).predict(x)
    if not np.allclose(expected.sum(1), 1):
        expected = values(keras.ops.softmax(expected))
    assert_allclose(prediction.probabilities, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_classifiers_of_keras_hub(name, hub, x):
    classifier = HUB[name](hub)

    assert_teaches(classifier, x)
    assert_gets_exits(classifier, x)


@pytest.mark.slow
@pytest.mark.parametrize("make", [cv_resnet, cv_efficientnet])
def test_classifiers_of_keras_cv(make, x):
    classifier = make(pytest.importorskip("keras_cv"))

    assert_teaches(classifier, x)
    assert_gets_exits(classifier, x)


def test_a_preprocessor_of_keras_hub_is_part_of_the_teacher(hub, x):
    """`predict` scales pixels before the model's graph; teacher and student do so, too."""
    scaling = {"scale": [1 / 58.0, 1 / 57.0, 1 / 57.5], "offset": [-2.1, -2.0, -1.8]}
    converter = hub.layers.ResNetImageConverter(image_size=SHAPE[:2], **scaling)
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    classifier = hub_resnet(hub, preprocessor=preprocessor)

    model = ThumbNet.from_teacher(classifier, 2, hidden_filters=4)

    expected = values(classifier(x * np.array(scaling["scale"], "float32")
                                 + np.array(scaling["offset"], "float32")))
    assert_allclose(values(model.teacher(x)), expected, atol=1e-4)
    assert model.student.get_layer("preprocessor").get_config()["offset"] == scaling["offset"]


def test_a_classifier_of_any_size_takes_the_size_it_is_told(hub):
    classifier = hub_resnet(hub, shape=(None, None, 3))

    with pytest.raises(ValueError, match="Give `input_shape="):
        ThumbNet.from_teacher(classifier)
    model = ThumbNet.from_teacher(classifier, input_shape=SHAPE)

    assert model.student.input_shape == (None, 32, 32, 3)


def test_layers_without_a_usable_configuration_are_named(hub):
    """A vision transformer has positions for one number of patches, and no smaller copy."""
    backbone = hub.models.ViTBackbone(image_shape=SHAPE, patch_size=16, num_layers=1, num_heads=2,
                                      hidden_dim=8, mlp_dim=8)
    classifier = hub.models.ViTImageClassifier(backbone=backbone, num_classes=5)

    with pytest.raises(ValueError, match="'vit_patching_and_embedding'"):
        ThumbNet.from_teacher(classifier)


@pytest.mark.slow
@pytest.mark.parametrize("name, arguments", [("MobileNetV2", {"alpha": 0.35}), ("VGG16", {})])
def test_classifiers_of_keras_applications(name, arguments, x):
    """The one with inverted bottlenecks and padding of its own, the other with a flattened map in
    front of its dense layers, whose first kernel shrinks with the map."""
    classifier = getattr(keras.applications, name)(
        weights=None, input_shape=SHAPE, classes=5, **arguments)

    model = ThumbNet.from_teacher(classifier, 2)

    assert_allclose(values(keras.ops.softmax(model.teacher(x / 255))), values(classifier(x / 255)),
                    atol=1e-5)
    own, other = model.student, classifier
    if name == "VGG16":
        assert own.get_layer("fc1").kernel.shape[0] * 4 == other.get_layer("fc1").kernel.shape[0]
    else:
        assert own.count_params() == other.count_params()
    assert model.taps == [{"MobileNetV2": "out_relu", "VGG16": "block5_pool"}[name]]
    assert values(own(x[:, ::2, ::2])).shape == (2, 5)


def test_a_copy_needs_no_class_of_the_library(hub, x, tmp_path):
    """A student is made of stock layers, so that its file opens where the library is not."""
    copy = copy_for_size(hub_resnet(hub), (32, 32, 3))
    assert type(copy).__module__.startswith("keras.")
    assert not any(type(layer).__module__.startswith("keras_hub") for layer in copy.layers)
    copy.save(tmp_path / "copy.keras")
    small = x[:, ::2, ::2]
    assert_array_equal(values(keras.saving.load_model(tmp_path / "copy.keras")(small)),
                       values(copy(small)))
