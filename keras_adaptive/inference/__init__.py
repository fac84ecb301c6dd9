"""Adaptive classification of pictures: the predictor, what it takes, and what it returns."""

from keras_adaptive.inference.files import UnreadablePicturesError
from keras_adaptive.inference.prediction import PicturePrediction, Prediction, PredictionSummary
from keras_adaptive.inference.predictor import EarlyExitPredictor

__all__ = [
    "EarlyExitPredictor",
    "PicturePrediction",
    "Prediction",
    "PredictionSummary",
    "UnreadablePicturesError",
]
