import keras
import numpy as np
import pytest

from keras_adaptive.layers import FanInUniform, FanOutNormal

SHAPE = (3, 3, 64, 96)


def test_fan_out_normal_has_the_papers_deviation():
    values = keras.ops.convert_to_numpy(FanOutNormal(seed=1)(SHAPE))

    assert values.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 96)), rel=0.02)
    assert abs(values.mean()) < 1e-3


def test_fan_in_uniform_stays_within_its_limit():
    values = keras.ops.convert_to_numpy(FanInUniform(seed=1)(SHAPE))

    limit = 1 / np.sqrt(3 * 3 * 64)
    assert np.abs(values).max() == pytest.approx(limit, rel=0.01)
    assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("initializer", [FanOutNormal, FanInUniform])
def test_layers_differ_and_runs_repeat(initializer):
    """Two layers of one shape start apart; the same Keras seed gives the same network."""
    keras.utils.set_random_seed(3)
    first, second = (keras.ops.convert_to_numpy(initializer()(SHAPE)) for _ in range(2))
    keras.utils.set_random_seed(3)
    again = keras.ops.convert_to_numpy(initializer()(SHAPE))

    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(first, again)
