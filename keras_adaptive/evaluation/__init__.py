"""Evaluation of multi-exit networks from the answers of all exits."""

from keras_adaptive.evaluation.budgeted import (
    BudgetedPoint,
    evaluate_budgeted,
    evaluate_budgeted_as_papers,
)
from keras_adaptive.evaluation.calibration import (
    CalibrationPoint,
    confidence_auroc,
    expected_calibration_error,
    fit_temperatures,
    measure_calibration,
    scale_temperatures,
)
from keras_adaptive.evaluation.ensemble import ensemble_macs, ensemble_outputs
from keras_adaptive.evaluation.exit_outputs import ExitOutputs, SimulatedExits
from keras_adaptive.evaluation.operating_points import OperatingPoint, evaluate_anytime
from keras_adaptive.evaluation.risk import choose_safe_threshold
from keras_adaptive.evaluation.thresholds import NEVER, ChosenThresholds, ThresholdSearch

__all__ = [
    "NEVER",
    "BudgetedPoint",
    "CalibrationPoint",
    "ChosenThresholds",
    "ExitOutputs",
    "OperatingPoint",
    "SimulatedExits",
    "ThresholdSearch",
    "choose_safe_threshold",
    "confidence_auroc",
    "ensemble_macs",
    "ensemble_outputs",
    "evaluate_anytime",
    "evaluate_budgeted",
    "evaluate_budgeted_as_papers",
    "expected_calibration_error",
    "fit_temperatures",
    "measure_calibration",
    "scale_temperatures",
]
