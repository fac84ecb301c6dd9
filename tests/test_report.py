"""A zoo entry completed from one run over the data, on a tiny network in a zoo of its own."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_adaptive import EarlyExitPredictor, recipes, report, zoo
from keras_adaptive.evaluation import ExitOutputs, evaluate_budgeted
from keras_adaptive.evaluation.budgeted import read_budgeted
from keras_adaptive.evaluation.calibration import measure_calibration, read_calibration
from keras_adaptive.evaluation.operating_points import read_points

pytest.importorskip("matplotlib")

TINY = {"scales": [1, 2], "growth_factors": [2, 1], "bottleneck_factors": [2, 1], "blocks": 1,
        "block_step": 1, "channels": 4, "growth_rate": 4, "layers_per_block": 2,
        "pooling": "global"}
CLASSES = [f"class {number}" for number in range(10)]


@pytest.fixture
def small(own_zoo):
    """Folder of an entry `small` with random weights, the only one of the zoo."""
    recipe = recipes.load("ranet_cifar10")
    recipe = dataclasses.replace(recipe, model={**recipe.model, **TINY})
    model = recipe.build()
    model.class_names = CLASSES
    return zoo.save_entry(model, "small", recipe=recipe)


@pytest.fixture
def data_file(make_data):
    """Random pictures that are called as what the network of `small` is said to have learned."""
    made = pathlib.Path(make_data(1, 60, 40))
    return str(made.rename(made.with_name("cifar10.npz")))


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longest; here they are not looked at."""
    monkeypatch.setattr(report, "save_figure", lambda *arguments, **options: None)


def _change(data_file, **arrays):
    with np.load(data_file) as old:
        np.savez(data_file, **{**old, **arrays})


def test_an_entry_is_completed_in_one_go(small, data_file, monkeypatch):
    """Tables, thresholds, figures and card; the network runs once on each part."""
    runs = []
    run = ExitOutputs.from_model.__func__
    monkeypatch.setattr(ExitOutputs, "from_model", classmethod(
        lambda cls, model, x, *rest: runs.append(len(x)) or run(cls, model, x, *rest)))

    card = report.complete_entry(report.measure("small", data_file))

    assert runs == [60, 40]
    names = {str(path.relative_to(small)) for path in small.rglob("*") if path.is_file()}
    assert names == {"model.json", "weights.h5", "thresholds.json", "card.md", "accuracy.png",
                     "exits.png", "gallery.png", "results/evaluation.csv", "results/budgeted.csv",
                     "results/calibration.csv"}
    assert all(Image.open(small / name).format == "PNG" for name in names if name.endswith("png"))
    points = read_points(small / "results" / "evaluation.csv")
    assert [p.exit for p in points[:3]] == [1, 2, None]
    assert len(read_budgeted(small / "results" / "budgeted.csv")) == 39
    code, = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(code, "card.md", "exec"), {})


def test_the_predictor_takes_the_entrys_thresholds(small, data_file, no_figures):
    """And gives what they give on the validation part."""
    measured = report.measure("small", data_file)
    report.complete_entry(measured)
    thresholds = zoo.thresholds("small", macs=measured.entry.exit_macs[-1])

    with np.load(data_file) as arrays:
        pictures = arrays["x_val"]
    prediction = EarlyExitPredictor("small", threshold=thresholds).predict(pictures)

    assert prediction.exits.tolist() == measured.validation.simulate(thresholds).exits.tolist()


def test_the_test_part_chooses_nothing(small, data_file, no_figures):
    """With other test labels the thresholds stay, to the last digit."""
    report.complete_entry(report.measure("small", data_file))
    stored = (small / "thresholds.json").read_bytes()
    evaluation = (small / "results" / "evaluation.csv").read_bytes()
    before = read_budgeted(small / "results" / "budgeted.csv")

    _change(data_file, y_test=np.zeros(40, int))
    report.complete_entry(report.measure("small", data_file))

    assert (small / "thresholds.json").read_bytes() == stored
    assert (small / "results" / "evaluation.csv").read_bytes() != evaluation
    record = json.loads(stored)
    assert (record["data"], record["pictures"]) == ("cifar10, validation part", 60)
    after = read_budgeted(small / "results" / "budgeted.csv")
    assert [(p.budget, p.thresholds, p.validation_accuracy, p.validation_macs) for p in after] == [
        (p.budget, p.thresholds, p.validation_accuracy, p.validation_macs) for p in before]
    assert [p.accuracy for p in after] != [p.accuracy for p in before]


def test_each_table_is_of_the_part_that_it_says(small, data_file, no_figures):
    """Thresholds of the validation part, and what they and the confidences are on the test part."""
    measured = report.measure("small", data_file)
    report.complete_entry(measured)

    for point in read_budgeted(small / "results" / "budgeted.csv"):
        for outputs, accuracy in ((measured.validation, point.validation_accuracy),
                                  (measured.test, point.accuracy)):
            assert accuracy == pytest.approx(outputs.simulate(point.thresholds).accuracy, abs=1e-6)
    temperatures = json.loads((small / "thresholds.json").read_text())["temperatures"]
    errors = [p.error_before for p in read_calibration(small / "results" / "calibration.csv")]
    of_test, of_validation = ([p.error_before for p in measure_calibration(part, temperatures)]
                              for part in (measured.test, measured.validation))
    assert errors == pytest.approx(of_test, abs=1e-6) != pytest.approx(of_validation, abs=1e-6)


def test_the_record_tells_the_accuracies_that_were_measured(small, data_file, no_figures):
    """Whatever it said before, of weights that were not rounded yet; the other facts stay."""
    zoo.find_entry("small").write_figures({"test_accuracy": [0.99, 0.99], "epochs": 3})

    measured = report.measure("small", data_file)
    report.complete_entry(measured)

    figures = zoo.find_entry("small").figures
    assert list(figures) == ["test_accuracy", "validation_accuracy", "epochs"]
    assert figures["test_accuracy"] == pytest.approx(
        (measured.test.probabilities.argmax(-1) == measured.test.labels).mean(axis=1), abs=1e-4)
    assert figures["validation_accuracy"] == pytest.approx(
        (measured.validation.probabilities.argmax(-1) == measured.validation.labels).mean(axis=1),
        abs=1e-4)


def test_each_recorded_accuracy_is_of_its_part_and_kind():
    """By hand: the label is the likeliest, the third likeliest, and none of five."""
    probabilities = np.zeros((1, 2, 30))
    probabilities[..., :5] = 0.4, 0.25, 0.15, 0.1, 0.1
    test, validation = (ExitOutputs(probabilities, labels) for labels in ([0, 2], [2, 9]))

    assert report._accuracies(report.Measured(None, "made_up.npz", validation, test, None, [])) == {
        "test_accuracy": [0.5], "test_top5_accuracy": [1.0], "validation_accuracy": [0.0]}


def test_other_pictures_than_those_learned_do_not_make_the_card(small, data_file, no_figures):
    """Even if their classes are called the same; nothing is written."""
    other = pathlib.Path(data_file).rename(pathlib.Path(data_file).with_name("street.npz"))
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}

    with pytest.raises(ValueError, match="'small' learned 'cifar10'.*called 'street'.*cifar10.npz"):
        report.complete_entry(report.measure("small", str(other)))
    assert {path: path.read_bytes() for path in small.rglob("*") if path.is_file()} == before


def test_of_a_prepared_data_set_the_version_does_not_matter(small):
    """Nor that `tensorflow_datasets` calls ImageNet otherwise."""
    entry = zoo.find_entry("small")

    report.check_data_set(entry, "tfds:cifar10/3.0.2")
    report.check_data_set(dataclasses.replace(entry, data_set="imagenet"), "tfds:imagenet2012")
    report.check_data_set(dataclasses.replace(entry, data_set="my-pets_v2"), "a/my-pets_v2.npz")
    with pytest.raises(ValueError, match="called 'cifar100'"):
        report.check_data_set(entry, "cifar100")


@pytest.mark.parametrize("parts", [("train", "val"), ("train", "val", "test")])
def test_photographs_are_read_as_the_predictor_reads_them(small, tmp_path, parts):
    """By the rule that travels with the weights, whose answers are then the predictor's."""
    pytest.importorskip("grain")
    record = json.loads((small / "model.json").read_text(encoding="utf-8"))
    record["input_rule"].update(interpolation="nearest", crop=0.6)
    (small / "model.json").write_text(json.dumps(record), encoding="utf-8")
    rng = np.random.default_rng(0)
    for part in parts:
        for name in CLASSES:
            folder = tmp_path / "tree" / part / name
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (40, 60, 3), dtype="uint8")
                Image.fromarray(pixels).save(folder / f"{i}.png")

    measured = report.measure("small", str(tmp_path / "tree"))

    files = sorted((tmp_path / "tree" / parts[-1]).rglob("*.png"))
    expected = EarlyExitPredictor("small", threshold=2, engine="keras").predict(files)
    np.testing.assert_allclose(measured.test.probabilities[-1], expected.probabilities, atol=1e-5)


def test_a_prepared_data_set_keeps_its_whole_name(small, data_file, monkeypatch):
    """A version is no ending of a file, and figures say which data set was measured."""
    parts = report.load_data(data_file)
    monkeypatch.setattr(report, "load_data", lambda *arguments: parts)

    assert report.measure("small", "tfds:made_up/1.0.0").data_name == "made_up/1.0.0"
    assert report.measure("small", "folder/made_up.npz").data_name == "made_up"


def test_plots_go_where_they_are_wanted(small, data_file, tmp_path):
    """The zoo is not touched."""
    before = sorted(small.rglob("*"))

    report.write_plots(report.measure("small", data_file, num_pictures=10), tmp_path / "plots")

    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "accuracy.png", "budgeted.csv", "exits.png", "gallery.png"]
    assert sorted(small.rglob("*")) == before


def test_other_networks_of_the_same_data_are_drawn(small, data_file, no_figures, monkeypatch):
    report.complete_entry(report.measure("small", data_file))
    shutil.copytree(small, small.parent / "other")
    shutil.copytree(small, small.parent / "of_birds")
    record = json.loads((small / "model.json").read_text(encoding="utf-8"))
    (small.parent / "of_birds" / "model.json").write_text(
        json.dumps({**record, "data_set": "birds"}), encoding="utf-8")
    drawn = []
    monkeypatch.setattr(report, "plot_curves", lambda *arguments: drawn.append(arguments))

    report.write_figures(report.measure("small", data_file), small)

    (budgeted, exits, published, others, title, name), = drawn
    assert list(others) == ["other"] and len(others["other"]) == 39
    assert {p.data for p in published} == {"cifar10"}
    assert (title, name) == ("small, 40 test pictures of cifar10", "small")


def test_a_network_of_one_exit_has_neither_gallery_nor_histogram(small, data_file, tmp_path):
    """No picture is harder for it than another, and all leave at the same place."""
    measured = report.measure("small", data_file)
    first = dataclasses.replace(
        measured.test, probabilities=measured.test.probabilities[:1])
    entry = dataclasses.replace(measured.entry, exit_macs=measured.entry.exit_macs[:1])

    report.write_figures(dataclasses.replace(
        measured, entry=entry, test=first, budgeted=evaluate_budgeted(first, first, [1e6])),
        tmp_path / "plots")

    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["accuracy.png"]


def test_a_gallery_has_easy_pictures_of_unsure_networks_too():
    """A tenth of the pictures leave early where hardly any is as sure as for other networks."""
    unsure = ExitOutputs(np.linspace([0.5, 0.5], [0.8, 0.2], 21)[None].repeat(2, axis=0), [0] * 21)

    threshold = report._gallery_threshold(unsure)

    assert 0.76 < threshold < 0.8
    assert report._gallery_threshold(
        ExitOutputs(np.full((2, 5, 2), [0.99, 0.01]), [0] * 5)) == report.GALLERY_THRESHOLD


def test_two_hundred_classes_are_measured_like_ten(small, data_file, no_figures):
    """From the data file to the card, and thresholds that the predictor takes."""
    names = [f"thing {number}" for number in range(200)]
    recipe = recipes.load("ranet_imagenet")
    tiny = {**TINY, "stem": "cifar", "head_filters": 8}
    recipe = dataclasses.replace(recipe, model={**recipe.model, **tiny})
    model = recipe.build()
    model.class_names = names
    folder = zoo.save_entry(model, "things", recipe=recipe, data_set=data_file)
    rng = np.random.default_rng(0)
    _change(data_file, class_names=np.array(names), **{
        f"x_{part}": rng.integers(0, 256, (count, 64, 64, 3), dtype="uint8")
        for part, count in (("train", 1), ("val", 60), ("test", 40))}, **{
        f"y_{part}": rng.integers(0, 200, count)
        for part, count in (("train", 1), ("val", 60), ("test", 40))})

    card = report.complete_entry(report.measure("things", data_file))

    assert "top-5 accuracy" in card.read_text(encoding="utf-8")
    points = read_points(folder / "results" / "evaluation.csv")
    assert all(point.accuracy <= point.top5_accuracy <= 1 for point in points)
    figures = zoo.find_entry("things").figures
    for key, kind in (("test_accuracy", "accuracy"), ("test_top5_accuracy", "top5_accuracy")):
        assert figures[key] == pytest.approx([getattr(point, kind) for point in points[:2]])
    thresholds = zoo.thresholds("things", macs=1e12)
    with np.load(data_file) as arrays:
        prediction = EarlyExitPredictor("things", threshold=thresholds).predict(arrays["x_test"])
    assert [name for name, _ in prediction[0].top(3)][0] == prediction.labels[0]


def test_data_of_other_classes_is_refused(small, data_file):
    _change(data_file, class_names=np.array([f"bird {number}" for number in range(10)]))

    with pytest.raises(ValueError, match="class 0, class 1, class 2, … .10. apart, .* has bird 0"):
        report.measure("small", data_file)
