"""Stored thresholds: made of a validation part, read strictly, chosen by what is asked."""

import dataclasses
import json

import numpy as np
import pytest

from keras_adaptive import calibrated
from keras_adaptive.calibrated import CalibratedThresholds
from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.thresholds import ChosenThresholds

MACS = [10_000_000, 25_000_000, 40_000_000]


def draw_outputs(num_pictures, seed, num_exits=3, num_classes=4):
    """Return answers of a made-up network that is better at later exits."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_pictures)
    logits = rng.normal(size=(num_exits, num_pictures, num_classes))
    logits[:, np.arange(num_pictures), labels] += (
        np.linspace(1.5, 3, num_exits)[:, None] - rng.normal(size=num_pictures))
    powers = np.exp(2 * logits)
    return ExitOutputs(powers / powers.sum(axis=-1, keepdims=True), labels)


@pytest.fixture(scope="module")
def outputs():
    return draw_outputs(600, 0)


@pytest.fixture(scope="module")
def stored(outputs):
    return CalibratedThresholds.from_outputs(outputs, MACS, "made up", "ab" * 32)


@pytest.fixture
def path(stored, tmp_path):
    stored.write(tmp_path / "thresholds.json")
    return tmp_path / "thresholds.json"


def test_every_stored_figure_is_what_its_thresholds_give(outputs, stored):
    """Accuracy, cost and shares can be had again from the thresholds and the same pictures."""
    for item in (*stored.by_macs, *stored.by_accuracy, *stored.by_max_loss):
        simulated = outputs.simulate(item.thresholds)
        assert item.validation_accuracy == pytest.approx(simulated.accuracy)
        assert item.mean_macs == pytest.approx(simulated.mean_macs(MACS))
        assert item.exit_shares == pytest.approx(simulated.exit_shares)


def test_what_is_asked_for_is_met(outputs, stored):
    best = outputs.accuracies()[-1]

    assert [item.asked["macs"] for item in (stored.by_macs[0], stored.by_macs[-1])] == [
        MACS[0], MACS[-1]]
    assert all(item.budget_met and item.mean_macs <= item.asked["macs"] for item in stored.by_macs)
    assert [item.asked["accuracy"] for item in stored.by_accuracy] == pytest.approx(
        [best - loss for loss in (0.02, 0.01, 0.005, 0)])
    assert all(item.validation_accuracy >= item.asked["accuracy"] - 1e-6
               for item in stored.by_accuracy)
    assert [item.asked for item in stored.by_max_loss] == [
        {"max_loss": loss, "confidence": 0.95} for loss in (0.005, 0.01, 0.02)]
    assert all(best - item.validation_accuracy <= item.asked["max_loss"]
               for item in stored.by_max_loss)


def test_a_loss_that_is_exceeded_on_these_pictures_is_not_met(outputs, monkeypatch):
    """The promise is one over draws; what these pictures lose may be more."""
    first, *_, last = outputs.accuracies()
    assert last - first > 0.02
    monkeypatch.setattr(calibrated, "choose_safe_threshold", lambda *arguments: ChosenThresholds(
        (0.0, 0.0, 0.0), first, MACS[0], (1.0, 0.0, 0.0)))

    lossy = CalibratedThresholds.from_outputs(outputs, MACS, "made up")

    assert [item.budget_met for item in lossy.by_max_loss] == [False] * 3


def test_temperatures_lower_the_calibration_error_of_an_exit_that_is_too_sure(stored):
    error = stored.calibration["expected_calibration_error"]

    assert all(temperature > 1 for temperature in stored.temperatures)
    assert sum(error["after"]) < sum(error["before"])


def test_the_file_returns_everything(stored, path):
    """Thresholds to the last digit; nobody ever sees half a file."""
    assert CalibratedThresholds.from_file(path) == stored
    assert [file.name for file in path.parent.iterdir()] == ["thresholds.json"]
    first = json.loads(path.read_text())["by_max_loss"][0]
    assert {"max_loss", "confidence", "thresholds", "validation_accuracy", "mean_macs",
            "exit_shares", "budget_met"} == set(first)


def test_what_is_not_defined_is_null(tmp_path):
    """An exit that is always right has no AUROC, and JSON no NaN."""
    always = ExitOutputs([[[0.9, 0.1]] * 4] * 2, [0] * 4)

    stored = CalibratedThresholds.from_outputs(always, [1, 2], "made up")
    stored.write(tmp_path / "thresholds.json")

    assert stored.calibration["auroc"]["before"] == [None, None]
    assert "NaN" not in (tmp_path / "thresholds.json").read_text()
    assert CalibratedThresholds.from_file(tmp_path / "thresholds.json") == stored


@pytest.mark.parametrize("edit, message", [
    (lambda r: r.pop("by_macs"), r"the keys \['by_macs'\] are missing"),
    (lambda r: r.update(by_mac=[]), "unknown key 'by_mac'. Did you mean 'by_macs'"),
    (lambda r: r.update(pictures="many"), "pictures: expected a number"),
    (lambda r: r.update(data=3), "data: expected text"),
    (lambda r: r.update(weights_sha256=3), "weights_sha256: expected text or null"),
    (lambda r: r.update(temperatures=[]), "temperatures: expected one number per exit"),
    (lambda r: r.update(temperatures=[1, 1, "1"]), "temperatures: expected numbers"),
    (lambda r: r.update(by_macs={}), "by_macs: expected a list"),
    (lambda r: r["by_macs"][0].pop("macs"), r"by_macs\[0\]: the keys \['macs'\] are missing"),
    (lambda r: r["by_macs"][1].update(thresholds=[0.5, 0]),
     r"by_macs\[1\], thresholds: expected 3 numbers"),
    (lambda r: r["by_macs"][1].update(thresholds=[0.5, -1, 0]), "of 0 or more"),
    (lambda r: r["by_macs"][1].update(budget_met=1), "budget_met: expected true or false"),
    (lambda r: r["by_accuracy"][0].update(mean_macs=None), "mean_macs: expected numbers"),
    (lambda r: r["calibration"].pop("auroc"), r"the keys \['auroc'\] are missing"),
    (lambda r: r["calibration"]["auroc"].update(after=[1]), "after: expected 3 numbers"),
    (lambda r: r["calibration"]["expected_calibration_error"].update(after=[None] * 3),
     "after: expected 3 numbers"),
])
def test_a_malformed_file_is_an_error_that_names_the_place(path, edit, message):
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))

    with pytest.raises(ValueError, match=message):
        CalibratedThresholds.from_file(path)


@pytest.mark.parametrize("text", ["{", "\xff", '{"data": NaN}', '{"data": Infinity}',
                                  "[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "thresholds.json").write_text(text, encoding="latin-1")

    with pytest.raises(ValueError, match="thresholds.json is no valid JSON"):
        CalibratedThresholds.from_file(tmp_path / "thresholds.json")


def test_the_best_stored_thresholds_are_chosen(stored):
    """The most accurate within a budget, the cheapest for an accuracy, the one of a loss."""
    everything = (*stored.by_macs, *stored.by_accuracy)
    for macs in (MACS[0], 17e6, 1e12):
        chosen = stored.choose(macs=macs)
        assert chosen.mean_macs <= macs
        assert chosen.validation_accuracy == max(
            item.validation_accuracy for item in everything if item.mean_macs <= macs)
    goal = stored.by_accuracy[1].asked["accuracy"]
    chosen = stored.choose(accuracy=goal)
    assert chosen.validation_accuracy >= goal
    assert chosen.mean_macs == min(
        item.mean_macs for item in everything if item.validation_accuracy >= goal)
    assert stored.choose(max_loss=0.01) is stored.by_max_loss[1]


@pytest.mark.parametrize("asked, message", [
    ({}, "one of `macs`, `accuracy` and `max_loss`"),
    ({"macs": 1e7, "accuracy": 0.5}, "one of `macs`, `accuracy` and `max_loss`"),
    ({"macs": 30}, "cost at most 30 multiply-adds a picture; they cost 10,000,000 to"),
    ({"accuracy": 90}, "reach an accuracy of 90; the best reach 0"),
    ({"max_loss": 0.03}, r"for a loss of 0.03; there are some for \[0.005, 0.01, 0.02\]"),
])
def test_what_cannot_be_had_is_an_error_that_tells_what_exists(stored, asked, message):
    with pytest.raises(ValueError, match=message):
        stored.choose(**asked)


def test_ties_go_to_the_cheaper_and_the_more_accurate(stored):
    first = stored.by_macs[0]
    dear = dataclasses.replace(first, mean_macs=2 * first.mean_macs)
    only = dataclasses.replace(stored, by_macs=(dear, first), by_accuracy=())

    assert only.choose(macs=1e12) is first


def test_a_network_of_one_exit_reaches_its_own_accuracy():
    """27 of 33 is 0.818181..., which rounded up would be out of reach."""
    sure = np.full((33, 2), [0.75, 0.25], "float32")
    outputs = ExitOutputs(sure[None], np.array([0] * 27 + [1] * 6))

    stored = CalibratedThresholds.from_outputs(outputs, [100], "made up")

    assert stored.by_accuracy[-1].validation_accuracy == 27 / 33
