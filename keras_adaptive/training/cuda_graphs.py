"""Training steps as CUDA graphs, on PyTorch: the host leaves hundreds of thin layers to the GPU.

A step of a network with two hundred convolutions is thousands of kernels of a few microseconds
each. Started one by one from Python they leave a GPU idle most of the time. A graph starts them all
with one call.
"""

import contextlib

import keras
import numpy as np
import torch

from keras_adaptive.training.optimizers import UNDECAYED
from keras_adaptive.training.torch_operations import use_torch_operations

WARM_UP_STEPS = 3  # eager steps before the capture: libraries choose their algorithms, caches fill
LOG_EVERY = 25  # steps between two readings of the metrics, each of which waits for the GPU


def can_capture(model):
    """Return whether steps of a compiled model can be captured: on a GPU, by Keras's own SGD.

    Args:
        model: compiled `keras.Model`.
    """
    optimizer = model.optimizer
    return (torch.cuda.is_available()
            and type(model).train_step is keras.Model.train_step
            and type(optimizer) is type(keras.optimizers.SGD())
            and not (optimizer.use_ema or optimizer.gradient_accumulation_steps
                     or optimizer.clipnorm or optimizer.clipvalue or optimizer.global_clipnorm))


def capture_steps(model):
    """Let `model.fit` replay one captured step for every batch.

    All batches must have one shape, as those of the recipes' pipelines have, and no sample weights.
    The first steps run as ever, one operation after the other. Layers compute as
    `use_torch_operations` says.

    Args:
        model: compiled `keras.Model` of which `can_capture` is true, its optimizer built with
            `model.trainable_variables`.
    """
    use_torch_operations(model)
    model.train_step = CapturedStep(model)


class CapturedStep:
    """A `train_step` that runs eagerly at first, is captured, and is replayed from then on.

    Args:
        model: as for `capture_steps`.
        capture: function of the step, a callable without arguments, that returns its result and a
            callable that repeats it. The default captures a CUDA graph.
    """

    def __init__(self, model, capture=None):
        self.model = model
        self.capture = capture or _capture
        self.optimizer = GraphSGD(model.optimizer, model.trainable_variables)
        self.constants = Constants()
        self.calls = 0
        self.x = self.y = self.replay = self.logs = None
        self.shown = {}
        self.device = model.trainable_variables[0].value.device
        # A capture must not see what else the thread starts, nor run on its default stream.
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None

    def __call__(self, data):
        x, y = (torch.as_tensor(part) for part in data[:2])
        if self.x is None:
            self.x, self.y = (torch.empty_like(part, device=self.device) for part in (x, y))
        if x.shape != self.x.shape:
            raise ValueError(
                f"A captured step takes batches of one shape, {tuple(self.x.shape)}. Received: "
                f"{tuple(x.shape)}. Leave the remainder of an epoch out."
            )
        if self.stream is None:
            self._run(x, y)
        else:
            outer = torch.cuda.current_stream()
            self.stream.wait_stream(outer)
            with torch.cuda.stream(self.stream):
                self._run(x.pin_memory(), y.pin_memory())
            outer.wait_stream(self.stream)
        self.calls += 1
        if self.calls % LOG_EVERY == 1:
            self.shown = {name: float(value) for name, value in self.logs.items()}
        return self.shown  # at the end of an epoch Keras asks the metrics themselves

    def _run(self, x, y):
        self.x.copy_(x, non_blocking=True)
        self.y.copy_(y, non_blocking=True)
        self.optimizer.set_learning_rate()
        if self.calls < WARM_UP_STEPS:
            self.logs = self._step()
            return
        if self.replay is None:
            self.logs, self.replay = self.capture(self._step)  # which does not run it
        self.replay()

    def _step(self):
        with self.constants, self.optimizer.in_place():
            return type(self.model).train_step(self.model, (self.x, self.y))


def _capture(step):
    graph = torch.cuda.CUDAGraph()
    # Other threads may train networks of their own meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(),
                          capture_error_mode="thread_local"):
        result = step()
    return result, graph.replay


class GraphSGD:
    """The update of Keras's SGD with its learning rate in a tensor, which a replay reads anew.

    Keras's own reads the rate back from the GPU in every step, and a graph would keep the number
    that it read.

    Args:
        optimizer: `keras.optimizers.SGD`, built with `variables`.
        variables: list of `keras.Variable`.
    """

    def __init__(self, optimizer, variables):
        self.optimizer = optimizer
        self.variables = list(variables)
        rate = optimizer.get_config()["learning_rate"]
        self.schedule = (keras.saving.deserialize_keras_object(rate) if isinstance(rate, dict)
                         else lambda step: rate)
        self.step = int(optimizer.iterations)
        self.rate = torch.zeros((), device=self.variables[0].value.device)
        self.decayed = [variable for variable in self.variables
                        if not any(part in variable.name for part in UNDECAYED)]

    def set_learning_rate(self):
        """Put the rate of the next step into the tensor."""
        with keras.device("cpu"):
            self.rate.fill_(float(self.schedule(self.step)))
        self.step += 1

    @contextlib.contextmanager
    def in_place(self):
        """Put this `apply` into the optimizer's place while a block runs."""
        self.optimizer.apply = self.apply
        try:
            yield
        finally:
            del self.optimizer.apply  # the class's own shows again

    @torch.no_grad()
    def apply(self, gradients, variables):
        """Update the variables as `keras.optimizers.SGD.apply` does."""
        optimizer = self.optimizer
        values = [variable.value for variable in self.variables]
        if optimizer.weight_decay:
            torch._foreach_mul_([variable.value for variable in self.decayed],
                                1 - optimizer.weight_decay * self.rate)
        steps = torch._foreach_mul(list(gradients), -self.rate)
        if optimizer.momentum:
            momentums = [momentum.value for momentum in optimizer.momentums]
            torch._foreach_mul_(momentums, optimizer.momentum)
            torch._foreach_add_(momentums, steps)
            if optimizer.nesterov:
                torch._foreach_add_(values, steps)
                torch._foreach_add_(values, momentums, alpha=optimizer.momentum)
            else:
                torch._foreach_add_(values, momentums)
        else:
            torch._foreach_add_(values, steps)
        optimizer.iterations.assign_add(1)


class Constants(torch.overrides.TorchFunctionMode):
    """Keeps the tensors that a step makes of numbers and arrays: a graph cannot fetch them."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in (torch.as_tensor, torch.tensor) or isinstance(args[0], torch.Tensor):
            return function(*args, **kwargs)
        array = np.asarray(args[0])
        key = (array.tobytes(), array.shape, str(array.dtype), str(args[1:]), str(kwargs))
        if key not in self.kept:
            self.kept[key] = function(*args, **kwargs)
        return self.kept[key]
