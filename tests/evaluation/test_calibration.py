import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive import content
from keras_adaptive.calibrated import CalibratedThresholds
from keras_adaptive.evaluation import (
    ExitOutputs,
    confidence_auroc,
    expected_calibration_error,
    fit_temperatures,
    measure_calibration,
    scale_temperatures,
)
from keras_adaptive.evaluation.calibration import read_calibration, write_calibration


def outputs_of(sure, is_right):
    """One exit, two classes: confidences, and whether the surer class is the label."""
    sure = np.asarray(sure)
    return ExitOutputs(np.stack([sure, 1 - sure], axis=-1)[None], 1 - np.asarray(is_right, int))


def test_calibration_error_by_hand():
    """Two bins are filled: 0.9 sure and half right (gap 0.4), 0.6 sure and right (gap 0.4)."""
    outputs = outputs_of([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1])

    assert expected_calibration_error(outputs) == pytest.approx([0.4])


def test_auroc_by_hand():
    """Of the pairs of a right and a wrong answer, 0.9 > 0.7 and 0.7 = 0.7: 1.5 of 2."""
    assert confidence_auroc(outputs_of([0.9, 0.7, 0.7], [1, 1, 0])) == [0.75]


def test_auroc_of_an_exit_that_is_always_right_is_unknown():
    assert np.isnan(confidence_auroc(outputs_of([0.9, 0.7], [1, 1]))[0])


@settings(max_examples=8, deadline=None)
@given(temperature=st.floats(0.3, 4))
def test_the_temperature_that_spoilt_honest_probabilities_is_found(temperature):
    """Labels drawn from the probabilities make them honest; then logits are multiplied."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 5)) * 1.5
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (honest.cumsum(axis=1) < rng.uniform(size=(20000, 1))).sum(axis=1).clip(max=4)
    spoilt = np.exp(logits * temperature)
    spoilt /= spoilt.sum(axis=1, keepdims=True)
    outputs = ExitOutputs(spoilt[None], labels)

    found = fit_temperatures(outputs)

    assert found == pytest.approx([temperature], rel=0.05)
    mended = scale_temperatures(outputs, found)
    np.testing.assert_allclose(mended.probabilities[0], honest, atol=0.02)
    assert expected_calibration_error(mended)[0] < 0.015


def test_a_temperature_changes_no_answer(draw_outputs):
    outputs = draw_outputs(300, seed=0)

    scaled = scale_temperatures(outputs, [0.5, 1, 2, 3])

    assert scaled.accuracies() == outputs.accuracies()
    np.testing.assert_allclose(scaled.probabilities.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(scaled.probabilities[1], outputs.probabilities[1])
    assert (scaled.confidences[2] < outputs.confidences[2]).all()


@pytest.mark.parametrize("temperatures", [[1, 1], [1, 1, 1, 0], [1, 1, 1, np.nan]])
def test_temperatures_that_divide_nothing_are_refused(draw_outputs, temperatures):
    with pytest.raises(ValueError, match="one finite number above 0 per exit: 4"):
        scale_temperatures(draw_outputs(5, seed=0), temperatures)


def test_saturated_probabilities_have_a_temperature():
    """Probabilities of exactly 0 are logits that float32 could not tell from minus infinity."""
    outputs = outputs_of([1.0, 1.0, 1.0, 0.9], [1, 1, 0, 1])

    temperature, = fit_temperatures(outputs)

    assert temperature > 1
    assert np.isfinite(scale_temperatures(outputs, [temperature]).probabilities).all()


def test_calibration_is_measured_with_and_without_temperature_and_read_again(tmp_path):
    """A temperature of 2 brings 0.9 to 0.75: three of four are right."""
    outputs = outputs_of([0.9] * 4, [1, 1, 1, 0])

    point, = measure_calibration(outputs, [2.0])

    assert (point.exit, point.temperature) == (1, 2.0)
    assert point.error_before == pytest.approx(0.15)
    assert point.error_after == pytest.approx(0, abs=1e-6)
    assert point.auroc_before == point.auroc_after == 0.5
    unknown = dataclasses.replace(point, exit=2, auroc_before=float("nan"))
    write_calibration(tmp_path / "results/calibration.csv", [point, unknown])
    read = read_calibration(tmp_path / "results/calibration.csv")
    assert [p.exit for p in read] == [1, 2]
    assert read[0].error_before == pytest.approx(point.error_before, rel=1e-5)
    assert np.isnan(read[1].auroc_before) and read[1].auroc_after == 0.5
    with pytest.raises(ValueError, match="one finite number above 0 per exit"):
        measure_calibration(outputs, [2.0, 1.0])


@pytest.mark.parametrize("record", sorted(content.folder("zoo").glob("*/model.json")),
                         ids=lambda record: record.parent.name)
def test_the_zoos_networks_are_measured_with_their_own_temperatures(record):
    points = read_calibration(record.parent / "results" / "calibration.csv")

    stored = CalibratedThresholds.from_file(record.parent / "thresholds.json")
    assert [point.exit for point in points] == list(range(1, len(points) + 1))
    assert [point.temperature for point in points] == pytest.approx(stored.temperatures, rel=1e-5)
    assert all(0 <= point.error_after <= 1 and 0.5 < point.auroc_after < 1 for point in points)


def test_a_malformed_table_of_calibration_is_refused(tmp_path):
    path = tmp_path / "calibration.csv"
    path.write_text("exit,temperature,error_before,error_after,auroc_before,auroc_after\n1,one,0\n")
    with pytest.raises(ValueError, match="calibration.csv, line 2: "):
        read_calibration(path)
