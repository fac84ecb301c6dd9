"""Run stages with [OpenVINO](https://docs.openvino.ai) on a CPU."""

import threading

import numpy as np

from keras_adaptive.inference.engines.rows import Buffers, gather_rows, rows_for_caches

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """One compiled model per stage, which needs neither Keras nor its backend once written.

    Weights are taken as they are when the engine is prepared. A stage is compiled when it runs
    first, so that an easy first picture need not wait for the deep ones; OpenVINO then plans once
    for every number of rows that it has not seen yet.

    Args:
        precision: `"float32"` or `"bfloat16"`. In what it computes; tensors between stages and
            probabilities are float32 in any case. `"bfloat16"` changes answers a little, and is
            slower than float32 on a processor without instructions for it.
        num_threads: int or `None`. Threads that compute one stage; `None` for one per core.

    Raises:
        ValueError: If `precision` is another.
    """

    is_thread_safe = True
    is_snapshot = True

    def __init__(self, precision="float32", num_threads=None):
        if precision not in PRECISIONS:
            raise ValueError(
                f"`precision` is one of {list(PRECISIONS)}. Received: {precision!r}."
            )
        self.precision = precision
        self.num_threads = num_threads
        self._stages = {}
        self._buffers = Buffers()

    @property
    def name(self):
        """string in `ENGINES`."""
        return "openvino" if self.precision == "float32" else "openvino_bfloat16"

    def prepare(self, stages, from_logits):
        """Write stages as ONNX and compile them; see `KerasEngine.prepare`."""
        from keras_adaptive.graph.onnx_writer import write_stages

        self.load(write_stages(stages, from_logits))

    def load(self, programs):
        """Compile stages that were written before.

        Args:
            programs: list of `OnnxStage`; or of objects like it whose `model` is an OpenVINO `.xml`
                and whose `weights` are the `.bin` beside it, as bytes.

        Raises:
            ImportError: If the `openvino` package is not installed.
        """
        try:
            import openvino
        except ImportError as error:
            raise ImportError(
                "This engine needs OpenVINO: `pip install keras_adaptive[openvino]`."
            ) from error

        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY",
                   "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision]}
        if self.num_threads:
            options["INFERENCE_NUM_THREADS"] = self.num_threads
        self._stages = {}
        for index, program in enumerate(programs, start=1):
            model = core.read_model(model=program.model, weights=getattr(program, "weights", b""))
            self._stages[index] = _CompiledStage(core, model, options, program, self._buffers)

    def reads(self, index):
        """Return the tuple of keys of the tensors that stage `index` takes."""
        return self._stages[index].program.reads

    def makes(self, index):
        """Return the tuple of keys of the tensors that stage `index` hands on."""
        return self._stages[index].program.makes

    def run(self, index, tensors, batch_size):
        """Run one stage; see `KerasEngine.run`. Tensors are NumPy arrays."""
        return self._stages[index].run(tensors)

    def gather(self, parts):
        """Return rows of several arrays as one; see `KerasEngine.gather`."""
        return gather_rows(parts, self._buffers)

    def best_rows(self, picture_size):
        """Return how many pictures of `(height, width)` pixels a run should have at most."""
        return rows_for_caches(picture_size)


class _CompiledStage:
    """A stage: its compiled model, one request per thread, and the shapes of what it makes."""

    def __init__(self, core, model, options, program, buffers):
        self.program = program
        self._buffers = buffers
        self._compile = lambda: core.compile_model(model, "CPU", options)
        self._compiled = None
        self._turn = threading.Lock()
        self._local = threading.local()
        self._names = [program.output, *program.makes]
        shapes = [model.output(name).partial_shape for name in self._names]
        self._shapes = [[side.get_length() if side.is_static else None for side in list(shape)[1:]]
                        for shape in shapes]
        self._is_fixed = all(side is not None for shape in self._shapes for side in shape)

    def run(self, tensors):
        from openvino import Tensor

        request = self._request()
        # The request keeps no reference to what a tensor shares.
        tensors = [np.ascontiguousarray(tensor, np.float32) for tensor in tensors]
        for name, array in zip(self.program.reads, tensors):
            request.set_tensor(name, Tensor(array, shared_memory=True))
        if not self._is_fixed:
            request.infer()
            # Copied: the next run writes into the same memory.
            outputs = [np.array(request.get_tensor(name).data) for name in self._names]
        else:
            outputs = [self._buffers.empty((len(tensors[0]), *shape)) for shape in self._shapes]
            for name, array in zip(self._names, outputs):
                request.set_tensor(name, Tensor(array, shared_memory=True))
            request.infer()
        return outputs[0], outputs[1:]

    def _request(self):
        if not hasattr(self._local, "request"):
            with self._turn:
                if self._compiled is None:
                    self._compiled = self._compile()
            self._local.request = self._compiled.create_infer_request()
        return self._local.request
