"""Do searched thresholds beat the papers', at the same cost, and how long does the search take?

Both are chosen on the validation part, ours for the mean cost that the papers' turned out to have
there, and both are measured on the test part. `ExitOutputs.save` writes the files that are read.

    python benchmarks/budgeted_search.py ranet_cifar10 validation.npz test.npz
"""

import argparse
import csv
import pathlib
import time

import numpy as np

from keras_adaptive import ExitOutputs, zoo
from keras_adaptive.evaluation import evaluate_budgeted, evaluate_budgeted_as_papers
from keras_adaptive.files import write_whole

RESULTS = pathlib.Path(__file__).parent / "results" / "budgeted_search.csv"
COLUMNS = ("validation_macs", "validation_accuracy", "mean_macs", "accuracy")


def compare(validation, test, exit_macs):
    """Return one row per point: what the papers' thresholds give, and what ours do."""
    papers = evaluate_budgeted_as_papers(validation, test, exit_macs)
    ours = evaluate_budgeted(validation, test, exit_macs, [p.validation_macs for p in papers])
    return [{"point": number,
             **{f"papers_{name}": getattr(paper, name) for name in COLUMNS},
             **{f"ours_{name}": getattr(own, name) for name in COLUMNS}}
            for number, (paper, own) in enumerate(zip(papers, ours), start=1)]


def seconds_of_search(num_pictures=10_000, num_exits=8, repeats=5):
    """Return the median time of 39 budgets for made-up answers."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, num_pictures)
    logits = rng.normal(size=(num_exits, num_pictures, 10))
    skill = np.linspace(1, 4, num_exits)[:, None]
    logits[:, np.arange(num_pictures), labels] += skill - 2 * rng.normal(size=num_pictures)
    powers = np.exp(1.5 * logits)
    outputs = ExitOutputs(powers / powers.sum(axis=-1, keepdims=True), labels)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        evaluate_budgeted(outputs, outputs, np.arange(1, num_exits + 1))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a zoo name, for the costs of the exits")
    parser.add_argument("validation", help="ExitOutputs of the validation part")
    parser.add_argument("test", help="ExitOutputs of the test part")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = compare(ExitOutputs.load(arguments.validation), ExitOutputs.load(arguments.test),
                   zoo.find_entry(arguments.model).exit_macs)

    def fill(path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)

    arguments.output.parent.mkdir(exist_ok=True)
    write_whole(arguments.output, fill)
    for part, name in (("validation", "validation_accuracy"), ("test", "accuracy")):
        gains = [100 * (row[f"ours_{name}"] - row[f"papers_{name}"]) for row in rows]
        print(f"{part}: ours less the papers', points of accuracy: least {min(gains):.2f}, "
              f"mean {np.mean(gains):.2f}, most {max(gains):.2f}")
    costs = [row["ours_mean_macs"] / row["papers_mean_macs"] for row in rows]
    print(f"test: ours costs {min(costs):.3f} to {max(costs):.3f} of the papers', "
          f"mean {np.mean(costs):.3f}")
    print(f"39 budgets for 10,000 pictures and 8 exits: {seconds_of_search():.2f} s")


if __name__ == "__main__":
    main()
