"""The average of weights by hand, and what is validated and kept of it."""

import keras
import numpy as np
import pytest

from keras_adaptive.training.averaging import AveragedWeights


class Notes(keras.callbacks.Callback):
    """Writes down the weights at the end of an epoch, as they are and as they are kept."""

    def __init__(self, average):
        super().__init__()
        self.average = average

    def on_epoch_end(self, epoch, logs=None):
        self.raw = self.model.get_weights()
        with self.average.in_place():
            self.kept = self.model.get_weights()
        self.after = self.model.get_weights()


def test_average_by_hand():
    """The weight 1 falls by 1/4 in each of two steps: 3/4, 1/2, and in the average, half of which
    is new at each step, 5/8. The pictures are 1 and 3: times 5/8 their mean is 5/4 and their
    variance 25/64. Training keeps the weight 1/2 and its own statistics."""
    weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones",
                                kernel_regularizer=keras.regularizers.L1(1.0))  # a slope of 1
    norm = keras.layers.BatchNormalization(momentum=0.0, scale=False, center=False)
    model = keras.Sequential([keras.Input((1,)), weight, norm])
    model.compile(keras.optimizers.SGD(0.25, use_ema=True, ema_momentum=0.5),
                  loss=lambda y, y_pred: 0 * y_pred, jit_compile=keras.backend.backend() == "jax")
    pictures = np.array([[1.0], [3.0]], "float32")
    average = AveragedWeights([(pictures, None), (pictures * 100, None)], num_batches=1)
    notes = Notes(average)

    logs = model.fit(np.concatenate([pictures, pictures]), np.zeros((4, 1)), batch_size=2,
                     shuffle=False, validation_data=(pictures, np.zeros((2, 1))), verbose=0,
                     callbacks=[average, notes]).history

    assert logs["val_loss"][0] == pytest.approx(5 / 8)  # that of the regularizer
    assert np.concatenate(notes.kept, axis=None) == pytest.approx([5 / 8, 5 / 4, 25 / 64])
    # The statistics of the last step are those that the weight had before it, 3/4.
    assert np.concatenate(notes.raw, axis=None) == pytest.approx([1 / 2, 3 / 2, 9 / 16])
    for ours, theirs in zip(notes.after, notes.raw):
        np.testing.assert_array_equal(ours, theirs)


def test_a_failure_while_saving_leaves_the_weights_of_the_run():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(use_ema=True))
    model.optimizer.build(model.trainable_variables)
    average = AveragedWeights([np.ones((2, 1))], num_batches=1)
    average.set_model(model)
    before = model.get_weights()
    average.on_test_begin()
    assert (model.get_weights()[0] != before[0]).any()  # the average of no step is 0

    with pytest.raises(OSError, match="disk full"), average.in_place():
        raise OSError("disk full")

    for ours, theirs in zip(model.get_weights(), before):
        np.testing.assert_array_equal(ours, theirs)
