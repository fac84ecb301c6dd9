"""Copies of a classifier for pictures of another size: the same layers on smaller maps."""

import dataclasses

import keras
import numpy as np

from keras_adaptive.graph import flatten
from keras_adaptive.graph.flattening import trainable_variables
from keras_adaptive.graph.logits import exits_give_logits, without_softmax

# What these do to a map of one size holds for another, so that a kernel can be folded behind them.
_PASSING = (keras.layers.Dropout, keras.layers.Identity)

# These keep their precision: they read pixels up to 255, of which bfloat16 keeps 8 bits.
_PIXEL_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)

_MIXING = ("AugMix", "CutMix", "MixUp")


def copy_for_size(model, input_shape, weights="copied", precision=None, name=None):
    """Return a copy of a classifier for pictures of another size, which gives logits.

    The copy has the model's layers, with their names, and shares no variable with it. Nested models
    are walked into. A softmax at the end is left out. Where a dense layer reads a flattened map
    that is smaller than the model's, its kernel becomes that of enlarging the map (to the nearest
    pixel where sizes divide, bilinearly otherwise) and the model's own kernel together. Layers that
    augment pictures at random become identities, as they are in inference.

    Args:
        model: `keras.Model`, Functional or Sequential, with one input and one output
            `(batch, classes)`, logits or the probabilities of a softmax.
        input_shape: `(height, width, channels)`.
        weights: `"copied"`, or `"random"` for new initial values; statistics of a layer that does
            not learn, such as `Normalization`, are copied in both cases.
        precision: string or `None`. A dtype policy for all layers but those that scale pixels and
            the one that gives the logits. `None` keeps the model's.
        name: string.

    Returns:
        Functional `keras.Model`.

    Raises:
        ValueError: If the model is not of this kind, or one of its layers cannot take maps of the
            size that it gets; the message names the layer and the sizes.
    """
    return _Copy(model, tuple(input_shape), weights, precision).build(name)


class _Copy:
    """One copy in the making."""

    def __init__(self, model, input_shape, weights, precision):
        self.model = model
        self.input_shape = input_shape
        self.weights = weights
        self.precision = precision
        self.graph = flatten(model, open_layers=False)
        self.copies = {}  # by the id of the original
        self.names = set()
        self.folds = {}  # value of a flattened map: the map's shape in the model and here

    def build(self, name):
        graph = self.graph
        end, replacement = self._find_logits()
        pictures = keras.Input(self.input_shape, name="pictures")
        tensors = {graph.inputs[0]: pictures}
        calls = dataclasses.replace(graph, outputs=(end,)).new_calls_per_output()[0]
        for call in calls:
            last = call is calls[-1]
            operation = self._copied(call.operation, replacement if last else None, last)
            inputs = [tensors[value] for value in call.inputs]
            outputs = self._call(call, operation, inputs)
            tensors.update(zip(call.outputs, outputs))
            self._note_flattening(call, inputs)
            if isinstance(operation, keras.layers.Layer):
                self._set_weights(call, operation, inputs)
        logits = tensors[end]
        if logits.dtype != "float32":
            logits = keras.layers.Activation("linear", dtype="float32", name="logits")(logits)
        return keras.Model(pictures, logits, name=name)

    def _find_logits(self):
        """Return the value to end with, and a layer that replaces the one that makes it, if any."""
        value = self.graph.outputs[0]
        if exits_give_logits(self.model)[0]:
            return value, None
        makers = {output: call for call in self.graph.calls for output in call.outputs}
        while True:
            call = makers[value]
            try:
                replacement = without_softmax(call.operation, self.model.name)
            except ValueError:
                # Behind the softmax something may stand that passes probabilities on.
                if len(call.inputs) != 1 or call.inputs[0] not in makers or (
                        getattr(call.operation, "weights", None)):
                    raise
                value = call.inputs[0]
                continue
            return (value, replacement) if replacement else (call.inputs[0], None)

    def _copied(self, operation, replacement, is_last):
        if id(operation) in self.copies:
            return self.copies[id(operation)]
        if _augments(operation):
            # Also while training: what the copy sees is compared with what its model sees.
            replacement = keras.layers.Identity(name=operation.name,
                                                dtype=operation.dtype_policy.name)
        config = (replacement or operation).get_config()
        is_layer = isinstance(operation, keras.layers.Layer)
        if "name" in config:
            config["name"] = self._free_name(config["name"])
        if is_layer and self.precision and not is_last and not isinstance(operation, _PIXEL_LAYERS):
            config["dtype"] = self.precision
        kind = type(replacement or operation)
        try:
            copied = kind.from_config(config)
        except Exception as error:  # each layer has its own
            raise ValueError(
                f"{self.model.name!r} has no copy: layer {operation.name!r} ({kind.__name__}) "
                f"cannot be made anew from its configuration ({error}). "
                + ("Put a layer in its place, such as `Rescaling`, or one of your own."
                   if kind is keras.layers.Lambda else
                   "Mend its `get_config`, or choose a model without this layer.")
            ) from error
        self.copies[id(operation)] = copied
        return copied

    def _free_name(self, name):
        # Nested models may have layers of the same names.
        free, number = name, 1
        while free in self.names:
            number += 1
            free = f"{name}_{number}"
        self.names.add(free)
        return free

    def _call(self, call, operation, inputs):
        before, after = (self.graph.specs[values[0]] for values in (call.inputs, call.outputs))
        if _augments(call.operation) and before.shape != after.shape:
            raise self._unfit(call, inputs)
        try:
            outputs = call.repeat(operation, inputs)
        except Exception as error:  # each layer and backend has its own
            raise self._unfit(call, inputs) from error
        if any(size is not None and size < 1 for tensor in outputs for size in tensor.shape):
            raise self._unfit(call, inputs)
        return outputs

    def _note_flattening(self, call, inputs):
        if isinstance(call.operation, keras.layers.Flatten):
            before, here = self.graph.specs[call.inputs[0]].shape[1:], tuple(inputs[0].shape[1:])
            if call.operation.data_format == "channels_first" and len(before) == 3:
                # The layer itself puts channels last before it flattens.
                before, here = ((*sizes, channels) for channels, *sizes in (before, here))
            if len(before) == 3 and before != here:
                self.folds[call.outputs[0]] = (before, here)
        elif isinstance(call.operation, _PASSING) and call.inputs[0] in self.folds:
            self.folds[call.outputs[0]] = self.folds[call.inputs[0]]

    def _set_weights(self, call, layer, inputs):
        if self.weights == "random" and trainable_variables(layer):
            return
        if isinstance(layer, keras.layers.Identity):
            return
        values = call.operation.get_weights()
        fold = self.folds.get(call.inputs[0]) if call.inputs else None
        if isinstance(layer, keras.layers.Dense) and fold:
            values[0] = fold_enlarging(values[0], *fold)
        if [tuple(value.shape) for value in values] != [tuple(w.shape) for w in layer.weights]:
            raise self._unfit(call, inputs)
        layer.set_weights(values)

    def _unfit(self, call, inputs):
        size = " x ".join(map(str, self.input_shape[:2]))
        before = ", ".join(str(self.graph.specs[value].shape) for value in call.inputs)
        here = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        return ValueError(
            f"{self.model.name!r} has no copy for pictures of {size}: layer {call.name!r} "
            f"({type(call.operation).__name__}) takes {before} in the model and cannot take {here}."
            " Choose a smaller ratio, larger pictures, or a model without this layer."
        )


def _augments(operation):
    kind = type(operation).__name__
    return kind.startswith("Rand") or kind in _MIXING


def fold_enlarging(kernel, before, here):
    """Return the kernel of a dense layer behind the enlarging of a flattened map.

    Args:
        kernel: array `(height * width * channels, units)`.
        before: `(height, width, channels)` that the kernel was made for.
        here: `(rows, columns, channels)` of the smaller map.

    Returns:
        Array `(rows * columns * channels, units)`: applied to a flattened map of `here`, it gives
        what `kernel` gives for the map enlarged to `before`.
    """
    down = enlarging_matrix(here[0], before[0])
    across = enlarging_matrix(here[1], before[1])
    maps = kernel.reshape(*before, -1).astype("float64")
    folded = np.einsum("Ii,Jj,IJcu->ijcu", down, across, maps, optimize=True)
    return folded.reshape(-1, kernel.shape[-1]).astype(kernel.dtype)


def enlarging_matrix(size_in, size_out):
    """Return the matrix `(size_out, size_in)` of enlarging a line, pixels' centres aligned.

    Each pixel is repeated where the sizes divide; otherwise it is linear interpolation.
    """
    if size_out % size_in == 0:
        return np.repeat(np.eye(size_in), size_out // size_in, axis=0)
    places = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(size_in)), 0)
