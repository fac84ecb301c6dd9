"""A stage as the few steps that inference takes.

In inference a batch normalisation behind a convolution is a change of its kernel and bias, a layer
of padding is an argument, a dropout is nothing. `simplify` makes these changes; the engines and the
ONNX writer read the result. No value is read here: kernels stay recipes (`Folded`) that an engine
turns into numbers when it wants to.
"""

import collections
import dataclasses

import keras

from keras_adaptive.graph.calls import Call, keras_name
from keras_adaptive.layers.gradient import GradientScale


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """A kernel and a bias, of a convolution and the batch normalisation behind it.

    Attributes:
        layer: `keras.layers.Conv2D` or `DepthwiseConv2D`.
        norm: `keras.layers.BatchNormalization` or `None`.
    """

    layer: keras.layers.Layer
    norm: keras.layers.Layer | None = None

    @property
    def variables(self):
        """List of the variables that `compute` reads."""
        layers = [self.layer] if self.norm is None else [self.layer, self.norm]
        return [variable for layer in layers for variable in layer.variables]

    def compute(self, xp, read=lambda variable: variable):
        """Return kernel `(rows, columns, input channels per group, filters)` and bias `(filters,)`.

        Args:
            xp: `keras.ops` or `numpy`: what computes.
            read: function from a variable to what `xp` takes.
        """
        layer, norm = self.layer, self.norm
        kernel = read(layer.kernel)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = xp.reshape(kernel, (*layer.kernel.shape[:2], 1, -1))
        bias = read(layer.bias) if layer.use_bias else xp.zeros(kernel.shape[-1], kernel.dtype)
        if norm is None:
            return kernel, bias
        scale = 1.0 / xp.sqrt(read(norm.moving_variance) + norm.epsilon)
        if norm.scale:
            scale = scale * read(norm.gamma)
        bias = (bias - read(norm.moving_mean)) * scale
        if norm.center:
            bias = bias + read(norm.beta)
        return kernel * scale, bias


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution of maps `(batch, rows, columns, channels)`, its bias, and an activation.

    Attributes:
        weights: `Folded`; or a pair of arrays, kernel and bias, as `Folded.compute` gives them.
        input, output: ints, the values that are read and made.
        strides, dilation: pairs of ints.
        padding: `((top, bottom), (left, right))`, zeros added around the map.
        groups: int.
        activation: one of Keras's functions that work element by element, or `None`.
        calls: tuple of `Call`, what this step stands for.
    """

    weights: object
    input: int
    output: int
    strides: tuple = (1, 1)
    padding: tuple = ((0, 0), (0, 0))
    dilation: tuple = (1, 1)
    groups: int = 1
    activation: object = None
    calls: tuple = ()


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelSlice:
    """Some consecutive channels, the last axis, of a value: `value[..., start:stop]`."""

    input: int
    output: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True, eq=False)
class Alias:
    """A value that is another under a second number: a step without work."""

    input: int
    output: int


def inputs_of(step):
    """Return the tuple of values that a step reads."""
    return step.inputs if isinstance(step, Call) else (step.input,)


def outputs_of(step):
    """Return the tuple of values that a step makes."""
    return step.outputs if isinstance(step, Call) else (step.output,)


def simplify(stage):
    """Return the steps of a stage: what its calls compute in inference, with less work.

    Layers of zero padding and batch normalisations go into the convolution beside them, an
    activation behind a convolution becomes part of it, slices of channels are recognised, and what
    does nothing in inference becomes an `Alias`. Every other call stays as it is.

    Args:
        stage: `Stage`.

    Returns:
        List of `Convolution`, `ChannelSlice`, `Alias` and `Call`, in an order in which they run.
    """
    readers = collections.Counter(value for call in stage.calls for value in call.inputs)
    readers.update((stage.exit_value, *stage.hands_on))
    only_reader = {
        call.inputs[0]: call for call in stage.calls
        if len(call.inputs) == 1 and readers[call.inputs[0]] == 1
    }
    steps, done = [], set()
    for call in stage.calls:
        if id(call) in done:
            continue
        chain = _chain(call, only_reader, stage.specs)
        if chain:
            done.update(map(id, chain))
            steps.append(_convolution(chain, stage.specs))
        else:
            steps.append(_simple(call, stage.specs))
    return steps


def _chain(call, only_reader, specs):
    """Return the calls that make one convolution, beginning with this one; empty if there is none.

    These are padding (optional), the convolution, a batch normalisation and an activation (both
    optional), each the only reader of the one before.
    """
    chain = [call]
    if _is_padding(call):
        chain.append(only_reader.get(call.outputs[0]))
    # A layer converts what it reads to its own dtype, which a step does not.
    if specs[call.inputs[0]].dtype != "float32":
        return []
    if not _is_convolution(chain[-1], specs, behind_padding=len(chain) > 1):
        return []
    if activation_of(chain[-1].operation) is None:
        after = only_reader.get(chain[-1].outputs[0])
        if _is_norm(after, specs):
            chain.append(after)
            after = only_reader.get(after.outputs[0])
        if after is not None and _is_activation(after, specs):
            chain.append(after)
    return chain


def _convolution(chain, specs):
    pads = [call.operation for call in chain if _is_padding(call)]
    first, *others = (call for call in chain if not _is_padding(call))
    layer = first.operation
    norm = next((call.operation for call in others
                 if isinstance(call.operation, keras.layers.BatchNormalization)), None)
    size, channels = specs[first.inputs[0]].shape[1:3], specs[first.inputs[0]].shape[-1]
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return Convolution(
        weights=Folded(layer, norm), input=chain[0].inputs[0], output=chain[-1].outputs[0],
        strides=tuple(layer.strides),
        padding=tuple(map(tuple, pads[0].padding)) if pads else _padding(layer, size),
        dilation=tuple(layer.dilation_rate), groups=channels if is_depthwise else layer.groups,
        activation=activation_of(chain[-1].operation), calls=tuple(chain))


def _padding(layer, size):
    """Return the zeros that a layer adds on each side, for a map of this size."""
    if layer.padding == "valid":
        return ((0, 0), (0, 0))
    padding = []
    for side, kernel, stride, dilation in zip(
            size, layer.kernel_size, layer.strides, layer.dilation_rate):
        reach = (kernel - 1) * dilation + 1
        # With a step of 1 the size does not matter, and may be unknown.
        total = reach - 1 if stride == 1 else max((-(-side // stride) - 1) * stride + reach - side,
                                                  0)
        padding.append((total // 2, total - total // 2))
    return tuple(padding)


def _simple(call, specs):
    operation = call.operation
    if _does_nothing(operation) and len(call.inputs) == 1 and (
            specs[call.inputs[0]].dtype == specs[call.outputs[0]].dtype):
        return Alias(call.inputs[0], call.outputs[0])
    if keras_name(operation) == "GetItem":
        return _channel_slice(call, specs) or call
    return call


def _channel_slice(call, specs):
    """Return the `ChannelSlice` that an indexing is, or `None` if it is anything else."""
    (_, key), _ = call.arguments
    key = key if isinstance(key, (tuple, list)) else (key,)
    rank = len(specs[call.inputs[0]].shape)
    everything = slice(None)
    channels = key[-1]
    is_last = (len(key) == 2 and key[0] is Ellipsis) or (
        len(key) == rank and all(k == everything for k in key[:-1]))
    num_channels = specs[call.inputs[0]].shape[-1]
    if not is_last or not isinstance(channels, slice) or num_channels is None:
        return None
    start, stop, step = channels.indices(num_channels)
    if step != 1 or stop <= start:
        return None
    return ChannelSlice(call.inputs[0], call.outputs[0], start, stop)


# What may become part of a convolution, by the names in `keras.activations`.
_ELEMENTWISE = ("relu", "relu6", "silu", "sigmoid", "tanh", "gelu", "elu", "selu", "softplus",
                "hard_sigmoid", "hard_silu", "leaky_relu", "softsign", "mish", "exponential")
# Functions of `keras.ops` that compute the same. `gelu` is not one: it approximates by default.
_SAME_OPERATIONS = ("relu", "relu6", "silu", "sigmoid", "tanh", "elu", "selu", "softplus",
                    "hard_sigmoid", "hard_silu", "leaky_relu", "softsign", "softmax")
_ACTIVATIONS = [
    *((getattr(keras.activations, name), name) for name in (*_ELEMENTWISE, "softmax")),
    *((getattr(keras.ops, name), name) for name in _SAME_OPERATIONS),
    (keras.ops.exp, "exponential"),
]


def activation_name(function):
    """Return the name in `keras.activations` of what a function computes.

    `None` for all but Keras's own functions: others may have the names of these.
    """
    return next((name for known, name in _ACTIVATIONS if known is function), None)


def is_elementwise(function):
    """Return whether a function is an activation of Keras that works element by element."""
    return activation_name(function) in _ELEMENTWISE


def activation_of(operation):
    """Return the function of Keras that a layer or operation ends with.

    `None` for a linear one, and for an operation without activation.
    """
    if type(operation) is keras.layers.ReLU:
        if operation.negative_slope or operation.threshold:
            return None
        return {None: keras.activations.relu, 6: keras.activations.relu6}.get(operation.max_value)
    if keras_name(operation) in ("Relu", "Relu6"):  # of `keras.ops`
        return getattr(keras.activations, keras_name(operation).lower())
    function = getattr(operation, "activation", None)
    return None if function is keras.activations.linear else function


def _is_activation(call, specs):
    operation = call.operation
    if isinstance(operation, keras.layers.Layer) and type(operation) not in (
            keras.layers.ReLU, keras.layers.Activation):
        return False
    return (is_elementwise(activation_of(operation))
            and specs[call.outputs[0]].dtype == "float32")


def _is_padding(call):
    return (call is not None and type(call.operation) is keras.layers.ZeroPadding2D
            and call.operation.data_format == "channels_last")


def _is_convolution(call, specs, behind_padding):
    if call is None or type(call.operation) not in (keras.layers.Conv2D,
                                                    keras.layers.DepthwiseConv2D):
        return False
    layer = call.operation
    size, function = specs[call.inputs[0]].shape[1:3], activation_of(layer)
    return (
        layer.data_format == "channels_last"
        and (function is None or is_elementwise(function))
        and (layer.padding == "valid" or (layer.padding == "same" and not behind_padding
                                          and (None not in size or tuple(layer.strides) == (1, 1))))
        and is_float32(layer)
        and specs[call.inputs[0]].dtype == "float32"
        and getattr(layer, "lora_enabled", False) is False
        and layer.quantization_mode is None
    )


def _is_norm(call, specs):
    if call is None or type(call.operation) is not keras.layers.BatchNormalization:
        return False
    rank = len(specs[call.inputs[0]].shape)
    return call.operation.axis in (-1, rank - 1) and is_float32(call.operation)


def is_float32(layer):
    """Return whether a layer computes in float32, so that its steps may be put together."""
    return layer.compute_dtype == "float32"


_NOTHING = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise,
            keras.layers.GaussianDropout, keras.layers.Identity, GradientScale,
            keras.layers.ActivityRegularization,
            # Augmentation. `RandomCrop` is not here: in inference it scales pictures.
            keras.layers.RandomFlip, keras.layers.RandomRotation, keras.layers.RandomTranslation,
            keras.layers.RandomZoom, keras.layers.RandomShear, keras.layers.RandomPerspective,
            keras.layers.RandomContrast, keras.layers.RandomBrightness, keras.layers.RandomHue,
            keras.layers.RandomSaturation, keras.layers.RandomSharpness,
            keras.layers.RandomColorJitter, keras.layers.RandomGrayscale,
            keras.layers.RandomGaussianBlur, keras.layers.RandomErasing, keras.layers.RandAugment,
            keras.layers.RandomColorDegeneration, keras.layers.RandomPosterization,
            keras.layers.RandomInvert, keras.layers.RandomElasticTransform, keras.layers.AugMix,
            keras.layers.MixUp, keras.layers.CutMix, keras.layers.Solarization)


def _does_nothing(operation):
    if type(operation) is keras.layers.Activation:
        return operation.activation is keras.activations.linear
    return type(operation) in _NOTHING
