"""A run becomes an entry of the zoo, on a tiny network in a zoo of its own."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from keras_adaptive import publishing, recipes, report, zoo
from keras_adaptive.publishing import publish
from keras_adaptive.training import train
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.recipe_tables import Phase

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take longest; here they are not looked at."""
    monkeypatch.setattr(report, "save_figure", lambda *arguments, **options: None)


@pytest.fixture
def recipe():
    quick = recipes.load("resnet20_cifar10").quick()
    phase = Phase(epochs=2, image_size=32)
    return dataclasses.replace(
        quick, about=dataclasses.replace(quick.about, zoo_name="tiny"),
        training=dataclasses.replace(quick.training, phases=(phase,)))


@pytest.fixture
def data_file(make_data):
    return make_data(16, 40, 30)


def test_a_run_becomes_a_whole_entry(recipe, data_file, own_zoo, tmp_path):
    """The network loads by name, with the run's weights; figures, thresholds, log and card say
    what was measured with what is shipped."""
    trained = train(recipe, load_data(data_file), tmp_path / "run", verbose=0)
    card = publish(recipe, tmp_path / "run", data_file, "an abacus, two weeks", dtype="float32")
    assert card == own_zoo / "tiny" / "card.md" and "an abacus, two weeks" in card.read_text()
    model = zoo.load("tiny", pretrained=True)
    for own, given in zip(model.get_weights(), trained.get_weights()):
        np.testing.assert_array_equal(own, given)
    figures = json.loads((own_zoo / "tiny" / "model.json").read_text())["figures"]
    with np.load(data_file) as arrays:
        for part, key in (("test", "test_accuracy"), ("val", "validation_accuracy")):
            answers = trained.predict(arrays[f"x_{part}"], verbose=0).argmax(1)
            assert figures[key] == [round(float((answers == arrays[f"y_{part}"]).mean()), 4)]
    assert zoo.find_entry("tiny").data_set == "made_up"
    assert 0 < figures["pictures_a_second_in_training"] < 1e6
    assert figures["epochs"] == 2 and "16 training, 40 validation and 30 test" in figures["data"]
    assert len(zoo.thresholds("tiny", macs=1e12)) == 1  # they fit the weights' digest
    with (own_zoo / "tiny" / "results" / "training.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]


def test_of_twenty_classes_the_accuracy_is_enough(recipe, make_data, own_zoo, tmp_path):
    """With no more than these, nobody computes the five likeliest."""
    path = make_data(16, 40, 30)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "class_names": np.array([f"class {i}" for i in range(20)])})
    recipe = dataclasses.replace(recipe, model={**recipe.model, "num_classes": 20})
    train(recipe, load_data(path), tmp_path / "run", verbose=0)

    publish(recipe, tmp_path / "run", path)

    assert "test_top5_accuracy" not in zoo.find_entry("tiny").figures


def test_a_run_that_has_no_weights_yet_is_named(recipe, data_file, own_zoo, tmp_path):
    """The message says what is missing, and the zoo stays as it was."""
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="best.weights.h5, which .keras-adaptive train"):
        publish(recipe, tmp_path / "run", data_file)
    assert not (own_zoo / "tiny").exists()


def test_an_earlier_entry_stays_until_the_new_one_is_whole(recipe, data_file, own_zoo, tmp_path,
                                                           monkeypatch):
    """A failure in the middle leaves it as it was, to the last byte; files that publishing does not
    make are still there afterwards."""
    trained = train(recipe, load_data(data_file), tmp_path / "run", verbose=0)
    zoo.save_entry(trained, "tiny", recipe=recipe, figures={"machine": "an earlier one"})
    (own_zoo / "tiny" / "equal_schedule.png").write_bytes(b"a figure")
    before = {path: path.read_bytes() for path in own_zoo.rglob("*") if path.is_file()}

    def fail(measured):
        assert zoo.find_entry("tiny").figures == {"machine": "an earlier one"}
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "complete_entry", fail)
        with pytest.raises(OSError, match="no space"):
            publish(recipe, tmp_path / "run", data_file)
    assert {path: path.read_bytes() for path in own_zoo.rglob("*") if path.is_file()} == before

    publish(recipe, tmp_path / "run", data_file, "a new one")
    assert zoo.find_entry("tiny").figures["machine"] == "a new one"
    assert (own_zoo / "tiny" / "equal_schedule.png").read_bytes() == b"a figure"
    assert {path.name for path in own_zoo.iterdir()} == {"tiny", "published_results.csv"}


def test_a_recipe_without_a_zoo_name_gives_its_own(recipe, data_file, own_zoo, tmp_path):
    """Also where it is that of a configuration which another entry stands for: that stays."""
    train(recipe, load_data(data_file), tmp_path / "run", verbose=0)
    publish(recipe, tmp_path / "run", data_file)
    before = (own_zoo / "tiny" / "model.json").read_bytes()
    other = dataclasses.replace(recipe, name=recipe.model["configuration"],
                                about=dataclasses.replace(recipe.about, zoo_name=""))

    card = publish(other, tmp_path / "run", data_file, "another machine")

    assert card == own_zoo / "resnet20_cifar10" / "card.md"
    assert zoo.find_entry("resnet20_cifar10").name == "resnet20_cifar10"
    assert (own_zoo / "tiny" / "model.json").read_bytes() == before


def test_only_the_run_of_the_recipe_is_published(recipe, data_file, own_zoo, tmp_path):
    """Another recipe's folder is refused; a run that is not finished is told to be so."""
    train(recipe, load_data(data_file), tmp_path / "run", verbose=0)
    other = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, seed=9))
    with pytest.raises(ValueError, match="state of another recipe"):
        publish(other, tmp_path / "run", data_file)
    assert not (own_zoo / "tiny").exists()

    longer = dataclasses.replace(recipe, training=dataclasses.replace(
        recipe.training, phases=(*recipe.training.phases,
                                 Phase(epochs=3, image_size=32, restart=True))))
    with pytest.warns(UserWarning, match="has 2 of the 5 epochs"):
        publish(longer, tmp_path / "run", data_file)


def test_other_classes_are_refused_before_anything_is_written(recipe, data_file, own_zoo,
                                                              tmp_path):
    """A data set of another number of classes is no measure of the network."""
    train(recipe, load_data(data_file), tmp_path / "run", verbose=0)
    with np.load(data_file) as arrays:
        np.savez(tmp_path / "seven.npz", **{**arrays, "class_names": arrays["class_names"][:7]})
    with pytest.raises(ValueError, match="tells 10 classes apart.*has 7"):
        publish(recipe, tmp_path / "run", str(tmp_path / "seven.npz"))
    assert not (own_zoo / "tiny").exists()
