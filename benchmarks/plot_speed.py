"""Draw accuracy against milliseconds, of what `accuracy_latency.py` measured.

    python benchmarks/plot_speed.py
    python benchmarks/plot_speed.py --engine openvino --output openvino.png

A panel per batch size: the line is the adaptive network within budgets, squares are single exits at
which all pictures leave, the star is the whole network with all exits.
"""

import argparse
import pathlib
import textwrap

from common import RESULTS, ROOT, read_rows

from keras_adaptive.plots import check_figure_path, new_figure, save_figure

# Blue, orange and black of the palette of Okabe and Ito, told apart by eyes of all kinds.
_ADAPTIVE, _EXIT, _WHOLE = "#0072b2", "#d55e00", "#000000"


def plot_speed(rows):
    """Return a figure of the points of one engine.

    Args:
        rows: list of dicts, rows of `accuracy_latency.csv` of one engine.
    """
    batch_sizes = sorted({int(row["batch_size"]) for row in rows})
    figure = new_figure(1.2 + 4.6 * len(batch_sizes), 5.0)
    panels = figure.subplots(1, len(batch_sizes), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.75 / figure.get_figwidth(), right=1 - 0.2 / figure.get_figwidth(),
                           bottom=0.13, top=0.78, wspace=0.08)
    for axes, batch_size in zip(panels, batch_sizes):
        _draw(axes, [row for row in rows if int(row["batch_size"]) == batch_size])
        plural = "pictures" if batch_size > 1 else "picture"
        axes.set_title(f"batches of {batch_size} {plural}", loc="left", fontsize=10.5)
        axes.set_xlabel("milliseconds per picture (median)")
    panels[0].set_ylabel("accuracy (%)")
    panels[-1].legend(loc="lower right", frameon=False, fontsize=9)
    first = rows[0]
    cores = "core" if first["cores"] == "1" else "cores"
    title = (f"{first['model']}: accuracy on {int(first['num_test_pictures']):,} test pictures of "
             f"{first['data']} against time")
    left = 0.75 / figure.get_figwidth()
    figure.text(left, 0.94, title, fontsize=12.5, weight="bold")
    figure.text(left, 0.885, textwrap.shorten(
        f"{first['engine']} {first.get(first['engine'].split('_')[0] + '_version', '')}".strip()
        + f", {first['cores']} {cores} of {first['processor']}", 100, placeholder=" ..."),
        fontsize=9.5, color="#444444")
    return figure


def _draw(axes, rows):
    # In the order of their costs, as the file has them.
    kinds = {kind: [(float(row["p50_ms"]), 100 * float(row["accuracy"]), row["value"])
                    for row in rows if row["kind"] == kind] for kind in ("budget", "exit", "whole")}
    looks = {
        "budget": {"label": "stopping early, by budget", "color": _ADAPTIVE, "marker": "o",
                   "markersize": 5, "linewidth": 2.2},
        "exit": {"label": "one exit for all pictures, by its number", "color": _EXIT,
                 "marker": "s", "markersize": 10, "linestyle": ":", "linewidth": 1.2},
        "whole": {"label": "whole network, all exits", "color": _WHOLE, "marker": "*",
                  "markersize": 14, "linestyle": ""},
    }
    for kind, points in kinds.items():
        axes.plot([ms for ms, _, _ in points], [accuracy for _, accuracy, _ in points],
                  **looks[kind])
    for ms, accuracy, number in kinds["exit"]:
        axes.text(ms, accuracy, number, ha="center", va="center_baseline", fontsize=8,
                  weight="bold", color="white")
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS / "accuracy_latency.csv")
    parser.add_argument("--engine", help="default: the first in the results")
    parser.add_argument("--output", type=pathlib.Path,
                        default=ROOT / "docs" / "images" / "speed.png")
    arguments = parser.parse_args(argv)
    check_figure_path(arguments.output)
    rows = read_rows(arguments.results)
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    engine = arguments.engine or engines[0]
    if engine not in engines:
        raise ValueError(
            f"{arguments.results} has the engines {', '.join(engines)}. Received: {engine!r}."
        )
    save_figure(plot_speed([row for row in rows if row["engine"] == engine]), arguments.output)


if __name__ == "__main__":
    main()
