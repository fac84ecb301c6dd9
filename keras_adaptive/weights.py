"""The zoo's weight files: one HDF5 dataset per variable, named by the variable's path.

A file is checked in this order, and each step trusts only what the steps before it have shown: its
size, its sha256, the names and kinds of everything in it, the declared shapes. Then it is read.
"""

import hashlib
import io
import math
import pathlib

import h5py
import keras
import numpy as np

from keras_adaptive.files import write_whole

DTYPES = ("float32", "float16")

_MOST_PROBLEMS_SHOWN = 12
_BYTES_BESIDE_VALUES = 4096  # of HDF5, for one variable: more than any needs
_OTHER_FORMAT = (
    "Files of `Model.save_weights`, such as the best.weights.h5 of `keras-adaptive train`, which "
    "holds the optimizer's variables, too, are another format: give them to "
    "`model.load_weights`, or turn a training run into a network of the zoo with "
    "`keras-adaptive publish`."
)


class WeightsError(ValueError):
    """Raised when a weight file is damaged, holds what it should not, or fits another network."""


def write_weights(model, path, dtype="float32"):
    """Write the weights of a model.

    Args:
        model: built `keras.Model`. Paths of its variables must differ, as they do where layers
            have names of their own.
        path: path of the file, replaced if it exists.
        dtype: `"float32"`, or `"float16"` for half the size, three to four digits and values up to
            65504.

    Raises:
        ValueError: If `dtype` is another, two variables have one path, or a value is not finite or
            too large for `dtype`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` is one of {list(DTYPES)}. Received: {dtype!r}.")
    arrays = {}
    for name, variable in _variables(model).items():
        values = keras.ops.convert_to_numpy(variable).astype("float32")
        with np.errstate(over="ignore"):  # what overflows is reported below
            arrays[name] = values.astype(dtype)
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(
            f"{len(bad)} variables of {model.name!r} hold NaN, infinity or values too large for "
            f"{dtype}: {_shorten(bad)}. Values beyond 65504 need `dtype=\"float32\"`."
        )

    def fill(partial):
        # The format of HDF5 1.8 keeps a thousand small groups in half the room of the oldest.
        with h5py.File(partial, "w", libver="v108") as file:
            for name, array in arrays.items():
                file[name] = array

    write_whole(path, fill)


def most_bytes(model):
    """Return the size that no file of a model's weights exceeds."""
    return sum(4 * math.prod(weight.shape) + _BYTES_BESIDE_VALUES
               for weight in model.weights) + _BYTES_BESIDE_VALUES


def read_weights(model, path, sha256=None, size_bytes=None, fresh=()):
    """Give a model the weights of a file, all of them or, after an error, none.

    Args:
        model: built `keras.Model`.
        path: path of a file written by `write_weights`.
        sha256: string or `None`. Expected digest of the file, 64 hexadecimal digits; `None` for a
            file that no record vouches for.
        size_bytes: int or `None`. Expected size of the file; `None` for any up to `most_bytes`.
        fresh: sequence of strings. Names of layers that keep their weights; the file has these
            layers, too, in whatever shape.

    Raises:
        WeightsError: If size or digest are others, the file is no HDF5 file, it holds links or
            data that lie elsewhere, a value is not finite, or its datasets are not exactly the
            model's variables. The last names all variables that are missing, unknown or have
            another shape.
        FileNotFoundError: If there is no such file.
    """
    path = pathlib.Path(path)
    # The bytes that were hashed are the bytes that are parsed.
    content = _read_checked(path, sha256, size_bytes, most_bytes(model))
    variables = _variables(model)
    kept = {name for name in variables if name.startswith(tuple(f"{layer}/" for layer in fresh))}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            datasets, problems = _inspect(file, variables, kept)
            arrays = {} if problems else {name: data[()] for name, data in datasets.items()
                                          if name not in kept}
    except (OSError, RuntimeError, TypeError, KeyError) as error:  # what h5py raises on nonsense
        raise WeightsError(f"{path} is no weight file: {error}.") from error
    if problems:
        raise WeightsError(
            f"{path} does not hold the weights of {model.name!r}: {_shorten(problems)}. "
            "Nothing was loaded. Build the network with the arguments that the weights were "
            f"trained with. {_OTHER_FORMAT}"
        )
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(
            f"{path} holds NaN or infinity in {len(bad)} variables: {_shorten(bad)}. Nothing was "
            "loaded. The training that made them diverged, or the file is damaged; take other "
            "weights."
        )
    for name, array in arrays.items():
        variables[name].assign(array.astype(variables[name].dtype))


def _read_checked(path, sha256, size_bytes, most):
    cure = (
        "The copy was cut short or the file was changed; delete it and fetch it again, such as "
        "with `git checkout` or by installing keras_adaptive anew."
    )
    size = path.stat().st_size
    if size_bytes is None and size > most:
        raise WeightsError(
            f"{path} has {size:,} bytes; the weights of this network take at most {most:,}. Build "
            f"the network with the arguments that the weights were trained with. {_OTHER_FORMAT}"
        )
    if size_bytes not in (None, size):
        raise WeightsError(f"{path} has {size} bytes, expected {size_bytes}. {cure}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, digest):
        raise WeightsError(f"{path} has sha256 {digest}, expected {sha256}. {cure}")
    return content


def _variables(model):
    """Return the model's variables by their paths, behind the names of the models they are in."""
    variables = {}

    def add(part, prefix):
        for layer in part.layers:
            if isinstance(layer, keras.Model):
                add(layer, f"{prefix}{layer.name}/")
            else:
                variables.update({prefix + variable.path: variable for variable in layer.weights})

    add(model, "")
    if len(variables) != len(model.weights):
        raise ValueError(
            f"Variables of {model.name!r} share a path, so a file keyed by path cannot hold them. "
            f"{len(model.weights)} variables have {len(variables)} paths; name the layers."
        )
    return variables


def _inspect(file, variables, any_shape):
    """Return the file's datasets by path, and what is wrong with them, without reading any.

    Datasets named in `any_shape` are not going to be read.
    """
    datasets, problems = {}, []
    # Only groups on the way to a variable are entered, so a group inside itself has an end.
    groups = {name[:end] for name in variables for end, c in enumerate(name) if c == "/"}

    def walk(group, prefix):
        for key in group:
            name = prefix + key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                problems.append(f"{name} is a link, and links are refused")
                continue
            kind = group.get(key, getclass=True)
            if kind is h5py.Group and name in groups:
                walk(group[key], f"{name}/")
            elif kind is h5py.Dataset and name in variables:
                datasets[name] = group[key]
            else:
                problems.append(f"{name} is unknown")

    walk(file, "")
    problems += [f"{name} is missing" for name in variables if name not in datasets]
    for name, dataset in datasets.items():
        if name not in any_shape:
            problems += _check_dataset(name, dataset, tuple(variables[name].shape))
    return datasets, problems


def _check_dataset(name, dataset, shape):
    creation = dataset.id.get_create_plist()
    if (creation.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
            or creation.get_external_count()):
        yield f"{name} is compressed, virtual or stored elsewhere, which is refused"
    elif dataset.dtype.name not in DTYPES:
        yield f"{name} has dtype {dataset.dtype}, expected one of {list(DTYPES)}"
    elif dataset.shape != shape:
        yield f"{name} has shape {dataset.shape}, expected {shape}"


def _shorten(texts):
    shown = "; ".join(texts[:_MOST_PROBLEMS_SHOWN])
    further = len(texts) - _MOST_PROBLEMS_SHOWN
    return f"{shown}; and {further} more" if further > 0 else shown
