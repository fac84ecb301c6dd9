"""Do adaptive networks beat static networks that answer one after another and stop when sure?

The probabilities of an ensemble are the mean of what its networks say, and the first k networks are
exit k. All pictures stop after the same network, or each where the mean is sure enough, by
thresholds of the validation part. Accuracy and cost are those of the test part.

    python benchmarks/static_ensemble.py --data cifar10

The figure shows the static networks, the ensemble, and adaptive networks of the zoo for the same
data set. Each learned for its own time, see its card.
"""

import argparse
import pathlib
import sys

from common import RESULTS, ROOT, describe, save_rows

from keras_adaptive import zoo
from keras_adaptive.cards import BUDGETED
from keras_adaptive.evaluation import (
    ensemble_macs,
    ensemble_outputs,
    evaluate_anytime,
    evaluate_budgeted,
)
from keras_adaptive.evaluation.budgeted import read_budgeted
from keras_adaptive.plots import check_figure_path, new_figure, save_figure
from keras_adaptive.report import data_name, measure_parts
from keras_adaptive.training.datasets import check_classes, load_data

STATIC = ("resnet8_cifar10", "resnet14_cifar10", "resnet20_cifar10", "resnet26_cifar10")
ADAPTIVE = ("msdnet_cifar10", "ranet_cifar10")
# The palette of Okabe and Ito, told apart by eyes of all kinds.
_STATIC, _ENSEMBLE, _ADAPTIVE = "#666666", "#d55e00", ("#0072b2", "#009e73", "#cc79a7", "#e69f00")


def measure_ensemble(entries, data, source):
    """Return rows: every network alone, the ensemble at each exit, and within budgets.

    Args:
        entries: list of `Entry`, static networks in the order of evaluation.
        data: `Data`.
        source: string, what `load_data` took for it.
    """
    measured = [measure_parts(entry, data, source) for entry in entries]
    validation = ensemble_outputs([each.validation for each in measured])
    test = ensemble_outputs([each.test for each in measured])
    macs = ensemble_macs([entry.exit_macs for entry in entries])
    rows = [_row(entry.name, "static", entry.exit_macs[0], each.test.accuracies()[0])
            for entry, each in zip(entries, measured)]
    rows += [_row("ensemble", "anytime", point.mean_macs, point.accuracy)
             for point in evaluate_anytime(test, macs)]
    budgeted = evaluate_budgeted(validation, test, macs, smooth=True)
    # Many budgets give the same thresholds.
    costs = {(point.mean_macs, point.accuracy): None for point in budgeted}
    return rows + [_row("ensemble", "budgeted", *point) for point in costs]


def _row(network, protocol, macs, accuracy):
    return {"network": network, "protocol": protocol, "mean_macs": round(float(macs), 1),
            "accuracy": round(float(accuracy), 4)}


def plot_ensemble(rows, adaptive, title):
    """Return a figure of accuracy against multiply-adds.

    Args:
        rows: list of dicts, of `measure_ensemble`.
        adaptive: dict of lists of `BudgetedPoint` by name of a network.
        title: string.
    """
    figure = new_figure(7.2, 4.6)
    axes = figure.add_axes((0.11, 0.13, 0.85, 0.77))
    for color, (name, points) in zip(_ADAPTIVE, adaptive.items()):
        _draw(axes, [(point.mean_macs, point.accuracy) for point in points],
              label=f"{name}, within a budget", color=color, linewidth=2.4)
    for protocol, label, look in (
            ("budgeted", "ensemble, within a budget", {"color": _ENSEMBLE, "linewidth": 2.4}),
            ("anytime", "ensemble, all pictures stop after the same network",
             {"color": _ENSEMBLE, "linestyle": "", "marker": "o", "markerfacecolor": "white",
              "markersize": 8}),
            ("static", "each static network alone",
             {"color": _STATIC, "linestyle": "", "marker": "x", "markersize": 6})):
        _draw(axes, [(row["mean_macs"], row["accuracy"]) for row in rows
                     if row["protocol"] == protocol], label=label, **look)
    axes.set_xlabel("mean multiply-adds per picture (millions)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, loc="left")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(axes, points, **look):
    costs, accuracies = zip(*sorted(points))
    axes.plot([cost / 1e6 for cost in costs], [100 * accuracy for accuracy in accuracies], **look)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or an .npz file")
    parser.add_argument("--networks", nargs="+", default=STATIC, metavar="NAME",
                        help="static networks of the zoo, in the order of evaluation; default: "
                             f"{' '.join(STATIC)}")
    parser.add_argument("--adaptive", nargs="*", default=ADAPTIVE, metavar="NAME",
                        help="adaptive networks of the zoo for the figure; default: "
                             f"{' '.join(ADAPTIVE)}")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "static_ensemble.csv")
    parser.add_argument("--plot", type=pathlib.Path,
                        default=ROOT / "docs" / "images" / "ensemble.png")
    arguments = parser.parse_args(argv)
    try:
        check_figure_path(arguments.plot)
        entries = [zoo.find_entry(name) for name in arguments.networks]
        adaptive = {name: read_budgeted(zoo.find_entry(name).folder / BUDGETED)
                    for name in arguments.adaptive}
        data = load_data(arguments.data, entries[0].input_rule["size"][0], entries[0].input_rule)
        for entry in entries:
            check_classes(data, arguments.data, entry.name, entry.class_names)
        rows = measure_ensemble(entries, data, arguments.data)
    except ValueError as error:
        parser.error(str(error))
    for row in rows:
        print(f"{row['network']}, {row['protocol']}: {row['accuracy']:.2%} at "
              f"{row['mean_macs'] / 1e6:.2f} M", file=sys.stderr)
    save_rows(arguments.output, [{**row, **describe()} for row in rows])
    where = f"{len(data.test.y):,} test pictures of {data_name(arguments.data)}"
    save_figure(plot_ensemble(rows, adaptive, f"{len(entries)} static networks in a row, {where}"),
                arguments.plot)


if __name__ == "__main__":
    main()
