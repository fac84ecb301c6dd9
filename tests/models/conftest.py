"""The authors' checkpoints and argument dictionaries, carried over to our models."""

import collections
import io
import json
import pickle
import warnings
import zipfile

import keras
import numpy as np
import pytest

from keras_adaptive.checkpoints import from_state_dict, translate


def quietly(state, args):
    """Return the network without a warning of weights that no exit uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*layers that no exit uses")
        return from_state_dict(state, args, args["image_size"])


@pytest.fixture(scope="session")
def authors_case(parity):
    """A function from a case's name to a model with the authors' weights, pictures and logits."""
    def load(name):
        args = json.loads((parity / name / "config.json").read_text())["args"]
        state = read_checkpoint(parity / name / "checkpoint.pth")
        model = quietly(state.get("state_dict", state), args)
        arrays = np.load(parity / name / "io.npz")
        logits = [arrays[f"logits_{k}"] for k in range(int(arrays["num_exits"]))]
        return model, np.moveaxis(arrays["x"], 1, -1), logits

    return load


@pytest.fixture(scope="session")
def equilibrium_case(parity):
    """A function that builds the MSDNet of the authors' gradients: with their weights, and with our
    weights' paths by their keys."""
    def load(**overrides):
        folder = parity / "imta"
        args = json.loads((folder / "config.json").read_text())["args"]
        state = read_checkpoint(folder / "checkpoint.pth")
        state = state.get("state_dict", state)
        # Every weight is filled with the number of its key, and tells where it went.
        numbers = {key: np.full(np.shape(value), number, "float32")
                   for number, (key, value) in enumerate(state.items())}
        filled = quietly(numbers, args)
        keys = list(state)
        places = {keys[int(np.ravel(value)[0])]: weight.path
                  for weight, value in zip(filled.weights, filled.get_weights())}
        plain = quietly(state, args)
        values = {weight.path: weight for weight in plain.weights}
        network, arguments = translate(args, args["image_size"])
        model = network(**arguments, **overrides)
        for weight in model.weights:
            weight.assign(values[weight.path])
        return model, places

    return load


class _CheckpointReader(pickle.Unpickler):
    """Reads the zip files of `torch.save` without PyTorch, so that every backend is compared.

    Nothing but dictionaries, numbers, strings and tensors is let in.
    """

    DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

    def __init__(self, archive, root):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive = archive
        self.root = root

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.tensor
        if module == "torch" and name in self.DTYPES:
            return self.DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")

    def persistent_load(self, reference):
        _, dtype, key, _, _ = reference
        return np.frombuffer(self.archive.read(f"{self.root}/data/{key}"), dtype)

    @staticmethod
    def tensor(storage, offset, shape, strides, *_):
        # Weights share one storage: each is a view at its own offset.
        strides = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy()


def read_checkpoint(path):
    """Return what `torch.save` wrote, with NumPy arrays for tensors."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        return _CheckpointReader(archive, root).load()


@pytest.fixture
def logits_of():
    """Return a function that runs a model in inference mode and gives NumPy logits per exit."""

    def run(model, x):
        outputs = model(x, training=False)
        return [keras.ops.convert_to_numpy(y) for y in outputs]

    return run
