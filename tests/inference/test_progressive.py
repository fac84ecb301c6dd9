import keras
import numpy as np
import pytest

from keras_adaptive.inference.predictor import EarlyExitPredictor


def test_every_answer_is_the_best_so_far_and_the_last_is_the_prediction(
        network, images, all_probabilities):
    """After each exit all pictures have an answer; those that left keep theirs."""
    predictor = EarlyExitPredictor(network, 0.7)
    expected = predictor.predict(images)

    answers = list(predictor.predict_progressively(images))

    assert len(answers) == 4
    for number, answer in enumerate(answers, start=1):
        exits = np.minimum(expected.exits, number)
        np.testing.assert_array_equal(answer.exits, exits)
        np.testing.assert_allclose(
            answer.probabilities, all_probabilities[exits - 1, np.arange(len(images))], atol=1e-5)
        assert (answer.macs <= expected.macs).all()
    last = answers[-1]
    np.testing.assert_array_equal(last.class_ids, expected.class_ids)
    np.testing.assert_array_equal(last.macs, expected.macs)
    np.testing.assert_allclose(last.probabilities, expected.probabilities, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs eagerly")
def test_the_number_of_pictures_compiles_nothing(network, images, executions):
    """What `predict` needs is enough."""
    predictor = EarlyExitPredictor(network, 0.7, engine="keras").warm_up()
    before = dict(executions)

    for num_pictures in (3, 7, 25, 41):
        for _ in predictor.predict_progressively(images[:num_pictures]):
            pass

    assert executions == before


def test_more_pictures_than_in_a_batch_run_together(network, images):
    many = np.concatenate([images, images])
    predictor = EarlyExitPredictor(network, 0.7, engine="keras")

    *_, last = predictor.predict_progressively(many)

    np.testing.assert_allclose(last.probabilities, predictor.predict(many).probabilities, atol=1e-5)


def test_it_ends_when_everybody_has_left(network, images):
    """No stage runs on no pictures."""
    answers = list(EarlyExitPredictor(network, [2, 0, 2, 2]).predict_progressively(images))

    assert len(answers) == 2
    assert set(answers[-1].exits) == {2}


def test_only_exits_in_use_answer(network, images):
    predictor = EarlyExitPredictor(network, 2, exits=[1, 3])

    assert [set(answer.exits) for answer in predictor.predict_progressively(images)] == [{1}, {3}]


def test_one_picture_and_none(network, images):
    """A single array is a batch of one; no pictures give one empty answer."""
    predictor = EarlyExitPredictor(network, 2)

    assert [len(answer) for answer in predictor.predict_progressively(images[0])] == [1] * 4
    assert [len(answer) for answer in predictor.predict_progressively([])] == [0]


def test_a_caller_that_stops_computes_no_more(network, images):
    """What is not asked for is not run, and the answers at hand do not change."""
    predictor = EarlyExitPredictor(network, 2)
    answers = predictor.predict_progressively(images)

    first = next(answers)
    kept = first.probabilities.copy()
    next(answers)

    np.testing.assert_array_equal(first.probabilities, kept)
    answers.close()
