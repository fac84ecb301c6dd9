"""A model as plain data: calls of operations, and the values between them.

`flattening` makes it of a Keras model. `Call` keeps the arguments of the node that Keras has of the
call, which are not part of its public interface.
"""

import dataclasses
import functools
import inspect
from types import MappingProxyType

import keras


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and dtype of a value, the batch first and `None` where a size is not fixed."""

    shape: tuple
    dtype: str
    has_mask: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation.

    Attributes:
        operation: `keras.Operation`, most often a layer. Layers are the model's own, never copies.
        inputs: tuple of ints, the values that the call reads.
        outputs: tuple of ints, the values that it makes.
        name: string, the names of the layers around the operation and its own, joined by `/`.
        opaque: string. Why a layer that is made of layers stayed one call; empty for the others.
    """

    operation: keras.Operation
    inputs: tuple
    outputs: tuple
    name: str
    opaque: str = ""
    _arguments: object = dataclasses.field(default=None, repr=False)

    @property
    def top_level_name(self):
        """string. Name of the model's own layer that the call belongs to."""
        return self.name.split("/")[0]

    @property
    def arguments(self):
        """Pair of a tuple and a dict: what the operation is called with, tensors as symbols."""
        return self._arguments.args, self._arguments.kwargs

    @property
    def has_constants(self):
        """bool. Whether the call is given anything beside values of the model."""
        return len(keras.tree.flatten(self.arguments)) > len(self.inputs)

    @property
    def inputs_in_order(self):
        """tuple of ints. `inputs` in the order of the parameters of `call`, without masks.

        Keras lists those that were given by name after the others, in the order of the alphabet.
        """
        parameters = inspect.signature(self.operation.call).parameters
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
            return self.inputs
        args, kwargs = self.arguments
        given = {**dict(zip(parameters, args)), **kwargs}
        values = dict(zip(map(id, self._arguments.keras_tensors), self.inputs))
        symbols = keras.tree.flatten([given[name] for name in parameters
                                      if name in given and not name.endswith("mask")])
        return tuple(values[id(symbol)] for symbol in symbols if id(symbol) in values)

    def run(self, values):
        """Return the list of the call's output tensors, computed as in inference.

        Args:
            values: dict from value to tensor, with all of `inputs`.
        """
        tensors = {
            id(symbol): values[value]
            for symbol, value in zip(self._arguments.keras_tensors, self.inputs)
        }
        args, kwargs = self._arguments.fill_in(tensors)
        if takes_training(type(self.operation)):
            kwargs["training"] = False
        return keras.tree.flatten(self.operation(*args, **kwargs))

    def repeat(self, operation, inputs):
        """Return the list of what another operation gives when it is called as this one was.

        Args:
            operation: `keras.Operation` of the same kind.
            inputs: list of tensors, in the place of `inputs`.
        """
        tensors = {id(symbol): tensor
                   for symbol, tensor in zip(self._arguments.keras_tensors, inputs)}
        args, kwargs = self._arguments.fill_in(tensors)
        return keras.tree.flatten(operation(*args, **kwargs))


@dataclasses.dataclass(frozen=True, eq=False)
class Calls:
    """A model as plain data: calls in an order in which they can run, and the values between them.

    Attributes:
        calls: tuple of `Call`.
        inputs: tuple of ints, the model's inputs in the order of `model.inputs`.
        outputs: tuple of ints, the model's outputs in the order of its exits. A value may be an
            output twice, and may be an input.
        specs: mapping from every value to its `Spec`.
        output_names: tuple of strings, a name per output, for messages.
    """

    calls: tuple
    inputs: tuple
    outputs: tuple
    specs: MappingProxyType
    output_names: tuple

    def new_calls_per_output(self):
        """Return, for each output, the calls that it needs and no output before it needed."""
        maker = {value: i for i, call in enumerate(self.calls) for value in call.outputs}
        taken = set()
        groups = []
        for output in self.outputs:
            group, pending = set(), [output]
            while pending:
                i = maker.get(pending.pop())
                if i is not None and i not in taken:
                    taken.add(i)
                    group.add(i)
                    pending.extend(self.calls[i].inputs)
            groups.append([self.calls[i] for i in sorted(group)])
        return groups


def keras_name(operation):
    """Return the name of an operation's class where that is one of Keras's own, or `None`.

    Keras has private classes behind its functions, which only their names tell apart; a user's
    class may have the same name.
    """
    kind = type(operation)
    return kind.__name__ if kind.__module__.startswith("keras.") else None


@functools.cache
def takes_training(operation_class):
    """Return whether operations of a class take `training` where they are called."""
    return "training" in inspect.signature(operation_class.call).parameters
