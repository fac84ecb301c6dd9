"""Budgeted batch classification: a mean cost for many pictures, easy ones spending less.

Thresholds are chosen on a validation part and measured on a test part.
"""

import csv
import dataclasses

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs, check_positive
from keras_adaptive.evaluation.tables import cost_text, write_table
from keras_adaptive.evaluation.thresholds import NEVER, ThresholdSearch

NUM_POINTS = 39  # of the papers' curves


@dataclasses.dataclass(frozen=True)
class BudgetedPoint:
    """Thresholds chosen on a validation part, and what they give there and on a test part."""

    budget: float  # mean multiply-adds of a picture that were asked for
    budget_met: bool  # whether the validation pictures cost no more
    thresholds: tuple  # one per exit; `NEVER` switches one off, the last takes the rest
    validation_accuracy: float
    validation_macs: float  # mean multiply-adds of a picture
    accuracy: float  # on the test part, as all that follows
    mean_macs: float
    exit_shares: tuple  # share of the pictures that leave at exit 1, 2, ...


def evaluate_budgeted(validation, test, exit_macs, budgets=None, smooth=False):
    """Measure the best thresholds found for each budget.

    Args:
        validation: `ExitOutputs` that the thresholds are chosen on.
        test: `ExitOutputs` that they are measured on.
        exit_macs: sequence of numbers, the multiply-adds up to each exit.
        budgets: sequence of mean multiply-adds, or `None` for `NUM_POINTS` budgets from the cost of
            the first exit to that of the last.
        smooth: bool, see `ThresholdSearch`. Without it, the validation accuracy is nowhere below
            that of the papers' thresholds.

    Returns:
        List of `BudgetedPoint`, one per budget.

    Raises:
        ValueError: If `validation`, `test` and `exit_macs` are not of the same exits, or `budgets`
            is no sequence of numbers above 0.
    """
    _check_same_exits(validation, test)
    macs = check_exit_macs(exit_macs, validation.num_exits)
    if budgets is None:
        budgets = np.linspace(macs[0], macs[-1], NUM_POINTS)
    if np.ndim(budgets) != 1:
        raise ValueError(
            "`budgets` is a sequence of mean multiply-adds, such as [2e7] for a single one. "
            f"Received: {budgets!r}."
        )
    for position, budget in enumerate(budgets):
        check_positive(f"budgets[{position}]", budget, "multiply-adds")
    search = ThresholdSearch(validation, macs, _papers_thresholds(validation), smooth)
    return [_point(search.within(macs=float(budget)), test, macs) for budget in budgets]


def evaluate_budgeted_as_papers(validation, test, exit_macs):
    """Measure the papers' thresholds: shares of pictures that fall geometrically over the exits.

    Args:
        validation, test, exit_macs: as in `evaluate_budgeted`.

    Returns:
        List of `NUM_POINTS` `BudgetedPoint`. Their `budget` is the cost that the shares would have
        if they could be met; ties and rounding keep them from it, so that `budget_met` says little.

    Reference:
        Dynamic evaluation of the authors' programs of
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 3, and
        [Yang et al., 2020](https://arxiv.org/abs/2003.07326), section 4.2.
    """
    _check_same_exits(validation, test)
    macs = check_exit_macs(exit_macs, validation.num_exits)
    points = []
    for shares in _papers_shares(validation.num_exits):
        thresholds = thresholds_for_shares(validation, shares)
        fitted = validation.simulate(thresholds)
        measured = test.simulate(thresholds)
        budget = float(np.dot(shares.astype("float64"), macs))
        fitted_macs = fitted.mean_macs(macs)
        points.append(BudgetedPoint(
            budget, fitted_macs <= budget, tuple(float(t) for t in thresholds), fitted.accuracy,
            fitted_macs, measured.accuracy, measured.mean_macs(macs), measured.exit_shares))
    return points


def thresholds_for_shares(outputs, shares):
    """Return thresholds at which given shares of the pictures leave, as the papers choose them.

    At exit after exit, the surest pictures that are still there leave, up to the exit's share of
    all pictures, rounded down. Pictures as sure as the last of them leave too. Where fewer pictures
    are left than the share, nobody leaves.

    Args:
        outputs: `ExitOutputs`.
        shares: float32 array, one share per exit.

    Returns:
        float32 array, one threshold per exit; `NEVER` where nobody leaves, 0 for the last.
    """
    confidences = outputs.confidences
    num_pictures = confidences.shape[1]
    thresholds = np.full(outputs.num_exits, NEVER, "float32")
    thresholds[-1] = 0.0
    is_there = np.ones(num_pictures, bool)
    for number in range(outputs.num_exits - 1):
        # In float32, as the authors' program: exact arithmetic rounds other numbers down.
        wanted = int(np.floor(np.float32(num_pictures) * np.float32(shares[number])))
        there = np.sort(confidences[number][is_there])
        if 0 < wanted <= len(there):
            thresholds[number] = there[-wanted]
            is_there &= confidences[number] < thresholds[number]
    return thresholds


def geometric_shares(num_exits, ratio):
    """Return the share of pictures meant to leave at each exit: `ratio` times the one before.

    Args:
        num_exits: int.
        ratio: float above 0.

    Returns:
        float32 array that sums to 1.
    """
    exponents = np.arange(1, num_exits + 1, dtype="float32")
    shares = np.exp(exponents * np.log(np.float32(ratio)))
    return shares / shares.sum()


def write_budgeted(path, points):
    """Write points as CSV, one row each, with columns per exit for thresholds and shares.

    Args:
        path: path of the file. Its folder is made if missing.
        points: list of `BudgetedPoint`.

    Raises:
        ValueError: If there are no points.
    """
    write_table(path, [{
        "budget": cost_text(point.budget),
        "budget_met": int(point.budget_met),
        "validation_accuracy": f"{point.validation_accuracy:.6f}",
        "validation_macs": cost_text(point.validation_macs),
        "accuracy": f"{point.accuracy:.6f}",
        "mean_macs": cost_text(point.mean_macs),
        **{f"exit{number}_threshold": repr(threshold)
           for number, threshold in enumerate(point.thresholds, start=1)},
        **{f"exit{number}_share": f"{share:.6f}"
           for number, share in enumerate(point.exit_shares, start=1)},
    } for point in points])


def read_budgeted(path):
    """Return the list of `BudgetedPoint` that `write_budgeted` wrote.

    Raises:
        ValueError: If the file has other columns.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def per_exit(row, ending):
        return tuple(float(row[key]) for key in row if key.endswith(ending))

    try:
        return [BudgetedPoint(float(row["budget"]), row["budget_met"] == "1",
                              per_exit(row, "_threshold"),
                              *(float(row[name]) for name in (
                                  "validation_accuracy", "validation_macs", "accuracy",
                                  "mean_macs")),
                              per_exit(row, "_share"))
                for row in rows]
    except KeyError as error:
        raise ValueError(
            f"{path} has no column {error}; `write_budgeted` makes such files."
        ) from error


def _point(chosen, test, macs):
    measured = test.simulate(chosen.thresholds)
    return BudgetedPoint(chosen.budget, chosen.budget_met, chosen.thresholds, chosen.accuracy,
                         chosen.mean_macs, measured.accuracy, measured.mean_macs(macs),
                         measured.exit_shares)


def _papers_shares(num_exits):
    return [geometric_shares(num_exits, p / 20) for p in range(1, NUM_POINTS + 1)]


def _papers_thresholds(outputs):
    return [thresholds_for_shares(outputs, shares) for shares in _papers_shares(outputs.num_exits)]


def _check_same_exits(validation, test):
    shapes = [(len(part.probabilities), part.probabilities.shape[2]) for part in (validation, test)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`validation` and `test` come from the same network. Received: (exits, classes) "
            f"{shapes[0]} and {shapes[1]}."
        )
