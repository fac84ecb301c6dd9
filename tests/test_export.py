"""What is exported gives the answers of the model, in every format that is installed."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_adaptive import EarlyExitPredictor, zoo
from keras_adaptive import export as export_module
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.export import export_stages
from keras_adaptive.exported import ExportedNetwork
from keras_adaptive.graph.logits import exits_give_logits
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.manifest import MANIFEST, Manifest
from keras_adaptive.models import RANet

# What a format needs to be written, and the engines that run it.
WRITERS = {"onnx": ("onnx",), "openvino": ("onnx", "openvino"), "saved_model": (), "litert": ()}
RUNS = [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino"),
        ("saved_model", "saved_model"), ("litert", "litert")]


def _need(format, engine="auto"):
    for package in WRITERS[format]:
        pytest.importorskip(package)
    if engine in ("onnxruntime", "openvino"):
        pytest.importorskip(engine)
    if format in ("saved_model", "litert") and keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModel and LiteRT are written by Keras on TensorFlow")


@pytest.fixture(scope="module")
def toy():
    """A network of two exits, the first of which gives probabilities."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    exit1 = keras.layers.Dense(5, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu")(x)
    exit2 = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, [exit1, exit2], name="toy")


@pytest.fixture(scope="module")
def ranet():
    """A RANet of four exits for pictures of 0 to 255."""
    keras.utils.set_random_seed(3)
    return RANet(channels=4, growth_rate=4, blocks=2, block_step=1, layers_per_block=2,
                 num_classes=5, normalization="cifar10", class_names=list("abcde"),
                 input_rule={"size": [32, 32], "interpolation": "bilinear"})


def _pictures(model, num=23):
    size = model.inputs[0].shape[1:]
    rng = np.random.default_rng(0)
    contrast = rng.uniform(0, 1, (num, 1, 1, 1))
    return (rng.integers(0, 256, (num, *size)) * contrast).astype("uint8")


@dataclasses.dataclass
class Case:
    """A network, pictures, thresholds at which they differ in exit, and the Keras answers."""

    model: keras.Model
    pictures: np.ndarray
    thresholds: list
    expected: Prediction


@pytest.fixture(scope="module")
def cases(toy, ranet):
    return {name: _case(model) for name, model in (("toy", toy), ("ranet", ranet))}


def _case(model):
    pictures = _pictures(model)
    thresholds = []
    for output, is_logits in zip(model(pictures / 1.0), exits_give_logits(model)):
        probabilities = keras.ops.softmax(output) if is_logits else output
        confidences = np.sort(keras.ops.convert_to_numpy(probabilities).max(axis=1))
        thresholds.append(float(confidences[10:12].mean()))  # half of the pictures leave
    predictor = EarlyExitPredictor(model, thresholds, engine="keras")
    return Case(model, pictures, thresholds, predictor.predict(pictures))


# TensorFlow takes seconds to trace a stage.
SLOW = [pytest.param("ranet", *run, marks=pytest.mark.slow) for run in RUNS[3:]]


@pytest.mark.parametrize("name, format, engine", [
    *(("toy", *run) for run in RUNS), *(("ranet", *run) for run in RUNS[:3]), *SLOW])
def test_exported_stages_give_the_models_answers(name, format, engine, cases, tmp_path):
    """Classes, exits, costs and probabilities are those of the Keras predictor."""
    _need(format, engine)
    case = cases[name]
    thresholds, expected = case.thresholds, case.expected

    folder = export_stages(case.model, tmp_path / "here", format, thresholds=thresholds)
    predictor = EarlyExitPredictor.from_export(folder, engine=engine)
    found = predictor.predict(case.pictures, batch_size=7)

    assert len(set(expected.exits)) > 1, "pictures must differ in exit"
    assert predictor.threshold == tuple(thresholds)
    np.testing.assert_array_equal(found.exits, expected.exits)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_array_equal(found.macs, expected.macs)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert (found.full_macs, found.class_names) == (expected.full_macs, expected.class_names)


@pytest.mark.parametrize("format", ["onnx", "saved_model", "litert"])
def test_a_network_for_a_fixed_number_of_pictures(format, toy, tmp_path):
    """The exported stages take any number."""
    _need(format)
    inputs = keras.Input((8, 8, 3), batch_size=4)
    x = inputs
    for layer in toy.layers[1:3]:
        x = layer(x)
    exit1 = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    exit2 = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.MaxPooling2D()(x)))
    model = keras.Model(inputs, [exit1, exit2])
    pictures = _pictures(toy, 8)

    folder = export_stages(model, tmp_path / "here", format, thresholds=[NEVER, 0])
    found = EarlyExitPredictor.from_export(folder).predict(pictures[:7])

    logits = keras.ops.concatenate([model(pictures[i:i + 4])[1] for i in (0, 4)])
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[:7]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("format, engine, dtype", [
    ("onnx", "onnxruntime", "uint8"), ("onnx", "openvino", "uint8"),
    ("saved_model", "saved_model", "uint8"), ("saved_model", "saved_model", "uint16"),
    ("saved_model", "saved_model", "int16")])
def test_a_network_for_integers_cuts_decimals(format, engine, dtype, tmp_path):
    """As the model does, also where a later stage reads the pictures."""
    _need(format, engine)
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3), dtype=dtype)
    exits = [keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x))
             for x in (inputs / 255, keras.layers.Rescaling(1 / 127)(inputs))]
    model = keras.Model(inputs, exits)
    pictures = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype("float32")

    folder = export_stages(model, tmp_path / "here", format, thresholds=[NEVER, 0])
    found = EarlyExitPredictor.from_export(folder, engine=engine).predict(pictures)

    expected = keras.ops.convert_to_numpy(model(pictures.astype(dtype))[1])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_numbers_of_numpy_that_a_model_carries_are_exported(toy, tmp_path):
    """A manifest holds plain numbers."""
    _need("onnx")
    model = keras.Model(toy.inputs, toy.outputs)
    model.input_rule = {"size": np.array([8, 8]), "crop": np.float32(0.5)}
    model.exit_macs = np.array([10, 20])

    network = ExportedNetwork.from_folder(export_stages(model, tmp_path / "here"))

    assert network.input_rule == {"size": [8, 8], "crop": 0.5}
    assert network.count_macs((1, 2), (8, 8)) == ([10, 20], 20)


def test_a_part_of_the_exits_can_be_exported(ranet, tmp_path):
    """Exits keep their numbers, and what only the others need costs nothing."""
    _need("onnx", "onnxruntime")
    pictures = _pictures(ranet, 9)
    options = {"exits": [2, 4], "temperatures": [1, 2.0, 1, 0.5]}
    expected = EarlyExitPredictor(ranet, 0.3, engine="keras", **options).predict(pictures)

    folder = export_stages(ranet, tmp_path / "here", thresholds=0.3, **options)
    found = EarlyExitPredictor.from_export(folder).predict(pictures)

    assert len(Manifest.from_file(folder / MANIFEST).stages) == 2
    assert set(found.exits) <= {2, 4} and found.num_exits == 4
    np.testing.assert_array_equal(found.exits, expected.exits)
    np.testing.assert_array_equal(found.macs, expected.macs)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_the_manifest_tells_what_the_network_is(ranet, tmp_path):
    """Everything that running and showing answers needs is there, in plain JSON."""
    _need("onnx")

    folder = export_stages(ranet, tmp_path / "here", thresholds=[np.inf, 0.5, 0.5, 0])

    manifest = Manifest.from_file(folder / MANIFEST)
    assert manifest.thresholds == (NEVER, 0.5, 0.5, 0)
    assert manifest.class_names == ("a", "b", "c", "d", "e")
    assert manifest.input.shape == (32, 32, 3)
    assert manifest.input.rule == {"size": [32, 32], "interpolation": "bilinear"}
    assert manifest.temperatures is None and manifest.source is None
    assert {path.name for path in folder.iterdir()} == {
        MANIFEST, *(f"stage{number}.onnx" for number in (1, 2, 3, 4))}
    network = ExportedNetwork.from_folder(folder)
    assert (network.name, network.exits, network.format) == (ranet.name, (1, 2, 3, 4), "onnx")


def test_an_export_replaces_an_earlier_one_as_a_whole(toy, ranet, tmp_path):
    """No file of the earlier export is left to be mistaken for one of the new."""
    _need("onnx")
    export_stages(ranet, tmp_path / "here")

    folder = export_stages(toy, tmp_path / "here")

    assert {path.name for path in folder.iterdir()} == {MANIFEST, "stage1.onnx", "stage2.onnx"}
    assert ExportedNetwork.from_folder(folder).name == "toy"


def test_an_interrupted_export_leaves_the_earlier_one(toy, ranet, tmp_path, monkeypatch):
    """Interrupted in the middle, the folder is what it was, and runs."""
    _need("onnx")
    folder = export_stages(toy, tmp_path / "here")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(stages, is_logits, partial):
        (partial / "stage1.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(export_module._WRITERS, "onnx", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_stages(ranet, folder)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_other_files_are_never_replaced(toy, tmp_path):
    """A folder of something else, or a file, is left alone, and the message says what to do."""
    (tmp_path / "thesis.tex").write_text("three years")

    with pytest.raises(ValueError, match="'thesis.tex'. Give a new folder, or empty this one"):
        export_stages(toy, tmp_path)
    with pytest.raises(ValueError, match="`folder` is a file"):
        export_stages(toy, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "three years"


@pytest.mark.parametrize("arguments, message", [
    ({"format": "open_vino"}, "Did you mean 'openvino'?"),
    ({"exits": [3]}, "`exits` names exits in use, from 1 to 2"),
    ({"thresholds": [0.5]}, "`threshold` takes one number, or one per exit: 2"),
    ({"class_names": ["one"]}, "`class_names` takes one name per class: 5"),
    ({"temperatures": [1.0, -1.0]}, "`temperatures` takes one finite number above 0 per exit"),
])
def test_arguments_that_do_not_fit_write_nothing(toy, tmp_path, arguments, message):
    """The mistake is told before anything is written."""
    with pytest.raises(ValueError, match=message):
        export_stages(toy, tmp_path / "here", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_network_for_any_size_is_refused(tmp_path):
    """Its cost is not known, and the message says how to fix the size."""
    inputs = keras.Input((None, None, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(2)(features) for _ in range(2)])

    with pytest.raises(ValueError, match="for pictures of one size"):
        export_stages(model, tmp_path / "here")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="they are written there")
@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_other_backends_say_what_writes_tensorflows_formats(toy, tmp_path, format):
    """The message names the backend to set, and the formats that work here."""
    with pytest.raises(ValueError, match='KERAS_BACKEND=tensorflow.*"onnx"'):
        export_stages(toy, tmp_path / "here", format)


@pytest.mark.slow
def test_a_zoo_model_brings_thresholds_and_source(tmp_path):
    """By its name, the calibrated threshold that promises least loss, licence and digest."""
    _need("onnx")
    entry = zoo.find_entry("ranet_cifar10")

    folder = export_stages("ranet_cifar10", tmp_path / "here")

    network = ExportedNetwork.from_folder(folder)
    assert network.thresholds == zoo.thresholds("ranet_cifar10", max_loss=0.005)
    assert network.source["license"] == entry.license
    assert network.source["weights_sha256"] == entry.weights["sha256"]
    assert network.count_macs((1, 6), (32, 32)) == (
        [entry.exit_macs[0], entry.exit_macs[5]], entry.exit_macs[5])
