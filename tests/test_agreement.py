"""How like its teacher a student answers, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_adaptive.agreement import measure_agreement

LOGITS = hnp.arrays("float64", (4, 3), elements=st.floats(-30, 30))


def test_divergence_by_hand():
    """Teacher (0.75, 0.25), student (0.5, 0.5): 0.75 log 1.5 + 0.25 log 0.5."""
    measured = measure_agreement(np.log([[0.75, 0.25]]), np.zeros((1, 2)))

    assert measured.mean_kl == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert measured.class_losses == {}


def test_shares_and_losses_by_hand():
    """Class 0: the teacher has both, the student one; class 2: the other way round."""
    teacher, student, labels = [0, 0, 1, 2], [0, 1, 2, 2], [0, 0, 2, 2]

    measured = measure_agreement(np.eye(3)[teacher], np.eye(3)[student], labels)

    assert measured.equal_share == 0.5
    assert measured.class_losses == {0: 0.5, 2: -0.5}


@settings(max_examples=30, deadline=None)
@given(LOGITS, LOGITS, st.floats(-5, 5))
def test_divergence_is_zero_for_equal_distributions_alone(teacher, student, shift):
    """Never below 0, and what is added to all logits of a picture does not count."""
    assert measure_agreement(teacher, teacher + shift).mean_kl == pytest.approx(0, abs=1e-9)
    assert measure_agreement(teacher, student).mean_kl >= -1e-9


def test_a_class_that_the_teacher_rules_out_adds_nothing():
    teacher = np.array([[0.0, -np.inf]])

    assert measure_agreement(teacher, np.zeros((1, 2))).mean_kl == pytest.approx(np.log(2))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), None), ((2,), (2,), None),
                                    ((0, 3), (0, 3), None), ((2, 3), (2, 3), (3,))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    teacher, student, labels = (None if shape is None else np.zeros(shape) for shape in shapes)

    with pytest.raises(ValueError, match="Received the shapes"):
        measure_agreement(teacher, student, labels)
