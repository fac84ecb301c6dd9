"""Run the stages of a Keras model in memory, compiled by the backend that Keras uses.

The differences between backends are all here.
"""

import abc
import functools

import keras
import numpy as np

from keras_adaptive.graph.steps import (
    Alias,
    ChannelSlice,
    Convolution,
    inputs_of,
    outputs_of,
    simplify,
)


class KerasEngine(abc.ABC):
    """Base of the engines for TensorFlow, JAX and PyTorch; `make_keras_engine` chooses one.

    The variables of the model are read at every call, so training it further or loading other
    weights counts at once. Batch normalisation is folded into the convolution before it, within
    the compiled program.
    """

    name = "keras"
    is_snapshot = False  # weights are not copied, but see `prepare`

    def __init__(self):
        self._stages = {}
        self._programs = {}

    def prepare(self, stages, from_logits):
        """Make one compiled program per stage.

        Args:
            stages: list of `Stage`, in order.
            from_logits: list of bools, one per stage: whether its exit gives logits, so that the
                program ends with a softmax.
        """
        self._stages = {stage.index: stage for stage in stages}
        # Their statistics are plain tensors, whose values stay in a compiled program.
        self.is_snapshot = any(isinstance(call.operation, keras.layers.Normalization)
                               for stage in stages for call in stage.calls)
        self._programs = {
            stage.index: self._compile(_StageProgram(stage, is_logits))
            for stage, is_logits in zip(stages, from_logits)
        }

    def reads(self, index):
        """Return the tuple of keys of the tensors that stage `index` takes."""
        return self._stages[index].needs

    def makes(self, index):
        """Return the tuple of keys of the tensors that stage `index` hands on."""
        return self._stages[index].makes

    def run(self, index, tensors, batch_size):
        """Run one stage.

        Args:
            index: int. The stage, from 1.
            tensors: list in the order of `reads(index)`: what stages made, after any `gather`; the
                pictures are a NumPy batch.
            batch_size: int. The largest number of rows that the caller ever gives, so that a
                backend that compiles per shape knows the sizes to use.

        Returns:
            Tuple `(probabilities, tensors)`: a float32 NumPy array `(rows, classes)`, and a list in
            the order of `makes(index)`.

        Raises:
            ValueError: If a tensor that the stage hands on has not one row per picture.
        """
        num_rows = self._num_rows(tensors[0])
        probabilities, *made = self._run(self._programs[index], tensors, batch_size)
        for tensor in made:
            if not tensor.shape or self._num_rows(tensor) != num_rows:
                raise ValueError(
                    f"Stage {index} hands on a tensor of shape {tuple(tensor.shape)} for "
                    f"{num_rows} pictures. Between exits, every tensor needs one row per picture: "
                    "put the exits where windows or patches are not folded into the batch."
                )
        return probabilities, made

    def _num_rows(self, tensor):
        return tensor.shape[0]

    @abc.abstractmethod
    def gather(self, parts):
        """Return rows of several tensors as one tensor.

        Args:
            parts: list of pairs `(tensor, rows)`: an int array, or `None` for all rows.
        """

    @abc.abstractmethod
    def _compile(self, program):
        """Return what `_run` takes, of a function from the list of tensors to that of results."""

    @abc.abstractmethod
    def _run(self, program, tensors, batch_size):
        """Return a list: the probabilities as a NumPy array, and what is handed on."""


class _StageProgram:
    """What a stage computes, as a function that a backend can compile."""

    def __init__(self, stage, is_logits):
        self.stage = stage
        self.is_logits = is_logits
        self.steps = simplify(stage)
        self.to_drop = []
        used = {stage.exit_value, *stage.makes}
        for step in reversed(self.steps):
            touched = {*inputs_of(step), *outputs_of(step)} - used
            used |= touched
            self.to_drop.insert(0, touched)

    def __call__(self, tensors):
        stage = self.stage
        values = {}
        for value, tensor in zip(stage.needs, tensors):
            if value in stage.model_inputs:  # the model, too, converts its inputs
                tensor = keras.ops.convert_to_tensor(tensor, dtype=stage.specs[value].dtype)
            values[value] = tensor
        for step, to_drop in zip(self.steps, self.to_drop):
            _run_step(step, values)
            for value in to_drop:
                values.pop(value, None)
        output = keras.ops.cast(values[stage.exit_value], "float32")
        return [keras.ops.softmax(output) if self.is_logits else output,
                *(values[value] for value in stage.makes)]


def _run_step(step, values):
    if isinstance(step, Convolution):
        if step.groups == 1 or step.groups == values[step.input].shape[-1]:
            values[step.output] = _convolve(step, values[step.input])
        else:  # TensorFlow has no grouped convolution on a CPU outside the layer
            for call in step.calls:
                values.update(zip(call.outputs, call.run(values)))
    elif isinstance(step, ChannelSlice):
        values[step.output] = values[step.input][..., step.start:step.stop]
    elif isinstance(step, Alias):
        values[step.output] = values[step.input]
    else:
        values.update(zip(step.outputs, step.run(values)))


def _convolve(step, x):
    kernel, bias = step.weights.compute(keras.ops, keras.ops.convert_to_tensor)
    reach = [(side - 1) * rate for side, rate in zip(kernel.shape[:2], step.dilation)]
    is_same = step.strides == (1, 1) and step.padding == tuple((r // 2, r - r // 2) for r in reach)
    if not is_same and step.padding != ((0, 0), (0, 0)):
        x = keras.ops.pad(x, ((0, 0), *step.padding, (0, 0)))
    convolve = keras.ops.conv
    if step.groups > 1:
        convolve = keras.ops.depthwise_conv
        kernel = keras.ops.reshape(kernel, (*kernel.shape[:2], step.groups, -1))
    x = convolve(x, kernel, strides=step.strides, padding="same" if is_same else "valid",
                 data_format="channels_last", dilation_rate=step.dilation)
    x = x + bias
    return x if step.activation is None else step.activation(x)


class TensorFlowEngine(KerasEngine):
    """One `tf.function` per stage, traced once for any number of rows."""

    is_thread_safe = True

    def _compile(self, program):
        import tensorflow as tf

        stage = program.stage
        specs = [stage.specs[value] for value in stage.needs]
        signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs]

        @functools.cache
        def trace():
            # The concrete function is asked for, because `tf.function` itself warns of retracing
            # when several stages come from this one line.
            function = tf.function(program, input_signature=[signature], autograph=False)
            return function.get_concrete_function()

        return lambda tensors: trace()(tensors)

    def _run(self, program, tensors, batch_size):
        probabilities, *made = program([keras.ops.convert_to_tensor(t) for t in tensors])
        return [probabilities.numpy(), *made]

    def gather(self, parts):
        import tensorflow as tf

        tensors = [tensor if rows is None else tf.gather(tensor, rows) for tensor, rows in parts]
        return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)


class JaxEngine(KerasEngine):
    """One `jax.jit` per stage, compiled for at most four numbers of rows per batch size.

    Fewer rows are filled up with copies of the last one. On a CPU, tensors between stages are NumPy
    arrays, which share memory with JAX's, because picking rows of JAX arrays would compile once per
    number of survivors. On an accelerator they stay on it, see `_DeviceRows`.
    """

    is_thread_safe = True

    def __init__(self, on_device=None):
        super().__init__()
        self._on_device = on_device

    def row_counts(self, batch_size):
        """Return the numbers of rows that programs are compiled for, increasing."""
        return bucket_sizes(batch_size)

    def _compile(self, program):
        import jax

        if self._on_device is None:
            self._on_device = uses_accelerator()
        # A fixed order: the properties that list variables depend on what is frozen at the time.
        variables = list(program.stage.variables)

        @jax.jit
        def compiled(values, tensors):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return program(tensors)

        return lambda tensors: compiled([variable.value for variable in variables], tensors)

    def _run(self, program, tensors, batch_size):
        num_rows = self._num_rows(tensors[0])
        size = next(size for size in bucket_sizes(batch_size) if size >= num_rows)
        probabilities, *made = program([_filled_up(tensor, size) for tensor in tensors])
        if any(tensor.shape[:1] != (size,) for tensor in made):
            return [np.asarray(probabilities), *made]  # `run` says what is wrong with it
        made = [_DeviceRows(tensor, num_rows) if self._on_device else np.asarray(tensor)[:num_rows]
                for tensor in made]
        return [np.asarray(probabilities)[:num_rows], *made]

    def _num_rows(self, tensor):
        return tensor.num_rows if isinstance(tensor, _DeviceRows) else tensor.shape[0]

    def gather(self, parts):
        if any(isinstance(tensor, _DeviceRows) for tensor, _ in parts):
            return _gather_on_device(parts)
        tensors = [tensor if rows is None else tensor[rows] for tensor, rows in parts]
        return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


class _DeviceRows:
    """Rows of pictures in an array on an accelerator that has more rows than these."""

    def __init__(self, array, num_rows):
        self.array = array
        self.num_rows = num_rows
        self.shape = (num_rows, *array.shape[1:])


def _filled_up(tensor, size):
    """Return an array of `size` rows; those beyond the tensor's own have any values."""
    if isinstance(tensor, _DeviceRows):
        if len(tensor.array) == size:
            return tensor.array
        rows = np.arange(size) % tensor.num_rows
        return move_rows()(rows, np.arange(size), tensor.array, size, None)
    if len(tensor) == size:
        return tensor
    return np.asarray(tensor)[np.minimum(np.arange(size), len(tensor) - 1)]


def _gather_on_device(parts):
    """Bring rows of several arrays together without their leaving the device.

    Sizes are powers of four, so that few programs are compiled.
    """
    counts = [tensor.num_rows if rows is None else len(rows) for tensor, rows in parts]
    size, result, start = _power_of_four(sum(counts)), None, 0
    for (tensor, rows), count in zip(parts, counts):
        rows = np.arange(count) if rows is None else np.asarray(rows)
        width = np.arange(_power_of_four(count))
        # The places of the rows; what fills up their number goes beyond the end, and is dropped.
        places = np.where(width < count, start + width, size)
        result = move_rows()(np.resize(rows, len(width)), places, tensor.array, size, result)
        start += count
    return _DeviceRows(result, sum(counts))


def _power_of_four(number):
    """Return the least power of four that is not below a number."""
    power = 1
    while power < number:
        power *= 4
    return power


@functools.cache
def move_rows():
    """Return a compiled function that writes rows of an array to places in another."""
    import jax
    import jax.numpy as jnp

    @functools.partial(jax.jit, static_argnums=3)
    def move(sources, places, array, size, result):
        if result is None:
            result = jnp.zeros((size, *array.shape[1:]), array.dtype)
        return result.at[places].set(array[sources], mode="drop")

    return move


class TorchEngine(KerasEngine):
    """Eager stages under `torch.inference_mode`: nothing is compiled, and no graph is kept."""

    is_thread_safe = True

    def _compile(self, program):
        return program

    def _run(self, program, tensors, batch_size):
        import torch

        with torch.inference_mode():
            probabilities, *made = program(tensors)
            return [probabilities.cpu().numpy(), *made]

    def gather(self, parts):
        import torch

        with torch.inference_mode():
            tensors = [torch.as_tensor(tensor) for tensor, _ in parts]
            tensors = [
                tensor if rows is None
                else tensor.index_select(0, torch.as_tensor(rows, device=tensor.device))
                for tensor, (_, rows) in zip(tensors, parts)
            ]
            return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


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


def uses_accelerator():
    """Return whether Keras computes on something else than a CPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available() or torch.backends.mps.is_available()
    return False


def peek(variable):
    """Return the value of a Keras variable as a NumPy array, with as little delay as possible."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A tenth of the time of the variable's own `numpy`, which counts for a single picture.
        return tf.raw_ops.ReadVariableOp(
            resource=variable.value.handle, dtype=variable.dtype).numpy()
    return variable.numpy()


def bucket_sizes(batch_size):
    """Return the numbers of rows that programs are compiled for: at most four, increasing.

    These are `batch_size`, the two largest powers of four below it, and 1. Powers of four let two
    batch sizes share programs.
    """
    powers = [4**exponent for exponent in range(1, 32) if 4**exponent < batch_size]
    return sorted({1, *powers[-2:], batch_size})
