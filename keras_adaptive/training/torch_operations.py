"""Layers computed by PyTorch's own operations, for training on a GPU.

Keras's layers are made of many operations on PyTorch, and copy the input of a convolution to
channels first and back. What stands here computes the same with few operations and no copies.
"""

import math

import keras
import numpy as np
import torch

from keras_adaptive.layers.resize import AlignedResize, interpolation_matrix
from keras_adaptive.models.freezing import all_layers

FEW_CHANNELS = 4  # below which PyTorch resizes maps of channels last by a slow path
PARTS = 64  # of the sum over pixels that is the gradient of a 1x1 convolution's kernel


def use_torch_operations(model):
    """Let convolutions, batch normalisation and resizing in a model be operations of PyTorch.

    Batch normalisation then keeps the unbiased variance in its moving average, as the papers'
    programs do, where Keras keeps the biased one.

    Args:
        model: `keras.Model` of channels last. Layers at all depths are changed, subclasses left.
    """
    for layer in all_layers(model):
        if type(layer) is keras.layers.Conv2D and _is_plain(layer):
            layer.call = _convolution(layer)
        elif type(layer) is keras.layers.BatchNormalization and _is_last_axis(layer):
            layer.call = _normalization(layer)
        elif type(layer) is AlignedResize:
            layer.call = _resize(layer)


def _is_plain(layer):
    return (layer.groups == 1 and layer.dilation_rate == (1, 1)
            and layer.activation is keras.activations.linear
            and layer.data_format == "channels_last"
            and (layer.padding == "valid" or layer.padding == "same" and layer.strides == (1, 1)
                 and all(side % 2 for side in layer.kernel_size)))


def _is_last_axis(layer):
    return (layer.axis in (-1, 3) and layer.scale and layer.center and not layer.renorm
            and not layer.synchronized)


def _convolution(layer):
    padding = tuple(side // 2 for side in layer.kernel_size) if layer.padding == "same" else 0

    def call(x):
        if layer.kernel_size == (1, 1) and layer.strides == (1, 1) and not layer.use_bias:
            return _PointwiseConvolution.apply(x, layer.kernel.value[0, 0])
        y = torch.nn.functional.conv2d(
            torch.movedim(x, -1, 1), torch.permute(layer.kernel.value, (3, 2, 0, 1)),
            layer.bias.value if layer.use_bias else None, layer.strides, padding)
        return torch.movedim(y, 1, -1)

    return call


class _PointwiseConvolution(torch.autograd.Function):
    """A 1x1 convolution whose kernel's gradient is summed from parts.

    That gradient is a product over all pixels of a batch, half a million, with a result of some
    hundred numbers: as one product it keeps a single multiprocessor of a GPU busy.
    """

    @staticmethod
    def forward(context, x, kernel):
        rows = x.reshape(-1, x.shape[-1])
        context.save_for_backward(rows, kernel)
        return (rows @ kernel).view(*x.shape[:-1], kernel.shape[1])

    @staticmethod
    def backward(context, gradient):
        rows, kernel = context.saved_tensors
        shape = gradient.shape[:-1]
        gradient = gradient.reshape(-1, gradient.shape[-1])
        parts = math.gcd(PARTS, len(rows))
        wide = torch.promote_types(kernel.dtype, torch.float32)
        products = torch.bmm(rows.view(parts, -1, rows.shape[-1]).transpose(1, 2),
                             gradient.view(parts, -1, gradient.shape[-1]))
        return ((gradient @ kernel.T).view(*shape, -1),
                products.sum(0, dtype=wide).to(kernel.dtype))


def _normalization(layer):
    keras_call = layer.call

    def call(inputs, training=None, mask=None):
        if not (training and layer.trainable) or mask is not None:
            return keras_call(inputs, training=training, mask=mask)
        outputs = torch.nn.functional.batch_norm(
            torch.movedim(inputs, -1, 1), layer.moving_mean.value, layer.moving_variance.value,
            layer.gamma.value, layer.beta.value, training=True, momentum=1 - layer.momentum,
            eps=layer.epsilon)
        return torch.movedim(outputs, 1, -1)

    return call


def _resize(layer):
    size = layer.height, layer.width

    def call(x):
        batch, rows, columns, channels = x.shape
        if channels >= FEW_CHANNELS:
            resized = torch.nn.functional.interpolate(
                torch.movedim(x, -1, 1), size, mode="bilinear", align_corners=True)
            return torch.movedim(resized, 1, -1)
        matrix = keras.ops.convert_to_tensor(
            np.kron(interpolation_matrix(rows, layer.height),
                    interpolation_matrix(columns, layer.width)), dtype=layer.compute_dtype)
        maps = torch.movedim(x, -1, 1).reshape(batch * channels, rows * columns)
        resized = torch.nn.functional.linear(maps, matrix)
        return torch.movedim(resized.view(batch, channels, *size), 1, -1)

    return call
