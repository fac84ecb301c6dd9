"""Gradient equilibrium in networks: against the authors' program, and for nothing at inference."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.graph import exit_macs, split_into_stages
from keras_adaptive.layers import GradientScale
from keras_adaptive.models import RANet


def gradients_of(model, x, labels):
    """Return the gradients of convolutions and dense layers by path, in evaluation mode.

    They are read off one step of gradient descent. Frozen batch normalisation uses its moving
    statistics in training, too.
    """
    def freeze(layer):
        for part in layer._flatten_layers():
            if isinstance(part, keras.layers.BatchNormalization):
                part.trainable = False

    freeze(model)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables}
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    model.train_on_batch(x, labels)
    return {v.path: before[v.path] - keras.ops.convert_to_numpy(v)
            for v in model.trainable_variables}


@pytest.mark.parametrize("kind", ["plain", "equilibrium"])
def test_gradients_equal_those_of_the_authors_program(equilibrium_case, parity, kind):
    model, places = equilibrium_case(gradient_equilibrium=kind == "equilibrium")
    with np.load(parity / "imta" / "equilibrium.npz") as given:
        x, labels = np.moveaxis(given["x"], 1, -1), given["labels"]
        theirs = {key.split("/", 1)[1]: given[key] for key in given if key.startswith(f"{kind}/")}

    ours = gradients_of(model, x, labels)

    compared = 0
    for key, path in places.items():
        if path not in ours or key not in theirs:
            continue
        gradient, expected = ours[path], theirs[key]
        if expected.ndim == 0:
            assert_allclose(np.linalg.norm(gradient), expected, rtol=1e-3, atol=1e-5)
        else:
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[gradient.ndim]
            assert_allclose(gradient.transpose(axes), expected, atol=2e-5, rtol=1e-3)
        compared += 1
    assert compared == len(ours) > 30


def test_equilibrium_changes_no_answer_and_no_cost(tiny_arguments, pictures):
    plain = RANet(**tiny_arguments)
    balanced = RANet(**tiny_arguments, gradient_equilibrium=True)
    balanced.set_weights(plain.get_weights())

    for ours, theirs in zip(balanced.predict(pictures, verbose=0),
                            plain.predict(pictures, verbose=0)):
        assert_array_equal(ours, theirs)
    assert exit_macs(balanced) == exit_macs(plain)
    assert [len(stage.variables) for stage in split_into_stages(balanced)] == [
        len(stage.variables) for stage in split_into_stages(plain)]


def test_every_exit_but_the_last_is_balanced_twice(tiny_arguments):
    """Once for its head, once for what follows it in the same sub-network."""
    model = RANet(**tiny_arguments, gradient_equilibrium=True)

    scales = {layer.name: layer.scale for layer in model.layers
              if isinstance(layer, GradientScale)}

    assert model.num_exits == 4
    assert scales["equilibrium1"] == 1 / 4
    assert scales["equilibrium1_onward"] == 3
    assert scales["equilibrium4"] == 1
