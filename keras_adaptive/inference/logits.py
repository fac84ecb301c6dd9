"""Whether the exits of a model give logits or probabilities."""

import keras

from keras_adaptive.graph import flatten
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
