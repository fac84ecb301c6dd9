"""How like its teacher a student answers."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A student beside its teacher, on the same pictures.

    Attributes:
        equal_share: float. Share of pictures to which both give the same class, right or wrong.
        mean_kl: float, nats. Kullback-Leibler divergence of the student's distribution from the
            teacher's, mean over pictures; 0 where they are equal.
        class_losses: dict of class to the accuracy that the teacher has there and the student has
            not, -1 to 1; of the classes that have pictures. Empty without labels.
    """

    equal_share: float
    mean_kl: float
    class_losses: dict[int, float]


def measure_agreement(teacher_logits, logits, labels=None):
    """Compare a student's answers with its teacher's.

    Args:
        teacher_logits, logits: arrays `(n, classes)`, logits or logarithms of probabilities.
        labels: int array `(n,)`, or None: no losses by class.

    Returns:
        `Agreement`.

    Raises:
        ValueError: If the shapes do not fit each other, or there are no pictures.

    Example:

    >>> teacher = np.log([[0.5, 0.5], [0.2, 0.8]])
    >>> agreement = measure_agreement(teacher, teacher[:, ::-1], [0, 1])
    >>> agreement.equal_share, round(agreement.mean_kl, 4), agreement.class_losses
    (0.5, 0.4159, {0: 0.0, 1: 1.0})
    """
    teacher_logits, logits = (np.asarray(array, "float64") for array in (teacher_logits, logits))
    if logits.ndim != 2 or logits.shape != teacher_logits.shape or not len(logits) or (
            labels is not None and np.shape(labels) != logits.shape[:1]):
        raise ValueError(
            "Teacher and student give an array (n, classes) each, of one picture or more, labels "
            f"are (n,). Received the shapes {teacher_logits.shape}, {logits.shape} and "
            f"{None if labels is None else np.shape(labels)}."
        )
    answers = [array.argmax(axis=1) for array in (teacher_logits, logits)]
    wanted, own = map(_log_softmax, (teacher_logits, logits))
    with np.errstate(invalid="ignore"):
        # A class of probability 0 adds nothing.
        weighted = np.where(np.isfinite(wanted), np.exp(wanted) * (wanted - own), 0)
    losses = {}
    if labels is not None:
        labels = np.asarray(labels)
        teacher_right, right = (answer == labels for answer in answers)
        losses = {int(label): float(teacher_right[labels == label].mean()
                                    - right[labels == label].mean())
                  for label in np.unique(labels)}
    return Agreement(float((answers[0] == answers[1]).mean()),
                     float(weighted.sum(axis=1).mean()), losses)


def _log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
