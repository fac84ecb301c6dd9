"""Checkpoints of the authors' PyTorch programs, as networks of this package.

Beyond PyTorch, which reads the file, nothing of it is needed: `from_state_dict` takes arrays.
`translate`, which stands here for users, reads the authors' arguments.
"""

import dataclasses
import warnings

import keras
import numpy as np

from keras_adaptive.authors_arguments import translate
from keras_adaptive.layers import (
    ConvBlock,
    DenseBlock,
    DenseLayer,
    ExitHead,
    FusionBlock,
    MultiScaleCell,
)
from keras_adaptive.models import MSDNet
from keras_adaptive.torch_files import read_state, to_array


class CheckpointError(ValueError):
    """Raised when a checkpoint does not hold the weights of the network that `args` describe."""


def from_torch(path, args, image_shape=None, normalization=None):
    """Read a checkpoint of the authors' programs for RANet or MSDNet.

    The file is read with `weights_only=True`: nothing in it is executed.

    Args:
        path: path of a `.pth` or `.pth.tar` file: a state dict, or what the authors' training
            writes, with the state dict under `state_dict`; keys may begin with `module.`.
        args: dict, or the `argparse.Namespace` with it. The authors' arguments: `arch` (`"RANet"`
            or `"msdnet"`), `data`, `nBlocks`, `nChannels`, `growthRate`, `grFactor`, `bnFactor`,
            `step`, `stepmode`, `reduction`; for RANet `block_step`, `scale_list`,
            `compress_factor`; for MSDNet `base`, `prune`, `bottleneck`. Factors are lists of ints,
            or text such as `"4-2-1"`. Others are ignored.
        image_shape: `(height, width)`, or an int for both. Defaults to 32 for CIFAR, 224 for
            ImageNet.
        normalization: as in `RANet`. `None` for pictures that are normalised already, as the
            authors' programs take them; the data set's name for pictures from 0 to 255.

    Returns:
        `RANet` or `MSDNet` with the checkpoint's weights: the same logits, to rounding. Its
        `input_rule` is that of the authors' tests: for ImageNet the shorter side becomes 256 where
        224 pixels are cut out.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If `args` are incomplete or hold what is no value of theirs, or the file is no
            checkpoint. `CheckpointError` lists all weights that are missing, unknown, of another
            shape or not finite.

    Reference:
        The programs of [Yang et al., 2020](https://arxiv.org/abs/2003.07326) and
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844).
    """
    return from_state_dict(read_state(path), args, image_shape, normalization)


def from_state_dict(state, args, image_shape=None, normalization=None):
    """Build a network with the weights of a state dict.

    Args:
        state: dict of names to arrays, or tensors of PyTorch, in PyTorch's layouts. Names may begin
            with `module.`.
        args, image_shape, normalization: as in `from_torch`.

    Returns, raises:
        As `from_torch`.

    Warns:
        If the state dict holds weights of layers that no exit uses; they are left out.
    """
    network, arguments = translate(args, image_shape)
    model = network(**arguments, normalization=normalization)
    state = _arrays(state)
    places = {place.name: place for place in _places(model)}
    idle = _idle_prefixes(model)
    missing = sorted(set(places) - set(state))
    unknown = sorted(name for name in set(state) - set(places) if not name.startswith(idle))
    misshapen = [
        f"{name} has the shape {state[name].shape}, not {place.torch_shape}"
        for name, place in places.items()
        if name in state and state[name].shape != place.torch_shape
    ]
    if missing or unknown or misshapen:
        raise CheckpointError(_complaint(model, missing, unknown, misshapen))
    damaged = [name for name in places if not np.isfinite(state[name]).all()]
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} weights hold NaN or infinity, as after a training that diverged: "
            f"{'; '.join(damaged)}. Take an earlier checkpoint."
        )
    unused = sorted(name for name in set(state) - set(places))
    if unused:
        warnings.warn(
            f"{len(unused)} weights belong to layers that no exit uses, and are left out: "
            f"{', '.join(unused)}.", stacklevel=2)
    for name, place in places.items():
        place.variable.assign(state[name].transpose(place.axes))
    return model


def _arrays(state):
    """Return the weights as arrays, by their names without the prefix."""
    arrays = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"A state dict has names, such as 'classifier.0.linear.weight'. Received the key "
                f"{key!r}, of type {type(key).__name__}."
            )
        name = key.removeprefix("module.")
        if name.endswith("num_batches_tracked"):
            continue
        if name in arrays:
            raise CheckpointError(
                f"The checkpoint holds {name!r} with and without the prefix 'module.': two "
                "networks, perhaps. Leave one of them out."
            )
        array = to_array(key, value) if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise CheckpointError(f"Weights are real numbers. {key!r} has dtype {array.dtype}.")
        arrays[name] = array
    return arrays


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a weight of the authors' state dict goes: our variable, and the order of its axes."""

    name: str
    variable: keras.Variable
    axes: tuple  # ours from theirs

    @property
    def torch_shape(self):
        shape = [0] * len(self.axes)
        for size, axis in zip(self.variable.shape, self.axes):
            shape[axis] = size
        return tuple(shape)


def _places(model):
    """Yield a `_Place` for every weight of a model."""
    prefixes = _prefixes(model)
    for layer in model.layers:
        prefix = prefixes.get(layer.name)
        if isinstance(layer, (DenseBlock, FusionBlock)):
            for i, part in enumerate(layer.layers):
                yield from _cell(part, f"{prefix}.layers.{i}")
            if isinstance(layer, FusionBlock):
                yield from _basic(layer.last_low, f"{prefix}.conv_last.net")
        elif isinstance(layer, (DenseLayer, MultiScaleCell)):
            yield from _cell(layer, prefix)
        elif isinstance(layer, ConvBlock):
            is_imagenet_stem = layer.name == "stem" and layer.use_bias
            yield from _basic(layer, prefix if is_imagenet_stem else f"{prefix}.net")
        elif isinstance(layer, ExitHead):
            number = int(layer.name.removeprefix("exit")) - 1
            yield from _basic(layer.conv1, f"classifier.{number}.m.0.net")
            yield from _basic(layer.conv2, f"classifier.{number}.m.1.net")
            yield _Place(f"classifier.{number}.linear.weight", layer.classifier.kernel, (1, 0))
            yield _Place(f"classifier.{number}.linear.bias", layer.classifier.bias, (0,))


def _cell(layer, prefix):
    if isinstance(layer, DenseLayer):
        yield from _bottleneck(layer.new, f"{prefix}.conv_normal.net")
    elif isinstance(layer, MultiScaleCell):
        yield from _bottleneck(layer.down, f"{prefix}.conv_down.net")
        yield from _bottleneck(layer.own, f"{prefix}.conv_normal.net")
    else:  # of a fusion block
        yield from _bottleneck(layer.low, f"{prefix}.conv_up.net")
        yield from _bottleneck(layer.own, f"{prefix}.conv_normal.net")


def _bottleneck(layer, prefix):
    if layer.narrow:
        yield from _basic(layer.narrow, prefix)
    yield from _basic(layer.conv, prefix, first=3 if layer.narrow else 0)


def _basic(block, prefix, first=0):
    """Yield the places of a convolution, number `first` of its sequence, and its batch norm."""
    yield _Place(f"{prefix}.{first}.weight", block.conv.kernel, (2, 3, 1, 0))
    if block.conv.use_bias:
        yield _Place(f"{prefix}.{first}.bias", block.conv.bias, (0,))
    norm, names = block.norm, ("weight", "bias", "running_mean", "running_var")
    for name, variable in zip(names, (norm.gamma, norm.beta, norm.moving_mean,
                                      norm.moving_variance)):
        yield _Place(f"{prefix}.{first + 1}.{name}", variable, (0,))


def _prefixes(model):
    """Return the authors' prefix for each of our layers by name, also for those no exit uses."""
    if isinstance(model, MSDNet):
        return _msdnet_prefixes(model)
    prefixes = _first_layer_prefixes(model, "FirstLayer.layers")
    settings = model.configuration
    for s in range(len(settings["scales"])):
        for b in range(settings["blocks"] + s * settings["block_step"]):
            prefixes[f"subnetwork{s + 1}_block{b + 1}"] = f"scale_flows.{s}.{b}"
            prefixes[f"subnetwork{s + 1}_transition{b + 1}"] = f"scale_flows.{s}.{b}.trans"
    return prefixes


def _first_layer_prefixes(model, prefix):
    count = len(model.configuration["growth_factors"])  # of resolutions, also those no exit uses
    return {"stem": f"{prefix}.0", **{f"base{i + 1}": f"{prefix}.{i}" for i in range(1, count)}}


def _msdnet_prefixes(model):
    """As `_prefixes`; layers, transitions and the first layer share one count inside a block."""
    prefixes = _first_layer_prefixes(model, "blocks.0.0.layers")
    seen = set()
    for b, run in enumerate(model.layers_run_by_exit):
        position = 0 if b else 1
        new = [name for name in run
               if name.startswith(("layer", "transition")) and name not in seen]
        seen.update(new)
        for part in dict.fromkeys(name.split("_")[0] for name in new):
            scales = sorted(int(name.rsplit("scale", 1)[1]) for name in run
                            if name.startswith(f"{part}_scale"))
            kind = "m" if part.startswith("transition") else "layers"
            for j, scale in enumerate(scales):
                prefixes[f"{part}_scale{scale}"] = f"blocks.{b}.{position}.{kind}.{j}"
            position += 1
    return prefixes


def _idle_prefixes(model):
    """Return the authors' prefixes of layers that feed no exit, which a Functional model lacks."""
    names = {layer.name for layer in model.layers}
    return tuple(f"{prefix}." for name, prefix in _prefixes(model).items() if name not in names)


def _complaint(model, missing, unknown, misshapen):
    parts = [f"The checkpoint does not fit {model.name!r}, which `args` describe:"]
    for heading, names in (("missing", missing), ("unknown", unknown),
                           ("of another shape", misshapen)):
        if names:
            parts.append(f"{len(names)} {heading}: " + "; ".join(names))
    return "\n  ".join(parts) + "\nCompare `args` with the command that trained it."
