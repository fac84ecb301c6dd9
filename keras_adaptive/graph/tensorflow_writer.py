"""Write stages as TensorFlow programs: as a SavedModel, or for LiteRT."""

import re

import keras

from keras_adaptive.graph.stages import Stage

PICTURES = "pictures"
PROBABILITIES = "probabilities"


class StageProgram:
    """A stage as a TensorFlow function of named tensors, for any number of pictures.

    Args:
        stage: `Stage`.
        is_logits: bool. Whether its exit gives logits, so that a softmax is added.

    Attributes:
        reads: dict from name to `Spec`: what the stage needs of what there was before it, the
            pictures or what earlier stages made. What only passes by is not among it.
        makes: dict from name to `Spec`: what it makes for later stages.
        output: string. The name of the probabilities.

    Raises:
        ValueError: If Keras runs on another backend than TensorFlow.
    """

    def __init__(self, stage, is_logits):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "SavedModel and LiteRT files are written by TensorFlow. Received the backend "
                f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before Keras is "
                'imported, or export to "onnx" or "openvino", which works on every backend.'
            )
        # What only passes through the stage is left out.
        self._stage = Stage(stage.index, stage.calls, stage.needs, stage.exit_value, stage.makes,
                            stage.specs, stage.model_inputs)
        self._is_logits = is_logits
        self.output = PROBABILITIES
        self.reads = {self._name(value): stage.specs[value] for value in self._stage.reads}
        self.makes = {self._name(value): stage.specs[value] for value in self._stage.hands_on}

    def save(self, folder):
        """Write a SavedModel.

        Args:
            folder: path that does not exist yet.
        """
        import tensorflow as tf

        module, function = self._trace()
        tf.saved_model.save(module, str(folder), signatures=function)

    def to_litert(self):
        """Return the bytes of a LiteRT file that only needs LiteRT's own operations.

        Raises:
            ValueError: If LiteRT has not all operations of the stage.
        """
        import tensorflow as tf
        from tensorflow.lite.python.convert_phase import ConverterError

        module, function = self._trace()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except ConverterError as error:
            raise ValueError(
                f"LiteRT cannot run stage {self._stage.index}: {_missing_operations(error)}. "
                'Replace what uses them, or export to "onnx" or "saved_model".'
            ) from error

    def _name(self, value):
        return PICTURES if value in self._stage.model_inputs else f"tensor{value}"

    def _trace(self):
        """Return a module that owns the variables, and the traced function."""
        import tensorflow as tf

        def run(*tensors):
            output, *made = self._stage(list(tensors), training=False)
            output = keras.ops.cast(output, "float32")
            probabilities = keras.ops.softmax(output) if self._is_logits else output
            return {PROBABILITIES: probabilities, **dict(zip(self.makes, made))}

        signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype, name)
                     for name, spec in self.reads.items()]
        module = tf.Module()
        module.stage_variables = [variable.value for variable in self._stage.variables]
        function = tf.function(run, input_signature=signature, autograph=False)
        return module, function.get_concrete_function()


def _missing_operations(error):
    names = sorted(set(re.findall(r"\btf\.(\w+)", str(error))))
    return f"it has no {', '.join(names)}" if names else str(error).strip().splitlines()[0]
