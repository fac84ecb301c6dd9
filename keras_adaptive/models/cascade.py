"""Two networks in a row: a cheap one answers, and a dear one where the cheap one is unsure."""

import keras

from keras_adaptive.graph import exit_macs
from keras_adaptive.graph.logits import check_one_output, logits_of
from keras_adaptive.models.multi_exit import MultiExitModel


def cascade(downscaler, student, teacher, class_names=None, input_rule=None, name="cascade"):
    """Join a network for thumbnails and one for whole pictures into one network with two exits.

    Exit 1 is the student on the downscaler's thumbnails, exit 2 the teacher on the whole pictures.
    Nothing is shared between the two, so that a picture that goes on to exit 2 has cost all three
    parts. The layers are those of the given models, not copies, but for a last dense layer with a
    softmax, of which the exit has the weights without the softmax.

    With a share `p` of pictures that leave early, the mean cost is
    `cost(downscaler) + cost(student) + (1 - p) * cost(teacher)`: less than the teacher's where `p`
    is above `(cost(downscaler) + cost(student)) / cost(teacher)`.

    Args:
        downscaler: Functional `keras.Model` from pictures, values 0 to 255, to what the student
            takes; or `None`: the student sees the whole picture. Then it is any small network, and
            the teacher any large one for the same classes.
        student: Functional or Sequential `keras.Model` with one input and one output
            `(batch, classes)`, logits or the probabilities of a softmax.
        teacher: as `student`, for the pictures.
        class_names: sequence of strings. Defaults to the teacher's, where it has some.
        input_rule: dict. How a photograph becomes an input, see `MultiExitModel`. Defaults to the
            teacher's.
        name: string.

    Returns:
        `MultiExitModel` with the exits `exit1` and `exit2`, logits. Its `exit_macs` are known where
        sizes are fixed.

    Raises:
        ValueError: If a part is no such model, or the parts do not fit each other.

    Example:

    >>> def network(size, filters):
    ...     inputs = keras.Input((size, size, 3))
    ...     x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
    ...     x = keras.layers.GlobalAveragePooling2D()(x)
    ...     return keras.Model(inputs, keras.layers.Dense(5)(x))
    >>> pictures = keras.Input((16, 16, 3))
    >>> halve = keras.Model(pictures, keras.layers.AveragePooling2D(2)(pictures))
    >>> cascade(halve, network(8, 4), network(16, 4)).exit_macs
    [6932, 34600]

    Reference:
        Cascades of classifiers by cost are old; see [Wang et al.,
        2018](https://arxiv.org/abs/1706.00885) for whole networks in a row. The use with thumbnails
        is this package's.
    """
    parts = {"student": student, "teacher": teacher}
    for argument, model in parts.items():
        _check_graph(argument, model, 2)
    if downscaler is not None:
        _check_graph("downscaler", downscaler, 4)
    _check_classes(student, teacher)
    shape = _picture_shape(student if downscaler is None else downscaler, teacher)
    pictures = keras.Input(shape, dtype=teacher.inputs[0].dtype, name="pictures")
    # Called is a model of one's own of each part: a call leaves a trace on what is called, and the
    # parts may have one name.
    thumbnails = pictures
    if downscaler is not None:
        thumbnails = keras.Model(
            downscaler.inputs[0], downscaler.outputs[0], name="downscaler")(pictures)
        _check_thumbnails(thumbnails, student)
    exits = [
        # Identities that carry the names.
        keras.layers.Activation("linear", dtype="float32", name=exit_name)(
            keras.Model(model.inputs[0], logits_of(model), name=part)(seen))
        for exit_name, (part, model), seen in zip(
            ("exit1", "exit2"), parts.items(), (thumbnails, pictures))
    ]
    model = MultiExitModel(
        pictures, exits,
        class_names if class_names is not None else getattr(teacher, "class_names", None),
        input_rule if input_rule is not None else getattr(teacher, "input_rule", None), name=name)
    if None not in shape:
        model.exit_macs = exit_macs(model)
    return model


def _check_graph(argument, model, rank):
    kind = "(batch, classes)" if rank == 2 else "(batch, height, width, channels)"
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise ValueError(
            f"`{argument}` is a Functional or Sequential `keras.Model` that is built. "
            f"Received: {type(model).__name__}."
        )
    if (len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.inputs[0].shape) != 4
            or len(model.outputs[0].shape) != rank):
        raise ValueError(
            f"`{argument}` has one input, pictures (batch, height, width, channels), and one "
            f"output {kind}. {model.name!r} has inputs of the shapes "
            f"{[tuple(tensor.shape) for tensor in model.inputs]} and outputs of the shapes "
            f"{[tuple(tensor.shape) for tensor in model.outputs]}."
        )
    check_one_output(argument, model)


def _check_classes(student, teacher):
    counts = [model.outputs[0].shape[1] for model in (student, teacher)]
    if counts[0] != counts[1]:
        raise ValueError(
            "Both networks of a cascade tell the same classes apart. "
            f"{student.name!r} has {counts[0]} classes, {teacher.name!r} has {counts[1]}."
        )


def _picture_shape(first, teacher):
    """Return the shape of a picture that both take: what one leaves open, the other may fix."""
    own, others = (tuple(model.inputs[0].shape[1:]) for model in (first, teacher))
    if any(a != b for a, b in zip(own, others) if None not in (a, b)):
        raise ValueError(
            f"Both stages of a cascade see the same picture. {first.name!r} takes {own}, "
            f"{teacher.name!r} takes {others}. A student of smaller pictures needs a `downscaler` "
            "in front."
        )
    return tuple(b if a is None else a for a, b in zip(own, others))


def _check_thumbnails(thumbnails, student):
    made, taken = tuple(thumbnails.shape[1:]), tuple(student.inputs[0].shape[1:])
    if any(a != b for a, b in zip(made, taken) if None not in (a, b)):
        raise ValueError(
            f"The downscaler makes thumbnails of the shape {made}, and {student.name!r} takes "
            f"{taken}. Give the downscaler that the student was trained with."
        )
