"""Adaptive classification of pictures: the predictor, what it takes, and what it returns."""

from keras_adaptive.inference.prediction import PicturePrediction, Prediction, PredictionSummary
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.picture_files import UnreadablePicturesError

__all__ = [
    "EarlyExitPredictor",
    "PicturePrediction",
    "Prediction",
    "PredictionSummary",
    "UnreadablePicturesError",
]
