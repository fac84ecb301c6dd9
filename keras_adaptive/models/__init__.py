"""Adaptive networks: one file each. The static ones that they are measured against share a file."""

from keras_adaptive.models.baselines import DenseNet, ResNet
from keras_adaptive.models.msdnet import MSDNet
from keras_adaptive.models.multi_exit import MultiExitModel
from keras_adaptive.models.published import PUBLISHED, build, network_defaults
from keras_adaptive.models.ranet import RANet

__all__ = [
    "PUBLISHED", "DenseNet", "MSDNet", "MultiExitModel", "RANet", "ResNet", "build",
    "network_defaults",
]
