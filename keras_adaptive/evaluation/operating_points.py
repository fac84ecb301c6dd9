"""Ways to use a network, each with its accuracy and cost: stop all at one exit, or by threshold."""

import csv
import dataclasses

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs, check_shared_thresholds
from keras_adaptive.evaluation.exit_outputs import ExitOutputs
from keras_adaptive.evaluation.tables import cost_text, write_table


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """One way to use a network: every picture stops at `exit`, or each by its confidence."""

    exit: int | None  # counted from 1; None where a threshold decides
    threshold: float | None  # None where all stop at the same exit
    accuracy: float
    mean_macs: float  # multiply-adds of a picture
    cost_share: float  # `mean_macs` over the cost of the whole network
    exit_shares: tuple  # share of the pictures that stop at exit 1, 2, ...
    top5_accuracy: float | None = None  # None where there are few classes


def evaluate(model, split, thresholds=(0.8,), batch_size=256, verbose=0):
    """Measure a model on labelled pictures: every exit, and every threshold.

    Args:
        model: as in `ExitOutputs.from_model`.
        split: `Split` or `Photographs` of a test part.
        thresholds, batch_size, verbose: see `operating_points` and `ExitOutputs.from_model`.

    Returns:
        List of `OperatingPoint`.

    Raises:
        ValueError: If a threshold is no confidence, or labels do not fit; before the model runs.
    """
    from keras_adaptive.graph import exit_macs  # which needs Keras; the other functions do not

    check_shared_thresholds(thresholds)
    outputs = ExitOutputs.from_model(model, split.pictures, split.y, batch_size, verbose)
    return operating_points(outputs, exit_macs(model), thresholds)


def spread(split, num_pictures):
    """Return pictures evenly spread over a split, so that a part of a sorted one has all classes.

    Args:
        split: `Split` or `Photographs`.
        num_pictures: int, or None for all. No more than there are.
    """
    if num_pictures is None or num_pictures >= len(split):
        return split
    rows = np.linspace(0, len(split) - 1, num_pictures).astype("int64")
    return split.take(rows)


def evaluate_anytime(outputs, exit_macs):
    """Return the accuracy and cost of every exit, where a budget that runs out stops all pictures.

    Args:
        outputs: `ExitOutputs` of a test part.
        exit_macs: sequence of ints, the multiply-adds up to each exit.

    Returns:
        List of `OperatingPoint`, the exits in order.

    Raises:
        ValueError: If `exit_macs` are not one positive number per exit, or they decrease.

    Reference:
        Anytime prediction of [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 3.
    """
    costs = check_exit_macs(exit_macs, outputs.num_exits).tolist()
    return [
        OperatingPoint(number, None, accuracy, macs, macs / costs[-1],
                       tuple(float(k == number) for k in range(1, outputs.num_exits + 1)), top5)
        for number, (accuracy, macs, top5) in enumerate(zip(
            outputs.accuracies(), costs,
            outputs.top5_accuracies() or [None] * outputs.num_exits), start=1)
    ]


def operating_points(outputs, exit_macs, thresholds=()):
    """Return the accuracy and cost of every exit, and of every threshold.

    Args:
        outputs: `ExitOutputs` of a test part.
        exit_macs: sequence of ints, the multiply-adds up to each exit.
        thresholds: sequence of floats, each used at all exits.

    Returns:
        List of `OperatingPoint`: the exits in order, then the thresholds as given.

    Raises:
        ValueError: If a threshold is no confidence; and as `evaluate_anytime`.
    """
    check_shared_thresholds(thresholds)
    points = evaluate_anytime(outputs, exit_macs)
    for threshold in thresholds:
        simulated = outputs.simulate(threshold)
        mean_macs = simulated.mean_macs(exit_macs)
        points.append(OperatingPoint(None, float(threshold), simulated.accuracy, mean_macs,
                                     mean_macs / exit_macs[-1], simulated.exit_shares,
                                     simulated.top5_accuracy))
    return points


def write_points(path, points):
    """Write operating points as CSV, one row each, with a column per exit for the shares.

    The column `top5_accuracy` is there where there are many classes.

    Args:
        path: path of the file. Its folder is made if missing.
        points: list of `OperatingPoint`.

    Raises:
        ValueError: If there are no points.
    """
    write_table(path, [_row(point) for point in points])


def _row(point):
    return {
        "exit": "" if point.exit is None else point.exit,
        "threshold": "" if point.threshold is None else point.threshold,
        "accuracy": f"{point.accuracy:.6f}",
        **({} if point.top5_accuracy is None else {"top5_accuracy": f"{point.top5_accuracy:.6f}"}),
        "mean_macs": cost_text(point.mean_macs),
        "cost_share": f"{point.cost_share:.6f}",
        **{f"exit{number}_share": f"{share:.6f}"
           for number, share in enumerate(point.exit_shares, start=1)},
    }


def read_points(path):
    """Return the list of `OperatingPoint` that `write_points` wrote.

    Raises:
        ValueError: If the file has other columns.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            OperatingPoint(
                int(row["exit"]) if row["exit"] else None,
                float(row["threshold"]) if row["threshold"] else None,
                float(row["accuracy"]), float(row["mean_macs"]), float(row["cost_share"]),
                tuple(float(row[key]) for key in row if key.endswith("_share")
                      and key.startswith("exit")),
                float(row["top5_accuracy"]) if "top5_accuracy" in row else None)
            for row in rows
        ]
    except KeyError as error:
        raise ValueError(
            f"{path} has no column {error}; `write_points` makes such files."
        ) from error
