"""The authors' checkpoints and argument dictionaries, carried over to our models."""

import collections
import io
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest

from keras_adaptive.layers import (
    ConvBlock,
    DenseBlock,
    DenseLayer,
    ExitHead,
    FusionBlock,
    MultiScaleCell,
)
from keras_adaptive.models import MSDNet, RANet


@pytest.fixture(scope="session")
def authors_case(parity):
    """A function from a case's name to a model with the authors' weights, pictures and logits."""
    def load(name, **overrides):
        config = json.loads((parity / name / "config.json").read_text())
        network, arguments = translate(config["args"])
        model = network(**{**arguments, **overrides})
        state = read_checkpoint(parity / name / "checkpoint.pth")
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        unused, idle = transfer(state, model)
        # A Functional model keeps only the layers that feed an exit.
        unknown = [key for key in unused if not key.startswith(tuple(idle))]
        assert not unknown, f"keys that no layer took: {sorted(unknown)[:5]}"
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
        network, arguments = translate(json.loads((folder / "config.json").read_text())["args"])
        state = read_checkpoint(folder / "checkpoint.pth")
        state = state.get("state_dict", state)
        model = network(**arguments, **overrides)
        # Every weight is filled with the number of its key, and tells where it went.
        numbers = {key: np.full(np.shape(value), number, "float32")
                   for number, (key, value) in enumerate(state.items())}
        transfer(numbers, model)
        keys = list(state)
        places = {keys[int(np.ravel(value)[0])]: weight.path
                  for weight, value in zip(model.weights, model.get_weights())}
        transfer(state, model)
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


def translate(args):
    """Return our class and arguments for an argument dictionary of the authors."""
    imagenet = args["data"].startswith("ImageNet")
    common = {
        "channels": args["nChannels"],
        "growth_rate": args["growthRate"],
        "growth_factors": args["grFactor"],
        "bottleneck_factors": args["bnFactor"],
        "blocks": args["nBlocks"],
        "layers_per_block": args["step"],
        "layer_growth": "even" if args["stepmode"] == "even" else "linear",
        "reduction": args["reduction"],
        "stem": "imagenet" if imagenet else "cifar",
        "head": "imagenet" if imagenet else "cifar",
        "num_classes": args["num_classes"],
        "input_shape": (args["image_size"], args["image_size"], 3),
    }
    if args["arch"] == "RANet":
        return RANet, {**common, "scales": args["scale_list"], "block_step": args["block_step"],
                       "compress_factor": args["compress_factor"]}
    return MSDNet, {**common, "layers_in_first_block": args["base"], "pruning": args["prune"],
                    "use_bottleneck": args["bottleneck"]}


def transfer(state, model):
    """Copy a state dict into a model.

    Returns the keys that nothing took, and the prefixes of layers that feed no exit.
    """
    left = dict(state)

    def take(key):
        return left.pop(key)

    def conv_norm(conv, norm, conv_key, norm_key):
        weights = [np.transpose(take(f"{conv_key}.weight"), (2, 3, 1, 0))]
        if conv.use_bias:
            weights.append(take(f"{conv_key}.bias"))
        conv.set_weights(weights)
        norm.set_weights([take(f"{norm_key}.{part}") for part in
                          ("weight", "bias", "running_mean", "running_var")])
        left.pop(f"{norm_key}.num_batches_tracked")

    def basic(block, key):
        if f"{key}.net.0.weight" in left:
            conv_norm(block.conv, block.norm, f"{key}.net.0", f"{key}.net.1")
        else:  # the ImageNet stem
            conv_norm(block.conv, block.norm, f"{key}.0", f"{key}.1")

    def bottleneck(layer, key):
        first = 0
        if layer.narrow:
            conv_norm(layer.narrow.conv, layer.narrow.norm, f"{key}.net.0", f"{key}.net.1")
            first = 3
        conv_norm(layer.conv.conv, layer.conv.norm, f"{key}.net.{first}", f"{key}.net.{first + 1}")

    def cell(layer, key):
        if isinstance(layer, DenseLayer):
            bottleneck(layer.new, f"{key}.conv_normal")
        elif isinstance(layer, MultiScaleCell):
            bottleneck(layer.down, f"{key}.conv_down")
            bottleneck(layer.own, f"{key}.conv_normal")
        else:
            bottleneck(layer.low, f"{key}.conv_up")
            bottleneck(layer.own, f"{key}.conv_normal")

    places = _msdnet_places(model) if isinstance(model, MSDNet) else _ranet_places(model)
    for layer in model.layers:
        if isinstance(layer, (DenseBlock, FusionBlock)):
            for i, part in enumerate(layer.layers):
                cell(part, f"{places[layer.name]}.layers.{i}")
            if isinstance(layer, FusionBlock):
                basic(layer.last_low, f"{places[layer.name]}.conv_last")
        elif isinstance(layer, (DenseLayer, MultiScaleCell)):
            cell(layer, places[layer.name])
        elif isinstance(layer, ConvBlock):
            basic(layer, places[layer.name])
        elif isinstance(layer, ExitHead):
            k = int(layer.name.removeprefix("exit")) - 1
            basic(layer.conv1, f"classifier.{k}.m.0")
            basic(layer.conv2, f"classifier.{k}.m.1")
            layer.classifier.set_weights([take(f"classifier.{k}.linear.weight").T,
                                          take(f"classifier.{k}.linear.bias")])
        else:
            assert not layer.weights, f"no rule for {layer.name}"
    names = {layer.name for layer in model.layers}
    return left, [f"{key}." for name, key in places.items() if name not in names]


def _first_layer_places(model, prefix):
    names = [layer.name for layer in model.layers if layer.name.startswith("base")]
    return {"stem": f"{prefix}.0", **{name: f"{prefix}.{int(name[4:]) - 1}" for name in names}}


def _ranet_places(model):
    places = _first_layer_places(model, "FirstLayer.layers")
    for s in range(len(model.configuration["scales"])):
        for b in range(model.configuration["blocks"] + s * model.configuration["block_step"]):
            places[f"subnetwork{s + 1}_block{b + 1}"] = f"scale_flows.{s}.{b}"
            places[f"subnetwork{s + 1}_transition{b + 1}"] = f"scale_flows.{s}.{b}.trans"
    return places


def _msdnet_places(model):
    """Layers, transitions and the first layer share one running number inside a block."""
    places = _first_layer_places(model, "blocks.0.0.layers")
    seen = set()
    for b, run in enumerate(model.layers_run_by_exit):
        position = 0 if b else 1
        stems = []
        for name in run:
            if name.startswith(("layer", "transition")) and name not in seen:
                seen.add(name)
                stems.append(name.split("_")[0])
        for part in dict.fromkeys(stems):
            scales = sorted(int(name.rsplit("scale", 1)[1]) for name in run
                            if name.startswith(f"{part}_scale"))
            for j, scale in enumerate(scales):
                kind = "m" if part.startswith("transition") else "layers"
                places[f"{part}_scale{scale}"] = f"blocks.{b}.{position}.{kind}.{j}"
            position += 1
    return places


@pytest.fixture
def logits_of():
    """Return a function that runs a model in inference mode and gives NumPy logits per exit."""

    def run(model, x):
        outputs = model(x, training=False)
        return [keras.ops.convert_to_numpy(y) for y in outputs]

    return run
