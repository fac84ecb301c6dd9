"""The authors' argument dictionaries, as classes and arguments of this package."""

import collections.abc
import numbers
import operator

from keras_adaptive.models import MSDNet, RANet
from keras_adaptive.names import did_you_mean

# Side of the pictures and number of classes, by what the name of the data begins with. The
# programs ask for the longer names first, and take `cifar100-noisy`, say, for CIFAR-100.
_CIFAR_CLASSES = {"cifar100": 100, "cifar10": 10}
_CIFAR_SIDE = 32
_IMAGENET, _IMAGENET_SIDE, _IMAGENET_CLASSES = "ImageNet", 224, 1000

_COMMON = ("arch", "data", "nBlocks", "nChannels", "growthRate", "grFactor", "bnFactor", "step",
           "stepmode", "reduction")
_OF_ARCH = {"RANet": ("block_step", "scale_list", "compress_factor"),
            "msdnet": ("base", "prune", "bottleneck")}

# How the programs bring a test picture of ImageNet to 224 pixels: the shorter side becomes 256.
_IMAGENET_RULE = {"interpolation": "bilinear", "crop": 224 / 256}


def translate(args, image_shape=None):
    """Return the class and the arguments for an argument dictionary of the authors.

    Args:
        args, image_shape: as in `checkpoints.from_torch`.

    Returns:
        Tuple of `RANet` or `MSDNet`, and a dict of its arguments, the input rule among them.

    Raises:
        ValueError: If an argument is missing or has a value that the authors' programs refuse.
    """
    args = _as_dict(args)
    arch = args.get("arch")
    if arch not in _OF_ARCH:
        raise ValueError(f"`args['arch']` is one of {list(_OF_ARCH)}. Received: {arch!r}."
                         f"{did_you_mean(str(arch), _OF_ARCH)}")
    missing = [name for name in (*_COMMON, *_OF_ARCH[arch]) if name not in args]
    if missing:
        raise ValueError(f"`args` lacks {missing}; they are those of the training command.")
    family, side, num_classes = _data(args["data"])
    height, width = _sides(side if image_shape is None else image_shape)
    arguments = {
        "channels": _count(args, "nChannels"),
        "growth_rate": _count(args, "growthRate"),
        "growth_factors": _factors(args, "grFactor"),
        "bottleneck_factors": _factors(args, "bnFactor"),
        "blocks": _count(args, "nBlocks", least=0),
        "layers_per_block": _count(args, "step"),
        # The programs take every other word for growing linearly.
        "layer_growth": "even" if args["stepmode"] == "even" else "linear",
        "reduction": _number(args, "reduction"),
        "stem": family,
        "head": family,
        "num_classes": _count({"num_classes": num_classes, **args}, "num_classes", least=2),
        "input_shape": (height, width, 3),
        "input_rule": {"resize": "shorter_side_then_centre_crop", "size": [height, width],
                       **(_IMAGENET_RULE if family == "imagenet" else {})},
    }
    if arch == "RANet":
        return RANet, {**arguments, "scales": _factors(args, "scale_list"),
                       "block_step": _count(args, "block_step", least=0),
                       "compress_factor": _number(args, "compress_factor")}
    # Text is true, as in the programs' parser, also "False".
    return MSDNet, {**arguments, "layers_in_first_block": _count(args, "base"),
                    "pruning": args["prune"], "use_bottleneck": bool(args["bottleneck"])}


def _as_dict(args):
    if isinstance(args, collections.abc.Mapping):
        return dict(args)
    if hasattr(args, "__dict__"):  # what `argparse` gives
        return vars(args)
    raise ValueError(
        "`args` is the dict of the authors' arguments, or the `argparse.Namespace` with them. "
        f"Received: {type(args).__name__}."
    )


def _data(data):
    """Return the family, the side of the pictures and the number of classes."""
    if data == _IMAGENET:
        return "imagenet", _IMAGENET_SIDE, _IMAGENET_CLASSES
    for name, num_classes in _CIFAR_CLASSES.items():
        if isinstance(data, str) and data.startswith(name):
            return "cifar", _CIFAR_SIDE, num_classes
    raise ValueError(
        f"`args['data']` is {_IMAGENET!r}, or begins with one of {sorted(_CIFAR_CLASSES)}. "
        f"Received: {data!r}."
    )


def _sides(image_shape):
    sides = image_shape if isinstance(image_shape, (list, tuple)) else [image_shape] * 2
    if len(sides) != 2 or not all(_is_whole(side) and side >= 1 for side in sides):
        raise ValueError(
            "`image_shape` is (height, width) in pixels, or one number for both, without the "
            f"channels. Received: {image_shape!r}."
        )
    return [operator.index(side) for side in sides]


def _is_whole(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _count(args, name, least=1):
    value = args[name]
    if not _is_whole(value) or value < least:
        raise ValueError(f"`args[{name!r}]` is a whole number of {least} or more. "
                         f"Received: {value!r}.")
    return operator.index(value)


def _number(args, name):
    value = args[name]
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"`args[{name!r}]` is a number. Received: {value!r}.")
    return float(value)


def _factors(args, name):
    """Return a list of ints, which may be given as text."""
    given = args[name]
    if isinstance(given, str):
        values = [int(part) if part.isdecimal() else part for part in given.split("-")]
    else:
        values = list(given) if isinstance(given, (list, tuple)) else []
    if not values or not all(_is_whole(value) and value >= 1 for value in values):
        raise ValueError(
            f"`args[{name!r}]` is a list of whole numbers of 1 or more, or text such as '4-2-1'. "
            f"Received: {given!r}."
        )
    return [operator.index(value) for value in values]
