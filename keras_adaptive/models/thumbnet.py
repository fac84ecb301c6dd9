"""ThumbNet: a student that classifies thumbnails, made by a downscaler that learns with it.

[Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034), after the abstract and the description of
its parts. The paper's formulas, weights and schedules were not at hand: those here are ours.
"""

import math

import keras
from keras import ops

from keras_adaptive.graph.flattening import sublayers
from keras_adaptive.layers import Thumbnail
from keras_adaptive.models.multi_exit import loss_on_logits
from keras_adaptive.models.resized import copy_for_size
from keras_adaptive.models.thumbnet_parts import (
    check_downscaler,
    check_tap,
    default_taps,
    hold_frozen,
    make_decoder,
    make_downscaler,
    picture_shape,
    quantized,
    ratio_of,
    with_maps,
    with_preprocessor,
)
from keras_adaptive.training.thumbnet_losses import (
    feature_mapping,
    moment_matching,
    softened_cross_entropy,
    softened_entropy,
)

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
        if not (all(0 <= weight < math.inf for weight in weights) and 0 < temperature < math.inf):
            raise ValueError(
                "The weights of the losses are 0 or more, `temperature` is above 0, all finite. "
                f"Received: {dict(zip(_TERMS, weights))}, temperature={temperature}."
            )
        if moment_reference not in ("image", "area"):
            raise ValueError("`moment_reference` is 'image' or 'area'. "
                             f"Received: {moment_reference!r}.")
        self.downscaler = downscaler
        self.student = student
        self.teacher = teacher
        self.teacher.trainable = False
        for part in (downscaler, student, teacher):
            hold_frozen(part)
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
        self.ratio = ratio_of(downscaler)
        if moment_reference == "area":
            self.average = Thumbnail(self.ratio, dtype="float32", name="average")
            self.average.build(downscaler.input_shape)
        used = self.taps if self.term_weights["feature"] else []
        pairs = [check_tap(name, student, teacher, self.ratio) for name in used]
        self.student_maps = with_maps(student, [own for own, _ in pairs])
        self.teacher_maps = with_maps(teacher, [other for _, other in pairs])
        self.teacher_maps.trainable = False
        self.decoders = [make_decoder(name, *pair, teacher, self.ratio)
                         for name, pair in zip(used, pairs)]
        self.trackers = [keras.metrics.Mean(name=f"{term}_loss") for term in _TERMS
                         if self.term_weights[term]]
        self.built = True

    @classmethod
    def from_teacher(cls, teacher, ratio=2, downscaler="learned", hidden_filters=32, mean=None,
                     std=None, initial="teacher", taps=None, input_shape=None, precision=None,
                     quantize=None, **kwargs):
        """Make a ThumbNet from a trained classifier.

        The student has the teacher's layers on maps that are smaller by the ratio. With a dense
        layer behind a flattened map, its kernel is made to fit, see `copy_for_size`. Both networks
        are copies: the model that is given is neither changed nor trained.

        Args:
            teacher: `keras.Model`, Functional or Sequential, from pictures 0 to 255 to logits or
                the probabilities of a softmax. One that wants other values is wrapped, with what
                makes them in front: with `scale = keras.layers.Rescaling(1 / 127.5, -1)`,
                `keras.Model(pictures, resnet(scale(pictures)))`. For a classifier of keras-hub with
                a `preprocessor` that is done here, with that one's scale and offset.
            ratio: int, 2, 4 or 8. Pixels of the picture, to a side, to one of the thumbnail.
            downscaler: `"learned"`; `"area"`, `"bilinear"`, `"bicubic"` or `"nearest"` for resizing
                that learns nothing (see `Thumbnail`); `"area_plus_learned"`, which starts as
                `"area"`, and `"area_then_learned"`, a control (see `area` of `Downscaler`); or a
                Functional `keras.Model` from pictures to thumbnails, as another
                ThumbNet's `downscaler`, whose ratio counts. Freeze it to keep it as it is.
            hidden_filters, mean, std: see `Downscaler`.
            initial: `"teacher"`, or `"random"` for new initial values of the student.
            taps: sequence of names of layers, see the class. `None` takes the last map whose sizes
                in teacher and student differ by exactly the ratio.
            input_shape: `(height, width, channels)` where the teacher's is not fixed.
            precision: string or `None`. Dtype policy of all networks, such as `"mixed_bfloat16"`.
                Losses, thumbnails and logits are float32 always. `None` keeps the teacher's.
            quantize: `None`, or `"ste"`: thumbnails are clipped and rounded to 8 bits on their way
                to the student, in training too, through a straight-through gradient (see
                `EightBits`). The student then sees in PNG files exactly what it learnt from.
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
        height, width, channels = picture_shape(teacher, input_shape)
        teacher = with_preprocessor(teacher)
        if initial not in ("teacher", "random"):
            raise ValueError(f"`initial` is 'teacher' or 'random'. Received: initial={initial!r}.")
        if not isinstance(downscaler, keras.Model):
            downscaler = make_downscaler(downscaler, ratio, (height, width, channels),
                                          hidden_filters, mean, std, precision)
        check_downscaler(downscaler, (height, width, channels))
        downscaler = quantized(downscaler, quantize)
        thumbnail_shape = downscaler.output_shape[1:]
        student = copy_for_size(teacher, thumbnail_shape, precision=precision, name="student",
                                weights="copied" if initial == "teacher" else "random")
        student.trainable = True  # whatever was frozen in the teacher
        teacher = copy_for_size(teacher, (height, width, channels), precision=precision,
                                name="teacher")
        if taps is None:
            taps = default_taps(student, teacher, ratio_of(downscaler))
            if not taps and kwargs.get("feature_weight", 1.0):
                raise ValueError(
                    f"No map of {teacher.name!r} is exactly {ratio_of(downscaler)} times that of "
                    "the student, so that features cannot be compared. Pass `feature_weight=0`, or "
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

    def with_teacher_outputs(self, pictures, labels, batch_size=64):
        """Return labels together with what the teacher says of their pictures.

        `fit(pictures, with_teacher_outputs(pictures, labels))` does not run the teacher again. That
        is right only where every epoch sees the same pictures: with augmentation, pass the labels
        alone. Feature maps are kept whole, which takes memory; `feature_weight=0` needs none.

        Args:
            pictures: array `(pictures, height, width, channels)`, 0 to 255.
            labels: array, as for `fit`.
            batch_size: int.

        Returns:
            Dict of arrays, the labels under `"labels"`.
        """
        outputs = keras.tree.flatten(
            self.teacher_maps.predict(pictures, batch_size=batch_size, verbose=0))
        return {"labels": labels, **dict(zip(self._teacher_keys(), outputs))}

    def _teacher_keys(self):
        return ["teacher_logits", *(f"teacher_map{i}" for i in range(len(self.decoders)))]

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
            loss: as in `MultiExitModel.compile`, of labels and logits. Defaults to sparse
                categorical cross-entropy.
            metrics: as in `keras.Model.compile`; they see the student's logits.
            **kwargs: as in `keras.Model.compile`. `jit_compile` is on for JAX only by default. The
                loss is scaled where any part computes in float16, whatever the policy of the whole.
        """
        # As in `MultiExitModel`.
        self._keeps_jit_compile = "jit_compile" in kwargs
        is_eager = kwargs.get("run_eagerly", False)
        kwargs.setdefault("jit_compile", keras.backend.backend() == "jax" and not is_eager)
        optimizer = keras.optimizers.get(optimizer)
        is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if (optimizer and not is_scaled and kwargs.get("auto_scale_loss", True)
                and _computes_in_float16(self)):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, loss=loss_on_logits(loss),
                        metrics=list(metrics or ()), **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and not self._keeps_jit_compile:
            del config["jit_compile"]
        return config

    def compile_from_config(self, config):
        # The optimizer comes as it was, scaling or not.
        self.compile(**keras.saving.deserialize_keras_object(config), auto_scale_loss=False)
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        kept, y = (y, y["labels"]) if isinstance(y, dict) else (None, y)
        if not isinstance(y_pred, dict):
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            self._log({"classification": loss - self._penalty()}, ops.shape(y_pred)[0])
            return loss
        terms = {}
        penalty = self._penalty()
        if self.term_weights["classification"]:
            loss = super().compute_loss(x, y, y_pred["logits"], sample_weight, training)
            terms["classification"] = loss - penalty
        logged = dict(terms)
        if self.term_weights["distillation"] or self.decoders:
            teacher_logits, *teacher_maps = keras.tree.flatten(
                [kept[key] for key in self._teacher_keys()] if kept
                else self.teacher_maps(x, training=False))
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
        self._log(logged, ops.shape(y_pred["logits"])[0])
        return penalty + sum(self.term_weights[term] * value for term, value in terms.items())

    def _penalty(self):
        """Return what the layers add to the loss, such as weight decay as a penalty."""
        return sum((ops.sum(ops.cast(loss, "float32")) for loss in self.losses), ops.zeros(()))

    def _log(self, values, num_pictures):
        for tracker in self.trackers:
            term = tracker.name.removesuffix("_loss")
            if term in values:  # means over a batch, of which the last may be smaller
                tracker.update_state(values[term], sample_weight=num_pictures)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y = y["labels"] if isinstance(y, dict) else y
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


def _computes_in_float16(layer):
    return layer.compute_dtype == "float16" or any(map(_computes_in_float16, sublayers(layer)))
