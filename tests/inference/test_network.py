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
