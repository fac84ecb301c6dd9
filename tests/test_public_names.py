import importlib
import pkgutil
import subprocess
import sys

import pytest

import keras_adaptive

BACKENDS = ("jax", "tensorflow", "torch")  # of which one is enough
MODULES = [module.name for module in
           pkgutil.walk_packages(keras_adaptive.__path__, "keras_adaptive.")]


@pytest.mark.parametrize("name", keras_adaptive.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(keras_adaptive, name).__doc__
    assert name in dir(keras_adaptive)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'RAnet'"):
        keras_adaptive.RAnet  # noqa: B018


def test_importing_the_package_does_not_import_keras():
    """The command line's help is there at once."""
    code = "import sys, keras_adaptive; sys.exit('keras' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    """The tests in the documentation leave out, without a word, those that cannot."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        pytest.skip(f"{error.name} is not installed")
