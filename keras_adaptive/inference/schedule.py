"""The way of pictures through the stages: who leaves, who waits, which batch runs next."""

import dataclasses

import numpy as np

from keras_adaptive.inference.carried import Carried

# Rows that the parts of a queue may keep in memory, in batches, before they are copied together.
_MOST_ALIVE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """The pictures of one batch that leave at one exit."""

    positions: np.ndarray  # in the stream of pictures, from 0
    stage: int  # counted from 1
    probabilities: np.ndarray


class Schedule:
    """Run stages on full batches and let pictures leave as soon as an exit is sure.

    Survivors of a stage wait in a queue until a whole batch is together, so that deep stages, which
    few pictures reach, do not run on scraps. A queue holds fewer than `batch_size` rows between
    calls of a stage, and one batch more while it is filled; their tensors are copied together
    before they keep more than a few batches alive. Memory does not grow with the number of
    pictures.

    Args:
        stages: `StageRunner`.
        thresholds: float32 array, one value per stage; the last is not used.
        batch_size: int. Most rows in a call of a stage.
        read: function `(stage, positions, probabilities) -> probabilities`. Checks what an exit
            gave, and makes confidences of it.
        num_pictures: int, or None where only the end tells. A batch that is alone need not wait.
        is_over: function without arguments, or None. Once it returns true, no stage but the first
            is begun any more, and pictures leave with the last answer that they have.
    """

    def __init__(self, stages, thresholds, batch_size, read, num_pictures=None, is_over=None):
        self._stages = stages
        self._thresholds = thresholds
        self._read = read
        self._batch_size = batch_size
        self._num_pictures = num_pictures
        self._is_over = is_over
        self._queues = {}  # by stage
        self._num_admitted = 0

    def admit(self, pictures):
        """Send a batch of at most `batch_size` pictures on their way.

        Args:
            pictures: NumPy array, the pictures in its rows.

        Yields:
            `Answers`, as pictures leave. They may belong to earlier batches.
        """
        begin = self._num_admitted
        self._num_admitted += len(pictures)
        yield from self._run(1, _Rows(
            np.arange(begin, self._num_admitted),
            self._stages.admit(pictures)))

    def finish(self):
        """Let no one wait any longer: run what the queues hold.

        Yields:
            `Answers`, until every picture has left.
        """
        for stage in range(2, self._stages.num_stages + 1):
            if stage in self._queues and self._queues[stage].num_rows:
                yield from self._run(stage, self._queues[stage].pop())

    def _run(self, stage, rows):
        """Run a batch, and then each deeper stage whose queue this fills."""
        is_alone = not self._queues and self._num_admitted == self._num_pictures
        while True:
            if stage > 1 and self._is_over is not None and self._is_over():
                yield Answers(rows.positions, stage - 1, rows.answers)
                return
            positions = rows.positions
            probabilities = self._read(
                stage, positions, self._stages.run(stage, rows.carried, self._batch_size))
            survivors = find_survivors(probabilities, stage, self._thresholds)
            if not len(survivors):
                del rows  # whoever takes the answers need not keep the tensors alive meanwhile
                yield Answers(positions, stage, probabilities)
                return
            rows.answers = None if self._is_over is None else probabilities
            if len(survivors) < len(positions):
                rows = rows.take(survivors)
                is_leaving = np.ones(len(positions), bool)
                is_leaving[survivors] = False
                yield Answers(positions[is_leaving], stage, probabilities[is_leaving])
            stage += 1
            if is_alone:
                continue
            if stage not in self._queues:
                self._queues[stage] = _Queue(self._stages.gather, self._batch_size)
            rows = self._queues[stage].push(rows)
            if rows is None:
                return


_NOBODY, _ONE = np.zeros(0, np.int64), np.zeros(1, np.int64)


def find_survivors(probabilities, stage, thresholds):
    """Return the rows, increasing, that do not leave at a stage; the last stage takes the rest.

    Args:
        probabilities: float32 array `(rows, classes)`, at least one row.
        stage: int, from 1.
        thresholds: float32 array, one value per stage.
    """
    if stage == len(thresholds):
        return _NOBODY
    if len(probabilities) == 1:
        return _NOBODY if probabilities.max() >= thresholds[stage - 1] else _ONE
    return (np.maximum.reduce(probabilities, axis=1) < thresholds[stage - 1]).nonzero()[0]


class _Rows:
    """Pictures on their way, with their tensors and, if they may be called off, an answer each."""

    __slots__ = ("positions", "carried", "answers")

    def __init__(self, positions, carried, answers=None):
        self.positions = positions
        self.carried = carried
        self.answers = answers

    def take(self, chosen):
        return _Rows(self.positions[chosen], self.carried.take(chosen),
                     None if self.answers is None else self.answers[chosen])

    @classmethod
    def join(cls, pieces):
        if len(pieces) == 1:
            return pieces[0]
        has_answers = pieces[0].answers is not None
        return cls(
            np.concatenate([rows.positions for rows in pieces]),
            Carried.join([rows.carried for rows in pieces]),
            np.concatenate([rows.answers for rows in pieces]) if has_answers else None)


class _Queue:
    """Rows that wait for a stage, in the pieces in which they came."""

    def __init__(self, gather, batch_size):
        self._gather = gather
        self._batch_size = batch_size
        self._pieces = []
        self._num_alive = 0
        self.num_rows = 0

    def push(self, rows):
        """Add at most `batch_size` rows; return a full batch if there is one now, else None."""
        num_rows, num_free = len(rows.positions), self._batch_size - self.num_rows
        if num_rows < num_free:
            self._append(rows)
            return None
        if num_rows == num_free:
            self._append(rows)
            return self.pop()
        everyone = np.arange(num_rows)
        self._append(rows.take(everyone[:num_free]))
        batch = self.pop()
        self._append(rows.take(everyone[num_free:]))
        return batch

    def pop(self):
        """Return all rows."""
        rows = _Rows.join(self._pieces)
        self._pieces, self.num_rows, self._num_alive = [], 0, 0
        return rows

    def _append(self, rows):
        self._pieces.append(rows)
        self.num_rows += len(rows.positions)
        self._num_alive += rows.carried.num_alive()
        is_full = self.num_rows == self._batch_size  # then a stage reads them now
        if not is_full and self._num_alive > _MOST_ALIVE * self._batch_size:
            joined = _Rows.join(self._pieces)
            joined.carried.compact(self._gather)
            self._pieces, self._num_alive = [joined], joined.carried.num_alive()
