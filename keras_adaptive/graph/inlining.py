"""Models inside a model, opened."""

import keras

from keras_adaptive.graph.flattening import flatten


def inline(model):
    """Return a model with the layers of all nested models as its own.

    Layers are shared, not copied, and keep their names; that a nested model was called with
    `training=` is forgotten. A model without nested ones is returned itself, and so is one whose
    nested models have layers of the same names, which no single model can hold.

    Args:
        model: `keras.Model`, Functional or Sequential.

    Raises:
        ValueError: If `model` has no graph.
    """
    graph = flatten(model, open_layers=False)
    operations = {id(call.operation): call.operation for call in graph.calls}
    names = {operation.name for operation in operations.values()}
    if len(names) < len(operations) or not any(
            isinstance(layer, keras.Model) for layer in model.layers):
        return model
    tensors = dict(zip(graph.inputs, model.inputs))
    for call in graph.calls:
        outputs = call.repeat(call.operation, [tensors[value] for value in call.inputs])
        tensors.update(zip(call.outputs, outputs))
    return keras.Model(model.inputs, [tensors[value] for value in graph.outputs], name=model.name)
