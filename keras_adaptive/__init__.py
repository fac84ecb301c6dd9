"""Image classifiers for Keras 3 that stop computing as soon as they are sure.

Names are loaded on first use, so that `import keras_adaptive` and the command line's help do not
wait for Keras.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "EarlyExitPredictor": "keras_adaptive.inference.predictor",
    "ExitOutputs": "keras_adaptive.evaluation",
    "MSDNet": "keras_adaptive.models",
    "MultiExitModel": "keras_adaptive.models",
    "Prediction": "keras_adaptive.inference.prediction",
    "RANet": "keras_adaptive.models",
    "Recipe": "keras_adaptive.training",
    "ThumbNet": "keras_adaptive.models.thumbnet",
    "attach_exits": "keras_adaptive.attach",
    "cascade": "keras_adaptive.models.cascade",
    "exit_macs": "keras_adaptive.graph",
    "export_stages": "keras_adaptive.export",
    "layer_macs": "keras_adaptive.graph",
    "split_into_stages": "keras_adaptive.graph",
    "train": "keras_adaptive.training",
    "write_thumbnails": "keras_adaptive.thumbnails",
}
_MODULES = ("checkpoints", "evaluation", "graph", "inference", "layers", "models", "recipes",
            "training", "zoo")

__all__ = [*_PLACES, *_MODULES]


def __getattr__(name):
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"keras_adaptive.{name}")
    raise AttributeError(f"module 'keras_adaptive' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
