"""Whole models from `.keras` files, with this package's classes known to Keras."""

import contextlib
import importlib
import os
import re
import zipfile

import keras

ENDING = ".keras"
_OTHER_ENDINGS = (".h5", ".hdf5")  # of Keras's files, for a message of their own
_CONFIGURATION = "config.json"  # in the archive that a .keras file is
# Where the classes of this package that a file is made of are: to import them registers them.
_OWN_MODULES = re.compile(r'"module": "(keras_adaptive\.[\w.]+)"')


def is_model_file(model):
    """Return whether what stands for a model is the path of a file, there or not.

    Args:
        model: anything. Names of the zoo's networks do not end like a file.
    """
    return isinstance(model, os.PathLike) or (
        isinstance(model, str) and model.lower().endswith((ENDING, *_OTHER_ENDINGS)))


def load_model_file(path):
    """Return the model of a `.keras` file, not compiled; code in the file is refused.

    Args:
        path: path of what `Model.save` wrote.

    Raises:
        ValueError: If there is no such file, or Keras cannot read it.
    """
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, and no .keras file. Exported stages are opened by "
                         "`EarlyExitPredictor.from_export`.")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path}. `Model.save` writes models as .keras files.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no .keras file that can be read. `Model.save` writes one; weights alone go "
            "into `Model.load_weights`."
        )
    try:
        _import_classes(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many classes, some of which say that there is no such file
        # Innermost, and without the configuration, which fills a screen.
        innermost = str(error).rsplit("Exception encountered: ", 1)[-1]
        reason = innermost.split(" Full object config:")[0].rstrip(".")
        if "safe_mode" in reason:
            raise ValueError(
                f"{path} holds code, such as a `Lambda` layer's, which is not run from files. Make "
                "it a layer of its own, with `keras.saving.register_keras_serializable`."
            ) from error
        raise ValueError(
            f"{path} is no .keras file that can be read: {reason}. `Model.save` writes one; import "
            "the module of layers of your own before it is read."
        ) from error


def _import_classes(path):
    with zipfile.ZipFile(path) as archive:
        configuration = archive.read(_CONFIGURATION).decode()
    for module in set(_OWN_MODULES.findall(configuration)):
        with contextlib.suppress(ImportError):  # of another version; Keras then names the class
            importlib.import_module(module)
