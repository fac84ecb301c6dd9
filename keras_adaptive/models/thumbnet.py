"""ThumbNet: a student that classifies thumbnails, made by a downscaler that learns with it.

[Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034), after the abstract and the description of
its parts. The paper's formulas, weights and schedules were not at hand: those here are ours.
"""

import keras
from keras import ops

from keras_adaptive.graph import flatten, tensors_by_layer
from keras_adaptive.graph.steps import activation_of
from keras_adaptive.layers import Downscaler, FeatureDecoder, Thumbnail
from keras_adaptive.layers.thumbnail import METHODS
from keras_adaptive.models.resized import copy_for_size
from keras_adaptive.names import did_you_mean
from keras_adaptive.training.thumbnet_losses import (
    feature_mapping,
    moment_matching,
    softened_cross_entropy,
    softened_entropy,
)

DOWNSCALERS = ("learned", "area_then_learned", *METHODS)

_TERMS = ("classification", "distillation", "feature", "moment")


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ThumbNet(keras.Model):
    """A classifier of thumbnails that learns from labels and from a classifier of full pictures.

    Make it with `ThumbNet.from_teacher`. It takes pictures with labels, as the teacher does; `fit`
    trains downscaler and student together, `predict` gives the student's logits, and `evaluate` its
    loss and accuracy. While training, the logs name the parts of the loss: `classification_loss`,
    `distillation_loss` (as a Kullback-Leibler divergence, whose floor is 0), `feature_loss` and
    `moment_loss`, before their weights. `evaluate` does not run the teacher; there the loss is the
    classification's alone.

    The teacher learns nothing: its weights and statistics stay as they are.

    Args:
        downscaler: Functional `keras.Model` from pictures, 0 to 255, to thumbnails in that scale.
        student: Functional `keras.Model` from thumbnails to logits.
        teacher: Functional `keras.Model` from pictures to logits. Frozen here.
        taps: sequence of names of layers that student and teacher have. The student's map there
            learns to be the teacher's.
        classification_weight, distillation_weight, feature_weight, moment_weight: floats of 0 or
            more. A part of weight 0 is not computed; without distillation and features the teacher
            never runs. Moments count only where the downscaler learns.
        temperature: float above 0, see `softened_cross_entropy`.
        normalize_features: bool, see `feature_mapping`.
        moment_second: `"std"` or `"variance"`, see `moment_matching`.
        moment_reference: `"image"`, or `"area"` to compare with thumbnails made by averaging.
        name: string.

    Attributes:
        downscaler, student, teacher: as given.

    Input: pictures `(batch, height, width, channels)`, 0 to 255.
    Output: `(batch, classes)` logits; in training a dict with logits, thumbnails and features.

    Raises:
        ValueError: If a number is out of its range, or a tap is no map of both networks whose sizes
            differ by the ratio.

    Reference:
        [Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034), as described there; see above.
    """

    def __init__(self, downscaler, student, teacher, taps=(), classification_weight=1.0,
                 distillation_weight=1.0, feature_weight=1.0, moment_weight=10.0, temperature=4.0,
                 normalize_features=True, moment_second="std", moment_reference="image",
                 name="thumbnet", **kwargs):
        super().__init__(name=name, **kwargs)
        weights = (classification_weight, distillation_weight, feature_weight, moment_weight)
        if any(not weight >= 0 for weight in weights) or not temperature > 0:
            raise ValueError(
                "The weights of the losses are 0 or more, `temperature` is above 0. Received: "
                f"{dict(zip(_TERMS, weights))}, temperature={temperature}."
            )
        if moment_reference not in ("image", "area"):
            raise ValueError("`moment_reference` is 'image' or 'area'. "
                             f"Received: {moment_reference!r}.")
        self.downscaler = downscaler
        self.student = student
        self.teacher = teacher
        self.teacher.trainable = False
        for part in (downscaler, student, teacher):
            _hold_frozen(part)
        self.taps = list(taps)
        self.term_weights = dict(zip(_TERMS, map(float, weights)))
        if not downscaler.trainable_variables:
            self.term_weights["moment"] = 0.0
        if not self.taps:
            self.term_weights["feature"] = 0.0
        self.temperature = float(temperature)
        self.normalize_features = normalize_features
        self.moment_second = moment_second
        self.moment_reference = moment_reference
        self.ratio = _ratio(downscaler)
        if moment_reference == "area":
            self.average = Thumbnail(self.ratio, dtype="float32", name="average")
            self.average.build(downscaler.input_shape)
        used = self.taps if self.term_weights["feature"] else []
        pairs = [_check_tap(name, student, teacher, self.ratio) for name in used]
        self.student_maps = _with_maps(student, [own for own, _ in pairs])
        self.teacher_maps = _with_maps(teacher, [other for _, other in pairs])
        self.teacher_maps.trainable = False
        self.decoders = [_decoder(name, *pair, teacher, self.ratio)
                         for name, pair in zip(used, pairs)]
        self.trackers = [keras.metrics.Mean(name=f"{term}_loss") for term in _TERMS
                         if self.term_weights[term]]
        self.built = True

    @classmethod
    def from_teacher(cls, teacher, ratio=2, downscaler="learned", hidden_filters=32, mean=None,
                     std=None, initial="teacher", taps=None, input_shape=None, precision=None,
                     **kwargs):
        """Make a ThumbNet from a trained classifier.

        The student has the teacher's layers on maps that are smaller by the ratio. With a dense
        layer behind a flattened map, its kernel is made to fit, see `copy_for_size`. Both networks
        are copies: the model that is given is neither changed nor trained.

        Args:
            teacher: `keras.Model`, Functional or Sequential, from pictures 0 to 255 to logits or
                the probabilities of a softmax. One that wants other values is wrapped, with what
                makes them in front: with `scale = keras.layers.Rescaling(1 / 127.5, -1)`,
                `keras.Model(pictures, resnet(scale(pictures)))`.
            ratio: int, 2, 4 or 8. Pixels of the picture, to a side, to one of the thumbnail.
            downscaler: `"learned"`; `"area"`, `"bilinear"`, `"bicubic"` or `"nearest"` for resizing
                that learns nothing (see `Thumbnail`); `"area_then_learned"`, a control (see
                `Downscaler`); or a Functional `keras.Model` from pictures to thumbnails, as another
                ThumbNet's `downscaler`, whose ratio counts. Freeze it to keep it as it is.
            hidden_filters, mean, std: see `Downscaler`.
            initial: `"teacher"`, or `"random"` for new initial values of the student.
            taps: sequence of names of layers, see the class. `None` takes the last map whose sizes
                in teacher and student differ by exactly the ratio.
            input_shape: `(height, width, channels)` where the teacher's is not fixed.
            precision: string or `None`. Dtype policy of all networks, such as `"mixed_bfloat16"`.
                Losses, thumbnails and logits are float32 always. `None` keeps the teacher's.
            **kwargs: see the class.

        Raises:
            ValueError: If the pictures' sizes are no multiples of the ratio, a layer of the teacher
                cannot take the smaller maps, or an argument is out of its range.

        Example:

        >>> from keras_adaptive.models import ResNet
        >>> thumbnet = ThumbNet.from_teacher(ResNet(8, 4, num_classes=5), ratio=2)
        >>> thumbnet.student.input_shape, thumbnet.taps
        ((None, 16, 16, 3), ['stage3_block1'])
        """
        height, width, channels = _picture_shape(teacher, input_shape)
        if initial not in ("teacher", "random"):
            raise ValueError(f"`initial` is 'teacher' or 'random'. Received: initial={initial!r}.")
        if not isinstance(downscaler, keras.Model):
            downscaler = _make_downscaler(downscaler, ratio, (height, width, channels),
                                          hidden_filters, mean, std, precision)
        thumbnail_shape = downscaler.output_shape[1:]
        student = copy_for_size(teacher, thumbnail_shape, precision=precision, name="student",
                                weights="copied" if initial == "teacher" else "random")
        student.trainable = True  # whatever was frozen in the teacher
        teacher = copy_for_size(teacher, (height, width, channels), precision=precision,
                                name="teacher")
        if taps is None:
            taps = _default_taps(student, teacher, _ratio(downscaler))
            if not taps and kwargs.get("feature_weight", 1.0):
                raise ValueError(
                    f"No map of {teacher.name!r} is exactly {_ratio(downscaler)} times that of the "
                    "student, so that features cannot be compared. Pass `feature_weight=0`, or "
                    "pictures whose sides can be halved more often."
                )
        return cls(downscaler, student, teacher, taps=taps, **kwargs)

    def on_pictures(self):
        """Return downscaler and student as one Functional model from pictures to logits.

        It shares their weights, and has nothing of the teacher.
        """
        pictures = keras.Input(self.downscaler.input_shape[1:], name="pictures")
        return keras.Model(pictures, self.student(self.downscaler(pictures)),
                           name=f"{self.name}_on_pictures")

    def call(self, pictures, training=False):
        thumbnails = self.downscaler(pictures, training=training)
        if not training:
            return self.student(thumbnails, training=False)
        logits, *maps = keras.tree.flatten(self.student_maps(thumbnails, training=True))
        features = [decoder(features) for decoder, features in zip(self.decoders, maps)]
        return {"logits": logits, "thumbnails": thumbnails, "features": features}

    def compile(self, optimizer="sgd", loss=None, metrics=("accuracy",), **kwargs):
        """Configure training.

        Args:
            optimizer: as in `keras.Model.compile`.
            loss: of labels and logits. Defaults to sparse categorical cross-entropy on logits.
            metrics: as in `keras.Model.compile`; they see the student's logits.
            **kwargs: as in `keras.Model.compile`. `jit_compile` is on for JAX only by default.
        """
        # As in `MultiExitModel`.
        is_eager = kwargs.get("run_eagerly", False)
        kwargs.setdefault("jit_compile", keras.backend.backend() == "jax" and not is_eager)
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().compile(optimizer=optimizer, loss=loss, metrics=list(metrics or ()), **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not isinstance(y_pred, dict):
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            self._log({"classification": loss - self._penalty()})
            return loss
        terms = {}
        penalty = self._penalty()
        if self.term_weights["classification"]:
            loss = super().compute_loss(x, y, y_pred["logits"], sample_weight, training)
            terms["classification"] = loss - penalty
        logged = dict(terms)
        if self.term_weights["distillation"] or self.decoders:
            teacher_logits, *teacher_maps = keras.tree.flatten(
                self.teacher_maps(x, training=False))
        if self.term_weights["distillation"]:
            terms["distillation"] = softened_cross_entropy(
                teacher_logits, y_pred["logits"], self.temperature)
            logged["distillation"] = terms["distillation"] - softened_entropy(
                teacher_logits, self.temperature)
        if self.decoders:
            losses = [feature_mapping(wanted, own, self.normalize_features)
                      for wanted, own in zip(teacher_maps, y_pred["features"])]
            logged["feature"] = terms["feature"] = sum(losses) / len(losses)
        if self.term_weights["moment"]:
            pictures = ops.cast(x, "float32") / 255.0
            if self.moment_reference == "area":
                pictures = self.average(pictures)
            thumbnails = ops.cast(y_pred["thumbnails"], "float32") / 255.0
            logged["moment"] = terms["moment"] = moment_matching(
                pictures, thumbnails, self.moment_second)
        self._log(logged)
        return penalty + sum(self.term_weights[term] * value for term, value in terms.items())

    def _penalty(self):
        """Return what the layers add to the loss, such as weight decay as a penalty."""
        return sum((ops.sum(ops.cast(loss, "float32")) for loss in self.losses), ops.zeros(()))

    def _log(self, values):
        for tracker in self.trackers:
            term = tracker.name.removesuffix("_loss")
            if term in values:
                tracker.update_state(values[term])

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if isinstance(y_pred, dict):
            return super().compute_metrics(x, y, y_pred["logits"], sample_weight)
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        unknown = {tracker.name for tracker in self.trackers} - {"classification_loss"}
        return {name: value for name, value in logs.items() if name not in unknown}

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "downscaler": serialize(self.downscaler),
            "student": serialize(self.student),
            "teacher": serialize(self.teacher),
            "taps": list(self.taps),
            **{f"{term}_weight": weight for term, weight in self.term_weights.items()},
            "temperature": self.temperature,
            "normalize_features": self.normalize_features,
            "moment_second": self.moment_second,
            "moment_reference": self.moment_reference,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for part in ("downscaler", "student", "teacher"):
            config[part] = keras.saving.deserialize_keras_object(config[part], custom_objects)
        return cls(**config)


def _hold_frozen(model):
    """Freeze what frozen layers are made of: a file does not keep it of layers inside layers."""
    for layer in model.layers:
        if not layer.trainable:
            # Keras hands a value on to the inner layers only when it changes.
            layer.trainable = True
            layer.trainable = False


def _picture_shape(teacher, input_shape):
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
    shape = tuple(input_shape or teacher.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        raise ValueError(
            f"{teacher.name!r} takes pictures of any size, and a student is made for one. "
            f"Received: {shape}. Give `input_shape=(height, width, channels)`."
        )
    return shape


def _make_downscaler(kind, ratio, shape, hidden_filters, mean, std, precision):
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
                           area_first=kind == "area_then_learned", dtype=precision,
                           name="downscaler")
    pictures = keras.Input(shape, name="pictures")
    x = keras.layers.Rescaling(1 / 255.0, dtype="float32", name="to_unit")(pictures)
    thumbnails = keras.layers.Rescaling(255.0, dtype="float32", name="to_pixels")(layer(x))
    return keras.Model(pictures, thumbnails, name="downscaler")


def _ratio(downscaler):
    before, after = downscaler.input_shape[1:3], downscaler.output_shape[1:3]
    ratio = before[0] // after[0]
    if ratio not in (1, 2, 4, 8) or tuple(size * ratio for size in after) != tuple(before):
        raise ValueError(
            "A downscaler divides both sides by 1, 2, 4 or 8. "
            f"{downscaler.name!r} makes {after} of {before}."
        )
    return ratio


def _default_taps(student, teacher, ratio):
    """Return a list with the name of the last map that is exactly larger by the ratio."""
    own, others = _maps(student), _maps(teacher)
    learning = [i for i, layer in enumerate(student.layers) if layer.trainable_variables]
    names = [layer.name for layer in student.layers[min(learning, default=0):]]
    fitting = [name for name in names if name in own and name in others
               and _fits(own[name], others[name], ratio)]
    return fitting[-1:]


def _maps(model):
    """Return the tensors of the layers that give one feature map, by the layers' names."""
    return {name: outputs[0] for name, (inputs, outputs) in tensors_by_layer(model).items()
            if inputs and len(outputs) == 1 and len(outputs[0].shape) == 4}


def _fits(own, other, ratio):
    return own.shape[3] == other.shape[3] and tuple(
        ratio * size for size in own.shape[1:3]) == tuple(other.shape[1:3])


def _check_tap(name, student, teacher, ratio):
    """Return the tensors of a tap in student and teacher."""
    own, others = _maps(student), _maps(teacher)
    for model, maps in ((student, own), (teacher, others)):
        if name not in maps:
            raise ValueError(
                f"{model.name!r} has no layer {name!r} that is called once and gives a feature map."
                f"{did_you_mean(name, maps)} `taps` are names of such layers."
            )
    if not _fits(own[name], others[name], ratio):
        raise ValueError(
            f"Features are compared where the teacher's map is {ratio} times the student's. At "
            f"{name!r} they are {tuple(others[name].shape)} and {tuple(own[name].shape)}. Choose "
            "an earlier layer."
        )
    return own[name], others[name]


def _with_maps(model, maps):
    return keras.Model(model.input, [model.output, *maps], name=f"{model.name}_with_maps")


def _decoder(name, own, other, teacher, ratio):
    """Return the built decoder of a tap, given the tensors of student and teacher."""
    graph = flatten(keras.Model(teacher.input, other))
    (maker,) = [call for call in graph.calls if graph.outputs[0] in call.outputs]
    decoder = FeatureDecoder(
        own.shape[-1], ratio, activation_of(maker.operation) is keras.activations.relu,
        dtype="float32" if own.dtype == "float32" else f"mixed_{own.dtype}",
        name=f"decoder_{name}")
    decoder.build(own.shape)
    return decoder
