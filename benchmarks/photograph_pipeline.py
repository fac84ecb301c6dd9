"""How many photographs a second does the training pipeline give, against decoding alone?

Decoding alone opens, decodes and forgets every file, with as many threads; what the pipeline takes
beyond that are crops, scaling and batches. The folder is like ImageNet's, `train/<class>/*.JPEG`
and `val/<class>/*.JPEG`; without one, JPEGs of noise over gradients, of ImageNet's mean size, are
made for the run.

    python benchmarks/photograph_pipeline.py --folder imagenet
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from common import RESULTS, describe, save_rows
from PIL import Image

from keras_adaptive.picture_files import open_picture
from keras_adaptive.training.photograph_tree import load_photographs
from keras_adaptive.training.photographs import photograph_pipeline

GENERATED_SIZE = (500, 375)  # about the mean of ImageNet's files
NUM_GENERATED = 400


def generate(folder, count, size=GENERATED_SIZE):
    """Write `count` JPEGs for training, in two classes, and one of each for validation."""
    rng = np.random.default_rng(0)
    width, height = size
    for part, number in (("train", count), ("val", 2)):
        for i in range(number):
            place = pathlib.Path(folder) / part / f"class{i % 2}"
            place.mkdir(parents=True, exist_ok=True)
            ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
            pixels = ramp[..., None] + rng.integers(0, 16, (height, width, 3))
            Image.fromarray(pixels.astype("uint8")).save(place / f"{i:05}.JPEG", quality=90)


def decode(path):
    with open_picture(path) as picture:
        picture.convert("RGB")


def time_decoding(photographs, count):
    """Return the seconds that decoding `count` files takes."""
    paths = [photographs.x[i % len(photographs)] for i in range(count)]
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, paths):
            pass
    return time.perf_counter() - start


def time_pipeline(photographs, batch_size, count, augmentation):
    """Return the seconds that batches of `count` pictures take."""
    epochs = -(-count // len(photographs)) + 1
    batches = iter(photograph_pipeline(photographs, batch_size, epochs, 0,
                                       augmentation=augmentation))
    start = time.perf_counter()
    for _ in range(count // batch_size):
        next(batches)
    return time.perf_counter() - start


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=None,
                        help="like ImageNet's; default: generated files")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-pictures", type=int, default=NUM_GENERATED,
                        help="pictures a timed run; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5,
                        help="timed rounds, whose median counts; default: %(default)s")
    parser.add_argument("--rand-augment", action="store_true", help="time RandAugment, too")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "photograph_pipeline.csv")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder
        if folder is None:
            folder = made
            # One in 26 is held back for validation.
            generate(made, arguments.num_pictures + max(2, arguments.num_pictures // 20))
        photographs = load_photographs(folder, arguments.image_size).train
        count = max(arguments.num_pictures // arguments.batch_size, 1) * arguments.batch_size
        candidates = {"decoding": lambda: time_decoding(photographs, count)}
        for name, augmentation in (("pipeline", None), *(
                [("pipeline with RandAugment", {"num_ops": 2, "factor": 0.5})]
                if arguments.rand_augment else [])):
            candidates[name] = lambda augmentation=augmentation: time_pipeline(
                photographs, arguments.batch_size, count, augmentation)
        seconds = {name: [] for name in candidates}
        for _ in range(arguments.repeats):
            for name, run in candidates.items():
                seconds[name].append(run())
    rates = {name: count / float(np.median(times)) for name, times in seconds.items()}
    about = describe("grain", "pillow")
    rows = [{"what": name, "pictures_per_second": round(rate, 1),
             "share_of_decoding": round(rate / rates["decoding"], 3),
             "files": "generated" if arguments.folder is None else arguments.folder.name,
             "image_size": arguments.image_size, "batch_size": arguments.batch_size,
             "pictures": count, "repeats": arguments.repeats, **about}
            for name, rate in rates.items()]
    for row in rows:
        print(f"{row['what']:26} {row['pictures_per_second']:8.1f} pictures/s, "
              f"{row['share_of_decoding']:.0%} of decoding", file=sys.stderr)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
