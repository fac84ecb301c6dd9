"""The way of pictures through the stages: who leaves, who waits, which batch runs next."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answers:
    """The pictures of one batch that leave at one exit."""

    positions: np.ndarray  # in the stream of pictures, from 0
    stage: int  # counted from 1
    probabilities: np.ndarray


class Schedule:
    """Run stages on full batches and let pictures leave as soon as an exit is sure.

    Survivors of a stage wait in a queue until a whole batch is together, so that deep stages, which
    few pictures reach, do not run on scraps. A queue holds fewer than `batch_size` rows between
    calls of a stage, and one batch more while it is filled: memory does not grow with the number of
    pictures.

    Args:
        engine: see `keras_adaptive.inference.engines`.
        thresholds: float32 array, one value per stage; the last is not used.
        batch_size: int. Most rows in a call of a stage.
        read: function `(stage, positions, probabilities) -> probabilities`. Checks what an exit
            gave, and makes confidences of it.
    """

    def __init__(self, engine, thresholds, batch_size, read):
        self._engine = engine
        self._thresholds = thresholds
        self._read = read
        self._batch_size = batch_size
        self._num_stages = len(thresholds)
        self._queues = {stage: _Queue(engine, batch_size)
                        for stage in range(2, self._num_stages + 1)}
        self._num_admitted = 0

    def admit(self, pictures):
        """Send a batch of at most `batch_size` pictures on their way.

        Args:
            pictures: NumPy array, the pictures in its rows.

        Yields:
            `Answers`, as pictures leave. They may belong to earlier batches.
        """
        positions = self._num_admitted + np.arange(len(pictures))
        self._num_admitted += len(pictures)
        yield from self._run(1, positions, [pictures])

    def finish(self):
        """Let no one wait any longer: run what the queues hold.

        Yields:
            `Answers`, until every picture has left.
        """
        for stage, queue in self._queues.items():
            if queue.num_rows:
                yield from self._run(stage, *queue.pop())

    def _run(self, stage, positions, carried):
        """Run a batch, and then each deeper stage whose queue this fills."""
        while True:
            probabilities, carried = self._engine.run(stage, carried, self._batch_size)
            probabilities = self._read(stage, positions, probabilities)
            is_leaving = self._leaving(stage, probabilities)
            if is_leaving.any():
                yield Answers(positions[is_leaving], stage, probabilities[is_leaving])
            survivors = np.flatnonzero(~is_leaving)
            if not len(survivors):
                return
            if len(survivors) < len(positions):
                carried = self._engine.take(carried, survivors)
            stage += 1
            full_batch = self._queues[stage].push(positions[survivors], carried)
            if full_batch is None:
                return
            positions, carried = full_batch
            del full_batch  # or its tensors would live on while the next stage runs

    def _leaving(self, stage, probabilities):
        if stage == self._num_stages:
            return np.ones(len(probabilities), bool)
        return probabilities.max(axis=1) >= self._thresholds[stage - 1]


class _Queue:
    """Rows that wait for a stage, in the pieces in which they came."""

    def __init__(self, engine, batch_size):
        self._engine = engine
        self._batch_size = batch_size
        self._pieces = []
        self.num_rows = 0

    def push(self, positions, carried):
        """Add at most `batch_size` rows; return a full batch if there is one now, else None."""
        num_free = self._batch_size - self.num_rows
        if len(positions) < num_free:
            self._append(positions, carried)
            return None
        if len(positions) == num_free:
            self._append(positions, carried)
            return self.pop()
        rows = np.arange(len(positions))
        self._append(positions[:num_free], self._engine.take(carried, rows[:num_free]))
        batch = self.pop()
        self._append(positions[num_free:], self._engine.take(carried, rows[num_free:]))
        return batch

    def pop(self):
        """Return all rows, as positions and carried tensors."""
        positions, carried = zip(*self._pieces)
        self._pieces, self.num_rows = [], 0
        if len(carried) == 1:
            return positions[0], carried[0]
        return np.concatenate(positions), self._engine.join(carried)

    def _append(self, positions, carried):
        self._pieces.append((positions, carried))
        self.num_rows += len(positions)
