"""How long until a network answers: conversion, export, and the first answer of a fresh process?

    python benchmarks/start_up.py --data cifar10

Writes a row per question:

- `split`, `write`: cutting the zoo's network into stages, and writing them all as ONNX;
- `load`: loading the written stages into an engine;
- `export`: `export_stages`, with all checks, into each format;
- `fresh process`: from the start of a Python process to the first answer of exported stages, with
  `import` the part until the package and NumPy are imported, and `load` until stages are ready.

Conversion is timed on a model that has been built; the first round of each, which imports packages,
is left out. Fresh processes find their files in the system's cache. Let nothing else run meanwhile.
"""

import pathlib
import tempfile

import numpy as np
from common import RESULTS, describe, make_parser, quantiles, run_fresh, save_rows

from keras_adaptive import export_stages, zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.graph import split_into_stages
from keras_adaptive.graph.onnx_writer import write_stages
from keras_adaptive.inference.engines import make_engine
from keras_adaptive.timing import time_in_turns
from keras_adaptive.training.datasets import load_data

FORMATS = ("onnx", "openvino")  # those that need no framework to run


def time_conversion(model, engines, folder, repeats):
    """Return rows: splitting, writing, loading and exporting.

    Args:
        model: `MultiExitModel`.
        engines: list of strings in `ENGINES`.
        folder: path of a folder for exports; one per format is left in it.
        repeats: int. Timed rounds.
    """
    from_logits = [True] * len(model.outputs)
    stages = split_into_stages(model)
    programs = write_stages(stages, from_logits)
    calls = {
        ("split", ""): lambda: split_into_stages(model),
        ("write", ""): lambda: write_stages(stages, from_logits),
    }
    for engine in engines:
        if engine != "keras":
            calls["load", engine] = lambda name=engine: make_engine(name).load(programs)
    for format in FORMATS:
        calls["export", format] = (
            lambda format=format: export_stages(model, folder / format, format))
    times_ms = time_in_turns(calls, repeats, warmups=1)
    return [{"what": what, "on": where, "repeats": repeats, **quantiles(samples, digits=2)}
            for (what, where), samples in times_ms.items()]


def time_fresh_processes(folder, engines, pictures, repeats):
    """Return rows: the parts of the time until a fresh process has answered.

    Args:
        folder: path of the folder that `time_conversion` filled.
        engines: list of strings in `ENGINES`.
        pictures: path of a `.npy` of one picture.
        repeats: int. Timed processes of each kind, in turns.
    """
    kinds = [(format, engine) for format in FORMATS for engine in engines
             if engine.startswith("openvino") or (format, engine) == ("onnx", "onnxruntime")]
    parts = {}
    for number in range(repeats + 1):
        for format, engine in kinds:
            seen = run_fresh("--export", folder / format, "--engine", engine, "--data", pictures)
            if number == 0:
                continue  # reads files from the disk
            for part, end in (("import", "imported"), ("load", "loaded"), ("", "answered")):
                name = f"fresh process, {part}" if part else "fresh process"
                parts.setdefault((name, f"{format} on {engine}"), []).append(
                    1e3 * (seen[end] - seen["started"]))
    return [{"what": what, "on": where, "repeats": repeats, **quantiles(samples, digits=2)}
            for (what, where), samples in parts.items()]


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"], repeats=7)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "start_up.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    test = load_data(arguments.data).test
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        np.save(folder / "picture.npy", spread(test, 1).x)
        rows = time_conversion(model, arguments.engine, folder, arguments.repeats)
        rows += time_fresh_processes(
            folder, arguments.engine, folder / "picture.npy", arguments.repeats)
    for row in rows:
        print(f"{row['what']}{', ' if row['on'] else ''}{row['on']}: {row['p50_ms']:.0f} ms "
              f"(95 % within {row['p95_ms']:.0f} ms)")
    machine = describe("onnx", "onnxruntime", "openvino")
    save_rows(arguments.output, [{"model": model.name, **row, **machine} for row in rows])


if __name__ == "__main__":
    main()
