"""ThumbNet as a network with two exits: the thumbnail first, the full picture when unsure."""

import keras

from keras_adaptive.models.inputs import STATISTICS
from keras_adaptive.models.multi_exit import ConfiguredModel, plain


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ThumbNetCascade(ConfiguredModel):
    """A downscaler, a student that classifies thumbnails, and the teacher on full pictures.

    Exit 1 is the student behind the downscaler; exit 2 is the teacher, at the cost of all three.
    `learner` gives the `ThumbNet` that trains the first two.

    Args:
        teacher: string, a name in `PUBLISHED`. Of a network with several exits, the last is taken.
        teacher_arguments: dict or `None`. Arguments that override the published ones.
        ratio, downscaler, hidden_filters, quantize: see `ThumbNet.from_teacher`.
        num_classes: int.
        input_shape: `(height, width, channels)` of the full picture.
        normalization: the teacher's, as in `RANet`. Where it has mean and standard deviation,
            thumbnails start with these.
        class_names, input_rule, exit_macs: records, see `MultiExitModel`.
        name: string.

    Attributes:
        downscaler, student, teacher: Functional `keras.Model`s, as in `ThumbNet`.

    Input: pictures `(batch, *input_shape)`, 0 to 255.
    Outputs: list of `(batch, num_classes)` logits, of exits 1 and 2.

    Raises:
        ValueError: If the teacher is unknown, or has no copy for thumbnails of this size.

    Reference:
        [Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034) for student and downscaler; that
        the full picture may follow is ours.
    """

    def __init__(self, teacher="resnet20_cifar10", teacher_arguments=None, ratio=2,
                 downscaler="learned", hidden_filters=32, num_classes=10,
                 input_shape=(32, 32, 3), normalization=None, class_names=None, input_rule=None,
                 exit_macs=None, quantize=None, name="thumbnet"):
        # Not at the top: these stand on floors above, and the table of networks lists this one.
        from keras_adaptive.models.cascade import cascade
        from keras_adaptive.models.published import build
        from keras_adaptive.models.thumbnet import ThumbNet

        arguments = dict(teacher_arguments or {})
        normalization = plain(normalization)
        network = build(teacher, **{**arguments, "num_classes": num_classes,
                                    "input_shape": tuple(input_shape),
                                    "normalization": normalization})
        statistics = STATISTICS.get(normalization) if isinstance(
            normalization, str) else normalization
        mean, std = (None, None) if statistics is None else statistics
        parts = ThumbNet.from_teacher(last_exit(network), ratio, downscaler, hidden_filters,
                                      mean, std, quantize=quantize)
        both = cascade(parts.downscaler, parts.student, parts.teacher)
        super().__init__(both.inputs[0], both.outputs, class_names, input_rule, exit_macs,
                         name=name)
        self.downscaler, self.student, self.teacher = (
            parts.downscaler, parts.student, parts.teacher)
        self._taps = parts.taps
        self.configuration = plain({
            "teacher": teacher,
            "teacher_arguments": arguments,
            "ratio": ratio,
            # What a file can hold; the graph alone, as the weights stand beside it.
            "downscaler": keras.saving.serialize_keras_object(downscaler),
            "hidden_filters": hidden_filters,
            "num_classes": num_classes,
            "input_shape": list(input_shape),
            "normalization": normalization,
            "quantize": quantize,
        })

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config["downscaler"], dict):  # a model, not the name of a kind
            config["downscaler"] = keras.saving.deserialize_keras_object(
                config["downscaler"], custom_objects)
        return super().from_config(config, custom_objects)

    @property
    def classifier_names(self):
        """list of strings. Paths of the layers that make the logits of student and teacher."""
        return [f"{part}/{getattr(self, part).layers[-1].name}" for part in ("student", "teacher")]

    def learner(self, **arguments):
        """Return the `ThumbNet` of these three networks, whose variables it shares.

        Args:
            **arguments: of `ThumbNet`: weights of the losses, temperature.
        """
        from keras_adaptive.models.thumbnet import ThumbNet

        return ThumbNet(self.downscaler, self.student, self.teacher,
                        **{"taps": self._taps, **arguments})

    def take_teacher(self, network, initial="teacher"):
        """Take a trained teacher's weights.

        Args:
            network: `RANet`, `MSDNet`, `ResNet` or `DenseNet` of the teacher's graph.
            initial: `"teacher"`, to start the student from them too, or `"random"`.

        Raises:
            ValueError: If that teacher normalises pictures in another way, or tells another number
                of classes apart.
        """
        theirs, own = ({key: made.configuration[key] for key in ("normalization", "num_classes")}
                       for made in (network, self))
        if theirs != own:
            raise ValueError(
                f"The teacher {network.name!r} was trained with {theirs}. This network has {own}. "
                "Give it the same, in a recipe in the table [model]."
            )
        from keras_adaptive.models.resized import copy_for_size

        classifier = last_exit(network)
        self.teacher.set_weights(classifier.get_weights())
        if initial == "teacher":
            started = copy_for_size(classifier, self.student.input_shape[1:])
            self.student.set_weights(started.get_weights())


def last_exit(network):
    """Return the part of a network that its last exit needs, as a model of one output."""
    return keras.Model(network.inputs, network.outputs[-1], name=network.name)
