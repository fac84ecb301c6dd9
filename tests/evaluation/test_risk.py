import math

import keras
import numpy as np
import pytest

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.evaluation import NEVER, choose_safe_threshold

COSTS = [1, 2, 3, 4]
NUM_EXITS, NUM_CLASSES = 3, 4


def draw_pictures(num_pictures, seed):
    """Draw pictures of one pixel, with a channel per exit and class, and their labels.

    Later exits see the label more clearly; at hard pictures all see it less.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, num_pictures)
    seen = rng.normal(size=(num_pictures, NUM_EXITS, NUM_CLASSES))
    seen[np.arange(num_pictures), :, labels] += np.linspace(1.5, 4, NUM_EXITS)
    seen[np.arange(num_pictures), :, labels] -= 1.5 * rng.normal(size=(num_pictures, 1))
    pictures = np.clip(128 + 10 * seen, 0, 255).astype("float32")
    return pictures.reshape(num_pictures, 1, 1, -1), labels


class ByHand:
    """An engine whose exits read their own channels as logits.

    In NumPy: with some backends, thousands of calls for a few pictures take minutes.
    """

    name, is_thread_safe = "by hand", True

    def prepare(self, stages, from_logits):
        assert from_logits == [True] * NUM_EXITS

    def reads(self, index):
        return ("pictures",)

    def makes(self, index):
        return ()

    def run(self, index, tensors, batch_size):
        logits = tensors[0].reshape(-1, NUM_EXITS, NUM_CLASSES)[:, index - 1] * 0.15
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), []

    def gather(self, parts):
        return np.concatenate([tensor if rows is None else tensor[rows] for tensor, rows in parts])


@pytest.fixture(scope="module")
def predictor():
    """A predictor of the pictures that are drawn; the model tells costs and shapes only."""
    inputs = keras.Input((1, 1, NUM_EXITS * NUM_CLASSES))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(NUM_CLASSES)(flat) for _ in range(NUM_EXITS)])
    return EarlyExitPredictor(model, engine=ByHand())


def tail(count, runs, probability):
    """Return how probable `count` events or more are in independent runs."""
    return sum(math.comb(runs, k) * probability**k * (1 - probability)**(runs - k)
               for k in range(count, runs + 1))


@pytest.mark.parametrize("confidence, runs", [(0.8, 200), (0.95, 400)])
def test_the_promised_loss_is_exceeded_no_more_often_than_promised(predictor, confidence, runs):
    """A predictor is calibrated on many draws of 400 pictures from a population, and measured on
    all of it. The promise counts as broken where as many draws beyond the bound, each as probable
    as was promised, would come up in fewer than one of 1000 such tests."""
    population, labels = draw_pictures(20_000, seed=1)
    predictor.threshold = NEVER
    whole = predictor.predict(population, batch_size=4096)
    full = (whole.class_ids == labels).mean()
    rng, max_loss = np.random.default_rng(0), 0.05
    known, costs, num_exceeded = {}, [], 0
    for _ in range(runs):
        rows = rng.integers(0, len(labels), 400)
        predictor.calibrate(population[rows], labels[rows], max_loss=max_loss,
                            confidence=confidence, batch_size=400, verbose=False)
        if predictor.threshold not in known:
            early = predictor.predict(population, batch_size=4096, verbose=False)
            known[predictor.threshold] = (full - (early.class_ids == labels).mean(),
                                          early.summary().mean_cost_share)
        loss, cost = known[predictor.threshold]
        num_exceeded += loss > max_loss
        costs.append(cost)

    assert tail(num_exceeded, runs, 1 - confidence) > 1e-3, num_exceeded
    assert num_exceeded > 0  # nothing is promised that nothing could break
    assert np.mean(costs) < 0.8  # and the promise is not kept by saving nothing


def test_too_few_pictures_show_nothing(draw_outputs):
    chosen = choose_safe_threshold(draw_outputs(20, seed=0), COSTS, max_loss=0.01)

    assert chosen.thresholds == (NEVER, NEVER, NEVER, 0.0)
    assert chosen.exit_shares == (0, 0, 0, 1)


def test_a_larger_loss_allows_a_lower_threshold(draw_outputs):
    outputs = draw_outputs(5000, seed=0)

    careful, bold = (choose_safe_threshold(outputs, COSTS, loss) for loss in (0.01, 0.05))

    assert bold.thresholds[0] < careful.thresholds[0] < NEVER
    assert bold.mean_macs < careful.mean_macs


@pytest.mark.parametrize("wrong", [{"max_loss": 0}, {"max_loss": 1.5},
                                   {"max_loss": 0.1, "confidence": 95}])
def test_shares_out_of_range_are_refused(draw_outputs, wrong):
    """Rather than a promise made that means nothing."""
    with pytest.raises(ValueError, match="is a share between 0 and 1"):
        choose_safe_threshold(draw_outputs(10, seed=0), COSTS, **wrong)
