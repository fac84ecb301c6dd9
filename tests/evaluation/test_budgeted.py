"""Budgeted batch classification, against the authors' program and against the search."""

import numpy as np
import pytest

from keras_adaptive import content
from keras_adaptive.evaluation import (
    NEVER,
    ExitOutputs,
    evaluate_budgeted,
    evaluate_budgeted_as_papers,
)
from keras_adaptive.evaluation.budgeted import (
    geometric_shares,
    read_budgeted,
    thresholds_for_shares,
    write_budgeted,
)


@pytest.fixture(params=["case", "tiny"])
def authors(request, parity):
    """What the authors' program gave, with ties and confidences of 1, and the answers it got."""
    with np.load(parity / "budgeted" / f"{request.param}.npz") as arrays:
        given = dict(arrays)
    return (given, ExitOutputs(given["val_probs"], given["val_labels"]),
            ExitOutputs(given["test_probs"], given["test_labels"]))


def test_all_points_equal_those_of_the_authors_program(authors):
    given, validation, test = authors

    points = evaluate_budgeted_as_papers(validation, test, given["flops"])

    thresholds = given["thresholds"].copy()
    thresholds[thresholds > 1e7] = NEVER
    thresholds[:, -1] = 0
    np.testing.assert_array_equal([p.thresholds for p in points], thresholds.astype("float32"))
    counts = np.rint(np.array([p.exit_shares for p in points]) * len(test.labels))
    np.testing.assert_array_equal(counts, given["test_counts"])
    for ours, theirs in [("validation_accuracy", given["val_acc"] / 100),
                         ("accuracy", given["test_acc"] / 100),
                         ("validation_macs", given["val_flops"]),  # a float32 sum there
                         ("mean_macs", given["test_flops"])]:
        np.testing.assert_allclose([getattr(p, ours) for p in points], theirs, rtol=1e-6)


def test_shares_equal_those_of_the_authors_program(authors):
    given, validation, _ = authors

    ours = [geometric_shares(validation.num_exits, q) for q in given["q"]]

    np.testing.assert_allclose(ours, given["probs"], atol=1e-7)


def test_search_is_nowhere_below_the_papers_thresholds(authors):
    """On the predictions that both were chosen on, at the cost that the papers' turned out at."""
    given, validation, test = authors
    papers = evaluate_budgeted_as_papers(validation, test, given["flops"])

    ours = evaluate_budgeted(validation, test, given["flops"], [p.validation_macs for p in papers])

    assert all(point.budget_met for point in ours)
    gains = [o.validation_accuracy - p.validation_accuracy for o, p in zip(ours, papers)]
    assert min(gains) >= 0
    assert max(gains) > 0


def test_search_gains_on_new_pictures(draw_outputs):
    """What is chosen on 5,000 pictures is better on 20,000 others, too, in the mean."""
    validation, test = draw_outputs(5000, seed=0), draw_outputs(20000, seed=1)
    costs = [1, 2, 3, 4]
    papers = evaluate_budgeted_as_papers(validation, test, costs)

    ours = evaluate_budgeted(validation, test, costs, [p.validation_macs for p in papers])

    assert np.mean([o.accuracy - p.accuracy for o, p in zip(ours, papers)]) > 0
    assert max(o.mean_macs / p.budget for o, p in zip(ours, ours)) < 1.03


def test_by_hand_thresholds_for_shares():
    """Four pictures, half wanted at exit 1: 0.7 is the second surest, and its twin leaves too."""
    sure = np.array([[0.9, 0.7, 0.7, 0.6], [0.8, 0.8, 0.8, 0.6], [0.9, 0.9, 0.9, 0.9]], "float32")
    outputs = ExitOutputs(np.stack([sure, 1 - sure], axis=-1), [0, 0, 0, 0])

    thresholds = thresholds_for_shares(outputs, np.array([0.5, 0.5, 0], "float32"))

    # At exit 2 one is left, fewer than the two wanted: nobody leaves.
    np.testing.assert_array_equal(thresholds, np.array([0.7, NEVER, 0], "float32"))


def test_a_budget_below_the_first_exit_is_told(draw_outputs):
    outputs = draw_outputs(100, seed=0)

    point, = evaluate_budgeted(outputs, outputs, [10, 20, 30, 40], budgets=[5])

    assert not point.budget_met
    assert (point.mean_macs, point.exit_shares) == (10, (1, 0, 0, 0))


def test_a_written_curve_comes_back(draw_outputs, tmp_path):
    outputs = draw_outputs(500, seed=0)
    points = evaluate_budgeted(outputs, outputs, [10, 20, 30, 40], budgets=[12, 33])

    write_budgeted(tmp_path / "curve.csv", points)

    read = read_budgeted(tmp_path / "curve.csv")
    assert [p.thresholds for p in read] == [p.thresholds for p in points]
    assert [p.accuracy for p in read] == pytest.approx([p.accuracy for p in points])
    assert [p.budget_met for p in read] == [True, True]


def test_costs_in_other_units_keep_their_digits(draw_outputs, tmp_path):
    """Billions of multiply-adds, or milliseconds, are small numbers."""
    outputs = draw_outputs(500, seed=0)
    points = evaluate_budgeted(outputs, outputs, [0.01, 0.02, 0.03, 0.04], budgets=[0.0134])

    write_budgeted(tmp_path / "curve.csv", points)

    read, = read_budgeted(tmp_path / "curve.csv")
    assert read.budget == 0.0134
    assert read.mean_macs == pytest.approx(points[0].mean_macs, rel=1e-8)
    assert read.validation_macs == pytest.approx(points[0].validation_macs, rel=1e-8)


@pytest.mark.parametrize("file", sorted(content.folder("zoo").glob("*/results/budgeted.csv")),
                         ids=lambda file: file.parts[-3])
def test_the_zoos_curves_are_written_as_they_are(file, tmp_path):
    """Measuring again what has not changed changes no file of the zoo."""
    write_budgeted(tmp_path / "again.csv", read_budgeted(file))

    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()


def test_a_table_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="curve.csv would be a table of no points"):
        write_budgeted(tmp_path / "curve.csv", [])


@pytest.mark.parametrize("budgets, message", [
    (5.0, r"such as \[2e7\] for a single one. Received: 5.0"),
    ("5", "is a sequence of mean multiply-adds"),
    ([20, 0], r"`budgets\[1\]` is a number of multiply-adds above 0. Received: 0"),
    ([float("nan")], "above 0. Received: nan"),
    (["5"], "above 0. Received: '5'"),
])
def test_budgets_that_are_none_are_refused(draw_outputs, budgets, message):
    outputs = draw_outputs(9, seed=0)

    with pytest.raises(ValueError, match=message):
        evaluate_budgeted(outputs, outputs, [10, 20, 30, 40], budgets)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")

    with pytest.raises(ValueError, match="no column 'budget'"):
        read_budgeted(tmp_path / "other.csv")


def test_parts_of_different_networks_are_refused(draw_outputs):
    with pytest.raises(ValueError, match="same network"):
        evaluate_budgeted(draw_outputs(9, seed=0), draw_outputs(9, seed=0, num_exits=3), [1, 2, 3])
