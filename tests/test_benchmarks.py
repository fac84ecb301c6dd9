"""The benchmarks run: each script, from its command line to its file, on a tiny network."""

import csv
import dataclasses
import importlib
import json
import pathlib
import re
import shutil
import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_adaptive import ExitOutputs, recipes, zoo
from keras_adaptive.calibrated import CalibratedThresholds
from keras_adaptive.equal_schedule import EQUAL_SCHEDULE, EQUAL_SCHEDULE_FIGURE, read_equal_schedule
from keras_adaptive.graph import exit_macs
from keras_adaptive.models import RANet, ResNet
from keras_adaptive.models.thumbnet import ThumbNet
from keras_adaptive.picture_files import InputRule, read_picture
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.run import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
NUM_CLASSES = 5


@pytest.fixture
def load_script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def tiny_zoo(monkeypatch, tiny_arguments):
    """The zoo's network is the tiny one, with thresholds by which some pictures leave early."""
    def load(name, pretrained=False, **arguments):
        model = RANet(**{**tiny_arguments, "normalization": "cifar10", **arguments})
        model.exit_macs = exit_macs(model)
        return model

    monkeypatch.setattr(zoo, "load", load)
    monkeypatch.setattr(zoo, "thresholds", lambda name, **wanted: (0.22, 0.22, 0.22, 0.22))


@pytest.fixture
def data(tmp_path):
    """A file of random pictures, twelve in each part."""
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array([f"class {i}" for i in range(NUM_CLASSES)])}
    for part in ("train", "val", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (12, 32, 32, 3), "uint8")
        arrays[f"y_{part}"] = rng.integers(0, NUM_CLASSES, 12)
    path = tmp_path / "pictures.npz"
    np.savez(path, **arrays)
    return path


def _engines():
    """Return the engines to run on: one that needs no Keras, where it is installed."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    return ["--engine", "onnxruntime"]


def _run(script, arguments, output, columns):
    """Run a script; return the rows that it wrote, in which `columns` are numbers."""
    script.main([*map(str, arguments), "--output", str(output)])
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row["processor"] and row["cores"] and row["backend_version"]
        assert all(float(row[column]) > 0 for column in columns)
    return rows


@pytest.mark.parametrize("name", sorted(
    path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in (
        "common", "readme_table", "thumbnet_arms", "thumbnet_verdicts")))
def test_help_teaches(load_script, name, capsys):
    """`--help` shows what the script's docstring says, with the command to run."""
    script = load_script(name)

    with pytest.raises(SystemExit):
        script.main(["--help"])

    text = capsys.readouterr().out
    assert script.__doc__.strip().splitlines()[0] in text
    assert f"python benchmarks/{name}.py" in text


def test_readme_lists_all_scripts():
    """Every script has its place in the table of questions, or is named below it."""
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")

    for path in BENCHMARKS.glob("*.py"):
        assert path.name in text


def test_staged_vs_whole(load_script, tiny_zoo, data, tmp_path):
    """There is a row per engine and batch size, with the ratios."""
    rows = _run(load_script("staged_vs_whole"), [
        "--data", data, "--num-pictures", 8, "--batch-size", 1, 4, "--repeats", 1, *_engines()],
        tmp_path / "out.csv", ["whole_p50_ms", "adaptive_p95_ms", "ideal_ms", "cost_share"])

    assert [(row["engine"], row["batch_size"]) for row in rows] == [
        ("onnxruntime", "1"), ("onnxruntime", "4")]


@pytest.mark.slow
def test_staged_vs_model_predict(load_script, tiny_zoo, data, tmp_path):
    """Keras's own way of running the network is timed where asked for, on Keras's engine too."""
    _run(load_script("staged_vs_whole"), [
        "--data", data, "--num-pictures", 8, "--batch-size", 4, "--repeats", 1, "--engine", "keras",
        "--model-predict"], tmp_path / "out.csv", ["whole_p50_ms", "model_predict_p50_ms"])


def test_convolution_ceiling(load_script, tiny_zoo, data, tmp_path):
    """There is a row for the plain convolutions, one per stage, and one for all stages."""
    rows = _run(load_script("convolution_ceiling"), [
        "--data", data, "--batch-size", 4, "--repeats", 1, *_engines()], tmp_path / "out.csv",
        ["ms", "gmacs_per_second"])

    assert [row["what"] for row in rows] == [
        "ceiling", *(f"stage {number}" for number in range(1, 5)), "all stages"]


def test_against_authors(load_script, tiny_zoo, tiny_arguments, data, tmp_path):
    """Their program runs from the checkout, in both layouts, beside ours."""
    pytest.importorskip("torch")
    engines = _engines()
    num_parameters = sum(
        int(np.prod(variable.shape)) for variable in RANet(**tiny_arguments).trainable_variables)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "RANet.py").write_text(
        "import torch\n"
        "class RANet(torch.nn.Module):\n"
        "    def __init__(self, args):\n"
        "        super().__init__()\n"
        f"        self.weights = torch.nn.Parameter(torch.zeros({num_parameters}))\n"
        "        args.num_exits = 2\n"
        "    def forward(self, x):\n"
        f"        return [x.mean((2, 3)).repeat(1, 2)[:, :{NUM_CLASSES}] + self.weights[0]] * 2\n",
        encoding="utf-8")

    rows = _run(load_script("against_authors"), [
        "--checkout", tmp_path, "--data", data, "--num-pictures", 8, "--batch-size", 4,
        "--repeats", 1, *engines], tmp_path / "out.csv", ["p50_ms", "p95_ms", "speed_up"])

    assert [row["what"] for row in rows] == [
        "authors", "authors channels_last", "whole", "nobody", "adaptive"]


def test_authors_of_another_network_are_refused(load_script, tiny_zoo, data, tmp_path):
    """Speeds are compared of the same network only, and a wrong folder is named."""
    pytest.importorskip("torch")
    script = load_script("against_authors")
    arguments = ["--checkout", str(tmp_path), "--data", str(data)]

    with pytest.raises(ValueError, match="does not exist. `--checkout` is a clone"):
        script.main(arguments)

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "RANet.py").write_text(
        "import torch\nRANet = lambda args: torch.nn.Linear(1, 1)\n", encoding="utf-8")
    with pytest.raises(ValueError, match="of 2 parameters"):
        script.main(arguments)


def test_static_networks(load_script, tiny_zoo, data, tmp_path):
    """Static networks and the cascade stand beside the adaptive network and its whole."""
    rows = _run(load_script("static_networks"), [
        "--data", data, "--num-pictures", 8, "--batch-size", 4, "--repeats", 1, *_engines(),
        "--static", "resnet8", "densenet10", "--passed-on", 0.5], tmp_path / "out.csv", ["macs"])

    assert [row["network"] for row in rows] == [
        "resnet8", "densenet10", "cascade, 50% passed on", "ranet", "ranet, adaptive"]
    assert float(rows[2]["passed_on"]) == 0.5
    assert rows[2]["predict_p50_ms"] == "" and float(rows[4]["predict_p50_ms"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "DenseNet121", "ResNet50"])
def test_static_networks_of_keras(load_script, name):
    """Keras's networks build at the size of the pictures and are written for the engines."""
    _engines()
    from keras_adaptive.timing import compile_whole

    model = load_script("static_networks").build(name, (32, 32, 3), 10)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")

    output, = compile_whole(model, "onnxruntime")(pictures)

    np.testing.assert_allclose(output, model.predict(pictures, verbose=0), atol=1e-4)


def test_cascade_answers_by_who_is_sure(load_script):
    """Pictures of which the small network is unsure get the large network's answer."""
    cascade_of = load_script("static_networks").Cascade
    pictures = np.arange(1, 7, dtype="float32")

    cascade = cascade_of(lambda x: [np.stack([x, -x], axis=1)],
                         lambda x: [np.stack([x, 100 * x], axis=1)], pictures, 0.5, 4)

    assert cascade.passed_on == 0.5
    assert cascade.run(pictures)[:, 1].tolist() == [100, 200, 300, -4, -5, -6]


@pytest.mark.slow
def test_training_techniques(load_script, make_data, tmp_path, monkeypatch):
    """A row per technique and seed has the accuracies of all exits; what is there is kept."""
    script, output = load_script("training_techniques"), tmp_path / "out.csv"
    chosen = {name: script.TECHNIQUES[name] for name in ("averaged weights", "boosted exits")}
    monkeypatch.setattr(script, "TECHNIQUES", chosen)
    arguments = ["--data", make_data(640, 20, 20), "--epochs", "2", "--seeds", "1",
                 "--output", str(output)]

    script.main(arguments)

    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["technique"] for row in rows] == list(chosen)
    assert all(0 <= float(row[f"exit{number}"]) <= 1 for row in rows for number in range(1, 5))
    script.main(arguments)
    assert len(output.read_text(encoding="utf-8").splitlines()) == len(rows) + 1


def test_growth(load_script, tiny_zoo, data, tmp_path):
    """Each question that is timed has a row per value; easy pictures cost less than hard ones."""
    rows = _run(load_script("growth"), [
        "--data", data, "--num-pictures", 8, "--batch-size", 1, 4, "--repeats", 1, *_engines(),
        "--question", "batch_size", "picture_size", "easy_share", "--picture-size", 32, 40,
        "--easy-share", 0, 1, "--num-validation", 8], tmp_path / "out.csv",
        ["adaptive_p50_ms", "whole_p95_ms", "cost_share"])

    assert [(row["question"], row["value"]) for row in rows] == [
        ("batch_size", "1"), ("batch_size", "4"), ("picture_size", "32"), ("picture_size", "40"),
        ("easy_share", "0.0"), ("easy_share", "1.0")]
    assert float(rows[5]["cost_share"]) <= float(rows[4]["cost_share"])


@pytest.mark.slow
def test_growth_of_memory(load_script, tiny_zoo, data, tmp_path):
    """Fresh processes run the whole network and its stages, and tell what they needed."""
    rows = _run(load_script("growth"), [
        "--data", data, "--question", "memory", "--num-memory", 64, "--batch-size", 16,
        "--memory-repeats", 1, *_engines()], tmp_path / "out.csv", ["before_mib", "peak_mib"])

    assert [row["value"] for row in rows] == ["whole", "nobody", "adaptive"]


@pytest.mark.slow
def test_start_up(load_script, tiny_zoo, data, tmp_path):
    """Parts of the time until a fresh process answers follow one another."""
    pytest.importorskip("openvino")
    rows = _run(load_script("start_up"), ["--data", data, "--repeats", 1, *_engines()],
                tmp_path / "out.csv", ["p50_ms"])

    times = {row["what"]: float(row["p50_ms"]) for row in rows}
    assert {"split", "write", "load", "export"} <= set(times)
    assert times["fresh process, import"] < times["fresh process, load"] < times["fresh process"]


@pytest.mark.slow
def test_fresh_processes_do_without_keras(load_script, tiny_zoo, data, tmp_path):
    """What is measured as start-up is not the import of Keras."""
    _engines()
    from keras_adaptive import export_stages

    common = load_script("common")
    export_stages(zoo.load("tiny"), tmp_path / "stages")
    np.save(tmp_path / "pictures.npy", np.zeros((2, 32, 32, 3), "uint8"))

    seen = common.run_fresh("--export", tmp_path / "stages", "--engine", "onnxruntime",
                            "--data", tmp_path / "pictures.npy")

    assert seen["has_keras"] is False
    assert seen["started"] < seen["imported"] < seen["loaded"] < seen["answered"]
    with pytest.raises(RuntimeError, match="holds no export|manifest"):
        common.run_fresh("--export", tmp_path, "--engine", "onnxruntime",
                         "--data", tmp_path / "pictures.npy")


def test_accuracy_latency_and_its_picture(load_script, tiny_zoo, data, tmp_path, monkeypatch):
    """Budgets, single exits and the whole network are measured, and drawn for each batch size."""
    script = load_script("accuracy_latency")
    rng = np.random.default_rng(0)
    outputs = ExitOutputs(rng.dirichlet(np.ones(NUM_CLASSES), (4, 50)),
                          rng.integers(0, NUM_CLASSES, 50))
    stored = CalibratedThresholds.from_outputs(outputs, [1e6, 2e6, 3e6, 4e6], "made up")
    monkeypatch.setattr(script, "calibrated_thresholds", lambda name: stored)

    rows = _run(script, ["--data", data, "--num-pictures", 8, "--batch-size", 1, 4, "--repeats", 1,
                         *_engines()], tmp_path / "out.csv", ["p50_ms", "mean_macs"])

    kinds = [row["kind"] for row in rows]
    assert kinds == 2 * (["budget"] * len(stored.by_macs) + ["exit"] * 4 + ["whole"])

    pytest.importorskip("matplotlib")
    load_script("plot_speed").main([
        "--results", str(tmp_path / "out.csv"), "--output", str(tmp_path / "speed.png")])
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_picture_shows_what_was_measured(load_script):
    """A panel per batch size has the points of each kind, and the title data and machine."""
    pytest.importorskip("matplotlib")
    rows = [{"model": "net", "data": "cifar10", "num_test_pictures": "10000", "engine": "openvino",
             "openvino_version": "1.2", "batch_size": str(size), "kind": kind, "value": "1",
             "accuracy": "0.5", "p50_ms": str(ms), "cores": "2", "processor": "CPU"}
            for size in (1, 64) for kind, ms in (("budget", 1), ("exit", 2), ("whole", 3))]

    figure = load_script("plot_speed").plot_speed(rows)

    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "batches of 1 picture", "batches of 64 pictures"]
    for axes in figure.axes:
        assert [line.get_xdata().tolist() for line in axes.get_lines()] == [[1], [2], [3]]
    texts = " ".join(text.get_text() for text in figure.texts)
    assert all(part in texts for part in ("10,000", "cifar10", "openvino 1.2", "2 cores of CPU"))


def test_picture_of_thresholds_shows_both_ways(load_script, tmp_path):
    """Each way has its points in the order of their costs; equal ones are drawn once."""
    pytest.importorskip("matplotlib")
    rows = [{"papers_macs": str(macs), "papers_accuracy": "0.5", "ours_macs": "2e6",
             "ours_accuracy": "0.75"} for macs in (3000000, 2e6)]

    figure = load_script("plot_thresholds").plot_thresholds(rows)

    papers, ours = figure.axes[0].get_lines()
    assert papers.get_xydata().tolist() == [[2, 50], [3, 50]]
    assert ours.get_xydata().tolist() == [[2, 75]]

    load_script("common").save_rows(tmp_path / "rows.csv", rows)
    load_script("plot_thresholds").main([
        "--results", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "thresholds.png")])
    assert (tmp_path / "thresholds.png").read_bytes().startswith(b"\x89PNG")


def test_rows_are_read_as_written(load_script, tmp_path):
    """A column that a row lacks is empty, and a missing file is named with its cure."""
    common = load_script("common")
    common.save_rows(tmp_path / "new" / "rows.csv", [{"a": 1}, {"a": 2, "b": [3]}])

    assert common.read_rows(tmp_path / "new" / "rows.csv") == [
        {"a": "1", "b": ""}, {"a": "2", "b": json.dumps([3])}]
    with pytest.raises(ValueError, match="Run the benchmark"):
        common.read_rows(tmp_path / "missing.csv")


def test_engine_agreement(load_script, tiny_zoo, data, tmp_path):
    """In float32 only pictures that come near a threshold may leave elsewhere."""
    (row,) = _run(load_script("engine_agreement"), ["--data", data, *_engines()],
                  tmp_path / "out.csv", ["num_pictures"])

    assert int(row["other_exits"]) <= int(row["near_a_threshold"])
    assert float(row["largest_difference"]) < 1e-4


@pytest.fixture
def thumbnet_claims(load_script, monkeypatch):
    """The script, with a teacher of few weights."""
    script = load_script("thumbnet_claims")
    teacher = ResNet(8, 4, num_classes=NUM_CLASSES, normalization="cifar10")
    monkeypatch.setattr(zoo, "load", lambda name, pretrained: teacher)
    monkeypatch.setattr(script, "BATCH_SIZE", 4)
    return script


@pytest.mark.slow
def test_thumbnet_claims(thumbnet_claims, data, tmp_path, capsys):
    """An arm learns once per seed, for its own epochs; learned thumbnails are measured."""
    pytest.importorskip("grain")
    arguments = ["--data", data, "--pictures", 8, "--epochs", 1, "--seeds", 1,
                 "--arms", "teacher,direct_long,full,free_lunch"]

    rows = _run(thumbnet_claims, arguments, tmp_path / "out.csv", ["macs"])
    again = _run(thumbnet_claims, arguments, tmp_path / "out.csv", ["macs"])

    assert rows == again
    assert [row["arm"] for row in rows] == ["teacher", "direct_long", "full", "free_lunch"]
    assert [row["epochs"] for row in rows] == ["0", "2", "1", "0"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert [bool(row["ssim"]) for row in rows] == [False, False, True, False]
    assert float(rows[2]["moment_difference"]) > 0 and float(rows[2]["psnr"]) > 0
    assert "statistics estimated anew" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        thumbnet_claims.main([*map(str, arguments), "--epochs", "2", "--output",
                              str(tmp_path / "out.csv")])


@pytest.mark.slow
def test_runs_without_measured_thumbnails_are_repeated_when_asked(
        thumbnet_claims, load_script, data, tmp_path):
    """Rows of before the columns stay as they are; --measure-again repeats those it concerns."""
    pytest.importorskip("grain")
    old = {"ratio": 2, "seed": 0, "accuracy": "0.25", "macs": 1, "pictures": 8, "epochs": 1,
           "precision": "float32", "seconds": 1, "processor": "old", "cores": 1,
           "backend_version": "1"}
    path = tmp_path / "out.csv"
    load_script("common").save_rows(path, [{"arm": arm, **old} for arm in ("honest", "full")])
    arguments = ["--data", data, "--pictures", 8, "--epochs", 1, "--seeds", 1,
                 "--arms", "full,honest"]

    rows = _run(thumbnet_claims, arguments, path, ["macs"])
    assert [row["processor"] for row in rows] == ["old", "old"]

    rows = _run(thumbnet_claims, [*arguments, "--measure-again"], path, ["macs"])
    assert {row["arm"]: row["processor"] == "old" for row in rows} == {
        "honest": True, "full": False}
    assert {row["arm"]: bool(row["psnr"]) for row in rows} == {"honest": False, "full": True}


def test_thumbnet_results_are_shown_without_data(load_script, tmp_path, capsys):
    """From the file alone: seeds, claims, the gap closed by hand, and the moments' claim."""
    seen = {"ssim": 0.5, "clipped_share": 0.01}
    rows = [{"arm": arm, "ratio": ratio, "seed": seed, "epochs": 6, "macs": 1_000_000,
             "accuracy": accuracy + 0.01 * seed, **columns}
            for ratio in (2, 4)
            for seed in (0, 1, 2)
            for arm, accuracy, columns in (
                ("direct", 0.4, {}), ("teacher", 0.8, {}), ("honest", 0.5, {}),
                ("full", 0.6, {"psnr": 20.0 + seed, "moment_difference": 0.001, **seen}),
                ("without_moments", 0.6, {"psnr": 15.0, "moment_difference": 0.02, **seen}))]
    path = tmp_path / "out.csv"
    load_script("common").save_rows(path, rows)

    load_script("thumbnet_claims").main(["--show", "--output", str(path)])

    lines = capsys.readouterr().out.splitlines()
    (closed, _), (growth,) = ([line for line in lines if wanted in line]
                              for wanted in ("of the gap closed", "at ratio 4 minus"))
    assert "50 % of the gap closed" in closed and "50 to 50" in closed
    assert "+0.00 points" in growth and "null" in growth
    assert all("3 of 3" in line and "held" in line for line in lines if "C10" in line)
    assert sum("60.00 61.00 62.00" in line for line in lines) == 4


@pytest.mark.parametrize("changes, verdict", [
    ({}, "held"), ({"moment_difference": 0.003}, "refuted"), ({"psnr": 14}, "refuted"),
    ({"accuracy": 0.5}, "refuted"), ({"psnr": ""}, None)])
def test_moments_are_judged_by_every_seed(load_script, changes, verdict):
    """One seed whose thumbnails are no nearer is enough; so is a clear loss of accuracy."""
    matched = {seed: {"accuracy": 0.6, "psnr": 20, "moment_difference": 0.001} for seed in (0, 1)}
    unmatched = {seed: {"accuracy": 0.6, "psnr": 15, "moment_difference": 0.02} for seed in (0, 1)}
    for seed in (0, 1) if "accuracy" in changes else (1,):
        matched[seed] = matched[seed] | changes

    judged = load_script("thumbnet_verdicts").judge_moments(matched, unmatched)

    assert (judged and judged["verdict"]) == verdict


@pytest.mark.slow
def test_every_arm_can_be_built(load_script):
    """Students of thumbnails cost a part of the teacher; the small network costs as much."""
    arms = load_script("thumbnet_arms")
    teacher = ResNet(8, 8, num_classes=NUM_CLASSES, normalization="cifar10")

    thumbnets = {name: arms.make(name, teacher, 2) for name in arms.ARMS}

    macs = {name: exit_macs(thumbnet.on_pictures())[0] for name, thumbnet in thumbnets.items()}
    assert macs["teacher"] == macs["enlarged"] == exit_macs(teacher)[0]
    assert macs["honest"] < macs["full"] == macs["more_layers"] < macs["enlarged"]
    assert macs["honest"] < macs["unshuffled"] < macs["enlarged"]
    assert macs["small"] == pytest.approx(macs["honest"], rel=0.1)
    for name, arm in arms.ARMS.items():
        learns = bool(thumbnets[name].downscaler.trainable_variables)
        assert arm.learns_shrinking == learns == ("moment_difference" in _quality(
            load_script, thumbnets[name]))


def _quality(load_script, thumbnet):
    pictures = np.zeros((1, 32, 32, 3), "uint8")
    return load_script("thumbnet_claims").quality(thumbnet.downscaler, pictures)


def test_arms_start_and_learn_as_they_say(load_script):
    """The stem alone is fresh where all pixels come in; a tuned classifier has no free kernels."""
    arms = load_script("thumbnet_arms")
    teacher = ResNet(8, 4, num_classes=NUM_CLASSES, normalization="cifar10")

    unshuffled = arms.make("unshuffled", teacher, 2)
    tuned = arms.make("classifier_only", teacher, 2)

    for layer in unshuffled.student.layers:
        if layer.name not in ("stem", "normalization", "pictures"):
            for own, other in zip(layer.get_weights(),
                                  teacher.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(own, other)
    assert unshuffled.student.get_layer("stem").get_weights()[0].shape == (3, 3, 12, 4)
    assert {path.rsplit("/", 1)[-1] for path in (
        variable.path for variable in tuned.trainable_variables)} == {
            "gamma", "beta", "kernel", "bias"}
    assert [variable.path for variable in tuned.trainable_variables if "kernel" in variable.path
            ] == ["exit1/kernel"]


def test_unshuffled_pictures_lose_nothing(load_script):
    """Channels are the pixels of a square, row by row, so that each has its own statistics."""
    pictures = np.arange(2 * 4 * 4 * 3, dtype="float32").reshape(2, 4, 4, 3)

    x = pictures
    for layer in load_script("thumbnet_arms").unshuffled(2, (4, 4, 3)):
        x = layer(x)

    x = keras.ops.convert_to_numpy(x)
    assert x.shape == (2, 2, 2, 12)
    np.testing.assert_array_equal(x[1, 0, 1], pictures[1, 0:2, 2:4].reshape(-1))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [2, 4])
def test_one_small_network_is_nearest_with_and_without_the_downscaler(load_script, ratio):
    """So that one arm stands for both small networks that were planned."""
    arms = load_script("thumbnet_arms")
    teacher = ResNet(20, 16, normalization="cifar10")
    full = arms.make("full", teacher, ratio)

    widths = {arms.nearest_width(teacher, ratio, exit_macs(model)[0])
              for model in (full.student, full.on_pictures())}

    assert widths == {16 // ratio}


@pytest.mark.slow
def test_thumbnet_transfer(load_script, data, tmp_path, monkeypatch):
    """A teacher and two students learn; the downscaler that they never met stays as it is."""
    pytest.importorskip("grain")
    script = load_script("thumbnet_transfer")
    monkeypatch.setattr(load_script("thumbnet_claims"), "BATCH_SIZE", 4)
    trained = ThumbNet.from_teacher(ResNet(8, 4, num_classes=NUM_CLASSES), hidden_filters=12)
    trained.class_names = [f"class {i}" for i in range(NUM_CLASSES)]
    monkeypatch.setattr(zoo, "load", lambda name, pretrained: trained)
    before = trained.downscaler.get_weights()
    monkeypatch.setitem(script.CLAIMS, "C7", ("other networks", lambda n: script.vgg(n, 4)))
    arguments = ["--claim", "C7", "--data", data, "--pictures", 8, "--epochs", 1,
                 "--teacher-epochs", 1, "--seeds", 1]

    rows = _run(script, arguments, tmp_path / "out.csv", ["macs"])
    again = _run(script, arguments, tmp_path / "out.csv", ["macs"])

    assert rows == again and [row["way"] for row in rows] == ["teacher", "averaged", "learned"]
    macs = [int(row["macs"]) for row in rows]
    assert macs[1] < macs[2] < macs[0]
    for own, other in zip(trained.downscaler.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, other)
    with pytest.raises(SystemExit):
        script.main([*map(str, arguments), "--claim", "C8"])


def test_thumbnet_transfer_is_shown_without_data(load_script, tmp_path, capsys):
    """From the file alone: each way's seeds, and the difference of those of one claim."""
    path = tmp_path / "out.csv"
    load_script("common").save_rows(path, [
        {"claim": claim, "way": way, "seed": seed, "epochs": 6, "macs": 1_000_000,
         "accuracy": accuracy + 0.01 * seed}
        for claim, gain in (("C7", 0.02), ("C8", -0.02))
        for seed in (0, 1, 2)
        for way, accuracy in (("teacher", 0.7), ("averaged", 0.6), ("learned", 0.6 + gain))])

    load_script("thumbnet_transfer").main(["--show", "--output", str(path)])

    text = capsys.readouterr().out
    assert "62.00 63.00 64.00" in text
    held, refuted = (line for line in text.splitlines() if "learned - averaged" in line)
    assert "+2.00" in held and "held" in held
    assert "-2.00" in refuted and "refuted" in refuted


@pytest.mark.parametrize("differences, verdict", [
    ((0.6, 0.2, 0.5, 0.3, 0.4), "held"), ((-0.6, -0.2, -0.5, -0.3, -0.4), "refuted"),
    ((0.1, -0.1, 0.0, 0.05, -0.05), "null"), ((2.0, -1.0, 0.5, 0.1, 1.0), "undecided")])
def test_claims_are_judged_by_their_interval(load_script, differences, verdict):
    """The first has a mean of 0.4, a standard deviation of 0.158 and a half interval of 0.196."""
    mean, half, received = load_script("thumbnet_verdicts").judge(list(differences))

    assert received == verdict
    if differences[0] == 0.6:
        assert mean == pytest.approx(0.4) and half == pytest.approx(0.1963, abs=1e-4)


@pytest.mark.slow
def test_training_speed(load_script, tmp_path):
    """Each way of training runs in a process of its own, and is told as a ratio to the first."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("it measures TensorFlow")
    parts = {f"x_{part}": np.zeros((64, 32, 32, 3), "uint8") for part in ("train", "val", "test")}
    labels = {f"y_{part}": np.arange(64) % 10 for part in ("train", "val", "test")}
    data = tmp_path / "pictures.npz"
    np.savez(data, **parts, **labels, class_names=list("abcdefghij"))

    recipe = recipes.load("ranet_cifar10").quick()
    model = "".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.model.items())
    (tmp_path / "small.toml").write_text(
        f"[about]\ntitle = 'small'\n[model]\n{model}[data]\nname = 'cifar10'\n[training]\n"
        "batch_size = 64\npeak_learning_rate = 0.1\nphases = [{epochs = 1, image_size = 32}]\n")

    rows = _run(load_script("training_speed"), [
        "--data", data, "--recipe", tmp_path / "small.toml", "--what", "settings", "--steps", 1,
        "--repeats", 1],
        tmp_path / "out.csv", ["pictures_per_second"])

    assert [(row["what"], row["ratio_to_settings"]) for row in rows] == [("settings", "1.0")]


def test_photograph_pipeline(load_script, tmp_path):
    """Generated files are decoded alone and by the pipeline, which is compared with that."""
    pytest.importorskip("grain")
    rows = _run(load_script("photograph_pipeline"), [
        "--num-pictures", 16, "--batch-size", 8, "--image-size", 32, "--repeats", 1],
        tmp_path / "out.csv", ["pictures_per_second", "share_of_decoding"])

    assert [row["what"] for row in rows] == ["decoding", "pipeline"]
    assert {row["files"] for row in rows} == {"generated"}


def test_photograph_predictions(load_script, tiny_arguments, tmp_path, monkeypatch):
    """Photographs of unknown classes and of doubtful names are left out; the sheet is a picture."""
    pytest.importorskip("matplotlib")
    names = ["tench", "goldfish", "crane", "acorn", "lemon"]
    model = RANet(**tiny_arguments, normalization="imagenet", class_names=names)
    monkeypatch.setattr(zoo, "load", lambda name, pretrained: model)
    monkeypatch.setattr(zoo, "default_thresholds", lambda name: (0.22, 0.22, 0.22, 0.22))
    lines = ["n1 tench, Tinca tinca", "n2 goldfish", "n3 crane", "n4 crane", "n5 shark"]
    (tmp_path / "names.txt").write_text("\n".join(lines), encoding="utf-8")
    folder, rng = tmp_path / "photographs", np.random.default_rng(0)
    for number in range(1, 7):
        (folder / f"n{number}").mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), "uint8")).save(
                folder / f"n{number}" / f"{i}.png")

    early, whole = _run(load_script("photograph_predictions"), [
        folder, "--names", tmp_path / "names.txt", "--engine", "keras", "--num-shown", 4, "--sheet",
        tmp_path / "sheet.png"], tmp_path / "out.csv", ["top5", "cost_share"])

    assert (early["photographs"], early["classes"], early["left_out"]) == ("6", "2", "12")
    assert float(early["cost_share"]) < float(whole["cost_share"]) == 1
    order = np.argsort(-ExitOutputs.from_model(
        model, np.stack([read_picture(path, InputRule((32, 32), 3)) for path in sorted(
            folder.glob("n[12]/*"))]), np.zeros(6, int)).probabilities[-1], axis=1)
    assert float(whole["top1"]) == pytest.approx(
        float((order[:, 0] == np.repeat([0, 1], 3)).mean()), abs=1e-4)
    assert Image.open(tmp_path / "sheet.png").format == "PNG"


def test_attach_exits(load_script, data, tmp_path, monkeypatch):
    """Exits on the zoo's ResNet learn; the last one keeps its answers and costs the whole."""
    pytest.importorskip("grain")
    output = tmp_path / "out.csv"
    classifier = ResNet(8, 4, num_classes=NUM_CLASSES, normalization="cifar10")
    networks = {"resnet20_cifar10": classifier}
    monkeypatch.setattr(zoo, "load", lambda name, pretrained: networks[name])
    script = load_script("attach_exits_cifar10")
    monkeypatch.setattr(script, "BATCH_SIZE", 4)

    rows = _run(script, ["--epochs", 1, "--data", data, "--weights", tmp_path / "all.weights.h5"],
                output, ["mean_macs", "cost_share"])

    exits = [row for row in rows if row["kind"] == "exit"]
    assert [row["value"] for row in exits] == ["1", "2", "3", "4"]
    assert float(exits[-1]["cost_share"]) == 1.0
    with np.load(data) as arrays:
        own = ExitOutputs.from_model(classifier, arrays["x_test"], arrays["y_test"])
    assert float(exits[-1]["accuracy"]) == pytest.approx(own.accuracies()[0], abs=1e-4)
    assert {row["kind"] for row in rows} == {"exit", "budget", "alone"}
    assert rows[-1]["accuracy"] == exits[-1]["accuracy"]
    assert int(rows[-1]["mean_macs"]) == exit_macs(classifier)[0] < int(exits[-1]["mean_macs"])
    assert (tmp_path / "all.weights.h5").is_file()


def test_thumbnail_files(load_script, data, tmp_path):
    """PNG loses rounding alone; coarser JPEG files are smaller; full pictures take most."""
    thumbnet = ThumbNet.from_teacher(ResNet(8, 4, num_classes=NUM_CLASSES), hidden_filters=12)
    thumbnet.downscaler.save(tmp_path / "downscaler.keras")
    thumbnet.student.save(tmp_path / "student.keras")

    rows = _run(load_script("thumbnail_files"), [
        "--downscaler", tmp_path / "downscaler.keras", "--student", tmp_path / "student.keras",
        "--area-student", tmp_path / "student.keras", "--data", data, "--num-pictures", 10,
        "--quality", 90, 20], tmp_path / "out.csv", ["num_pictures"])

    assert [row["thumbnails"] for row in rows] == [
        "float", "PNG", "JPEG 90", "JPEG 20", "full JPEG 95", "area PNG", "reduced JPEG 95"]
    assert [row["student"] for row in rows][-3:] == ["thumbnails", "area", "area"]
    assert rows[0]["bytes"] == "" and float(rows[0]["difference"]) == 0
    sizes = [float(row["bytes"]) for row in rows[1:]]
    assert sizes[2] < sizes[1] < sizes[3] == sizes[5]


def test_thumbnet_speed(load_script, make_data, tmp_path):
    """Costs and times of all three networks are written, of a network that makes thumbnails."""
    script = load_script("thumbnet_speed")
    script.main(["--data", make_data(1, 12, 1), "--repeats", "1", "--engine", "keras",
                 "--output", str(tmp_path / "out.csv")])

    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    macs = {row["name"]: int(row["value"]) for row in rows if row["quantity"] == "macs"}
    assert macs["student"] < macs["downscaler + student"] < macs["teacher"]
    assert {row["part"] for row in rows} >= {"networks", "decoding", "thumbnails", "machine"}
    with pytest.raises(SystemExit):
        script.main(["ranet_cifar10"])


def test_differences_of_accuracy_are_paired(load_script):
    """By hand: of four pictures one is won, none lost, so that the others cancel out."""
    difference, error = load_script("thumbnail_files").compare(
        np.array([True, True, False, True]), np.array([True, False, False, True]))

    assert difference == 0.25
    assert error == pytest.approx((0.25 * 0.75 / 4) ** 0.5)


RECIPE = """
[about]
title = "a small one"
paper = "https://arxiv.org/abs/2003.07326"
command = "keras-adaptive train"
[model]
configuration = "{configuration}"
num_classes = {classes}
channels = 4
growth_rate = 4
layer_growth = "even"
blocks = 2
pooling = "global"
{arguments}
[data]
name = "cifar10"
[training]
batch_size = 6
peak_learning_rate = {rate}
phases = [{{ epochs = 1, image_size = 32 }}, {{ epochs = 1, image_size = 32, restart = true }}]
"""


EQUAL_RECIPES = {
    name: RECIPE.format(configuration=configuration, classes=NUM_CLASSES, rate=0.1, arguments=size)
    for name, configuration, size in (
        ("ranet", "ranet_c1_even_cifar10",
         "scales = [1]\ngrowth_factors = [1]\nlayers_per_block = 1"),
        ("msdnet", "msdnet_even_b6_base4_step2_cifar10",
         "layers_in_first_block = 1\nlayers_per_block = 1\ngrowth_factors = [1, 2]"))}


def test_equal_schedule(load_script, data, tmp_path, monkeypatch):
    """Both networks are measured at their exits and within budgets, for the entry's card."""
    monkeypatch.setattr(zoo, "find_entry", lambda name: types.SimpleNamespace(folder=tmp_path))
    arguments = []
    for name, text in EQUAL_RECIPES.items():
        file = tmp_path / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        recipe = recipes.load(file)
        first = dataclasses.replace(recipe.training, phases=recipe.training.phases[:1])
        train(dataclasses.replace(recipe, training=first), load_data(str(data)), tmp_path / name,
              verbose=0)
        arguments += ["--run", str(file), str(tmp_path / name)]

    load_script("equal_schedule").main(["made_up", "--data", str(data), *arguments])

    points = read_equal_schedule(tmp_path / EQUAL_SCHEDULE)
    for network in ("RANet", "MSDNet"):
        mine = [point for point in points if point.network == network]
        exits = [point for point in mine if point.protocol == "anytime"]
        assert len(exits) == 2 and len(mine) > 2
        assert exits[0].mean_macs < exits[1].mean_macs
        assert {point.epochs for point in mine} == {1}
    assert "12 test pictures of pictures" in points[0].data
    with Image.open(tmp_path / EQUAL_SCHEDULE_FIGURE) as figure:
        assert figure.width > 400


@pytest.mark.parametrize("edit, message", [
    (("rate = 0.1", "rate = 0.2"), "peak learning rates .0.1. there, .0.2. here"),
    (("32 }, {", "24 }, {"), "picture sizes .32. there, .24. here"),
])
def test_unequal_schedules_are_refused(load_script, data, tmp_path, monkeypatch, capsys, edit,
                                       message):
    """Before a network is built: the recipes and the lengths of the logs tell it."""
    monkeypatch.setattr(zoo, "find_entry", lambda name: types.SimpleNamespace(folder=tmp_path))
    arguments = []
    for name, text in (("first", EQUAL_RECIPES["ranet"]),
                       ("second", EQUAL_RECIPES["ranet"].replace(*edit))):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.csv").write_text("epoch,loss\n0,1\n", encoding="utf-8")
        arguments += ["--run", str(tmp_path / f"{name}.toml"), str(tmp_path / name)]

    with pytest.raises(SystemExit):
        load_script("equal_schedule").main(["made_up", "--data", str(data), *arguments])

    assert re.search(message, capsys.readouterr().err)


def test_imagenet_planning(load_script, data, tmp_path, monkeypatch):
    """Each way is a row, with the work that it took; what is done is not repeated."""
    script, recipe = load_script("imagenet_planning"), recipes.load("ranet_imagenet").quick()
    recipe = dataclasses.replace(recipe, model={**recipe.model, "num_classes": NUM_CLASSES})
    monkeypatch.setattr(recipes, "load", lambda name: recipe)
    monkeypatch.setattr(script, "ARMS", {
        "small first": ({}, [(2, 16), (1, 32)]), "wide": ({"channels": 8}, [(1, 32)])})
    arguments = ["--data", data, "--pictures", 8]

    rows = _run(script, [*arguments, "--arms", "small first"], tmp_path / "out.csv", ["macs"])
    rows = _run(script, arguments, tmp_path / "out.csv", ["last_exit_loss", "training_macs"])

    assert [row["arm"] for row in rows] == ["small first", "wide"]
    small, wide = ([int(row[name]) for name in ("macs", "epochs", "training_macs")]
                   for row in rows)
    assert small[1] == 3 and wide[1] == 1 and wide[0] > small[0]
    # A convolution's work at half the side is a quarter.
    assert wide[2] == 3 * 8 * wide[0] and small[2] < 3 * 8 * small[0] * 1.6


def test_static_ensemble(load_script, make_data, own_zoo, tmp_path, capsys):
    """Costs add up, the first exit is the first network, and the last one is asked for all."""
    recipe = recipes.load("resnet8_cifar10")
    costs = []
    for name, channels in (("thin", 2), ("wide", 4)):
        own = dataclasses.replace(recipe, model={**recipe.model, "channels": channels})
        model = own.build()
        model.class_names = [f"class {number}" for number in range(10)]
        zoo.save_entry(model, name, recipe=own)
        costs.append(exit_macs(model)[0])
    shutil.copytree(ROOT / "zoo" / "ranet_cifar10", own_zoo / "ranet_cifar10")
    arguments = ["--data", make_data(1, 40, 30), "--networks", "thin", "wide", "--adaptive",
                 "ranet_cifar10", "--plot", tmp_path / "ensemble.png"]

    rows = _run(load_script("static_ensemble"), arguments, tmp_path / "out.csv",
                ["mean_macs", "accuracy"])

    static, ensemble, budgeted = ([(float(row["mean_macs"]), float(row["accuracy"]))
                                   for row in rows if row["protocol"] == protocol]
                                  for protocol in ("static", "anytime", "budgeted"))
    assert [macs for macs, _ in static] == costs
    assert [macs for macs, _ in ensemble] == [costs[0], sum(costs)]
    assert ensemble[0] == static[0]
    assert all(costs[0] <= macs <= sum(costs) for macs, _ in budgeted)
    with Image.open(tmp_path / "ensemble.png") as figure:
        assert figure.width > 400
    assert "ensemble, anytime" in capsys.readouterr().err
