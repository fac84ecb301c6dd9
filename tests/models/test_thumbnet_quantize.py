"""ThumbNets whose thumbnails have 8 bits already while they learn."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from keras_adaptive import EarlyExitPredictor, ThumbNet, models, write_thumbnails
from keras_adaptive.layers import EightBits
from keras_adaptive.models import ResNet
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade

LABELS = np.arange(8) % 5


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8")


def make(**arguments):
    teacher = ResNet(8, 4, num_classes=5, input_shape=(16, 16, 3), normalization="cifar10")
    return ThumbNet.from_teacher(
        teacher, **{"hidden_filters": 6, "quantize": "ste", **arguments})


def test_student_sees_whole_numbers_in_training_and_after(x):
    model = make()

    for training in (True, False):
        thumbnails = values(model.downscaler(x, training=training))
        assert_array_equal(thumbnails, thumbnails.round())
        assert thumbnails.min() >= 0 and 100 < thumbnails.max() <= 255


def test_downscaler_learns_through_the_rounding(x):
    """From every loss; the rounding alone would stop all gradients."""
    model = make()
    before = [values(v).copy() for v in model.downscaler.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1))

    model.fit(x, LABELS, verbose=0)

    for now, then in zip(model.downscaler.trainable_variables, before, strict=True):
        assert np.abs(values(now) - then).max() > 0


def test_files_lose_nothing(x, tmp_path):
    """The downscaler as a file, through the writer of thumbnails to PNG files and back: the student
    gives the same logits as in memory, to the bit."""
    (tmp_path / "photos").mkdir()
    for i, picture in enumerate(x):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{i}.png")
    model = make()
    model.downscaler.save(tmp_path / "downscaler.keras")

    write_thumbnails(tmp_path / "photos", tmp_path / "small", tmp_path / "downscaler.keras",
                     batch_size=len(x))

    stored = np.stack([np.asarray(Image.open(tmp_path / "small" / f"{i}.png")) for i in range(8)])
    assert stored.dtype == np.uint8
    assert_array_equal(stored, values(model.downscaler(x)))
    assert_array_equal(values(model.student(stored)), values(model.student(model.downscaler(x))))


def test_saved_and_reloaded_rounds_too(x, tmp_path):
    model = make()
    model.save(tmp_path / "thumbnet.keras")

    other = keras.saving.load_model(tmp_path / "thumbnet.keras")

    assert isinstance(other.downscaler.layers[-1], EightBits)
    assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


def test_other_downscalers_are_rounded_too(x):
    """Resizing that learns nothing, and a model that is given, whose weights are shared; twice is
    as once."""
    by_area = make(downscaler="area")
    thumbnails, means = values(by_area.downscaler(x)), x.reshape(8, 8, 2, 8, 2, 3).mean((2, 4))
    assert_array_equal(thumbnails, thumbnails.round())
    assert_allclose(thumbnails, means, atol=0.5 + 1e-3)  # many means lie halfway
    exact = make(quantize=None)
    given = exact.downscaler

    model = make(downscaler=given)

    assert {id(v) for v in model.downscaler.variables} == {id(v) for v in given.variables}
    assert_array_equal(values(model.downscaler(x)), values(given(x)).round().clip(0, 255))
    again = make(downscaler=model.downscaler)
    assert [type(layer) for layer in again.downscaler.layers].count(EightBits) == 1


def test_runs_in_onnx_as_in_keras(x):
    """Of exit 1 of the cascade: stages, calibration and export see the rounding as one operation.
    """
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = make()
    logits = values(model(x))

    probabilities = EarlyExitPredictor(
        model.on_pictures(), engine="onnxruntime").predict(x).probabilities

    # A thumbnail's value on the edge of two numbers may fall to either side.
    assert_allclose(probabilities, values(keras.ops.softmax(logits)), atol=5e-3)


def test_cascade_takes_it_from_a_recipe():
    """`quantize = "ste"` in the table [model]; and the record of the network keeps it."""
    name = "thumbnet_r2_resnet20_cifar10"
    model = models.build(name, quantize="ste", teacher_arguments={"depth": 8, "channels": 4})

    assert "quantize" in models.network_defaults({"configuration": name})
    assert isinstance(model.downscaler.layers[-1], EightBits)
    other = ThumbNetCascade.from_config(model.get_config())
    assert isinstance(other.downscaler.layers[-1], EightBits)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="'ste' .* Received: quantize='int8'"):
        make(quantize="int8")
