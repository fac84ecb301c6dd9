import csv
import dataclasses
import json
import signal
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive import models, recipes, zoo
from keras_adaptive.training import Recipe, datasets, train
from keras_adaptive.training import run as run_module
from keras_adaptive.training.datasets import steps_per_epoch
from keras_adaptive.training.recipe_tables import Phase
from keras_adaptive.training.splits import Split


@pytest.fixture
def recipe(content):
    return Recipe.from_dict("test", content)


@pytest.fixture
def short(content):
    """A recipe of one epoch."""
    content["training"]["phases"] = [{"epochs": 1, "image_size": 32}]
    return Recipe.from_dict("test", content)


class Killed(Exception):
    """Stands for the end of the machine."""


def train_until_killed(recipe, data, folder, monkeypatch, last_epoch):
    """Train, and stop at the end of an epoch, counted from 0, after its state was kept."""
    def die(self, epoch, logs=None):
        keep(self, epoch, logs)
        if epoch == last_epoch:
            raise Killed
    keep = run_module._KeepState.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(run_module._KeepState, "on_epoch_end", die)
        with pytest.raises(Killed):
            train(recipe, data, folder, verbose=0)


@pytest.mark.parametrize("average", [0, pytest.param(0.8, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_weights(average, content, tiny_data, tmp_path,
                                                  monkeypatch):
    """Stopped after the second of three epochs, in the second phase, and started again; with an
    average of the weights, that and the weights that learn are the same."""
    content["training"]["average"] = average
    recipe = Recipe.from_dict("test", content)
    undisturbed = train(recipe, tiny_data, tmp_path / "whole", verbose=0)

    train_until_killed(recipe, tiny_data, tmp_path / "killed", monkeypatch, last_epoch=1)
    resumed = train(recipe, tiny_data, tmp_path / "killed", verbose=0)

    for ours, theirs in zip(resumed.get_weights(), undisturbed.get_weights()):
        assert_array_equal(ours, theirs)
    with h5py.File(tmp_path / "whole/state.h5") as ours, \
            h5py.File(tmp_path / "killed/state.h5") as theirs:
        assert ours["optimizer"].keys() == theirs["optimizer"].keys()
        for group in ("weights", "optimizer"):
            for name in ours[group]:
                assert_array_equal(ours[f"{group}/{name}"], theirs[f"{group}/{name}"])
    epochs = [row["epoch"] for row in csv.DictReader((tmp_path / "killed/log.csv").open())]
    assert epochs == ["0", "1", "2"]


@pytest.mark.slow
def test_an_average_of_the_weights_leaves_the_run_alone(content, tiny_data, tmp_path):
    """The weights that learn are those of a run without it, to the bit; the best are others."""
    plain = train(Recipe.from_dict("plain", content), tiny_data, tmp_path / "plain", verbose=0)
    content["training"]["average"] = 0.8

    averaged = train(Recipe.from_dict("test", content), tiny_data, tmp_path / "averaged", verbose=0)

    with h5py.File(tmp_path / "plain/state.h5") as ours, \
            h5py.File(tmp_path / "averaged/state.h5") as theirs:
        for name in ours["weights"]:
            assert_array_equal(ours[f"weights/{name}"], theirs[f"weights/{name}"])
    assert any((ours != theirs).any() for ours, theirs in zip(
        plain.get_weights(), averaged.get_weights()))


@pytest.mark.slow_on_jax
def test_a_student_learns_from_the_zoo_s_teacher(content, tiny_data, tmp_path, monkeypatch):
    """The run starts from the teacher's weights, leaves them alone, and goes on after a stop."""
    teacher = models.build("resnet20_cifar10", depth=8, channels=4, normalization="cifar10")
    monkeypatch.setattr(zoo, "load", lambda name, pretrained: {"trained": teacher}[name])
    content["model"] = {
        "configuration": "thumbnet_r2_resnet20_cifar10", "normalization": "cifar10",
        "teacher_arguments": {"depth": 8, "channels": 4}, "hidden_filters": 12}
    content["thumbnet"] = {"teacher": "trained"}
    content["training"]["phases"] = [{"epochs": 2, "image_size": 32}]
    recipe = Recipe.from_dict("test", content)

    whole = train(recipe, tiny_data, tmp_path / "whole", verbose=0)
    first = {**content["training"], "phases": [{"epochs": 1, "image_size": 32},
                                               {"epochs": 1, "image_size": 32}]}
    in_two = train(Recipe.from_dict("test", {**content, "training": first}), tiny_data,
                   tmp_path / "in_two", verbose=0)

    for ours, theirs in zip(whole.teacher.get_weights(), teacher.get_weights()):
        assert_array_equal(ours, theirs)
    for ours, theirs in zip(whole.get_weights(), in_two.get_weights()):
        assert_array_equal(ours, theirs)
    log = list(csv.DictReader((tmp_path / "whole/log.csv").open()))
    assert {"distillation_loss", "feature_loss", "moment_loss", "val_accuracy"} <= set(log[1])


def test_a_finished_run_is_not_trained_again(recipe, tiny_data, tmp_path, monkeypatch):
    first = train(recipe, tiny_data, tmp_path, verbose=0)
    monkeypatch.setattr(keras.Model, "fit", None)

    again = train(recipe, tiny_data, tmp_path, verbose=0)

    for ours, theirs in zip(again.get_weights(), first.get_weights()):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("average", [0, 0.8])
def test_the_best_full_size_epoch_is_kept(average, content, tiny_data, tmp_path):
    """Only the epochs at full size compete, by validation accuracy in the mean over the exits. With
    an average of the weights, its accuracy is the one that is logged and kept."""
    content["training"]["average"] = average
    recipe = Recipe.from_dict("test", content)
    model = train(recipe, tiny_data, tmp_path, verbose=0)

    rows = list(csv.DictReader((tmp_path / "log.csv").open()))[1:]
    names = [f"exit{number}_accuracy" for number in range(1, model.num_exits + 1)]
    best = max(np.mean([float(row[f"val_{name}"]) for name in names]) for row in rows)
    model.compile()
    logs = model.evaluate(tiny_data.validation.x, tiny_data.validation.y, verbose=0,
                          return_dict=True)
    assert np.mean([logs[name] for name in names]) == pytest.approx(best)


def test_the_trained_model_knows_its_classes_and_one_exit_is_enough(content, tiny_data, tmp_path):
    """With one exit Keras names the logs otherwise."""
    content["model"]["blocks"] = 1
    content["training"]["phases"] = [{"epochs": 1, "image_size": 32}]

    model = train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)

    assert model.num_exits == 1
    assert model.class_names == list("abcdefghij")


def test_the_folder_of_another_recipe_is_refused(recipe, tiny_data, tmp_path):
    train(recipe, tiny_data, tmp_path, verbose=0)
    other = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, seed=1))

    with pytest.raises(ValueError, match="state of another recipe"):
        train(other, tiny_data, tmp_path, verbose=0)


@pytest.mark.parametrize("kind", ["foreign", "cut", "text"])
def test_a_state_that_is_none_is_told(kind, short, tiny_data, tmp_path):
    """As a copy that was broken off leaves it, or another program."""
    path = tmp_path / "state.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(1000)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    if kind == "text":
        path.write_text("no state")

    with pytest.raises(ValueError, match="state.h5 cannot be read.*Choose another folder, or del"):
        train(short, tiny_data, tmp_path, verbose=0)


def test_a_run_goes_on_with_its_own_pictures_only(short, tiny_data, tmp_path):
    """Other pictures under the same labels are noticed; states that do not say theirs go on."""
    train(short, tiny_data, tmp_path, verbose=0)
    brighter = dataclasses.replace(
        tiny_data, train=dataclasses.replace(tiny_data.train, x=tiny_data.train.x + 1))

    with pytest.raises(ValueError, match="other pictures than these 40 training and 16"):
        train(short, brighter, tmp_path, verbose=0)

    with h5py.File(tmp_path / "state.h5", "r+") as file:
        del file.attrs["data"]
    train(short, brighter, tmp_path, verbose=0)


def test_how_far_a_run_is(short, tiny_data, tmp_path):
    """It is told whatever the precision, but not of another recipe."""
    train(short, tiny_data, tmp_path, verbose=0)

    def of(**changes):
        changed = dataclasses.replace(
            short, training=dataclasses.replace(short.training, **changes))
        return run_module.finished_epochs(changed, tiny_data, tmp_path)

    assert of(precision="mixed_bfloat16") == 1
    with pytest.raises(ValueError, match="state of another recipe"):
        of(seed=9)


def test_a_diverged_run_stops_and_keeps_what_was_before(short, tiny_data, tmp_path):
    """Weights that are no numbers have an accuracy, too: they must not become the best."""
    wild = dataclasses.replace(short, training=dataclasses.replace(
        short.training, peak_learning_rate=1e30, validate_every=3, phases=(Phase(3, 32),)))

    with pytest.raises(ValueError, match="After epoch 1 loss is no .* training diverged"):
        train(wild, tiny_data, tmp_path, verbose=0)

    assert not (tmp_path / "best.weights.h5").exists() and not (tmp_path / "state.h5").exists()


@pytest.mark.parametrize("changes, message", [
    ({"class_names": tuple("abc")}, "tells 10 classes apart, the data has names for 3"),
    ({"validation": 11}, "labels from 0 to 11"),
    ({"train": Split(np.zeros((8, 32, 32, 1), "uint8"), np.zeros(8, int))}, "of 3 channels"),
])
def test_unfit_data_is_refused_before_the_first_epoch(recipe, tiny_data, tmp_path, monkeypatch,
                                                      changes, message):
    monkeypatch.setattr(keras.Model, "fit", None)
    if "validation" in changes:
        y = tiny_data.validation.y.copy()
        y[-1] = changes["validation"]
        changes = {"validation": dataclasses.replace(tiny_data.validation, y=y)}

    with pytest.raises(ValueError, match=message):
        train(recipe, dataclasses.replace(tiny_data, **changes), tmp_path, verbose=0)


TRAINING = """
import os, signal, sys
import numpy as np
from keras_adaptive.training import Recipe, run, train
from keras_adaptive.training.datasets import load_data

class Killer(run._KeepState):
    def on_train_batch_end(self, batch, logs=None):
        if self.state.epoch == 1 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

recipe, data, folder, dies = sys.argv[1:]
if dies == "dies":
    run._KeepState = Killer
model = train(Recipe.from_file(recipe), load_data(data), folder, verbose=2)
np.savez(folder + "/final.npz", *model.get_weights())
"""

SMALL_RECIPE = """
[about]
title = "A test"
[model]
configuration = "ranet_c1_lg_cifar10"
scales = [1]
growth_factors = [1]
channels = 4
growth_rate = 4
layers_per_block = 1
layer_growth = "even"
pooling = "global"
head_filters = 8
normalization = "cifar10"
[data]
name = "cifar10"
[training]
batch_size = 8
peak_learning_rate = 0.05
phases = [{ epochs = 3, image_size = 32 }]
"""


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_ends_with_the_same_weights(tiny_data, tmp_path):
    """SIGKILL arrives after three batches of the second epoch; the same command goes on, redoes
    that epoch from its start, and ends with the weights of a run that nobody disturbed."""
    parts = {"train": tiny_data.train, "val": tiny_data.validation, "test": tiny_data.test}
    np.savez(tmp_path / "data.npz", class_names=list(tiny_data.class_names),
             **{f"x_{part}": split.x for part, split in parts.items()},
             **{f"y_{part}": split.y for part, split in parts.items()})
    (tmp_path / "recipe.toml").write_text(SMALL_RECIPE)

    def run(folder, dies="lives"):
        return subprocess.run(
            [sys.executable, "-c", TRAINING, str(tmp_path / "recipe.toml"),
             str(tmp_path / "data.npz"), str(tmp_path / folder), dies],
            capture_output=True, check=False).returncode

    assert run("whole") == 0
    assert run("killed", "dies") == -signal.SIGKILL
    assert not (tmp_path / "killed/final.npz").exists()
    assert run("killed") == 0

    with np.load(tmp_path / "whole/final.npz") as whole, \
            np.load(tmp_path / "killed/final.npz") as resumed:
        assert whole.files == resumed.files
        for name in whole.files:
            assert_array_equal(resumed[name], whole[name])
    logs = [(tmp_path / folder / "log.csv").read_text() for folder in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_run_may_validate_now_and_then(content, tiny_data, tmp_path, monkeypatch):
    """And at the end of a phase; killed, it goes on after the last epoch that it validated."""
    content["training"] |= {"validate_every": 2, "phases": [{"epochs": 5, "image_size": 20}]}
    recipe = Recipe.from_dict("test", content)
    whole = train(recipe, tiny_data, tmp_path / "whole", verbose=0)
    rows = list(csv.DictReader((tmp_path / "whole/log.csv").open()))
    assert [row["val_loss"] == "NA" for row in rows] == [True, False, True, False, False]

    train_until_killed(recipe, tiny_data, tmp_path / "killed", monkeypatch, last_epoch=2)
    assert run_module.finished_epochs(recipe, tiny_data, tmp_path / "killed") == 2
    resumed = train(recipe, tiny_data, tmp_path / "killed", verbose=0)

    for ours, theirs in zip(resumed.get_weights(), whole.get_weights()):
        assert_array_equal(ours, theirs)
    assert list(csv.DictReader((tmp_path / "killed/log.csv").open())) == rows


def test_a_log_keeps_its_columns_when_a_run_goes_on(tmp_path):
    """Also where validation tells less than training, as for a ThumbNet."""
    path = tmp_path / "log.csv"
    for epoch, logs in enumerate([{"loss": 1, "soft_loss": 2}, {"loss": 3, "val_loss": 4}]):
        log = run_module._Log(path, append=epoch > 0)
        log.on_train_begin()
        log.on_epoch_end(epoch, logs)
        log.on_train_end()

    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["loss"], first["soft_loss"], first["val_loss"]) == ("1", "2", "NA")
    assert (second["loss"], second["soft_loss"], second["val_loss"]) == ("3", "NA", "4")
    assert None not in second


def test_how_fast_a_run_learned(short, tiny_data, tmp_path, monkeypatch):
    """The median over the epochs at full size whose time is on record, validation left out."""
    longer = dataclasses.replace(short, training=dataclasses.replace(
        short.training, phases=(Phase(2, 32),)))
    train(longer, tiny_data, tmp_path, verbose=0)
    with h5py.File(tmp_path / "state.h5") as state:
        compiled, learned = state["seconds"][()]
    assert np.isnan(compiled) and learned > 0
    assert run_module.training_speed(longer, tiny_data, tmp_path) == 40 / learned
    with h5py.File(tmp_path / "state.h5", "a") as state:
        del state["seconds"]  # as an earlier version wrote it
    assert run_module.training_speed(longer, tiny_data, tmp_path) is None

    phases = [{"epochs": 2, "image_size": 20}, {"epochs": 4, "image_size": 32}]
    longer = dataclasses.replace(short, training=dataclasses.replace(
        short.training, phases=tuple(Phase(**phase) for phase in phases)))
    monkeypatch.setattr(run_module._State, "__init__", lambda self, *args, **kwargs: setattr(
        self, "seconds", [1.0, 1.0, 5.0, float("nan"), 4.0, 8.0]))
    assert run_module.training_speed(longer, tiny_data, tmp_path) == 40 / 5
    monkeypatch.setattr(run_module._State, "__init__", lambda self, *args, **kwargs: setattr(
        self, "seconds", [1.0, 1.0]))
    assert run_module.training_speed(longer, tiny_data, tmp_path) is None


def test_the_log_has_each_epoch_once(recipe, tiny_data, tmp_path):
    """A kill between the log's line and the state leaves a line too many."""
    folder = tmp_path / "run"
    train(recipe, tiny_data, folder, verbose=0)
    lines = (folder / "log.csv").read_text().splitlines(keepends=True)
    with h5py.File(folder / "state.h5", "a") as state:
        state.attrs["epoch"] = 2

    train(recipe, tiny_data, folder, verbose=0)

    assert (folder / "log.csv").read_text().splitlines(keepends=True)[:3] == lines[:3]
    epochs = [row["epoch"] for row in csv.DictReader((folder / "log.csv").open())]
    assert epochs == ["0", "1", "2"]


@pytest.mark.slow_on_jax
def test_a_finished_run_is_lengthened_by_phases_that_restart(content, tiny_data, tmp_path):
    """And ends with the weights of one run of all phases."""
    longer = {**content["training"], "phases": [
        *content["training"]["phases"], {"epochs": 1, "image_size": 32, "restart": True}]}
    longer = Recipe.from_dict("longer", {**content, "training": longer})
    train(Recipe.from_dict("test", content), tiny_data, tmp_path / "run", verbose=0)

    train(longer, tiny_data, tmp_path / "run", verbose=0)

    train(longer, tiny_data, tmp_path / "whole", verbose=0)
    with h5py.File(tmp_path / "run/state.h5") as ours, \
            h5py.File(tmp_path / "whole/state.h5") as theirs:
        assert ours.attrs["epoch"] == 4
        for name in theirs["weights"]:
            assert_array_equal(ours[f"weights/{name}"], theirs[f"weights/{name}"])


def test_a_run_goes_on_where_it_is_looked_at_more_often(content, tiny_data, tmp_path):
    """Also from a state of a version that took this for another recipe."""
    content["training"] |= {"validate_every": 2, "phases": [{"epochs": 2, "image_size": 20}]}
    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)
    with h5py.File(tmp_path / "state.h5", "r+") as file:
        written_for = json.loads(file.attrs["recipe"])
        assert "validate_every" not in written_for["training"]
        written_for["training"]["validate_every"] = 2
        file.attrs["recipe"] = json.dumps(written_for)
    content["training"]["validate_every"] = 1
    content["training"]["phases"] += [{"epochs": 2, "image_size": 20, "restart": True}]

    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)

    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["val_loss"] != "NA" for row in rows] == [False, True, True, True]


def test_a_phase_has_a_peak_and_erasing_of_its_own(content, tiny_data, tmp_path, monkeypatch):
    """Each batch of the second phase is erased, none of the first."""
    shares = []

    def erase(pictures, seed, share):
        shares.append(share)
        return pictures
    monkeypatch.setattr(datasets, "random_erasing", erase)
    content["training"] |= {"peak_learning_rate": 0.2, "phases": [
        {"epochs": 1, "image_size": 20},
        {"epochs": 1, "image_size": 20, "restart": True, "peak_learning_rate": 0.1,
         "random_erasing": 0.25}]}
    recipe = Recipe.from_dict("test", content)

    train(recipe, tiny_data, tmp_path, verbose=0)

    assert recipe.training.peaks == (0.2, 0.1)
    assert set(shares) == {0.25}
    assert len(shares) >= steps_per_epoch(tiny_data.train, recipe.training.batch_size)


def test_phases_of_another_size_have_a_best_of_their_own(content, tiny_data, tmp_path):
    """What was best at the size before is no longer: the network now takes other pictures."""
    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)
    before = (tmp_path / "best.weights.h5").read_bytes()
    with h5py.File(tmp_path / "state.h5", "r+") as state:
        state.attrs["best_mean"] = 2.0  # which no later epoch reaches
    content["training"]["phases"] += [{"epochs": 1, "image_size": 24, "restart": True}]

    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)

    assert (tmp_path / "best.weights.h5").read_bytes() != before
    with h5py.File(tmp_path / "state.h5") as state:
        assert 0 <= state.attrs["best_mean"] <= 1


def test_phases_without_a_network_are_told_before_the_first_epoch(content, tiny_data, tmp_path):
    """Their cure changes the recipe, for which hours of training would be lost."""
    content["model"].pop("pooling")
    content["training"]["phases"] = [{"epochs": 1, "image_size": size} for size in (8, 16)]
    with pytest.raises(ValueError, match="cannot be built for the phase of 16 pixels.*pooling"):
        train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)
    assert not (tmp_path / "state.h5").exists()


def test_students_whose_weights_depend_on_the_size_learn_at_one(tiny_data, tmp_path):
    """Where a student is compared with its teacher follows from the size, and so does its
    decoder."""
    recipe = recipes.load("thumbnet_cifar10").quick()
    phases = (Phase(epochs=1, image_size=20), Phase(epochs=1, image_size=32))
    recipe = dataclasses.replace(
        recipe, training=dataclasses.replace(recipe.training, phases=phases))

    with pytest.raises(ValueError, match="other weights for pictures of 32 pixels than .* of 20"):
        train(recipe, tiny_data, tmp_path, verbose=0)
    assert not (tmp_path / "state.h5").exists()


def test_other_changes_to_the_phases_are_another_recipe(content, tiny_data, tmp_path):
    """Without a restart, more phases would have made another learning rate from the start."""
    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)
    content["training"]["phases"] += [{"epochs": 1, "image_size": 32}]

    with pytest.raises(ValueError, match="state of another recipe"):
        train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)
