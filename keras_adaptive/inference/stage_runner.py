"""Run the stages of a prepared engine on what pictures carry with them."""

import contextlib
import threading


class StageRunner:
    """The stages in use, as the schedule calls them.

    It gathers what a stage reads, and keeps nothing that no later stage reads. One may be shared by
    several threads: calls of an engine that has no true `is_thread_safe` take turns.

    Args:
        engine: a prepared engine, see `KerasEngine`.
        num_stages: int. Number of stages in use; the engine may have more.

    Attributes:
        num_stages: int.
        input_key: the key of the pictures, the one tensor that stage 1 reads.
    """

    def __init__(self, engine, num_stages):
        self.num_stages = num_stages
        self._engine = engine
        self._reads = {stage: tuple(engine.reads(stage)) for stage in range(1, num_stages + 1)}
        self._makes = {stage: tuple(engine.makes(stage)) for stage in range(1, num_stages + 1)}
        self._needed_after = {}
        needed = frozenset()
        for stage in range(num_stages, 0, -1):
            self._needed_after[stage] = needed
            needed |= frozenset(self._reads[stage])
        (self.input_key,) = self._reads[1]
        is_thread_safe = getattr(engine, "is_thread_safe", False)
        self._turn = contextlib.nullcontext() if is_thread_safe else threading.Lock()

    def run(self, stage, carried, batch_size):
        """Run one stage, and bring `carried` to what later stages read.

        Args:
            stage: int, from 1.
            carried: `Carried` with at least one row; for stage 1, of the key `input_key`.
            batch_size: int. The largest number of rows ever given.

        Returns:
            float32 array `(rows, classes)`, what the engine gave.
        """
        needed = self._needed_after[stage]
        tensors = carried.read(self._reads[stage], self.gather)
        carried.keep(needed)
        with self._turn:
            probabilities, made = self._engine.run(stage, tensors, batch_size)
        carried.add({
            key: tensor for key, tensor in zip(self._makes[stage], made) if key in needed})
        return probabilities

    def gather(self, parts):
        """Return the rows of all parts as one tensor; see `KerasEngine.gather`."""
        with self._turn:
            return self._engine.gather(parts)
