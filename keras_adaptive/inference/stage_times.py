"""How long each stage takes on this machine, and what leaving an exit out saves."""

import dataclasses
import time

import numpy as np

_WARMUPS = 2  # rounds that compile and fill caches


@dataclasses.dataclass(frozen=True)
class StageTimes:
    """Milliseconds of the stages in use, for one picture of a full batch.

    Attributes:
        batch_size: int, the pictures in a batch.
        per_picture_ms: tuple of floats, one per stage. A stage run alone.
        gather_ms: tuple of floats, one per stage. Putting the survivors of the stages before
            together for it: 0 for the first stage, and for batches of one picture.
    """

    batch_size: int
    per_picture_ms: tuple
    gather_ms: tuple

    @property
    def stage_costs_ms(self):
        """tuple of floats. What a picture that goes on to a stage costs there."""
        return tuple(map(sum, zip(self.per_picture_ms, self.gather_ms)))

    @property
    def cumulative_ms(self):
        """tuple of floats. What a picture costs that leaves at each exit in use."""
        return tuple(np.cumsum(self.stage_costs_ms).tolist())

    def __repr__(self):
        stages = ", ".join(f"{ms:.4g}" for ms in self.per_picture_ms)
        gathers = ", ".join(f"{ms:.4g}" for ms in self.gather_ms)
        return (f"StageTimes(batch_size={self.batch_size}, per_picture_ms=({stages}), "
                f"gather_ms=({gathers}))")


def measure_stage_times(engine, num_stages, pictures, batch_size, repeats=10,
                        clock=time.perf_counter):
    """Time each stage on a full batch.

    Every round runs all stages in order on the same pictures, each on what the stages before made
    of them, so that a busy moment of the machine falls on all stages alike. Rounds that compile go
    before. A gather takes a batch from two halves, as survivors of several batches are put together
    in a run; where a device works on while Python goes on, its time falls on the stage.

    Args:
        engine: an engine that is prepared; see `keras_adaptive.inference.engines`.
        num_stages: int. The stages that it is prepared for.
        pictures: NumPy array of pictures, as the first stage takes them. The first `batch_size`
            count; fewer are repeated.
        batch_size: int.
        repeats: int. Timed rounds, of whose times the median counts.
        clock: function that returns seconds.

    Returns:
        `StageTimes`.

    Raises:
        ValueError: If there is no picture.
    """
    return time_side_by_side([(engine, num_stages)], pictures, batch_size, repeats, clock)[0]


def time_side_by_side(prepared, pictures, batch_size, repeats=10, clock=time.perf_counter):
    """Time the stages of several engines in turns, so that their times can be compared.

    Args:
        prepared: list of pairs, an engine that is prepared and the number of its stages.
        pictures, batch_size, repeats, clock: as for `measure_stage_times`.

    Returns:
        List of `StageTimes`, one per engine.
    """
    if not len(pictures):
        raise ValueError("Stages are timed on pictures, at least one. Received none.")
    batch = pictures[np.arange(batch_size) % len(pictures)]
    rounds = [[_time_stages(engine, num_stages, batch, clock) for engine, num_stages in prepared]
              for _ in range(_WARMUPS + repeats)][_WARMUPS:]
    results = []
    for times in zip(*rounds):
        run_ms, gather_ms = 1e3 * np.median(times, axis=0) / batch_size
        results.append(StageTimes(batch_size, tuple(run_ms.tolist()), tuple(gather_ms.tolist())))
    return results


def subsets_for_savings(exits):
    """Return the subsets of exits whose times tell what leaving out each exit saves.

    Every other exit is left out, then the others, but never the last one: in each stage of these
    subsets at most one head is missing, and two preparations do for any number of exits.

    Args:
        exits: tuple of ints, the exits in use.

    Returns:
        List of at most two tuples of exits.
    """
    subsets = []
    for first in (0, 1):
        left_out = exits[:-1][first::2]
        if left_out:
            subsets.append(tuple(number for number in exits if number not in left_out))
    return subsets


def savings_ms(exits, times, subsets, subset_times):
    """Return what leaving out an exit saves on every picture that goes past it.

    Without an exit, the part of its stage that later exits need runs at the head of the next stage.
    What the two stages took together beyond that longer one was the exit's: its head, one call, and
    what was gathered only for it. Noise does not make this negative, or more than the stage.

    Args:
        exits: tuple of ints, the exits in use.
        times: `StageTimes` with all of them.
        subsets: list of tuples, from `subsets_for_savings`.
        subset_times: list of `StageTimes` with the exits of each subset.

    Returns:
        Tuple of floats, milliseconds per picture, one per exit; 0 for the last, which stays.
    """
    costs = dict(zip(exits, times.stage_costs_ms))
    savings = dict.fromkeys(exits, 0.0)
    for subset, measured in zip(subsets, subset_times):
        longer = dict(zip(subset, measured.stage_costs_ms))
        for number, following in zip(exits, exits[1:]):
            if number not in longer:
                saved = costs[number] + costs[following] - longer[following]
                savings[number] = float(np.clip(saved, 0, costs[number]))
    return tuple(savings.values())


def _time_stages(engine, num_stages, batch, clock):
    """Run every stage once; return the seconds of each, and those of gathering for each."""
    rows = np.arange(len(batch))
    tensors = dict.fromkeys(engine.reads(1), batch)
    run_seconds, gather_seconds = np.zeros(num_stages), np.zeros(num_stages)
    for index in range(1, num_stages + 1):
        reads = [tensors[key] for key in engine.reads(index)]
        if index > 1 and len(batch) > 1:
            start = clock()
            for tensor in reads:
                engine.gather([(tensor, rows[::2]), (tensor, rows[1::2])])
            gather_seconds[index - 1] = clock() - start
        start = clock()
        _, made = engine.run(index, reads, len(batch))
        run_seconds[index - 1] = clock() - start
        tensors.update(zip(engine.makes(index), made))
    return run_seconds, gather_seconds
