"""Measure how long calls take, side by side, and against the whole network compiled."""

import itertools
import os
import platform
import statistics
import time

import keras
import numpy as np


def compile_whole(model, engine="keras"):
    """Return a function that runs all exits of a model on a batch, in one compiled program.

    It is what early exit has to beat, and converted plainly: nothing is folded by hand or joined.

    Args:
        model: Functional `keras.Model`.
        engine: `"keras"`: one `tf.function` on TensorFlow, `jax.jit` on JAX, the eager model under
            `torch.inference_mode` on PyTorch; or another name in `engines.ENGINES`: one ONNX graph.

    Returns:
        Function from an array of pictures to the list of the exits' outputs, NumPy arrays.
    """
    dtype = model.inputs[0].dtype
    if engine == "keras":
        run = _COMPILERS[keras.backend.backend()](model)
    else:
        run = _compile_graph(model, engine)
    return lambda pictures: run(np.asarray(pictures, dtype))


def write_whole_network(model):
    """Return a model with all of its exits as one `OnnxStage`, converted plainly.

    Args:
        model: Functional `keras.Model`. The answers of the exits but the last are what the stage
            hands on; one that several exits give is handed on once.
    """
    from keras_adaptive.graph import flatten

    return _write_graph(flatten(model))


def _write_graph(graph):
    from keras_adaptive.graph import Stage
    from keras_adaptive.graph.onnx_writer import write_stages

    # One stage that hands on the early exits' answers, which thus are computed.
    stage = Stage(1, graph.calls, graph.inputs, graph.outputs[-1], _early(graph), graph.specs,
                  graph.inputs)
    program, = write_stages([stage], [False], merge=False)
    return program


def _early(graph):
    """Return the values that are outputs but the last, each once."""
    return tuple(dict.fromkeys(graph.outputs[:-1]))


def _compile_graph(model, engine):
    from keras_adaptive.graph import flatten
    from keras_adaptive.inference.engines import make_engine

    graph = flatten(model)
    runner = make_engine(engine)
    runner.load([_write_graph(graph)])

    def run(pictures):
        output, early_outputs = runner.run(1, [pictures], len(pictures))
        output_of = dict(zip(_early(graph), early_outputs))
        return [*(output_of[value] for value in graph.outputs[:-1]), output]

    return run


def _compile_tensorflow(model):
    import tensorflow as tf

    signature = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    program = tf.function(
        lambda pictures: model(pictures, training=False), input_signature=[signature]
    )
    return lambda pictures: [
        output.numpy() for output in keras.tree.flatten(program(tf.constant(pictures)))]


def _compile_jax(model):
    import jax

    @jax.jit
    def program(trainable, non_trainable, pictures):
        outputs, _ = model.stateless_call(trainable, non_trainable, pictures, training=False)
        return outputs

    def run(pictures):
        trainable = [variable.value for variable in model.trainable_variables]
        non_trainable = [variable.value for variable in model.non_trainable_variables]
        outputs = program(trainable, non_trainable, pictures)
        return [np.asarray(output) for output in keras.tree.flatten(outputs)]

    return run


def _compile_torch(model):
    import torch

    def run(pictures):
        with torch.inference_mode():
            outputs = keras.tree.flatten(model(pictures, training=False))
            return [output.cpu().numpy() for output in outputs]

    return run


_COMPILERS = {
    "tensorflow": _compile_tensorflow, "jax": _compile_jax, "torch": _compile_torch,
}


def in_batches(run, pictures, batch_size):
    """Run a function on pictures, batch after batch, and return its last output for all of them."""
    parts = [
        run(pictures[start:start + batch_size])[-1]
        for start in range(0, len(pictures), batch_size)
    ]
    return np.concatenate(parts)


def time_in_turns(calls, repeats, warmups=2):
    """Time several functions in turns, so that a busy moment of the machine hits all alike.

    Args:
        calls: dict of name to function without arguments, each of which waits for its result.
        repeats: int. Timed rounds.
        warmups: int. Rounds before those, which compile and fill caches.

    Returns:
        Dict of name to the list of `repeats` times in milliseconds.
    """
    for call in itertools.chain.from_iterable([calls.values()] * warmups):
        call()
    times_ms = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times_ms[name].append(1e3 * (time.perf_counter() - start))
    return times_ms


def median_ratio(times_ms, name, reference):
    """Return the median time of one function over that of another."""
    return statistics.median(times_ms[name]) / statistics.median(times_ms[reference])


def describe_machine():
    """Return what a time depends on: processor, cores in use, versions."""
    backend = keras.backend.backend()
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": __import__(backend).__version__,
    }


def _processor_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines
                     if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
