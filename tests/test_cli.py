"""The command line: results on standard output, one message for an error, exit status."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_adaptive import cli, cli_arguments, content, zoo
from keras_adaptive.demo import FOLDER
from keras_adaptive.evaluation.operating_points import OperatingPoint, read_points
from keras_adaptive.models import RANet
from keras_adaptive.training import recipe_tables
from keras_adaptive.training.datasets import CIFAR10_CLASSES

COMMANDS = ("demo", "predict", "evaluate", "plot", "card", "export", "thumbnails", "convert",
            "list", "train", "publish")


@pytest.fixture(scope="module")
def untrained_model():
    return RANet(channels=4, growth_rate=4, blocks=2, block_step=1, layers_per_block=2,
                 normalization="cifar10", class_names=CIFAR10_CLASSES)


@pytest.fixture
def untrained_zoo(monkeypatch, untrained_model):
    """A zoo whose models all are one tiny network with random weights."""
    monkeypatch.setattr(zoo, "load", lambda name, pretrained=False: untrained_model)
    monkeypatch.setattr(zoo, "default_thresholds", lambda name: None)


@pytest.fixture
def data_file(tmp_path):
    """A labelled data set of ten classes, sorted by class, as an .npz file."""
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array(CIFAR10_CLASSES)}
    for part in ("train", "val", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (20, 32, 32, 3), dtype="uint8")
        arrays[f"y_{part}"] = np.arange(20) // 2
    np.savez(tmp_path / "data.npz", **arrays)
    return str(tmp_path / "data.npz")


def test_help_imports_nothing_heavy():
    """Help appears at once: neither Keras nor a backend is loaded for it."""
    program = (
        "import sys, keras_adaptive.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules), 'imported too much'"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert finished.returncode == 0, finished.stderr
    assert all(command in finished.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])

    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"keras-adaptive {command}" in text.split("examples:")[1]


@pytest.mark.parametrize("wrong", [
    [], ["classify"], ["predict"], ["train"], ["predict", "a.png", "--threshold", "high"],
    ["predict", "a.png", "--batch-size", "0"], ["train", "x", "--precision", "float8"],
    ["card"], ["card", "ranet_cifar10"], ["plot", "--num-pictures", "0"],
    ["export", "ranet_cifar10"], ["export", "ranet_cifar10", "x", "--format", "tflite"],
    ["export", "ranet_cifar10", "x", "--macs", "2e7", "--accuracy", "0.8"],
    ["export", "ranet_cifar10", "x", "--exits", "1,0"],
    ["thumbnails", "a", "b"], ["thumbnails", "a", "b", "--ratio", "2", "--downscaler", "c.keras"],
])
def test_wrong_use_is_status_2(wrong, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(wrong)

    assert end.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrong", [["evaluate", "--threshold", "0.5", "80"],
                                   ["predict", "a.png", "--threshold", "0.9,80"],
                                   ["demo", "--threshold", "80"]])
def test_a_percentage_is_not_taken_for_a_threshold(wrong, capsys):
    """No picture would ever stop, without a word."""
    with pytest.raises(SystemExit) as end:
        cli.main(wrong)

    assert end.value.code == 2
    assert "'80' is no confidence from 0 to 1; 0.8 may be meant" in capsys.readouterr().err


def test_predict_prints_a_row_per_picture(untrained_zoo, capsys):
    status = cli.main(["predict", str(FOLDER / "cat_0000.png"), str(FOLDER), "--threshold", "0"])

    out = capsys.readouterr().out
    assert status == 0
    assert out.count("cat_0000.png") == 2 and out.count("truck_0000.png") == 1
    assert "13 pictures" in out


def test_predict_as_json_is_one_object_per_line_and_nothing_else(untrained_zoo, capsys):
    status = cli.main(["predict", str(FOLDER), "--json"])

    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert status == 0 and len(answers) == 12
    assert {"file", "label", "confidence", "exit", "macs", "cost_share"} <= set(answers[0])
    assert "12 pictures" in captured.err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_files_that_cannot_be_read_do_not_lose_the_answers_for_others(
        untrained_zoo, options, tmp_path, capsys):
    """They are named, and the status tells that something is missing."""
    for name in ("a.png", "c.png", "e.png"):
        shutil.copy(FOLDER / "cat_0000.png", tmp_path / name)
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "d.png").write_bytes((FOLDER / "cat_0000.png").read_bytes()[:200])

    status = cli.main(["predict", str(tmp_path), *options])

    captured = capsys.readouterr()
    assert status == 1
    assert [name in captured.out for name in ("a.png", "c.png", "e.png")] == [True] * 3
    assert "b.png" not in captured.out and "d.png" not in captured.out
    assert "b.png: it is not a picture" in captured.err and "d.png: it is cut" in captured.err
    assert cli.main(["predict", str(tmp_path / "b.png"), *options]) == 1
    assert "1 of 1 files cannot be read" in capsys.readouterr().err


def test_threshold_may_differ_between_exits(untrained_zoo, capsys):
    cli.main(["predict", str(FOLDER), "--json", "--threshold", "2,0,0,0"])

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {answer["exit"] for answer in answers} == {2}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_name_that_is_not_utf_8_is_printed_escaped(untrained_zoo, options, tmp_path, monkeypatch):
    """One old name in a folder does not lose the answer for the others."""
    shutil.copy(FOLDER / "cat_0000.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdout", out)

    status = cli.main(["predict", str(tmp_path), *options])

    out.flush()
    assert status == 0
    assert b"caf\\udce9.png" in out.buffer.getvalue()


@pytest.mark.parametrize("arguments, message", [
    (["predict", "no_such.png"], "there is no such file"),
    (["predict", str(FOLDER), "--threshold", "-1"], "`threshold` must be a confidence"),
    (["train", "no_such_recipe"], "no_such_recipe"),
    (["publish", "ranet_cifar10", "--folder", "no_such"], "no_such has no best.weights.h5"),
    (["evaluate", "--data", "no_such.npz"], "does not exist"),
    (["evaluate", "--data", "no_such.npz", "--threshold", "0.5", "-0.5"], "confidences of 0 or mo"),
    (["plot", "--data", "no_such.npz"], "does not exist"),
    (["card", "ranet_cifar", "--data", "no_such.npz"], "Did you mean 'ranet_cifar10'?"),
])
def test_errors_are_one_message_and_status_1(untrained_zoo, arguments, message, capsys):
    """What a user did wrong is told without a traceback, and nothing counts as a result."""
    status = cli.main(arguments)

    captured = capsys.readouterr()
    assert status == 1
    assert message in captured.err and "Traceback" not in captured.err
    assert captured.out == ""


def test_models_of_ones_own_are_files(untrained_model, tmp_path, capsys):
    path = str(tmp_path / "own.keras")
    untrained_model.save(path)

    assert cli.main(["predict", str(FOLDER), "--model", path]) == 0
    assert "12 pictures" in capsys.readouterr().out
    assert cli.main(["export", path, str(tmp_path / "exported"), "--macs", "3e6"]) == 1
    assert "calibrate(x, y, macs=...)" in capsys.readouterr().err
    assert cli.main(["export", path, str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported" / "manifest.json").is_file()


def test_unknown_model_is_told(capsys):
    assert cli.main(["predict", str(FOLDER), "--model", "ranet_cifar"]) == 1
    assert "Did you mean 'ranet_cifar10'?" in capsys.readouterr().err


def test_a_folder_that_is_no_export_is_told(tmp_path, monkeypatch, capsys):
    """Which is none of a network's name: that is looked up."""
    (tmp_path / "stages").mkdir()
    monkeypatch.chdir(tmp_path)

    for name in ("stages", str(tmp_path)):
        assert cli.main(["predict", str(FOLDER), "--model", name]) == 1
        assert "manifest.json does not exist, so" in capsys.readouterr().err
    (tmp_path / "msdnet_cifar100").mkdir()
    assert cli.main(["predict", str(FOLDER), "--model", "msdnet_cifar100"]) == 1
    assert "No weights exist yet for 'msdnet_cifar100'" in capsys.readouterr().err


def test_evaluate_prints_and_writes_exits_and_thresholds(
        untrained_zoo, data_file, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "results" / "evaluation.csv"

    status = cli.main(["evaluate", "--data", data_file, "--threshold", "0", "2",
                       "--num-pictures", "10", "--output", str(output),
                       "--plot", str(tmp_path / "evaluation.png")])

    points = read_points(output)
    exits, (cheapest, whole) = points[:4], points[4:]
    assert status == 0 and (tmp_path / "evaluation.png").is_file()
    assert [point.exit for point in exits] == [1, 2, 3, 4]
    assert (cheapest.accuracy, cheapest.cost_share) == (exits[0].accuracy, exits[0].cost_share)
    assert (whole.accuracy, whole.cost_share) == (exits[3].accuracy, 1.0)
    out = capsys.readouterr().out
    assert "10 test pictures" in out and "at exit 4" in out and "at confidence 2" in out


def test_evaluate_reads_photographs_by_the_networks_rule(
        untrained_zoo, untrained_model, tmp_path, monkeypatch):
    """As `predict` reads them, and not as training did."""
    rule = {"resize": "shorter_side_then_centre_crop", "interpolation": "nearest", "crop": 1.0,
            "size": [32, 32]}
    monkeypatch.setattr(untrained_model, "input_rule", rule)
    for part in ("train", "val"):
        for name in CIFAR10_CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 50)).save(tmp_path / part / name / "0.png")
    evaluated = []
    monkeypatch.setattr("keras_adaptive.evaluation.operating_points.evaluate",
                        lambda model, split, *rest, **options: evaluated.append(split)
                        or [OperatingPoint(1, None, 0.5, 1.0, 1.0, (1.0,))])

    status = cli.main(["evaluate", "--data", str(tmp_path), "--num-pictures", "4"])

    assert status == 0
    assert (len(evaluated[0]), evaluated[0].input_rule) == (4, rule)


def test_the_table_of_points_has_both_accuracies():
    """The share of right answers, and beside it that of labels among the five likeliest."""
    table = cli._points_table([OperatingPoint(1, None, 0.25, 2e6, 0.5, (1.0,), 0.75)], "net", 8)

    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["accuracy"] == ["25.00%"] and cells["top-5 accuracy"] == ["75.00%"]


@pytest.fixture
def measured(monkeypatch):
    """Calls of `measure`, whose progress goes to standard output as Keras's does."""
    calls = []

    def measure(*arguments, **options):
        print("progress")
        calls.append(arguments)
        return "measured"

    monkeypatch.setattr("keras_adaptive.report.measure", measure)
    return calls


def test_plot_measures_and_draws_into_the_folder(measured, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr("keras_adaptive.report.write_plots", lambda *rest: drawn.append(rest))

    status = cli.main(["plot", "--data", "my.npz", "--num-pictures", "9", "--batch-size", "8",
                       "--output", str(tmp_path)])

    captured = capsys.readouterr()
    assert status == 0
    assert measured == [(content.DEMO_MODEL, "my.npz", 9, 8)]
    assert drawn == [("measured", str(tmp_path))]
    assert captured.out.split()[-1] == str(tmp_path) and "progress" not in captured.out


def test_card_measures_all_pictures_and_completes_the_entry(
        measured, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("keras_adaptive.report.complete_entry",
                        lambda given: tmp_path / f"{given}.md")

    status = cli.main(["card", "ranet_cifar10", "--data", "my/cifar10.npz"])

    captured = capsys.readouterr()
    assert status == 0
    assert measured == [("ranet_cifar10", "my/cifar10.npz", None, 256)]
    assert captured.out == f"Card: {tmp_path / 'measured.md'}\n"

    assert cli.main(["card", "ranet_cifar10", "--data", "my.npz"]) == 1
    assert "learned 'cifar10'" in capsys.readouterr().err and len(measured) == 1


@pytest.fixture
def exported(monkeypatch):
    """Calls of `export_stages`."""
    calls = []

    def export_stages(*arguments, **options):
        calls.append((arguments, options))
        return arguments[1]

    monkeypatch.setattr("keras_adaptive.export.export_stages", export_stages)
    return calls


def test_export_hands_model_folder_and_exits_on(exported, tmp_path, capsys):
    """Thresholds are left to `export_stages` where none are asked for."""
    status = cli.main(["export", "ranet_cifar10", str(tmp_path), "--format", "litert",
                       "--exits", "1,3,6"])

    assert status == 0
    assert exported == [(("ranet_cifar10", str(tmp_path), "litert"),
                         {"thresholds": None, "exits": [1, 3, 6]})]
    assert capsys.readouterr().out == f"Stages and manifest.json: {tmp_path}\n"


@pytest.mark.parametrize("option, asked", [("--macs=2e7", {"macs": 2e7}),
                                           ("--accuracy=0.85", {"accuracy": 0.85})])
def test_export_chooses_calibrated_thresholds(exported, option, asked):
    """For a budget or an accuracy, those that the zoo has for it."""
    status = cli.main(["export", "ranet_cifar10", "folder", option])

    assert status == 0
    assert exported[0][1]["thresholds"] == zoo.thresholds("ranet_cifar10", **asked)


def test_export_of_some_exits_takes_no_thresholds_of_all(exported, capsys):
    """They would send pictures elsewhere: the budget would be broken without a word."""
    assert cli.main(["export", "ranet_cifar10", "folder", "--macs=8e6", "--exits=2,6"]) == 1
    message = capsys.readouterr().err
    assert "--macs takes thresholds that were chosen for all exits" in message
    assert "--exits 2,6" in message and not exported


def test_list_names_models_and_recipes(capsys):
    assert cli.main(["list"]) == 0

    out = capsys.readouterr().out
    assert zoo.DEFAULT_MODEL in out and "RANet C-1 (linear growth) on CIFAR-10" in out


def test_train_hands_recipe_data_and_folder_on(data_file, tmp_path, monkeypatch, capsys):
    """The precision replaces the recipe's; the folder is where the run is kept."""
    calls = []
    monkeypatch.setattr("keras_adaptive.training.train",
                        lambda *arguments, **options: calls.append(arguments))

    status = cli.main(["train", "ranet_cifar10", "--data", data_file, "--folder", str(tmp_path),
                       "--precision", "float32"])

    (recipe, data, folder), = calls
    assert status == 0
    assert (recipe.name, recipe.training.precision) == ("ranet_cifar10", "float32")
    assert (len(data.train), folder) == (20, str(tmp_path))
    assert str(tmp_path) in capsys.readouterr().out


def test_phases_larger_than_a_folders_pictures_are_refused_before_these_are_read(tmp_path, capsys):
    """Files of a folder with a test part are read once, at the last phase's size."""
    text = (content.folder("recipes") / "resnet8_cifar10.toml").read_text(encoding="utf-8")
    phases = "phases = [{epochs = 1, image_size = 64}, {epochs = 1, image_size = 32}]"
    start = text.index("phases = ")
    end = text.index("\n]", start) + 2
    (tmp_path / "larger.toml").write_text(text[:start] + phases + text[end:], encoding="utf-8")

    status = cli.main(["train", str(tmp_path / "larger.toml"), "--data", str(tmp_path)])

    assert status == 1
    assert "Let no phase have larger ones than the last" in capsys.readouterr().err


def test_precisions_offered_are_those_of_recipes():
    assert cli_arguments.PRECISIONS == recipe_tables.PRECISIONS


@pytest.mark.parametrize("command, message", [
    (["demo", "--output", "."], "'.' is a folder. Give the name of a file"),
    (["evaluate", "--output", "."], "'.' is a folder. Give the name of a file"),
    (["plot", "--output", "FILE"], "FILE' is a file. Give the name of a folder"),
    (["convert", "x.pth", "--args", "FILE", "--output", "net"], "FILE is no valid JSON"),
    (["convert", "x.pth", "--args", "DEEP", "--output", "net"], "DEEP is no valid JSON"),
])
def test_what_stands_in_the_way_is_told_before_any_work(command, message, tmp_path, capsys):
    (tmp_path / "FILE").write_text("no JSON")
    (tmp_path / "DEEP").write_text("[" * 100_000)
    command = [str(tmp_path / word) if word in ("FILE", "DEEP") else word for word in command]

    assert cli.main(command) == 1
    assert message in capsys.readouterr().err


def test_demo_writes_its_picture(untrained_zoo, tmp_path, capsys):
    pytest.importorskip("matplotlib")

    status = cli.main(["demo", "--output", str(tmp_path / "demo.png")])

    out = capsys.readouterr().out
    assert status == 0 and (tmp_path / "demo.png").is_file()
    assert out.count(".png") == 13 and "of 12 right" in out


def test_thumbnails_are_written_and_unreadable_files_named(tmp_path, capsys):
    """The sum goes to standard output, what could not be read to standard error, and the status
    says that something is missing; without the bad file it is 0."""
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "a.png").write_bytes((FOLDER / "cat_0000.png").read_bytes())
    (tmp_path / "photos" / "b.jpg").write_bytes(b"no picture")

    command = ["thumbnails", str(tmp_path / "photos"), str(tmp_path / "small"), "--ratio", "2",
               "--format", "jpeg"]
    status = cli.main(command)

    captured = capsys.readouterr()
    assert status == 1 and (tmp_path / "small" / "cats" / "a.jpg").is_file()
    assert "1 thumbnails written, 0 there already, 1 files unreadable" in captured.out
    assert "b.jpg: it is not a picture" in captured.err
    (tmp_path / "photos" / "b.jpg").unlink()
    assert cli.main(command) == 0


def test_thumbnails_by_resizing_need_no_keras(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((FOLDER / "cat_0000.png").read_bytes())
    program = (
        "import sys, keras_adaptive.cli as cli\n"
        "assert cli.main(['thumbnails', 'photos', 'small', '--ratio', '2']) == 0\n"
        "assert 'keras' not in sys.modules, 'imported too much'"
    )
    root = str(pathlib.Path(cli.__file__).parents[1])

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})

    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "small" / "a.png").is_file()
