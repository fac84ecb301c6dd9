import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.graph.tensorflow_writer import StageProgram

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow",
                                reason="TensorFlow writes these files")


@pytest.fixture
def stages():
    """Three stages, the second of which hands on what it does not read."""
    inputs = keras.Input((4,))
    first = keras.layers.Dense(3, name="first")(inputs)
    exit1 = keras.layers.Dense(2)(first)
    exit2 = keras.layers.Dense(2)(inputs)
    exit3 = keras.layers.Dense(2)(first)
    return split_into_stages(keras.Model(inputs, [exit1, exit2, exit3]))


def test_a_stage_takes_what_it_uses_and_gives_what_it_makes(stages):
    """What only passes by is neither copied in nor out, and names are the same in all stages."""
    programs = [StageProgram(stage, True) for stage in stages]

    made, = programs[0].makes
    assert [(list(program.reads), list(program.makes)) for program in programs] == [
        (["pictures"], [made]), (["pictures"], []), ([made], [])]


def test_a_saved_model_gives_probabilities_for_any_number_of_rows(stages, tmp_path):
    """Loaded by TensorFlow alone, it computes what the stage computes, softmax included."""
    import tensorflow as tf

    StageProgram(stages[0], True).save(tmp_path / "stage")
    model = tf.saved_model.load(tmp_path / "stage")

    for num_rows in (1, 5):
        x = np.random.default_rng(num_rows).normal(size=(num_rows, 4)).astype("float32")
        results = model.signatures["serving_default"](pictures=tf.constant(x))
        expected = keras.ops.softmax(stages[0]([x])[0])
        np.testing.assert_allclose(results["probabilities"], expected, atol=1e-6)


def test_operations_that_litert_lacks_are_named():
    """The message says which stage and operation it is, and which formats take it."""
    inputs = keras.Input((4,))
    exit1 = keras.layers.Dense(2)(keras.ops.erfinv(inputs / 2))
    stage, = split_into_stages(keras.Model(inputs, [exit1]))

    with pytest.raises(ValueError, match='cannot run stage 1: it has no Erfinv.*"saved_model"'):
        StageProgram(stage, True).to_litert()
