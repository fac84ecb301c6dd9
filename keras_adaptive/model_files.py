"""Whole models from `.keras` files, with this package's layers known to Keras."""

import importlib
import os

import keras

ENDING = ".keras"
# What registers classes with Keras where it is imported.
_REGISTERING = ("layers", "models", "models.cascade", "models.thumbnet")


def is_model_file(model):
    """Return whether what stands for a model is the path of a `.keras` file, there or not.

    Args:
        model: anything. Names of the zoo's networks do not end like a file.
    """
    return isinstance(model, os.PathLike) or isinstance(model, str) and model.endswith(ENDING)


def load_model_file(path):
    """Return the model of a `.keras` file, not compiled; code in the file is refused.

    Args:
        path: path of what `Model.save` wrote.

    Raises:
        ValueError: If there is no such file, or Keras cannot read it.
    """
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path}. `Model.save` writes models as .keras files.")
    for module in _REGISTERING:
        importlib.import_module(f"keras_adaptive.{module}")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many classes, some of which say that there is no such file
        # Innermost, and without the configuration, which fills a screen.
        innermost = str(error).rsplit("Exception encountered: ", 1)[-1]
        reason = innermost.split(" Full object config:")[0]
        raise ValueError(
            f"{path} is no .keras file that can be read: {reason}. `Model.save` writes one; import "
            "the module of layers of your own before it is read."
        ) from error
