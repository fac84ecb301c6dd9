"""Answers of all exits on a labelled data set: computed once, read by every evaluation."""

import dataclasses
import functools

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs, check_thresholds
from keras_adaptive.files import write_whole
from keras_adaptive.labels import read_labels

MANY_CLASSES = 20  # with more, top-5 accuracy is told beside the accuracy

# By how much probabilities may miss a sum of 1. Half-precision softmaxes of thousands of classes
# miss it by less.
LARGEST_GAP = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
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
        """Return the mean multiply-adds of a picture, given the cumulative cost of each exit.

        Raises:
            ValueError: If `exit_macs` are not one positive number per exit, or they decrease.
        """
        return float(np.dot(self.exit_shares, check_exit_macs(exit_macs, len(self.exit_shares))))


@dataclasses.dataclass(frozen=True, eq=False)
class ExitOutputs:
    """Probabilities of all exits on a data set, and the labels.

    Args:
        probabilities: float32 array `(num_exits, n, num_classes)`, 0 or more; over the classes they
            add up to 1, as near as a softmax in half precision comes.
        labels: int array `(n,)`; `(n, 1)` is taken, too.

    Raises:
        ValueError: If the shapes do not fit each other, there is no picture, a label is no class,
            or these are no probabilities, such as logits.

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
        if probabilities.ndim != 3 or not probabilities.size:
            raise ValueError(
                "`probabilities` has the shape (exits, pictures, classes), and none of them is 0. "
                f"Received: {probabilities.shape}."
            )
        labels = read_labels(self.labels, "`labels`", *probabilities.shape[1:])
        _check_probabilities(probabilities)
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "labels", labels)

    @classmethod
    def from_model(cls, model, x, y, batch_size=256, verbose=0, from_logits="auto"):
        """Run all exits of a model on pictures.

        Args:
            model: `MultiExitModel`, or a Functional model with one output per exit.
            x: array of pictures, or `Photographs`.
            y: int array of labels, `(n,)` or `(n, 1)`. Not read for `Photographs`, which know
                theirs.
            batch_size: int.
            verbose: as in `keras.Model.predict`; not for `Photographs`.
            from_logits: bool or `"auto"`. Whether the outputs are logits, as for
                `EarlyExitPredictor`: by itself, an exit that ends in a softmax gives probabilities.

        Raises:
            ValueError: If there is not one label per picture, a label is no class, or it is not to
                be told what the outputs are, before the model runs; or outputs that should be
                probabilities are none.
        """
        import keras  # evaluating answers that are there needs no Keras

        from keras_adaptive.graph.logits import exits_give_logits

        if isinstance(getattr(model, "output", None), dict):
            raise ValueError(
                f"The outputs of {model.name!r} are a dict, which has no order of exits. Make a "
                "model with a list of them, earliest exit first: `keras.Model(model.inputs, "
                f"[model.output[name] for name in {list(model.output)}])`."
            )
        is_logits = exits_give_logits(model, from_logits)
        if hasattr(x, "batches"):  # files that are read batch by batch
            answers, y = _run_batches(model, x.batches(batch_size))
            x.warn_of_bad_files()
        else:
            y = read_labels(y, "`y`", len(x), model.outputs[0].shape[-1])
            answers = keras.tree.flatten(
                model.predict(x, batch_size=batch_size, verbose=verbose))
        return cls(np.stack([_softmax(values) if is_missing else values.astype("float32")
                             for values, is_missing in zip(answers, is_logits)]), y)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["probabilities"], arrays["labels"])

    def save(self, path):
        """Write an `.npz`, at `path` as it is; nothing half-written is ever found there."""
        def fill(partial):
            with open(partial, "wb") as file:  # to a name without the ending NumPy would add it
                np.savez_compressed(file, probabilities=self.probabilities, labels=self.labels)

        write_whole(path, fill)

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
        thresholds = check_thresholds(thresholds, self.num_exits)
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


def _check_probabilities(probabilities):
    sums = probabilities.sum(axis=-1)
    if not np.isfinite(sums).all():
        raise ValueError("`probabilities` are finite numbers. Received NaN or infinity.")
    if probabilities.min() < 0 or np.abs(sums - 1).max() > LARGEST_GAP:
        exit, picture = np.unravel_index(np.abs(sums - 1).argmax(), sums.shape)
        raise ValueError(
            "`probabilities` are 0 or more, and add up to 1 over the classes. Received numbers "
            f"from {probabilities.min():.3g} to {probabilities.max():.3g}; those of picture "
            f"{picture} at exit {exit + 1} add up to {sums[exit, picture]:.3g}. If they are "
            "logits, take a softmax over the last axis first, as `ExitOutputs.from_model` does "
            "where a model ends without one (or is told so, with `from_logits=True`)."
        )


def _run_batches(model, batches):
    """Return the outputs of each exit, a list of arrays, and the labels of all pictures."""
    import keras

    answers, labels = [], []
    for pictures, truth in batches:
        answers.append(keras.tree.flatten(model.predict_on_batch(pictures)))
        labels.append(truth)
    return [np.concatenate(parts) for parts in zip(*answers)], np.concatenate(labels)


def _softmax(logits):
    import keras

    return keras.ops.convert_to_numpy(keras.ops.softmax(logits.astype("float32")))
