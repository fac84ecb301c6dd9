"""The configurations of the papers, by name, and those of the networks they are measured with."""

import inspect

from keras_adaptive.models.baselines import DenseNet, ResNet
from keras_adaptive.models.msdnet import MSDNet
from keras_adaptive.models.ranet import RANet
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade
from keras_adaptive.names import did_you_mean

_CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}

# Yang et al., 2020, appendix: scales and growth factors, coarsest sub-network first. The third
# sub-network of C-2 stays at half size, that of C-3 goes to full size.
_RANET_CIFAR = {
    "c1": {"scales": (1, 2, 3), "growth_factors": (4, 2, 1)},
    "c2": {"scales": (1, 2, 2, 3), "growth_factors": (4, 2, 2, 1)},
    "c3": {"scales": (1, 2, 3, 3), "growth_factors": (4, 2, 1, 1)},
}
_RANET_GROWTH = {
    "even": {"layers_per_block": 4, "layer_growth": "even"},
    "lg": {"layers_per_block": 2, "layer_growth": "linear"},
}
# The authors' own script for ImageNet trains a network that the paper does not name.
_RANET_IMAGENET = {
    "ranet_i1_step6_imagenet": {"channels": 32, "layers_per_block": 6},
    "ranet_i2_step6_imagenet": {"channels": 64, "layers_per_block": 6},
    "ranet_i1_step8_imagenet": {"channels": 32, "layers_per_block": 8},
    "ranet_i2_step8_imagenet": {"channels": 64, "layers_per_block": 8},
    "ranet_script_imagenet": {"channels": 16, "layers_per_block": 8,
                              "growth_factors": (4, 2, 1, 1)},
}
# Huang et al., 2018, and the MSDNet baselines of Yang et al.: (first block, further blocks).
_MSDNET_IMAGENET = {
    "msdnet_step4_imagenet": (4, 4),
    "msdnet_step6_imagenet": (6, 6),
    "msdnet_step7_imagenet": (7, 7),
    "msdnet_base4_step6_imagenet": (4, 6),
    "msdnet_base4_step7_imagenet": (4, 7),
}
# The static baselines. He et al., 2016, table 6, has the depths 20, 32 and 56. Those of 8, 14, 20
# and 26 cost together what the ensemble of ResNets in the figures of Yang et al. does, which do not
# name its networks. Huang et al., 2017, table 2, has DenseNet-BC with growth rate 12 at depth 100
# only; its network of depth 40 is no BC. Ours costs about as much as the adaptive networks.
_RESNET_DEPTHS = (8, 14, 20, 26, 32, 56)
_DENSENET_BC_DEPTHS = (40, 100)


def _published():
    imagenet = {"stem": "imagenet", "head": "imagenet", "num_classes": 1000,
                "input_shape": (224, 224, 3)}
    for data, num_classes in _CIFAR_CLASSES.items():
        for size, scales in _RANET_CIFAR.items():
            for growth, layers in _RANET_GROWTH.items():
                yield f"ranet_{size}_{growth}_{data}", RANet, {
                    **scales, **layers, "channels": 16, "growth_rate": 6,
                    "num_classes": num_classes}
        for blocks in (6, 7, 8, 10, 11):
            yield f"msdnet_even_b{blocks}_base4_step2_{data}", MSDNet, {
                "blocks": blocks, "layers_in_first_block": 4, "layers_per_block": 2,
                "layer_growth": "even", "num_classes": num_classes}
        for blocks in (4, 5, 6, 7, 8):
            yield f"msdnet_lingrow_b{blocks}_{data}", MSDNet, {
                "blocks": blocks, "layers_in_first_block": 1, "layers_per_block": 1,
                "layer_growth": "linear", "num_classes": num_classes}
        for depth in _RESNET_DEPTHS:
            yield f"resnet{depth}_{data}", ResNet, {"depth": depth, "num_classes": num_classes}
        for depth in _DENSENET_BC_DEPTHS:
            yield f"densenet_bc{depth}_k12_{data}", DenseNet, {
                "depth": depth, "growth_rate": 12, "bottleneck_factor": 4, "reduction": 0.5,
                "num_classes": num_classes}
        for ratio in (2, 4):
            # Pictures of 32 pixels: with 32 filters the downscaler would cost as much as a third of
            # the student.
            yield f"thumbnet_r{ratio}_resnet20_{data}", ThumbNetCascade, {
                "teacher": f"resnet20_{data}", "ratio": ratio, "downscaler": "learned",
                "hidden_filters": 16, "num_classes": num_classes}
    for name, arguments in _RANET_IMAGENET.items():
        yield name, RANet, {"scales": (1, 2, 3, 4), "growth_factors": (4, 2, 2, 1),
                            "growth_rate": 16, **imagenet, **arguments}
    for ratio in (2, 4):
        # For 200 of the classes: the teacher is the network of the recipe `ranet_imagenet`.
        yield f"thumbnet_r{ratio}_ranet_imagenet", ThumbNetCascade, {
            "teacher": "ranet_i1_step8_imagenet",
            "teacher_arguments": {"layers_per_block": 4, "head_filters": 128, "pooling": "global"},
            "ratio": ratio, "downscaler": "learned", "num_classes": 200,
            "input_shape": (64, 64, 3)}
    for name, (first, further) in _MSDNET_IMAGENET.items():
        yield name, MSDNet, {
            "channels": 32, "growth_rate": 16, "growth_factors": (1, 2, 4, 4), "blocks": 5,
            "layers_in_first_block": first, "layers_per_block": further, "layer_growth": "even",
            **imagenet}


PUBLISHED = {name: (network, arguments) for name, network, arguments in _published()}


def build(configuration, **arguments):
    """Return a published network with fresh weights.

    Args:
        configuration: string, a name in `PUBLISHED`.
        **arguments: override the published ones, such as `input_shape` or `num_classes`.

    Raises:
        ValueError: If the name or an argument is unknown.
    """
    network, published = _look_up(configuration)
    known = list(network_defaults({"configuration": configuration}))
    for argument in arguments:
        if argument not in known:
            raise ValueError(
                f"{network.__name__} has no argument {argument!r}.{did_you_mean(argument, known)} "
                f"Known are {known}."
            )
    return network(**{"name": configuration, **published, **arguments})


def network_defaults(model):
    """Return the arguments of the network of a recipe's `[model]` table, with the values that its
    class gives them: dict by name."""
    network, _ = _look_up(model.get("configuration"))
    return {name: parameter.default
            for name, parameter in inspect.signature(network.__init__).parameters.items()
            if name != "self"}


def _look_up(configuration):
    if configuration not in PUBLISHED:
        raise ValueError(
            f"Unknown configuration {configuration!r}.{did_you_mean(configuration, PUBLISHED)} "
            f"`keras_adaptive.models.PUBLISHED` lists all {len(PUBLISHED)}."
        )
    return PUBLISHED[configuration]
