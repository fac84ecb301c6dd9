"""Adaptive networks: one file each."""

from keras_adaptive.models.msdnet import MSDNet
from keras_adaptive.models.multi_exit import MultiExitModel
from keras_adaptive.models.published import PUBLISHED, build, network_arguments
from keras_adaptive.models.ranet import RANet

__all__ = ["PUBLISHED", "MSDNet", "MultiExitModel", "RANet", "build", "network_arguments"]
