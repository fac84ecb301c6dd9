"""Run the stages of a Keras model in memory, compiled by the backend that Keras uses.

An engine is any object with the four methods of `KerasEngine`. What it hands on from stage to stage
is its own affair: the predictor only passes it back. The differences between backends are all here.
"""

import abc
import functools

import keras
import numpy as np

from keras_adaptive.graph import Stage


class KerasEngine(abc.ABC):
    """Base of the engines for TensorFlow, JAX and PyTorch; `make_keras_engine` chooses one.

    The variables of the model are read at every call, so training it further or loading other
    weights counts at once.
    """

    def __init__(self):
        self._programs = {}

    def prepare(self, stages, from_logits):
        """Make one compiled program per stage.

        Args:
            stages: list of `Stage`, in order.
            from_logits: list of bools, one per stage: whether its exit gives logits, so that the
                program ends with a softmax.
        """
        self._programs = {
            stage.index: self._compile(stage, is_logits)
            for stage, is_logits in zip(stages, from_logits)
        }

    def run(self, index, carried, batch_size):
        """Run one stage.

        Args:
            index: int. The stage, from 1.
            carried: for stage 1 a list with a NumPy batch of pictures; for the others what the
                stage before returned, after any number of `take` and `join`.
            batch_size: int. The largest number of rows that the caller ever gives, so that a
                backend that compiles per shape knows the sizes to use.

        Returns:
            Tuple `(probabilities, carried)`: a float32 NumPy array `(rows, classes)`, and a list of
            tensors for the next stage.

        Raises:
            ValueError: If a tensor that the stage hands on has not one row per picture.
        """
        num_rows = len(carried[0])
        probabilities, *carried = self._run(self._programs[index], carried, batch_size)
        for tensor in carried:
            if not tensor.shape or tensor.shape[0] != num_rows:
                raise ValueError(
                    f"Stage {index} hands on a tensor of shape {tuple(tensor.shape)} for "
                    f"{num_rows} pictures. Between exits, every tensor needs one row per picture: "
                    "put the exits where windows or patches are not folded into the batch."
                )
        return probabilities, carried

    @abc.abstractmethod
    def take(self, carried, rows):
        """Return the given rows (an int array) of each tensor, in that order."""

    @abc.abstractmethod
    def join(self, pieces):
        """Return the rows of several `carried` lists as one."""

    @abc.abstractmethod
    def _compile(self, stage, is_logits):
        """Return a program, called by `_run`."""

    @abc.abstractmethod
    def _run(self, program, tensors, batch_size):
        """Return a list: the probabilities as a NumPy array, and what is carried on."""


class TensorFlowEngine(KerasEngine):
    """One `tf.function` per stage, traced once for any number of rows."""

    def _compile(self, stage, is_logits):
        import tensorflow as tf

        specs = [stage.specs[value] for value in stage.reads]
        signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs]

        @functools.cache
        def trace():
            # The concrete function is asked for, because `tf.function` itself warns of retracing
            # when several stages come from this one line.
            function = tf.function(
                lambda tensors: _run_stage(stage, tensors, is_logits),
                input_signature=[signature],
                autograph=False,
            )
            return function.get_concrete_function()

        return lambda tensors: trace()(tensors)

    def _run(self, program, tensors, batch_size):
        probabilities, *carried = program([keras.ops.convert_to_tensor(t) for t in tensors])
        return [probabilities.numpy(), *carried]

    def take(self, carried, rows):
        import tensorflow as tf

        return [tf.gather(tensor, rows) for tensor in carried]

    def join(self, pieces):
        import tensorflow as tf

        return [tf.concat(tensors, axis=0) for tensors in zip(*pieces)]


class JaxEngine(KerasEngine):
    """One `jax.jit` per stage, compiled for at most four numbers of rows per batch size.

    Fewer rows are filled up with copies of the last one. Between stages, tensors are NumPy arrays,
    because picking rows of JAX arrays would compile once per number of survivors. On a CPU these
    are views without a copy; from an accelerator they pass through the memory of the host.
    """

    def _compile(self, stage, is_logits):
        import jax

        # A fixed order: the properties that list variables depend on what is frozen at the time.
        variables = list(stage.variables)

        @jax.jit
        def program(values, tensors):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return _run_stage(stage, tensors, is_logits)

        return lambda tensors: program([variable.value for variable in variables], tensors)

    def _run(self, program, tensors, batch_size):
        num_rows = len(tensors[0])
        size = next(size for size in bucket_sizes(batch_size) if size >= num_rows)
        if size > num_rows:
            rows = np.minimum(np.arange(size), num_rows - 1)
            tensors = [np.asarray(tensor)[rows] for tensor in tensors]
        outputs = [np.asarray(output) for output in program(tensors)]
        for output in outputs:
            if output.shape[:1] != (size,):
                return outputs  # `run` says what is wrong with it
        return [output[:num_rows] for output in outputs]

    def take(self, carried, rows):
        return [tensor[rows] for tensor in carried]

    def join(self, pieces):
        return [np.concatenate(tensors) for tensors in zip(*pieces)]


class TorchEngine(KerasEngine):
    """Eager stages under `torch.inference_mode`: nothing is compiled, and no graph is kept."""

    def _compile(self, stage, is_logits):
        def program(tensors):
            return _run_stage(stage, tensors, is_logits)

        return program

    def _run(self, program, tensors, batch_size):
        import torch

        with torch.inference_mode():
            probabilities, *carried = program(tensors)
            return [probabilities.cpu().numpy(), *carried]

    def take(self, carried, rows):
        import torch

        with torch.inference_mode():
            return [tensor[torch.as_tensor(rows, device=tensor.device)] for tensor in carried]

    def join(self, pieces):
        import torch

        with torch.inference_mode():
            return [torch.cat(tensors) for tensors in zip(*pieces)]


_ENGINES = {"tensorflow": TensorFlowEngine, "jax": JaxEngine, "torch": TorchEngine}


def make_keras_engine():
    """Return an engine for the backend that Keras uses.

    Raises:
        ValueError: If there is none for that backend.
    """
    backend = keras.backend.backend()
    if backend not in _ENGINES:
        raise ValueError(
            f"Stages run on the Keras backends {', '.join(_ENGINES)}. Received: {backend!r}. "
            "Set the environment variable KERAS_BACKEND before Keras is imported."
        )
    return _ENGINES[backend]()


def bucket_sizes(batch_size):
    """Return the numbers of rows that programs are compiled for: at most four, increasing.

    These are `batch_size`, the two largest powers of four below it, and 1. Powers of four let two
    batch sizes share programs.
    """
    powers = [4**exponent for exponent in range(1, 32) if 4**exponent < batch_size]
    return sorted({1, *powers[-2:], batch_size})


def _run_stage(stage: Stage, tensors, is_logits):
    output, *carried = stage(tensors, training=False)
    output = keras.ops.cast(output, "float32")
    return [keras.ops.softmax(output) if is_logits else output, *carried]
