"""Answers of a made-up network that is better at later exits, on easy and hard pictures."""

import numpy as np
import pytest

from keras_adaptive.evaluation import ExitOutputs


@pytest.fixture(scope="session")
def draw_outputs():
    """Return a function `(num_pictures, seed)` that draws pictures, always of the same kind."""
    def draw(num_pictures, seed, num_exits=4, num_classes=10):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, num_classes, num_pictures)
        difficulty = rng.normal(size=num_pictures)
        logits = rng.normal(size=(num_exits, num_pictures, num_classes))
        skill = np.linspace(2, 4.5, num_exits)[:, None]
        logits[:, np.arange(num_pictures), labels] += skill - 1.5 * difficulty
        powers = np.exp(1.5 * logits)
        return ExitOutputs(powers / powers.sum(axis=-1, keepdims=True), labels)
    return draw
