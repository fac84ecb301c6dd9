"""Resolution Adaptive Networks.

[Yang et al., 2020](https://arxiv.org/abs/2003.07326). The wiring is that of the authors' program,
where it and the paper differ. Beyond it: global pooling, and a free width of the exit heads.
"""

import itertools
import warnings

import keras

from keras_adaptive.layers import (
    ConvBlock,
    DenseBlock,
    ExitHead,
    FanInUniform,
    FusionBlock,
    TransitionBlock,
)
from keras_adaptive.layers.gradient import equilibrate
from keras_adaptive.models.inputs import normalize, picture_input
from keras_adaptive.models.multi_exit import ConfiguredModel, plain


def stem(pictures, filters, kind, kernel_initializer=None):
    """Return the finest feature map: the first convolution of RANet and MSDNet.

    `"cifar"` is one 3x3 convolution; `"imagenet"` a strided 7x7 with bias and a 3x3 max-pooling.
    """
    if kind == "cifar":
        return ConvBlock(filters, 3, kernel_initializer=kernel_initializer, name="stem")(pictures)
    x = ConvBlock(filters, 7, strides=2, use_bias=True, kernel_initializer=kernel_initializer,
                  name="stem")(pictures)
    # After ReLU nothing is negative, so padding with zeros never wins against a pixel.
    x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def head_width(head, head_filters):
    """Return the `filters` of an `ExitHead`: given, 128 for CIFAR, the input's for ImageNet."""
    if head_filters is not None:
        return head_filters
    return 128 if head == "cifar" else None


def check_choices(**choices):
    """Raise a `ValueError` for the first argument whose value is not among the allowed ones."""
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {list(allowed)}. Received: {name}={value!r}."
            )


def _base_features(pictures, scales, widths, kind):
    """Return one feature map per sub-network, the coarsest first."""
    # The authors' program leaves these layers at PyTorch's initial values.
    features = [stem(pictures, widths[-1], kind, FanInUniform())]
    steps = itertools.pairwise(reversed(scales))
    for (finer, coarser), width in zip(steps, reversed(widths[:-1])):
        features.append(ConvBlock(
            width, 3, strides=1 if finer == coarser else 2, kernel_initializer=FanInUniform(),
            name=f"base{len(features) + 1}")(features[-1]))
    return features[::-1]


def _blocks_with_transition(num_blocks, scale):
    return {int(i * num_blocks / scale) for i in range(1, scale)}


def _blocks_that_downsample(previous_counts, scale):
    # A scale of 1 takes the whole list, as the authors' slice from minus zero does; only networks
    # that repeat the number 1 notice.
    counts = [0, *previous_counts]
    return set(counts[-(scale - 1):] if scale > 1 else counts)


@keras.saving.register_keras_serializable(package="keras_adaptive")
class RANet(ConfiguredModel):
    """Classifier of several sub-networks, each for one resolution, the coarsest first.

    Every sub-network fuses the features of the one before it, adds blocks of its own and has an
    exit after each of those. Exit `k` is the output `exit{k}`, logits.

    Args:
        scales: sequence of ints, a number per sub-network; 1 is the lowest resolution, and one
            more halves the picture one time less.
        channels: int. Width of the base features, times the growth factor.
        growth_rate: int. Channels a layer adds, times the growth factor.
        growth_factors: sequence of ints, one per sub-network, coarsest first.
        bottleneck_factors: sequence of ints, one per sub-network. Defaults to `growth_factors`.
        blocks: int. Blocks, and exits, of the first sub-network. With 0 it is left out; the second
            one, which then has nothing to fuse, stays at its own resolution.
        block_step: int. Blocks that each further sub-network has more: its exits.
        layers_per_block: int. Layers of a block, at least 2 where sub-networks fuse.
        layer_growth: `"even"`, all blocks alike, or `"linear"`, block n has n times as many layers.
        compress_factor: float. Share of a fusion layer's new channels from the coarser features.
        reduction: float. Width factor of a transition.
        stem: `"cifar"` or `"imagenet"`.
        head: `"cifar"`, heads 128 wide, or `"imagenet"`, heads as wide as their input.
        head_filters: int or `None`. Width of the heads in place of the one `head` says.
        pooling: `"reference"` or `"global"`, see `ExitHead`. Global pooling takes any input size
            that survives the downsampling.
        num_classes: int.
        input_shape: `(height, width, channels)`, all known where sub-networks fuse.
        normalization: first node of the graph: `"cifar10"`, `"cifar100"`, `"imagenet"`, a pair
            `(mean, std)`, or `None` for input that is normalised already.
        gradient_equilibrium: bool. Whether gradients are balanced between exits, see
            `equilibrate`. No value changes, only training.
        boosted_exits: bool. Whether the logits of each exit are added to those of the exit before,
            see `ExitHead`. It changes the values, so that weights trained without it do not serve.
        class_names, input_rule, exit_macs: records, see `MultiExitModel`.
        name: string.

    Input: pictures `(batch, *input_shape)`, 0 to 255, or normalised where `normalization=None`.
    Outputs: list of `(batch, num_classes)` logits, one per exit.

    Raises:
        ValueError: If the arguments describe a network that cannot be built: numbers of factors
            and scales that differ, no exit, fusion blocks of one layer, branches without a
            channel, or maps that do not fit the reference pooling.

    Reference:
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 3.
    """

    def __init__(self, scales=(1, 2, 3), channels=16, growth_rate=6, growth_factors=(4, 2, 1),
                 bottleneck_factors=None, blocks=2, block_step=2, layers_per_block=4,
                 layer_growth="even", compress_factor=0.25, reduction=0.5, stem="cifar",
                 head="cifar", head_filters=None, pooling="reference", num_classes=10,
                 input_shape=(32, 32, 3), normalization=None, gradient_equilibrium=False,
                 boosted_exits=False, class_names=None, input_rule=None, exit_macs=None,
                 name="ranet"):
        bottleneck_factors = bottleneck_factors or growth_factors
        check_choices(layer_growth=(layer_growth, ("even", "linear")),
                      stem=(stem, ("cifar", "imagenet")), head=(head, ("cifar", "imagenet")))
        _check_counts(scales, growth_factors, bottleneck_factors, blocks, block_step,
                      layers_per_block)

        pictures = picture_input(input_shape)
        widths = [channels * factor for factor in growth_factors]
        base = _base_features(normalize(pictures, normalization), scales, widths, stem)

        num_exits = blocks + (len(scales) - 1) * block_step
        exits = []
        features = []  # what the blocks of the previous sub-network handed on
        counts = []  # numbers of blocks of the sub-networks so far
        for s, scale in enumerate(scales):
            num_blocks = blocks + s * block_step
            with_transition = _blocks_with_transition(num_blocks, scale)
            downsampling = _blocks_that_downsample(counts, scale)
            growth = growth_rate * growth_factors[s]
            x, previous, features = base[s], features, []
            for n in range(1, num_blocks + 1):
                num_layers = layers_per_block * (n if layer_growth == "linear" else 1)
                block = f"subnetwork{s + 1}_block{n}"
                if n <= len(previous):
                    x, *handed_on = FusionBlock(
                        num_layers, growth, bottleneck_factors[s],
                        growth_rate * growth_factors[s - 1], bottleneck_factors[s - 1],
                        compress_factor, downsample=n in downsampling,
                        name=block)([x, *previous[n - 1]])
                else:
                    x = DenseBlock(num_layers, growth, bottleneck_factors[s], name=block)(x)
                    handed_on = [x]
                features.append(handed_on)
                if n in with_transition:
                    x = TransitionBlock(int(reduction * x.shape[-1]),
                                        name=f"subnetwork{s + 1}_transition{n}")(x)
                if n > len(previous):
                    head_input = x
                    if gradient_equilibrium:
                        head_input, x = equilibrate(x, len(exits) + 1, num_exits)
                    if boosted_exits and exits:
                        head_input = [head_input, exits[-1]]
                    exits.append(ExitHead(num_classes, head_width(head, head_filters), pooling,
                                          name=f"exit{len(exits) + 1}")(head_input))
            counts.append(num_blocks)

        super().__init__(pictures, exits, class_names, input_rule, exit_macs, name=name)
        self.configuration = plain({
            "scales": list(scales),
            "channels": channels,
            "growth_rate": growth_rate,
            "growth_factors": list(growth_factors),
            "bottleneck_factors": list(bottleneck_factors),
            "blocks": blocks,
            "block_step": block_step,
            "layers_per_block": layers_per_block,
            "layer_growth": layer_growth,
            "compress_factor": compress_factor,
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


def _check_counts(scales, growth_factors, bottleneck_factors, blocks, block_step,
                  layers_per_block):
    if len(growth_factors) != len(scales):
        raise ValueError(
            "`growth_factors` needs one number per sub-network. "
            f"Received {len(growth_factors)} for {len(scales)} `scales`: "
            f"growth_factors={list(growth_factors)}, scales={list(scales)}."
        )
    if len(bottleneck_factors) < len(scales):
        raise ValueError(
            "`bottleneck_factors` needs one number per sub-network. "
            f"Received {len(bottleneck_factors)} for {len(scales)} `scales`."
        )
    if blocks < 0 or (blocks == 0 and (len(scales) == 1 or block_step == 0)):
        raise ValueError(
            "`blocks` must be at least 1, or 0 where further sub-networks have exits. "
            f"Received: blocks={blocks}."
        )
    if layers_per_block < (2 if len(scales) > 1 else 1):
        raise ValueError(
            "`layers_per_block` must be at least 2 where sub-networks fuse, and at least 1 for a "
            f"single one. Received: layers_per_block={layers_per_block}, scales={list(scales)}."
        )
    if block_step < 0:
        raise ValueError(f"`block_step` must not be negative. Received: block_step={block_step}.")
    if block_step == 0 and len(scales) > 1:
        warnings.warn(
            "With block_step=0 only the first sub-network has exits; the others feed no exit and "
            "are left out. Use block_step=1 or more.", stacklevel=3)
