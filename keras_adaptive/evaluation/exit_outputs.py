"""Answers of all exits on a labelled data set: computed once, read by every evaluation."""

import dataclasses
import functools

import numpy as np

from keras_adaptive.files import write_whole

MANY_CLASSES = 20  # with more, top-5 accuracy is told beside the accuracy


@dataclasses.dataclass(frozen=True)
class SimulatedExits:
    """What early exit would have given, chosen afterwards among the answers of all exits.

    Attributes:
        class_ids: int64 array `(n,)`.
        confidences: float32 array `(n,)`, at the exit taken.
        exits: int64 array `(n,)`, from 1.
        accuracy: float, share of right answers.
        exit_shares: tuple of floats, share of pictures that leave at each exit.
        top5_accuracy: float, share of pictures whose label is among the five likeliest classes;
            `None` where there are few classes.
    """

    class_ids: np.ndarray
    confidences: np.ndarray
    exits: np.ndarray
    accuracy: float
    exit_shares: tuple
    top5_accuracy: float | None = None

    def mean_macs(self, exit_macs):
        """Return the mean multiply-adds of a picture, given the cumulative cost of each exit."""
        return float(np.dot(self.exit_shares, exit_macs))


@dataclasses.dataclass(frozen=True)
class ExitOutputs:
    """Probabilities of all exits on a data set, and the labels.

    Args:
        probabilities: float32 array `(num_exits, n, num_classes)`.
        labels: int array `(n,)`.

    Raises:
        ValueError: If the shapes do not fit each other, there is no picture, a label is no class,
            or a probability is no finite number.

    Example:

    >>> outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]], labels=[0, 1])
    >>> outputs.accuracies()
    [0.5, 1.0]
    >>> outputs.simulate(0.8).exit_shares
    (0.5, 0.5)
    """

    probabilities: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        probabilities = np.asarray(self.probabilities, dtype="float32")
        labels = np.asarray(self.labels)
        if probabilities.ndim != 3 or labels.shape != probabilities.shape[1:2] or not labels.size:
            raise ValueError(
                "`probabilities` has the shape (exits, pictures, classes), `labels` (pictures,), "
                f"and neither is empty. Received: {probabilities.shape} and {labels.shape}."
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(f"`labels` are whole numbers. Received: dtype {labels.dtype}.")
        if not np.isfinite(probabilities).all():
            raise ValueError("`probabilities` are finite numbers. Received NaN or infinity.")
        if labels.min() < 0 or labels.max() >= probabilities.shape[2]:
            raise ValueError(
                f"`labels` are 0 to {probabilities.shape[2] - 1}, as there are "
                f"{probabilities.shape[2]} classes. Received labels from {labels.min()} to "
                f"{labels.max()}."
            )
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "labels", labels)

    @classmethod
    def from_model(cls, model, x, y, batch_size=256, verbose=0):
        """Run all exits of a model on pictures.

        Args:
            model: `MultiExitModel`, or a Functional model whose outputs are logits.
            x: array of pictures, or `Photographs`.
            y: int array of labels. Not read for `Photographs`, which know theirs.
            batch_size: int.
            verbose: as in `keras.Model.predict`; not for `Photographs`.
        """
        if hasattr(x, "batches"):  # files that are read batch by batch
            logits, y = _run_batches(model, x.batches(batch_size))
            x.warn_of_bad_files()
            return cls(np.stack([_softmax(values) for values in logits]), y)
        logits = model.predict(x, batch_size=batch_size, verbose=verbose)
        logits = logits if isinstance(logits, (list, tuple)) else [logits]
        return cls(np.stack([_softmax(values) for values in logits]), np.asarray(y))

    @classmethod
    def load(cls, path):
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["probabilities"], arrays["labels"])

    def save(self, path):
        """Write an `.npz`; nothing half-written is ever found at `path`."""
        write_whole(path, lambda partial: np.savez_compressed(
            partial, probabilities=self.probabilities, labels=self.labels))

    @property
    def num_exits(self):
        """int. Number of exits."""
        return len(self.probabilities)

    @functools.cached_property
    def confidences(self):
        """float32 array `(num_exits, n)`. Largest probability of each picture at each exit."""
        return self.probabilities.max(axis=-1)

    @functools.cached_property
    def is_right(self):
        """bool array `(num_exits, n)`. Whether the class of largest probability is the label."""
        return self.probabilities.argmax(axis=-1) == self.labels

    def accuracies(self):
        """Return the accuracy of each exit, on all pictures, as a list of floats."""
        return [float(share) for share in self.is_right.mean(axis=1)]

    @functools.cached_property
    def is_in_top5(self):
        """bool array `(num_exits, n)`. Whether the label is among the five likeliest classes.

        `None` where there are no more than `MANY_CLASSES`: among few classes it says little.
        """
        if self.probabilities.shape[2] <= MANY_CLASSES:
            return None
        likeliest = np.argpartition(self.probabilities, -5, axis=-1)[..., -5:]
        return (likeliest == self.labels[:, None]).any(axis=-1)

    def top5_accuracies(self):
        """Return the top-5 accuracy of each exit as a list of floats, or `None` for few classes."""
        if self.is_in_top5 is None:
            return None
        return [float(share) for share in self.is_in_top5.mean(axis=1)]

    def simulate(self, thresholds):
        """Let every picture leave at the first exit that is sure enough.

        Args:
            thresholds: float, or sequence of `num_exits` floats. A picture leaves where its largest
                probability is at least the threshold; the last exit takes the rest.

        Returns:
            `SimulatedExits`.

        Raises:
            ValueError: If the number of thresholds is not the number of exits, or one is negative
                or NaN.
        """
        thresholds = np.asarray(thresholds, dtype="float32")
        if thresholds.shape not in ((), (self.num_exits,)):
            raise ValueError(
                f"`thresholds` is one number, or one per exit: {self.num_exits}. "
                f"Received an array of shape {thresholds.shape}."
            )
        if not np.all(thresholds >= 0):
            raise ValueError(
                "`thresholds` are confidences of 0 or more, and not NaN. "
                f"Received: {thresholds.tolist()}."
            )
        leaves = self.confidences >= thresholds.reshape(-1, 1)
        leaves[-1] = True
        taken = leaves.argmax(axis=0)
        picture = np.arange(len(self.labels))
        class_ids = self.probabilities[taken, picture].argmax(axis=-1)
        shares = np.bincount(taken, minlength=self.num_exits) / len(taken)
        return SimulatedExits(class_ids, self.confidences[taken, picture], taken + 1,
                              float((class_ids == self.labels).mean()),
                              tuple(float(share) for share in shares),
                              None if self.is_in_top5 is None
                              else float(self.is_in_top5[taken, picture].mean()))


def _run_batches(model, batches):
    """Return the logits of each exit, a list of arrays, and the labels of all pictures."""
    answers, labels = [], []
    for pictures, truth in batches:
        given = model.predict_on_batch(pictures)
        answers.append(given if isinstance(given, (list, tuple)) else [given])
        labels.append(truth)
    return [np.concatenate(parts) for parts in zip(*answers)], np.concatenate(labels)


def _softmax(logits):
    import keras  # evaluating answers that are there needs no Keras

    return keras.ops.convert_to_numpy(keras.ops.softmax(logits.astype("float32")))
