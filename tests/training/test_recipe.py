import pathlib

import numpy as np
import pytest

from keras_adaptive.training import Recipe

RECIPES = sorted((pathlib.Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))

def changed(table, key, value):
    """Return a function that makes one mistake in a recipe's content."""
    return lambda content: {**content, table: {**content.get(table, {}), key: value}}


def test_a_recipe_builds_and_compiles_what_it_says(content):
    recipe = Recipe.from_dict("test", content)

    model = recipe.build()
    recipe.compile(model, steps=5)

    assert recipe.image_size == 32
    assert model.input_shape == (None, 32, 32, 3)
    assert recipe.build(20).input_shape == (None, 20, 20, 3)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 5, 10, 15)]
    assert rates == pytest.approx([0.0, 0.1, 0.05, 0.0], abs=1e-6)
    assert model.optimizer.weight_decay == 1e-3


def test_scales_shifts_and_biases_are_not_decayed(content):
    recipe = Recipe.from_dict("test", content)
    model = recipe.build()
    recipe.compile(model, steps=5)
    model.optimizer.build(model.trainable_variables)

    decayed = {variable.name for variable in model.trainable_variables
               if model.optimizer._use_weight_decay(variable)}

    assert decayed == {"kernel"}


@pytest.mark.parametrize("spoil, message", [
    (changed("training", "batchsize", 3), "Did you mean 'batch_size'"),
    (changed("model", "normalisation", "cifar10"), "Did you mean 'normalization'"),
    (changed("model", "configuration", "ranet_c1_lg_cifar"), "Did you mean"),
    (changed("training", "batch_size", "8"), "`batch_size` must be of type int"),
    (changed("training", "precision", "float8"), "`precision` is one of"),
    (changed("training", "phases", [{"epochs": 1}]), "'image_size'. are missing"),
    (lambda content: {**content, "trainings": {}}, "Did you mean 'training'"),
    (lambda content: {"about": {}}, "are missing"),
    (lambda content: {**content, "model": {}}, "'configuration' is missing"),
    (lambda content: {**content, "training": "x"}, "is a table"),
    (changed("training", "phases", []), "one phase or more"),
    (changed("training", "phases", [3]), "phases is a table"),
    (changed("training", "phases", [{"epochs": 0, "image_size": 32}]), "at least 1"),
    (changed("training", "batch_size", 0), "at least 1"),
])
def test_mistakes_are_told_with_the_nearest_name(content, spoil, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict("test", spoil(content))


def test_broken_toml_names_the_file(tmp_path):
    (tmp_path / "broken.toml").write_text("[about\n")

    with pytest.raises(ValueError, match="broken.toml is no valid TOML"):
        Recipe.from_file(tmp_path / "broken.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains(path, tiny_data):
    """The quick form of each recipe fits, and its loss is a number."""
    recipe = Recipe.from_file(path).quick()
    arguments = recipe.fit_arguments(tiny_data)
    model = recipe.build()
    recipe.compile(model, arguments["steps_per_epoch"])

    history = model.fit(**arguments, verbose=0).history

    assert np.isfinite(history["loss"]).all()
    assert f"val_exit{model.num_exits}_accuracy" in history
