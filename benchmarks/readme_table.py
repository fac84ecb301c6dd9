"""Write the README's table of results from the measured CSV files.

    python benchmarks/readme_table.py

Fills the region between the two marks in README.md. A figure that was not measured is not shown.
"""

import csv
import json
import pathlib

import numpy as np

from keras_adaptive.evaluation.operating_points import read_points
from keras_adaptive.files import write_whole

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN = "<!-- results: written by benchmarks/readme_table.py -->"
END = "<!-- end of results -->"
NOT_YET = "Not measured yet."

EVALUATION = pathlib.Path("zoo", "ranet_cifar10", "results", "evaluation.csv")
TIMES = pathlib.Path("benchmarks", "results", "staged_vs_whole.csv")


def make_results(root=ROOT):
    """Return the Markdown between the marks.

    Args:
        root: path of the repository.
    """
    parts = []
    if (root / EVALUATION).is_file():
        parts.append(accuracy_table(read_points(root / EVALUATION)))
    if (root / TIMES).is_file():
        with open(root / TIMES, newline="", encoding="utf-8") as file:
            parts.append(time_table(list(csv.DictReader(file))))
    return "\n\n".join(parts) or NOT_YET


def accuracy_table(points):
    lines = [
        "| pictures stop | accuracy | mean multiply-adds | share of the full cost |",
        "|---|---:|---:|---:|",
    ]
    for point in points:
        way = (f"at exit {point.exit}" if point.exit
               else f"**when {point.threshold:g} confident**")
        lines.append(f"| {way} | {point.accuracy:.2%} | {point.mean_macs / 1e6:.2f} M "
                     f"| {point.cost_share:.1%} |")
    return "\n".join(lines)


def time_table(rows):
    first = rows[0]
    thresholds = np.atleast_1d(json.loads(first["threshold"]))
    numbers = {int(row["num_pictures"]) for row in rows}
    lines = [
        f"Milliseconds per picture at {'thresholds' if len(thresholds) > 1 else 'threshold'} "
        f"{', '.join(f'{threshold:g}' for threshold in thresholds)}, medians of "
        f"{first['repeats']} runs over {max(numbers)} test pictures"
        f"{'' if len(numbers) == 1 else ' (fewer one by one)'}, in turns with the "
        f"whole network compiled on the same engine "
        f"({first['backend']} {first['backend_version']}, "
        f"{first['cores']} core{'' if first['cores'] == '1' else 's'} of {first['processor']}):",
        "",
        "| engine | batch size | stopping early | whole network | time ratio | share of the full "
        "cost |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['engine']} | {row['batch_size']} "
            f"| {float(row['adaptive_p50_ms']):.2f} "
            f"| {float(row['whole_p50_ms']):.2f} | {float(row['time_ratio']):.2f} "
            f"| {float(row['cost_share']):.1%} |")
    return "\n".join(lines)


def fill(text, results):
    """Return the README's text with another region of results.

    Raises:
        ValueError: If the text lacks one of the marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"The README needs one line {BEGIN!r} and, below it, one line {END!r}.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{results}\n\n{END}{rest.split(END)[1]}"


def main():
    readme = ROOT / "README.md"
    text = fill(readme.read_text(encoding="utf-8"), make_results())
    write_whole(readme, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
