"""Multiply-adds and parameters up to each exit of a model, counted from shapes alone."""

import functools
import math

import keras

from keras_adaptive.graph.calls import keras_name
from keras_adaptive.graph.flattening import flatten, sublayers, trainable_variables
from keras_adaptive.names import did_you_mean

CONVENTIONS = ("lazy", "convolution_dense", "reference")


def exit_macs(model, convention="lazy", order=None):
    """Return the multiply-adds that one picture has cost by the time it leaves at each exit.

    The conventions are those of the tables in the literature:

    - `"lazy"`: what exits 1 to k depend on; this is what running the stages costs.
    - `"convolution_dense"`: what the authors' program runs up to exit k. Where a network runs
      operations that exit k does not need, as MSDNet's fine scales at the end of a block, the model
      says so by an attribute `layers_run_by_exit`: a list with, for each exit, the names of the
      model's layers that have run by then. Models without it run what their exits need.
    - `"reference"`: as before, plus what the authors' counter adds: an operation per element of
      a ReLU's input, `channels * o * o * k * k` for a pooling window of `k` and an output `o` high,
      and one per bias of a dense layer.

    The first two count the layers that `layer_macs` counts. Only shapes are used, never values, so
    a model whose variables were not allocated can be counted.

    Args:
        model: `keras.Model`, Functional or Sequential, with a fixed input size.
        convention: `"lazy"`, `"convolution_dense"` or `"reference"`.
        order: sequence of strings or `None`, see `split_into_stages`.

    Returns:
        List of ints, one per exit, never decreasing. For one picture, heads included.

    Raises:
        ValueError: If `convention` is unknown, a size is not fixed, or a layer with weights has no
            rule in `layer_macs`.

    Example:

    >>> inputs = keras.Input((8,))
    >>> x = keras.layers.Dense(4, name="exit1")(inputs)
    >>> model = keras.Model(inputs, [x, keras.layers.Dense(3, name="exit2")(x)])
    >>> exit_macs(model)
    [32, 44]
    >>> exit_macs(model, "reference")
    [36, 51]

    Reference:
        Op counter of [Huang et al., 2018](https://arxiv.org/abs/1703.09844), in its authors'
        program, for `"reference"`.
    """
    graph, calls_of = _calls_run_per_exit(model, convention, order)
    total, totals = 0, []
    for calls in calls_of:
        for call in calls:
            inputs = [graph.specs[value] for value in call.inputs_in_order]
            outputs = [graph.specs[value] for value in call.outputs]
            total += layer_macs(call.operation, inputs, outputs)
            if convention == "reference":
                total += _reference_extra(call.operation, inputs, outputs)
        totals.append(total)
    return totals


def exit_parameters(model, convention="lazy", order=None):
    """Return the number of trainable parameters in use up to each exit, each layer counted once.

    Moving statistics are not counted; frozen layers are.

    Args:
        model: `keras.Model`, Functional or Sequential.
        convention: as in `exit_macs`; `"reference"` and `"convolution_dense"` give the same.
        order: sequence of strings or `None`, see `split_into_stages`.

    Returns:
        List of ints, one per exit, never decreasing.

    Raises:
        ValueError: If `convention` is unknown.
    """
    _, calls_of = _calls_run_per_exit(model, convention, order)
    seen, totals = {}, []
    for calls in calls_of:
        for call in calls:
            for variable in trainable_variables(call.operation):
                seen[id(variable)] = math.prod(variable.shape)
        totals.append(sum(seen.values()))
    return totals


def _calls_run_per_exit(model, convention, order):
    """Return the flat graph and, per exit, the calls that run for it and ran for none before."""
    if convention not in CONVENTIONS:
        raise ValueError(
            f"`convention` must be one of {list(CONVENTIONS)}. Received: {convention!r}."
            f"{did_you_mean(convention, CONVENTIONS)}"
        )
    graph = flatten(model, order)
    needed = graph.new_calls_per_output()
    names_run = getattr(model, "layers_run_by_exit", None)
    if convention == "lazy" or names_run is None:
        return graph, needed
    if len(names_run) != len(needed):
        raise ValueError(
            "`layers_run_by_exit` needs a list of layer names per exit: "
            f"{len(needed)} for {model.name!r}. Received {len(names_run)}."
        )
    taken, calls_of = set(), []
    for calls, names in zip(needed, map(set, names_run)):
        wanted = {id(call) for call in calls}
        new = [
            call for call in graph.calls
            if id(call) not in taken and (id(call) in wanted or call.top_level_name in names)
        ]
        taken.update(map(id, new))
        calls_of.append(new)
    return graph, calls_of


@functools.singledispatch
def layer_macs(operation, input_specs, output_specs):
    """Return the multiply-adds of one call of an operation on one picture.

    Products of features with weights are counted: convolutions and dense layers of all kinds.
    Everything else is 0: normalisation, activations, pooling, resizing, and operations without
    weights, products of two feature maps among them (the scores of an attention layer).

    This is a `functools.singledispatch` on the operation's class. For a layer of your own:

        @layer_macs.register(MyLayer)
        def _(layer, input_specs, output_specs):
            return math.prod(layer.kernel.shape) * math.prod(output_specs[0].shape[1:-1])

    Args:
        operation: `keras.Operation`, most often a layer.
        input_specs: list of `Spec` of the tensors that the call reads, `.shape` with the batch, in
            the order of the parameters of the layer's `call`; masks are left out.
        output_specs: list of `Spec` of the tensors that it makes.

    Returns:
        int.

    Raises:
        ValueError: If the operation has weights and its class is not registered, or a size that
            counts is not fixed.
    """
    if not isinstance(operation, keras.layers.Layer) or not operation.weights:
        return 0
    # ConvNeXt's scale per channel, which Keras has no public name for.
    if keras_name(operation) == "LayerScale":
        return 0
    kind = type(operation)
    raise ValueError(
        f"No rule to count the multiply-adds of {operation.name!r}: {kind.__name__} has weights "
        "and is not registered. Register it: `@layer_macs.register("
        f"{kind.__name__})` above a function `(layer, input_specs, output_specs) -> int`; return 0 "
        "if its weights only scale or shift."
    )


def _register(*names):
    """Register a rule for those of Keras's public layer classes that this version has."""

    def decorate(rule):
        for name in names:
            if hasattr(keras.layers, name):
                layer_macs.register(getattr(keras.layers, name), rule)
        return rule

    return decorate


def _size(shape, operation):
    """Return the product of sizes, or say which operation has one that is not fixed."""
    if None in shape:
        raise ValueError(
            f"Multiply-adds need fixed sizes; {operation.name!r} has a map of size {tuple(shape)}. "
            "Give the model's `keras.Input` a full shape, such as (32, 32, 3)."
        )
    return math.prod(shape)


def _positions(spec, operation):
    """Return the number of places of a feature map: everything but batch and channels."""
    channels_first = getattr(operation, "data_format", None) == "channels_first"
    return _size(spec.shape[2:] if channels_first else spec.shape[1:-1], operation)


@_register("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
           "Normalization", "PReLU", "Embedding", "Attention", "AdditiveAttention")
def _no_products(layer, input_specs, output_specs):
    return 0


@_register("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D")
def _convolution(layer, input_specs, output_specs):
    return _positions(output_specs[0], layer) * math.prod(layer.kernel.shape)


@_register("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed_convolution(layer, input_specs, output_specs):
    # Every input pixel is multiplied with the whole kernel.
    return _positions(input_specs[0], layer) * math.prod(layer.kernel.shape)


@_register("SeparableConv1D", "SeparableConv2D")
def _separable_convolution(layer, input_specs, output_specs):
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _positions(output_specs[0], layer) * kernels


@_register("Dense")
def _dense(layer, input_specs, output_specs):
    return _size(output_specs[0].shape[1:], layer) * input_specs[0].shape[-1]


@_register("EinsumDense")
def _einsum_dense(layer, input_specs, output_specs):
    # From the input, because the layer's output may have sizes that it was not told.
    given, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    new = [size for letter, size in zip(kernel, layer.kernel.shape) if letter not in given]
    return _size(input_specs[0].shape[1:], layer) * math.prod(new)


@_register("MultiHeadAttention", "GroupQueryAttention")
def _attention(layer, input_specs, output_specs):
    # The projections read query, key and value, whose tensors are the call's first two or three.
    query, value = input_specs[0], input_specs[min(1, len(input_specs) - 1)]
    key = input_specs[2] if len(input_specs) > 2 else value
    tokens_of = {"query": query, "value": value, "key": key, "gate": query,
                 "attention_output": query}
    total = 0
    for projection in sublayers(layer):
        if isinstance(projection, keras.layers.EinsumDense):
            tokens = tokens_of[projection.name].shape[1:-1]
            total += _size(tokens, layer) * math.prod(projection.kernel.shape)
    return total


@_register("ReversibleEmbedding")
def _reversible_embedding(layer, input_specs, output_specs):
    # Looking words up adds an axis and multiplies nothing; the reverse is a product with the table.
    if len(output_specs[0].shape) > len(input_specs[0].shape):
        return 0
    return _positions(output_specs[0], layer) * layer.input_dim * layer.output_dim


@_register("SpectralNormalization")
def _wrapper(wrapper, input_specs, output_specs):
    return layer_macs(wrapper.layer, input_specs, output_specs)


def _reference_extra(operation, input_specs, output_specs):
    """Return what the reference counter adds to `layer_macs`."""
    if _is_relu(operation):
        return _size(input_specs[0].shape[1:], operation)
    extra = 0
    if _is_relu(getattr(operation, "activation", None)):  # a layer that ends in a ReLU
        extra += _size(output_specs[0].shape[1:], operation)
    if isinstance(operation, keras.layers.Dense) and operation.use_bias:
        extra += _size(output_specs[0].shape[1:], operation)
    if isinstance(operation, _POOLING):
        extra += _pooling_operations(operation, output_specs[0])
    elif isinstance(operation, _GLOBAL_POOLING):
        # One window as large as the map.
        extra += _size(input_specs[0].shape[1:], operation)
    return extra


_POOLING = tuple(getattr(keras.layers, f"{kind}Pooling{rank}D")
                 for kind in ("Average", "Max") for rank in (1, 2, 3))
_GLOBAL_POOLING = tuple(getattr(keras.layers, f"Global{kind}Pooling{rank}D")
                        for kind in ("Average", "Max") for rank in (1, 2, 3))


def _is_relu(function):
    """Tell a ReLU, be it a layer, an operation of the graph or an activation function."""
    if isinstance(function, keras.layers.Activation):
        function = function.activation
    return function is keras.activations.relu or keras_name(function) in ("ReLU", "Relu")


def _pooling_operations(layer, output_spec):
    shape = output_spec.shape[1:]
    if layer.data_format == "channels_first":
        shape = (*shape[1:], shape[0])
    *sides, channels = shape
    window = layer.pool_size if isinstance(layer.pool_size, (tuple, list)) else [layer.pool_size]
    if len(sides) == 2:
        sides = [sides[0], sides[0]]  # the counter takes every map for a square
    return _size((*sides, channels), layer) * math.prod(window)
