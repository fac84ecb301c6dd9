"""What accuracy do exits attached to a trained ResNet-20 give, and for what cost?

`attach_exits` places early exits at even shares of the multiply-adds; the trunk stays frozen, so
that the last exit keeps the ResNet's answers. The heads learn from the labels and from the last
exit's probabilities. Thresholds come from the validation part; accuracy and cost are the test
part's.

    python benchmarks/attach_exits_cifar10.py --data cifar10

The ResNet is the zoo's, `resnet20_cifar10`. Rows of the kind `exit` stop all pictures at one exit,
rows of the kind `budget` each picture where it is sure enough; the row `alone` is the ResNet
without exits, whose answers are those of the last one. The heads are 32 wide: with the 128 of
MSDNet's they would cost half of a ResNet whose layers are 16 to 64 wide. `--weights` keeps what was
trained.
"""

import argparse
import pathlib
import sys
import time

import keras
from common import RESULTS, describe, save_rows

from keras_adaptive import attach_exits, zoo
from keras_adaptive.cards import without_repeats
from keras_adaptive.evaluation import ExitOutputs, evaluate_anytime, evaluate_budgeted
from keras_adaptive.files import write_whole
from keras_adaptive.graph import exit_macs
from keras_adaptive.layers import ExitHead
from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline
from keras_adaptive.training.losses import LastExitDistillation

MODEL = "resnet20_cifar10"
HEAD_FILTERS = 32
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
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--count", type=int, default=3, help="early exits; default: %(default)s")
    parser.add_argument("--head-filters", type=int, default=HEAD_FILTERS,
                        help="width of the heads; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--weights", metavar="WEIGHTS_H5", type=pathlib.Path, default=None,
                        help="a file for the weights of the whole network, as it is trained")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "attach_exits_cifar10.csv")
    arguments = parser.parse_args(argv)
    if arguments.weights is not None:  # what is wrong with it is told before the training
        if not arguments.weights.name.endswith(".weights.h5"):
            parser.error(f"--weights ends in .weights.h5; received {arguments.weights}")
        arguments.weights.parent.mkdir(parents=True, exist_ok=True)

    data = load_data(arguments.data)
    keras.utils.set_random_seed(0)

    def head(features, num_classes, name):
        return ExitHead(num_classes, arguments.head_filters, "global", name=name)(features)

    classifier = zoo.load(MODEL, pretrained=True)
    alone = exit_macs(classifier)[0]
    model = attach_exits(classifier, count=arguments.count, head=head)
    start = time.perf_counter()
    train_heads(model, data, arguments.epochs, BATCH_SIZE)
    about = {"model": MODEL, "exits": model.num_exits,
             "head_filters": arguments.head_filters, "epochs": arguments.epochs,
             "training_pictures": len(data.train), "test_pictures": len(data.test),
             "training_minutes": round((time.perf_counter() - start) / 60, 1), **describe()}
    rows = curve(model, data)
    last = rows[model.num_exits - 1]
    rows.append({**last, "kind": "alone", "value": "", "mean_macs": alone,
                 "cost_share": round(alone / last["mean_macs"], 4)})
    for row in rows:
        print(f"{row['kind']:7} {row['value']:>9}: {row['accuracy']:.2%} for "
              f"{row['mean_macs'] / 1e6:.2f} M ({row['cost_share']:.0%})", file=sys.stderr)
    save_rows(arguments.output, [{**row, **about} for row in rows])
    if arguments.weights is not None:
        write_whole(arguments.weights, model.save_weights)


if __name__ == "__main__":
    main()
