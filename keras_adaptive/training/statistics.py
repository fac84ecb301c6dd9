"""Statistics of batch normalisation for pictures that a network was not trained on."""

import keras
import numpy as np
from keras import ops

from keras_adaptive.graph import flatten
from keras_adaptive.graph.flattening import sublayers


def reestimate_statistics(model, pictures, batch_size=256):
    """Set the moving mean and variance of every batch normalisation by one pass over pictures.

    All other weights stay as they are, to the bit. A classifier that sees pictures of another kind
    than in training, such as thumbnails made in another way, often gains without learning anything.

    Each layer gets the mean and the variance of its input over the whole pass, not a moving average
    of late batches. As in training, layers see what the ones before them make with the statistics
    of the batch at hand, so that the batches should be large. Dropout and augmentation rest. Frozen
    layers are counted in.

    Args:
        model: `keras.Model`, Functional or Sequential, with one input; nested models are walked
            into. Changed in place.
        pictures: array `(n, height, width, channels)` as the model takes them, or an iterable of
            batches: arrays, or tuples that begin with one, as a data set with labels gives.
        batch_size: int. For an array, which is cut into batches of nearly one size, this at most.

    Returns:
        List of strings, the names of the layers that were set, with those of the layers around them
        in front. Empty for a model without batch normalisation.

    Raises:
        ValueError: If the model has no graph or several inputs, a layer normalises batches inside
            code that cannot be followed, or there are no pictures. Then, and after any other error,
            the statistics are the former ones.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(name="norm")])
    >>> reestimate_statistics(model, np.array([[1.0], [3.0], [8.0]]))
    ['norm']
    >>> [round(float(value[0]), 3) for value in model.layers[-1].get_weights()[2:]]
    [4.0, 8.667]
    """
    graph = flatten(model)
    if len(graph.inputs) != 1:
        raise ValueError(
            f"`model` has one input, pictures. {model.name!r} has {len(graph.inputs)}. Make a "
            "`keras.Model` of the part that has one."
        )
    norms = _find_norms(graph, model.name)
    moments = {id(layer): _Moments() for layer in norms.values()}
    before = [(variable, ops.convert_to_numpy(variable)) for layer in norms.values()
              for variable in (layer.moving_mean, layer.moving_variance)]
    try:
        count = 0
        for batch in _batches(pictures, batch_size):
            _pass(graph, batch, moments)
            count += len(batch)
        if not count:
            raise ValueError("`pictures` are none, so that there is nothing to take means of.")
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise
    for layer in norms.values():
        layer.moving_mean.assign(moments[id(layer)].mean)
        layer.moving_variance.assign(moments[id(layer)].variance)
    return list(norms)


class _Moments:
    """Mean and variance of vectors that come in groups, in float64."""

    def __init__(self):
        self.count = 0
        self.mean = self.variance = np.float64(0)

    def add(self, count, mean, variance):
        total = self.count + count
        share, difference = count / total, mean - self.mean
        self.variance = (1 - share) * self.variance + share * variance + (
            share * (1 - share) * difference**2)
        self.mean = self.mean + share * difference
        self.count = total


def _find_norms(graph, model_name):
    """Return a dict of names to the layers that normalise batches, in the order of the calls."""
    norms = {}
    for call in graph.calls:
        if isinstance(call.operation, keras.layers.BatchNormalization):
            if all(call.operation is not layer for layer in norms.values()):
                norms[call.name] = call.operation
        elif _normalises(call.operation):
            reason = f": {call.opaque}" if call.opaque else ""
            raise ValueError(
                f"{call.name!r} of {model_name!r} normalises batches where it cannot be followed"
                f"{reason}. Write it so that its `call` runs on symbolic tensors."
            )
    return norms


def _normalises(layer):
    return isinstance(layer, keras.layers.BatchNormalization) or any(
        map(_normalises, sublayers(layer)))


def _batches(pictures, batch_size):
    if not hasattr(pictures, "shape"):
        for batch in pictures:
            batch = batch[0] if isinstance(batch, (tuple, list)) else batch
            yield batch
    elif len(pictures):
        # A short rest would have poor statistics of its own.
        yield from np.array_split(np.asarray(pictures), -(-len(pictures) // batch_size))


def _pass(graph, batch, moments):
    """Run the graph on a batch, with the batch's own statistics, and add these up."""
    value = graph.inputs[0]
    values = {value: ops.convert_to_tensor(batch, dtype=graph.specs[value].dtype)}
    last_use = {value: call for call in graph.calls for value in call.inputs}
    for call in graph.calls:
        layer = call.operation
        if id(layer) in moments:
            count, mean, variance = _moments_of(values[call.inputs[0]], layer.axis)
            moments[id(layer)].add(count, mean, variance)
            # In inference with these; in training a frozen layer would not use the batch's.
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
        # Without gradients what is no longer needed can be forgotten.
        outputs = map(ops.stop_gradient, call.run(values))
        values.update(zip(call.outputs, outputs))
        for value in set(call.inputs):
            if last_use[value] is call:
                del values[value]


def _moments_of(x, axis):
    """Return how many numbers a channel has, and mean and variance of each."""
    others = [i for i in range(len(x.shape)) if i != axis % len(x.shape)]
    mean, variance = ops.moments(ops.cast(x, "float32"), axes=others)
    count = int(np.prod([x.shape[i] for i in others]))
    return count, *(ops.convert_to_numpy(part).astype("float64") for part in (mean, variance))
