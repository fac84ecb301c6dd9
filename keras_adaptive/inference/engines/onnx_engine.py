"""Run stages with [ONNX Runtime](https://onnxruntime.ai) on a CPU."""

import os

import numpy as np

from keras_adaptive.inference.engines.row_chunks import gather_rows, rows_per_chunk


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
        return gather_rows(parts)


class _Session:
    """A stage: its session, and the shapes of what it makes."""

    def __init__(self, session, program):
        self.session = session
        self.program = program
        self._names = [program.output, *program.makes]
        shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
        self._shapes = [shapes[name] for name in self._names]
        # A part whose size only a run tells cannot be written in place.
        self._is_fixed = all(isinstance(side, int) for shape in self._shapes for side in shape)

    def run(self, tensors):
        tensors = [np.ascontiguousarray(tensor, np.float32) for tensor in tensors]
        num_rows = len(tensors[0])
        chunk = rows_per_chunk(tensors)
        if num_rows <= chunk or not self._is_fixed:
            probabilities, *made = self.session.run(
                self._names, dict(zip(self.program.reads, tensors)))
            return probabilities, made
        outputs = [np.empty((num_rows, *shape), np.float32) for shape in self._shapes]
        for start in range(0, num_rows, chunk):
            self._run_into(
                [output[start:start + chunk] for output in outputs],
                [tensor[start:start + chunk] for tensor in tensors])
        return outputs[0], outputs[1:]

    def _run_into(self, outputs, inputs):
        binding = self.session.io_binding()
        for bind, names, arrays in (
                (binding.bind_input, self.program.reads, inputs),
                (binding.bind_output, self._names, outputs)):
            for name, array in zip(names, arrays):
                bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self.session.run_with_iobinding(binding)


def count_cores():
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
