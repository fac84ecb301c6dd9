"""Exported stages run where neither Keras nor a backend of it is installed."""

import dataclasses
import hashlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.export import export_stages
from keras_adaptive.exported import ExportedNetwork
from keras_adaptive.manifest import MANIFEST, Manifest, StageFile

# Raises as if the packages were not installed, and says who asked for them.
WITHOUT_KERAS = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"keras", "tensorflow", "jax", "torch", "onnx", "scipy", "h5py"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    exit1 = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    exit2 = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    return keras.Model(inputs, [exit1, exit2], name="toy")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype="uint8")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    pytest.importorskip("onnx")
    return export_stages(model, tmp_path_factory.mktemp("toy") / "here",
                         class_names=["cat", "dog", "eel"])


def _run_without_keras(program, *arguments):
    return subprocess.run([sys.executable, "-c", WITHOUT_KERAS + program, *map(str, arguments)],
                          capture_output=True, text=True)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_predicting_needs_neither_keras_nor_its_backends(
        engine, folder, model, pictures, tmp_path):
    """Where they are not installed, arrays get the same answers as with the Keras model."""
    pytest.importorskip(engine)
    first = EarlyExitPredictor(model, exits=[1], engine="keras").predict(pictures)
    threshold = float(np.median(first.confidences))
    expected = EarlyExitPredictor(model, threshold, engine="keras").predict(pictures)
    np.save(tmp_path / "pictures.npy", pictures)

    finished = _run_without_keras("""
import numpy as np
from keras_adaptive import EarlyExitPredictor
folder, engine, threshold, place = sys.argv[1:]
predictor = EarlyExitPredictor.from_export(folder, float(threshold), engine=engine)
found = predictor.predict(np.load(place + "/pictures.npy"), batch_size=8)
np.savez(place + "/found.npz", exits=found.exits, probabilities=found.probabilities,
         labels=found.labels.astype(str))
""", folder, engine, threshold, tmp_path)

    assert finished.returncode == 0, finished.stderr
    found = np.load(tmp_path / "found.npz")
    assert set(expected.exits) == {1, 2}, "pictures must differ in exit"
    np.testing.assert_array_equal(found["exits"], expected.exits)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)
    assert set(found["labels"]) <= {"cat", "dog", "eel"}


def test_the_command_line_needs_no_keras_for_an_export(folder, pictures, tmp_path):
    """`predict --model FOLDER` classifies files where Keras is not installed."""
    pytest.importorskip("onnxruntime")
    from PIL import Image

    Image.fromarray(pictures[0]).save(tmp_path / "cat.png")

    finished = _run_without_keras("""
from keras_adaptive import cli
sys.exit(cli.main(["predict", sys.argv[2], "--model", sys.argv[1]]))
""", folder, tmp_path / "cat.png")

    assert finished.returncode == 0, finished.stderr
    assert "1 picture " in finished.stdout


def test_nothing_that_is_not_needed_is_imported_on_the_way(folder):
    """Starting is fast: an array is classified without what draws tables and bars."""
    pytest.importorskip("onnxruntime")

    finished = _run_without_keras("""
import numpy as np
from keras_adaptive import EarlyExitPredictor
EarlyExitPredictor.from_export(sys.argv[1]).predict(np.zeros((1, 8, 8, 3), "uint8"))
unwanted = {"rich", "openvino", "matplotlib"} & set(sys.modules)
sys.exit(f"imported: {unwanted}" if unwanted else 0)
""", folder)

    assert finished.returncode == 0, finished.stderr


def test_without_thresholds_the_predictors_default_is_used(folder):
    """An export of a network that nobody calibrated runs as the network itself would."""
    pytest.importorskip("onnxruntime")

    assert EarlyExitPredictor.from_export(folder).threshold == 0.8


@pytest.mark.parametrize("engine, message", [
    ("onnxruntim", "Did you mean 'onnxruntime'?"),
    ("keras", 'runs \'onnx\' files: onnxruntime, openvino, openvino_bfloat16'),
])
def test_an_engine_that_cannot_run_the_files_is_told(folder, engine, message):
    """The message names the engines that can."""
    with pytest.raises(ValueError, match=message):
        ExportedNetwork.from_folder(folder).make_engine(engine)


def test_a_missing_package_is_told_with_its_cure(folder, monkeypatch):
    """Where nothing that runs the files is installed, the message says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ImportError, match=r"need the package onnxruntime: `pip install .*\[onnx\]"):
        ExportedNetwork.from_folder(folder).make_engine()


def test_files_that_the_runtime_refuses_are_told(folder, tmp_path):
    """A file that is no network, with the right digest, is an error that names the folder."""
    pytest.importorskip("onnxruntime")
    manifest = Manifest.from_file(folder / MANIFEST)
    (tmp_path / "stage1.onnx").write_bytes(b"no network")
    (tmp_path / "stage2.onnx").write_bytes((folder / "stage2.onnx").read_bytes())
    digest = hashlib.sha256(b"no network").hexdigest()
    first = dataclasses.replace(
        manifest.stages[0], files=(StageFile("stage1.onnx", digest, len(b"no network")),))
    dataclasses.replace(manifest, stages=(first, manifest.stages[1])).write(tmp_path / MANIFEST)

    with pytest.raises(ValueError, match="cannot be loaded.*export again") as error:
        EarlyExitPredictor.from_export(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_changed_stage_is_found_before_it_is_parsed(folder, tmp_path):
    """Two stages swapped, or one cut short, is an error that names the file."""
    pytest.importorskip("onnxruntime")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "stage1.onnx").write_bytes((folder / "stage2.onnx").read_bytes())

    with pytest.raises(ValueError, match="stage1.onnx has .* expected"):
        EarlyExitPredictor.from_export(tmp_path)


def test_exported_thresholds_hold_for_the_confidences_they_were_chosen_for(model, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = export_stages(model, tmp_path / "toy", thresholds=[0.6, 0.0])
    assert EarlyExitPredictor.from_export(folder).threshold == pytest.approx((0.6, 0.0))
    assert EarlyExitPredictor.from_export(folder, temperatures=[4, 4]).threshold == 0.8
    assert EarlyExitPredictor.from_export(folder, max_exit=1).threshold == 0.8
