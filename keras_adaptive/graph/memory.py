"""How much memory the maps of a network need, counted from shapes alone."""

import math

import keras

from keras_adaptive.graph.calls import keras_name
from keras_adaptive.graph.flattening import flatten

# Layers that write over what they read, in inference: one map is alive, not two.
_IN_PLACE_LAYERS = (
    keras.layers.Activation, keras.layers.Add, keras.layers.BatchNormalization,
    keras.layers.Dropout, keras.layers.Flatten, keras.layers.LeakyReLU, keras.layers.PReLU,
    keras.layers.ReLU, keras.layers.Rescaling, keras.layers.Reshape, keras.layers.Softmax,
)
_IN_PLACE_OPERATIONS = ("Add", "Cast", "Divide", "Identity", "Multiply", "Relu", "Relu6", "Reshape",
                        "Subtract")  # of `keras.ops`


def peak_activations(model):
    """Return the most numbers that one operation of a network reads and writes, of one picture.

    In a chain of layers that is the largest pair of adjacent maps, so that it falls with the square
    of the sides. Normalisations, activations and sums write over what they read, and padding is
    what the next operation does by itself. Maps that wait for a later operation, as shortcuts do,
    are not counted, and neither are weights.

    Args:
        model: `keras.Model`, Functional or Sequential, with a fixed input size.

    Returns:
        int. Times 4 it is bytes in float32.

    Raises:
        ValueError: If a size is not fixed.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    >>> peak_activations(keras.Model(inputs, keras.layers.ReLU()(x)))
    448
    """
    graph = flatten(model)
    unpadded, peak = {}, 0
    for call in graph.calls:
        inputs = {unpadded.get(value, value) for value in call.inputs}
        if isinstance(call.operation, keras.layers.ZeroPadding2D):
            unpadded[call.outputs[0]] = inputs.pop()
            continue
        values = inputs if _is_in_place(call.operation) else inputs.union(call.outputs)
        peak = max(peak, sum(_size(graph.specs[value], call.name) for value in values))
    return peak


def _size(spec, name):
    if None in spec.shape[1:]:
        raise ValueError(
            f"Memory needs fixed sizes; {name!r} has a map of size {tuple(spec.shape)}. Give the "
            "model's `keras.Input` a full shape, such as (32, 32, 3)."
        )
    return math.prod(spec.shape[1:])


def _is_in_place(operation):
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, _IN_PLACE_LAYERS)
    return keras_name(operation) in _IN_PLACE_OPERATIONS
