"""Run stages with [ONNX Runtime](https://onnxruntime.ai) on a CPU."""

import os

import numpy as np

from keras_adaptive.inference.engines.rows import Buffers, gather_rows, rows_for_caches


class OnnxEngine:
    """One session per stage, which needs neither Keras nor its backend once stages are written.

    Weights are taken as they are when the engine is prepared.

    Args:
        num_threads: int or `None`. Threads that compute one stage; `None` for one per core.
    """

    name = "onnxruntime"
    is_thread_safe = True
    is_snapshot = True

    def __init__(self, num_threads=None):
        self.num_threads = num_threads or count_cores()
        self._sessions = {}
        self._buffers = Buffers()

    def prepare(self, stages, from_logits):
        """Write stages as ONNX and load them; see `KerasEngine.prepare`."""
        from keras_adaptive.graph.onnx_writer import write_stages

        self.load(write_stages(stages, from_logits))

    def load(self, programs):
        """Load stages that were written before.

        Args:
            programs: list of `OnnxStage`.

        Raises:
            ImportError: If the `onnxruntime` package is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "This engine needs ONNX Runtime: `pip install keras_adaptive[onnx]`."
            ) from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        # The threads of a session that waits would take the cores from the session that works.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The threads share an operation in small parts, so that none waits long for the other.
        options.add_session_config_entry("session.dynamic_block_base", "1")
        options.log_severity_level = 3
        self._sessions = {
            index: _Session(onnxruntime.InferenceSession(
                program.model, options, providers=["CPUExecutionProvider"]), program)
            for index, program in enumerate(programs, start=1)
        }

    def reads(self, index):
        """Return the tuple of keys of the tensors that stage `index` takes."""
        return self._sessions[index].program.reads

    def makes(self, index):
        """Return the tuple of keys of the tensors that stage `index` hands on."""
        return self._sessions[index].program.makes

    def run(self, index, tensors, batch_size):
        """Run one stage; see `KerasEngine.run`. Tensors are NumPy arrays."""
        return self._sessions[index].run(tensors)

    def gather(self, parts):
        """Return rows of several arrays as one; see `KerasEngine.gather`."""
        return gather_rows(parts, self._buffers)

    def best_rows(self, picture_size):
        """Return how many pictures of `(height, width)` pixels a run should have at most."""
        return rows_for_caches(picture_size)


class _Session:
    """A stage: its session, and what it reads and makes."""

    def __init__(self, session, program):
        self.session = session
        self.program = program
        self._names = [program.output, *program.makes]

    def run(self, tensors):
        # Arrays are handed over and back without a copy.
        probabilities, *made = self.session.run(self._names, {
            name: np.ascontiguousarray(tensor, np.float32)
            for name, tensor in zip(self.program.reads, tensors)})
        return probabilities, made


def count_cores():
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
