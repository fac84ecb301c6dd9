"""How does the gain grow with batch size, picture size and the share of easy pictures? And memory?

    python benchmarks/growth.py --data cifar10
    python benchmarks/growth.py --question batch_size --batch-size 1 2 4 8

Writes a row per point, with the `question` that it belongs to and the `value` of what varies. Times
are `EarlyExitPredictor.predict` against the whole network in one compiled program on the same
engine, in turns:

- `batch_size`: at the calibrated thresholds that halve the mean multiply-adds;
- `picture_size`: sides in pixels, the zoo's weights with global pooling, thresholds chosen anew on
  --num-validation pictures of the validation part brought to that size, for half of the
  multiply-adds;
- `easy_share`: mixtures of pictures that leave at the first exit, easy ones, and of such that leave
  at the last, at the thresholds of `batch_size`; 0 to 1;
- `memory`: what a fresh process needs for --num-memory pictures at the largest batch size, beyond
  what it had taken when the network was loaded and had answered once. Stages are exported ones.

Let nothing else run meanwhile.
"""

import pathlib
import tempfile

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
    read_rows,
    run_fresh,
    save_rows,
)
from fresh_process import save_whole

from keras_adaptive import export_stages, zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.graph import exit_macs
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.timing import (
    compile_whole,
    in_batches,
    median_ratio,
    time_in_turns,
    write_whole_network,
)
from keras_adaptive.training.datasets import load_data

QUESTIONS = ("batch_size", "picture_size", "easy_share", "memory")
TIMED_BATCH_SIZE = 64  # where something else varies


def compare(predictor, whole, pictures, batch_size, repeats):
    """Return times of a picture, their ratio, and the share of the multiply-adds."""
    times_ms = time_in_turns({
        "adaptive": lambda: classify(predictor, pictures, batch_size),
        "whole": lambda: in_batches(whole, pictures, batch_size),
    }, repeats, warmups=1)
    cost_share = predictor.predict(pictures, batch_size, verbose=False).summary().mean_cost_share
    time_ratio = median_ratio(times_ms, "adaptive", "whole")
    row = {"batch_size": batch_size, "num_pictures": len(pictures), "repeats": repeats}
    for name, samples in times_ms.items():
        row |= {f"{name}_{key}": ms for key, ms in quantiles(samples, len(pictures)).items()}
    return row | {"time_ratio": round(time_ratio, 4), "cost_share": round(cost_share, 4)}


def grow_batches(model, threshold, test, engine, arguments):
    """Yield a row per batch size."""
    predictor = EarlyExitPredictor(model, threshold, engine=engine)
    whole = compile_whole(model, engine)
    for batch_size in arguments.batch_size:
        pictures = spread(test, pictures_in_a_run(arguments.num_pictures, batch_size)).x
        yield {"value": batch_size, **compare(
            predictor, whole, pictures, batch_size, arguments.repeats)}


def grow_pictures(name, data, engine, arguments):
    """Yield a row per picture size."""
    for size in arguments.picture_size:
        model = zoo.load(name, pretrained=True, pooling="global", input_shape=(size, size, 3))
        predictor = EarlyExitPredictor(model, engine=engine)
        validation = spread(data.validation, arguments.num_validation).resized(size)
        full_macs = exit_macs(model)[-1]
        predictor.calibrate(validation.x, validation.y, macs=full_macs / 2, verbose=False)
        test = spread(data.test, arguments.num_pictures).resized(size)
        yield {"value": size, "full_macs": full_macs, **compare(
            predictor, compile_whole(model, engine), test.x, TIMED_BATCH_SIZE, arguments.repeats)}


def grow_easy_share(model, threshold, test, engine, arguments):
    """Yield a row per share of easy pictures."""
    predictor = EarlyExitPredictor(model, threshold, engine=engine)
    whole = compile_whole(model, engine)
    exits = predictor.predict(test.x, TIMED_BATCH_SIZE, verbose=False).exits
    easy, hard = np.flatnonzero(exits == exits.min()), np.flatnonzero(exits == exits.max())
    number = arguments.num_pictures
    for share in arguments.easy_share:
        num_easy = round(share * number)
        # Each as often as needed, where there are fewer.
        rows = np.concatenate([np.resize(easy, num_easy), np.resize(hard, number - num_easy)])
        pictures = test.x[np.random.default_rng(0).permutation(rows)]
        yield {"value": share, **compare(
            predictor, whole, pictures, TIMED_BATCH_SIZE, arguments.repeats)}


def measure_memory(model, threshold, test, engine, arguments):
    """Yield a row per way of running the network, each in fresh processes without Keras."""
    if engine == "keras":
        return
    batch_size = max(arguments.batch_size)
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        pictures = np.resize(test.x, (arguments.num_memory, *test.x.shape[1:]))
        np.save(folder / "pictures.npy", pictures)
        export_stages(model, folder / "stages", thresholds=threshold)
        save_whole(write_whole_network(model), folder / "whole")
        ways = {
            "whole": ("--whole", folder / "whole"),
            "nobody": ("--export", folder / "stages", "--threshold", NEVER),
            "adaptive": ("--export", folder / "stages"),
        }
        for way, source in ways.items():
            runs = [run_fresh(*source, "--engine", engine, "--data", folder / "pictures.npy",
                              "--batch-size", batch_size) for _ in range(arguments.memory_repeats)]
            before, peak = (float(np.median([run[key] for run in runs]))
                            for key in ("before_mib", "peak_mib"))
            yield {"value": way, "batch_size": batch_size, "num_pictures": len(pictures),
                   "repeats": len(runs), "before_mib": round(before, 1),
                   "peak_mib": round(peak, 1), "added_mib": round(peak - before, 1)}


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"],
                         [1, 2, 4, 8, 16, 32, 64, 128, 256], 5)
    parser.add_argument("--question", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--picture-size", type=int, nargs="+", default=[32, 48, 64])
    parser.add_argument("--easy-share", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1])
    parser.add_argument("--num-validation", type=int, default=1000)
    parser.add_argument("--num-memory", type=int, default=10_000, help="pictures for `memory`")
    parser.add_argument("--memory-repeats", type=int, default=3, help="processes for `memory`")
    add_num_pictures(parser, 1024)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "growth.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    threshold = halving_thresholds(arguments.model, model)
    data = load_data(arguments.data)
    answers = {
        "batch_size": lambda engine: grow_batches(
            model, threshold, data.test, engine, arguments),
        "picture_size": lambda engine: grow_pictures(arguments.model, data, engine, arguments),
        "easy_share": lambda engine: grow_easy_share(
            model, threshold, data.test, engine, arguments),
        "memory": lambda engine: measure_memory(model, threshold, data.test, engine, arguments),
    }
    machine, rows = describe("onnxruntime", "openvino"), []
    for question in arguments.question:
        for engine in arguments.engine:
            for row in answers[question](engine):
                rows.append({"question": question, "engine": engine, **row, **machine})
                figures = (f"{row['added_mib']:.0f} MiB more, {row['peak_mib']:.0f} MiB in all"
                           if question == "memory" else
                           f"{row['adaptive_p50_ms']:.3f} ms a picture, whole "
                           f"{row['whole_p50_ms']:.3f} ms, ratio {row['time_ratio']:.2f} at a cost "
                           f"share of {row['cost_share']:.2f}")
                print(f"{engine}, {question} {row['value']}: {figures}", flush=True)
    asked = {(question, engine) for question in arguments.question for engine in arguments.engine}
    if arguments.output.exists():  # what else was asked before
        rows = [row for row in read_rows(arguments.output)
                if (row["question"], row["engine"]) not in asked] + rows
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
