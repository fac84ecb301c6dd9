"""Parameters and multiply-adds of the published networks equal the authors' exactly."""

import json

import keras
import numpy as np
import pytest

from keras_adaptive import models
from keras_adaptive.graph import exit_macs, exit_parameters
from keras_adaptive.models import PUBLISHED

FIELDS = {"reference": "reference_params", "lazy": "lazy_params"}


@pytest.fixture(scope="session")
def counts(parity):
    return json.loads((parity / "published_counts.json").read_text())


@pytest.fixture
def no_memory(monkeypatch):
    """Weights are one zero seen from everywhere, so that the largest networks take no memory."""
    def zeros(self, shape, dtype=None):
        return np.broadcast_to(np.zeros((), "float32"), shape)
    for initializer in ("FanOutNormal", "FanInUniform"):
        monkeypatch.setattr(f"keras_adaptive.layers.initializers.{initializer}.__call__", zeros)


def test_all_published_names_are_there(counts):
    assert sorted(PUBLISHED) == sorted(counts)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_equal_the_authors(counts, name):
    """Every convention of the file, every exit, to the last digit."""
    expected = counts[name]
    with keras.StatelessScope():  # variables have shapes, and no values
        model = models.build(name)

    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert parameters == expected["parameters"]
    assert model.num_exits == expected["num_exits"]
    for convention in ("reference", "convolution_dense", "lazy"):
        assert exit_macs(model, convention) == expected[convention], convention
    for convention, field in FIELDS.items():
        assert exit_parameters(model, convention) == expected[field], field


@pytest.mark.parametrize("arguments, message", [
    (("ranet_c1_lg_cifar",), "Did you mean 'ranet_c1_lg_cifar10'"),
])
def test_unknown_names_suggest_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(*arguments)


def test_unknown_arguments_suggest_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'normalization'"):
        models.build("ranet_c1_lg_cifar10", normalisation="cifar10")
