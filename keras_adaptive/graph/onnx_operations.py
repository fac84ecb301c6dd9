"""How single Keras operations are written as ONNX nodes, one function per operation.

A function takes the writer and the call. Maps `(batch, rows, columns, channels)` of the model are
`(batch, channels, rows, columns)` in the graph; tensors of other ranks are as in the model.
"""

import math

import keras
import numpy as np

from keras_adaptive.graph.steps import activation_name, activation_of, is_elementwise
from keras_adaptive.layers.thumbnail import shrinking_matrix


class UnsupportedOperationError(ValueError):
    """Raised when a model has an operation that is not known to the ONNX writer."""


CURE = "Run it with `engine=\"keras\"`, or export it with `format=\"saved_model\"`."


OPERATIONS = {}  # by the class name of Keras's operation


def _writes(*names):
    def register(function):
        OPERATIONS.update((name, function) for name in names)
        return function
    return register


def activate(writer, function, name):
    """Write an activation function of Keras behind a tensor and return the result's name."""
    kind = activation_name(function)
    simple = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus",
              "softsign": "Softsign", "elu": "Elu", "selu": "Selu", "mish": "Mish",
              "exponential": "Exp"}
    if kind in simple:
        return writer.add(simple[kind], [name])
    if kind == "relu6":
        limits = [writer.constant(np.float32(limit)) for limit in (0, 6)]
        return writer.add("Clip", [name, *limits])
    if kind == "silu":
        return writer.add("Mul", [name, writer.add("Sigmoid", [name])])
    if kind == "hard_sigmoid":
        return writer.add("HardSigmoid", [name], alpha=1 / 6, beta=0.5)
    if kind == "hard_silu":
        return writer.add("HardSwish", [name])
    if kind == "leaky_relu":
        return writer.add("LeakyRelu", [name], alpha=0.2)
    if kind == "softmax":
        return writer.add("Softmax", [name], axis=-1)
    if kind == "gelu":
        half, one, root = (writer.constant(np.float32(v)) for v in (0.5, 1, 2**0.5))
        gate = writer.add("Add", [writer.add("Erf", [writer.add("Div", [name, root])]), one])
        return writer.add("Mul", [writer.add("Mul", [name, half]), gate])
    raise UnsupportedOperationError(
        f"Activation {_describe(function)} cannot be written as ONNX: it is none of the functions "
        f"of `keras.activations` that are known. {CURE}"
    )


def _describe(function):
    return repr(getattr(function, "__name__", type(function).__name__))


def _give(writer, call, name):
    writer.set_name(call.outputs[0], name)


def _refuse(call, what):
    raise UnsupportedOperationError(
        f"{call.name!r} ({type(call.operation).__name__}) cannot be written as ONNX {what}. {CURE}"
    )


def _need_channels_last(call):
    if getattr(call.operation, "data_format", "channels_last") != "channels_last":
        _refuse(call, "with `data_format=\"channels_first\"`")


def _numpy(variable):
    return keras.ops.convert_to_numpy(variable).astype("float32")


def _along_channels(writer, value, vector):
    """Return a constant that multiplies or shifts the channels of a value."""
    vector = np.asarray(vector, "float32").reshape(-1)
    return writer.constant(vector.reshape(-1, 1, 1) if writer.rank(value) == 4 else vector)


def _refuse_constants(call):
    if call.has_constants:
        _refuse(call, "with a constant among the tensors that it brings together")


def _per_channel(writer, call, value):
    """Return a number, or one per channel, as a vector with a number for every channel."""
    array, shape = np.asarray(value, "float32"), writer.shape(call.inputs[0])
    is_along_last_axis = array.ndim == 0 or array.shape[-1] == array.size
    if not is_along_last_axis or array.ndim > len(shape) or array.size not in (1, shape[-1]):
        _refuse(call, "with values that are neither a number nor one per channel: they have the "
                      f"shape {array.shape}, and the input is {shape}")
    return np.broadcast_to(array.reshape(-1), shape[-1])


@_writes("Dense")
def _dense(writer, call):
    layer, value = call.operation, call.inputs[0]
    if writer.rank(value) != 2:
        _refuse(call, "for inputs that are not `(batch, features)`")
    if layer.quantization_mode is not None or getattr(layer, "lora_enabled", False):
        _refuse(call, "quantized or with LoRA")
    inputs = [writer.name(value), writer.constant(_numpy(layer.kernel))]
    if layer.use_bias:
        inputs.append(writer.constant(_numpy(layer.bias)))
    name = writer.add("Gemm", inputs)
    if layer.activation is not None and layer.activation is not keras.activations.linear:
        name = activate(writer, layer.activation, name)
    _give(writer, call, name)


@_writes("Conv2D", "DepthwiseConv2D")
def _convolution(writer, call):
    # Those that can be written are steps of their own, with what stands around them.
    function = activation_of(call.operation)
    if function is not None and not is_elementwise(function):
        _refuse(call, f"with the activation {_describe(function)}")
    _refuse(call, "with channels first, a padding that depends on a size that is not fixed, "
                  "LoRA, a quantization, or an input that is not float32")


@_writes("SeparableConv2D")
def _separable(writer, call):
    layer = call.operation
    _need_channels_last(call)
    if layer.strides != (1, 1) and layer.padding == "same":
        _refuse(call, "with strides and `padding=\"same\"`")
    depthwise = _numpy(layer.depthwise_kernel)
    rows, columns, channels, multiplier = depthwise.shape
    pads = [0] * 4
    if layer.padding == "same":
        reach = [(side - 1) * rate for side, rate in zip((rows, columns), layer.dilation_rate)]
        pads = [*(r // 2 for r in reach), *(r - r // 2 for r in reach)]
    name = writer.add(
        "Conv", [writer.name(call.inputs[0]), writer.constant(depthwise.reshape(
            rows, columns, 1, channels * multiplier).transpose(3, 2, 0, 1))],
        group=channels, strides=list(layer.strides), pads=pads,
        dilations=list(layer.dilation_rate), kernel_shape=[rows, columns])
    inputs = [name, writer.constant(_numpy(layer.pointwise_kernel).transpose(3, 2, 0, 1))]
    if layer.use_bias:
        inputs.append(writer.constant(_numpy(layer.bias)))
    name = writer.add("Conv", inputs, kernel_shape=[1, 1])
    if (function := activation_of(layer)) is not None:
        if not is_elementwise(function):
            _refuse(call, f"with the activation {_describe(function)}")
        name = activate(writer, function, name)
    _give(writer, call, name)


@_writes("BatchNormalization")
def _batch_norm(writer, call):
    layer, value = call.operation, call.inputs[0]
    if layer.axis not in (-1, writer.rank(value) - 1):
        _refuse(call, f"along axis {layer.axis}")
    scale = 1 / np.sqrt(_numpy(layer.moving_variance).astype("float64") + layer.epsilon)
    if layer.scale:
        scale = scale * _numpy(layer.gamma)
    shift = -_numpy(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _numpy(layer.beta)
    name = writer.add("Mul", [writer.name(value), _along_channels(writer, value, scale)])
    _give(writer, call, writer.add("Add", [name, _along_channels(writer, value, shift)]))


@_writes("LayerNormalization")
def _layer_norm(writer, call):
    layer, value = call.operation, call.inputs[0]
    rank, name = writer.rank(value), writer.name(value)
    axes = layer.axis if isinstance(layer.axis, (tuple, list)) else [layer.axis]
    if getattr(layer, "rms_scaling", False) or [axis % rank for axis in axes] != [rank - 1]:
        _refuse(call, "scaled by mean squares, or along anything but the last axis")
    channels = writer.shape(value)[-1]
    inputs = [_numpy(layer.gamma) if layer.scale else np.ones(channels, "float32")]
    if layer.center:
        inputs.append(_numpy(layer.beta))
    if rank == 4:  # ONNX normalises the last axes, and maps have their channels before
        name = writer.add("Transpose", [name], perm=[0, 2, 3, 1])
    name = writer.add("LayerNormalization", [name, *map(writer.constant, inputs)], axis=-1,
                      epsilon=float(layer.epsilon))
    if rank == 4:
        name = writer.add("Transpose", [name], perm=[0, 3, 1, 2])
    _give(writer, call, name)


@_writes("Rescaling")
def _rescaling(writer, call):
    layer, value = call.operation, call.inputs[0]
    scale, offset = (_per_channel(writer, call, v) for v in (layer.scale, layer.offset))
    name = writer.add("Mul", [writer.name(value), _along_channels(writer, value, scale)])
    _give(writer, call, writer.add("Add", [name, _along_channels(writer, value, offset)]))


@_writes("Normalization")
def _normalization(writer, call):
    layer, value = call.operation, call.inputs[0]
    if layer.invert:
        _refuse(call, "inverted")
    mean, variance = (_per_channel(writer, call, keras.ops.convert_to_numpy(v))
                      for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    name = writer.add("Sub", [writer.name(value), _along_channels(writer, value, mean)])
    _give(writer, call, writer.add("Div", [name, _along_channels(writer, value, deviation)]))


@_writes("ReLU")
def _relu_layer(writer, call):
    layer = call.operation
    name = writer.name(call.inputs[0])
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        _refuse(call, "with a threshold, or with a slope and a largest value")
    if layer.negative_slope:
        name = writer.add("LeakyRelu", [name], alpha=float(layer.negative_slope))
    elif layer.max_value is not None:
        limits = [writer.constant(np.float32(limit)) for limit in (0, layer.max_value)]
        name = writer.add("Clip", [name, *limits])
    else:
        name = writer.add("Relu", [name])
    _give(writer, call, name)


@_writes("LeakyReLU")
def _leaky_relu(writer, call):
    _give(writer, call, writer.add("LeakyRelu", [writer.name(call.inputs[0])],
                                   alpha=float(call.operation.negative_slope)))


@_writes("ELU")
def _elu(writer, call):
    _give(writer, call, writer.add("Elu", [writer.name(call.inputs[0])],
                                   alpha=float(call.operation.alpha)))


@_writes("PReLU")
def _prelu(writer, call):
    slope = _numpy(call.operation.alpha)  # of one picture's size, or 1 along shared axes
    if slope.ndim == 3:
        slope = slope.transpose(2, 0, 1)
    _give(writer, call, writer.add("PRelu", [writer.name(call.inputs[0]), writer.constant(slope)]))


@_writes("Activation", "Relu", "Relu6")
def _activation(writer, call):
    function = activation_of(call.operation)
    if activation_name(function) == "softmax" and writer.rank(call.inputs[0]) == 4:
        _refuse(call, "for maps")
    _give(writer, call, activate(writer, function, writer.name(call.inputs[0])))


@_writes("Softmax")
def _softmax(writer, call):
    if getattr(call.operation, "axis", -1) != -1 or writer.rank(call.inputs[0]) == 4:
        _refuse(call, "for maps, or along another axis than the last")
    args, kwargs = call.arguments
    if (args[1] if len(args) > 1 else kwargs.get("mask")) is not None:
        _refuse(call, "with a mask")
    _give(writer, call, writer.add("Softmax", [writer.name(call.inputs[0])], axis=-1))


@_writes("ZeroPadding2D")
def _zero_padding(writer, call):
    _need_channels_last(call)
    (top, bottom), (left, right) = call.operation.padding
    pads = writer.constant(np.array([0, 0, top, left, 0, 0, bottom, right], "int64"))
    _give(writer, call, writer.add("Pad", [writer.name(call.inputs[0]), pads]))


@_writes("Pad")  # `keras.ops.pad`
def _pad(writer, call):
    operation, rank = call.operation, writer.rank(call.inputs[0])
    (_, *others), options = call.arguments
    constants = [value for value in (*others, *options.values()) if value is not None]
    if operation.mode != "constant" or not all(map(np.isscalar, constants)):
        _refuse(call, "with anything but one number")
    widths = operation.pad_width if len(operation.pad_width) == rank else (
        operation.pad_width * rank)
    if rank == 4:
        widths = [widths[axis] for axis in (0, 3, 1, 2)]
    pads = writer.constant(np.array(widths, "int64").T.reshape(-1))
    constants = [writer.constant(np.float32(value)) for value in constants]
    _give(writer, call, writer.add("Pad", [writer.name(call.inputs[0]), pads, *constants]))


@_writes("Mean")  # `keras.ops.mean`
def _mean(writer, call):
    operation, rank = call.operation, writer.rank(call.inputs[0])
    axes = operation.axis if isinstance(operation.axis, (tuple, list)) else [operation.axis]
    if rank != 4 or sorted(axis % rank for axis in axes if axis is not None) != [1, 2]:
        _refuse(call, "over anything but rows and columns of a map")
    axes = writer.constant(np.array([2, 3], "int64"))
    _give(writer, call, writer.add("ReduceMean", [writer.name(call.inputs[0]), axes],
                                   keepdims=int(operation.keepdims)))


@_writes("MaxPooling2D", "AveragePooling2D")
def _pooling(writer, call):
    layer = call.operation
    _need_channels_last(call)
    is_average = type(layer).__name__ == "AveragePooling2D"
    attributes = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
    if layer.padding == "same":
        totals = []
        for side, window, stride in zip(writer.shape(call.inputs[0])[1:3], layer.pool_size,
                                        layer.strides):
            if side is None:
                _refuse(call, "with `padding=\"same\"` for maps of unknown size")
            totals.append(max((-(-side // stride) - 1) * stride + window - side, 0))
        # Where the sides differ, Keras on PyTorch repeats the map's border and counts it.
        if is_average and keras.backend.backend() == "torch" and any(t % 2 for t in totals):
            _refuse(call, "with more padding on one side than on the other, on PyTorch")
        attributes["pads"] = [*(t // 2 for t in totals), *(t - t // 2 for t in totals)]
    if is_average:  # other padding counts for nothing, as in Keras
        attributes["count_include_pad"] = 0
    kind = "AveragePool" if is_average else "MaxPool"
    _give(writer, call, writer.add(kind, [writer.name(call.inputs[0])], **attributes))


@_writes("GlobalAveragePooling2D", "GlobalMaxPooling2D")
def _global_pooling(writer, call):
    layer = call.operation
    _need_channels_last(call)
    kind = "GlobalAveragePool" if "Average" in type(layer).__name__ else "GlobalMaxPool"
    name = writer.add(kind, [writer.name(call.inputs[0])])
    _give(writer, call, name if layer.keepdims else writer.add("Flatten", [name], axis=1))


@_writes("Flatten")
def _flatten(writer, call):
    _need_channels_last(call)
    value, name = call.inputs[0], writer.name(call.inputs[0])
    if writer.rank(value) == 4 and writer.shape(value)[1:3] != (1, 1):
        name = writer.add("Transpose", [name], perm=[0, 2, 3, 1])
    _give(writer, call, writer.add("Flatten", [name], axis=1))


@_writes("Reshape")
def _reshape(writer, call):
    before, after = writer.shape(call.inputs[0]), writer.shape(call.outputs[0])
    if None in after[1:] or None in before[1:]:
        _refuse(call, "to a size that is not fixed")
    if before[0] != after[0] or math.prod(before[1:]) != math.prod(after[1:]):
        _refuse(call, "that changes how many numbers a row of the batch has")
    name = writer.name(call.inputs[0])
    if len(before) == 4 and before[1:3] != (1, 1):
        name = writer.add("Transpose", [name], perm=[0, 2, 3, 1])
    if len(after) == 4 and after[1:3] == (1, 1):  # a vector as a map of one pixel
        shape = [0, after[3], 1, 1]
        return _give(writer, call, writer.add(
            "Reshape", [name, writer.constant(np.array(shape, "int64"))]))
    name = writer.add("Reshape", [name, writer.constant(np.array([0, *after[1:]], "int64"))])
    if len(after) == 4:
        name = writer.add("Transpose", [name], perm=[0, 3, 1, 2])
    _give(writer, call, name)


@_writes("Concatenate")
def _concatenate(writer, call):
    _refuse_constants(call)
    rank = writer.rank(call.inputs[0])
    axis = getattr(call.operation, "axis", -1) % rank
    if rank == 4:
        axis = (0, 2, 3, 1)[axis]
    names = [writer.name(value) for value in call.inputs]
    _give(writer, call, writer.add("Concat", names, axis=axis))


@_writes("Add", "Multiply", "Subtract", "Maximum", "Minimum", "Average", "TrueDivide", "Divide")
def _elementwise(writer, call):
    is_layer = isinstance(call.operation, keras.layers.Layer)
    if type(call.operation).__name__ == "Average" and not is_layer:  # along axes of one tensor
        _refuse(call, "as an operation, only as the layer of that name")
    kind = {"Add": "Add", "Multiply": "Mul", "Subtract": "Sub", "Maximum": "Max", "Minimum": "Min",
            "Average": "Add", "TrueDivide": "Div", "Divide": "Div"}[type(call.operation).__name__]
    if is_layer:
        _refuse_constants(call)
    if len({writer.rank(value) for value in call.inputs}) != 1:
        _refuse(call, "for tensors of different ranks")
    first, *others = _operands(writer, call)
    for other in others:
        first = writer.add(kind, [first, other])
    if type(call.operation).__name__ == "Average":
        first = writer.add("Div", [first, writer.constant(np.float32(len(call.inputs)))])
    _give(writer, call, first)


def _operands(writer, call):
    """Return the names of what an operation computes with: values, and perhaps a constant."""
    if isinstance(call.operation, keras.layers.Layer):
        return [writer.name(value) for value in call.inputs]
    args, kwargs = call.arguments
    values = iter(call.inputs)
    return [writer.name(next(values)) if isinstance(operand, keras.KerasTensor)
            else _constant_operand(writer, call, operand) for operand in (*args, *kwargs.values())]


def _constant_operand(writer, call, operand):
    array, shape = np.asarray(operand, "float32"), writer.shape(call.inputs[0])
    is_per_channel = array.size == shape[-1] and array.shape[-1:] == (array.size,)
    if array.ndim > len(shape) or not (array.size == 1 or is_per_channel):
        _refuse(call, "with a constant that is neither a number nor one per channel")
    if array.size == 1:
        return writer.constant(array.reshape(()))
    return _along_channels(writer, call.inputs[0], array)


@_writes("AlignedResize")
def _aligned_resize(writer, call):
    layer = call.operation
    before = writer.shape(call.inputs[0])[1:3]
    # ONNX Runtime takes the floor of size times scale in float32: without this little more, one
    # size in eighty comes out a pixel short.
    scales = [after / size * (1 + 1e-6) for after, size in
              zip((layer.height, layer.width), before)]
    scales = writer.constant(np.array([1, 1, *scales], "float32"))
    _give(writer, call, writer.add(
        "Resize", [writer.name(call.inputs[0]), "", scales], mode="linear",
        coordinate_transformation_mode="align_corners"))


@_writes("Thumbnail")
def _thumbnail(writer, call):
    layer = call.operation
    rows, columns = (shrinking_matrix(size, layer.ratio, layer.method)
                     for size in writer.shape(call.inputs[0])[1:3])
    name = writer.add("MatMul", [writer.constant(rows), writer.name(call.inputs[0])])
    _give(writer, call, writer.add("MatMul", [name, writer.constant(columns.T)]))


@_writes("EightBits")
def _eight_bits(writer, call):
    limits = [writer.constant(np.float32(limit)) for limit in (0, 255)]
    _give(writer, call, writer.add(
        "Round", [writer.add("Clip", [writer.name(call.inputs[0]), *limits])]))


@_writes("UpSampling2D")
def _upsampling(writer, call):
    layer = call.operation
    _need_channels_last(call)
    if layer.interpolation != "nearest":
        _refuse(call, f"with `interpolation={layer.interpolation!r}`")
    scales = writer.constant(np.array([1, 1, *layer.size], "float32"))
    _give(writer, call, writer.add(
        "Resize", [writer.name(call.inputs[0]), "", scales], mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric"))
