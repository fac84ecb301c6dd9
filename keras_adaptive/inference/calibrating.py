"""What `calibrate` of the predictor aims at, and how thresholds and exits are chosen for it."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.arguments import check_inner_share, check_positive, check_share
from keras_adaptive.evaluation.risk import choose_safe_threshold
from keras_adaptive.evaluation.thresholds import ThresholdSearch
from keras_adaptive.inference.images import LabelledPictures
from keras_adaptive.inference.progress import show_progress
from keras_adaptive.inference.stage_runner import StageRunner
from keras_adaptive.inference.stage_times import (
    savings_ms,
    subsets_for_savings,
    time_side_by_side,
)
from keras_adaptive.labels import read_labels

_CONFIDENCE = 0.95  # of a promise for which none was given
_NO_PICTURES = "`x` holds no pictures; thresholds are chosen on some thousand."


@dataclasses.dataclass(frozen=True)
class Aim:
    """What thresholds are chosen for: one of the first four, the others are `None`.

    Args:
        macs: number, the mean multiply-adds allowed.
        accuracy: float, the share of right answers wanted.
        max_loss: float, the share of accuracy that may be lost.
        latency_ms: number, the mean milliseconds allowed.
        confidence: float in (0, 1), for `max_loss`, or `None` for 0.95.
        is_fastest: bool. Whether exits are chosen too, by measured time.

    Raises:
        ValueError: If not one aim is given, it is out of its range, `confidence` is given for
            another than `max_loss`, or the exits are to be chosen for an aim that time has no part
            in.
    """

    macs: float | None
    accuracy: float | None
    max_loss: float | None
    latency_ms: float | None
    confidence: float | None
    is_fastest: bool

    def __post_init__(self):
        wanted = {name: getattr(self, name)
                  for name in ("macs", "accuracy", "max_loss", "latency_ms")}
        if sum(value is not None for value in wanted.values()) != 1:
            raise ValueError(
                "`calibrate` takes one of `macs`, `accuracy`, `max_loss` and `latency_ms`. "
                f"Received: {', '.join(f'{name}={value}' for name, value in wanted.items())}."
            )
        for name, unit in (("macs", "multiply-adds"), ("latency_ms", "milliseconds")):
            if wanted[name] is not None:
                check_positive(name, wanted[name], unit)
        if self.accuracy is not None:
            check_share("accuracy", self.accuracy)
        if self.max_loss is not None:
            check_inner_share("max_loss", self.max_loss)
        if self.confidence is not None:
            check_inner_share("confidence", self.confidence)
            if self.max_loss is None:
                raise ValueError(
                    "`confidence` is that of the promise which `max_loss` makes; the other aims "
                    f"promise nothing. Received: confidence={self.confidence!r} without "
                    "`max_loss`."
                )
        if self.is_fastest and self.accuracy is None and self.latency_ms is None:
            raise ValueError(
                '`exits="fastest"` chooses exits by time: for an `accuracy`, or the best accuracy '
                "within `latency_ms`. With `macs` and `max_loss`, name the exits in `use_exits`."
            )

    @property
    def needs_times(self):
        """bool. Whether stages are to be timed."""
        return self.is_fastest or self.latency_ms is not None

    def choose(self, outputs, macs, times=None, savings=None, starts=()):
        """Return thresholds for the exits in use.

        Args:
            outputs: `ExitOutputs` of the exits in use.
            macs: sequence of numbers, the multiply-adds up to each of them.
            times: `StageTimes` of them, or `None`. Where they are given they are the cost.
            savings, starts: see `ThresholdSearch`.

        Returns:
            `ChosenThresholds`.
        """
        if self.max_loss is not None:
            return choose_safe_threshold(outputs, macs, self.max_loss,
                                         self.confidence or _CONFIDENCE)
        costs = macs if times is None else times.cumulative_ms
        is_smooth = self.accuracy is None
        search = ThresholdSearch(outputs, costs, starts, smooth=is_smooth, savings=savings)
        if self.accuracy is not None:
            chosen = search.reaching(self.accuracy)
        else:
            chosen = search.within(self.macs if self.latency_ms is None else self.latency_ms)
        if times is None:
            return chosen
        return dataclasses.replace(chosen, mean_ms=chosen.mean_macs,
                                   mean_macs=float(np.dot(chosen.exit_shares, macs)))

    def is_better(self, chosen, timed_ms, other, other_timed_ms):
        """Return whether thresholds, and the exits they use, serve the aim better than others.

        For an accuracy, both by the times of the stages and by those of whole runs.
        """
        if self.accuracy is not None:
            return chosen.mean_ms < other.mean_ms and timed_ms < other_timed_ms
        key = [(each.budget_met, each.accuracy, -each.mean_ms) for each in (chosen, other)]
        return key[0] > key[1]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network with some of its exits in use.

    Args:
        exits: tuple of ints, the exits in use.
        stages: `StageRunner` of an engine that is prepared for them.
        macs: sequence of numbers, the multiply-adds up to each of them.
        make_schedule: function of one threshold per exit in use that returns a new `Schedule`.
    """

    exits: tuple
    stages: StageRunner
    macs: list
    make_schedule: Callable


def run_all_exits(stages, answers, network_input, images, labels, num_classes, batch_size, verbose,
                  num_timed):
    """Run all stages on all pictures, without choosing.

    Args:
        stages: `StageRunner` of the exits in use.
        answers: `Answers`, which check what a stage gave and count what it cost.
        network_input: `NetworkInput`.
        images: pictures, as for `predict` of the predictor.
        labels: int array, one per picture; or `None` where `images` is a data set with labels.
        num_classes: int.
        batch_size: int.
        verbose: bool or `"auto"`, as for `predict`.
        num_timed: int. Number of pictures to keep for timing: memory may not hold all.

    Returns:
        Tuple of the answers, `ExitOutputs`; the pictures' size; and the first batches, as stage 1
        takes them, of `num_timed` pictures or a little more, or `None` for 0.

    Raises:
        ValueError: If there are no pictures, or not one label for each, or a label is no class;
            before a stage runs, but for what only the end of a data set tells.
    """
    labelled = LabelledPictures(images, num_classes) if labels is None else None
    pictures = network_input.open(images if labelled is None else labelled)
    if pictures.num_pictures == 0:
        raise ValueError(_NO_PICTURES)
    if labelled is None:
        labels = read_labels(labels, "`y`", pictures.num_pictures, num_classes)
    per_batch, sample, size, num_pictures = [], [], network_input.size, 0
    with (
        show_progress(pictures.num_pictures, batch_size, verbose) as advance,
        network_input.batches(pictures, batch_size) as batches,
    ):
        for batch in batches:
            if num_pictures < num_timed:
                sample.append(batch)
            size, per_exit = batch.shape[1:3], []
            answers.count_macs(size)  # if that fails, then before any work is done
            carried = stages.admit(batch)
            positions = num_pictures + np.arange(len(batch))
            num_pictures += len(batch)
            for stage in range(1, stages.num_stages + 1):
                probabilities = stages.run(stage, carried, batch_size)
                per_exit.append(answers.read(stage, positions, probabilities))
            per_batch.append(np.stack(per_exit))
            advance(len(batch))
    if not per_batch:
        raise ValueError(_NO_PICTURES)
    if labelled is not None:
        labels = labelled.labels()
    outputs = ExitOutputs(np.concatenate(per_batch, axis=1),
                          read_labels(labels, "`y`", num_pictures, num_classes))
    return outputs, size, np.concatenate(sample) if sample else None


def choose_fastest(aim, outputs, in_use, make_variant, pictures, batch_size,
                   clock=time.perf_counter):
    """Choose exits and thresholds by measured time.

    What leaving out each exit saves is measured with two subsets of the exits, and savings of
    several are taken to add up. What the search then leaves in use is prepared and timed for
    itself, stage by stage, in turns with all exits, and its thresholds are chosen by these times. A
    whole run of some pictures with each is the last test: where the smaller number of exits does
    not turn out better, all are kept.

    Args:
        aim: `Aim`.
        outputs: `ExitOutputs` of the exits in use.
        in_use: `Variant` of these.
        make_variant: function that returns the `Variant` of fewer exits.
        pictures: NumPy array, what stages and runs are timed on.
        batch_size: int.
        clock: function that returns seconds.

    Returns:
        Tuple of `ChosenThresholds`, with a threshold per exit of the variant; and the `Variant`.
    """
    def time_stages(variants):
        prepared = [(variant.stages.engine, len(variant.exits)) for variant in variants]
        return time_side_by_side(prepared, pictures, batch_size, clock=clock)

    subsets = subsets_for_savings(in_use.exits)
    variants = [in_use, *map(make_variant, subsets)]
    times, *subset_times = time_stages(variants)
    savings = savings_ms(in_use.exits, times, subsets, subset_times)
    with_all = aim.choose(outputs, in_use.macs, times)
    draft = aim.choose(outputs, in_use.macs, times, savings, [with_all.thresholds])
    exits = _exits_that_pay(in_use.exits, draft)
    chosen, variant = with_all, in_use
    if exits != in_use.exits:
        variant = next((each for each in variants if each.exits == exits), None)
        variant = variant or make_variant(exits)
        times, fewer_times = time_stages([in_use, variant])
        with_all = aim.choose(outputs, in_use.macs, times, starts=[with_all.thresholds])
        rows = [in_use.exits.index(number) for number in exits]
        chosen = aim.choose(
            dataclasses.replace(outputs, probabilities=outputs.probabilities[rows]),
            variant.macs, fewer_times, starts=[[draft.thresholds[row] for row in rows]])
    batches = [pictures[start:start + batch_size] for start in range(0, len(pictures), batch_size)]
    timed_ms, all_timed_ms = time_runs([
        lambda: variant.make_schedule(chosen.thresholds),
        lambda: in_use.make_schedule(with_all.thresholds)], batches, clock=clock)
    if not aim.is_better(chosen, timed_ms, with_all, all_timed_ms):
        chosen, variant, timed_ms = with_all, in_use, all_timed_ms
    return dataclasses.replace(chosen, exits=variant.exits, timed_ms=timed_ms,
                               all_exits_timed_ms=all_timed_ms), variant


def _exits_that_pay(exits, chosen):
    """Return the exits that thresholds make use of.

    Pictures leave there; or it is the last, for whatever pictures come later. After an exit at
    which everybody leaves there is none.
    """
    end = chosen.thresholds.index(0.0) + 1
    return tuple(number for number, share in zip(exits[:end], chosen.exit_shares)
                 if share or number == exits[end - 1])


def time_runs(make_schedules, batches, repeats=5, clock=time.perf_counter):
    """Time whole runs of the same pictures in turns.

    Args:
        make_schedules: list of functions that return a new `Schedule`.
        batches: list of NumPy batches of pictures.
        repeats: int. Timed rounds, after one that is not; the median counts.
        clock: function that returns seconds.

    Returns:
        List of floats, milliseconds per picture, one per function.
    """
    num_pictures = sum(map(len, batches))
    rounds = [[_time_run(make(), batches, clock) for make in make_schedules]
              for _ in range(1 + repeats)][1:]
    return [1e3 * statistics.median(seconds) / num_pictures for seconds in zip(*rounds)]


def _time_run(schedule, batches, clock):
    start = clock()
    for batch in batches:
        for _ in schedule.admit(batch):
            pass
    for _ in schedule.finish():
        pass
    return clock() - start
