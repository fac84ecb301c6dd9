import weakref

import numpy as np
import pytest

from keras_adaptive.inference.schedule import Schedule


class Rows:
    """A carried tensor that counts how many rows are alive in all of them."""

    alive = weakref.WeakSet()

    def __init__(self, values):
        self.values = np.asarray(values)
        Rows.alive.add(self)

    @classmethod
    def num_alive(cls):
        return sum(len(rows.values) for rows in cls.alive)


class ScriptedEngine:
    """Stages that leave picture `i` at stage `leave_at[i]`; keeps what was asked of it."""

    def __init__(self, leave_at):
        self.leave_at = np.asarray(leave_at)
        self.calls = []
        self.most_alive = 0

    def run(self, index, carried, batch_size):
        pictures = carried[0] if index == 1 else carried[0].values
        self.calls.append((index, len(pictures)))
        sure = self.leave_at[pictures] <= index
        probabilities = np.stack([sure, ~sure], axis=1).astype("float32")
        probabilities[~sure] = 0.5
        outputs = [Rows(pictures)]
        self.most_alive = max(self.most_alive, Rows.num_alive())
        return probabilities, outputs

    def take(self, carried, rows):
        taken = [Rows(tensor.values[rows]) for tensor in carried]
        self.most_alive = max(self.most_alive, Rows.num_alive())
        return taken

    def join(self, pieces):
        joined = [Rows(np.concatenate([rows.values for rows in tensors]))
                  for tensors in zip(*pieces)]
        self.most_alive = max(self.most_alive, Rows.num_alive())
        return joined


def run_schedule(leave_at, num_stages, batch_size):
    engine = ScriptedEngine(leave_at)
    schedule = Schedule(engine, np.full(num_stages, 0.9, "float32"), batch_size,
                        lambda stage, positions, probabilities: probabilities)
    taken = np.zeros(len(leave_at), int)
    for start in range(0, len(leave_at), batch_size):
        pictures = np.arange(start, min(start + batch_size, len(leave_at)))
        for answers in schedule.admit(pictures):
            taken[answers.positions] += answers.stage
    for answers in schedule.finish():
        taken[answers.positions] += answers.stage
    return taken, engine


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize("num_stages", [1, 2, 5])
def test_every_picture_leaves_once_where_it_is_sure(num_stages, batch_size):
    """Queues neither lose, double nor swap pictures; the last stage takes the rest."""
    leave_at = np.random.default_rng(0).integers(1, 8, 150)

    taken, _ = run_schedule(leave_at, num_stages, batch_size)

    assert taken.tolist() == np.minimum(leave_at, num_stages).tolist()


def test_deep_stages_run_on_full_batches():
    """Survivors are collected: at most one call of each stage has fewer rows than a batch."""
    leave_at = np.random.default_rng(1).choice([1, 2, 3, 4], 500, p=[0.6, 0.2, 0.1, 0.1])

    _, engine = run_schedule(leave_at, num_stages=4, batch_size=16)

    for stage in (1, 2, 3, 4):
        rows = [num for index, num in engine.calls if index == stage]
        assert sum(rows) == np.sum(leave_at >= stage)
        assert sum(num < 16 for num in rows) <= 1
        assert max(rows) <= 16


def test_memory_does_not_grow_with_the_number_of_pictures():
    """A queue never holds more than a batch, so the rows alive are bounded by stages and batch."""
    most_alive = {}
    for num_pictures in (200, 2000):
        leave_at = np.random.default_rng(2).integers(1, 6, num_pictures)
        _, engine = run_schedule(leave_at, num_stages=5, batch_size=8)
        most_alive[num_pictures] = engine.most_alive

    # Four queues, and around the one being filled: a batch with its selection and its copy.
    assert max(most_alive.values()) <= (4 + 3) * 8
    assert Rows.num_alive() == 0


def test_stages_that_nobody_reaches_do_not_run():
    """When all pictures have left, nothing deeper is called."""
    _, engine = run_schedule(np.ones(20, int), num_stages=4, batch_size=8)

    assert {index for index, _ in engine.calls} == {1}
