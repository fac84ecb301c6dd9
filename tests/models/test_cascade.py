"""Two networks in a row, read by every tool as one network with two exits."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive import (
    EarlyExitPredictor,
    ExitOutputs,
    cascade,
    exit_macs,
    export_stages,
    split_into_stages,
)
from keras_adaptive.graph import exit_parameters
from keras_adaptive.timing import compile_whole

NUM_CLASSES = 5


def make_classifier(size, filters, activation=None, name="net", num_classes=NUM_CLASSES):
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 64, offset=-2)(inputs)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(num_classes, activation=activation, name="top")(x)
    return keras.Model(inputs, x, name=name)


def make_downscaler(size=16):
    pictures = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 255)(pictures)
    x = keras.layers.Conv2D(6, 5, strides=2, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(3, 5, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(beta_initializer="ones")(x))
    return keras.Model(pictures, keras.layers.Rescaling(255.0)(x), name="downscaler")


@pytest.fixture(scope="module")
def parts():
    keras.utils.set_random_seed(3)
    return make_downscaler(), make_classifier(8, 6), make_classifier(16, 8)


@pytest.fixture(scope="module")
def model(parts):
    return cascade(*parts)


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), "uint8")


def _threshold(model, pictures):
    """Return a threshold at which about half of the pictures go on."""
    outputs = ExitOutputs.from_model(model, pictures, np.zeros(len(pictures), int))
    return float(np.median(outputs.confidences[0]))


def test_exits_answer_as_the_networks_alone(parts, model, batch):
    """Exit 1 is the student on thumbnails, exit 2 the teacher on the picture itself."""
    downscaler, student, teacher = parts

    first, second = model.predict(batch, verbose=0)

    assert model.output_names == ["exit1", "exit2"]
    thumbnails = downscaler.predict(batch, verbose=0)
    np.testing.assert_allclose(first, student.predict(thumbnails, verbose=0), atol=1e-5)
    np.testing.assert_allclose(second, teacher.predict(batch, verbose=0), atol=1e-5)


@pytest.mark.parametrize("separate", [False, True])
def test_networks_that_end_in_a_softmax_give_logits(parts, batch, separate):
    """The answers are the networks' own probabilities; their weights are used, not lost."""
    student, teacher = (make_classifier(size, 4, None if separate else "softmax")
                        for size in (8, 16))
    if separate:
        student, teacher = (keras.Model(net.inputs, keras.layers.Softmax()(net.outputs[0]))
                            for net in (student, teacher))
    labels = np.zeros(len(batch), int)

    outputs = ExitOutputs.from_model(cascade(parts[0], student, teacher), batch, labels)

    expected = teacher.predict(batch, verbose=0)
    np.testing.assert_allclose(outputs.probabilities[1], expected, atol=1e-5)
    assert (outputs.probabilities.sum(axis=2) > 0.999).all()


def test_going_on_costs_all_three_parts(parts, model):
    """By hand: what the thumbnail's way cost is not given back by going on."""
    downscaler, student, teacher = parts
    early = exit_macs(downscaler)[-1] + exit_macs(student)[-1]

    assert exit_macs(model) == [early, early + exit_macs(teacher)[-1]] == model.exit_macs
    assert exit_macs(downscaler) == [8 * 8 * 75 * 6 + 8 * 8 * 25 * 6 * 3]
    assert exit_parameters(model)[-1] == sum(exit_parameters(part)[-1] for part in parts)


def test_the_picture_itself_is_carried_to_the_second_stage(model):
    """Nothing that the student made is read again."""
    first, second = split_into_stages(model)

    assert second.reads == first.reads == first.model_inputs
    assert not first.makes


@settings(max_examples=6, deadline=None)
@given(share=st.floats(0, 1), batch_size=st.integers(1, 13))
def test_skipping_work_does_not_change_any_answer(model, batch, share, batch_size):
    """Whatever the threshold and batch size, answers are those of the whole model."""
    outputs = ExitOutputs.from_model(model, batch, np.zeros(len(batch), int))
    confidences = np.sort(outputs.confidences[0])
    # Between two confidences, so that rounding moves no picture.
    place = int(share * (len(confidences) - 1))
    threshold = float(confidences[place:place + 2].mean())
    expected = outputs.simulate(threshold)

    prediction = EarlyExitPredictor(model, threshold, engine="keras").predict(batch, batch_size)

    assert np.array_equal(prediction.exits, expected.exits)
    assert np.array_equal(prediction.class_ids, expected.class_ids)
    assert np.array_equal(prediction.macs, np.array(model.exit_macs)[expected.exits - 1])


def test_arithmetic_of_a_cascade():
    """70 % leave early and are right in 95 % of cases, the rest in 70 %: 0.875 right for 0.55."""
    exits = np.repeat([1, 2], [700, 300])
    early_right, late_right = np.arange(1000) < 665, (np.arange(1000) - 700) < 210
    probabilities = np.zeros((2, 1000, 2))
    for number, (confidence, right) in enumerate((
            (np.where(exits == 1, 0.9, 0.6), early_right), (np.full(1000, 0.9), late_right))):
        probabilities[number, :, 0] = np.where(right, confidence, 1 - confidence)
        probabilities[number, :, 1] = 1 - probabilities[number, :, 0]
    outputs = ExitOutputs(probabilities, np.zeros(1000, int))

    simulated = outputs.simulate(0.8)

    assert simulated.accuracy == pytest.approx(0.875)
    assert simulated.mean_macs([0.25, 1.25]) == pytest.approx(0.55)


def test_thresholds_are_calibrated_for_a_budget(model, batch):
    """The predictor's own calibration keeps the mean cost within what was asked for."""
    budget = np.mean(model.exit_macs)
    predictor = EarlyExitPredictor(model, engine="keras")

    predictor.calibrate(batch, np.arange(12) % NUM_CLASSES, macs=budget)

    macs = predictor.predict(batch).macs
    assert macs.mean() <= budget and model.exit_macs[0] in macs


def test_saved_and_loaded_it_answers_the_same(model, batch, tmp_path):
    path = tmp_path / "cascade.keras"
    model.save(path)

    loaded = keras.saving.load_model(path)

    assert loaded.exit_macs == model.exit_macs
    for expected, logits in zip(model.predict(batch, verbose=0),
                                loaded.predict(batch, verbose=0), strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_exported_stages_hold_their_own_network_and_answer_the_same(model, batch, tmp_path):
    """The first stage's file has the thumbnail's way alone, and exports answer as the model."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    threshold = _threshold(model, batch)
    expected = EarlyExitPredictor(model, threshold, engine="keras").predict(batch)

    folder = export_stages(model, tmp_path / "stages", thresholds=threshold)
    prediction = EarlyExitPredictor.from_export(folder).predict(batch)

    assert set(expected.exits) == {1, 2}
    np.testing.assert_array_equal(prediction.class_ids, expected.class_ids)
    np.testing.assert_array_equal(prediction.exits, expected.exits)
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-5)


def test_written_as_one_graph_it_equals_the_model(model, batch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    for expected, logits in zip(model.predict(batch, verbose=0),
                                compile_whole(model, "onnxruntime")(batch), strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_two_networks_of_the_same_picture(batch):
    """Without a downscaler it is any small network before any large one, here of one name."""
    small, large = make_classifier(16, 2), make_classifier(16, 8)

    model = cascade(None, small, large, class_names=np.array(list("abcde")))

    assert model.exit_macs == [exit_macs(small)[-1], exit_macs(small)[-1] + exit_macs(large)[-1]]
    assert model.class_names == list("abcde")
    np.testing.assert_allclose(model.predict(batch, verbose=0)[0],
                               small.predict(batch, verbose=0), atol=1e-5)


def test_parts_are_left_as_they_are(parts, batch):
    """Joining trains, renames and freezes nothing."""
    before = [(part.name, part.predict(x, verbose=0), len(part.trainable_variables))
              for part, x in zip(parts, (batch, batch[:, :8, :8], batch))]

    cascade(*parts)

    for part, x, (name, expected, count) in zip(parts, (batch, batch[:, :8, :8], batch), before):
        assert part.name == name and len(part.trainable_variables) == count
        np.testing.assert_array_equal(part.predict(x, verbose=0), expected)


@pytest.mark.parametrize("arguments, message", [
    (lambda d, s, t: (None, s, t), "needs a `downscaler`"),
    (lambda d, s, t: (d, t, t), "makes thumbnails of the shape"),
    (lambda d, s, t: (make_downscaler(32), s, t), "see the same picture"),
    (lambda d, s, t: (d, make_classifier(8, 2, num_classes=3), t), "same classes"),
    (lambda d, s, t: (d, d, t), "`student` has one input"),
    (lambda d, s, t: (s, s, t), "`downscaler` has one input"),
    (lambda d, s, t: (d, s, "teacher"), "`teacher` is a Functional"),
])
def test_parts_that_do_not_fit_are_named(parts, arguments, message):
    with pytest.raises(ValueError, match=message):
        cascade(*arguments(*parts))
