"""Whether the exits of a model give logits or probabilities, and how to read before a softmax."""

import keras

from keras_adaptive.graph import flatten, tensors_by_layer
from keras_adaptive.models import MultiExitModel

# Operations that pass probabilities on as probabilities.
_TRANSPARENT = ("Cast", "Copy", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze")


def exits_give_logits(model, from_logits="auto"):
    """Return, for each output of a model, whether a softmax is missing behind it.

    Args:
        model: `keras.Model`, Functional or Sequential. A `MultiExitModel` always gives logits.
        from_logits: True, False, or `"auto"`: an exit gives probabilities if its last operation is
            a softmax, and logits otherwise.

    Returns:
        List of bools, one per output.

    Raises:
        ValueError: If `from_logits` is something else; if it is `"auto"` and an exit ends with a
            sigmoid, which is neither.
    """
    if from_logits != "auto" and not isinstance(from_logits, bool):
        raise ValueError(
            f'`from_logits` is True, False or "auto". Received: from_logits={from_logits!r}.'
        )
    if from_logits != "auto":
        return [from_logits] * len(model.outputs)
    if isinstance(model, MultiExitModel):
        return [True] * len(model.outputs)
    graph = flatten(model)
    makers = {value: call for call in graph.calls for value in call.outputs}
    return [
        _gives_logits(number, value, makers)
        for number, value in enumerate(graph.outputs, start=1)
    ]


def logits_of(model, is_trainable=True):
    """Return the symbolic logits of a classifier, where it ends in a softmax those before it.

    Args:
        model: Functional or Sequential `keras.Model` with one output `(batch, classes)`.
        is_trainable: bool. Whether the copy of a last dense layer, without its softmax, learns.

    Returns:
        `keras.KerasTensor` of the model's graph.

    Raises:
        ValueError: If the model ends in a layer whose logits are not to be had.
    """
    output = model.outputs[0]
    if exits_give_logits(model)[0]:
        return output
    layer = model.layers[-1]
    (before, *_), _ = tensors_by_layer(model).get(layer.name, ([None], []))
    if isinstance(layer, keras.Model) and len(layer.outputs) == 1:
        # A classifier with something in front, such as what scales the pixels.
        inside = keras.Model(layer.inputs[0], logits_of(layer, is_trainable),
                             name=f"{layer.name}_logits")
        return inside(before)
    linear = without_softmax(layer, model.name)
    if linear is None:
        return before
    logits = linear(before)
    linear.set_weights(layer.get_weights())
    linear.trainable = is_trainable
    return logits


def without_softmax(operation, model_name):
    """Return what gives logits in the place of an operation that ends in a softmax.

    Returns:
        A new, unbuilt `keras.layers.Dense` without the softmax, for a dense layer, because a layer
        has one activation; `None` for a softmax alone, whose input are the logits.

    Raises:
        ValueError: If the operation is something else.
    """
    if type(operation).__name__ == "Softmax" or (
            isinstance(operation, keras.layers.Activation)
            and operation.activation is keras.activations.softmax):
        return None
    if isinstance(operation, keras.layers.Dense) and (
            operation.activation is keras.activations.softmax):
        return keras.layers.Dense.from_config({**operation.get_config(), "activation": "linear",
                                               "name": f"{operation.name}_logits"})
    raise ValueError(
        f"{model_name!r} ends with {operation.name!r}, a {type(operation).__name__}, whose logits "
        "are not to be had. End it with a Dense layer or a Softmax layer over the classes."
    )


def _gives_logits(number, value, makers):
    while value in makers:
        call = makers[value]
        name = _last_function(call.operation)
        if name == "softmax":
            return False
        if name == "sigmoid":
            raise ValueError(
                f"Exit {number} ends with a sigmoid ({call.name!r}), whose values do not add up to "
                "1, so the largest is no confidence. Replace it by a softmax over the classes, or "
                "pass `from_logits` yourself."
            )
        if name not in _TRANSPARENT or len(call.inputs) != 1:
            return True
        value = call.inputs[0]
    return True


def _last_function(operation):
    """Return what an operation does last: its activation's name, or that of its class."""
    activation = getattr(operation, "activation", None)
    if activation is not None:
        name = getattr(activation, "__name__", type(activation).__name__).lower()
        is_identity = name == "linear" and type(operation) is keras.layers.Activation
        return "Identity" if is_identity else name
    name = type(operation).__name__
    return name.lower() if name in ("Softmax", "Sigmoid") else name
