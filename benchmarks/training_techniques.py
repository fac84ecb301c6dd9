"""What does each training technique bring, per exit?

A small RANet learns a tenth of CIFAR-10's training part with one technique at a time, with several
seeds; seeds share order and augmentation of the pictures and differ between each other in both and
in the weights. Accuracies are those of the validation part after the last epoch, so the test part
stays unread. Results are written after every run, and runs that the file has are not repeated.

    python benchmarks/training_techniques.py --data cifar10.npz
"""

import argparse
import contextlib
import pathlib
import sys
import time

import keras
import numpy as np
from common import RESULTS, read_rows, save_rows

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.models import RANet
from keras_adaptive.training.averaging import STATISTICS_PICTURES, AveragedWeights
from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline
from keras_adaptive.training.losses import LastExitDistillation, SmoothedCrossEntropy

BATCH_SIZE = 64

# Arguments of the network, of `compile` and of the optimizer.
TECHNIQUES = {
    "plain": ({}, {}, {}),
    "exit weights 0.5 to 1.5": ({}, {"exit_weights": [0.5, 0.83, 1.17, 1.5]}, {}),
    "distillation": ({}, {"distillation": LastExitDistillation(0.5, 0.5, 2.0)}, {}),
    "label smoothing 0.1": ({}, {"loss": SmoothedCrossEntropy(0.1)}, {}),
    "averaged weights": ({}, {}, {"use_ema": True, "ema_momentum": 0.98}),
    "gradient equilibrium": ({"gradient_equilibrium": True}, {}, {}),
    "boosted exits": ({"boosted_exits": True}, {}, {}),
}


def build(**arguments):
    return RANet(scales=(1, 2), growth_factors=(2, 1), channels=8, growth_rate=6, blocks=2,
                 block_step=2, layers_per_block=2, layer_growth="even", head_filters=32,
                 pooling="global", input_shape=(24, 24, 3), normalization="cifar10", **arguments)


def run(model, optimizer, arguments, data, epochs, seed):
    steps = steps_per_epoch(data.train, BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(0.0, epochs * steps - steps,
                                                  warmup_target=0.1, warmup_steps=steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3,
                                     **optimizer)
    model.compile(optimizer, metrics=None, **arguments)
    pictures = training_pipeline(data.train, BATCH_SIZE, epochs, seed)
    average = (AveragedWeights(pictures, STATISTICS_PICTURES // BATCH_SIZE)
               if optimizer.use_ema else None)
    # Averaged weights are made where a run validates; here it does so at its end.
    validation = {"validation_data": (data.validation.x, data.validation.y),
                  "validation_freq": epochs, "callbacks": [average]} if average else {}
    model.fit(pictures, epochs=epochs, steps_per_epoch=steps, verbose=0, **validation)
    with average.in_place() if average else contextlib.nullcontext():
        outputs = ExitOutputs.from_model(model, data.validation.x, data.validation.y)
    return outputs.accuracies()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "training_techniques.csv")
    arguments = parser.parse_args(argv)
    data = load_data(arguments.data)
    train = data.train.head(len(data.train) // 10).resized(24)
    data = type(data)(train, data.validation.resized(24), data.test, data.class_names)
    rows = read_rows(arguments.output) if arguments.output.exists() else []
    if any((row["epochs"], row["pictures"]) != (str(arguments.epochs), str(len(train)))
           for row in rows):
        parser.error(f"{arguments.output} holds runs of other epochs or pictures: give another "
                     "--output, or those settings")
    done = {(row["technique"], int(row["seed"])) for row in rows}
    for seed in range(arguments.seeds):
        for name, (network, compiling, optimizer) in TECHNIQUES.items():
            if (name, seed) in done:
                continue
            keras.utils.set_random_seed(seed)
            start = time.perf_counter()
            accuracies = run(build(**network), optimizer, compiling, data, arguments.epochs, seed)
            rows.append({"technique": name, "seed": seed, "epochs": arguments.epochs,
                         "pictures": len(train),
                         **{f"exit{k}": f"{a:.4f}" for k, a in enumerate(accuracies, start=1)}})
            save_rows(arguments.output, rows)
            print(f"{name:24} seed {seed}: {np.round(accuracies, 4)}, "
                  f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
