"""Which of ThumbNet's claims hold on CIFAR-10, at the scale of two CPU cores?

Students of one teacher, ResNet-20 on full pictures, learn a part of the training pictures in
several ways, with several seeds. Seeds share order and augmentation of the pictures between the
ways. The accuracy is that of the last epoch, on the validation part; the test part stays unread.
What is compared was fixed before the first run, and every way that was run is in the results.

    python benchmarks/thumbnet_claims.py --data cifar10.npz
    python benchmarks/thumbnet_claims.py --data cifar10.npz --ratio 4 --arms full,honest

Runs that the results have are not repeated. At the end the paired differences are shown, with the
95 % interval of Student's t over seeds: a claim `held` where the mean is at least 0.3 points and
the interval lies above 0, is `refuted` where it lies below 0, is `null` where it lies within 0.3
points of 0, and is `undecided` otherwise. Pictures of 32 pixels are thumbnails already: a null
result here does not refute the paper, whose pictures have 224.
"""

import argparse
import math
import pathlib
import statistics
import time

import keras
from common import RESULTS, describe, read_rows, save_rows
from rich.console import Console
from rich.table import Table

from keras_adaptive import zoo
from keras_adaptive.graph import exit_macs
from keras_adaptive.layers import Thumbnail
from keras_adaptive.models import ResNet
from keras_adaptive.models.inputs import STATISTICS
from keras_adaptive.models.resized import copy_for_size
from keras_adaptive.models.thumbnet import ThumbNet
from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline
from keras_adaptive.training.recipe_tables import PRECISIONS

TEACHER = "resnet20_cifar10"
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.05
MARGIN = 0.3  # points
# Student's t for a two-sided interval of 95 %, by the number of pairs.
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306,
        10: 2.262}

_LABELS_ONLY = {"distillation_weight": 0, "feature_weight": 0, "moment_weight": 0}
_LABELS_AND_TEACHER = {"feature_weight": 0, "moment_weight": 0}

# Name: (what it is, arguments of `ThumbNet.from_teacher`).
STUDENTS = {
    "direct": ("bicubic thumbnails, random start, labels only",
               {"downscaler": "bicubic", "initial": "random", **_LABELS_ONLY}),
    "honest": ("averaged thumbnails, teacher's start, labels and distillation",
               {"downscaler": "area", **_LABELS_AND_TEACHER}),
    "honest_features": ("the same with features", {"downscaler": "area"}),
    "full": ("ThumbNet: learned thumbnails, teacher's start, all losses", {}),
    "without_moments": ("ThumbNet without moment matching", {"moment_weight": 0}),
    "without_distillation": ("ThumbNet without distillation", {"distillation_weight": 0}),
    "without_features": ("ThumbNet without features", {"feature_weight": 0}),
    "random_start": ("ThumbNet from random weights", {"initial": "random"}),
    "full_from_area": ("ThumbNet whose downscaler starts as averaging and adds to it",
                       {"downscaler": "area_plus_learned"}),
    "more_layers": ("the downscaler's two layers behind averaging",
                    {"downscaler": "area_then_learned"}),
}
# These see full pictures, or pictures of full size.
OTHERS = {
    "small": "half as wide a network on full pictures, at the student's cost, from random weights",
    "enlarged": "averaged thumbnails enlarged again, the whole network: what the pixels lost",
}
ARMS = {**{name: what for name, (what, _) in STUDENTS.items()}, **OTHERS}

# What is claimed: the first is better than the second.
CLAIMS = [
    ("it beats direct training on bicubic thumbnails", "full", "direct"),
    ("it beats the honest control", "full", "honest"),
    ("learned thumbnails beat averaged ones, all else equal", "full", "honest_features"),
    ("so they do where they start as averaged ones (ours)", "full_from_area", "honest_features"),
    ("shrinking that is learned does it, not two more layers", "full", "more_layers"),
    ("it beats a small network of the same cost", "full", "small"),
    ("moments help", "full", "without_moments"),
    ("distillation helps", "full", "without_distillation"),
    ("features help", "full", "without_features"),
    ("the teacher's start helps", "full", "random_start"),
    ("the small maps cost accuracy, not the lost pixels", "enlarged", "honest"),
]


def make(arm, teacher, ratio, precision="float32"):
    """Return the `ThumbNet` of an arm.

    Args:
        arm: string in `ARMS`.
        teacher: trained `keras.Model` for pictures of 32 pixels.
        ratio: int.
        precision: string, a dtype policy.
    """
    mean, std = STATISTICS["cifar10"]
    if arm in STUDENTS:
        _, arguments = STUDENTS[arm]
        return ThumbNet.from_teacher(teacher, ratio, hidden_filters=16, mean=mean, std=std,
                                     precision=precision, **arguments)
    pictures = keras.Input(teacher.input_shape[1:])
    copied = {"input_shape": teacher.input_shape[1:], "precision": precision}
    if arm == "small":
        # Half the width costs a quarter, as half the side does.
        student = ResNet(20, 16 // ratio, num_classes=teacher.output_shape[-1],
                         normalization="cifar10")
        student = copy_for_size(student, name="student", **copied)
        view = keras.layers.Identity()(pictures)
    else:
        student = copy_for_size(teacher, name="student", **copied)
        view = keras.layers.UpSampling2D(ratio)(Thumbnail(ratio)(pictures))
    return ThumbNet(keras.Model(pictures, view, name="downscaler"), student,
                    copy_for_size(teacher, name="teacher", **copied),
                    **_LABELS_AND_TEACHER)


def run(thumbnet, train, validation, epochs, seed):
    """Train an arm and return its accuracy on the validation part after the last epoch."""
    steps = steps_per_epoch(train, BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, (epochs - 1) * steps), warmup_target=PEAK_LEARNING_RATE, warmup_steps=steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    thumbnet.compile(optimizer)
    thumbnet.fit(training_pipeline(train, BATCH_SIZE, epochs, seed), epochs=epochs,
                 steps_per_epoch=steps, verbose=0)
    logits = thumbnet.predict(validation.x, batch_size=250, verbose=0)
    return float((logits.argmax(axis=1) == validation.y).mean())


def judge(differences):
    """Return the mean of paired differences, half its 95 % interval, and what that says.

    Args:
        differences: list of floats in points, one per seed, at least two.
    """
    mean = statistics.fmean(differences)
    half = T_95[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
    if mean >= MARGIN and mean - half > 0:
        return mean, half, "held"
    if mean + half < 0:
        return mean, half, "refuted"
    if -MARGIN <= mean - half and mean + half <= MARGIN:
        return mean, half, "null"
    return mean, half, "undecided"


def show(rows, ratio):
    """Print the arms and the claims of a ratio."""
    accuracies = {}
    for row in rows:
        if int(row["ratio"]) == ratio:
            accuracies.setdefault(row["arm"], {})[int(row["seed"])] = float(row["accuracy"])
    arms = Table("arm", "what it is", "seeds", "accuracy", title=f"ratio {ratio}")
    for arm, by_seed in accuracies.items():
        arms.add_row(arm, ARMS[arm], str(len(by_seed)),
                     f"{statistics.fmean(by_seed.values()):.2%}")
    claims = Table("claim", "compared", "difference, points", "95 % interval", "")
    for text, better, worse in CLAIMS:
        seeds = sorted(set(accuracies.get(better, {})) & set(accuracies.get(worse, {})))
        if len(seeds) in T_95:
            mean, half, verdict = judge([
                100 * (accuracies[better][seed] - accuracies[worse][seed]) for seed in seeds])
            claims.add_row(text, f"{better} - {worse}", f"{mean:+.2f}",
                           f"{mean - half:+.2f} to {mean + half:+.2f}", verdict)
    console = Console(width=130)
    console.print(arms)
    console.print(claims)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--ratio", type=int, choices=(2, 4), default=2)
    parser.add_argument("--arms", default=",".join(ARMS), help="default: all of %(default)s")
    parser.add_argument("--pictures", type=int, default=4500, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "thumbnet_claims.csv")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.seeds <= max(T_95):
        parser.error(f"--seeds is 1 to {max(T_95)}")
    unknown = [arm for arm in arguments.arms.split(",") if arm not in ARMS]
    if unknown:
        parser.error(f"unknown arms {unknown}; known are {list(ARMS)}")
    data = load_data(arguments.data)
    train = data.train.head(arguments.pictures)
    teacher = zoo.load(TEACHER, pretrained=True)
    rows = read_rows(arguments.output) if arguments.output.exists() else []
    scale = str(len(train)), str(arguments.epochs), arguments.precision
    if any((row["pictures"], row["epochs"], row["precision"]) != scale for row in rows):
        parser.error(f"{arguments.output} holds runs with other pictures, epochs or precision, "
                     "which cannot be compared with these. Give another --output.")
    done = {(row["arm"], int(row["ratio"]), int(row["seed"])) for row in rows}
    for seed in range(arguments.seeds):
        for arm in arguments.arms.split(","):
            if (arm, arguments.ratio, seed) in done:
                continue
            keras.utils.set_random_seed(seed)
            start = time.perf_counter()
            thumbnet = make(arm, teacher, arguments.ratio, arguments.precision)
            accuracy = run(thumbnet, train, data.validation, arguments.epochs, seed)
            rows.append({
                "arm": arm, "ratio": arguments.ratio, "seed": seed, "accuracy": f"{accuracy:.4f}",
                "macs": exit_macs(thumbnet.on_pictures())[-1], "pictures": len(train),
                "epochs": arguments.epochs, "precision": arguments.precision,
                "seconds": round(time.perf_counter() - start),
                **describe()})
            save_rows(arguments.output, rows)
            print(f"{arm}, ratio {arguments.ratio}, seed {seed}: {accuracy:.2%}, "
                  f"{rows[-1]['seconds']} s", flush=True)
            keras.utils.clear_session()
            teacher = zoo.load(TEACHER, pretrained=True)
    show(rows, arguments.ratio)


if __name__ == "__main__":
    main()
