"""The networks that a ThumbNet is put together from."""

import keras

from keras_adaptive.graph import flatten, tensors_by_layer
from keras_adaptive.graph.logits import check_one_output
from keras_adaptive.graph.steps import activation_of
from keras_adaptive.layers import Downscaler, EightBits, FeatureDecoder, Thumbnail
from keras_adaptive.layers.thumbnail import METHODS, has_channels_first
from keras_adaptive.names import did_you_mean

_AREA = {"learned": None, "area_then_learned": "first", "area_plus_learned": "added"}
DOWNSCALERS = (*_AREA, *METHODS)


def hold_frozen(model):
    """Freeze what frozen layers are made of: a file does not keep it of layers inside layers."""
    for layer in model.layers:
        if not layer.trainable:
            # Keras hands a value on to the inner layers only when it changes.
            layer.trainable = True
            layer.trainable = False


def picture_shape(teacher, input_shape):
    """Return the shape of one picture, or say why the teacher is none."""
    if not isinstance(teacher, keras.Model) or not getattr(teacher, "outputs", None):
        raise ValueError(
            "`teacher` is a Functional or Sequential `keras.Model` that is built. "
            f"Received: {type(teacher).__name__}."
        )
    if len(teacher.inputs) != 1 or len(teacher.outputs) != 1 or len(
            teacher.outputs[0].shape) != 2 or len(teacher.inputs[0].shape) != 4:
        raise ValueError(
            "`teacher` has one input, pictures (batch, height, width, channels), and one output "
            f"(batch, classes). {teacher.name!r} has inputs of the shapes "
            f"{[tuple(tensor.shape) for tensor in teacher.inputs]} and outputs of the shapes "
            f"{[tuple(tensor.shape) for tensor in teacher.outputs]}."
        )
    check_one_output("teacher", teacher)
    own = tuple(teacher.inputs[0].shape)
    if has_channels_first(own):
        raise ValueError(
            f"{teacher.name!r} takes pictures with channels first, {own[1:]}; those of a ThumbNet, "
            "and its thumbnails, are (height, width, channels). Put the change in front: "
            "`pictures = keras.Input((height, width, channels))`, "
            "`keras.Model(pictures, teacher(keras.layers.Permute((3, 1, 2))(pictures)))`."
        )
    shape = tuple(input_shape or teacher.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        raise ValueError(
            f"{teacher.name!r} takes pictures of any size, and a student is made for one. "
            f"Received: {shape}. Give `input_shape=(height, width, channels)`."
        )
    return shape


def with_preprocessor(teacher):
    """Return a teacher of pictures 0 to 255: with the scaling of its preprocessor, if it has one.

    A classifier of keras-hub may have a `preprocessor` with an `image_converter`, which multiplies
    by `scale` and adds `offset` before `predict`; neither is part of the model's graph.
    """
    converter = getattr(getattr(teacher, "preprocessor", None), "image_converter", None)
    scale, offset = (getattr(converter, name, None) for name in ("scale", "offset"))
    if scale is None and offset is None:
        return teacher
    pictures = keras.Input(teacher.inputs[0].shape[1:], name="pictures")
    x = keras.layers.Rescaling(1.0 if scale is None else scale, 0.0 if offset is None else offset,
                               dtype="float32", name="preprocessor")(pictures)
    # A model of one's own of the same graph: a call leaves a trace on what is called.
    classifier = keras.Model(teacher.inputs[0], teacher.outputs[0], name=teacher.name)
    return keras.Model(pictures, classifier(x), name=teacher.name)


def make_downscaler(kind, ratio, shape, hidden_filters, mean, std, precision):
    """Return a Functional model of pictures and thumbnails 0 to 255, around a layer for 0 to 1."""
    if kind not in DOWNSCALERS:
        raise ValueError(
            f"`downscaler` is a model, or one of {list(DOWNSCALERS)}. Received: {kind!r}."
            f"{did_you_mean(str(kind), DOWNSCALERS)}"
        )
    if kind in METHODS:
        layer = Thumbnail(ratio, kind, dtype="float32", name="downscaler")
    else:
        layer = Downscaler(ratio, hidden_filters, shape[-1], mean, std,
                           area=_AREA[kind], dtype=precision,
                           name="downscaler")
    pictures = keras.Input(shape, name="pictures")
    x = keras.layers.Rescaling(1 / 255.0, dtype="float32", name="to_unit")(pictures)
    thumbnails = keras.layers.Rescaling(255.0, dtype="float32", name="to_pixels")(layer(x))
    return keras.Model(pictures, thumbnails, name="downscaler")


def quantized(downscaler, mode):
    """Return the downscaler, with its thumbnails rounded to 8 bits if `mode` is `"ste"`.

    The layers are shared, not copied. A downscaler that rounds already stays as it is.

    Raises:
        ValueError: If `mode` is neither that nor `None`.
    """
    if mode not in (None, "ste"):
        raise ValueError(
            "`quantize` is None, or 'ste' for thumbnails of 8 bits with a straight-through "
            f"gradient. Received: quantize={mode!r}."
        )
    if mode is None or isinstance(downscaler.layers[-1], EightBits):
        return downscaler
    thumbnails = EightBits(dtype="float32", name="eight_bits")(downscaler.outputs[0])
    return keras.Model(downscaler.inputs[0], thumbnails, name=downscaler.name)


def ratio_of(downscaler):
    """Return how many pixels of the picture, to a side, become one of the thumbnail."""
    before, after = downscaler.input_shape[1:3], downscaler.output_shape[1:3]
    ratio = before[0] // after[0]
    if ratio not in (1, 2, 4, 8) or tuple(size * ratio for size in after) != tuple(before):
        raise ValueError(
            "A downscaler divides both sides by 1, 2, 4 or 8. "
            f"{downscaler.name!r} makes {after} of {before}."
        )
    return ratio


def check_downscaler(downscaler, shape):
    """Raise a `ValueError` for a model that makes no thumbnails of pictures of this shape."""
    if not getattr(downscaler, "outputs", None) or len(downscaler.inputs) != 1 or (
            len(downscaler.outputs) != 1) or tuple(downscaler.inputs[0].shape[1:]) != shape or (
            len(downscaler.outputs[0].shape) != 4 or None in downscaler.outputs[0].shape[1:]):
        received = ("no graph" if not getattr(downscaler, "outputs", None) else
                    f"{[tuple(t.shape) for t in downscaler.inputs]} and "
                    f"{[tuple(t.shape) for t in downscaler.outputs]}")
        raise ValueError(
            f"`downscaler` is a Functional model from the teacher's pictures, {shape}, to "
            f"thumbnails of a fixed size. {downscaler.name!r} has inputs and outputs of the "
            f"shapes: {received}."
        )


def default_taps(student, teacher, ratio):
    """Return a list with the name of the last map that is exactly larger by the ratio."""
    own, others = _maps(student), _maps(teacher)
    learning = [i for i, layer in enumerate(student.layers) if layer.trainable_variables]
    names = [layer.name for layer in student.layers[min(learning, default=0):]]
    channels_first = _has_channels_first(student)
    fitting = [name for name in names if name in own and name in others
               and _fits(own[name], others[name], ratio, channels_first)]
    return fitting[-1:]


def _maps(model):
    """Return the tensors of the layers that give one feature map, by the layers' names."""
    return {name: outputs[0] for name, (inputs, outputs) in tensors_by_layer(model).items()
            if inputs and len(outputs) == 1 and len(outputs[0].shape) == 4}


def _has_channels_first(model):
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in model.layers)


def _fits(own, other, ratio, channels_first):
    axis = 1 if channels_first else 3
    sizes, larger = (list(tensor.shape[1:]) for tensor in (own, other))
    return sizes.pop(axis - 1) == larger.pop(axis - 1) and [
        ratio * size for size in sizes] == larger


def check_tap(name, student, teacher, ratio):
    """Return the tensors of a tap in student and teacher."""
    own, others = _maps(student), _maps(teacher)
    for model, maps in ((student, own), (teacher, others)):
        if name not in maps:
            raise ValueError(
                f"{model.name!r} has no layer {name!r} that is called once and gives a feature map."
                f"{did_you_mean(name, maps)} `taps` are names of such layers."
            )
    if not _fits(own[name], others[name], ratio, _has_channels_first(student)):
        raise ValueError(
            f"Features are compared where the teacher's map is {ratio} times the student's. At "
            f"{name!r} they are {tuple(others[name].shape)} and {tuple(own[name].shape)}. Choose "
            "an earlier layer."
        )
    return own[name], others[name]


def with_maps(model, maps):
    """Return the same network with feature maps as further outputs, channels last."""
    if _has_channels_first(model):
        maps = [keras.layers.Permute((2, 3, 1))(tensor) for tensor in maps]
    return keras.Model(model.input, [model.output, *maps], name=f"{model.name}_with_maps")


def make_decoder(name, own, other, teacher, ratio):
    """Return the built decoder of a tap, given the tensors of student and teacher."""
    graph = flatten(keras.Model(teacher.input, other))
    (maker,) = [call for call in graph.calls if graph.outputs[0] in call.outputs]
    channels = own.shape[1 if _has_channels_first(teacher) else 3]
    decoder = FeatureDecoder(
        channels, ratio, activation_of(maker.operation) is keras.activations.relu,
        dtype="float32" if own.dtype == "float32" else f"mixed_{own.dtype}",
        name=f"decoder_{name}")
    decoder.build((None, None, None, channels))
    return decoder
