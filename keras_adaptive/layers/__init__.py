"""Composite Keras layers of adaptive networks."""

from keras_adaptive.layers.convolution import BottleneckConv, ConvBlock
from keras_adaptive.layers.dense import DenseBlock, DenseLayer
from keras_adaptive.layers.downscaler import Downscaler, FeatureDecoder
from keras_adaptive.layers.eight_bits import EightBits
from keras_adaptive.layers.exits import ExitHead
from keras_adaptive.layers.fusion import FusionBlock, FusionLayer
from keras_adaptive.layers.gradient import GradientScale
from keras_adaptive.layers.initializers import FanInUniform, FanOutNormal
from keras_adaptive.layers.multiscale import MultiScaleCell
from keras_adaptive.layers.resize import AlignedResize
from keras_adaptive.layers.thumbnail import Thumbnail
from keras_adaptive.layers.transition import TransitionBlock

__all__ = [
    "AlignedResize", "BottleneckConv", "ConvBlock", "DenseBlock", "DenseLayer", "Downscaler",
    "EightBits", "ExitHead", "FanInUniform", "FanOutNormal", "FeatureDecoder", "FusionBlock",
    "FusionLayer", "GradientScale", "MultiScaleCell", "Thumbnail", "TransitionBlock",
]
