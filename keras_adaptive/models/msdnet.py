"""Multi-Scale Dense Networks.

[Huang et al., 2018](https://arxiv.org/abs/1703.09844). The wiring is that of the authors' PyTorch
program. Initial values are the ones that the paper's first program draws; the PyTorch program
means to draw them and, by a slip, keeps the framework's.
"""

import math

import keras

from keras_adaptive.layers import (
    ConvBlock,
    DenseLayer,
    ExitHead,
    MultiScaleCell,
    TransitionBlock,
)
from keras_adaptive.layers.gradient import equilibrate
from keras_adaptive.models.inputs import normalize, picture_input
from keras_adaptive.models.multi_exit import ConfiguredModel, plain
from keras_adaptive.models.ranet import check_choices, head_width, stem


@keras.saving.register_keras_serializable(package="keras_adaptive")
class MSDNet(ConfiguredModel):
    """Classifier that keeps feature maps of several scales and has exits on the coarsest one.

    The network is a chain of layers; each holds one cell per scale, and finer scales are dropped
    on the way. Exit `k`, the output `exit{k}`, stands after block `k`.

    Args:
        channels: int. Base width, times the growth factor of a scale.
        growth_rate: int. Channels a layer adds, times the growth factor.
        growth_factors: sequence of ints, one per scale, the finest first.
        bottleneck_factors: sequence of ints, one per scale, or `None` for `growth_factors`.
        use_bottleneck: bool. Whether 1x1 convolutions narrow before the 3x3 ones.
        blocks: int. Number of blocks and exits.
        layers_in_first_block: int.
        layers_per_block: int. Layers of each further block.
        layer_growth: `"even"`, further blocks alike, or `"linear"`: the block after the i-th one
            has `layers_per_block * i + 1` layers.
        pruning: `"max"`, drop a scale after every equal share of the layers, or `"min"`, drop them
            in the last layers.
        reduction: float. Width factor of the transitions; 0 leaves them out.
        stem, head, head_filters, pooling, num_classes, input_shape, normalization,
            gradient_equilibrium, boosted_exits: as in `RANet`. Of the features, it is the coarsest
            that are balanced.
        class_names, input_rule, exit_macs: records, see `MultiExitModel`.
        name: string.

    Input: pictures `(batch, *input_shape)`, 0 to 255, or normalised where `normalization=None`.
    Outputs: list of `(batch, num_classes)` logits, one per exit.

    Raises:
        ValueError: If the arguments describe a network that cannot be built: a scale that reads a
            finer one and has an odd growth rate, too few layers for `pruning="min"`, no layers in
            the first block, or maps that do not fit the reference pooling.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4.
    """

    def __init__(self, channels=16, growth_rate=6, growth_factors=(1, 2, 4),
                 bottleneck_factors=None, use_bottleneck=True, blocks=6, layers_in_first_block=4,
                 layers_per_block=2, layer_growth="even", pruning="max", reduction=0.5,
                 stem="cifar", head="cifar", head_filters=None, pooling="reference",
                 num_classes=10, input_shape=(32, 32, 3), normalization=None,
                 gradient_equilibrium=False, boosted_exits=False, class_names=None,
                 input_rule=None, exit_macs=None, name="msdnet"):
        bottleneck_factors = bottleneck_factors or growth_factors
        check_choices(layer_growth=(layer_growth, ("even", "linear")),
                      pruning=(pruning, ("max", "min")), stem=(stem, ("cifar", "imagenet")),
                      head=(head, ("cifar", "imagenet")))
        num_scales = len(growth_factors)
        counts = _layers_of_blocks(blocks, layers_in_first_block, layers_per_block, layer_growth)
        num_layers = sum(counts)
        _check_counts(growth_factors, bottleneck_factors, counts, pruning)
        inner = list(bottleneck_factors) if use_bottleneck else [None] * num_scales

        pictures = picture_input(input_shape)
        features = _base_features(normalize(pictures, normalization), channels, growth_factors,
                                  stem)
        width = channels  # running base width
        number = 0  # of the layer, counted from 1
        exits = []
        run_by_exit = []
        run = ["normalization", "stem", "stem_pad", "stem_pool",
               *(f"base{scale}" for scale in range(2, num_scales + 1))]
        for block, count in enumerate(counts, start=1):
            for _ in range(count):
                number += 1
                scales_in, scales_out = _scales(number, num_layers, num_scales, pruning)
                growths = [growth_rate * factor for factor in growth_factors]
                features = _layer(features[-scales_in:], scales_out, growths, inner, number)
                width += growth_rate
                scales = range(num_scales - scales_out + 1, num_scales + 1)
                run += [f"layer{number}_scale{scale}" for scale in scales]
                if _has_transition(number, num_layers, scales_in, scales_out, pruning, reduction):
                    width = int(reduction * width)
                    features = [
                        TransitionBlock(width * factor, name=f"transition{number}_scale{scale}")(x)
                        for x, factor, scale in zip(
                            features, growth_factors[-scales_out:], scales)
                    ]
                    run += [f"transition{number}_scale{scale}" for scale in scales]
            head_input = features[-1]
            if gradient_equilibrium:
                head_input, onward = equilibrate(head_input, block, blocks)
                features = [*features[:-1], onward]
            if boosted_exits and exits:
                head_input = [head_input, exits[-1]]
            exits.append(ExitHead(num_classes, head_width(head, head_filters), pooling,
                                  name=f"exit{block}")(head_input))
            run.append(f"exit{block}")
            run_by_exit.append(list(run))

        super().__init__(pictures, exits, class_names, input_rule, exit_macs, name=name)
        # The authors' program computes all scales of a block before its exit, needed or not; its
        # counts of multiply-adds include them.
        self.layers_run_by_exit = run_by_exit
        self.configuration = plain({
            "channels": channels,
            "growth_rate": growth_rate,
            "growth_factors": list(growth_factors),
            "bottleneck_factors": list(bottleneck_factors),
            "use_bottleneck": use_bottleneck,
            "blocks": blocks,
            "layers_in_first_block": layers_in_first_block,
            "layers_per_block": layers_per_block,
            "layer_growth": layer_growth,
            "pruning": pruning,
            "reduction": reduction,
            "stem": stem,
            "head": head,
            "head_filters": head_filters,
            "pooling": pooling,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "normalization": normalization,
            "gradient_equilibrium": gradient_equilibrium,
            "boosted_exits": boosted_exits,
        })


def _layers_of_blocks(blocks, first, further, growth):
    if blocks < 1 or first < 1 or further < 1:
        raise ValueError(
            "`blocks`, `layers_in_first_block` and `layers_per_block` must be at least 1. "
            f"Received: blocks={blocks}, layers_in_first_block={first}, layers_per_block={further}."
        )
    if growth == "even":
        return [first] + [further] * (blocks - 1)
    return [first] + [further * i + 1 for i in range(1, blocks)]


def _check_counts(growth_factors, bottleneck_factors, counts, pruning):
    num_scales = len(growth_factors)
    if len(bottleneck_factors) < num_scales:
        raise ValueError(
            "`bottleneck_factors` needs one number per scale. "
            f"Received {len(bottleneck_factors)} for {num_scales} `growth_factors`."
        )
    if pruning == "min" and sum(counts) < num_scales - 1:
        raise ValueError(
            f'`pruning="min"` needs at least {num_scales - 1} layers to drop {num_scales - 1} of '
            f"{num_scales} scales. Received a network of {sum(counts)}. Add layers or blocks, or "
            'use `pruning="max"`.'
        )


def _base_features(pictures, channels, growth_factors, kind):
    features = [stem(pictures, channels * growth_factors[0], kind)]
    for factor in growth_factors[1:]:
        features.append(ConvBlock(channels * factor, 3, strides=2,
                                  name=f"base{len(features) + 1}")(features[-1]))
    return features


def _scales(number, num_layers, num_scales, pruning):
    """Return how many scales a layer reads and how many it has."""
    if pruning == "max":
        interval = math.ceil(num_layers / num_scales)
        return (num_scales - max(0, number - 2) // interval,
                num_scales - (number - 1) // interval)
    return (min(num_scales, num_layers - number + 2), min(num_scales, num_layers - number + 1))


def _has_transition(number, num_layers, scales_in, scales_out, pruning, reduction):
    if reduction <= 0:
        return False
    if pruning == "max":
        return scales_in > scales_out
    return number in (num_layers // 3, 2 * num_layers // 3)


def _layer(features, scales_out, growths, inner, number):
    """Return the features of one layer: a cell per remaining scale, the finest first."""
    num_scales = len(growths)
    outputs = []
    for scale in range(num_scales - scales_out, num_scales):
        own = scale - (num_scales - len(features))  # place of the cell's own map in `features`
        name = f"layer{number}_scale{scale + 1}"
        if own == 0:
            cell = DenseLayer(growths[scale], inner[scale], name=name)
            outputs.append(cell(features[0]))
        else:
            cell = MultiScaleCell(growths[scale], inner[scale - 1], inner[scale], name=name)
            outputs.append(cell([features[own - 1], features[own]]))
    return outputs
