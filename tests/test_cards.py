"""Cards: everything in them comes from the entry's files, and the same files give the same card."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

from keras_adaptive.calibrated import THRESHOLDS, CalibratedThresholds
from keras_adaptive.cards import BUDGETED, CALIBRATION, EVALUATION, TRAINING, write_card
from keras_adaptive.equal_schedule import (
    EQUAL_SCHEDULE,
    EQUAL_SCHEDULE_FIGURE,
    EqualSchedulePoint,
    write_equal_schedule,
)
from keras_adaptive.evaluation import ExitOutputs, evaluate_budgeted
from keras_adaptive.evaluation.budgeted import read_budgeted, write_budgeted
from keras_adaptive.evaluation.calibration import (
    measure_calibration,
    read_calibration,
    write_calibration,
)
from keras_adaptive.evaluation.operating_points import operating_points, write_points

MACS = [10_000_000, 25_000_000, 40_000_000]
RECORD = {
    "title": "RANet on CIFAR-10", "paper": "https://arxiv.org/abs/2003.07326", "builder": "RANet",
    "configuration": "ranet_c1_lg_cifar10", "arguments": {},
    "input_rule": {"resize": "shorter_side_then_centre_crop", "interpolation": "bicubic",
                   "size": [32, 48]},
    "class_names": ["cat", "dog"], "exit_macs": MACS, "num_parameters": 1234567,
    "weights": {"file": "weights.h5", "sha256": "ab" * 32, "size_bytes": 76543, "dtype": "float16"},
    "recipe": "ranet_cifar10", "license": "Apache-2.0",
    "figures": {"test_accuracy": [0.5], "epochs": 7, "machine": "a | machine"},
}


def _draw(num_pictures, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_pictures)
    logits = rng.normal(size=(3, num_pictures, 2))
    logits[:, np.arange(num_pictures), labels] += np.array([[1], [2], [3]])
    powers = np.exp(logits)
    return ExitOutputs(powers / powers.sum(axis=-1, keepdims=True), labels)


@pytest.fixture
def entry(tmp_path):
    """Folder of an entry `made_up` with all files that a card is made from."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    validation, test = _draw(300, 0), _draw(300, 1)
    (folder / "model.json").write_text(json.dumps(RECORD))
    write_points(folder / EVALUATION, operating_points(test, MACS, [0.8]))
    write_budgeted(folder / BUDGETED, evaluate_budgeted(validation, test, MACS))
    stored = CalibratedThresholds.from_outputs(validation, MACS, "made-up pictures", "ab" * 32)
    stored.write(folder / THRESHOLDS)
    write_calibration(folder / CALIBRATION, measure_calibration(test, stored.temperatures))
    epochs = "".join(f"{epoch},{3 - epoch / 10},0.5,0.{60 + epoch}\n" for epoch in range(20))
    (folder / TRAINING).write_text("epoch,loss,exit3_accuracy,val_exit3_accuracy\n" + epochs)
    return folder


def _card(folder):
    return write_card(folder).read_text(encoding="utf-8")


def _edit(folder, **changes):
    (folder / "model.json").write_text(json.dumps({**RECORD, **changes}))


def test_the_record_is_told(entry):
    text = _card(entry)

    for part in ("# made_up: RANet on CIFAR-10", "<https://arxiv.org/abs/2003.07326>",
                 "`ranet_c1_lg_cifar10`", "1,234,567", "32 x 48 pixels", "bicubic", "cat, dog",
                 "76,543 bytes", "| licence of the weights | Apache-2.0 |", "| epochs | 7 |",
                 r"| machine | a \| machine |", "`ranet_cifar10`"):
        assert part in text, part


def test_the_front_matter_is_what_hugging_face_reads(entry):
    front = _card(entry).split("---\n")[1]

    assert front.splitlines() == [
        "license: apache-2.0", "library_name: keras", "pipeline_tag: image-classification",
        "tags:", "- keras", "- early-exit", "- adaptive-computation", "- ranet", "datasets:",
        "- uoft-cs/cifar10"]


def test_measured_figures_are_those_of_the_files(entry):
    """Every exit, the budgets, and every stored thresholds."""
    text = _card(entry)
    stored = CalibratedThresholds.from_file(entry / THRESHOLDS)
    accuracies = _draw(300, 1).accuracies()

    assert f"| 1 | 10.00 M | 25.0% | {accuracies[0]:.2%} |" in text
    assert f"| 3 | 40.00 M | 100.0% | {accuracies[2]:.2%} |" in text
    first = read_budgeted(entry / BUDGETED)[0]
    assert f"| 10.00 M | 10.00 M | 25.0% | {first.accuracy:.2%} | 100 0 0 |" in text
    assert "| `macs=10000000` | 0.000 off rest |" in text
    for item in stored.by_max_loss:
        assert f"| `max_loss={item.asked['max_loss']:g}` |" in text
    calibrated = read_calibration(entry / CALIBRATION)[0]
    assert (f"| 1 | {stored.temperatures[0]:.3f} | {calibrated.error_before:.4f} | "
            f"{calibrated.error_after:.4f} |" in text)
    assert 'zoo.thresholds("made_up", macs=20.0e6)' in text  # the middle of the budgets
    assert "made-up pictures" in text and "300 pictures" in text


def test_ranks_of_confidences_stand_before_and_after_the_temperature(entry):
    """With two classes a temperature changes no rank, so that other figures are put in."""
    points = [dataclasses.replace(point, auroc_before=0.7125, auroc_after=0.8375)
              for point in read_calibration(entry / CALIBRATION)]
    write_calibration(entry / CALIBRATION, points)

    assert _card(entry).count("| 0.7125 | 0.8375 |") == 3


def test_thresholds_say_whether_they_met_what_was_asked(entry):
    stored = CalibratedThresholds.from_file(entry / THRESHOLDS)
    missed = dataclasses.replace(stored.by_max_loss[1], budget_met=False)
    dataclasses.replace(stored, by_max_loss=(stored.by_max_loss[0], missed)).write(
        entry / THRESHOLDS)

    rows = re.findall(r"^\| `max_loss=.*` .* (\w+) \|$", _card(entry), flags=re.MULTILINE)

    assert rows == ["yes", "no"]


def test_budgets_that_gave_nothing_new_are_told(entry):
    """Those above the last one with thresholds of its own, unless that is the whole cost."""
    point = read_budgeted(entry / BUDGETED)[0]
    points = [dataclasses.replace(point, budget=budget, thresholds=thresholds)
              for budget, thresholds in ((10e6, (0.0, 2.0, 0.0)), (25e6, (0.5, 2.0, 0.0)),
                                         (40e6, (0.5, 2.0, 0.0)))]
    write_budgeted(entry / BUDGETED, points)
    assert "Budgets above 25.00 M gave no other thresholds." in _card(entry)

    points[-1] = dataclasses.replace(points[-1], thresholds=(0.9, 2.0, 0.0))
    write_budgeted(entry / BUDGETED, points)
    assert "Budgets above" not in _card(entry)


def test_thresholds_that_repeat_are_shown_once(entry):
    text = _card(entry)
    rows = re.findall(r"^\| `macs=\d+` \| (.*?) \|", text, flags=re.MULTILINE)

    stored = CalibratedThresholds.from_file(entry / THRESHOLDS)
    assert len(rows) == len({item.thresholds for item in stored.by_macs})


def test_the_training_log_is_summed_up_or_left_out(entry):
    """At most ten epochs, the first and the last among them, counted from 1."""
    section = _card(entry).split("## Training")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section, flags=re.MULTILINE)
    assert rows[0] == ("1", "3.000 | 50.0% | 60.0%") and rows[-1] == ("20", "1.100 | 50.0% | 79.0%")
    assert len(rows) == 10 and "has 20 epochs" in section

    (entry / TRAINING).unlink()
    assert "training.csv" not in _card(entry)


def test_epochs_that_were_not_validated_are_left_out(entry):
    (entry / TRAINING).write_text("epoch,loss,exit3_accuracy,val_exit3_accuracy\n"
                                  "0,3,0.5,NA\n1,2,0.6,0.7\n2,1,0.7,NA\n3,0.5,0.8,0.75\n")

    section = _card(entry).split("## Training")[1].split("\n## ")[0]

    assert "has 4 epochs" in section
    assert re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE) == ["2", "4"]


def test_what_a_log_lacks_is_a_dash(entry):
    (entry / TRAINING).write_text("epoch,loss,exit3_accuracy,val_exit3_accuracy\n"
                                  "0,NA,NA,0.7\n1,0.5,0.8,0.75\n")

    section = _card(entry).split("## Training")[1].split("\n## ")[0]

    assert re.findall(r"^\| (\d+ \| .*) \|$", section, flags=re.MULTILINE) == [
        "1 | - | - | 70.0%", "2 | 0.500 | 80.0% | 75.0%"]


def test_of_imagenet_by_whatever_name_the_terms_are_told(entry):
    """Also in a record that has no `data_set`, as they were written before."""
    for changes in ({"data_set": "imagenet"},
                    {"figures": {"data": "imagenet2012: 1,281,167 training pictures"}}):
        _edit(entry, configuration="ranet_i1_step8_imagenet", **changes)
        text = _card(entry)
        assert "ILSVRC/imagenet-1k" in text and "non-commercial research" in text
        assert "All figures are of `imagenet`" in text


def test_the_difference_to_the_papers_is_told_plainly(entry):
    """At our cost, between the paper's points: 94.05 % at 40.5 M, 93.95 % at 37 M."""
    test = ExitOutputs([[[1, 0]] * 4, [[1, 0]] * 4, [[1, 0]] * 4], [1, 0, 0, 0])
    point, = evaluate_budgeted(test, test, MACS, [MACS[-1]])
    write_budgeted(entry / BUDGETED, [dataclasses.replace(
        point, thresholds=(2.0, 2.0, 0.0), mean_macs=40e6, accuracy=0.95)])
    write_points(entry / EVALUATION, operating_points(test, MACS))

    text = _card(entry)

    assert "| 40.00 M | 95.00% | 94.04% | +0.96 | 93.75% | +1.25 |" in text
    assert "this network is right on 95.00% of the pictures, RANet of the paper on 94.04%: " \
           "**0.96 points more**" in text
    assert "right on 75.00% of the pictures, RANet C-3 of the paper on 92.68%: " \
           "**17.68 points less**" in text
    assert "dynamic_results.png" in text


def test_without_published_results_nothing_is_compared(entry):
    """Of a data set that the papers' file does not have; nor is a Hub name made up."""
    _edit(entry, data_set="birds")

    text = _card(entry)

    assert "papers' figures" not in text and "datasets:" not in text


def _point(network, protocol, macs, accuracy):
    return EqualSchedulePoint(network, network.lower() + "_recipe", 6, "300 test pictures of dogs",
                              protocol, macs, accuracy)


def test_a_comparison_after_equal_training_is_shown(entry):
    """The other network's accuracy at the same cost is between its points, by hand."""
    write_equal_schedule(entry / EQUAL_SCHEDULE, [
        _point("RANet", "anytime", 10e6, 0.5), _point("RANet", "anytime", 40e6, 0.7),
        _point("RANet", "budgeted", 10e6, 0.5), _point("RANet", "budgeted", 20e6, 0.62),
        _point("RANet", "budgeted", 20e6, 0.62),
        _point("MSDNet", "anytime", 15e6, 0.4), _point("MSDNet", "anytime", 35e6, 0.6),
        _point("MSDNet", "budgeted", 15e6, 0.4), _point("MSDNet", "budgeted", 25e6, 0.6)])

    section = _card(entry).split("## Beside MSDNet at equal schedule")[1].split("\n## ")[0]

    assert "6 epochs" in section and "300 test pictures of dogs" in section
    assert "RANet's weights are weights of that length, not those of this entry" in section
    assert "| 10.00 M | 50.00% | - | - |\n| 20.00 M | 62.00% | 50.00% | +12.00 |\n\n" in section
    assert "| MSDNet | `msdnet_recipe` | 15.00 M | 40.00% | 35.00 M | 60.00% |" in section
    assert "equal_schedule.png" not in section

    (entry / EQUAL_SCHEDULE_FIGURE).touch()
    assert "(equal_schedule.png)" in _card(entry)
    _edit(entry, figures={**RECORD["figures"], "epochs": 6})
    assert "RANet's weights are those of this entry, before they were rounded" in _card(entry)


def test_pictures_are_shown_where_they_are(entry):
    assert "](accuracy.png)" not in _card(entry)

    for name in ("accuracy.png", "exits.png", "gallery.png"):
        (entry / name).write_bytes(b"")
    text = _card(entry)

    assert all(f"]({name})" in text for name in ("accuracy.png", "exits.png", "gallery.png"))


def test_what_a_network_lacks_is_left_out(entry):
    _edit(entry, class_names=None, figures={})

    text = _card(entry)

    assert "classes |" not in text and "It knows" not in text


def test_a_network_of_one_exit_has_a_card_too(entry):
    """A static network, for comparison: nothing leaves early."""
    outputs = ExitOutputs(_draw(300, 0).probabilities[-1:], _draw(300, 0).labels)
    _edit(entry, exit_macs=[MACS[-1]], builder="ResNet")
    write_points(entry / EVALUATION, operating_points(outputs, MACS[-1:]))
    write_budgeted(entry / BUDGETED, evaluate_budgeted(outputs, outputs, MACS[-1:]))
    stored = CalibratedThresholds.from_outputs(outputs, MACS[-1:], "made up")
    stored.write(entry / THRESHOLDS)
    write_calibration(entry / CALIBRATION, measure_calibration(outputs, stored.temperatures))
    (entry / TRAINING).write_text("epoch,loss,accuracy,val_accuracy\n0,1,0.5,0.25\n")

    text = _card(entry)

    assert "one exit: every picture costs the same" in text
    assert "| 1 | 40.00 M | 100.0% |" in text and "| 1 | 1.000 | 50.0% | 25.0% |" in text
    assert not re.search("budget|threshold|sure enough", text)


def test_the_card_of_a_thumbnet_shows_thumbnails_and_whose_log_it_is(entry):
    """Only the student learns, at exit 1."""
    (entry / TRAINING).write_text("epoch,loss,accuracy,val_accuracy\n0,3,0.5,0.25\n")
    (entry / "thumbnails.png").write_bytes(b"")

    text = _card(entry)

    assert "](thumbnails.png)" in text and "accuracy of the student, exit 1" in text
    assert "| 1 | 3.000 | 50.0% | 25.0% |" in text


def test_the_same_files_give_the_same_card(entry):
    """And nothing else is written."""
    before = sorted(entry.rglob("*"))

    assert _card(entry) == _card(entry)
    assert sorted(entry.rglob("*")) == sorted([*before, entry / "card.md"])


@pytest.mark.parametrize("name", ["model.json", str(THRESHOLDS), str(EVALUATION), str(BUDGETED),
                                  str(CALIBRATION)])
def test_a_missing_file_is_an_error_that_says_how_to_make_it(entry, name):
    (entry / name).unlink()

    with pytest.raises(ValueError, match=f"{pathlib.Path(name).name}, which does not exist. "
                                         "`keras-adaptive card made_up --data DATA`"):
        write_card(entry)
    assert not (entry / "card.md").exists()


@pytest.mark.parametrize("changes", [
    {"weights": {**RECORD["weights"], "sha256": "cd" * 32}}, {"exit_macs": [1, 2, 3]},
    {"exit_macs": MACS[:2]},
])
def test_files_of_other_weights_are_refused(entry, changes):
    """After another training the figures of the old one must not stay."""
    _edit(entry, **changes)

    with pytest.raises(ValueError, match="are not of the same weights"):
        write_card(entry)


@pytest.mark.parametrize("temperatures", [[1.0, 1.0, 9.0], [1.0]])
def test_calibration_of_other_temperatures_is_refused(entry, temperatures):
    outputs = _draw(300, 1)
    if len(temperatures) == 1:
        outputs = ExitOutputs(outputs.probabilities[:1], outputs.labels)
    write_calibration(entry / CALIBRATION, measure_calibration(outputs, temperatures))

    with pytest.raises(ValueError, match="are not of the same weights"):
        write_card(entry)


def test_a_log_without_its_columns_is_refused(entry):
    (entry / TRAINING).write_text("epoch,loss\n0,1\n")

    with pytest.raises(ValueError, match="training.csv lacks the columns .'exit3_accuracy'"):
        write_card(entry)


def test_networks_of_many_classes_have_top_5_accuracies(entry):
    """And the card says whose pictures Tiny ImageNet's are."""
    rng = np.random.default_rng(0)
    outputs = ExitOutputs(rng.dirichlet(np.ones(200), (3, 300)), rng.integers(0, 200, 300))
    _edit(entry, configuration="ranet_i1_step8_imagenet", recipe="ranet_imagenet",
          class_names=[f"class {number}" for number in range(200)])
    write_points(entry / EVALUATION, operating_points(outputs, MACS, [0.8]))

    text = _card(entry)

    accuracy, top5 = outputs.accuracies()[0], outputs.top5_accuracies()[0]
    assert "| exit | multiply-adds | share of the full cost | accuracy | top-5 accuracy |" in text
    assert f"| 1 | 10.00 M | 25.0% | {accuracy:.2%} | {top5:.2%} |" in text
    assert top5 > accuracy
    assert "zh-plus/tiny-imagenet" in text and "non-commercial research" in text
