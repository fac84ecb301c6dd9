"""How much of the work that stopping early saves is saved on the clock?

    python benchmarks/staged_vs_whole.py --data cifar10
    python benchmarks/staged_vs_whole.py --engine onnxruntime --batch-size 1 64 --threshold 0.8

For each engine and batch size, on the same test pictures, in turns in one process:

- `whole`: the network with all of its exits in one compiled program on the same engine, converted
  plainly;
- `nobody`: `EarlyExitPredictor.predict` with a threshold that nobody reaches, what staging costs;
- `adaptive`: `EarlyExitPredictor.predict`, all of it: checks, survivors, gathering.

`ideal_ms` is the sum over the stages of the share of pictures that reach a stage times what it
takes alone on a full batch. Prints one row per engine and batch size, and writes the rows with
versions and processor to --output. Let nothing else run meanwhile.
"""

import argparse
import csv
import pathlib

import numpy as np

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.files import write_whole
from keras_adaptive.inference.engines import ENGINES
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.inference.stage_times import measure_stage_times
from keras_adaptive.timing import (
    compile_whole,
    describe_machine,
    in_batches,
    median_ratio,
    time_in_turns,
)
from keras_adaptive.training.datasets import load_data

RESULTS = pathlib.Path(__file__).parent / "results" / "staged_vs_whole.csv"


def compare(model, split, threshold, engine, batch_size, repeats):
    """Return one row: times per picture in milliseconds, accuracies, and the ratios.

    Args:
        model: `MultiExitModel`.
        split: `Split` of test pictures.
        threshold: as in `EarlyExitPredictor`.
        engine: string in `ENGINES`.
        batch_size: int.
        repeats: int. Timed rounds.
    """
    adaptive = EarlyExitPredictor(model, threshold, engine=engine)
    nobody = EarlyExitPredictor(model, NEVER, engine=engine)
    whole = compile_whole(model, engine)

    def classify(predictor):
        if batch_size > 1:
            return predictor.predict(split.x, batch_size, verbose=False)
        for picture in split.x:  # one call per picture, as it would come in service
            predictor.predict(picture, 1, verbose=False)

    times_ms = time_in_turns({
        "whole": lambda: in_batches(whole, split.x, batch_size),
        "nobody": lambda: classify(nobody),
        "adaptive": lambda: classify(adaptive),
    }, repeats, warmups=1)
    stage_ms = measure_stage_times(
        adaptive.engine, len(adaptive.exits), split.x.astype("float32"),
        adaptive.rows_in_a_run(batch_size), repeats=max(20, 200 // batch_size)).per_picture_ms
    prediction = adaptive.predict(split.x, batch_size, verbose=False)
    whole_classes = in_batches(whole, split.x, batch_size).argmax(axis=1)

    reaching = [(prediction.exits >= number).mean() for number in adaptive.exits]
    ideal_ms = float(np.dot(reaching, stage_ms))
    time_ratio = median_ratio(times_ms, "adaptive", "whole")
    cost_share = prediction.summary().mean_cost_share
    row = {"model": model.name, "engine": engine, "batch_size": batch_size,
           "threshold": np.round(threshold, 4).tolist(), "num_pictures": len(split),
           "repeats": repeats}
    for name, samples in times_ms.items():
        for quantile in (50, 95):
            row[f"{name}_p{quantile}_ms"] = round(
                float(np.percentile(samples, quantile)) / len(split), 5)
    return row | {
        "ideal_ms": round(ideal_ms, 5),
        "nobody_ratio": round(median_ratio(times_ms, "nobody", "whole"), 4),
        "time_ratio": round(time_ratio, 4),
        "share_of_ideal_speed": round(ideal_ms / row["adaptive_p50_ms"], 4),
        "cost_share": round(cost_share, 4),
        "saved_time_per_saved_cost": round((1 - time_ratio) / (1 - cost_share), 4),
        "stage_ms": [round(ms, 4) for ms in stage_ms],
        "accuracy": float((prediction.class_ids == split.y).mean()),
        "whole_accuracy": float((whole_classes == split.y).mean()),
    }


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=zoo.DEFAULT_MODEL, help="name in the zoo")
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or an .npz file")
    parser.add_argument("--threshold", type=float, nargs="+", default=None,
                        help="one, or one per exit; by default the calibrated ones that halve the "
                             "mean multiply-adds")
    parser.add_argument("--engine", nargs="+", choices=ENGINES,
                        default=["onnxruntime", "openvino", "keras"])
    parser.add_argument("--num-pictures", type=int, default=1024,
                        help="test pictures a timed run, evenly spread; an eighth at batch size 1")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse_arguments(argv)
    model = zoo.load(arguments.model, pretrained=True)
    threshold = arguments.threshold
    if threshold is None:
        threshold = zoo.thresholds(arguments.model, macs=model.exit_macs[-1] / 2)
    elif len(threshold) == 1:
        (threshold,) = threshold
    test = load_data(arguments.data).test
    machine = describe_machine()
    rows = []
    for engine in arguments.engine:
        for batch_size in arguments.batch_size:
            number = arguments.num_pictures // (8 if batch_size == 1 else 1)
            row = compare(model, spread(test, number), threshold, engine, batch_size,
                          arguments.repeats) | machine
            rows.append(row)
            print(f"{engine}, batch {batch_size}: {row['adaptive_p50_ms']:.3f} ms a picture, whole "
                  f"{row['whole_p50_ms']:.3f} ms, ratio {row['time_ratio']:.2f} at a cost share of "
                  f"{row['cost_share']:.2f}; {row['share_of_ideal_speed']:.0%} of the ideal speed; "
                  f"nobody exits: ratio {row['nobody_ratio']:.2f}; accuracy {row['accuracy']:.4f} "
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
