"""The engines for what TensorFlow wrote: LiteRT files and SavedModels."""

import types

import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.graph.tensorflow_writer import StageProgram
from keras_adaptive.inference.engines.litert_engine import LiteRTEngine
from keras_adaptive.inference.engines.saved_model_engine import SavedModelEngine

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow",
                                reason="TensorFlow writes these files")


@pytest.fixture
def model():
    inputs = keras.Input((4, 4, 3))
    features = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    exit1 = keras.layers.Dense(2)(features)
    return keras.Model(inputs, [exit1, keras.layers.Dense(2)(keras.ops.relu(features))])


@pytest.fixture(params=[LiteRTEngine, SavedModelEngine])
def engine_class(request):
    return request.param


def _programs(model, engine_class, folder):
    programs = []
    for number, stage in enumerate(split_into_stages(model), start=1):
        program = StageProgram(stage, True)
        if engine_class is LiteRTEngine:
            files = {"stage.tflite": program.to_litert()}
        else:
            program.save(folder / f"stage{number}")
            files = {path.relative_to(folder).as_posix(): path.read_bytes()
                     for path in sorted((folder / f"stage{number}").rglob("*")) if path.is_file()}
            files = dict(sorted(files.items(), key=lambda item: "saved_model.pb" not in item[0]))
        programs.append(types.SimpleNamespace(
            files=files, reads=tuple(program.reads), makes=tuple(program.makes),
            output=program.output))
    return programs


def test_rows_are_regrouped_between_stages(model, engine_class, tmp_path):
    """Survivors of two batches run as one, in any order and number, and keep their answers."""
    engine = engine_class()
    engine.load(_programs(model, engine_class, tmp_path))
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 3)).astype("float32")
    logits = model(x)

    first, (made1,) = engine.run(1, [x[:5]], 8)
    _, (made2,) = engine.run(1, [x[5:]], 8)
    features = engine.gather([(made2, np.array([3, 0])), (made1, None)])
    second, rest = engine.run(2, [features], 8)

    assert first.dtype == second.dtype == np.float32 and rest == []
    np.testing.assert_allclose(first, keras.ops.softmax(logits[0])[:5], atol=1e-6)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits[1]))[[8, 5, 0, 1, 2, 3, 4]]
    np.testing.assert_allclose(second, expected, atol=1e-6)


def test_a_file_of_another_export_is_refused(model, engine_class, tmp_path):
    """Stages that take or give other tensors than the manifest says are told when loaded."""
    programs = _programs(model, engine_class, tmp_path)
    programs[0].files, programs[1].files = programs[1].files, programs[0].files

    with pytest.raises(ValueError, match="file of stage 1 reads .* are of two exports"):
        engine_class().load(programs)
