"""Early exits for a classifier that has none."""

import numbers
import warnings

import keras

from keras_adaptive.graph import exit_macs, flatten, inline, layer_macs, tensors_by_layer
from keras_adaptive.graph.logits import check_one_output, logits_of
from keras_adaptive.layers import ExitHead
from keras_adaptive.models import MultiExitModel
from keras_adaptive.names import did_you_mean


def attach_exits(model, at=None, count=None, head=None, train_trunk=False, class_names=None):
    """Give a trained classifier early exits; its own output becomes the last one.

    The classifier's layers are shared, not copied, but for a last dense layer with a softmax: the
    last exit has its weights without the softmax. This exit gives the classifier's answers, to the
    last bit, until the trunk is trained. Where an exit stands inside a nested model, such as the
    backbone of a classifier, the new model has the nested one's layers as its own; see `inline`.

    Args:
        model: `keras.Model`, Functional or Sequential, with one input and one output
            `(batch, classes)`, logits or the probabilities of a softmax. The `preprocessor` of a
            keras-hub classifier is no part of its graph: what it does to pixels stays to be done,
            such as by `preprocess=` of `EarlyExitPredictor`.
        at: sequence of strings, or of layers. Names of layers, of the model or of models inside it,
            whose outputs get an exit each, feature maps `(batch, height, width, channels)`. They
            are put into the order in which they run.
        count: int. Number of early exits, in place of `at`: they are placed near even shares of the
            multiply-adds, where a single feature map passes; see `exit_places`.
        head: function `(features, num_classes, name) -> logits` of symbolic tensors, or `None` for
            an `ExitHead` with global pooling, for channels last, whose 128 filters may cost more
            than a small classifier: a warning then says so. What makes the logits carries the
            `name`.
        train_trunk: bool. Whether the classifier's layers learn, too, as far as they are trainable.
            Otherwise they are frozen, also in `model`, whose layers they are.
        class_names: sequence of strings or `None`, see `MultiExitModel`.

    Returns:
        `MultiExitModel` with the exits `exit1`, `exit2`, … (`attached_exit1`, … where the
        classifier has a layer of that name); compile and fit it as any other, for
        example with `LastExitDistillation`.

    Raises:
        ValueError: If the model is not of this kind, not one of `at` and `count` is given, a place
            is unknown or no feature map, or maps have channels first and there is no `head`.

    Example:

    >>> inputs = keras.Input((16, 16, 3))
    >>> x = keras.layers.Conv2D(8, 3, activation="relu", name="low")(inputs)
    >>> x = keras.layers.Conv2D(8, 3, activation="relu", name="high")(x)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> classifier = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    >>> attach_exits(classifier, at=["low"]).output_names
    ['exit1', 'exit2']
    """
    num_classes = _check_model(model)
    if head is None:
        _check_channels(model)
    if (at is None) == (count is None):
        raise ValueError(f"`attach_exits` takes one of `at` and `count`. Received: at={at!r}, "
                         f"count={count!r}.")
    records = {name: getattr(model, name, None) for name in ("class_names", "input_rule")}
    at = None if at is None else _names_of(at)
    if at is None or not set(at) <= {layer.name for layer in model.layers}:
        model = inline(model)
    tensors = tensors_by_layer(model)
    names = _choose_places(model, count) if at is None else _check_places(model, at, tensors)
    taken = {layer.name for layer in model.layers}
    exits = []
    for number, name in enumerate(names, start=1):
        _, (features,) = tensors[name]
        exits.append((head or _default_head)(features, num_classes, _free_name(number, taken)))
        shape = tuple(exits[-1].shape)
        if len(shape) != 2 or shape[1] != num_classes:
            raise ValueError(
                f"`head` must give logits of shape (batch, {num_classes}). Received: {shape}."
            )
    exits.append(_logits(model, _free_name(len(names) + 1, taken), train_trunk))
    attached = MultiExitModel(
        model.inputs[0], exits, records["class_names"] if class_names is None else class_names,
        records["input_rule"])
    _warn_if_dear(model, attached)
    if not train_trunk:  # last, so that an error leaves the classifier as it was
        for layer in model.layers:
            layer.trainable = False
    return attached


def exit_places(model):
    """Return where exits can be attached cheaply: the layers at which a single tensor passes.

    All later layers depend on such a layer's output alone, so that nothing else has to be carried
    from stage to stage. Of layers between which no multiply-adds lie, the last is listed.

    Args:
        model: as in `attach_exits`.

    Returns:
        Dict of the names of layers with a feature map `(batch, height, width, channels)`, also
        inside nested models, in the order in which they run, to the multiply-adds up to there, of
        one picture.
    """
    model = inline(model)
    graph = flatten(model)
    layers = tensors_by_layer(model)
    last_use = {value: i for i, call in enumerate(graph.calls) for value in call.inputs}
    last_use[graph.outputs[0]] = len(graph.calls)
    alive, total, at_cost = set(graph.inputs), 0, {}
    for i, call in enumerate(graph.calls):
        total += layer_macs(call.operation, [graph.specs[value] for value in call.inputs_in_order],
                            [graph.specs[value] for value in call.outputs])
        alive = {value for value in alive | set(call.outputs) if last_use.get(value, -1) > i}
        name = call.top_level_name
        following = graph.calls[i + 1].top_level_name if i + 1 < len(graph.calls) else None
        is_map = len(graph.specs[call.outputs[0]].shape) == 4
        if alive == set(call.outputs) and name in layers and name != following and is_map and total:
            at_cost[total] = name
    return {name: cost for cost, name in at_cost.items()}


def _names_of(at):
    """Return the names of the layers in `at`, of which one may stand alone."""
    if isinstance(at, numbers.Integral):
        raise ValueError(
            f"`at` is a list of names of layers. Received: at={at!r}. For a number of exits call "
            f"`attach_exits(model, count={at})`."
        )
    places = [at] if isinstance(at, (str, keras.layers.Layer)) else at
    try:
        names = [getattr(place, "name", place) for place in places]
    except TypeError:  # cannot be walked through
        names = [at]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`at` is a list of names of layers, or of layers. Received: at={at!r}. "
            "`exit_places(model)` lists good ones."
        )
    return names


def _warn_if_dear(model, attached):
    """Warn where the early exits cost more than the classifier, so that they can save nothing."""
    try:
        own, whole = exit_macs(model)[-1], exit_macs(attached)[-1]
    except ValueError:  # sizes that are not fixed, or layers whose cost nobody knows
        return
    if whole > 2 * own:
        warnings.warn(
            f"The heads of the early exits of {model.name!r} cost {whole - own:,} multiply-adds "
            f"together, more than the classifier itself with {own:,}: a picture that goes on to "
            f"the last exit costs {whole:,}. Attach fewer exits, or narrower heads, such as "
            "`head=lambda x, classes, name: keras.layers.Dense(classes, name=name)("
            "keras.layers.GlobalAveragePooling2D()(x))`.", stacklevel=3)


def _choose_places(model, count):
    places = exit_places(model)
    if not isinstance(count, numbers.Integral) or not 1 <= count <= len(places):
        raise ValueError(
            f"`count` is 1 to {len(places)} for {model.name!r}: it has so many layers at which a "
            f"single feature map passes. Received: {count!r}. With `at` exits can stand elsewhere."
        )
    total = exit_macs(model)[-1]
    names, costs = list(places), list(places.values())
    chosen, first = [], 0
    for number in range(1, count + 1):
        # Enough places must be left for the exits that follow.
        choices = range(first, len(names) - (count - number))
        goal = total * number / (count + 1)
        place = min(choices, key=lambda i: abs(costs[i] - goal))
        chosen.append(names[place])
        first = place + 1
    return chosen


def _check_places(model, at, tensors):
    """Return the names in the order in which their layers run."""
    order = {layer.name: i for i, layer in enumerate(model.layers)}
    names = list(at)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`at` names one layer or more, each once. Received: {names}.")
    for name in names:
        if name not in order:
            raise ValueError(
                f"{model.name!r} has no layer {name!r}.{did_you_mean(name, order)} Layers inside "
                "of other layers cannot be named; `exit_places` lists good ones."
            )
        if name not in tensors:
            raise ValueError(
                f"{model.name!r} calls {name!r} several times, so that the name does not say where "
                "the exit stands. `exit_places` lists good ones."
            )
        shapes = [tuple(tensor.shape) for tensor in tensors[name][1]]
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise ValueError(
                "Exits are attached to feature maps (batch, height, width, channels). "
                f"{name!r} gives {', '.join(map(str, shapes))}."
            )
    return sorted(names, key=order.get)


def _check_model(model):
    """Return the number of classes."""
    outputs = getattr(model, "outputs", None)
    if not isinstance(model, keras.Model) or not outputs:
        raise ValueError(
            "`model` is a Functional or Sequential `keras.Model` that is built. "
            f"Received: {type(model).__name__}."
        )
    if len(outputs) != 1 or len(model.inputs) != 1 or len(outputs[0].shape) != 2:
        raise ValueError(
            "`model` has one input and one output (batch, classes). "
            f"{model.name!r} has {len(model.inputs)} inputs and outputs of the shapes "
            f"{[tuple(output.shape) for output in outputs]}."
        )
    check_one_output("model", model)
    return outputs[0].shape[1]


def _check_channels(model):
    """Refuse maps that the default head would read in the wrong order."""
    formats = {getattr(call.operation, "data_format", None) for call in flatten(model).calls}
    if "channels_first" in {*formats, keras.config.image_data_format()}:
        raise ValueError(
            f"{model.name!r}, or Keras, is set to `channels_first`, and the heads of exits have "
            "channels last. Make the classifier with `channels_last`; the kernels of convolutions "
            "are the same in both. Or give a `head` that takes its maps, such as one that begins "
            "with `keras.layers.Permute((2, 3, 1))`."
        )


def _free_name(number, taken):
    name = f"exit{number}"
    return f"attached_{name}" if name in taken else name


def _default_head(features, num_classes, name):
    return ExitHead(num_classes, pooling="global", name=name)(features)


def _logits(model, name, train_trunk):
    """Return the classifier's logits, under the name of the last exit."""
    output = logits_of(model, train_trunk)
    # An identity that carries the name.
    return keras.layers.Activation("linear", dtype="float32", name=name)(output)
