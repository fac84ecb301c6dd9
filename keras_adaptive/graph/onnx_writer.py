"""Write stages as ONNX graphs: channels first, batch normalisation folded, siblings merged.

[ONNX](https://onnx.ai) is what ONNX Runtime and OpenVINO read. A model of any backend is written
from its calls and its variables' values; nothing is traced and no other converter is needed.
"""

import dataclasses
import hashlib
import importlib.util
import itertools
import weakref

import keras
import numpy as np

from keras_adaptive.graph.merging import merge_siblings
from keras_adaptive.graph.onnx_operations import CURE, OPERATIONS, UnsupportedOperationError
from keras_adaptive.graph.onnx_operations import activate as write_activation
from keras_adaptive.graph.steps import Alias, ChannelSlice, Convolution, simplify

__all__ = ["OnnxStage", "UnsupportedOperationError", "write_stages"]

OPSET = 18
CHANNEL_STEP, WIDE = 4, 64  # see `_write_convolution`
IR_VERSION = 9  # of the file; runtimes refuse newer ones than they know

# Layers that compute in floats what they are given as integers. Others leave integers as they are,
# though Keras states float32 for what they give.
_MAKE_FLOATS = ("AlignedResize", "BatchNormalization", "Dense", "GlobalAveragePooling2D",
                "Normalization", "Rescaling", "Thumbnail")

# What was written last, by `Stage`: the key of its weights and settings, and the `OnnxStage`.
_WRITTEN = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class OnnxStage:
    """One stage as an ONNX graph of float32 tensors, the batch first and of any size.

    Maps are channels first, but for the pictures: `(batch, height, width, channels)`.

    Attributes:
        model: bytes of the ONNX file.
        reads: tuple of strings, the graph's inputs: the pictures, or what earlier stages made.
        makes: tuple of strings, the outputs that later stages read.
        output: string, the output with the exit's probabilities, `(batch, classes)`.
    """

    model: bytes = dataclasses.field(repr=False)
    reads: tuple
    makes: tuple
    output: str


def write_stages(stages, from_logits, merge=True):
    """Return stages as ONNX graphs.

    A stage whose weights and settings are those of the last time is not written again.

    Args:
        stages: list of `Stage`, of a model with one input.
        from_logits: list of bools, one per stage: whether a softmax follows its exit.
        merge: bool. Whether convolutions that read the same map are joined, see `merge_siblings`.

    Returns:
        List of `OnnxStage`.

    Raises:
        UnsupportedOperationError: If a stage has an operation that is not known here, or computes
            in another precision than float32.
        ImportError: If the `onnx` package is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ImportError(
            "Writing ONNX needs the `onnx` package: `pip install keras_adaptive[onnx]`."
        )
    return [_write_once(stage, is_logits, merge)
            for stage, is_logits in zip(stages, from_logits)]


def _write_once(stage, is_logits, merge):
    digest = hashlib.sha256()
    for variable in stage.variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    for call in stage.calls:
        digest.update(_settings(call.operation).encode())
    key = digest.digest(), is_logits, merge
    known, written = _WRITTEN.get(stage, (None, None))
    if known != key:
        written = _StageWriter(stage, is_logits, merge).write()
        _WRITTEN[stage] = key, written
    return written


def _settings(operation):
    """Return what an operation is set to, such as an activation that was given to it later."""
    # Its `get_config` would warn of functions that cannot be saved, or fail on them.
    return repr([(name, value) for name, value in vars(operation).items()
                 if not name.startswith("_") and not isinstance(value, keras.Variable)])


class _StageWriter:
    """Writes one stage; `OPERATIONS` write the single operations through its methods."""

    def __init__(self, stage, is_logits, merge):
        self.stage = stage
        self.is_logits = is_logits
        self.merge = merge
        self.specs = dict(stage.specs)
        self._fresh = itertools.count(max(self.specs) + 1)
        (self._pictures,) = stage.model_inputs
        self._nodes, self._constants, self._names = [], {}, {}

    def write(self):
        """Return the `OnnxStage`."""
        import onnx

        steps = simplify(self.stage)
        steps = [dataclasses.replace(step, weights=_numbers(step.weights))
                 if isinstance(step, Convolution) else step for step in steps]
        if self.merge:
            steps = merge_siblings(steps, {self.stage.exit_value, *self.stage.makes}, self.specs,
                                   lambda: next(self._fresh))
        for value in self.stage.needs:
            self._names[value] = self._input_name(value)
        self._write_steps(steps)
        output = self._probabilities()
        makes = [self._hand_on(value) for value in self.stage.makes]
        graph = onnx.helper.make_graph(
            self._nodes, f"stage{self.stage.index}",
            [self._declare(self._input_name(value), value) for value in self.stage.needs],
            [self._declare(output, self.stage.exit_value),
             *(self._declare(name, value) for name, value in zip(makes, self.stage.makes))],
            list(self._constants.values()))
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION, producer_name="keras_adaptive")
        return OnnxStage(model.SerializeToString(),
                         tuple(self._input_name(value) for value in self.stage.needs),
                         tuple(makes), output)

    def _input_name(self, value):
        return "pictures" if value == self._pictures else f"value{value}"

    def _probabilities(self):
        name = self._names[self.stage.exit_value]
        if self.is_logits:
            return self.add("Softmax", [name], axis=-1, name="probabilities")
        return self.add("Identity", [name], name="probabilities")

    def _hand_on(self, value):
        """Give a value that leaves the stage the name that later stages know it by."""
        name, wanted = self._names[value], f"value{value}"
        makers = [node for node in self._nodes if name in node.output]
        if not makers or name.startswith("value"):  # an input, or handed on twice
            return self.add("Identity", [name], name=wanted)
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [wanted if n == name else n for n in names]
        self._names.update((v, wanted) for v, n in self._names.items() if n == name)
        return wanted

    def _declare(self, name, value):
        import onnx

        shape = self.specs[value].shape
        if len(shape) == 4 and name != "pictures":
            shape = (shape[0], shape[3], *shape[1:3])
        shape = [size if size is not None else f"{name}_{axis}"
                 for axis, size in enumerate(shape)]
        return onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, ["batch", *shape[1:]])

    def _write_steps(self, steps):
        if self._pictures in self.stage.needs:
            self._names[self._pictures] = self.add(
                "Transpose", [self._converted_pictures()], perm=[0, 3, 1, 2])
        cuts = {}
        for step in steps:
            if isinstance(step, ChannelSlice):
                cuts.setdefault(step.input, []).append(step)
        for step in steps:
            if isinstance(step, ChannelSlice):
                if step.output not in self._names:
                    self._write_slices(cuts[step.input])
            elif isinstance(step, Alias):
                self._names[step.output] = self._names[step.input]
            elif isinstance(step, Convolution):
                self._write_convolution(step)
            else:
                self._write_call(step)

    def _converted_pictures(self):
        """Return the pictures as numbers of the model's dtype, such as without decimals."""
        import onnx

        dtype = self.specs[self._pictures].dtype
        if dtype in ("float32", "float64"):
            return "pictures"
        cut = self.add("Cast", ["pictures"], to=getattr(onnx.TensorProto, dtype.upper()))
        return self.add("Cast", [cut], to=onnx.TensorProto.FLOAT)

    def _write_slices(self, slices):
        """Write all slices of one value: as one split where they are its parts."""
        whole = self._names[slices[0].input]
        axis = 1 if self.rank(slices[0].input) == 4 else self.rank(slices[0].input) - 1
        parts = sorted(slices, key=lambda piece: piece.start)
        ends = [0, *(piece.stop for piece in parts)]
        if ends[-1] == self.specs[slices[0].input].shape[-1] and all(
                piece.start == end for piece, end in zip(parts, ends)):
            sizes = self.constant(np.array([p.stop - p.start for p in parts], "int64"))
            names = self.add_many("Split", [whole, sizes], len(parts), axis=axis)
            self._names.update((piece.output, name) for piece, name in zip(parts, names))
            return
        for piece in slices:
            limits = [self.constant(np.array([limit], "int64"))
                      for limit in (piece.start, piece.stop, axis)]
            self._names[piece.output] = self.add("Slice", [whole, *limits])

    def _write_convolution(self, step):
        kernel, bias = step.weights
        (top, bottom), (left, right) = step.padding
        source, missing = self._names[step.input], -kernel.shape[2] % CHANNEL_STEP
        is_wide = kernel.shape[3] >= WIDE and kernel.shape[:2] != (1, 1)
        if missing and step.groups == 1 and is_wide:
            # ONNX Runtime has its fast layout for multiples of 4 channels only. At 146 channels
            # this halves the time of an exit's first convolution; thin ones are not worth the copy.
            pads = self.constant(np.array([0, 0, 0, 0, 0, missing, 0, 0], "int64"))
            source = self.add("Pad", [source, pads])
            kernel = np.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
        name = self.add(
            "Conv", [source, self.constant(kernel.transpose(3, 2, 0, 1)), self.constant(bias)],
            kernel_shape=list(kernel.shape[:2]), strides=list(step.strides),
            pads=[top, left, bottom, right], dilations=list(step.dilation), group=step.groups)
        if step.activation is not None:
            name = write_activation(self, step.activation, name)
        self._names[step.output] = name

    def _write_call(self, call):
        operation = call.operation
        computes_in = getattr(operation, "compute_dtype", None)
        if computes_in not in (None, "float32"):
            raise UnsupportedOperationError(
                f"Layer {call.name!r} computes in {computes_in}, and ONNX graphs are written in "
                "float32. Build the model in float32 and give it the weights: "
                f"`model.set_weights(trained.get_weights())`. {CURE}"
            )
        if others := self._other_dtypes(call):
            raise UnsupportedOperationError(
                f"{call.name!r} ({type(operation).__name__}) computes in {others[0]}, and ONNX "
                "graphs are written in float32. Put a `keras.layers.Rescaling` in front, which "
                f"converts what it is given. {CURE}"
            )
        # Keras has private classes behind its functions, so that names tell them apart.
        write = OPERATIONS.get(type(operation).__name__)
        is_keras = type(operation).__module__.split(".")[0] in ("keras", "keras_adaptive")
        if write is None or not is_keras:
            raise UnsupportedOperationError(
                f"Operation {call.name!r} ({type(operation).__name__}) cannot be written as ONNX. "
                f"{CURE}"
            )
        write(self, call)

    def _other_dtypes(self, call):
        """Return the dtypes but float32 that a call computes in."""
        dtypes = [self.specs[value].dtype for value in call.outputs]
        if isinstance(call.operation, keras.layers.Layer) and (
                type(call.operation).__name__ not in _MAKE_FLOATS):
            given = [self.specs[value].dtype for value in call.inputs]
            dtypes += [dtype for dtype in given if not keras.backend.is_float_dtype(dtype)]
        return [dtype for dtype in dtypes if dtype != "float32"]

    # What the operations use.

    def name(self, value):
        """Return the name of a value in the graph."""
        return self._names[value]

    def set_name(self, value, name):
        """Say under which name a value is found."""
        self._names[value] = name

    def rank(self, value):
        """Return the number of axes of a value, the batch counted."""
        return len(self.specs[value].shape)

    def shape(self, value):
        """Return the shape of a value as the model has it, channels last."""
        return self.specs[value].shape

    def constant(self, array):
        """Return the name of a constant tensor."""
        import onnx

        name = f"constant{len(self._constants)}"
        self._constants[name] = onnx.numpy_helper.from_array(
            np.ascontiguousarray(array), name)
        return name

    def add(self, kind, inputs, name=None, **attributes):
        """Add a node with one output and return the output's name."""
        return self.add_many(kind, inputs, 1, name, **attributes)[0]

    def add_many(self, kind, inputs, num_outputs, name=None, **attributes):
        """Add a node and return the names of its outputs."""
        import onnx

        names = [name or f"node{len(self._nodes)}_{i}" for i in range(num_outputs)]
        self._nodes.append(onnx.helper.make_node(kind, inputs, names, **attributes))
        return names


def _numbers(folded):
    """Return kernel and bias of a `Folded`, folded in float64, as float32."""
    kernel, bias = folded.compute(
        np, lambda variable: keras.ops.convert_to_numpy(variable).astype("float64"))
    return kernel.astype("float32"), bias.astype("float32")
