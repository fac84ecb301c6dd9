"""What does a student lose when it reads thumbnails from files, and what do the files take?

    python benchmarks/thumbnail_files.py --downscaler downscaler.keras --student student.keras
    python benchmarks/thumbnail_files.py --downscaler downscaler.keras --student student.keras \\
        --area-student area_student.keras --data cifar10.npz --quality 95 75 50

Both networks are files that `save` wrote, of `thumbnet.downscaler` and `thumbnet.student`. The
student classifies the test part, from

- the downscaler's thumbnails as they are (`float`), which all others are compared with;
- PNG and JPEG files of them, made in memory and read back;
- the downscaler's thumbnails of pictures that were JPEG files (`full JPEG`);
- averaged pixels as PNG files (`area PNG`), and full JPEG files that the decoder itself reduces,
  which costs nearly nothing (`reduced JPEG`). A student that never saw such thumbnails is at a
  disadvantage here: --area-student names one that was trained on averaged pixels.

`difference` is in points of accuracy against `float`, `difference_se` its standard error over
pictures, which both students answered; `bytes` are those of a file, on average.
"""

import argparse
import io
import math
import pathlib

import keras
import numpy as np
from common import RESULTS, describe, save_rows
from PIL import Image

import keras_adaptive.models  # noqa: F401  (registers what students are made of)
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.shrinking import read_reduced, shrink, thumbnail_ratio
from keras_adaptive.thumbnails import encode, load_downscaler, quantize
from keras_adaptive.training.datasets import check_labels, load_data

FULL_QUALITY = 95  # of the JPEG files of full pictures
BATCH_SIZE = 256


def thumbnails_of(downscaler, pictures, qualities):
    """Give each way to get thumbnails: its name, whether averaged, thumbnails, bytes of the files.

    Args:
        downscaler: `keras.Model`.
        pictures: uint8 array `(n, height, width, 3)`.
        qualities: list of ints, of JPEG files.

    Yields:
        Tuples of string, bool, array `(n, height / ratio, width / ratio, 3)` and mean bytes, which
        are None where there is no file.
    """
    def run(batch):
        return np.asarray(downscaler.predict(batch, batch_size=BATCH_SIZE, verbose=0))

    thumbnails = run(pictures)
    ratio = thumbnail_ratio(pictures, thumbnails)
    yield "float", False, thumbnails, None
    stored = quantize(thumbnails)
    for file_format, quality in [("png", None), *(("jpeg", quality) for quality in qualities)]:
        files = [encode(thumbnail, file_format, quality) for thumbnail in stored]
        name = file_format.upper() + (f" {quality}" if quality else "")
        yield name, False, np.stack([_decode(file) for file in files]), _mean_size(files)
    full = [encode(picture, "jpeg", FULL_QUALITY) for picture in pictures]
    yield (f"full JPEG {FULL_QUALITY}", False, run(np.stack([_decode(file) for file in full])),
           _mean_size(full))
    averaged = np.stack([shrink(picture, ratio) for picture in pictures])
    yield "area PNG", True, averaged, _mean_size([encode(picture, "png") for picture in averaged])
    reduced = np.stack([read_reduced(io.BytesIO(file), ratio) for file in full])
    yield f"reduced JPEG {FULL_QUALITY}", True, reduced, _mean_size(full)


def _decode(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def _mean_size(files):
    return sum(map(len, files)) / len(files)


def compare(is_right, reference):
    """Return the difference of two accuracies on the same pictures, and its standard error.

    Args:
        is_right, reference: bool arrays, whether each picture's answer is right.
    """
    differences = is_right.astype(float) - reference
    return differences.mean(), differences.std() / math.sqrt(len(differences))


def measure(downscaler, student, area_student, split, qualities):
    """Return a row per way.

    Args:
        downscaler, student, area_student: `keras.Model`s; the last gets averaged pixels.
        split: `Split` of labelled pictures.
        qualities: list of ints.
    """
    rows, reference = [], None
    for name, is_averaged, thumbnails, size in thumbnails_of(downscaler, split.x, qualities):
        network = area_student if is_averaged else student
        answers = network.predict(thumbnails, batch_size=BATCH_SIZE, verbose=0).argmax(axis=1)
        is_right = answers == split.y
        if reference is None:
            reference, float_answers = is_right, answers
        difference, error = compare(is_right, reference)
        rows.append({
            "thumbnails": name,
            "student": "area" if is_averaged and area_student is not student else "thumbnails",
            "accuracy": round(float(is_right.mean()), 6), "difference": round(100 * difference, 4),
            "difference_se": round(100 * error, 4),
            "other_answers": round(float((answers != float_answers).mean()), 6),
            "bytes": "" if size is None else round(size, 1), "num_pictures": len(split),
        })
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--downscaler", required=True, help="a .keras file")
    parser.add_argument("--student", required=True, help="a .keras file")
    parser.add_argument("--area-student", default=None,
                        help="a .keras file, for averaged pixels; default: the student")
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or an .npz file")
    parser.add_argument("--num-pictures", type=int, default=None,
                        help="test pictures, evenly spread; default: all")
    parser.add_argument("--quality", type=int, nargs="+", default=[95, 75, 50],
                        help="of JPEG thumbnails; default: 95 75 50")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "thumbnail_files.csv")
    arguments = parser.parse_args(argv)
    downscaler = load_downscaler(arguments.downscaler)
    student = keras.saving.load_model(arguments.student, compile=False, safe_mode=True)
    area_student = student if arguments.area_student is None else keras.saving.load_model(
        arguments.area_student, compile=False, safe_mode=True)
    test = spread(load_data(arguments.data).test, arguments.num_pictures)
    for network in (student, area_student):
        check_labels(test, network.output_shape)
    rows = measure(downscaler, student, area_student, test, arguments.quality)
    for row in rows:
        print(f"{row['thumbnails']}: {row['accuracy']:.2%}, {row['difference']:+.2f} points "
              f"(standard error {row['difference_se']:.2f}), "
              f"{row['bytes'] or 'no'} bytes a picture", flush=True)
    save_rows(arguments.output, [row | describe("pillow") for row in rows])


if __name__ == "__main__":
    main()
