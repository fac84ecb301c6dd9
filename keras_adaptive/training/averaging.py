"""Averaged weights, validated and kept in place of those with which a run goes on."""

import contextlib
import itertools

import keras

from keras_adaptive.training.statistics import reestimate_statistics

STATISTICS_PICTURES = 1024  # enough to estimate statistics of batch normalisation from


class AveragedWeights(keras.callbacks.Callback):
    """Validate the moving average of the weights, and lend it for saving.

    The average is that of an optimizer with `use_ema=True`: after every step it becomes
    `ema_momentum` times itself plus the rest of the new weights, beginning with those after the
    first step. Training goes on from the weights themselves, which are the same bits after a
    validation as before.

    Moving mean and variance of batch normalisation are not in the optimizer's average, and those of
    the other weights do not fit it. The averaged weights get their own: before each validation, by
    one pass over a few batches of training pictures, see `reestimate_statistics`.

    Keras's `SwapEMAWeights` swaps by sums and differences on TensorFlow, which rounds the weights
    at every validation, and leaves the statistics.

    Args:
        pictures: iterable of batches `(pictures, labels)`, the same at every pass.
        num_batches: int. How many of them to estimate statistics from.
    """

    def __init__(self, pictures, num_batches):
        super().__init__()
        self.pictures = pictures
        self.num_batches = num_batches
        self._raw = self._averaged = None

    def on_test_begin(self, logs=None):
        self._raw = _values(self.model)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        reestimate_statistics(self.model, itertools.islice(self.pictures, self.num_batches))
        self._averaged = _values(self.model)
        # On JAX the model shares its arrays with the optimizer now, and a step would delete them.
        _assign(self.model, self._averaged)

    def on_test_end(self, logs=None):
        _assign(self.model, self._raw)

    @contextlib.contextmanager
    def in_place(self):
        """Put the weights of the last validation into the model while a block runs.

        For callbacks at the end of an epoch: no step may come between validation and block.
        """
        _assign(self.model, self._averaged)
        try:
            yield
        finally:
            _assign(self.model, self._raw)


def _values(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]


def _assign(model, values):
    for variable, value in zip(model.weights, values, strict=True):
        variable.assign(value)
