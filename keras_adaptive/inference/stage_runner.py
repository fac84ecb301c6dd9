"""Run the stages of a prepared engine on what pictures carry with them."""

import contextlib
import threading

from keras_adaptive.inference.carried import Carried


class StageRunner:
    """The stages in use, as the schedule calls them.

    It gathers what a stage reads, and keeps nothing that no later stage reads. One may be shared by
    several threads: calls of an engine that has no true `is_thread_safe` take turns.

    Args:
        engine: a prepared engine, see `KerasEngine`.
        num_stages: int. Number of stages in use; the engine may have more.
        weights_mark: what `KerasNetwork.weights_mark` gave before an engine that copies weights was
            prepared, or None for engines that need not be prepared again.

    Attributes:
        num_stages: int.
        engine: the engine, to be timed.
        weights_mark: as given.
    """

    def __init__(self, engine, num_stages, weights_mark=None):
        self.num_stages = num_stages
        self.engine = engine
        self.weights_mark = weights_mark
        self._reads = {stage: tuple(engine.reads(stage)) for stage in range(1, num_stages + 1)}
        self._drops, self._kept = {}, {}  # by stage: keys; positions and keys of what is made
        needed = frozenset()
        for stage in range(num_stages, 0, -1):
            self._drops[stage] = tuple(key for key in self._reads[stage] if key not in needed)
            self._kept[stage] = tuple(
                (position, key) for position, key in enumerate(engine.makes(stage))
                if key in needed)
            needed |= frozenset(self._reads[stage])
        (self._input_key,) = self._reads[1]
        is_thread_safe = getattr(engine, "is_thread_safe", False)
        self._turn = contextlib.nullcontext() if is_thread_safe else threading.Lock()

    def admit(self, pictures):
        """Return `Carried` of a NumPy batch of pictures, for stage 1."""
        return Carried.of({self._input_key: pictures}, len(pictures))

    def row_counts(self, batch_size):
        """Return the numbers of rows that the engine may compile for, increasing."""
        if hasattr(self.engine, "row_counts"):
            return self.engine.row_counts(batch_size)
        return sorted({1, batch_size})

    def run(self, stage, carried, batch_size):
        """Run one stage, and bring `carried` to what later stages read.

        Args:
            stage: int, from 1.
            carried: `Carried` with at least one row; for stage 1, from `admit`.
            batch_size: int. The largest number of rows ever given.

        Returns:
            float32 array `(rows, classes)`, what the engine gave.
        """
        tensors = carried.read(self._reads[stage], self.gather)
        carried.drop(self._drops[stage])
        with self._turn:
            probabilities, made = self.engine.run(stage, tensors, batch_size)
        kept = self._kept[stage]
        if kept:
            carried.add({key: made[position] for position, key in kept})
        return probabilities

    def gather(self, parts):
        """Return the rows of all parts as one tensor; see `KerasEngine.gather`."""
        with self._turn:
            return self.engine.gather(parts)
