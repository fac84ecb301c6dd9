"""Whether the exits of a model give logits or probabilities, and how to read before a softmax."""

import keras
import numpy as np

from keras_adaptive.graph import flatten, last_call
from keras_adaptive.models import MultiExitModel

_SOFTMAX_FUNCTIONS = (keras.activations.softmax, keras.ops.softmax)

_KNOWN_PACKAGES = {"keras", "keras_adaptive"}

# Operations that pass probabilities on as probabilities, in inference.
_TRANSPARENT = ("ActivityRegularization", "AlphaDropout", "Cast", "Copy", "Dropout", "Flatten",
                "GaussianDropout", "GaussianNoise", "GradientScale", "Identity", "Reshape",
                "SpatialDropout2D", "Squeeze")


def exits_give_logits(model, from_logits="auto"):
    """Return, for each output of a model, whether a softmax is missing behind it.

    Args:
        model: `keras.Model`, Functional or Sequential. A `MultiExitModel` always gives logits.
        from_logits: True, False, or `"auto"`: an exit gives probabilities if its last operation is
            a softmax, a sparsemax or the average of such, and logits otherwise; layers that do
            something in training only are not counted. An operation of one's own, such as a
            `Lambda`, is run on a few random numbers: it gives probabilities if all rows add up
            to 1.

    Returns:
        List of bools, one per output.

    Raises:
        ValueError: If `from_logits` is something else; if it is `"auto"` and an exit ends with a
            sigmoid, which is neither, or with an operation of one's own that cannot be run.
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
        _gives_logits(number, value, makers, graph.specs)
        for number, value in enumerate(graph.outputs, start=1)
    ]


def logits_of(model, is_trainable=True):
    """Return the symbolic logits of a classifier, where it ends in a softmax those before it.

    Args:
        model: Functional or Sequential `keras.Model` with one output `(batch, classes)`.
        is_trainable: bool. Whether the copy of a last dense layer, without its softmax, learns if
            that layer does.

    Returns:
        `keras.KerasTensor` of the model's graph.

    Raises:
        ValueError: If the model ends in a layer whose logits are not to be had.
    """
    output = model.outputs[0]
    if exits_give_logits(model)[0]:
        return output
    operation, (before, *_) = last_call(model)
    if isinstance(operation, keras.Model) and len(operation.outputs) == 1:
        # A classifier with something in front, such as what scales the pixels.
        inside = keras.Model(operation.inputs[0], logits_of(operation, is_trainable),
                             name=f"{operation.name}_logits")
        return inside(before)
    linear = without_softmax(operation, model.name)
    if linear is None:
        return before
    logits = linear(before)
    linear.set_weights(operation.get_weights())
    linear.trainable = is_trainable and operation.trainable
    return logits


def check_one_output(argument, model):
    """Raise a `ValueError` if a classifier gives its output in a dict, whose key would be lost."""
    if isinstance(getattr(model, "output", None), dict):
        raise ValueError(
            f"`{argument}` gives its output alone, not in a dict. {model.name!r} gives a dict of "
            f"{list(model.output)}. Make a model of its layers: `keras.Model(model.inputs, "
            f"model.output[{next(iter(model.output))!r}])`."
        )


def without_softmax(operation, model_name):
    """Return what gives logits in the place of an operation that ends in a softmax.

    Returns:
        A new, unbuilt `keras.layers.Dense` without the softmax, for a dense layer, because a layer
        has one activation; `None` for a softmax alone, whose input are the logits.

    Raises:
        ValueError: If the operation is something else.
    """
    # A class of one's own may compute something else before its softmax.
    is_keras = not _is_of_ones_own(operation)
    if is_keras and (type(operation).__name__ == "Softmax" or (
            isinstance(operation, keras.layers.Activation)
            and operation.activation in _SOFTMAX_FUNCTIONS)):
        return None
    if (is_keras and isinstance(operation, keras.layers.Dense)
            and operation.activation in _SOFTMAX_FUNCTIONS):
        return keras.layers.Dense.from_config({**operation.get_config(), "activation": "linear",
                                               "name": f"{operation.name}_logits"})
    raise ValueError(
        f"{model_name!r} ends with {operation.name!r}, a {type(operation).__name__} that gives "
        "probabilities, whose logits are not to be had. End it with a Softmax layer over the "
        "classes, or with `Dense(..., activation=\"softmax\")`."
    )


def _gives_logits(number, value, makers, specs):
    while value in makers:
        call = makers[value]
        if _is_of_ones_own(call.operation):
            return not _gives_probabilities(number, value, call, specs)
        if isinstance(call.operation, keras.layers.Average):
            return call.has_constants or any(
                _gives_logits(number, read, makers, specs) for read in call.inputs)
        name = _last_function(call.operation)
        if name in ("softmax", "sparsemax"):
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
    return name.lower() if name in ("Softmax", "Sparsemax", "Sigmoid") else name


def _is_of_ones_own(operation):
    """Return whether an operation, or its activation, is code that Keras does not know."""
    packages = {(getattr(code, "__module__", None) or "").split(".")[0]
                for code in (type(operation), getattr(operation, "activation", None))
                if code is not None}
    return not packages <= _KNOWN_PACKAGES or isinstance(operation, keras.layers.Lambda)


def _gives_probabilities(number, value, call, specs):
    """Return whether all rows that a call gives add up to 1, whatever the call is given."""
    rng = np.random.default_rng(0)
    given = {}
    for read in call.inputs:
        batch, *sizes = specs[read].shape
        shape = (batch or 8, *(size or 32 for size in sizes))
        given[read] = keras.ops.cast(rng.normal(size=shape).astype("float32"), specs[read].dtype)
    try:
        output = call.run(given)[call.outputs.index(value)]
        rows = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
    except Exception as error:  # whatever one's own code raises
        raise ValueError(
            f"Exit {number} ends with {call.name!r}, of which nobody can tell whether it gives "
            f"logits or probabilities: run on random numbers, it raises {type(error).__name__}. "
            "End the model with a Dense layer or a Softmax layer over the classes, or pass "
            "`from_logits` yourself."
        ) from error
    # Half precision has three digits.
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1, atol=1e-2))
