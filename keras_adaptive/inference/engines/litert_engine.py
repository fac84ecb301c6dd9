"""Run exported stages that are LiteRT files."""

import importlib
import os
import threading

import numpy as np

from keras_adaptive.inference.engines.signature_engine import SignatureEngine


class LiteRTEngine(SignatureEngine):
    """One interpreter per stage, of the package `ai_edge_litert` or else of TensorFlow.

    Between stages, tensors are NumPy arrays. An interpreter has one set of buffers, so threads take
    turns.
    """

    def _load_program(self, program):
        content = next(iter(program.files.values()))
        interpreter = _interpreter_class()(model_content=content, num_threads=os.cpu_count())
        signature = interpreter.get_signature_list()["serving_default"]
        runner = interpreter.get_signature_runner("serving_default")
        lock = threading.Lock()

        def run(tensors):
            with lock:
                return runner(**{name: np.asarray(tensor) for name, tensor in tensors.items()})

        return run, signature["inputs"], signature["outputs"]

    def gather(self, parts):
        pieces = [tensor if rows is None else tensor[rows] for tensor, rows in parts]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _interpreter_class():
    try:
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ModuleNotFoundError:
        pass
    try:
        return importlib.import_module("tensorflow").lite.Interpreter
    except ModuleNotFoundError as error:
        raise ImportError(
            "LiteRT files run on the package ai_edge_litert, `pip install ai-edge-litert`, or on "
            "TensorFlow, `pip install keras_adaptive[tensorflow]`. Neither is installed."
        ) from error
