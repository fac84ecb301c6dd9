"""Models from `.keras` files, read by a process that knows nothing of them."""

import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_adaptive import EarlyExitPredictor, cascade
from keras_adaptive.model_files import is_model_file, load_model_file

LOAD = ("import sys; from keras_adaptive.model_files import load_model_file; "
        "print(type(load_model_file(sys.argv[1])).__name__)")


def make_classifier(filters=4, name="small"):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(filters, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name=name)


@pytest.fixture
def two_exits():
    return cascade(None, make_classifier(), make_classifier(8, "large"))


def test_a_file_is_told_from_a_networks_name():
    assert is_model_file("my_model.keras") and is_model_file(pathlib.Path("model"))
    assert not is_model_file("ranet_cifar10") and not is_model_file(make_classifier())


@pytest.mark.parametrize("kind", ["ranet", "cascade"])
def test_another_process_needs_no_imports(kind, tiny_ranet, two_exits, tmp_path):
    """Keras alone does not know the classes of this package."""
    model = tiny_ranet if kind == "ranet" else two_exits
    model.save(tmp_path / "model.keras")

    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path / "model.keras"],
                          capture_output=True, text=True)

    assert done.stdout.strip() == type(model).__name__, done.stderr


def test_a_predictor_takes_a_file(two_exits, tmp_path):
    model, path = two_exits, tmp_path / "cascade.keras"
    model.save(path)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype="uint8")

    for given in (path, str(path)):
        prediction = EarlyExitPredictor(given, threshold=2.0, engine="keras").predict(
            pictures, verbose=0)

        logits = model.predict(pictures.astype("float32"), verbose=0)[-1]
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        assert_allclose(prediction.probabilities, expected, atol=1e-5)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.keras").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass

    with pytest.raises(ValueError, match="no file .*missing.keras. `Model.save` writes"):
        load_model_file(tmp_path / "missing.keras")
    for name in ("bad", "empty"):
        with pytest.raises(ValueError, match=f"{name}.keras is no .keras file that can be read"):
            load_model_file(tmp_path / f"{name}.keras")
    with pytest.raises(ValueError, match="is a folder.*from_export"):
        EarlyExitPredictor(tmp_path)
    with pytest.raises(ValueError, match="no file model.h5. `Model.save` writes"):
        EarlyExitPredictor("model.h5")
    with pytest.raises(ValueError, match="missing.keras"):
        EarlyExitPredictor("missing.keras")


def test_code_in_a_file_is_not_run(tmp_path):
    model = make_classifier()
    doubled = keras.layers.Lambda(lambda x: x * 2)(model.output)
    keras.Model(model.input, doubled).save(tmp_path / "lambda.keras")

    with pytest.raises(ValueError, match="holds code.*register_keras_serializable"):
        load_model_file(tmp_path / "lambda.keras")


def test_a_layer_that_keras_does_not_know_is_named_in_a_line(tmp_path):
    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    model = make_classifier()
    keras.Model(model.input, Own()(model.output)).save(tmp_path / "own.keras")

    with pytest.raises(ValueError, match="class 'Own'.*import the module of layers") as error:
        load_model_file(tmp_path / "own.keras")
    assert "config" not in str(error.value)
