"""The recipes that come with the package, by name."""

import os
import pathlib

from keras_adaptive import content
from keras_adaptive.names import did_you_mean
from keras_adaptive.training import Recipe

_ENDING = ".toml"


def list_recipes():
    """Return the names of the package's recipes, sorted."""
    return sorted(path.stem for path in content.folder("recipes").glob(f"*{_ENDING}"))


def load(name):
    """Return a recipe.

    Args:
        name: string, a name that `list_recipes` gives; or the path of a `.toml` file.

    Returns:
        `keras_adaptive.training.Recipe`.

    Raises:
        ValueError: If there is no recipe of that name, or its file is not valid.

    Example:

    >>> load("ranet_cifar10").model["configuration"]
    'ranet_c1_lg_cifar10'
    """
    name = os.fspath(name)
    if name in list_recipes():
        return Recipe.from_file(content.folder("recipes") / (name + _ENDING))
    path = pathlib.Path(name)
    if path.suffix != _ENDING:
        raise ValueError(
            f"Unknown recipe {name!r}.{did_you_mean(name, list_recipes())} "
            f"The package has {list_recipes()}; a recipe of your own is given as the path of its "
            f"{_ENDING} file."
        )
    if not path.is_file():
        raise ValueError(
            f"{name} does not exist.{did_you_mean(path.stem, list_recipes())} "
            f"The package's own recipes are given by name: {list_recipes()}."
        )
    return Recipe.from_file(path)
