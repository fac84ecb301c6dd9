"""Engines: what runs a stage and keeps the survivors' tensors. One file per way of running.

An engine is any object with the methods `prepare`, `reads`, `makes`, `run` and `gather`, as
`KerasEngine` describes them. What it hands on from stage to stage is its own affair: the predictor
only keeps it and passes it back. No engine is imported before it is asked for.

`prepare` is called on a shallow copy, so that one object serves several predictors. It sets what
the engine keeps anew and changes nothing that it kept before; an engine that holds another one
defines `__copy__` and copies that, too.
"""

import copy
import importlib.util
import warnings

from keras_adaptive.names import did_you_mean

ENGINES = ("keras", "onnxruntime", "openvino", "openvino_bfloat16")


_METHODS = ("prepare", "reads", "makes", "run", "gather")


def prepare_engine(engine, stages, from_logits):
    """Return an engine that is prepared to run stages.

    Args:
        engine: `"auto"`: Keras on a computer whose accelerator Keras uses, on others the first that
            is installed of ONNX Runtime, OpenVINO and Keras; one of `ENGINES`; or an object with
            the methods of an engine, of which a copy is prepared.
        stages, from_logits: see `KerasEngine.prepare`.

    Raises:
        ValueError: If there is no such engine, or it cannot run the stages.
    """
    if engine == "auto":
        return _prepare_fastest(stages, from_logits)
    if isinstance(engine, str):
        engine = make_engine(engine)
    missing = [method for method in _METHODS if not hasattr(engine, method)]
    if missing:
        raise ValueError(
            f"`engine` is \"auto\", one of {list(ENGINES)}, or an object with the methods "
            f"{', '.join(_METHODS)}. Received: {engine!r}, without {', '.join(missing)}."
        )
    engine = copy.copy(engine)  # another predictor may use what was prepared before
    engine.prepare(stages, from_logits)
    return engine


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
        f"`engine` is \"auto\", one of {list(ENGINES)}, or an object with the methods "
        f"{', '.join(_METHODS)}. Received: {name!r}.{did_you_mean(name, ENGINES)}"
    )


def _prepare_fastest(stages, from_logits):
    from keras_adaptive.inference.engines.keras_engine import uses_accelerator

    if not uses_accelerator() and _is_installed("onnx"):
        from keras_adaptive.graph.onnx_writer import UnsupportedOperationError

        for package in ("onnxruntime", "openvino"):
            if _is_installed(package):
                engine = make_engine(package)
                try:
                    engine.prepare(stages, from_logits)
                    return engine
                except UnsupportedOperationError as error:
                    warnings.warn(f"{error} The Keras engine runs now.", stacklevel=4)
                    break
    engine = make_engine("keras")
    engine.prepare(stages, from_logits)
    return engine


def _is_installed(package):
    return importlib.util.find_spec(package) is not None
