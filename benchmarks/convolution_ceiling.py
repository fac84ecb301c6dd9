"""How much of the processor's convolution speed does the network reach?

    python benchmarks/convolution_ceiling.py
    python benchmarks/convolution_ceiling.py --engine openvino --batch-size 64

Measures the multiply-adds a second of a convolution that processors are good at (3x3, 128 to 128
channels, 16x16 pixels) and those of the zoo's network, stage by stage and whole, in turns on the
same engine. Prints and writes a row per stage.
"""

import pathlib
import statistics

import keras
import numpy as np
from common import RESULTS, describe, make_parser, save_rows

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.graph import split_into_stages
from keras_adaptive.inference.engines import make_engine
from keras_adaptive.timing import time_in_turns
from keras_adaptive.training.datasets import load_data

SIDE, CHANNELS, LAYERS = 16, 128, 4


def ceiling_model():
    """Return a model of convolutions alone, and its multiply-adds."""
    inputs = keras.Input((SIDE, SIDE, CHANNELS))
    x = inputs
    for _ in range(LAYERS):
        x = keras.layers.Conv2D(CHANNELS, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, x), LAYERS * SIDE**2 * CHANNELS**2 * 9


def measure(model, pictures, engine, repeats):
    """Return rows: name, multiply-adds of a picture, milliseconds, and share of the ceiling.

    Args:
        model: `MultiExitModel`.
        pictures: float32 array, one batch.
        engine: string in `ENGINES`.
        repeats: int. Timed rounds.
    """
    plain, plain_macs = ceiling_model()
    top = make_engine(engine)
    top.prepare(split_into_stages(plain), [False])
    maps = np.random.default_rng(0).normal(
        size=(len(pictures), SIDE, SIDE, CHANNELS)).astype("float32")
    runner = make_engine(engine)
    stages = split_into_stages(model)
    runner.prepare(stages, [True] * len(stages))
    tensors = dict.fromkeys(runner.reads(1), pictures)
    calls = {"ceiling": lambda: top.run(1, [maps], len(maps))}
    for index in range(1, len(stages) + 1):
        reads = [tensors[key] for key in runner.reads(index)]
        _, made = runner.run(index, reads, len(pictures))
        tensors.update(zip(runner.makes(index), made))
        calls[f"stage {index}"] = (
            lambda index=index, reads=reads: runner.run(index, reads, len(pictures)))
    times_ms = time_in_turns(calls, repeats)
    macs = [plain_macs, *np.diff([0, *model.exit_macs]).tolist()]
    medians = [statistics.median(samples) for samples in times_ms.values()]
    names = [*times_ms, "all stages"]
    macs.append(sum(macs[1:]))
    medians.append(sum(medians[1:]))
    ceiling = macs[0] / medians[0]
    return [{"engine": engine, "batch_size": len(pictures), "what": name, "macs": number,
             "ms": round(ms, 3), "gmacs_per_second": round(len(pictures) * number / ms / 1e6, 2),
             "share_of_ceiling": round(number / ms / ceiling, 4)}
            for name, number, ms in zip(names, macs, medians)]


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"], [64], 30)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "convolution_ceiling.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    test = load_data(arguments.data).test
    machine, rows = describe("onnxruntime", "openvino"), []
    for engine in arguments.engine:
        for batch_size in arguments.batch_size:
            pictures = spread(test, batch_size).x.astype("float32")
            for row in measure(model, pictures, engine, arguments.repeats):
                rows.append(row | machine)
                print(f"{engine}, batch {batch_size}, {row['what']}: {row['ms']:.2f} ms, "
                      f"{row['gmacs_per_second']:.1f} billion multiply-adds a second, "
                      f"{row['share_of_ceiling']:.0%} of the ceiling", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
