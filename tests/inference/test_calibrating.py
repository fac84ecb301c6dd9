import itertools
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.evaluation import NEVER, ExitOutputs
from keras_adaptive.inference.calibrating import Aim, Variant, choose_fastest, time_runs
from keras_adaptive.inference.stage_times import StageTimes

few_values = st.sampled_from([0.25, 0.5, 0.5000001, 0.75, 1.0])
outputs_with_ties = st.builds(
    lambda sure, labels: ExitOutputs(np.stack([sure, 1 - sure], axis=-1), labels),
    hnp.arrays("float32", (3, 7), elements=few_values),
    hnp.arrays("int64", 7, elements=st.integers(0, 1)))
seconds = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.05]), min_size=3, max_size=3)


class Machine:
    """A made-up network on a made-up clock: stages of trunks and heads, in seconds per picture.

    Multiply-adds are 1000 per exit and depend on nothing, as time is not to follow them. A call
    takes `overhead` more than its work in runs, but not where stages are timed.
    """

    def __init__(self, outputs, trunks, heads, run_overhead=lambda exits: 0.0):
        self.outputs, self.trunks, self.heads = outputs, np.array(trunks), heads
        self.run_overhead = run_overhead
        self.now = 0.0
        self.prepared = []

    def stage_seconds(self, exits):
        ends = (0, *exits)
        return [self.trunks[start:end].sum() + self.heads[end - 1]
                for start, end in itertools.pairwise(ends)]

    def variant(self, exits):
        self.prepared.append(exits)
        stages = self.stage_seconds(exits)

        def run(index, tensors, batch_size):
            self.now += stages[index - 1] * len(tensors[0])
            return None, tensors

        engine = types.SimpleNamespace(
            reads=lambda index: (index,), makes=lambda index: (index + 1,), run=run,
            gather=lambda parts: None)
        rows = [number - 1 for number in exits]
        outputs = ExitOutputs(self.outputs.probabilities[rows], self.outputs.labels)

        def make_schedule(thresholds):
            taken = outputs.simulate(thresholds).exits

            def admit(pictures):
                cumulative = np.cumsum(stages)
                self.now += cumulative[taken[pictures] - 1].sum() + self.run_overhead(exits)
                yield from ()

            return types.SimpleNamespace(admit=admit, finish=lambda: ())

        return Variant(exits, types.SimpleNamespace(engine=engine),
                       [1000.0 * (row + 1) for row in rows], make_schedule)

    def choose(self, **wanted):
        exits = tuple(range(1, len(self.heads) + 1))
        pictures = np.arange(len(self.outputs.labels))
        return choose_fastest(fastest(**wanted), self.outputs, self.variant(exits), self.variant,
                              pictures, batch_size=4, clock=lambda: self.now)


def fastest(accuracy=None, latency_ms=None):
    return Aim(None, accuracy, None, latency_ms, None, True)


# Exit 2 takes one of the three pictures that exit 1 does not, as right as exit 3 would.
PICTURES = ExitOutputs([[[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]],
                        [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]],
                        [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]], [0, 0, 1, 1])


def test_an_exit_that_does_not_pay_is_left_out():
    """By hand: its head takes 12 ms of three pictures, and saves one of them 15 ms."""
    machine = Machine(PICTURES, trunks=[0.008, 0.003, 0.014], heads=[0.002, 0.012, 0.001])

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == chosen.exits == (1, 3)
    assert chosen.exit_shares == (0.25, 0.75)
    assert chosen.thresholds == (0.75, 0.0)
    assert chosen.accuracy == 1.0
    assert chosen.mean_ms == pytest.approx((10 + 3 * 28) / 4)
    assert chosen.timed_ms == pytest.approx(chosen.mean_ms)
    assert chosen.all_exits_timed_ms == pytest.approx((10 + 25 + 40 + 40) / 4)
    assert chosen.mean_macs == (1000 + 3 * 3000) / 4
    assert machine.prepared == [(1, 2, 3), (2, 3), (1, 3)]  # none of them twice


def test_an_exit_that_pays_stays():
    """By hand: with a head of 4 ms it costs three pictures 12, and saves one 15."""
    machine = Machine(PICTURES, trunks=[0.008, 0.011, 0.014], heads=[0.002, 0.004, 0.001])

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == chosen.exits == (1, 2, 3)
    assert chosen.exit_shares == (0.25, 0.25, 0.5)
    assert chosen.mean_ms == pytest.approx((10 + 25 + 40 + 40) / 4)
    assert chosen.timed_ms == chosen.all_exits_timed_ms == pytest.approx(chosen.mean_ms)


def test_time_saved_by_leaving_out_exits_is_spent_on_accuracy():
    """Within 23.5 ms all exits let only exit 2's gain be had; without it everything is right."""
    machine = Machine(PICTURES, trunks=[0.008, 0.003, 0.014], heads=[0.002, 0.012, 0.001])

    chosen, variant = machine.choose(latency_ms=23.5)

    assert variant.exits == (1, 3)
    assert (chosen.accuracy, chosen.budget_met, chosen.budget) == (1.0, True, 23.5)
    assert chosen.mean_ms == pytest.approx(23.5)


def test_exits_that_run_slower_than_they_should_are_not_used():
    """A whole run decides: here the times of the stages promised what the run does not keep."""
    machine = Machine(PICTURES, trunks=[0.008, 0.003, 0.014], heads=[0.002, 0.012, 0.001],
                      run_overhead=lambda exits: 1.0 if exits == (1, 3) else 0.0)

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == chosen.exits == (1, 2, 3)
    assert chosen.timed_ms == chosen.all_exits_timed_ms


def test_exits_after_one_that_takes_all_are_left_out():
    """Where exit 2 is right on all and takes all, nothing deeper is prepared for a run."""
    sure = np.full((3, 6), 0.9)
    outputs = ExitOutputs(np.stack([sure, 1 - sure], axis=-1), [0] * 6)
    machine = Machine(outputs, trunks=[0.001, 0.001, 0.001], heads=[0.009, 0.001, 0.001])

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == (2,)
    assert chosen.thresholds == (0.0,)
    assert chosen.mean_ms == pytest.approx(3)


def test_one_exit_has_nothing_to_leave_out():
    outputs = ExitOutputs(PICTURES.probabilities[2:], PICTURES.labels)
    machine = Machine(outputs, trunks=[0.002], heads=[0.001])

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == (1,)
    assert (chosen.thresholds, chosen.mean_ms) == ((0.0,), pytest.approx(3))
    assert machine.prepared == [(1,)]


def test_saturated_confidences_can_be_left_out():
    """Exits that are always sure of the wrong class are of no use, at any threshold up to 1."""
    probabilities = np.zeros((3, 6, 2), "float32")
    probabilities[:2, :, 1] = probabilities[2, :, 0] = 1.0
    machine = Machine(ExitOutputs(probabilities, [0] * 6), [0.01] * 3, [0.005] * 3)

    chosen, variant = machine.choose(accuracy=1.0)

    assert variant.exits == (3,)
    assert chosen.mean_ms == pytest.approx(35)


@settings(max_examples=60, deadline=None)
@given(outputs=outputs_with_ties, trunks=seconds, heads=seconds)
def test_it_is_never_slower_than_all_exits_at_the_same_accuracy(outputs, trunks, heads):
    """Whatever trunks and heads take; and the milliseconds are those of the stages in use."""
    trunks = [trunk + 0.001 for trunk in trunks]
    machine = Machine(outputs, trunks, heads)
    accuracy = outputs.accuracies()[-1]

    chosen, variant = machine.choose(accuracy=accuracy)

    cumulative_ms = 1e3 * np.cumsum(machine.stage_seconds(variant.exits))
    assert chosen.accuracy >= accuracy - 1e-9
    assert chosen.mean_ms == pytest.approx(np.dot(chosen.exit_shares, cumulative_ms))
    assert chosen.timed_ms <= chosen.all_exits_timed_ms * (1 + 1e-9)
    with_all_ms = 1e3 * np.cumsum(machine.stage_seconds((1, 2, 3)))
    times = StageTimes(4, tuple(np.diff(with_all_ms, prepend=0)), (0.0,) * 3)
    with_all = fastest(accuracy=accuracy).choose(outputs, [1, 2, 3], times)
    assert chosen.mean_ms <= with_all.mean_ms * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(outputs=outputs_with_ties, trunks=seconds, heads=seconds, latency_ms=st.floats(0.1, 200))
def test_milliseconds_are_kept_to_or_said_to_be_missed(outputs, trunks, heads, latency_ms):
    """And all exits within the same milliseconds are never more accurate."""
    machine = Machine(outputs, [trunk + 0.001 for trunk in trunks], heads)

    chosen, variant = machine.choose(latency_ms=latency_ms)

    cumulative_ms = 1e3 * np.cumsum(machine.stage_seconds(variant.exits))
    mean_ms = np.dot(chosen.exit_shares, cumulative_ms)
    assert chosen.mean_ms == pytest.approx(mean_ms)
    assert chosen.budget_met == (chosen.mean_ms <= latency_ms * (1 + 1e-9))
    stages_ms = tuple(1e3 * np.array(machine.stage_seconds((1, 2, 3))))
    with_all = fastest(latency_ms=latency_ms).choose(
        outputs, [1, 2, 3], StageTimes(4, stages_ms, (0.0,) * 3))
    assert (chosen.budget_met, chosen.accuracy) >= (with_all.budget_met, with_all.accuracy)


def test_milliseconds_choose_by_time_and_tell_multiply_adds_too():
    """By hand: exit 2 is cheap to count and dear to run, so that nobody is sent there."""
    times = StageTimes(8, (1.0, 98.0), (0.0, 1.0))
    outputs = ExitOutputs(PICTURES.probabilities[[0, 2]], PICTURES.labels)

    chosen = Aim(None, None, None, 50, None, False).choose(outputs, [10, 11], times)

    assert chosen.exit_shares == (1, 0)
    assert (chosen.mean_ms, chosen.mean_macs) == (1, 10)
    assert (chosen.budget, chosen.budget_met) == (50, True)
    within = Aim(None, None, None, 80, None, False).choose(outputs, [10, 11], times)
    assert within.mean_ms == (1 + 3 * 100) / 4
    assert within.mean_macs == (10 + 3 * 11) / 4
    assert within.thresholds[0] not in (0, NEVER)


@pytest.mark.parametrize("wanted, message", [
    ({"macs": -1}, "`macs` is a number of multiply-adds above 0. Received: -1"),
    ({"macs": "20e6"}, "`macs` is a number .* Received: '20e6'"),
    ({"macs": float("nan")}, "above 0. Received: nan"),
    ({"latency_ms": 0}, "`latency_ms` is a number of milliseconds above 0. Received: 0"),
    ({"latency_ms": "5"}, "milliseconds above 0. Received: '5'"),
    ({"accuracy": 95}, r"`accuracy` is a share from 0 to 1. Received: 95. Did you mean 0.95\?"),
    ({"accuracy": -3}, "share from 0 to 1. Received: -3"),
    ({"accuracy": float("nan")}, "share from 0 to 1. Received: nan"),
    ({"accuracy": True}, "share from 0 to 1. Received: True"),
    ({"max_loss": 1.5}, r"`max_loss` is a share between 0 and 1.*1.5. Did you mean 0.015\?"),
    ({"max_loss": 0.01, "confidence": 95}, r"`confidence` is .* Did you mean 0.95\?"),
    ({"macs": 1e9, "confidence": 95}, "`confidence` is a share"),
    ({"macs": 1e9, "confidence": 0.9}, "`confidence` is that of the promise which `max_loss`"),
])
def test_aims_out_of_their_range_are_refused_before_a_picture_is_read(
        network, wanted, message):
    """Running a network on thousands of pictures to say then that percent are no shares is rude."""
    def pictures():
        pytest.fail("pictures were read")
        yield

    with pytest.raises(ValueError, match=message):
        EarlyExitPredictor(network, engine="keras").calibrate(pictures(), [0] * 9, **wanted)


@pytest.mark.parametrize("labels, message", [
    (np.zeros(40, int), "per picture: 41. Received: shape .40,."),
    (np.zeros(41), "dtype float64"),
    (np.eye(41, dtype=int), "One-hot labels become numbers"),
    (np.full(41, 5), "`y` takes labels from 0 to 4"),
    (np.full(41, -1), "Received labels from -1 to -1"),
])
def test_labels_that_do_not_fit_are_refused_before_a_stage_runs(
        network, images, executions, labels, message):
    with pytest.raises(ValueError, match=message):
        EarlyExitPredictor(network, engine="keras").calibrate(images, labels, macs=1e6)
    assert not executions


def test_labels_may_stand_in_a_column(network, images):
    """As `keras.datasets` gives them; the same thresholds are chosen."""
    labels = np.arange(len(images)) % 5
    predictor = EarlyExitPredictor(network, engine="keras")
    budget = 0.7 * predictor.predict(images[:1]).full_macs

    chosen = [predictor.calibrate(images, y, macs=budget) for y in (labels, labels[:, None])]

    assert chosen[0] == chosen[1]


def batches_of_pairs(images, labels):
    return ((images[i:i + 6], labels[i:i + 6]) for i in range(0, len(images), 6))


def single_pairs(images, labels):
    return zip(images, labels)


def dataset(images, labels):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(
        (images, labels)).batch(6)


def one_buffer(images, labels):
    """Each pair is gone when the next one comes."""
    buffer, row = images[:1].copy(), labels[:1].copy()
    for image, label in zip(images, labels):
        buffer[0], row[0] = image, label
        yield buffer, row


@pytest.mark.parametrize("make", [batches_of_pairs, single_pairs, dataset, one_buffer])
def test_a_data_set_brings_its_labels(network, images, make):
    """The same thresholds are chosen as with the labels beside the pictures."""
    labels = np.arange(len(images)) % 5
    predictor = EarlyExitPredictor(network, engine="keras")
    budget = 0.7 * predictor.predict(images[:1]).full_macs
    expected = predictor.calibrate(images, labels, macs=budget)

    assert predictor.calibrate(make(images, labels), macs=budget) == expected


@pytest.mark.parametrize("make, message", [
    (lambda images: images, "one per picture; or the pictures are a data set.*ndarray without"),
    (lambda images: list(images), "list without labels"),
    (lambda images: iter(images), "Element 0 of the data set has no labels"),
    (lambda images: iter([(images[:6], np.eye(5, dtype=int)[:5])]), "Element 0 .*One-hot labels"),
    (lambda images: iter([(images[:6], np.full(6, 5))]), "labels from 0 to 4"),
    (lambda images: iter([(images[:6], np.zeros(5, int)), (images[6:], np.zeros(36, int))]),
     "Element 0 .*per picture: 6"),
    (lambda images: iter([(images[0], np.eye(5, dtype=int)[0])]), "One-hot labels become numbers"),
])
def test_pictures_without_labels_of_their_own_are_refused(network, images, make, message):
    with pytest.raises(ValueError, match=message):
        EarlyExitPredictor(network, engine="keras").calibrate(make(images), macs=1e6)


def test_a_stream_that_is_longer_than_its_labels_is_refused(network, images):
    """Its length shows at its end only."""
    with pytest.raises(ValueError, match="per picture: 41"):
        EarlyExitPredictor(network, engine="keras").calibrate(
            (image for image in images), np.zeros(40, int), macs=1e6)


def test_runs_are_timed_in_turns():
    """Median of the rounds after the first, per picture."""
    now, order = 0.0, []
    seconds_of = {"slow": [100, 2, 50, 4], "quick": [100, 1, 1, 1]}

    def make(name):
        def admit(batch):
            nonlocal now
            now += seconds_of[name][order.count(name)] * len(batch) / 4
            yield from ()

        def finish():
            order.append(name)
            return ()

        return types.SimpleNamespace(admit=admit, finish=finish)

    batches = [np.zeros((3, 1)), np.zeros((1, 1))]
    times = time_runs([lambda: make("slow"), lambda: make("quick")], batches, 3, lambda: now)

    assert order == ["slow", "quick"] * 4
    assert times == [1000, 250]
