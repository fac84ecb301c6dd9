"""Adaptive classification: every picture stops at the first exit that is sure enough."""

import dataclasses
import functools
import os
import sys
import threading
import time

import numpy as np

from keras_adaptive.evaluation.calibration import check_temperatures
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.inference.answers import Answers
from keras_adaptive.inference.arguments import (
    check_batch_size,
    check_deadline,
    check_threshold,
    choose_class_names,
    choose_exits,
)
from keras_adaptive.inference.calibrating import Aim, Variant, choose_fastest, run_all_exits
from keras_adaptive.inference.engines import prepare_engine
from keras_adaptive.inference.inputs import NetworkInput
from keras_adaptive.inference.progress import show_progress, show_warm_up
from keras_adaptive.inference.progressive import run_by_exit
from keras_adaptive.inference.schedule import Schedule
from keras_adaptive.inference.stage_runner import StageRunner
from keras_adaptive.inference.stage_times import measure_stage_times

# Pictures that are kept for timing whole runs: enough that they leave at different exits.
_MIN_TIMED_PICTURES = 128
_TIMED_BATCHES = 4

_DEFAULT_THRESHOLD = 0.8  # of networks that have no calibrated ones

# Seconds between two calls within which nobody changes weights, and for how long calls may follow
# each other so closely, as another thread may change them.
_NO_TIME, _LONGEST_TRUST = 3e-5, 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class _InUse:
    """What a prediction reads once, when it begins, so that no change meets half of it.

    Args:
        stages: `StageRunner`, or None before there is one.
        answers: `Answers`, which know the exits in use.
        threshold: float, or tuple of floats, one per exit of the network.
        num_exits: int, of the network.
    """

    stages: StageRunner | None
    answers: Answers
    threshold: float | tuple
    num_exits: int

    @property
    def exits(self):
        return self.answers.exits

    @functools.cached_property
    def thresholds(self):
        """float32 array, one value per exit in use."""
        per_exit = np.broadcast_to(np.float32(self.threshold), self.num_exits)
        return per_exit[np.array(self.exits) - 1]


class EarlyExitPredictor:
    """Classify pictures with a network of several exits, computing no more than each one needs.

    The network runs stage by stage. A picture leaves at the first exit whose confidence, its
    largest class probability, reaches the threshold; the last exit in use takes the rest. Later
    stages run on the survivors only. The answers are those that the whole network's outputs give
    when the choice of exits is made afterwards.

    Args:
        model: Functional `keras.Model` with one output per exit, the earliest first, each of shape
            `(batch, classes)`; or the path of one as a `.keras` file; or the name of a zoo model;
            or None for the zoo's default.
        threshold: float, or one per exit of the model, at least 0. Compared in float32. Above 1
            nobody leaves early; the value of the last exit in use counts for nothing. None, the
            default: the calibrated thresholds of a zoo model that is given by its name, or of the
            zoo's default, those that promise the least loss of accuracy, see
            `zoo.default_thresholds`. They hold for all exits and confidences as they are: 0.8 where
            `exits`, `max_exit` or `temperatures` are given, and for all other models.
        engine: `"auto"`, the fastest that is installed; one of `engines.ENGINES`; or an object with
            the methods of `KerasEngine`, which is copied and so may serve several predictors.
            Engines other than `"keras"` work on a copy of the weights, which is renewed when `fit`
            has trained the model and when it gets other weights as a whole; see `refresh`.
        exits: sequence of ints, counted from 1, or None for all: the exits in use. At the others
            nobody leaves, and what only they need is not computed.
        max_exit: int or None. No exit beyond this one is used.
        from_logits: bool or `"auto"`. Whether the outputs are logits; see `exits_give_logits`.
        preprocess: function or None. Gets a NumPy batch of pictures, 0 to 255, and returns the
            batch that the network takes: for networks that do not normalise inside.
        class_names: sequence of strings. Defaults to `model.class_names`, where there is one.
        temperatures: sequence of floats, one per exit of the model, or None. Logits are divided by
            them, which makes confidences honest; see `fit_temperatures`. Classes stay, but for
            probabilities that rounding makes equal.

    One predictor may be called from several threads; a prediction ends with the exits, thresholds
    and weights that it began with, whatever another thread sets meanwhile. It travels to other
    processes by `pickle` if `engine` is a name.

    Raises:
        ValueError: If an argument does not fit the model, or a layer with weights has no rule in
            `layer_macs`; where the model takes pictures of any size, `predict` says the latter,
            before it runs a stage.

    Example:

    >>> import keras
    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.GlobalAveragePooling2D()(inputs)
    >>> exit1, x = keras.layers.Dense(2)(x), keras.layers.Dense(4)(x)
    >>> model = keras.Model(inputs, [exit1, keras.layers.Dense(2)(x)])
    >>> predictor = EarlyExitPredictor(model, threshold=0.5)
    >>> predictor.predict(np.zeros((3, 8, 8, 3), "uint8")).exits
    array([1, 1, 1])

    Reference:
        Dynamic evaluation of [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 3.
    """

    _clock = staticmethod(time.perf_counter)

    def __init__(self, model=None, threshold=None, *, engine="auto", exits=None, max_exit=None,
                 from_logits="auto", preprocess=None, class_names=None, temperatures=None):
        # Not at the top: exported stages run without Keras.
        from keras_adaptive.inference.keras_network import KerasNetwork

        network = KerasNetwork(model, from_logits)
        if threshold is None:
            is_calibrated_for = exits is None and max_exit is None and temperatures is None
            threshold = (network.thresholds if is_calibrated_for else None) or _DEFAULT_THRESHOLD
        self._set_up(network, threshold, exits, max_exit, preprocess, class_names, temperatures)
        self.model = network.model
        self._travels_as = engine, {"from_logits": from_logits}
        self.refresh()

    @classmethod
    def from_export(cls, folder, threshold=None, *, engine="auto", max_exit=None, preprocess=None,
                    temperatures=None):
        """Make a predictor of exported stages, which needs neither Keras nor a backend of it.

        Args:
            folder: path of a folder that `export_stages` wrote.
            threshold: as above, or None for the thresholds that were exported; 0.8 where none were,
                or `max_exit` or `temperatures` are given.
            engine: string. Name of the engine that runs the files.
            max_exit, preprocess: as above.
            temperatures: as above, or None for those that were exported.

        Returns:
            `EarlyExitPredictor`, whose `model` is None.

        Raises:
            ValueError: If the folder is no export, a file in it was changed, or an argument does
                not fit it.
        """
        from keras_adaptive.exported import ExportedNetwork

        network = ExportedNetwork.from_folder(folder)
        predictor = cls.__new__(cls)
        if threshold is None:
            is_calibrated_for = max_exit is None and temperatures is None
            threshold = (network.thresholds if is_calibrated_for else None) or _DEFAULT_THRESHOLD
        predictor._set_up(network, threshold, network.exits, max_exit, preprocess, None,
                          network.temperatures if temperatures is None else temperatures)
        predictor._travels_as = engine, {"folder": os.path.abspath(folder)}
        predictor._change(
            stages=StageRunner(network.make_engine(engine), len(predictor.exits)))
        return predictor

    def _set_up(self, network, threshold, exits, max_exit, preprocess, class_names, temperatures):
        """Check and keep everything but the model and the engine."""
        self.model = None
        self._last_answer = self._last_look = float("-inf")
        self.name = network.name
        self.num_exits = network.num_exits
        self.num_classes = network.num_classes
        self._max_exit = max_exit
        self._network = network
        self._turn = threading.Lock()  # of those who change what is in use
        answers = Answers(
            network, choose_exits(exits, max_exit, network.num_exits),
            check_temperatures([1.0] * self.num_exits if temperatures is None else temperatures,
                               self.num_exits),
            choose_class_names(class_names, network))
        self._in_use = _InUse(
            None, answers, check_threshold(threshold, self.num_exits, self.name), self.num_exits)
        self._input = NetworkInput(network, preprocess)
        if self._input.size is not None:  # a layer without a rule is told before there is work
            answers.count_macs(self._input.size)

    def refresh(self):
        """Take the model's weights as they are now.

        Engines other than `"keras"` work on a copy. `predict` looks at a few small variables of
        each stage in use, the exit's last among them, and at the steps of the model's optimizer. So
        it notices by itself that `fit` has trained anything, and that the whole network or an exit
        has got other weights; where calls follow each other at once, within 50 ms. Call this after
        changing single layers in between, by `set_weights` or a training loop of your own.

        Raises:
            ValueError: If the predictor was made of exported stages.
        """
        if self.model is None:
            raise ValueError(
                "Exported stages do not change with a model. Export it again with `export_stages`, "
                "and make a predictor of that."
            )
        exits = self.exits
        stages = self._make_stages(exits)
        with self._turn:
            # Exits that another thread has chosen meanwhile came with stages as new as these.
            if self.exits == exits:
                self._in_use = dataclasses.replace(self._in_use, stages=stages)

    def _change(self, **changes):
        """Use something else from the next prediction on."""
        with self._turn:
            self._in_use = dataclasses.replace(self._in_use, **changes)

    def _refresh_if_changed(self):
        # Looking takes as long as a stage, and calls that follow each other at once leave no time
        # to change weights.
        in_use = self._in_use
        mark, now = in_use.stages.weights_mark, time.perf_counter()
        if mark is None or (now - self._last_answer < _NO_TIME
                            and now - self._last_look < _LONGEST_TRUST):
            return
        self._last_look = now
        if mark != self._network.weights_mark(in_use.exits):
            self.refresh()

    @property
    def engine(self):
        """The engine that runs the stages in use; its `name` is one of `engines.ENGINES`."""
        return self._in_use.stages.engine

    @property
    def exits(self):
        """tuple of ints. The exits in use; see `use_exits`."""
        return self._in_use.exits

    @property
    def temperatures(self):
        """tuple of floats, one per exit of the model."""
        return self._in_use.answers.temperatures

    @property
    def class_names(self):
        """tuple of strings, or None. The names of the classes."""
        return self._in_use.answers.class_names

    @property
    def threshold(self):
        """float, or tuple of floats, one per exit. May be set between predictions."""
        return self._in_use.threshold

    @threshold.setter
    def threshold(self, threshold):
        self._change(threshold=check_threshold(threshold, self.num_exits, self.name))

    def use_exits(self, exits):
        """Use other exits from now on: their stages are prepared, which takes a moment.

        Thresholds stay. Exits that were not in use when they were calibrated, and the last one that
        was, let nobody leave early until `calibrate` is called again.

        Args:
            exits: sequence of ints, counted from 1, or None for all. None beyond `max_exit`.

        Raises:
            ValueError: If a number is no exit, or the predictor runs exported stages: which exits
                those have was settled when they were exported.
        """
        exits = choose_exits(exits, self._max_exit, self.num_exits)
        if self.model is None:
            raise ValueError(
                f"{self.name!r} runs exported stages, and keeps their exits. Export the model "
                "again with the exits wanted."
            )
        self._change(stages=self._make_stages(exits),
                     answers=self._in_use.answers.with_exits(exits))

    def predict(self, images, batch_size=64, verbose="auto", deadline_ms=None):
        """Classify pictures.

        Args:
            images: pictures with values 0 to 255: an array, paths, a folder, a data set, a
                generator and more; see `open_pictures`. Read as a stream, so a data set may be
                larger than memory.
            batch_size: int. Most pictures in one run of a stage; on a CPU, an engine may run fewer
                that fit its caches. It changes speed and memory, not the answers.
            verbose: bool or `"auto"`. Whether a progress bar is shown on standard error; `"auto"`
                shows it on a terminal when the work is long.
            deadline_ms: number or None. Milliseconds after the call from which on no stage is begun
                but the first, which runs for every picture: each gets the answer of the deepest
                exit that it has reached, at least the first exit in use. A stage that runs is not
                broken off.

        Returns:
            `Prediction`, in the order of the pictures.

        Raises:
            ValueError: If the pictures are not what the network takes, or the network's outputs are
                no numbers. `UnreadablePicturesError`, a `ValueError`, names all bad files.
            TypeError: If `images` is none of the accepted forms.
        """
        batch_size = check_batch_size(batch_size)
        is_over = self._watch(deadline_ms)
        self._refresh_if_changed()
        in_use = self._in_use
        pictures = self._input.open(images)
        batch_size = self.rows_in_a_run(batch_size)
        schedule = Schedule(in_use.stages, in_use.thresholds, batch_size, in_use.answers.read,
                            pictures.num_pictures, is_over)
        answers, size = [], self._input.size
        with (
            show_progress(pictures.num_pictures, batch_size, verbose) as advance,
            self._input.batches(pictures, batch_size) as batches,
        ):
            for batch in batches:
                size = batch.shape[1:3]
                in_use.answers.count_macs(size)  # if that fails, then before any work is done
                for answer in schedule.admit(batch):
                    answers.append(answer)
                    advance(len(answer.positions))
            for answer in schedule.finish():
                answers.append(answer)
                advance(len(answer.positions))
        prediction = in_use.answers.collect(answers, size, pictures.files)
        self._last_answer = time.perf_counter()
        return prediction

    def rows_in_a_run(self, batch_size):
        """Return how many pictures run together: the batch size, or fewer if that is faster."""
        best_rows = getattr(self.engine, "best_rows", None)
        if best_rows is None or self._input.size is None:
            return batch_size
        return min(batch_size, best_rows(self._input.size))

    def _watch(self, deadline_ms):
        """Return a function that tells whether the deadline has passed, or None without one."""
        deadline_ms = check_deadline(deadline_ms)
        if deadline_ms is None:
            return None
        end = self._clock() + deadline_ms / 1000
        return lambda: self._clock() >= end

    def predict_progressively(self, images):
        """Classify pictures exit by exit, so that the caller may stop whenever an answer will do.

        All pictures run together as one batch; what they carry is in memory at once.

        Args:
            images: as for `predict`. They are read before this returns.

        Returns:
            Iterator of `Prediction` of all pictures, one after each exit in use, with the best
            answers so far: those that left keep theirs, the others have that of the deepest exit.
            The last is what `predict` gives. It comes as soon as everybody has left, which may be
            before the last exit.

        Raises:
            ValueError, TypeError: As `predict`.
        """
        self._refresh_if_changed()
        in_use = self._in_use
        pictures = self._input.open(images)
        with self._input.batches(pictures, sys.maxsize) as batches:
            batches = list(batches)
        if not batches:
            return iter([in_use.answers.collect([], self._input.size, pictures.files)])
        in_use.answers.count_macs(batches[0].shape[1:3])
        # A copy: the caller may fill the array anew before the next answer is asked for.
        return _answer_by_exit(in_use, np.array(batches[0]), pictures.files)

    def warm_up(self, batch_size=64, verbose="auto"):
        """Run every stage on blank pictures, so that the first real ones need not wait.

        Engines compile a stage when it runs first. This does so for full batches and for one row,
        and for the numbers between that an engine compiles for.

        Args:
            batch_size: int, as `predict` will get it.
            verbose: bool or `"auto"`. Whether a progress bar is shown on standard error; `"auto"`
                shows it on a terminal.

        Returns:
            The predictor.

        Raises:
            ValueError: If the network takes pictures of any size.
        """
        batch_size = check_batch_size(batch_size)
        if self._input.size is None:
            raise ValueError(
                f"{self.name!r} takes pictures of any size, and engines compile for the size that "
                "comes. Call `predict` once on a batch of the size that you will use, such as "
                f"`np.zeros(({batch_size}, height, width, {self._input.shape[-1]}), 'uint8')`."
            )
        stages = self._in_use.stages
        counts = stages.row_counts(self.rows_in_a_run(batch_size))
        with show_warm_up(len(counts) * stages.num_stages, verbose) as advance:
            for num_rows in counts:
                carried = stages.admit(self._input.blank(num_rows))
                for stage in range(1, stages.num_stages + 1):
                    stages.run(stage, carried, batch_size)
                    advance(1)
        return self

    def calibrate(self, x, y=None, *, macs=None, accuracy=None, max_loss=None, latency_ms=None,
                  exits=None, confidence=None, batch_size=64, verbose="auto"):
        """Choose thresholds on labelled pictures, and use them from now on.

        Exactly one of `macs`, `accuracy`, `max_loss` and `latency_ms` says what is wanted.

        Args:
            x: pictures, as for `predict`, which the network was not trained on.
            y: int array of labels, one per picture: `(n,)` or `(n, 1)`. None where `x` is a data
                set of `(pictures, labels)`, such as a `tf.data.Dataset`.
            macs: number. The thresholds found most accurate whose mean multiply-adds are within it;
                see `smooth` of `ThresholdSearch`.
            accuracy: float. The cheapest thresholds that are as accurate as this share.
            max_loss: float. One threshold for all exits that loses at most this share of accuracy
                against the last exit in use, on all pictures of this kind, with probability
                `confidence`; see `choose_safe_threshold`. The others promise something for these
                pictures only.
            latency_ms: number. As `macs`, with the mean milliseconds of a picture, by the times of
                the stages that are measured now: on this machine and engine, in full batches of
                `batch_size`. It bounds the mean and no single picture: `max_exit` does that.
            exits: None, or `"fastest"` with `accuracy` or `latency_ms`. Exits that cost more time
                than they save are then left out, from now on: those are chosen that make
                predictions fastest at the accuracy, or most accurate within the milliseconds. They
                are among the exits in use; `use_exits` brings the others back.
            confidence: float in (0, 1), with `max_loss` only; `None` for 0.95.
            batch_size, verbose: as for `predict`. Times hold for predictions with this batch size.

        Returns:
            `ChosenThresholds` with one threshold per exit of the model, and what they give here.

        Raises:
            ValueError: If not one of the four is given, one is out of its range, `y` does not fit,
                or `exits` is neither None nor `"fastest"`, or cannot be chosen because the engine
                was not given by its name: all before a picture is computed, but for labels that
                come with their pictures. If `accuracy` is not reached.
        """
        if exits not in (None, "fastest"):
            raise ValueError(
                '`exits` is None, for those in use, or "fastest". To name them, call `use_exits`. '
                f"Received: {exits!r}."
            )
        aim = Aim(macs, accuracy, max_loss, latency_ms, confidence, exits == "fastest")
        engine = self._travels_as[0]
        if aim.is_fastest and (self.model is None or not isinstance(engine, str)):
            raise ValueError(
                '`exits="fastest"` times several engines of one kind side by side: make the '
                'predictor of a model, and name its engine, such as `engine="auto"`. '
                f"Received: engine={engine!r}."
            )
        batch_size = self.rows_in_a_run(check_batch_size(batch_size))
        num_timed = 0
        if aim.needs_times:
            num_timed = max(_MIN_TIMED_PICTURES, _TIMED_BATCHES * batch_size)
        self._refresh_if_changed()
        in_use = self._in_use
        outputs, size, sample = run_all_exits(
            in_use.stages, in_use.answers, self._input, x, y, self.num_classes, batch_size, verbose,
            num_timed)
        exits, changes = in_use.exits, {}
        if aim.is_fastest:
            def make_variant(exits):
                return self._make_variant(in_use, exits, size, batch_size)

            chosen, variant = choose_fastest(
                aim, outputs, make_variant(exits), make_variant, sample, batch_size)
            exits = variant.exits
            changes = {"stages": variant.stages, "answers": in_use.answers.with_exits(exits)}
        else:
            times = None
            if aim.needs_times:
                times = measure_stage_times(in_use.stages.engine, len(exits), sample, batch_size)
            chosen = aim.choose(outputs, in_use.answers.count_macs(size)[0], times)
        thresholds, shares = [NEVER] * self.num_exits, [0.0] * self.num_exits
        for number, threshold, share in zip(exits, chosen.thresholds, chosen.exit_shares):
            thresholds[number - 1], shares[number - 1] = threshold, share
        if exits[-1] < self.num_exits:
            # 0 would let everybody leave there, were later exits used again.
            thresholds[exits[-1] - 1] = NEVER
        thresholds = check_threshold(thresholds, self.num_exits, self.name)
        self._change(threshold=thresholds, **changes)
        return dataclasses.replace(chosen, thresholds=thresholds, exit_shares=tuple(shares))

    def _make_stages(self, exits):
        # Before weights are copied, so that what changes them meanwhile is noticed.
        mark = self._network.weights_mark(exits)
        engine = prepare_engine(self._travels_as[0], self._network.stages(exits),
                                self._network.gives_logits(exits))
        is_snapshot = getattr(engine, "is_snapshot", False)
        return StageRunner(engine, len(exits), mark if is_snapshot else None)

    def _make_variant(self, in_use, exits, size, batch_size):
        """Return the `Variant` with some of the exits in use; with all, it is the predictor's."""
        stages, answers = in_use.stages, in_use.answers
        if exits != in_use.exits:
            stages, answers = self._make_stages(exits), answers.with_exits(exits)

        def make_schedule(thresholds):
            return Schedule(stages, np.float32(thresholds), batch_size, answers.read)

        return Variant(exits, stages, answers.count_macs(size)[0], make_schedule)

    def __reduce__(self):
        """Let the predictor travel to other processes, by `pickle` or `copy`.

        What travels is the configuration, and the model as the bytes of a `.keras` file or the path
        of an export's folder; no code does, but for a `preprocess` that can be pickled.
        """
        engine, origin = self._travels_as
        if not isinstance(engine, str):
            raise TypeError(
                f"A predictor travels with an engine that has a name. Its `engine` is an object, "
                f"{engine!r}: make the predictor with a name, such as engine=\"auto\", or make one "
                "in each process."
            )
        options = {
            "threshold": self.threshold,
            "engine": engine,
            "preprocess": self._input.preprocess,
            "temperatures": self.temperatures,
        }
        if "folder" in origin:
            return _open_export, (origin["folder"], {**options, "max_exit": self.exits[-1]})
        options |= {**origin, "exits": self.exits, "max_exit": self._max_exit,
                    "class_names": self.class_names}
        return _open_model, (self._network.to_bytes(), self._network.records(), options)

    def __repr__(self):
        return (
            f"EarlyExitPredictor(model={self.name!r}, threshold={self.threshold}, "
            f"exits={self.exits} of {self.num_exits})"
        )


def _answer_by_exit(in_use, batch, files):
    answers = in_use.answers
    for taken, probabilities in run_by_exit(in_use.stages, in_use.thresholds, batch, answers.read):
        yield answers.predict_from(probabilities, taken, batch.shape[1:3], files)


def _open_export(folder, options):
    return EarlyExitPredictor.from_export(folder, **options)


def _open_model(content, records, options):
    from keras_adaptive.inference.keras_network import model_from_bytes

    return EarlyExitPredictor(model_from_bytes(content, records), **options)
