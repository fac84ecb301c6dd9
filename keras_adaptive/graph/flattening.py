"""What a Keras model computes, as a flat list of calls of stock operations.

Keras keeps the graph of a Functional model in attributes that are not part of its public interface.
They are read here; the rest of the package sees `Calls`. Only a `Call`, in `calls`, uses something
of them later, the arguments of its node.
"""

import dataclasses
import difflib
import functools
import itertools
import threading
from types import MappingProxyType

import keras
import numpy as np
from keras.src.models.functional import Functional

from keras_adaptive.graph.calls import Call, Calls, Spec, takes_training

# Looking inside a layer leaves nodes on the model's own layers for a moment. A second thread must
# neither see those nor take its own away with them; models may share layers, so one lock is for
# all. Reentrant, because the `call` of a user's layer may flatten a model of its own.
_TURN = threading.RLock()


def flatten(model, order=None, open_layers=True):
    """Return the calls of stock operations that a model consists of.

    Nested Functional and Sequential models are walked into. A layer that is made of other layers is
    looked into by running its `call` once on symbolic tensors. It stays one call where that cannot
    be done: its code needs real values, or it uses variables of its own beside its layers'. The
    model is not changed, variables are shared, and their values are never read. Threads take turns.

    Args:
        model: `keras.Model`, Functional or Sequential.
        order: sequence of strings or `None`. Names of the outputs in the order of the exits; needed
            where the model's outputs are a dict. Defaults to the order of the list.
        open_layers: bool. Whether layers that are made of layers are looked into. Without it only
            nested models are walked into.

    Returns:
        `Calls`.

    Raises:
        ValueError: If `model` has no graph, its outputs are a dict and `order` is missing, or
            `order` does not name each output once.
    """
    graph = _graph_of(model) if isinstance(model, keras.Model) else None
    if graph is None:
        raise ValueError(
            "`model` must be a Functional or Sequential Keras model, because the graph of its "
            f"operations is read. Received: {_describe(model)}. Wrap it: "
            "`inputs = keras.Input(shape); keras.Model(inputs, model(inputs))`."
        )
    names, positions = _order_of_outputs(graph, order)
    walk = _Walk(open_layers)
    inputs = [walk.add(_spec(tensor)) for tensor in graph.inputs]
    with _TURN:
        outputs = walk.into_graph(graph, inputs, path=())
    return Calls(
        calls=tuple(walk.calls),
        inputs=tuple(inputs),
        outputs=tuple(outputs[i] for i in positions),
        specs=MappingProxyType(walk.specs),
        output_names=tuple(names),
    )


def fingerprint(model):
    """Return what `flatten` depends on: it compares as equal while the model computes the same.

    That are the graphs in the model, as `pop` and `add` give a Sequential model another; and the
    settings of all layers at all depths, as looking inside a layer runs its code with what they are
    set to. The values of variables are none of it.

    Args:
        model: `keras.Model`, Functional or Sequential.
    """
    marks = []
    for layer in model._flatten_layers():
        graph = _graph_of(layer)
        if graph is None:
            marks.append((id(layer), layer.dtype_policy.name, *_settings(layer)))
        else:  # a graph does not change; tensors compare by identity
            marks.append(tuple(graph.outputs))
    return marks


def _settings(layer):
    """Return the attributes of a layer, by name, but for those in which Keras keeps its books."""
    is_keras = type(layer).__module__.startswith("keras.")
    books = _books()
    # A copy, as another thread may run the layer.
    return [(name, _frozen(value)) for name, value in vars(layer).copy().items()
            if name not in books and not name.startswith("_self_")
            and not (is_keras and name.startswith("_"))]


@functools.cache
def _books():
    return frozenset(vars(keras.layers.Layer(name="plain")))


def _frozen(value):
    """Return what tells a value from its later state: the contents of data, else the identity."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple((_frozen(key), _frozen(part)) for key, part in value.items())
    return value.tobytes() if isinstance(value, (np.ndarray, np.generic)) else id(value)


def tensors_by_layer(model):
    """Return the symbolic tensors of a model's own layers, in this model's graph.

    A layer's `input` and `output` are those of its first call, which may belong to another model.

    Args:
        model: `keras.Model`, Functional or Sequential.

    Returns:
        Dict from the name of every layer that the model calls exactly once to a pair of lists: the
        tensors that it takes, and those that it gives.
    """
    graph = _graph_of(model)
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True)
             for node in graph._nodes_by_depth[depth]
             if isinstance(node.operation, keras.layers.Layer)]
    names = [node.operation.name for node in nodes]
    return {name: (list(node.input_tensors), list(node.output_tensors))
            for name, node in zip(names, nodes) if names.count(name) == 1}


def last_call(model):
    """Return what makes a model's one output, in this model's graph.

    Args:
        model: `keras.Model`, Functional or Sequential, whose output is not its input.

    Returns:
        Tuple of the `keras.Operation`, a layer or not, and the list of tensors that it takes.
    """
    node = _maker(_graph_of(model).outputs[0])
    return node.operation, list(node.input_tensors)


def trainable_variables(operation):
    """Return the variables an operation was made to train, also where it is frozen now."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    layers = operation._flatten_layers()
    unique = {id(v): v for layer in layers for v in layer._trainable_variables}
    return list(unique.values())


def sublayers(operation):
    """Return the layers that a layer consists of, directly; empty for any other operation."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    return operation._flatten_layers(include_self=False, recursive=False)


def _describe(model):
    kind = type(model).__name__
    return f"a {kind} named {model.name!r}" if isinstance(model, keras.Model) else f"a {kind}"


def _order_of_outputs(graph, order):
    """Return names and positions in `graph.outputs` of the outputs in the order of the exits."""
    outputs = graph.output
    if isinstance(outputs, dict):
        if any(not isinstance(value, keras.KerasTensor) for value in outputs.values()):
            raise ValueError(
                "Outputs in a dict must be tensors. Received a dict of structures with the keys "
                f"{list(outputs)}. Make a model with a list of outputs in the order of the exits."
            )
        # Keras sorts a dict's outputs by its own rule; the tensors tell where each went.
        position_of = {id(tensor): i for i, tensor in enumerate(graph.outputs)}
        positions = {name: position_of[id(tensor)] for name, tensor in outputs.items()}
        if order is None:
            raise ValueError(
                "The outputs of the model are a dict, which has no order of exits. Give one, "
                f"earliest exit first: `order={list(outputs)}`, or make the model with a list."
            )
    elif any(isinstance(value, dict) for value in _containers(outputs)):
        raise ValueError(
            "The outputs of the model are nested and contain a dict, which has no order of exits. "
            "Make a model with a flat list of outputs in the order of the exits."
        )
    else:
        positions = {name: i for i, name in enumerate(_unique(graph.output_names))}
    if order is None:
        return list(positions), list(positions.values())
    order = list(order)
    if sorted(order) != sorted(positions):
        unknown = [name for name in order if name not in positions]
        near = difflib.get_close_matches(str(unknown[0]), positions, n=1) if unknown else []
        hint = f" Did you mean {near[0]!r} by {unknown[0]!r}?" if near else ""
        raise ValueError(
            f"`order` must name each output once: {list(positions)}. Received: {order}.{hint}"
        )
    return order, [positions[name] for name in order]


def _containers(structure):
    if isinstance(structure, dict):
        yield structure
    elif isinstance(structure, (list, tuple)):
        for value in structure:
            yield from _containers(value)


def _unique(names):
    # The outputs of a nested model all have its name.
    counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    numbers = {}
    for name in names:
        if counts[name] == 1:
            yield name
        else:
            numbers[name] = numbers.get(name, 0) + 1
            yield f"{name}:{numbers[name]}"


def _graph_of(operation):
    """Return the Functional graph that an operation runs, or `None` if it runs anything else."""
    call = type(operation).call
    if isinstance(operation, Functional) and call is Functional.call:
        return operation
    if isinstance(operation, keras.Sequential) and call is keras.Sequential.call:
        return operation._functional
    return None


def _spec(tensor):
    return Spec(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype),
                _has_mask(tensor))


def _has_mask(tensor):
    return getattr(tensor, "_keras_mask", None) is not None


class _Opaque(Exception):
    """A layer has to stay one call; the message says why."""


class _Walk:
    """Collects the calls of a graph, and numbers the values between them.

    Values have numbers of their own: a nested model that is called twice has the same symbolic
    tensors inside both times.
    """

    def __init__(self, open_layers):
        self.open_layers = open_layers
        self.calls = []
        self.specs = {}
        self._fresh = itertools.count()

    def add(self, spec):
        value = next(self._fresh)
        self.specs[value] = spec
        return value

    def into_graph(self, graph, inputs, path):
        """Add the calls of a Functional graph and return the values of its outputs."""
        values = {id(tensor): value for tensor, value in zip(graph.inputs, inputs)}
        # The order in which Keras itself runs the graph.
        nodes = [
            node for depth in sorted(graph._nodes_by_depth, reverse=True)
            for node in graph._nodes_by_depth[depth]
        ]
        self._into_nodes(nodes, values, path)
        return [values[id(tensor)] for tensor in graph.outputs]

    def _into_nodes(self, nodes, values, path):
        for node in nodes:
            if node.is_input or any(id(tensor) not in values for tensor in node.input_tensors):
                continue
            inputs = [values[id(tensor)] for tensor in node.input_tensors]
            outputs = self._into_node(node, inputs, (*path, node.operation.name))
            values.update((id(tensor), value) for tensor, value in zip(node.outputs, outputs))

    def _into_node(self, node, inputs, path):
        operation = node.operation
        opaque = ""
        try:
            if (graph := _graph_of(operation)) is not None:
                self._check_nested_call(graph, node, inputs)
                inputs = [
                    self._cast(value, tensor.dtype, path)
                    for value, tensor in zip(inputs, graph.inputs)
                ]
                return self.into_graph(graph, inputs, path)
            if self.open_layers and sublayers(operation):
                self._check_masks(inputs)
                symbols, outputs, nodes = _look_inside(
                    node, [self.specs[value] for value in inputs])
                values = dict(zip(symbols, inputs))
                self._into_nodes(nodes, values, path)
                return [values[id(tensor)] for tensor in outputs]
        except _Opaque as reason:
            opaque = str(reason)
        outputs = [self.add(spec) for spec in self._output_specs(node, inputs)]
        self.calls.append(Call(operation, tuple(inputs), tuple(outputs), "/".join(path), opaque,
                               node.arguments))
        return outputs

    def _check_masks(self, inputs):
        if any(self.specs[value].has_mask for value in inputs):
            raise _Opaque("its input carries a mask")

    def _check_nested_call(self, graph, node, inputs):
        """Raise `_Opaque` unless the model's inputs are the call's tensors, one by one."""
        self._check_masks(inputs)
        arguments, options = node.arguments.args, dict(node.arguments.kwargs)
        options.pop("training", None)
        if any(value is not None for value in keras.tree.flatten(options)):
            raise _Opaque("it is called with keyword arguments")
        passed = keras.tree.flatten(arguments)
        if len(passed) != len(graph.inputs) or len(passed) != len(inputs):
            raise _Opaque("its inputs are not all tensors")
        if any(len(a.shape) != len(b.shape) for a, b in zip(passed, graph.inputs)):
            raise _Opaque("its inputs have another rank than the call's")
        given, declared = arguments[0], graph.input
        names = [sorted(s) if isinstance(s, dict) else None for s in (given, declared)]
        if names[0] != names[1]:
            raise _Opaque("its inputs are named differently from the call's")

    def _cast(self, value, dtype, path):
        # A Functional model converts what it is called on to the dtype of its input.
        spec = self.specs[value]
        if spec.dtype == keras.backend.standardize_dtype(dtype):
            return value
        symbol = keras.KerasTensor(spec.shape, spec.dtype)
        node = _maker(keras.ops.cast(symbol, dtype))
        return self._into_node(node, [value], (*path, node.operation.name))[0]

    def _output_specs(self, node, inputs):
        """Return the recorded specs, or new ones where the call's inputs have other shapes."""
        recorded = [_spec(tensor) for tensor in node.outputs]
        given = [self.specs[value] for value in inputs]
        if all(a.shape == tuple(b.shape) for a, b in zip(given, node.input_tensors)):
            return recorded
        _, args, kwargs = _fill_in(node, given)
        outputs = keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
        return [
            dataclasses.replace(spec, shape=tuple(tensor.shape))
            for spec, tensor in zip(recorded, outputs)
        ]


def _fill_in(node, specs):
    """Return new symbolic tensors for a node's inputs, and its arguments with these in place."""
    symbols = {}
    for tensor, spec in zip(node.input_tensors, specs):
        if id(tensor) not in symbols:
            symbols[id(tensor)] = keras.KerasTensor(spec.shape, spec.dtype)
    args, kwargs = node.arguments.fill_in(symbols)
    return [symbols[id(tensor)] for tensor in node.input_tensors], args, kwargs


def _look_inside(node, specs):
    """Return what a layer made of layers does: ids of its inputs, its outputs, nodes in order.

    Calling the layer would record one node for the layer itself. Calling its `call` records a node
    on each of its parts. Those are taken away again afterwards, so that the model keeps no trace.
    Whoever calls this holds `_TURN`.
    """
    layer = node.operation
    if layer._trainable_variables or layer._non_trainable_variables:
        # Run on symbols, its code would leave the variable's present value in the graph.
        raise _Opaque("it has variables of its own beside its layers'")
    if layer._seed_generators:
        raise _Opaque("it has random state of its own")
    if layer.quantization_mode is not None:
        raise _Opaque("it is quantized")

    symbols, args, kwargs = _fill_in(node, specs)
    parts = layer._flatten_layers()
    before = [(len(part._inbound_nodes), len(part._outbound_nodes)) for part in parts]
    try:
        with layer._open_name_scope():
            if layer._convert_input_args:
                convert = functools.partial(layer.dtype_policy.convert_input,
                                            autocast=layer.autocast, dtype=layer.input_dtype)
                args, kwargs = keras.tree.map_structure(convert, (args, kwargs))
            if takes_training(type(layer)):
                kwargs["training"] = False
            outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        nodes = _history(outputs, symbols)
    except _Opaque:
        raise
    except Exception as error:  # whatever a user's code raises on a tensor without values
        reason = str(error).strip().split("\n")[0][:200]
        raise _Opaque(
            f"its `call` does not run on symbolic tensors ({type(error).__name__}: {reason})"
        ) from error
    finally:
        for part, (num_inbound, num_outbound) in zip(parts, before):
            del part._inbound_nodes[num_inbound:]
            del part._outbound_nodes[num_outbound:]

    _check_trace(nodes, parts)
    if [_rank_and_dtype(t) for t in outputs] != [_rank_and_dtype(t) for t in node.outputs]:
        raise _Opaque("its `call` gives other outputs on symbolic tensors than in the model")
    if any(new is None and old is not None for traced, recorded in zip(outputs, node.outputs)
           for new, old in zip(traced.shape[1:], recorded.shape[1:])):
        raise _Opaque("sizes inside it are not known")
    return [id(symbol) for symbol in symbols], outputs, nodes


def _rank_and_dtype(tensor):
    return len(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)


def _maker(tensor):
    """Return the node that made a symbolic tensor, or `None` for one that nothing made."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]


def _history(outputs, symbols):
    """Return the nodes between symbolic inputs and outputs, each after those that it depends on."""
    known = {id(symbol) for symbol in symbols}
    started, finished, nodes = set(), set(), []
    pending = list(reversed(outputs))
    while pending:
        tensor = pending[-1]
        if id(tensor) in known:
            pending.pop()
            continue
        if not isinstance(tensor, keras.KerasTensor):
            raise _Opaque("its `call` returns a constant")
        node = _maker(tensor)
        if node is None or node.is_input:
            raise _Opaque("its `call` uses a symbolic tensor that was not handed to it")
        if id(node) in started:
            pending.pop()
            if id(node) not in finished:
                finished.add(id(node))
                nodes.append(node)
        else:
            started.add(id(node))
            pending.extend(reversed(node.input_tensors))
    return nodes


def _check_trace(nodes, parts):
    """Raise `_Opaque` if replaying the nodes could give anything but what the layer computes."""
    owned = {id(part) for part in parts}
    for node in nodes:
        operation = node.operation
        constants = [node.arguments.args, node.arguments.kwargs]
        if node.arguments.kwargs.get("training") not in (None, False):
            # `Call.run` switches it off, as Keras does for the calls of a model's own graph. For
            # those that a layer's code makes, Keras leaves it on.
            raise _Opaque("its `call` runs a layer with `training=True`")
        if isinstance(operation, keras.layers.Layer):
            if id(operation) not in owned and operation.variables:
                raise _Opaque("its `call` uses a layer that it does not own")
        else:
            settings = [v for k, v in vars(operation).items() if not k.startswith("_")]
            if any(_has_unknown_size(value) for value in settings):
                # The size would be known with a real tensor; on a symbol it reads as None.
                raise _Opaque("its `call` uses a size that is not fixed, such as the batch's")
            constants.extend(settings)
        constants = [value for value in keras.tree.flatten(constants)
                     if not isinstance(value, keras.KerasTensor)]
        if any(map(callable, constants)):
            # What it computes, and with which variables, is not among the nodes.
            raise _Opaque("its `call` hands a function to an operation")
        # A constant may be the present value of a variable.
        if any(keras.ops.is_tensor(value) or isinstance(value, keras.Variable)
               for value in constants):
            raise _Opaque("its `call` computes with tensors that do not come from its input")


def _has_unknown_size(setting):
    if isinstance(setting, (list, tuple)):
        return any(value is None or _has_unknown_size(value) for value in setting)
    return False
