"""How much of the work that stopping early saves is saved on the clock?

    python benchmarks/staged_vs_whole.py --data cifar10
    python benchmarks/staged_vs_whole.py --engine onnxruntime --batch-size 1 64 --threshold 0.8

For each engine and batch size, on the same test pictures, in turns in one process:

- `whole`: the network with all of its exits in one compiled program on the same engine, converted
  plainly;
- `nobody`: `EarlyExitPredictor.predict` with a threshold that nobody reaches, what staging costs;
- `adaptive`: `EarlyExitPredictor.predict`, all of it: checks, survivors, gathering;
- `model_predict`, with --model-predict: Keras's own `Model.predict`, called batch after batch.

`ideal_ms` is the sum over the stages of the share of pictures that reach a stage times what it
takes alone on a full batch. Prints one row per engine and batch size, and writes the rows with
versions and processor to --output. Let nothing else run meanwhile.
"""

import pathlib

import numpy as np
from common import (
    RESULTS,
    add_num_pictures,
    classify,
    describe,
    halving_thresholds,
    make_parser,
    pictures_in_a_run,
    quantiles,
    save_rows,
)

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.inference.stage_times import measure_stage_times
from keras_adaptive.timing import compile_whole, in_batches, median_ratio, time_in_turns
from keras_adaptive.training.datasets import load_data


def compare(model, split, threshold, engine, batch_size, repeats, with_model_predict=False):
    """Return one row: times per picture in milliseconds, accuracies, and the ratios.

    Args:
        model: `MultiExitModel`.
        split: `Split` of test pictures.
        threshold: as in `EarlyExitPredictor`.
        engine: string in `ENGINES`.
        batch_size: int.
        repeats: int. Timed rounds.
        with_model_predict: bool. Whether `Model.predict` is timed, too.
    """
    adaptive = EarlyExitPredictor(model, threshold, engine=engine)
    nobody = EarlyExitPredictor(model, NEVER, engine=engine)
    whole = compile_whole(model, engine)
    calls = {
        "whole": lambda: in_batches(whole, split.x, batch_size),
        "nobody": lambda: classify(nobody, split.x, batch_size),
        "adaptive": lambda: classify(adaptive, split.x, batch_size),
    }
    if with_model_predict:
        calls["model_predict"] = lambda: in_batches(
            lambda pictures: model.predict(pictures, batch_size, verbose=0), split.x, batch_size)
    times_ms = time_in_turns(calls, repeats, warmups=1)
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
        row |= {f"{name}_{quantile}": ms
                for quantile, ms in quantiles(samples, len(split)).items()}
    return row | {
        "ideal_ms": round(ideal_ms, 5),
        "nobody_ratio": round(median_ratio(times_ms, "nobody", "whole"), 4),
        "time_ratio": round(time_ratio, 4),
        "share_of_ideal_speed": round(ideal_ms / row["adaptive_p50_ms"], 4),
        "cost_share": round(cost_share, 4),
        "saved_time_per_saved_cost": round((1 - time_ratio) / (1 - cost_share), 4)
        if cost_share < 1 else "",  # nobody has left early
        "stage_ms": [round(ms, 4) for ms in stage_ms],
        "accuracy": float((prediction.class_ids == split.y).mean()),
        "whole_accuracy": float((whole_classes == split.y).mean()),
    }


def parse_arguments(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino", "keras"], [1, 8, 64, 256], 7)
    parser.add_argument("--threshold", type=float, nargs="+", default=None,
                        help="one, or one per exit; by default the calibrated ones that halve the "
                             "mean multiply-adds")
    add_num_pictures(parser, 1024)
    parser.add_argument("--model-predict", action="store_true",
                        help="time Keras's `Model.predict` on the same pictures, too")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "staged_vs_whole.csv")
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse_arguments(argv)
    model = zoo.load(arguments.model, pretrained=True)
    threshold = arguments.threshold
    if threshold is None:
        threshold = halving_thresholds(arguments.model, model)
    elif len(threshold) == 1:
        (threshold,) = threshold
    test = load_data(arguments.data).test
    machine = describe("onnxruntime", "openvino")
    rows = []
    for engine in arguments.engine:
        for batch_size in arguments.batch_size:
            pictures = spread(test, pictures_in_a_run(arguments.num_pictures, batch_size))
            row = compare(model, pictures, threshold, engine, batch_size, arguments.repeats,
                          arguments.model_predict) | machine
            rows.append(row)
            print(f"{engine}, batch {batch_size}: {row['adaptive_p50_ms']:.3f} ms a picture, whole "
                  f"{row['whole_p50_ms']:.3f} ms, ratio {row['time_ratio']:.2f} at a cost share of "
                  f"{row['cost_share']:.2f}; {row['share_of_ideal_speed']:.0%} of the ideal speed; "
                  f"nobody exits: ratio {row['nobody_ratio']:.2f}; accuracy {row['accuracy']:.4f} "
                  f"(whole {row['whole_accuracy']:.4f})", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
