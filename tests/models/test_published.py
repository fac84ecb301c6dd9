"""Parameters and multiply-adds of the published networks equal the authors' exactly."""

import functools
import json

import keras
import numpy as np
import pytest

from keras_adaptive import models
from keras_adaptive.graph import costs, exit_macs, exit_parameters
from keras_adaptive.models import PUBLISHED, DenseNet, ResNet
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade

# Static baselines; their counts are checked by hand in test_baselines.py.
BASELINES = [f"{network}_{data}" for data in ("cifar10", "cifar100") for network in (
    "resnet8", "resnet14", "resnet20", "resnet26", "resnet32", "resnet56", "densenet_bc40_k12",
    "densenet_bc100_k12")]
# Ours, of a published teacher; their counts are checked by hand in test_thumbnet_cascade.py.
THUMBNETS = [f"thumbnet_r{ratio}_{teacher}" for ratio in (2, 4)
             for teacher in ("resnet20_cifar10", "resnet20_cifar100", "ranet_imagenet")]
ADAPTIVE = [name for name in PUBLISHED if name not in BASELINES + THUMBNETS]
FIELDS = {"reference": "reference_params", "lazy": "lazy_params"}


@pytest.fixture(scope="session")
def counts(parity):
    return json.loads((parity / "published_counts.json").read_text())


def test_all_published_names_are_there(counts):
    assert sorted(ADAPTIVE) == sorted(counts)


def test_only_static_networks_are_excused_from_the_authors_counts():
    """An adaptive network that the file does not know cannot pass as a baseline."""
    static = [name for name, (network, _) in PUBLISHED.items() if network in (ResNet, DenseNet)]
    cascades = [name for name, (network, _) in PUBLISHED.items() if network is ThumbNetCascade]

    assert sorted(static) == sorted(BASELINES)
    assert sorted(cascades) == sorted(THUMBNETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTIVE)
def test_counts_equal_the_authors(counts, name, monkeypatch):
    """Every convention of the file, every exit, to the last digit."""
    # The five counts read one flat graph.
    monkeypatch.setattr(costs, "flatten", functools.cache(costs.flatten))
    expected = counts[name]
    # Variables with shapes and no values: the largest networks have 500 MB of them.
    with keras.StatelessScope(initialize_variables=False):
        model = models.build(name)
    keras.utils.clear_session(free_memory=False)  # or Keras would make the values later

    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert parameters == expected["parameters"]
    assert model.num_exits == expected["num_exits"]
    for convention in ("reference", "convolution_dense", "lazy"):
        assert exit_macs(model, convention) == expected[convention], convention
    for convention, field in FIELDS.items():
        assert exit_parameters(model, convention) == expected[field], field


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'ranet_c1_lg_cifar10'"):
        models.build("ranet_c1_lg_cifar")


def test_unknown_arguments_suggest_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'normalization'"):
        models.build("ranet_c1_lg_cifar10", normalisation="cifar10")
