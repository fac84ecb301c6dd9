import numpy as np
import pytest

from keras_adaptive.training.splits import Data, Split


@pytest.fixture
def tiny_data():
    """Forty pictures whose class shows in their brightness, sixteen more for validation."""
    random = np.random.default_rng(0)

    def split(count):
        y = np.arange(count) % 10
        noise = random.integers(0, 25, (count, 32, 32, 3))
        return Split((y[:, None, None, None] * 23 + noise).astype("uint8"), y.astype("int64"))

    return Data(split(40), split(16), split(8), tuple("abcdefghij"))


@pytest.fixture
def content():
    """The tables of a recipe with two phases and a network of one small sub-network."""
    return {
        "about": {"title": "A test"},
        "model": {
            "configuration": "ranet_c1_lg_cifar10", "normalization": "cifar10", "scales": [1],
            "growth_factors": [1], "channels": 4, "growth_rate": 4, "layers_per_block": 1,
            "layer_growth": "even", "pooling": "global", "head_filters": 8,
        },
        "data": {"name": "cifar10"},
        "training": {
            "batch_size": 8, "peak_learning_rate": 0.1, "warmup_epochs": 1, "momentum": 0.9,
            "weight_decay": 1e-3,
            "phases": [{"epochs": 1, "image_size": 20}, {"epochs": 2, "image_size": 32}],
        },
    }
