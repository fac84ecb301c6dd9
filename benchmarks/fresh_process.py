"""Run exported stages, or a whole network, in a process that does nothing else; for other scripts.

    python benchmarks/fresh_process.py --engine onnxruntime --export FOLDER --data pictures.npy
    python benchmarks/fresh_process.py --engine onnxruntime --whole FOLDER --data pictures.npy

Prints one line of JSON: readings of the monotonic clock when the imports were done, when the stages
were loaded and when the first picture was answered; and the memory of the process in MiB, before
the pictures and at its peak. Neither Keras nor a backend of it is imported, which would need more
memory and time than the network.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

import numpy as np

from keras_adaptive.exported import Program
from keras_adaptive.inference.engines import make_engine
from keras_adaptive.inference.predictor import EarlyExitPredictor

WHOLE = "whole.onnx"


def save_whole(program, folder):
    """Write an `OnnxStage` that is a whole network into a folder, for `load_whole`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WHOLE).write_bytes(program.model)
    names = {"reads": program.reads, "makes": program.makes, "output": program.output}
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")


def load_whole(folder, engine):
    """Return a function from pictures and a batch size to the last exit's answers."""
    folder = pathlib.Path(folder)
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    runner = make_engine(engine)
    runner.load([Program({WHOLE: (folder / WHOLE).read_bytes()}, tuple(names["reads"]),
                         tuple(names["makes"]), names["output"])])

    def run(pictures, batch_size):
        parts = [runner.run(1, [pictures[start:start + batch_size]], batch_size)[0]
                 for start in range(0, len(pictures), batch_size)]
        return np.concatenate(parts)

    return run


def load_stages(folder, engine, threshold):
    """Return a function from pictures and a batch size to a `Prediction`."""
    predictor = EarlyExitPredictor.from_export(folder, threshold, engine=engine)
    return lambda pictures, batch_size: predictor.predict(pictures, batch_size, verbose=False)


class PeakMemory:
    """The largest memory of the process since this was made; on Linux, elsewhere since its start.

    What loading took for a moment counts for nothing on Linux.
    """

    _STATUS = pathlib.Path("/proc/self/status")

    def __init__(self):
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            pass  # another system, or one that does not allow it
        self.before_mib = self.read_mib()

    def read_mib(self):
        """Return the peak until now, in MiB."""
        if self._STATUS.is_file():
            # `getrusage` would count what the parent had when it started this process.
            for line in self._STATUS.read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--export", help="folder that `export_stages` wrote")
    what.add_argument("--whole", help="folder that `save_whole` wrote")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--data", required=True, help="pictures as .npy")
    parser.add_argument("--threshold", type=float, help="default: those that were exported")
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args(argv)
    imported = time.monotonic()
    if arguments.export:
        run = load_stages(arguments.export, arguments.engine, arguments.threshold)
    else:
        run = load_whole(arguments.whole, arguments.engine)
    loaded = time.monotonic()
    pictures = np.load(arguments.data, allow_pickle=False)
    run(pictures[:1], 1)
    answered = time.monotonic()
    memory = PeakMemory()
    run(pictures, arguments.batch_size)
    print(json.dumps({
        "imported": imported, "loaded": loaded, "answered": answered,
        "before_mib": memory.before_mib, "peak_mib": memory.read_mib(),
        "has_keras": "keras" in sys.modules}))


if __name__ == "__main__":
    main()
