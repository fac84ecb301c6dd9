"""How long does stopping early take, against the whole network compiled?

    python benchmarks/staged_vs_whole.py --data cifar10 --batch-size 1 16 64
    KERAS_BACKEND=jax python benchmarks/staged_vs_whole.py --output jax.csv

`EarlyExitPredictor.predict` and the whole network, with all of its exits, classify the same test
pictures in the same process on the same backend, one after the other in turns. The predictor checks
its input, picks survivors and joins batches within its time. Prints one row per batch size, and
writes it with the versions and the processor to --output.
"""

import argparse
import csv
import pathlib

import numpy as np

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.files import write_whole
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.timing import (
    compile_whole,
    describe_machine,
    in_batches,
    median_ratio,
    time_in_turns,
)
from keras_adaptive.training.datasets import load_data

RESULTS = pathlib.Path(__file__).parent / "results" / "staged_vs_whole.csv"


def compare(model, split, threshold, batch_size, repeats):
    """Return one row: times per picture in milliseconds, accuracies, and both ratios."""
    predictor = EarlyExitPredictor(model, threshold)
    whole = compile_whole(model)
    times_ms = time_in_turns({
        "adaptive": lambda: predictor.predict(split.x, batch_size, verbose=False),
        "whole": lambda: in_batches(whole, split.x, batch_size),
    }, repeats, warmups=1)
    prediction = predictor.predict(split.x, batch_size, verbose=False)
    whole_classes = in_batches(whole, split.x, batch_size).argmax(axis=1)

    row = {"model": model.name, "threshold": threshold, "batch_size": batch_size,
           "num_pictures": len(split), "repeats": repeats}
    for name, samples in times_ms.items():
        for quantile in (50, 95):
            row[f"{name}_p{quantile}_ms"] = round(
                float(np.percentile(samples, quantile)) / len(split), 5)
    return row | {
        "time_ratio": round(median_ratio(times_ms, "adaptive", "whole"), 4),
        "cost_share": round(prediction.summary().mean_cost_share, 4),
        "accuracy": float((prediction.class_ids == split.y).mean()),
        "whole_accuracy": float((whole_classes == split.y).mean()),
    }


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=zoo.DEFAULT_MODEL, help="name in the zoo")
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or an .npz file")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--num-pictures", type=int, default=512,
                        help="test pictures per timed run, evenly spread")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse_arguments(argv)
    model = zoo.load(arguments.model, pretrained=True)
    split = spread(load_data(arguments.data).test, arguments.num_pictures)
    machine = describe_machine()
    rows = []
    for batch_size in arguments.batch_size:
        row = compare(model, split, arguments.threshold, batch_size, arguments.repeats) | machine
        rows.append(row)
        print(f"batch {batch_size}: {row['adaptive_p50_ms']:.3f} ms a picture, whole "
              f"{row['whole_p50_ms']:.3f} ms, ratio {row['time_ratio']:.2f}; cost share "
              f"{row['cost_share']:.2f}, accuracy {row['accuracy']:.4f} "
              f"(whole {row['whole_accuracy']:.4f})", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.output, lambda path: write_rows(path, rows))


def write_rows(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
