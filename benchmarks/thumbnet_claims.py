"""Which of ThumbNet's claims hold on CIFAR-10, at the scale of two CPU cores?

Students of one teacher, ResNet-20 on full pictures, learn a part of the training pictures in
several ways, with several seeds. Seeds share order and augmentation of the pictures between the
ways. The accuracy is that of the last epoch, on the validation part; the test part stays unread.
What is compared was fixed before the first run, and every way that was run is in the results.

    python benchmarks/thumbnet_claims.py --data cifar10.npz
    python benchmarks/thumbnet_claims.py --data cifar10.npz --ratio 4 --arms full,honest
    python benchmarks/thumbnet_claims.py --show

Runs that the results have are not repeated; runs of before thumbnails were measured are repeated
with --measure-again. At the end the paired differences are shown, with the 95 % interval of
Student's t over seeds: a claim `held` where the mean is at least 0.3 points and the interval lies
above 0, is `refuted` where it lies below 0, is `null` where it lies within 0.3 points of 0, and is
`undecided` otherwise. The claims:

    C1   it beats direct training, also one of twice the epochs
    C2   it beats the honest control: the same schedule, teacher and start, thumbnails averaged
    C3   each loss adds
    C4   learned thumbnails beat averaged and bicubic ones, and two more layers behind averaging
    C5   accuracy is kept at 1/16 of the pixels: here, the share of the gap that is closed
    C6   cost falls by the ratio's square: `thumbnet_speed.py`, counted and timed
    C7   the downscaler serves other networks: thumbnet_transfer.py
    C8   the downscaler serves other data: thumbnet_transfer.py
    C9   the teacher's start helps, also against twice the epochs
    C10  moment matching keeps thumbnails natural: held where, with every seed, it makes the
         difference of moments ten times smaller and the PSNR to averaged thumbnails higher, and
         accuracy is not lower by more than 0.3 points
    C11  files lose nothing: thumbnail_files.py
    C12  it beats a small network of the same cost; the nearest width is the same with and without
         the downscaler's cost
    C13  what is lost: the pixels' information, or the resolution of the maps

Pictures of 32 pixels are thumbnails already: a null result here does not refute the paper, whose
pictures have 224. The teacher has seen ten times as many pictures as students do here, all seeds
share it, and all ways share one learning rate.
"""

import argparse
import dataclasses
import pathlib
import time

import keras
from common import RESULTS, describe, read_rows, save_rows
from thumbnet_arms import ARMS, make
from thumbnet_verdicts import QUALITY, T_95, show

from keras_adaptive import zoo
from keras_adaptive.graph import exit_macs
from keras_adaptive.shrinking import thumbnail_ratio
from keras_adaptive.thumbnail_quality import average, measure_thumbnails, structural_similarity
from keras_adaptive.training import reestimate_statistics
from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline
from keras_adaptive.training.recipe_tables import PRECISIONS

TEACHER = "resnet20_cifar10"
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.05


def learn(model, train, epochs, seed, **compiling):
    """Train a network with a warm-up and a falling cosine.

    Args:
        model: `keras.Model`.
        train: `Split`.
        epochs: int.
        seed: int, of order and augmentation.
        **compiling: arguments of `compile`.
    """
    steps = steps_per_epoch(train, BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, (epochs - 1) * steps), warmup_target=PEAK_LEARNING_RATE, warmup_steps=steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    # As in `ThumbNet.compile`, for networks that are not one, too.
    model.compile(optimizer, jit_compile=keras.backend.backend() == "jax", **compiling)
    model.fit(training_pipeline(train, BATCH_SIZE, epochs, seed), epochs=epochs,
              steps_per_epoch=steps, verbose=0)


def accuracy(model, split):
    """Return the share of pictures whose class a network's logits tell."""
    logits = model.predict(split.x, batch_size=250, verbose=0)
    return float((logits.argmax(axis=1) == split.y).mean())


def quality(downscaler, pictures):
    """Return the columns that say what a learned downscaler's thumbnails look like.

    Args:
        downscaler: `keras.Model`.
        pictures: uint8 array `(n, height, width, 3)`.

    Returns:
        Dict with `QUALITY`; empty where the downscaler learns nothing.
    """
    if not downscaler.trainable_variables:
        return {}
    thumbnails = downscaler.predict(pictures, batch_size=250, verbose=0)
    measured = measure_thumbnails(pictures, thumbnails)
    # Equal to averaged pixels: no distance.
    psnr = float("inf") if measured.psnr is None else measured.psnr
    averaged = average(pictures, thumbnail_ratio(pictures, thumbnails))
    similarity = structural_similarity(averaged, thumbnails.clip(0, 255))
    return dict(zip(QUALITY, (f"{measured.moment_difference:.6f}", f"{psnr:.2f}",
                              f"{similarity:.4f}", f"{measured.clipped_share:.5f}")))


def run(name, teacher, ratio, data, epochs, seed, precision):
    """Train an arm and return its row."""
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    thumbnet = make(name, teacher, ratio, precision)
    learns, epochs = ARMS[name].learns, ARMS[name].epochs_factor * epochs
    if learns == "statistics":
        reestimate_statistics(thumbnet.student,
                              thumbnet.downscaler.predict(data.train.x, verbose=0))
    elif learns != "nothing":
        learn(thumbnet, data.train, epochs, seed)
    return {
        "arm": name, "ratio": ratio, "seed": seed,
        "accuracy": f"{accuracy(thumbnet, data.validation):.4f}",
        "macs": exit_macs(thumbnet.on_pictures())[-1], "pictures": len(data.train),
        "epochs": epochs, "precision": precision,
        "seconds": round(time.perf_counter() - start), **describe(),
        **quality(thumbnet.downscaler, data.validation.x)}


def parse(parser, argv, output):
    """Return the arguments, with those that all experiments with students have.

    Args:
        parser: `argparse.ArgumentParser` with the experiment's own.
        argv: sequence of strings or `None`.
        output: string, name of the file of results.
    """
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--pictures", type=int, default=4500, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=6, help="of a student; default: %(default)s")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--show", action="store_true",
                        help="print all that --output holds, and run nothing")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / output)
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.seeds <= max(T_95):
        parser.error(f"--seeds is 1 to {max(T_95)}")
    return arguments


def load_few(arguments):
    """Return the data set with the first of its training pictures, as many as were asked for."""
    data = load_data(arguments.data)
    return dataclasses.replace(data, train=data.train.head(arguments.pictures))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=int, choices=(2, 4), default=2)
    parser.add_argument("--arms", default=",".join(ARMS), help="default: all of %(default)s")
    parser.add_argument("--measure-again", action="store_true",
                        help="repeat runs of the arms whose thumbnails were not measured")
    arguments = parse(parser, argv, "thumbnet_claims.csv")
    if arguments.show:
        return show(read_rows(arguments.output))
    arms = arguments.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        parser.error(f"unknown arms {unknown}; known are {list(ARMS)}")
    data = load_few(arguments)
    teacher = zoo.load(TEACHER, pretrained=True)
    rows = read_rows(arguments.output) if arguments.output.exists() else []
    for row in rows:
        epochs = arguments.epochs * ARMS[row["arm"]].epochs_factor
        if (row["pictures"], row["epochs"], row["precision"]) != (
                str(len(data.train)), str(epochs), arguments.precision):
            parser.error(f"{arguments.output} holds runs with other pictures, epochs or precision, "
                         "which cannot be compared with these. Give another --output.")
    for seed in range(arguments.seeds):
        for arm in arms:
            key = arm, str(arguments.ratio), str(seed)
            done = [row for row in rows if _key(row) == key]
            lacks_quality = ARMS[arm].learns_shrinking and not all(row.get("ssim") for row in done)
            if done and not (arguments.measure_again and lacks_quality):
                continue
            row = run(arm, teacher, arguments.ratio, data, arguments.epochs, seed,
                      arguments.precision)
            rows = [old for old in rows if _key(old) != key] + [row]
            save_rows(arguments.output, rows)
            print(f"{arm}, ratio {arguments.ratio}, seed {seed}: {row['accuracy']}, "
                  f"{row['seconds']} s", flush=True)
            keras.utils.clear_session()
            teacher = zoo.load(TEACHER, pretrained=True)
    show(rows, arguments.ratio)


def _key(row):
    return row["arm"], str(row["ratio"]), str(row["seed"])


if __name__ == "__main__":
    main()
