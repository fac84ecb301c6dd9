"""Do searched thresholds beat the papers', and how long does the search take?

1. On the predictions that both are chosen on (the validation part), at the mean cost that the
   papers' thresholds turned out to have there: a row per point in the results.
2. On predictions that neither was chosen on: halves of the validation part in turn, several random
   halvings. A gain is the accuracy less that of the papers' curve at the same cost.

The test part is not read. `ExitOutputs.save` writes the file that is read here.

    python benchmarks/budgeted_search.py ranet_cifar10 validation.npz
"""

import argparse
import pathlib
import time

import numpy as np
from common import RESULTS, save_rows

from keras_adaptive import ExitOutputs, zoo
from keras_adaptive.evaluation import evaluate_budgeted, evaluate_budgeted_as_papers

HALVINGS, BUDGETS = 6, 14


def compare(validation, exit_macs):
    """Return one row per point: what the papers' thresholds give, and what ours do."""
    papers = evaluate_budgeted_as_papers(validation, validation, exit_macs)
    ours = evaluate_budgeted(validation, validation, exit_macs, [p.mean_macs for p in papers])
    return [{"point": number, "papers_macs": paper.mean_macs, "papers_accuracy": paper.accuracy,
             "ours_macs": own.mean_macs, "ours_accuracy": own.accuracy}
            for number, (paper, own) in enumerate(zip(papers, ours), start=1)]


def held_out_gains(validation, exit_macs, smooth):
    """Return gains in points and shares of the budget spent, `(halves, budgets)` each."""
    budgets = np.linspace(1.1 * exit_macs[0], 0.75 * exit_macs[-1], BUDGETS)
    gains, spent = [], []
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(validation.labels))
        halves = [ExitOutputs(validation.probabilities[:, rows], validation.labels[rows])
                  for rows in np.array_split(order, 2)]
        for chosen_on, measured_on in (halves, halves[::-1]):
            papers = evaluate_budgeted_as_papers(chosen_on, measured_on, exit_macs)
            papers.sort(key=lambda point: point.mean_macs)
            ours = evaluate_budgeted(chosen_on, measured_on, exit_macs, budgets, smooth)
            macs = np.array([point.mean_macs for point in ours])
            reference = np.interp(macs, [p.mean_macs for p in papers],
                                  [p.accuracy for p in papers])
            gains.append(100 * (np.array([point.accuracy for point in ours]) - reference))
            spent.append(macs / budgets)
    return np.array(gains), np.array(spent)


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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a zoo name, for the costs of the exits")
    parser.add_argument("validation", help="ExitOutputs of the validation part")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "budgeted_search.csv")
    arguments = parser.parse_args(argv)
    validation = ExitOutputs.load(arguments.validation)
    exit_macs = zoo.find_entry(arguments.model).exit_macs
    rows = compare(validation, exit_macs)
    save_rows(arguments.output, [
        {key: f"{value:.8g}" for key, value in row.items()} for row in rows])
    gains = [100 * (row["ours_accuracy"] - row["papers_accuracy"]) for row in rows]
    print(f"same predictions: {min(gains):+.2f} to {max(gains):+.2f} points, mean "
          f"{np.mean(gains):+.2f}")
    for smooth in (False, True):
        gains, spent = held_out_gains(validation, exit_macs, smooth)
        print(f"held out, {'smooth' if smooth else 'labels'}: mean {gains.mean():+.2f} points "
              f"(standard deviation between halves {gains.mean(axis=1).std():.2f}), "
              f"{spent.mean():.0%} of the budget spent")
    print(f"39 budgets for 10,000 pictures and 8 exits: {seconds_of_search():.2f} s")


if __name__ == "__main__":
    main()
