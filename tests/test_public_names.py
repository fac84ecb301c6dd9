import subprocess
import sys

import pytest

import keras_adaptive


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
