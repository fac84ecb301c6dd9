"""Recipes are found by name or path."""

import pytest

from keras_adaptive import content, models, recipes


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
