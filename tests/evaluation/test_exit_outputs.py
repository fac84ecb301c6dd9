import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.evaluation import NEVER, ExitOutputs

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
    probabilities = (probabilities + 1e-3) / (probabilities + 1e-3).sum(axis=-1, keepdims=True)
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


def test_outputs_are_saved_under_the_very_name(tmp_path):
    """Also without the ending, and nothing else is left in the folder."""
    ExitOutputs(PROBABILITIES, [0, 1, 1]).save(tmp_path / "val")

    assert [path.name for path in tmp_path.iterdir()] == ["val"]
    assert_array_equal(ExitOutputs.load(tmp_path / "val").labels, [0, 1, 1])


def test_a_model_is_run_once_for_all_exits(tiny_ranet, pictures):
    outputs = ExitOutputs.from_model(tiny_ranet, pictures, np.zeros(8, int), batch_size=3)

    assert outputs.probabilities.shape == (4, 8, 5)
    assert_allclose(outputs.probabilities.sum(axis=-1), 1, atol=1e-5)


def users_model(*ends):
    """Return a network as a user has it, with an activation or `None` at the end of each exit."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64)(inputs))
    return keras.Model(inputs, [keras.layers.Dense(5, activation=end)(x) for end in ends])


@pytest.mark.parametrize("ends", [(None, None), ("softmax", "softmax"), (None, "softmax")])
def test_thresholds_mean_the_same_to_a_predictor(ends):
    """A softmax is taken where one is missing, by the predictor's decision, and nowhere twice."""
    model = users_model(*ends)
    pictures = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), "uint8")

    outputs = ExitOutputs.from_model(model, pictures, np.zeros((40, 1), int))

    confidences = np.sort(outputs.confidences[0])
    threshold = float(confidences[19:21].mean())
    simulated = outputs.simulate(threshold)
    prediction = EarlyExitPredictor(model, threshold, engine="keras").predict(pictures)
    assert set(simulated.exits) == {1, 2}
    assert_array_equal(prediction.exits, simulated.exits)
    assert_array_equal(prediction.class_ids, simulated.class_ids)
    assert_allclose(prediction.confidences, simulated.confidences, atol=1e-5)


def test_the_user_may_say_what_outputs_are():
    """As to the predictor: a softmax that is no operation of its own is not to be seen."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Dense(5, activation="exponential")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x / keras.ops.sum(x, axis=-1, keepdims=True))
    pictures, labels = np.random.default_rng(0).uniform(size=(6, 4, 4, 3)), np.zeros(6, int)

    outputs = ExitOutputs.from_model(model, pictures, labels, from_logits=False)

    assert_allclose(outputs.probabilities[0], model.predict(pictures, verbose=0), atol=1e-6)
    assert ExitOutputs.from_model(model, pictures, labels).confidences.max() < 0.5
    with pytest.raises(ValueError, match="`from_logits` is True, False or"):
        ExitOutputs.from_model(model, pictures, labels, from_logits="no")


@pytest.mark.parametrize("labels, message", [
    (np.zeros(7, int), "`y` takes one whole number per picture: 8"),
    (np.zeros(8), "dtype float64"),
    (np.eye(8, dtype=int), "One-hot labels become numbers"),
    (np.arange(8), "labels from 0 to 4, as there are 5 classes. Received labels from 0 to 7"),
])
def test_labels_that_do_not_fit_are_refused_before_the_model_runs(
        monkeypatch, labels, message):
    """Running a large network takes hours, and what is wrong with the labels is known before."""
    model = users_model(None, None)
    monkeypatch.setattr(model, "predict", None)

    with pytest.raises(ValueError, match=message):
        ExitOutputs.from_model(model, np.zeros((8, 4, 4, 3)), labels)


@pytest.mark.parametrize("probabilities, labels, message", [
    (PROBABILITIES, [0, 1], "one whole number per picture: 3"),
    (PROBABILITIES, np.eye(3, dtype=int), "per picture: 3.*One-hot labels become numbers"),
    (PROBABILITIES[0], [0, 1, 1], "exits, pictures, classes"),
    (PROBABILITIES[:, :0], [], "exits, pictures, classes"),
])
def test_shapes_that_do_not_fit_are_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        ExitOutputs(probabilities, labels)


def test_labels_may_stand_in_a_column():
    """As `keras.datasets` gives them."""
    assert_array_equal(ExitOutputs(PROBABILITIES, [[0], [1], [1]]).labels, [0, 1, 1])


@pytest.mark.parametrize("wrong", [
    np.log(PROBABILITIES), 5 * np.log(PROBABILITIES) + 20, PROBABILITIES + [0.5, -0.5],
    PROBABILITIES / 2])
def test_logits_are_not_taken_for_probabilities(wrong):
    """`NEVER` is above every probability, and promises hold for nothing else."""
    with pytest.raises(ValueError, match="softmax over the last axis first, as `ExitOutputs.from"):
        ExitOutputs(wrong, [0, 1, 1])


def test_numbers_that_are_none_are_told():
    """Damaged weights are another fault than a missing softmax."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        ExitOutputs(np.where(PROBABILITIES > 0.85, np.nan, PROBABILITIES), [0, 1, 1])


@pytest.mark.parametrize("num_classes", [2, 10, 1000, 20_000])
def test_probabilities_may_be_rounded_to_half_precision(num_classes):
    """Saturated ones, and those of many classes, whose sum is off by most."""
    logits = np.random.default_rng(0).normal(size=(2, 4, num_classes)) * [[[1], [3], [10], [100]]]
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)

    for dtype in ("float16", "float32"):
        assert ExitOutputs(probabilities.astype(dtype), [0] * 4).confidences.max() < NEVER


def test_a_wrong_number_of_thresholds_is_refused():
    with pytest.raises(ValueError, match="one per exit: 2"):
        ExitOutputs(PROBABILITIES, [0, 1, 1]).simulate([0.5, 0.5, 0.5])


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_thresholds_that_are_no_confidence_are_refused(threshold):
    with pytest.raises(ValueError, match="0 or more"):
        ExitOutputs(PROBABILITIES, [0, 1, 1]).simulate(threshold)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="labels from 0 to 1.* Received labels from 0 to 2"):
        ExitOutputs(PROBABILITIES, [0, 1, 2])


@pytest.mark.parametrize("macs", [[10], [0, 0], [40, 10], [10, float("inf")], "20e6"])
def test_costs_that_no_network_has_are_refused(macs):
    """A mean of them would be a number like any other."""
    with pytest.raises(ValueError, match="`exit_macs`"):
        ExitOutputs(PROBABILITIES, [0, 1, 1]).simulate(0.6).mean_macs(macs)


def test_outputs_may_be_nested_but_in_no_dict():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64)(inputs))
    exit1, exit2 = keras.layers.Dense(5)(x), keras.layers.Dense(5)(x)
    x, y = np.full((3, 4, 4, 3), 9, "uint8"), [0, 1, 2]
    nested = ExitOutputs.from_model(keras.Model(inputs, [[exit1], exit2]), x, y)
    flat = ExitOutputs.from_model(keras.Model(inputs, [exit1, exit2]), x, y)
    assert_allclose(nested.probabilities, flat.probabilities, rtol=1e-6)
    for from_logits in ("auto", True):
        with pytest.raises(ValueError, match="are a dict, which has no order"):
            ExitOutputs.from_model(keras.Model(inputs, {"a": exit1, "b": exit2}), x, y,
                                   from_logits=from_logits)


def test_outputs_can_be_looked_for():
    """As arrays have no truth of their own, two are equal if they are one."""
    one, other = ExitOutputs(PROBABILITIES, [0, 1, 1]), ExitOutputs(PROBABILITIES, [0, 1, 1])
    assert one in [one] and one not in [other] and len({one, other}) == 2
    assert one.simulate(0.5) != other.simulate(0.5)
