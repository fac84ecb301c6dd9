import csv
import dataclasses

import keras
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive.training import Recipe, train
from keras_adaptive.training import run as run_module


@pytest.fixture
def recipe(content):
    return Recipe.from_dict("test", content)


class Killed(Exception):
    """Stands for the end of the machine."""


def test_a_killed_run_goes_on_to_the_same_weights(recipe, tiny_data, tmp_path, monkeypatch):
    """Stopped after the second of three epochs, in the second phase, and started again."""
    undisturbed = train(recipe, tiny_data, tmp_path / "whole", verbose=0)

    def die(self, epoch, logs=None):
        keep(self, epoch, logs)
        if epoch == 1:
            raise Killed
    keep = run_module._KeepState.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(run_module._KeepState, "on_epoch_end", die)
        with pytest.raises(Killed):
            train(recipe, tiny_data, tmp_path / "killed", verbose=0)
    resumed = train(recipe, tiny_data, tmp_path / "killed", verbose=0)

    for ours, theirs in zip(resumed.get_weights(), undisturbed.get_weights()):
        assert_array_equal(ours, theirs)
    epochs = [row["epoch"] for row in csv.DictReader((tmp_path / "killed/log.csv").open())]
    assert epochs == ["0", "1", "2"]


def test_a_finished_run_is_not_trained_again(recipe, tiny_data, tmp_path, monkeypatch):
    first = train(recipe, tiny_data, tmp_path, verbose=0)
    monkeypatch.setattr(keras.Model, "fit", None)

    again = train(recipe, tiny_data, tmp_path, verbose=0)

    for ours, theirs in zip(again.get_weights(), first.get_weights()):
        assert_array_equal(ours, theirs)


def test_the_best_full_size_epoch_is_kept(recipe, tiny_data, tmp_path):
    """Only the epochs at full size compete, by the last exit's validation accuracy."""
    model = train(recipe, tiny_data, tmp_path, verbose=0)

    rows = list(csv.DictReader((tmp_path / "log.csv").open()))[1:]
    best = max(float(row[f"val_exit{model.num_exits}_accuracy"]) for row in rows)
    model.compile()
    logs = model.evaluate(tiny_data.validation.x, tiny_data.validation.y, verbose=0,
                          return_dict=True)
    assert logs[f"exit{model.num_exits}_accuracy"] == pytest.approx(best)


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
