"""Which layers of a network are frozen, for files that make the network anew.

Keras keeps it of a model's own layers, and not of the layers inside those, which would learn after
loading. A network that is rebuilt from its constructor's arguments would forget it altogether.
"""

from keras_adaptive.graph.flattening import sublayers


def frozen_positions(model):
    """Return the positions of the frozen layers among all layers of a model.

    The model itself is at position 0; layers inside layers follow the one that they are in.
    """
    return [i for i, layer in enumerate(all_layers(model)) if not layer.trainable]


def freeze(model, positions):
    """Freeze the layers at these positions, and no other, as they were in the model of the list.

    Args:
        model: `keras.Model` with the same layers.
        positions: collection of ints, from `frozen_positions`; or `None`, of files that do not say
            it: the layers stay as they are.
    """
    if positions is None:
        return
    for i, layer in enumerate(all_layers(model)):
        # TensorFlow ignores a value that is there already, and would not hand it on to the inner
        # layers. These have their turn after this one.
        layer.trainable = True
        layer.trainable = i not in positions


def all_layers(layer):
    """Yield a layer or model, and all layers inside it, each after what it is in."""
    yield layer
    for part in sublayers(layer):
        yield from all_layers(part)
