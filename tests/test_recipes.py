"""Recipes are found by name or path, and what may stand in them is told."""

import dataclasses
import inspect
import pathlib

import pytest

from keras_adaptive import content, models, recipes
from keras_adaptive.training import recipe_tables
from keras_adaptive.training.losses import LastExitDistillation


def test_every_recipe_of_the_package_is_valid():
    """A name in the list can be loaded, and its network is a published one."""
    names = recipes.list_recipes()

    assert "ranet_cifar10" in names
    for name in names:
        recipe = recipes.load(name)
        assert recipe.name == name
        assert recipe.model["configuration"] in models.PUBLISHED


def test_a_recipe_of_ones_own_is_given_as_a_path(tmp_path):
    """A copy in any folder is the same recipe under the copy's name."""
    original = content.folder("recipes") / "ranet_cifar10.toml"
    copy = tmp_path / "mine.toml"
    copy.write_text(original.read_text(encoding="utf-8"), encoding="utf-8")

    recipe = recipes.load(copy)

    assert recipe.name == "mine"
    assert recipe.training == recipes.load("ranet_cifar10").training


@pytest.mark.parametrize("name, message", [
    ("ranet_cifar", "Unknown recipe 'ranet_cifar'. Did you mean 'ranet_cifar10'"),
    ("../recipes/ranet_cifar10", "Unknown recipe"),
    ("", "Unknown recipe ''"),
    ("missing/ranet_cifar1.toml", "does not exist. Did you mean 'ranet_cifar10'"),
])
def test_an_unknown_recipe_is_an_error_that_suggests_the_nearest(name, message):
    """The message says what exists."""
    with pytest.raises(ValueError, match=message):
        recipes.load(name)


DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / "docs" / "recipes.md"


def test_the_document_names_every_table_and_key():
    """A key that is added to a table cannot be forgotten in the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    words = set(text.replace("`", " ").replace(",", " ").split())

    for record in (recipe_tables.About, recipe_tables.Training, recipe_tables.Phase,
                   recipe_tables.ThumbNetTraining):
        assert {field.name for field in dataclasses.fields(record)} <= words
    assert set(inspect.signature(LastExitDistillation).parameters) <= words
    assert {"configuration", "name", "num_ops", "factor"} <= words
    assert all(f"[{table}]" in text for table in (
        "about", "model", "data", "training", "thumbnet", "expected"))


def test_the_document_s_recipe_is_one(tmp_path):
    """What stands there as the smallest recipe can be loaded."""
    text = DOCUMENT.read_text(encoding="utf-8")
    path = tmp_path / "smallest.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")

    recipe = recipes.load(path)

    assert recipe.training.epochs == 30
