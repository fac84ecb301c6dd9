"""Losses for networks of several exits that Keras does not have."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_adaptive")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with label smoothing, for labels given as whole numbers and for logits.

    A share `label_smoothing` of each label is spread evenly over all classes.

    Args:
        label_smoothing: float in [0, 1).

    Input shapes: labels `(batch,)` or `(batch, 1)`, logits `(batch, classes)`.

    Raises:
        ValueError: If `label_smoothing` is out of its range; from the call, if labels are one-hot.

    Reference:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), section 7.
    """

    def __init__(self, label_smoothing=0.1, name="smoothed_cross_entropy", **kwargs):
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` is a share of 0 or more and below 1. "
                f"Received: {label_smoothing!r}."
            )
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if len(y_true.shape) > 1 and y_true.shape[1] not in (None, 1):
            raise ValueError(
                "`SmoothedCrossEntropy` takes labels as whole numbers, of shape (batch,) or "
                f"(batch, 1). Received: shape {tuple(y_true.shape)}. One-hot labels become numbers "
                "by `y.argmax(axis=-1)`; `keras.losses.CategoricalCrossentropy(from_logits=True)` "
                "takes them as they are, and smooths them too."
            )
        log_probabilities = ops.log_softmax(ops.cast(y_pred, "float32"))
        labels = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
        right = ops.squeeze(ops.take_along_axis(log_probabilities, labels, axis=1), axis=1)
        spread = ops.mean(log_probabilities, axis=1)
        return -(1 - self.label_smoothing) * right - self.label_smoothing * spread

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="keras_adaptive")
class LastExitDistillation:
    """Earlier exits learn from the probabilities of the last one, too ("one for all").

    To the loss of every exit but the last, which is weighed by `label_weight`, comes
    `soft_weight * temperature**2` times the Kullback-Leibler divergence between the last exit's
    probabilities and its own, both of logits divided by `temperature`, in the mean over the batch.
    No gradient flows into the last exit.

    The authors write `label_weight = 1 - gamma`; their divergence is divided by the number of
    classes, too, so that `soft_weight = gamma / classes`.

    Args:
        label_weight, soft_weight: floats of 0 or more.
        temperature: float above 0.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        [Li et al., 2019](https://arxiv.org/abs/1908.06294), section 3.3. There the teacher is a
        network trained before; here it is the last exit while it learns.
    """

    def __init__(self, label_weight=0.5, soft_weight=0.5, temperature=1.0):
        if not (0 <= label_weight < math.inf and 0 <= soft_weight < math.inf
                and 0 < temperature < math.inf):
            raise ValueError(
                "`label_weight` and `soft_weight` are 0 or more, `temperature` is above 0, all "
                f"finite. Received: label_weight={label_weight}, soft_weight={soft_weight}, "
                f"temperature={temperature}."
            )
        self.label_weight = float(label_weight)
        self.soft_weight = float(soft_weight)
        self.temperature = float(temperature)

    def exit_weights(self, num_exits):
        """Return the factor of the loss on labels at each exit."""
        return [self.label_weight] * (num_exits - 1) + [1.0]

    def __call__(self, logits, teacher=None):
        """Return the part of the loss that comes from the teacher, a scalar.

        Args:
            logits: list of `(batch, classes)` tensors, one per exit.
            teacher: logits `(batch, classes)`, or `None` for those of the last exit.
        """
        scaled = [ops.log_softmax(ops.cast(z, "float32") / self.temperature) for z in logits]
        if teacher is None:
            soft = scaled[-1]
        else:
            soft = ops.log_softmax(ops.cast(teacher, "float32") / self.temperature)
        soft = ops.stop_gradient(soft)
        divergences = [ops.mean(ops.sum(ops.exp(soft) * (soft - own), axis=1))
                       for own in scaled[:-1]]
        return self.soft_weight * self.temperature**2 * sum(divergences)

    def get_config(self):
        return {"label_weight": self.label_weight, "soft_weight": self.soft_weight,
                "temperature": self.temperature}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
