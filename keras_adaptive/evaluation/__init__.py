"""Evaluation of multi-exit networks from the answers of all exits."""

from keras_adaptive.evaluation.exit_outputs import ExitOutputs, SimulatedExits

__all__ = ["ExitOutputs", "SimulatedExits"]
