"""What `keras-adaptive convert` leaves: a network's record as JSON, and the weights beside it."""

import contextlib
import json
import os

import keras

from keras_adaptive.files import read_json, write_whole
from keras_adaptive.models import MSDNet, RANet

RECORD, WEIGHTS = ".json", ".weights.h5"

_CLASSES = [keras.saving.get_registered_name(network) for network in (MSDNet, RANet)]

_CURE = "Convert the checkpoint again: `keras-adaptive convert`."

_CODE = """\
import keras
import keras_adaptive.models  # Keras then knows the network's class

with open({record!r}, encoding="utf-8") as file:
    model = keras.models.model_from_json(file.read())
model.load_weights({weights!r})"""


def write_converted(model, name):
    """Write a network as `NAME.json` and `NAME.weights.h5`; folders of the name are made.

    Args:
        model: `RANet` or `MSDNet`.
        name: path without the endings.

    Returns:
        string, the absolute path of the JSON file.
    """
    name = os.path.abspath(name)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    write_whole(name + WEIGHTS, model.save_weights)
    write_whole(name + RECORD, lambda path: path.write_text(model.to_json(), encoding="utf-8"))
    return name + RECORD


def code_to_load(record):
    """Return the lines of Python by which plain Keras reads what `write_converted` wrote."""
    return _CODE.format(record=record, weights=_weights_of(record))


def load_converted(record):
    """Read what `write_converted` wrote, as a network for pictures with values 0 to 255.

    Args:
        record: path of the JSON file.

    Raises:
        ValueError: If the file is none of these, the weights do not stand beside it, or the network
            takes normalised pictures.
    """
    content = read_json(record)
    if not isinstance(content, dict) or content.get("registered_name") not in _CLASSES:
        raise ValueError(f"{record} is no network that `keras-adaptive convert` wrote.")
    weights = _weights_of(record)
    if not os.path.isfile(weights):
        raise ValueError(f"The weights of {record} are missing: there is no file {weights}.")
    with _told(f"{record} is damaged"):
        model = keras.models.model_from_json(json.dumps(content))
        is_whole = hasattr(model, "configuration")
    if not is_whole:
        raise ValueError(f"{record} is damaged: it lacks the network's arguments. {_CURE}")
    if model.configuration["normalization"] is None:
        raise ValueError(
            f"{record} takes pictures that are normalised already, and files hold values from 0 "
            "to 255. Convert the checkpoint again with `--normalization`, and the name of its data."
        )
    with _told(f"{weights} is damaged, or of another network than {record}"):
        model.load_weights(weights)
    return model


@contextlib.contextmanager
def _told(what):
    """Say of any error, of which Keras and h5py have many, what it means and what helps."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}. {_CURE}") from error


def _weights_of(record):
    return os.fspath(record).removesuffix(RECORD) + WEIGHTS
