import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.evaluation import ExitOutputs

PROBABILITIES = np.array(
    [[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], [[0.8, 0.2], [0.3, 0.7], [0.2, 0.8]]], "float32")


def test_pictures_leave_at_the_first_exit_that_is_sure_enough():
    """By hand: only the first picture reaches 0.8 at exit 1; equality is enough."""
    outputs = ExitOutputs(PROBABILITIES, [0, 1, 1])

    simulated = outputs.simulate(0.6)

    assert_array_equal(simulated.exits, [1, 1, 2])
    assert_array_equal(simulated.class_ids, [0, 0, 1])
    assert_allclose(simulated.confidences, [0.9, 0.6, 0.8])
    assert simulated.accuracy == pytest.approx(2 / 3)
    assert simulated.mean_macs([10, 40]) == pytest.approx(20)


def test_accuracy_of_each_exit_counts_all_pictures():
    assert ExitOutputs(PROBABILITIES, [0, 1, 1]).accuracies() == pytest.approx([1 / 3, 1])


@settings(max_examples=30, deadline=None)
@given(probabilities=hnp.arrays("float32", (3, 6, 4), elements=st.floats(0, 1, width=32)),
       thresholds=st.lists(st.floats(0, 1.5, width=32), min_size=3, max_size=3))
def test_simulation_equals_a_loop_over_pictures(probabilities, thresholds):
    """The vectorised choice is the plain rule, also for ties and thresholds above 1."""
    simulated = ExitOutputs(probabilities, np.zeros(6, int)).simulate(thresholds)

    for picture in range(6):
        for k in range(3):
            row = probabilities[k, picture]
            if row.max() >= np.float32(thresholds[k]) or k == 2:
                break
        assert simulated.exits[picture] == k + 1
        assert simulated.class_ids[picture] == row.argmax()


def test_saved_outputs_come_back(tmp_path):
    outputs = ExitOutputs(PROBABILITIES, [0, 1, 1])

    outputs.save(tmp_path / "outputs.npz")
    again = ExitOutputs.load(tmp_path / "outputs.npz")

    assert_array_equal(again.probabilities, outputs.probabilities)
    assert_array_equal(again.labels, outputs.labels)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs.npz"]


def test_a_model_is_run_once_for_all_exits(tiny_ranet, pictures):
    outputs = ExitOutputs.from_model(tiny_ranet, pictures, np.zeros(8, int), batch_size=3)

    assert outputs.probabilities.shape == (4, 8, 5)
    assert_allclose(outputs.probabilities.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("probabilities, labels", [
    (PROBABILITIES, [0, 1]), (PROBABILITIES[0], [0, 1, 1]), (PROBABILITIES[:, :0], [])])
def test_shapes_that_do_not_fit_are_refused(probabilities, labels):
    with pytest.raises(ValueError, match="exits, pictures, classes"):
        ExitOutputs(probabilities, labels)


def test_a_wrong_number_of_thresholds_is_refused():
    with pytest.raises(ValueError, match="one per exit: 2"):
        ExitOutputs(PROBABILITIES, [0, 1, 1]).simulate([0.5, 0.5, 0.5])


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_thresholds_that_are_no_confidence_are_refused(threshold):
    with pytest.raises(ValueError, match="0 or more"):
        ExitOutputs(PROBABILITIES, [0, 1, 1]).simulate(threshold)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        ExitOutputs(PROBABILITIES, [0, 1, 2])
