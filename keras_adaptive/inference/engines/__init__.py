"""Engines: what runs a stage and keeps the survivors' tensors. One file per way of running.

An engine is any object with the methods `prepare`, `reads`, `makes`, `run` and `gather`, as
`KerasEngine` describes them. What it hands on from stage to stage is its own affair: the predictor
only keeps it and passes it back. No engine is imported before it is asked for.
"""

import importlib.util
import warnings

from keras_adaptive.names import did_you_mean

ENGINES = ("keras", "onnxruntime", "openvino", "openvino_bfloat16")


def make_engine(name):
    """Return an engine that is not prepared yet.

    Args:
        name: string in `ENGINES`.

    Raises:
        ValueError: If there is no engine of that name.
    """
    if name == "keras":
        from keras_adaptive.inference.engines.keras_engine import make_keras_engine

        return make_keras_engine()
    if name == "onnxruntime":
        from keras_adaptive.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine()
    if name in ("openvino", "openvino_bfloat16"):
        from keras_adaptive.inference.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine("float32" if name == "openvino" else "bfloat16")
    raise ValueError(
        f"`engine` is \"auto\", one of {list(ENGINES)}, or an object with the methods prepare, "
        f"reads, makes, run and gather. Received: {name!r}.{did_you_mean(name, ENGINES)}"
    )


def prepare_fastest(stages, from_logits):
    """Return the fastest engine that is installed and can run these stages, prepared for them.

    On a computer whose accelerator Keras uses, that is Keras; on a CPU OpenVINO, then ONNX Runtime,
    then Keras.

    Args:
        stages, from_logits: see `KerasEngine.prepare`.
    """
    if not _has_accelerator() and _is_installed("onnx"):
        from keras_adaptive.graph.onnx_writer import UnsupportedOperationError

        for package in ("openvino", "onnxruntime"):
            if _is_installed(package):
                engine = make_engine(package)
                try:
                    engine.prepare(stages, from_logits)
                    return engine
                except UnsupportedOperationError as error:
                    warnings.warn(f"{error} This is what runs now.", stacklevel=4)
                    break
    engine = make_engine("keras")
    engine.prepare(stages, from_logits)
    return engine


def _is_installed(package):
    return importlib.util.find_spec(package) is not None


def _has_accelerator():
    import keras

    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())
