"""Initial values of the reference programs, drawn with NumPy so that no backend compiles them."""

import math
import random

import keras
import numpy as np


class _NumpyInitializer(keras.initializers.Initializer):
    """Base of initializers that draw with NumPy.

    JAX compiles a random initializer once per shape, which makes a network of hundreds of layers
    wait for more than a minute before it exists. An array from NumPy costs nothing.

    Args:
        seed: int or `None`. With `None` every call draws from Python's `random`, which
            `keras.utils.set_random_seed` seeds.
    """

    def __init__(self, seed=None):
        self.seed = seed

    def _generator(self):
        seed = self.seed if self.seed is not None else random.getrandbits(31)
        return np.random.default_rng(seed)

    def get_config(self):
        return {"seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_adaptive")
class FanOutNormal(_NumpyInitializer):
    """Normal values with variance `2 / (kernel height * kernel width * output channels)`.

    Reference:
        [He et al., 2015](https://arxiv.org/abs/1502.01852), section 2.2, backward case; the rule
        that MSDNet and RANet use for their convolutions.
    """

    def __call__(self, shape, dtype=None):
        std = math.sqrt(2.0 / (math.prod(shape[:-2]) * shape[-1]))
        values = self._generator().normal(0.0, std, shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())


@keras.saving.register_keras_serializable(package="keras_adaptive")
class FanInUniform(_NumpyInitializer):
    """Uniform values in `±1 / sqrt(fan_in)`, PyTorch's default for convolutions and linear layers.

    The reference programs leave the stem and the weights of the classifiers at this rule.
    """

    def __call__(self, shape, dtype=None):
        limit = 1.0 / math.sqrt(math.prod(shape[:-1]))
        values = self._generator().uniform(-limit, limit, shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())


@keras.saving.register_keras_serializable(package="keras_adaptive")
class ChannelValues(keras.initializers.Initializer):
    """Given values, one per channel.

    Args:
        values: sequence of floats.
    """

    def __init__(self, values):
        self.values = [float(value) for value in values]

    def __call__(self, shape, dtype=None):
        values = np.broadcast_to(np.asarray(self.values), shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())

    def get_config(self):
        return {"values": self.values}


@keras.saving.register_keras_serializable(package="keras_adaptive")
class BilinearUpsampling(keras.initializers.Initializer):
    """Kernel of a transposed convolution with stride 2 that enlarges each channel bilinearly.

    For kernels `(4, 4, channels, channels)`. A constant map keeps its value but for the rim, where
    `padding="same"` reads zeros.
    """

    def __call__(self, shape, dtype=None):
        line = np.array([0.25, 0.75, 0.75, 0.25])
        values = np.einsum("i,j,kl->ijkl", line, line, np.eye(*shape[2:]))
        return keras.ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())
