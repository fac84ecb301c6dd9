"""What a model computes, as plain data: its calls, its stages, its cost."""

from keras_adaptive.graph.calls import Call, Calls, Spec
from keras_adaptive.graph.costs import exit_macs, exit_parameters, layer_macs
from keras_adaptive.graph.flattening import flatten, last_call, tensors_by_layer
from keras_adaptive.graph.inlining import inline
from keras_adaptive.graph.memory import peak_activations
from keras_adaptive.graph.stages import Stage, split_into_stages

__all__ = [
    "Call",
    "Calls",
    "Spec",
    "Stage",
    "exit_macs",
    "exit_parameters",
    "flatten",
    "inline",
    "last_call",
    "layer_macs",
    "peak_activations",
    "split_into_stages",
    "tensors_by_layer",
]
