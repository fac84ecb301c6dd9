import numpy as np
import pytest

from keras_adaptive.inference.stage_times import (
    StageTimes,
    measure_stage_times,
    savings_ms,
    subsets_for_savings,
    time_side_by_side,
)


class FakeEngine:
    """Stages of known duration, in whole seconds per picture; each reads what the one before made.

    The last stage reads the pictures too. What went through it is kept.
    """

    def __init__(self, clock, seconds, gather_seconds=0.25):
        self.clock, self.seconds, self.gather_seconds = clock, seconds, gather_seconds
        self.runs, self.gathers = [], []
        self.slow_round = None

    def reads(self, index):
        keys = ("pictures",) if index == 1 else (f"map{index - 1}",)
        return (*keys, "pictures") if index == len(self.seconds) > 1 else keys

    def makes(self, index):
        return (f"map{index}",) if index < len(self.seconds) else ()

    def run(self, index, tensors, batch_size):
        self.runs.append((index, [len(tensor) for tensor in tensors], batch_size))
        is_slow = len(self.runs) // len(self.seconds) == self.slow_round
        self.clock.now += self.seconds[index - 1] * len(tensors[0]) * (100 if is_slow else 1)
        made = [tensors[0] + 1] if index < len(self.seconds) else []
        return np.full((len(tensors[0]), 2), 0.5, "float32"), made

    def gather(self, parts):
        self.gathers.append([tensor[rows] for tensor, rows in parts])
        self.clock.now += self.gather_seconds * sum(len(rows) for _, rows in parts)


class FakeClock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


PICTURES = np.arange(5, dtype="float32").reshape(5, 1)


def test_every_stage_gets_its_own_milliseconds_per_picture(clock):
    """By hand: stages of 2, 1 and 3 s, and a quarter second a picture for each tensor."""
    engine = FakeEngine(clock, [2, 1, 3])

    times = measure_stage_times(engine, 3, PICTURES, batch_size=4, clock=clock)

    assert times.per_picture_ms == (2000, 1000, 3000)
    assert times.gather_ms == (0, 250, 500)
    assert times.stage_costs_ms == (2000, 1250, 3500)
    assert times.cumulative_ms == (2000, 3250, 6750)
    assert times.batch_size == 4


def test_stages_are_timed_on_full_batches_of_the_pictures(clock):
    """Few pictures are repeated, and every round goes through all stages in order."""
    engine = FakeEngine(clock, [2, 1, 3])

    measure_stage_times(engine, 3, PICTURES, batch_size=8, repeats=2, clock=clock)

    assert engine.runs == [(1, [8], 8), (2, [8], 8), (3, [8, 8], 8)] * 4  # two rounds warm up
    np.testing.assert_array_equal(np.sort(np.concatenate(engine.gathers[0]), axis=0)[:, 0],
                                  np.sort(np.arange(8) % 5) + 1)


def test_one_picture_alone_is_not_gathered(clock):
    engine = FakeEngine(clock, [2, 1])

    times = measure_stage_times(engine, 2, PICTURES, batch_size=1, clock=clock)

    assert not engine.gathers
    assert times.gather_ms == (0, 0)
    assert times.cumulative_ms == (2000, 3000)


@pytest.mark.parametrize("slow_round", [0, 4])
def test_a_slow_round_changes_nothing(clock, slow_round):
    """Compiling at the start, or another program in between, is not the time of a stage."""
    engine = FakeEngine(clock, [2, 1])
    engine.slow_round = slow_round

    times = measure_stage_times(engine, 2, PICTURES, batch_size=2, repeats=3, clock=clock)

    assert times.per_picture_ms == (2000, 1000)


def test_engines_are_timed_in_turns(clock):
    """Round by round, so that a machine that slows down favours none of them."""
    order = []
    engines = [FakeEngine(clock, [2, 1]), FakeEngine(clock, [5])]
    for number, engine in enumerate(engines):
        run = engine.run
        engine.run = lambda *args, run=run, number=number: (order.append(number), run(*args))[1]

    times = time_side_by_side([(engines[0], 2), (engines[1], 1)], PICTURES, 2, 4, clock)

    assert order == [0, 0, 1] * 6
    assert [each.per_picture_ms for each in times] == [(2000, 1000), (5000,)]


def test_times_need_a_picture(clock):
    with pytest.raises(ValueError, match="at least one"):
        measure_stage_times(FakeEngine(clock, [1]), 1, PICTURES[:0], 4, clock=clock)


def test_times_are_told_readably():
    times = StageTimes(64, (0.123456, 1.5), (0.0, 0.01))

    assert repr(times) == (
        "StageTimes(batch_size=64, per_picture_ms=(0.1235, 1.5), gather_ms=(0, 0.01))")


@pytest.mark.parametrize("exits, expected", [
    ((1,), []),
    ((1, 2), [(2,)]),
    ((1, 2, 3), [(2, 3), (1, 3)]),
    ((1, 3, 4, 6), [(3, 6), (1, 4, 6)]),
    (tuple(range(1, 8)), [(2, 4, 6, 7), (1, 3, 5, 7)]),
])
def test_two_subsets_leave_out_every_exit_but_the_last(exits, expected):
    assert subsets_for_savings(exits) == expected


@pytest.mark.parametrize("num_exits", [1, 2, 3, 6, 9])
def test_heads_are_found_from_the_times_of_longer_stages(num_exits):
    """Trunks and heads of any cost: what a head takes is what leaving it out saves."""
    rng = np.random.default_rng(num_exits)
    trunks, heads = rng.uniform(0.1, 2, (2, num_exits))
    exits = tuple(range(1, num_exits + 1))

    def times_of(subset):
        ends = np.array((0, *subset))
        stages = [trunks[start:end].sum() + heads[end - 1] for start, end in zip(ends, ends[1:])]
        return StageTimes(8, tuple(stages), (0.0,) * len(subset))

    subsets = subsets_for_savings(exits)
    savings = savings_ms(exits, times_of(exits), subsets, [times_of(each) for each in subsets])

    assert savings[:-1] == pytest.approx(heads[:-1])
    assert savings[-1] == 0


def test_noise_makes_no_saving_negative_or_above_its_stage():
    times = StageTimes(8, (1.0, 2.0, 1.0), (0.0, 0.5, 0.0))
    measured = [StageTimes(8, (0.5, 1.0), (0.0, 0.0)), StageTimes(8, (1.0, 9.0), (0.0, 0.0))]

    assert savings_ms((1, 2, 3), times, [(2, 3), (1, 3)], measured) == (1.0, 0.0, 0.0)
