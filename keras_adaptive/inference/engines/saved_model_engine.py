"""Run exported stages that are SavedModels, with TensorFlow alone."""

import pathlib
import tempfile

from keras_adaptive.inference.engines.signature_engine import SignatureEngine


class SavedModelEngine(SignatureEngine):
    """One traced function per stage, for any number of rows; between stages TensorFlow's tensors.

    A SavedModel is a program that may do anything; load only what you trust.
    """

    name = "saved_model"
    is_thread_safe = True

    def _load_program(self, program):
        import tensorflow as tf

        # TensorFlow reads from a folder: one that holds what was checked, and nothing else.
        with tempfile.TemporaryDirectory() as folder:
            for path, content in program.files.items():
                file = pathlib.Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            model = tf.saved_model.load(pathlib.Path(folder, next(iter(program.files))).parent)
        function = model.signatures["serving_default"]

        def run(tensors):
            # Naming the model keeps it: the function alone lets go of its variables.
            return model.signatures["serving_default"](
                **{name: tf.convert_to_tensor(tensor) for name, tensor in tensors.items()})

        return run, function.structured_input_signature[1], function.structured_outputs

    def gather(self, parts):
        import tensorflow as tf

        pieces = [tf.convert_to_tensor(tensor) if rows is None else tf.gather(tensor, rows)
                  for tensor, rows in parts]
        return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=0)
