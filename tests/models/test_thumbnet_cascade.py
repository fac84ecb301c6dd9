"""ThumbNet as a network with two exits."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive import ThumbNet, exit_macs, models
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade, last_exit

SMALL = {"teacher_arguments": {"depth": 8, "channels": 4}, "hidden_filters": 12}


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")


def randomize(model):
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name != "moving_variance":
            variable.assign(variable + rng.normal(scale=0.1, size=variable.shape))


def outputs(model, x):
    return [keras.ops.convert_to_numpy(output) for output in model(x, training=False)]


def test_exits_are_the_student_and_the_teacher(x):
    """Exit 1 sees the thumbnail, exit 2 the full picture."""
    model = ThumbNetCascade(**SMALL)
    randomize(model)

    exits = outputs(model, x)

    assert model.output_names == ["exit1", "exit2"]
    for received, expected in zip(exits, (
            model.student(model.downscaler(x, training=False), training=False),
            model.teacher(x, training=False))):
        assert_array_equal(received, keras.ops.convert_to_numpy(expected))


def test_the_teacher_costs_extra():
    """Whoever goes on to exit 2 has paid for downscaler and student."""
    cascade, teacher = models.build("thumbnet_r2_resnet20_cifar10"), 40_551_040

    assert exit_macs(cascade) == [614_400 + 10_138_240, 614_400 + 10_138_240 + teacher]


def test_learning_changes_the_student_and_not_the_teacher(x):
    """The learner shares the variables of the network that is kept."""
    model = ThumbNetCascade(**SMALL)
    before = outputs(model, x)
    learner = model.learner(temperature=2.0)
    learner.compile(keras.optimizers.SGD(0.1))
    learner.fit(x, np.arange(4), verbose=0)

    after = outputs(model, x)

    assert isinstance(learner, ThumbNet) and learner.temperature == 2
    assert not np.array_equal(before[0], after[0])
    assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("initial", ["teacher", "random"])
def test_a_trained_teacher_is_taken(x, initial):
    """The teacher answers as before; the student starts from its weights if asked to."""
    trained = models.build("resnet20_cifar10", **SMALL["teacher_arguments"])
    randomize(trained)
    model = ThumbNetCascade(**SMALL)

    model.take_teacher(trained, initial)

    expected = keras.ops.convert_to_numpy(trained(x, training=False))
    received = outputs(model, x)[1]
    np.testing.assert_allclose(received, expected.reshape(received.shape), rtol=1e-4)
    is_same = [np.array_equal(*pair) for pair in zip(model.student.get_weights(),
                                                     model.teacher.get_weights())]
    assert all(is_same) == (initial == "teacher")


@pytest.mark.parametrize("other", [{"normalization": "cifar10"}, {"num_classes": 7}])
def test_a_teacher_of_other_pictures_or_classes_is_refused(other):
    """Its weights would fit, or nearly, and teach nothing."""
    trained = models.build("resnet20_cifar10", **{**SMALL["teacher_arguments"], **other})

    with pytest.raises(ValueError, match=f"was trained with .*{list(other.values())[0]}.* has"):
        ThumbNetCascade(**SMALL).take_teacher(trained)


def test_of_a_network_with_exits_the_last_teaches(tiny_ranet, pictures):
    """So a RANet can be the teacher."""
    expected = outputs(tiny_ranet, pictures)[-1]

    assert_array_equal(
        keras.ops.convert_to_numpy(last_exit(tiny_ranet)(pictures, training=False)), expected)


def test_a_file_brings_everything_back(x, tmp_path):
    """Saved and loaded, with what the records say."""
    model = ThumbNetCascade(**SMALL, class_names=list("abcdefghij"))
    randomize(model)
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.class_names == model.class_names
    for received, expected in zip(outputs(loaded, x), outputs(model, x)):
        assert_array_equal(received, expected)


@pytest.mark.parametrize("quantize", [None, "ste"])
def test_a_file_brings_back_a_downscaler_that_was_given(quantize, x, tmp_path):
    """A model in place of a kind's name, which is frozen here, as one that learnt elsewhere."""
    downscaler = ThumbNetCascade(**SMALL).downscaler
    downscaler.trainable = False
    model = ThumbNetCascade(**SMALL, downscaler=downscaler, quantize=quantize)
    randomize(model)
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert not loaded.downscaler.trainable_variables
    for received, expected in zip(outputs(loaded, x), outputs(model, x)):
        assert_array_equal(received, expected)


def test_means_and_deviations_may_be_arrays(x, tmp_path):
    """As every other network takes them."""
    normalization = [[0.5, 0.4, 0.3], [0.2, 0.3, 0.25]]
    model = ThumbNetCascade(**SMALL, normalization=np.array(normalization))
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.configuration["normalization"] == normalization
    for received, expected in zip(outputs(loaded, x), outputs(model, x)):
        assert_array_equal(received, expected)
