"""Draw what searched thresholds give beside the papers', of what `budgeted_search.py` measured.

    python benchmarks/plot_thresholds.py

Both were chosen on the pictures that the accuracies are of, at the same mean multiply-adds: the
figure tells how good a search is, not what other pictures will see.
"""

import argparse
import pathlib

from common import RESULTS, ROOT, read_rows

from keras_adaptive.plots import check_figure_path, new_figure, save_figure

# Grey and blue of the palette of Okabe and Ito, told apart by eyes of all kinds.
_PAPERS, _OURS = "#666666", "#0072b2"


def plot_thresholds(rows):
    """Return a figure of both curves.

    Args:
        rows: list of dicts, rows of `budgeted_search.csv`.
    """
    figure = new_figure(7.2, 4.4)
    axes = figure.add_axes((0.11, 0.13, 0.85, 0.77))
    for who, label, look in (
            ("papers", "geometric shares of the pictures for the exits (the papers')",
             {"color": _PAPERS, "marker": "o", "markerfacecolor": "white", "linewidth": 1.2}),
            ("ours", "searched for the accuracy within the budget",
             {"color": _OURS, "marker": "s", "linewidth": 2.2})):
        # Several budgets can have the same best thresholds.
        points = sorted({(float(row[f"{who}_macs"]) / 1e6, 100 * float(row[f"{who}_accuracy"]))
                         for row in rows})
        axes.plot(*zip(*points), label=label, markersize=4.5, **look)
    axes.set_xlabel("mean multiply-adds per picture (millions)")
    axes.set_ylabel("accuracy (%) where the thresholds were chosen")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{len(rows)} budgets, thresholds chosen in two ways", loc="left")
    return figure


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS / "budgeted_search.csv")
    parser.add_argument("--output", type=pathlib.Path,
                        default=ROOT / "docs" / "images" / "thresholds.png")
    arguments = parser.parse_args(argv)
    check_figure_path(arguments.output)
    save_figure(plot_thresholds(read_rows(arguments.results)), arguments.output)


if __name__ == "__main__":
    main()
