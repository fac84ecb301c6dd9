"""Run exported stages that are LiteRT files."""

import importlib

import numpy as np

from keras_adaptive.inference.engines.onnx_engine import count_cores
from keras_adaptive.inference.engines.signature_engine import SignatureEngine


class LiteRTEngine(SignatureEngine):
    """One interpreter per stage, of the package `ai_edge_litert` or else of TensorFlow.

    Between stages, tensors are NumPy arrays. An interpreter has one set of buffers.
    """

    name = "litert"
    is_thread_safe = False

    def _load_program(self, program):
        content = next(iter(program.files.values()))
        interpreter = _interpreter_class()(model_content=content, num_threads=count_cores())
        signature = interpreter.get_signature_list()["serving_default"]
        runner = interpreter.get_signature_runner("serving_default")

        def run(tensors):
            return runner(**{name: np.asarray(tensor) for name, tensor in tensors.items()})

        return run, signature["inputs"], signature["outputs"]

    def gather(self, parts):
        return np.concatenate([
            tensor if rows is None else tensor[rows] for tensor, rows in parts])


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
