"""A predictor of exported stages: what it imports, and that it is a predictor like any other."""

import subprocess
import sys
import textwrap

# Refuses what an environment for exported stages need not have.
BLOCK = """
    import importlib.abc
    import sys

    class Block(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("keras", "tensorflow", "jax", "torch"):
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Block())
"""


def run_without_keras(code):
    """Run code in a process of its own that can import neither Keras nor a backend of it."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCK) + textwrap.dedent(code)],
        capture_output=True, text=True)


def test_the_predictor_and_what_it_needs_are_imported_without_keras():
    """Exported stages run where neither Keras nor one of its backends is installed."""
    process = run_without_keras("""
        import keras_adaptive
        import keras_adaptive.inference.predictor
        from keras_adaptive import EarlyExitPredictor, ExitOutputs, Prediction
        from keras_adaptive import content, evaluation, files, inference, names, picture_files
        print(ExitOutputs([[[0.9, 0.1], [0.6, 0.4]]], [0, 1]).simulate(0.5).accuracy)
    """)

    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "0.5"


# A folder of exported stages as far as the predictor sees it, of NumPy alone: two stages, of which
# the first is sure of bright pictures.
EXPORT = """
    import types
    import numpy as np

    class Engine:
        def reads(self, index):
            return ("pictures",)

        def makes(self, index):
            return ()

        def run(self, index, tensors, batch_size):
            mean = tensors[0].reshape(len(tensors[0]), -1).mean(axis=1) / 255
            sure = 0.5 + mean / 2 if index == 1 else np.ones(len(mean))
            return np.stack([sure, 1 - sure], axis=1).astype("float32"), []

        def gather(self, parts):
            return np.concatenate([t if rows is None else t[rows] for t, rows in parts])

    class ExportedNetwork:
        name, input_shape, input_dtype = "exported", (4, 4, 3), "float32"
        num_exits, num_classes, class_names = 2, 2, ("bright", "dark")
        exits, temperatures = (1, 2), None
        input_rule, thresholds = {"size": [4, 4]}, (0.75, 0.0)

        @classmethod
        def from_folder(cls, folder):
            return cls()

        def make_engine(self, engine):
            assert engine == "auto"
            return Engine()

        def count_macs(self, exits, size):
            return [10, 30][:len(exits)], 30

    module = types.ModuleType("keras_adaptive.exported")
    module.ExportedNetwork = ExportedNetwork
    sys.modules["keras_adaptive.exported"] = module
"""


def test_exported_stages_run_without_keras():
    """Everything that a predictor does: predict, files, deadlines, calibrate, warm up, travel."""
    process = run_without_keras(textwrap.dedent(EXPORT) + textwrap.dedent("""
        import pickle
        from PIL import Image
        from keras_adaptive import EarlyExitPredictor

        predictor = EarlyExitPredictor.from_export("folder").warm_up(2)
        pictures = np.arange(0, 256, 51, dtype="uint8")[:, None, None, None].repeat(
            4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
        prediction = predictor.predict(pictures, batch_size=2)
        assert predictor.model is None and predictor.threshold == (0.75, 0.0)
        assert prediction.exits.tolist() == [2, 2, 2, 1, 1, 1], prediction.exits
        assert prediction.macs.tolist() == [30, 30, 30, 10, 10, 10]
        assert prediction.labels.tolist() == ["bright"] * 6
        assert predictor.predict(Image.fromarray(pictures[5])).exits.tolist() == [1]
        assert set(predictor.predict(pictures, deadline_ms=0).exits) == {1}
        assert list(predictor.predict_progressively(pictures))[-1].exits.tolist() == [
            2, 2, 2, 1, 1, 1]
        again = pickle.loads(pickle.dumps(predictor))
        assert again.predict(pictures).exits.tolist() == [2, 2, 2, 1, 1, 1]
        predictor.calibrate(pictures, [0] * 6, accuracy=1.0)
        capped = EarlyExitPredictor.from_export("folder", 2, max_exit=1)
        assert set(capped.predict(pictures).exits) == {1}
        print("all is well")
    """))

    assert process.stdout.strip() == "all is well", process.stderr
