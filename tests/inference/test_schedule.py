import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive.inference.schedule import Schedule
from keras_adaptive.inference.stage_runner import StageRunner

PROPERTY = settings(deadline=None, max_examples=150, database=None, derandomize=True)


class Rows:
    """A carried tensor that counts how many rows are alive in all of them."""

    alive = 0

    def __init__(self, values):
        self.values = np.asarray(values)
        Rows.alive += len(self.values)

    def __del__(self):
        Rows.alive -= len(self.values)

    def __len__(self):
        return len(self.values)


class ScriptedEngine:
    """Stages that leave picture `i` at stage `leave_at[i]`; keeps what was asked of it.

    A tensor holds the number of each picture, plus 1000 times its key. A stage checks that all that
    it reads is of the same pictures.
    """

    def __init__(self, leave_at, reads, makes):
        self.leave_at = np.asarray(leave_at)
        self._reads, self._makes = reads, makes
        self.calls, self.gathered = [], set()
        self.most_alive = 0

    def reads(self, index):
        return self._reads[index - 1]

    def makes(self, index):
        return self._makes[index - 1]

    def run(self, index, tensors, batch_size):
        numbers = [_values(tensor) % 1000 for tensor in tensors]
        for key, tensor, own in zip(self.reads(index), tensors, numbers):
            np.testing.assert_array_equal(own, numbers[0])
            np.testing.assert_array_equal(_values(tensor) // 1000, key)
        pictures = numbers[0]
        assert 1 <= len(pictures) <= batch_size
        self.calls.append((index, len(pictures)))
        sure = self.leave_at[pictures] <= index
        probabilities = np.stack([sure, ~sure], axis=1).astype("float32")
        probabilities[~sure] = 0.5
        made = [Rows(pictures + 1000 * key) for key in self.makes(index)]
        self.most_alive = max(self.most_alive, Rows.alive)
        return probabilities, made

    def gather(self, parts):
        pieces = [_values(tensor)[slice(None) if rows is None else rows] for tensor, rows in parts]
        assert all(len(piece) for piece in pieces)
        gathered = Rows(np.concatenate(pieces))
        self.gathered |= set((gathered.values // 1000).tolist())
        self.most_alive = max(self.most_alive, Rows.alive)
        return gathered


def _values(tensor):
    return tensor.values if isinstance(tensor, Rows) else tensor


def chain(num_stages):
    """Return reads and makes of stages that each read what the one before made."""
    keys = range(num_stages + 1)
    return [(key,) for key in keys[:-1]], [(key,) for key in keys[1:]]


def run_schedule(leave_at, reads, makes, batch_size, sizes=None, num_pictures=None,
                 is_over=None):
    """Send pictures in batches of the given sizes, and return exits, the engine and answers."""
    num_stages = len(reads)
    engine = ScriptedEngine(leave_at, reads, makes)
    schedule = Schedule(
        StageRunner(engine, num_stages), np.full(num_stages, 0.9, "float32"), batch_size,
        lambda stage, positions, probabilities: probabilities, num_pictures, is_over)
    taken = np.zeros(len(leave_at), int)
    begin = 0
    for size in sizes or [batch_size] * -(-len(leave_at) // batch_size):
        pictures = np.arange(begin, min(begin + size, len(leave_at)))
        if not len(pictures):
            break
        begin += len(pictures)
        for answers in schedule.admit(pictures):
            assert len(answers.positions) == len(answers.probabilities)
            taken[answers.positions] += answers.stage
    for answers in schedule.finish():
        taken[answers.positions] += answers.stage
    return taken, engine


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize("num_stages", [1, 2, 5])
def test_every_picture_leaves_once_where_it_is_sure(num_stages, batch_size):
    """Queues neither lose, double nor swap pictures; the last stage takes the rest."""
    leave_at = np.random.default_rng(0).integers(1, 8, 150)

    taken, _ = run_schedule(leave_at, *chain(num_stages), batch_size)

    assert taken.tolist() == np.minimum(leave_at, num_stages).tolist()


def test_deep_stages_run_on_full_batches():
    """Survivors are collected: at most one call of each stage has fewer rows than a batch."""
    leave_at = np.random.default_rng(1).choice([1, 2, 3, 4], 500, p=[0.6, 0.2, 0.1, 0.1])

    _, engine = run_schedule(leave_at, *chain(4), batch_size=16)

    for stage in (1, 2, 3, 4):
        rows = [num for index, num in engine.calls if index == stage]
        assert sum(rows) == np.sum(leave_at >= stage)
        assert sum(num < 16 for num in rows) <= 1
        assert max(rows) <= 16


def test_memory_does_not_grow_with_the_number_of_pictures():
    """A queue keeps a few batches alive at most, so rows are bounded by stages and batch."""
    reads, makes = chain(5)
    reads[4] = (0, 1, 4)  # the last stage reads the pictures and the first features again
    most_alive = {}
    for num_pictures in (200, 1000):
        for share in (0.05, 0.3, 0.6):
            leave_at = np.random.default_rng(2).choice(
                [1, 5], num_pictures, p=[1 - share, share])
            _, engine = run_schedule(leave_at, reads, makes, batch_size=8)
            most_alive[num_pictures, share] = engine.most_alive

    # Per key and queue two batches, and around the one being filled: a batch and its copy.
    assert max(most_alive.values()) <= 2 * (4 * 2 + 3) * 8
    assert Rows.alive == 0


@st.composite
def patterns(draw):
    """Reads and makes of stages: each reads the features before it, or anything made earlier."""
    num_stages = draw(st.integers(1, 5))
    reads, makes, known = [(0,)], [], [0]
    for stage in range(1, num_stages + 1):
        makes.append(tuple(range(max(known) + 1, max(known) + 1 + draw(st.integers(0, 3)))))
        known += makes[-1]
        if stage < num_stages:
            chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4, unique=True))
            reads.append(tuple(chosen))
    return reads, makes


@PROPERTY
@given(data=st.data())
def test_any_stages_get_the_rows_of_their_pictures(data):
    """For any reads and makes, exits, batch size and sizes of batches, stages see the rows of the
    right pictures, everybody leaves where they should, and nothing is copied that nobody reads."""
    reads, makes = data.draw(patterns())
    num_pictures = data.draw(st.integers(1, 60))
    leave_at = np.array(data.draw(st.lists(
        st.integers(1, 6), min_size=num_pictures, max_size=num_pictures)))
    batch_size = data.draw(st.sampled_from([1, 2, 3, 8, 64]))
    sizes = data.draw(st.lists(st.integers(1, batch_size), min_size=num_pictures,
                               max_size=num_pictures))

    is_known = data.draw(st.booleans())
    taken, engine = run_schedule(leave_at, reads, makes, batch_size, sizes,
                                 num_pictures if is_known else None)

    np.testing.assert_array_equal(taken, np.minimum(leave_at, len(reads)))
    for stage in range(1, len(reads) + 1):
        rows = [num for index, num in engine.calls if index == stage]
        assert sum(rows) == np.sum(leave_at >= stage)
    read_late = {key for keys in reads[1:] for key in keys}
    assert engine.gathered <= read_late
    # Two batches per key and queue, those on their way, and what a stage has just made.
    most_batches = len(read_late) * (2 * len(reads) + 3) + 3
    assert engine.most_alive <= most_batches * batch_size
    assert Rows.alive == 0


def test_a_tensor_is_copied_only_for_the_stage_that_reads_it():
    """What two stages pass on is gathered once, when the third reads it."""
    reads, makes = [(0,), (1,), (3,), (2, 4)], [(1, 2), (3,), (4,), ()]
    leave_at = np.repeat([1, 2, 3, 4], 4)

    _, engine = run_schedule(leave_at, reads, makes, batch_size=16)
    assert engine.gathered == {1, 2, 3, 4}

    _, engine = run_schedule(np.minimum(leave_at, 3), reads, makes, batch_size=16)
    assert engine.gathered == {1, 3}


def test_nothing_is_copied_while_nobody_leaves():
    """Full batches that stay together pass as they are."""
    reads, makes = chain(4)

    _, engine = run_schedule(np.full(32, 4), reads, makes, batch_size=8)

    assert not engine.gathered


@pytest.mark.parametrize("num_checks, expected", [
    (0, [1, 1, 1, 1, 1, 1]),  # over before anything began: stage 1 runs all the same
    (1, [1, 2, 2, 2, 1, 1]),  # stage 2 is begun once, on the three that wait for it first
    (2, [1, 2, 2, 2, 2, 2]),
    (9, [1, 2, 4, 2, 3, 4]),
])
def test_no_stage_begins_when_time_is_over(num_checks, expected):
    """Pictures that are still on their way leave with the deepest answer that they have."""
    leave_at = np.array([1, 2, 4, 2, 3, 4])
    checks = iter([False] * num_checks)

    taken, engine = run_schedule(leave_at, *chain(4), batch_size=3, sizes=[3, 3],
                                 is_over=lambda: next(checks, True))

    assert sum(num for index, num in engine.calls if index == 1) == 6
    assert taken.tolist() == expected


def test_stages_that_nobody_reaches_do_not_run():
    """When all pictures have left, nothing deeper is called."""
    _, engine = run_schedule(np.ones(20, int), *chain(4), batch_size=8)

    assert {index for index, _ in engine.calls} == {1}
