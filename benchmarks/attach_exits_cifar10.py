"""What accuracy do exits attached to a trained ResNet-20 give, and for what cost?

`attach_exits` places early exits at even shares of the multiply-adds; the trunk stays frozen, so
that the last exit keeps the ResNet's answers. The heads learn from the labels and from the last
exit's probabilities. Thresholds come from the validation part; accuracy and cost are the test
part's.

    python benchmarks/attach_exits_cifar10.py best.weights.h5 --data cifar10.npz

The weights are those that `keras-adaptive train resnet20_cifar10` leaves in its folder. Rows of the
kind `exit` stop all pictures at one exit, rows of the kind `budget` each picture where it is sure
enough. Beside the table lie the heads: `<output>.weights.h5`, of the whole network.
"""

import argparse
import pathlib
import sys
import time

import keras
from common import RESULTS, describe, save_rows

from keras_adaptive import attach_exits, recipes
from keras_adaptive.cards import without_repeats
from keras_adaptive.evaluation import ExitOutputs, evaluate_anytime, evaluate_budgeted
from keras_adaptive.files import write_whole
from keras_adaptive.graph import exit_macs
from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline
from keras_adaptive.training.losses import LastExitDistillation

RECIPE = "resnet20_cifar10"
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 0.1


def train_heads(model, data, epochs, batch_size, seed=0):
    """Fit the heads to the labels and to the last exit, with crops and flips.

    Batch normalisation of a frozen trunk runs as in inference, so the teacher does not change.
    """
    steps = steps_per_epoch(data.train, batch_size)
    warmup = max(1, steps // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, epochs * steps - warmup), warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=warmup)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3),
                  distillation=LastExitDistillation(0.5, 0.5, 2.0))
    model.fit(training_pipeline(data.train, batch_size, epochs, seed), epochs=epochs,
              steps_per_epoch=steps, validation_data=(data.validation.x, data.validation.y),
              validation_batch_size=250, shuffle=False, verbose=2)


def curve(model, data):
    """Return the rows of the table: every exit, and every budget that gives other thresholds."""
    macs = exit_macs(model)
    validation, test = (ExitOutputs.from_model(model, part.x, part.y)
                        for part in (data.validation, data.test))
    points = [("exit", point.exit, point) for point in evaluate_anytime(test, macs)]
    points += [("budget", round(point.budget), point) for point in without_repeats(
        evaluate_budgeted(validation, test, macs, smooth=True))]
    return [{"kind": kind, "value": value, "accuracy": round(point.accuracy, 4),
             "mean_macs": round(point.mean_macs),
             "cost_share": round(point.mean_macs / macs[-1], 4)}
            for kind, value, point in points]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=pathlib.Path, nargs="?", default=None,
                        help="`.weights.h5` of a trained ResNet-20; not needed with --quick")
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--count", type=int, default=3, help="early exits; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true",
                        help="a tiny untrained ResNet, one epoch: shows only that it runs")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "attach_exits_cifar10.csv")
    arguments = parser.parse_args(argv)
    if arguments.weights is None and not arguments.quick:
        parser.error("give the weights of a trained ResNet-20, or --quick")

    recipe = recipes.load(RECIPE)
    if arguments.quick:
        recipe = recipe.quick()
    epochs = 1 if arguments.quick else arguments.epochs
    batch_size = recipe.training.batch_size if arguments.quick else BATCH_SIZE
    data = load_data(arguments.data)
    keras.utils.set_random_seed(0)
    classifier = recipe.build()
    if arguments.weights is not None:
        classifier.load_weights(arguments.weights)
    model = attach_exits(classifier, count=arguments.count)
    start = time.perf_counter()
    train_heads(model, data, epochs, batch_size)
    about = {"model": recipe.name, "exits": model.num_exits, "epochs": epochs,
             "training_pictures": len(data.train), "test_pictures": len(data.test),
             "training_minutes": round((time.perf_counter() - start) / 60, 1), **describe()}
    rows = curve(model, data)
    for row in rows:
        print(f"{row['kind']:7} {row['value']:>9}: {row['accuracy']:.2%} for "
              f"{row['mean_macs'] / 1e6:.2f} M ({row['cost_share']:.0%})", file=sys.stderr)
    save_rows(arguments.output, [{**row, **about} for row in rows])
    write_whole(arguments.output.with_suffix(".weights.h5"), model.save_weights)


if __name__ == "__main__":
    main()
