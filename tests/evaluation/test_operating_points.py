"""Accuracy and cost of exits and thresholds, and their files."""

import numpy as np
import pytest

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.operating_points import (
    evaluate,
    operating_points,
    read_points,
    spread,
    write_points,
)
from keras_adaptive.graph import exit_macs
from keras_adaptive.training.splits import Split


@pytest.fixture
def outputs():
    """Two exits, three pictures; the first exit is sure and right only of the first picture."""
    exit1 = [[0.95, 0.05], [0.6, 0.4], [0.7, 0.3]]
    exit2 = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    return ExitOutputs([exit1, exit2], [0, 1, 1])


def test_exits_and_thresholds_have_their_accuracy_and_cost(outputs):
    exit1, exit2, adaptive = operating_points(outputs, [10, 40], thresholds=[0.9])

    assert (exit1.exit, exit1.accuracy, exit1.mean_macs, exit1.cost_share) == (1, 1 / 3, 10, 0.25)
    assert (exit2.accuracy, exit2.exit_shares) == (2 / 3, (0.0, 1.0))
    assert (adaptive.exit, adaptive.threshold, adaptive.accuracy) == (None, 0.9, 2 / 3)
    assert adaptive.mean_macs == pytest.approx(30) and adaptive.cost_share == pytest.approx(0.75)
    assert adaptive.exit_shares == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize("costs, message", [
    ([1, 2, 3], "one number per exit: 2. Received: .1, 2, 3."),
    ([0, 0], "above 0"), ([3, 2], "no later exit is cheaper"), ([1, float("nan")], "above 0")])
def test_costs_must_fit_the_exits(outputs, costs, message):
    """Shares of a cost that falls or is nothing would mislead, or divide by zero."""
    with pytest.raises(ValueError, match=message):
        operating_points(outputs, costs)


@pytest.mark.parametrize("thresholds", [(-0.5,), (0.5, float("nan")), 0.5, ["much"], [[0.5, 0.6]]])
def test_thresholds_that_are_none_are_refused_before_the_model_runs(
        outputs, thresholds):
    """Evaluating a large network takes hours: none is touched here."""
    for measure in (lambda: evaluate(None, None, thresholds),
                    lambda: operating_points(outputs, [10, 40], thresholds)):
        with pytest.raises(ValueError, match="`thresholds` "):
            measure()


def test_a_table_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="points.csv would be a table of no points"):
        write_points(tmp_path / "points.csv", [])
    assert not list(tmp_path.iterdir())


def test_costs_in_other_units_keep_their_digits(outputs, tmp_path):
    """Billions of multiply-adds, or milliseconds, are small numbers."""
    write_points(tmp_path / "points.csv", operating_points(outputs, [0.0134, 0.058921], [0.9]))

    read = read_points(tmp_path / "points.csv")
    assert [point.mean_macs for point in read] == pytest.approx(
        [0.0134, 0.058921, (0.0134 + 2 * 0.058921) / 3], rel=1e-8)


def test_points_survive_the_file(outputs, tmp_path):
    points = operating_points(outputs, [10, 40], thresholds=[0.9])

    write_points(tmp_path / "new" / "points.csv", points)

    for point, read in zip(points, read_points(tmp_path / "new" / "points.csv"), strict=True):
        assert (read.exit, read.threshold) == (point.exit, point.threshold)
        assert read.accuracy == pytest.approx(point.accuracy, abs=1e-6)
        assert read.exit_shares == pytest.approx(point.exit_shares, abs=1e-6)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("epoch,loss\n1,2\n")

    with pytest.raises(ValueError, match="no column 'exit'"):
        read_points(tmp_path / "other.csv")


@pytest.mark.parametrize("count, labels", [
    (3, [0, 2, 5]), (1, [0]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5]),
    (None, [0, 1, 2, 3, 4, 5]),
])
def test_spread_reaches_over_a_sorted_split(count, labels):
    """A few pictures of a data set sorted by class are not all of one class."""
    split = Split(np.zeros((6, 4, 4, 3), "uint8"), np.arange(6))

    assert spread(split, count).y.tolist() == labels


def test_evaluate_runs_the_model(tiny_ranet):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    split = Split(pictures, np.arange(8) % 5)

    points = evaluate(tiny_ranet, split, thresholds=[0, 2])

    assert [point.exit for point in points] == [1, 2, 3, 4, None, None]
    assert [point.mean_macs for point in points[:4]] == exit_macs(tiny_ranet)
    assert points[4].accuracy == points[0].accuracy
    assert points[5].accuracy == points[3].accuracy


def test_many_classes_have_a_top_5_accuracy(tmp_path):
    """The label counts where it is among the five likeliest; it survives the file."""
    ranks = np.arange(21.0)  # class 20 is likeliest, 16 the fifth
    outputs = ExitOutputs(np.tile(ranks / ranks.sum(), (2, 4, 1)), [20, 16, 15, 0])

    points = operating_points(outputs, [10, 40], thresholds=[0.5])
    write_points(tmp_path / "points.csv", points)

    assert [point.accuracy for point in points] == [0.25] * 3
    assert [point.top5_accuracy for point in points] == [0.5] * 3
    assert [point.top5_accuracy for point in read_points(tmp_path / "points.csv")] == [0.5] * 3
