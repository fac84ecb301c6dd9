"""What the benchmarks share: their arguments, their rows, and the calls that are timed."""

import argparse
import csv
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from keras_adaptive import zoo
from keras_adaptive.calibrated import THRESHOLDS, CalibratedThresholds
from keras_adaptive.content import DEMO_MODEL
from keras_adaptive.files import write_whole
from keras_adaptive.inference.engines import ENGINES
from keras_adaptive.timing import describe_machine

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FEWER_AT_BATCH_1 = 8  # pictures one by one take several times as long


def make_parser(description, engines=None, batch_sizes=None, repeats=None):
    """Return a parser with the arguments that benchmarks have in common.

    Args:
        description: string. The docstring of the script.
        engines: list of strings, the default of `--engine`; or `None` for no such argument.
        batch_sizes: list of ints, the default of `--batch-size`; or `None`.
        repeats: int, the default of `--repeats`; or `None`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO_MODEL, help="name in the zoo")
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or an .npz file")
    if engines is not None:
        parser.add_argument("--engine", nargs="+", choices=ENGINES, default=engines,
                            help=f"engines to compare on; default: {' '.join(engines)}")
    if batch_sizes is not None:
        parser.add_argument("--batch-size", type=int, nargs="+", default=batch_sizes)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats,
                            help=f"timed rounds, whose median counts; default: {repeats}")
    return parser


def add_num_pictures(parser, default):
    parser.add_argument("--num-pictures", type=int, default=default,
                        help="test pictures a timed run, evenly spread; "
                             f"1/{FEWER_AT_BATCH_1} of them at batch size 1; default: {default}")


def pictures_in_a_run(num_pictures, batch_size):
    """Return the number of pictures that a timed run takes at a batch size."""
    return max(1, num_pictures // (FEWER_AT_BATCH_1 if batch_size == 1 else 1))


def halving_thresholds(name, model):
    """Return the zoo's calibrated thresholds that halve the mean multiply-adds."""
    return zoo.thresholds(name, macs=model.exit_macs[-1] / 2)


def calibrated_thresholds(name):
    """Return the `CalibratedThresholds` that the zoo keeps of a network."""
    return CalibratedThresholds.from_file(zoo.find_entry(name).folder / THRESHOLDS)


def classify(predictor, pictures, batch_size):
    """Classify pictures; at batch size 1 with one call per picture, as they come in service."""
    if batch_size > 1:
        predictor.predict(pictures, batch_size, verbose=False)
    else:
        for picture in pictures:
            predictor.predict(picture, 1, verbose=False)


def quantiles(samples, num_pictures=1, digits=5):
    """Return `p50_ms` and `p95_ms` of a picture, of the milliseconds that runs took."""
    return {f"p{quantile}_ms": round(float(np.percentile(samples, quantile)) / num_pictures, digits)
            for quantile in (50, 95)}


def describe(*packages):
    """Return what `describe_machine` does, and the versions of further packages."""
    return describe_machine() | {f"{name}_version": _version(name) for name in packages}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def save_rows(path, rows):
    """Write rows as CSV, whole or not at all.

    Args:
        path: path of the file. Its folder is made if missing.
        rows: list of dicts. Columns that a row lacks stay empty.

    Raises:
        ValueError: If there are no rows: what the file holds stays.
    """
    if not rows:
        raise ValueError(f"Nothing was measured, and {path} stays as it was.")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))

    def fill(partial):
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, fill)


def read_rows(path):
    """Return the rows that `save_rows` wrote, dicts of strings.

    Raises:
        ValueError: If the file does not exist, or holds no rows.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Run the benchmark that writes it, see README.md.")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} holds no rows. Run the benchmark that writes it again.")
    return rows


def run_fresh(*arguments):
    """Run `fresh_process.py`; return what it prints as a dict, and when it was started.

    Args:
        *arguments: its arguments.

    Raises:
        RuntimeError: If it fails; with what it wrote on standard error.
    """
    script = pathlib.Path(__file__).with_name("fresh_process.py")
    # So that it finds the package of this checkout, wherever this was started.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    done = subprocess.run([sys.executable, str(script), *map(str, arguments)], text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
    return {"started": started, **json.loads(done.stdout.splitlines()[-1])}
