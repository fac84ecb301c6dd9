"""How many milliseconds does an accuracy cost, by exits and without?

    python benchmarks/accuracy_latency.py --data cifar10
    python benchmarks/plot_speed.py

Measures, in turns on the same engine and test pictures:

- `budget`: `EarlyExitPredictor.predict` with each of the thresholds that the zoo keeps for budgets
  of multiply-adds, chosen on the validation part;
- `exit`: one exit alone, `exits=[k]`, at which all pictures leave: a static network of that size;
- `whole`: all exits in one compiled program.

Accuracies are those on the whole test part, times those of --num-pictures of it. Writes a row per
point; `plot_speed.py` draws them. Let nothing else run meanwhile.
"""

import pathlib

from common import (
    RESULTS,
    add_num_pictures,
    calibrated_thresholds,
    classify,
    describe,
    make_parser,
    pictures_in_a_run,
    quantiles,
    save_rows,
)

from keras_adaptive import ExitOutputs, zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.graph import exit_macs
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.timing import compile_whole, in_batches, time_in_turns
from keras_adaptive.training.datasets import load_data


def time_points(model, budgets, outputs, pictures, engine, batch_size, repeats):
    """Return a row per point: accuracy, mean multiply-adds and times of a picture.

    Args:
        model: `MultiExitModel`.
        budgets: list of `StoredThresholds`.
        outputs: `ExitOutputs` of the test part.
        pictures: uint8 array, those to time.
        engine: string in `ENGINES`.
        batch_size: int.
        repeats: int. Timed rounds.
    """
    full = exit_macs(model)
    accuracies = outputs.accuracies()
    points, calls = {}, {}
    # One predictor for all budgets: thresholds may be set between predictions.
    adaptive = EarlyExitPredictor(model, engine=engine)

    def classify_within(thresholds):
        adaptive.threshold = thresholds
        classify(adaptive, pictures, batch_size)

    for stored in budgets:
        simulated = outputs.simulate(stored.thresholds)
        key = "budget", stored.asked["macs"]
        points[key] = simulated.accuracy, simulated.mean_macs(full)
        calls[key] = lambda thresholds=stored.thresholds: classify_within(thresholds)
    for number, accuracy in enumerate(accuracies, start=1):
        alone = EarlyExitPredictor(model, engine=engine, exits=[number])
        macs = alone.predict(pictures[:1], 1, verbose=False).macs
        points["exit", number] = accuracy, float(macs[0])
        calls["exit", number] = lambda run=alone: classify(run, pictures, batch_size)
    whole = compile_whole(model, engine)
    points["whole", ""] = accuracies[-1], float(full[-1])
    calls["whole", ""] = lambda: in_batches(whole, pictures, batch_size)
    times_ms = time_in_turns(calls, repeats, warmups=1)
    return [{"kind": kind, "value": value, "engine": engine, "batch_size": batch_size,
             "accuracy": round(float(points[kind, value][0]), 5),
             "mean_macs": round(points[kind, value][1]), "num_pictures": len(pictures),
             "repeats": repeats, **quantiles(samples, len(pictures))}
            for (kind, value), samples in times_ms.items()]


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"], [1, 64], 5)
    add_num_pictures(parser, 1024)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "accuracy_latency.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    budgets = calibrated_thresholds(arguments.model).by_macs
    test = load_data(arguments.data).test
    outputs = ExitOutputs.from_model(model, test.x, test.y)
    facts = {"model": arguments.model, "data": pathlib.Path(arguments.data).stem,
             "num_test_pictures": len(test)}
    machine, rows = describe("onnxruntime", "openvino"), []
    for engine in arguments.engine:
        for batch_size in arguments.batch_size:
            pictures = spread(test, pictures_in_a_run(arguments.num_pictures, batch_size)).x
            for row in time_points(model, budgets, outputs, pictures, engine, batch_size,
                                   arguments.repeats):
                rows.append(facts | row | machine)
                print(f"{engine}, batch {batch_size}, {row['kind']} {row['value']}: accuracy "
                      f"{row['accuracy']:.4f}, {row['p50_ms']:.3f} ms a picture", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
