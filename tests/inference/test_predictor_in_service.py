"""A predictor in a program that serves: deadlines, threads, processes, warm-up, files."""

import concurrent.futures
import functools
import io
import pickle
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from PIL import Image

from keras_adaptive.graph import exit_macs
from keras_adaptive.inference import inputs
from keras_adaptive.inference.engines.keras_engine import make_keras_engine
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.picture_files import UnreadablePicturesError


class WatchedEngine:
    """The backend's engine; keeps the rows of each run, whether runs overlap, and a clock on which
    each takes 10 ms."""

    def __init__(self):
        engine = make_keras_engine()
        self.prepare, self.reads, self.makes, self.gather = (
            engine.prepare, engine.reads, engine.makes, engine.gather)
        self._run = engine.run
        self.calls, self.now = [], 100.0
        self.num_running = self.most_running = 0

    def run(self, index, tensors, batch_size):
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        time.sleep(0.001)
        result = self._run(index, tensors, batch_size)
        self.num_running -= 1
        self.calls.append((index, len(tensors[0])))
        self.now += 0.010
        return result


@pytest.fixture
def timed(network):
    """A predictor from which nobody leaves early, on a clock of its own, and its engine."""
    predictor = EarlyExitPredictor(network, 2, engine=WatchedEngine())
    predictor._clock = lambda: predictor.engine.now
    return predictor, predictor.engine


@pytest.mark.parametrize("deadline_ms, deepest", [
    (0, 1), (5, 1), (10, 1), (10.5, 2), (25, 3), (31, 4), (1000, 4), (float("inf"), 4)])
def test_no_stage_begins_after_the_deadline(
        timed, network, images, all_probabilities, deadline_ms, deepest):
    """Each picture gets the answer of the deepest exit that it reached, and what that cost."""
    predictor, engine = timed

    prediction = predictor.predict(images, deadline_ms=deadline_ms)

    assert [index for index, _ in engine.calls] == list(range(1, deepest + 1))
    assert set(prediction.exits) == {deepest}
    assert set(prediction.macs) == {exit_macs(network)[deepest - 1]}
    np.testing.assert_allclose(
        prediction.probabilities, all_probabilities[deepest - 1], atol=1e-5)


def test_every_picture_gets_the_first_exit_at_least(timed, images, all_probabilities):
    """Also those whose turn comes after the deadline, and those that wait for a full batch."""
    predictor, engine = timed
    predictor.threshold = 0.7

    prediction = predictor.predict(images, batch_size=4, deadline_ms=35)

    assert sum(rows for index, rows in engine.calls if index == 1) == len(images)
    assert {1} < set(prediction.exits)
    reached = all_probabilities[prediction.exits - 1, np.arange(len(images))]
    np.testing.assert_allclose(prediction.probabilities, reached, atol=1e-5)


def test_a_deadline_far_away_changes_nothing(network, images):
    predictor = EarlyExitPredictor(network, 0.7)

    expected = predictor.predict(images, batch_size=8)
    prediction = predictor.predict(images, batch_size=8, deadline_ms=1e9)

    np.testing.assert_array_equal(prediction.exits, expected.exits)
    np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)


@pytest.mark.parametrize("deadline_ms", [-1, float("nan"), "soon", True])
def test_deadlines_are_times(network, images, deadline_ms):
    with pytest.raises(ValueError, match="`deadline_ms` is a time in milliseconds"):
        EarlyExitPredictor(network).predict(images, deadline_ms=deadline_ms)


def test_warm_up_runs_all_that_will_come(network):
    """Every stage, on a full batch and on one row; the predictor is handed back."""
    engine = WatchedEngine()
    predictor = EarlyExitPredictor(network, engine=engine, exits=[1, 4])

    assert predictor.warm_up(16) is predictor

    assert sorted(engine.calls) == [(1, 1), (1, 16), (2, 1), (2, 16)]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs eagerly")
def test_nothing_is_compiled_after_warm_up(network, images, executions):
    """Whatever the number of survivors."""
    predictor = EarlyExitPredictor(network, 0.7, engine="keras").warm_up(16)
    before = dict(executions)

    predictor.predict(images, batch_size=16)
    predictor.predict(images[:1], batch_size=16)

    assert set(before) == {1, 2, 3, 4}
    assert executions == before


def test_warm_up_shows_how_far_it_is(network, monkeypatch):
    """On standard error, and on a terminal unasked."""
    for verbose, is_terminal, is_shown in [
            (True, False, True), ("auto", True, True), ("auto", False, False)]:
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stderr", stream)
        EarlyExitPredictor(network, engine=WatchedEngine()).warm_up(2, verbose=verbose)
        assert ("8/8" in stream.getvalue()) == is_shown


def test_warm_up_needs_a_size():
    """A network that takes any size is warmed by a first call; the message says so."""
    pictures = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(pictures)
    model = keras.Model(pictures, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x * 2)])

    with pytest.raises(ValueError, match="Call `predict` once on a batch of the size"):
        EarlyExitPredictor(model).warm_up()


@pytest.mark.parametrize("is_safe", [False, True])
def test_threads_get_the_answers_of_one(network, images, is_safe):
    """Calls of an engine that is not made for several threads take turns; states do not mix."""
    engine = WatchedEngine()
    engine.is_thread_safe = is_safe
    predictor = EarlyExitPredictor(network, 0.7, engine=engine).warm_up(7)
    engine = predictor.engine
    engine.most_running = 0
    parts = [images[start::4] for start in range(4)] * 2
    expected = [predictor.predict(part, batch_size=7) for part in parts]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda part: predictor.predict(part, batch_size=7), parts))

    for alone, together in zip(expected, answers):
        np.testing.assert_array_equal(together.exits, alone.exits)
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-6)
    if not is_safe:
        assert engine.most_running == 1


@pytest.mark.parametrize("before, after", [([1, 3], [1, 2]), ([1, 2], [2, 3]), ([1, 2, 3], [1])])
def test_a_prediction_ends_with_the_exits_that_it_began_with(network, images, before, after):
    """Another thread may choose others meanwhile, or other thresholds."""
    predictor = EarlyExitPredictor(network, 0.7, engine="keras", exits=before)
    expected = predictor.predict(images, batch_size=16)

    def batches():
        yield images[:20]
        predictor.use_exits(after)
        predictor.threshold = 2
        yield images[20:]

    found = predictor.predict(batches(), batch_size=16)

    assert (predictor.exits, predictor.threshold) == (tuple(after), 2)
    np.testing.assert_array_equal(found.exits, expected.exits)
    np.testing.assert_array_equal(found.macs, expected.macs)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


def test_exits_that_are_chosen_while_weights_are_copied_stay(network, images, all_probabilities):
    """Stages of the exits that were in use before do not come back."""
    predictor = EarlyExitPredictor(network, 2, engine="keras")
    make_stages = predictor._make_stages

    def make_slowly(exits):
        stages = make_stages(exits)
        predictor._make_stages = make_stages
        predictor.use_exits([2, 3])
        return stages

    predictor._make_stages = make_slowly
    predictor.refresh()

    assert predictor.exits == (2, 3)
    np.testing.assert_allclose(predictor.predict(images).probabilities, all_probabilities[2],
                               atol=1e-5)


def halve(pictures):
    return pictures[:, ::2, ::2]


def test_a_predictor_comes_back_from_its_bytes(network, images):
    """With its weights and all its settings."""
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    predictor = EarlyExitPredictor(
        network, [0.7, 0.6, 0.5, 0.4], exits=[1, 2, 4], preprocess=halve, class_names=list("abcde"),
        temperatures=[1, 2, 1, 1.5], engine="keras")
    expected = predictor.predict(large)

    again = pickle.loads(pickle.dumps(predictor))

    prediction = again.predict(large)
    assert again.exits == (1, 2, 4) and again.threshold == predictor.threshold
    assert prediction.class_names == tuple("abcde")
    np.testing.assert_array_equal(prediction.exits, expected.exits)
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-6)
    np.testing.assert_array_equal(prediction.macs, expected.macs)


@pytest.mark.parametrize("rule, macs", [
    ({"size": [8, 8], "crop": 0.5}, [1, 2, np.int64(3), 4]),
    ({"size": np.array([8, 8]), "crop": np.float32(0.5)}, np.array([1, 2, 3, 4])),
], ids=["numbers", "arrays"])
def test_what_a_plain_model_carries_travels_along(make_network, images, rule, macs):
    """How photographs are cropped, and what exits cost, where the caller has set it."""
    model = make_network()
    model.input_rule, model.exit_macs = rule, macs
    predictor = EarlyExitPredictor(model, 0.7)
    photograph = Image.fromarray(np.concatenate(images[:4])).resize((32, 32))

    again = pickle.loads(pickle.dumps(predictor))

    expected, prediction = predictor.predict([photograph]), again.predict([photograph])
    np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)
    np.testing.assert_array_equal(prediction.macs, expected.macs)
    assert again.model.input_rule == {"size": [8, 8], "crop": 0.5}


def test_a_predictor_travels_to_a_fresh_process(network, images, tmp_path):
    """One that knows nothing of the model but the bytes."""
    predictor = EarlyExitPredictor(network, 0.7)
    (tmp_path / "predictor").write_bytes(pickle.dumps(predictor))
    np.save(tmp_path / "images.npy", images)
    code = (
        "import pickle, sys, numpy as np\n"
        "predictor = pickle.load(open(sys.argv[1] + '/predictor', 'rb'))\n"
        "prediction = predictor.predict(np.load(sys.argv[1] + '/images.npy'))\n"
        "np.savez(sys.argv[1] + '/answers.npz', exits=prediction.exits,\n"
        "         probabilities=prediction.probabilities)\n"
    )

    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True,
                             text=True)

    assert process.returncode == 0, process.stderr
    expected, answers = predictor.predict(images), np.load(tmp_path / "answers.npz")
    np.testing.assert_array_equal(answers["exits"], expected.exits)
    np.testing.assert_allclose(answers["probabilities"], expected.probabilities, atol=1e-6)


def test_no_code_travels_in_the_model(images):
    """A model with a function of its own in it is refused where it arrives."""
    pictures = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x / 255)(pictures))
    model = keras.Model(pictures, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x * 2)])
    content = pickle.dumps(EarlyExitPredictor(model))

    with pytest.raises(ValueError, match="[Ll]ambda"):
        pickle.loads(content)


def test_engines_of_ones_own_do_not_travel(network):
    """The message says what to do instead."""
    predictor = EarlyExitPredictor(network, engine=WatchedEngine())

    with pytest.raises(TypeError, match="make the predictor with a name"):
        pickle.dumps(predictor)


@pytest.fixture
def files(images, tmp_path):
    for number, picture in enumerate(images[:12]):
        Image.fromarray(picture).save(tmp_path / f"{number:02}.png")
    return sorted(tmp_path.glob("*.png"))


def test_files_are_read_while_stages_run(network, images, files, monkeypatch):
    """In a thread of its own, in order; the answers are those of the pictures in memory."""
    threads = set()
    read = functools.partial(Image.open)
    monkeypatch.setattr(Image, "open", lambda *args, **options: threads.add(
        threading.current_thread()) or read(*args, **options))
    predictor = EarlyExitPredictor(network, 0.7)

    prediction = predictor.predict(files, batch_size=4)

    np.testing.assert_array_equal(prediction.exits, predictor.predict(images[:12]).exits)
    assert prediction.files == tuple(map(str, files))
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_bad_files_are_all_named_though_read_elsewhere(network, files):
    for number in (1, 9):
        files[number].write_bytes(b"no picture")

    with pytest.raises(UnreadablePicturesError) as error:
        EarlyExitPredictor(network).predict(files, batch_size=4)
    assert list(error.value.reasons) == [str(files[1]), str(files[9])]


def test_nobody_reads_on_after_an_error(network, files):
    """The thread that reads ends when the work stops."""
    def fail(pictures):
        raise RuntimeError("in the middle")

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="in the middle") as error:
        EarlyExitPredictor(network, preprocess=fail).predict(files, batch_size=2)

    end = time.monotonic() + 5
    while not set(threading.enumerate()) <= before and time.monotonic() < end:
        time.sleep(0.001)
    assert set(threading.enumerate()) <= before
    assert error.traceback, "the traceback keeps the stream alive"


def test_arrays_need_no_thread(network, images, monkeypatch):
    """What is in memory is not read ahead."""
    monkeypatch.setattr(inputs, "Prefetch", None)

    EarlyExitPredictor(network).predict(images, batch_size=4)
    EarlyExitPredictor(network).predict(list(images), batch_size=4)
