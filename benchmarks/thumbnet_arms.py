"""The ways in which `thumbnet_claims.py` trains a student of thumbnails.

Fixed before their first run; each is there to rule out one explanation of what ThumbNet gains.
"""

import dataclasses
from collections.abc import Callable

import keras

from keras_adaptive.graph import exit_macs, flatten
from keras_adaptive.layers import Thumbnail
from keras_adaptive.layers.thumbnail import METHODS
from keras_adaptive.models import ResNet
from keras_adaptive.models.inputs import STATISTICS
from keras_adaptive.models.resized import copy_for_size
from keras_adaptive.models.thumbnet import ThumbNet
from keras_adaptive.models.thumbnet_parts import default_taps

HIDDEN_FILTERS = 16  # of the downscaler, whose cost is not small on pictures of 32 pixels
DATA = "cifar10"  # whose statistics the networks start from


def enlarged(ratio, shape):
    """Return the layers that average pixels and repeat them, up to the full size."""
    return [Thumbnail(ratio), keras.layers.UpSampling2D(ratio)]


def unshuffled(ratio, shape):
    """Return the layers that make channels of the `ratio * ratio` pixels; nothing is lost."""
    rows, columns, channels = shape[0] // ratio, shape[1] // ratio, shape[2]
    return [
        keras.layers.Reshape((rows, ratio, columns, ratio * channels)),
        keras.layers.Permute((1, 3, 2, 4)),
        keras.layers.Reshape((rows, columns, ratio**2 * channels)),
    ]


def whole(ratio, shape):
    """Return the layers that leave pictures as they are."""
    return [keras.layers.Identity()]


def narrow_student(teacher, ratio):
    """Return a network of fresh weights for full pictures that costs what the student costs."""
    student = copy_for_size(teacher, _small_shape(teacher, ratio), weights="random")
    return _resnet(teacher, channels=nearest_width(teacher, ratio, exit_macs(student)[0]))


def nearest_width(teacher, ratio, macs):
    """Return the `channels` with which a network of the teacher's depth is nearest in cost.

    Args:
        teacher: `ResNet`.
        ratio: int. A width of a `ratio`-th costs about what the student costs; it and its
            neighbours are tried.
        macs: int, multiply-adds wanted.
    """
    guess = teacher.configuration["channels"] // ratio
    widths = range(max(1, guess - 1), guess + 2)
    return min(widths, key=lambda width: abs(
        exit_macs(_resnet(teacher, channels=width))[0] - macs))


def wide_stem_student(teacher, ratio):
    """Return the student for `unshuffled` pictures: the teacher's weights behind a fresh stem."""
    mean, std = (list(values) * ratio**2 for values in STATISTICS[DATA])
    rows, columns, channels = _small_shape(teacher, ratio)
    student = _resnet(teacher, input_shape=(rows, columns, ratio**2 * channels),
                      normalization=(mean, std))
    for layer in student.layers:
        if layer.name != "stem":
            layer.set_weights(teacher.get_layer(layer.name).get_weights())
    return student


def _resnet(teacher, **changes):
    return ResNet(**{**teacher.configuration, **changes})


def _small_shape(teacher, ratio):
    rows, columns, channels = teacher.input_shape[1:]
    return rows // ratio, columns // ratio, channels


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to get a student.

    Attributes:
        plan: string. Its letter and number among the arms that were planned; empty for one added.
        what: string, for people.
        arguments: dict, of `ThumbNet.from_teacher`; weights of the losses only, where `student` is
            given.
        view: function of ratio and shape to the layers between picture and student, where that is
            no downscaler of `from_teacher`; or `None`.
        student: function of teacher and ratio to a student that is no copy of the teacher; or
            `None`.
        epochs_factor: int. How many times the others' epochs it learns; 0 for no learning.
        learns: `"weights"`; `"classifier"`, for the last layer and all batch normalisation only;
            `"statistics"`, for the moving averages only; or `"nothing"`.
    """

    plan: str
    what: str
    arguments: dict = dataclasses.field(default_factory=dict)
    view: Callable | None = None
    student: Callable | None = None
    epochs_factor: int = 1
    learns: str = "weights"

    @property
    def learns_shrinking(self):
        """bool. Whether the downscaler has weights, so that its thumbnails are worth a look."""
        return not self.view and self.arguments.get("downscaler", "learned") not in METHODS


def _weights(classification=0, distillation=0, feature=0, moment=0):
    return {"classification_weight": classification, "distillation_weight": distillation,
            "feature_weight": feature, "moment_weight": moment}


_LABELS = _weights(classification=1)
_LABELS_AND_TEACHER = _weights(classification=1, distillation=1)
_AREA, _RANDOM = {"downscaler": "area"}, {"initial": "random"}
_DIRECT = {"downscaler": "bicubic", **_RANDOM, **_LABELS}

ARMS = {
    "teacher": Arm("A0", "the teacher on full pictures, not trained here", _LABELS, whole,
                   epochs_factor=0, learns="nothing"),
    "aliased": Arm("A1", "every other pixel, random start, labels only",
                   {"downscaler": "nearest", **_RANDOM, **_LABELS}),
    "direct": Arm("A2", "bicubic thumbnails, random start, labels only", _DIRECT),
    "direct_long": Arm("A2L", "the same with twice the epochs", _DIRECT, epochs_factor=2),
    "labels_only": Arm("A3", "averaged thumbnails, teacher's start, labels only",
                       {**_AREA, **_LABELS}),
    "honest": Arm("A4", "averaged thumbnails, teacher's start, labels and distillation",
                  {**_AREA, **_LABELS_AND_TEACHER}),
    "honest_features": Arm("A5", "the same with features", _AREA),
    "bicubic_features": Arm("A6", "the same on bicubic thumbnails", {"downscaler": "bicubic"}),
    "learned_labels": Arm("A7", "learned thumbnails, teacher's start, labels only", _LABELS),
    "learned_moments": Arm("A8", "the same with moment matching",
                           {"distillation_weight": 0, "feature_weight": 0}),
    "full": Arm("A9", "ThumbNet: learned thumbnails, teacher's start, all losses"),
    "without_moments": Arm("A9-MM", "ThumbNet without moment matching", {"moment_weight": 0}),
    "without_distillation": Arm("A9-KD", "ThumbNet without distillation",
                                {"distillation_weight": 0}),
    "without_features": Arm("A9-FM", "ThumbNet without features", {"feature_weight": 0}),
    "without_labels": Arm("A9-CL", "ThumbNet without labels", {"classification_weight": 0}),
    "random_start": Arm("A9r", "ThumbNet from random weights", _RANDOM),
    "random_start_long": Arm("A9r", "the same with twice the epochs", _RANDOM, epochs_factor=2),
    "full_from_area": Arm("", "ThumbNet whose downscaler starts as averaging and adds to it",
                          {"downscaler": "area_plus_learned"}),
    "more_layers": Arm("A10", "the downscaler's two layers behind averaging",
                       {"downscaler": "area_then_learned"}),
    "unshuffled": Arm("A11", "all pixels as channels, fresh wider stem, teacher's start behind it",
                      _weights(classification=1, distillation=1, feature=1), unshuffled,
                      wide_stem_student),
    "small": Arm("A12, A12'", "narrower network on full pictures, at the student's cost, from "
                 "random weights", _LABELS_AND_TEACHER, whole, narrow_student),
    "free_lunch": Arm("A13", "the teacher on averaged thumbnails, statistics estimated anew",
                      {**_AREA, **_LABELS}, epochs_factor=0, learns="statistics"),
    "classifier_only": Arm("A14", "the same, but batch norm and the last layer learn from labels",
                           {**_AREA, **_LABELS}, learns="classifier"),
    "enlarged": Arm("A16", "averaged thumbnails enlarged again, the whole network: what the pixels "
                    "lost", _LABELS_AND_TEACHER, enlarged),
}


def make(name, teacher, ratio, precision="float32"):
    """Return the `ThumbNet` of an arm.

    Args:
        name: string in `ARMS`.
        teacher: trained `ResNet` for pictures of 32 pixels.
        ratio: int.
        precision: string, a dtype policy.
    """
    arm = ARMS[name]
    shape = teacher.input_shape[1:]
    arguments = dict(arm.arguments)
    if arm.view:
        seen = pictures = keras.Input(shape)
        for layer in arm.view(ratio, shape):
            seen = layer(seen)
        arguments["downscaler"] = keras.Model(pictures, seen, name="downscaler")
    if arm.student:
        student = arm.student(teacher, ratio)
        student = copy_for_size(student, student.input_shape[1:], precision=precision,
                                name="student")
        copied = copy_for_size(teacher, shape, precision=precision, name="teacher")
        taps = default_taps(student, copied, ratio) if arguments["feature_weight"] else ()
        return ThumbNet(student=student, teacher=copied, taps=taps, **arguments)
    mean, std = STATISTICS[DATA]
    thumbnet = ThumbNet.from_teacher(teacher, ratio, hidden_filters=HIDDEN_FILTERS, mean=mean,
                                     std=std, precision=precision, **arguments)
    if arm.learns == "classifier":
        _freeze_trunk(thumbnet.student)
    return thumbnet


def _freeze_trunk(student):
    *calls, last = [call for call in flatten(student).calls
                    if getattr(call.operation, "weights", None)]
    for call in calls:
        if not isinstance(call.operation, keras.layers.BatchNormalization):
            call.operation.trainable = False
