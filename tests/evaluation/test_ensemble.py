"""An ensemble of static networks, evaluated one after another, read as a network of many exits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.evaluation import ExitOutputs, evaluate_anytime
from keras_adaptive.evaluation.ensemble import ensemble_macs, ensemble_outputs

LABELS = [0, 1]
# Right on the first picture, on neither, on both.
NETWORKS = [
    ExitOutputs([[[0.9, 0.1], [0.75, 0.25]]], LABELS),
    ExitOutputs([[[0.2, 0.8], [0.55, 0.45]]], LABELS),
    ExitOutputs([[[0.7, 0.3], [0.05, 0.95]]], LABELS),
]


def test_exit_k_averages_the_first_k_networks():
    """By hand: means of the probabilities, from which accuracies follow."""
    outputs = ensemble_outputs(NETWORKS)

    assert_allclose(outputs.probabilities, [
        [[0.9, 0.1], [0.75, 0.25]],
        [[0.55, 0.45], [0.65, 0.35]],
        [[0.6, 0.4], [0.45, 0.55]],
    ], rtol=1e-6)
    assert_array_equal(outputs.labels, LABELS)
    assert outputs.accuracies() == [0.5, 0.5, 1.0]


def test_a_single_network_is_its_own_ensemble():
    outputs = ensemble_outputs(NETWORKS[:1])

    assert_array_equal(outputs.probabilities, NETWORKS[0].probabilities)


def test_costs_add():
    assert ensemble_macs([[10], [40], [25]]) == [10, 50, 75]
    assert ensemble_macs([np.array([4e7]), [2.0]]) == [40_000_000, 40_000_002]


def test_an_ensemble_is_evaluated_like_a_network_with_exits():
    """A picture that an early member is sure of spares the later ones."""
    outputs, macs = ensemble_outputs(NETWORKS), ensemble_macs([[10], [40], [25]])

    points = evaluate_anytime(outputs, macs)
    simulated = outputs.simulate(0.8)

    assert [(point.accuracy, point.mean_macs) for point in points] == [
        (0.5, 10), (0.5, 50), (1.0, 75)]
    assert_array_equal(simulated.exits, [1, 3])
    assert simulated.mean_macs(macs) == pytest.approx((10 + 75) / 2)


@pytest.mark.parametrize("second, message", [
    (ExitOutputs(np.full((2, 2, 2), 0.5), LABELS), "Network 2 has 2"),
    (ExitOutputs([[[0.5, 0.5], [0.5, 0.5]]], [1, 0]), "labels of network 2"),
    (ExitOutputs([[[0.5, 0.5]]], [0]), r"\(2, 2\) .* network 1 and \(1, 2\) of network 2"),
    (ExitOutputs(np.full((1, 2, 3), 1 / 3), LABELS), r"\(2, 3\) of network 2"),
])
def test_networks_that_do_not_answer_for_the_same_pictures_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        ensemble_outputs([NETWORKS[0], second])


@pytest.mark.parametrize("second", [[], [10, 20], 40, [0], [40.55], [np.nan], [np.inf], ["40"]])
def test_costs_that_are_not_one_positive_number_are_refused(second):
    with pytest.raises(ValueError, match="network 2: "):
        ensemble_macs([[10], second])


@pytest.mark.parametrize("function", [ensemble_outputs, ensemble_macs])
def test_an_empty_ensemble_is_refused(function):
    with pytest.raises(ValueError, match="one network or more"):
        function([])
