"""All pictures together, exit by exit, with the best answer of each after every exit."""

import numpy as np

from keras_adaptive.inference.schedule import find_survivors

_USUAL_ROWS = 64  # the batch size of `predict`, whose compiled programs serve here too


def run_by_exit(stages, thresholds, pictures, read):
    """Run stage after stage on the pictures that have not left.

    Args:
        stages: `StageRunner`.
        thresholds, read: as for `Schedule`.
        pictures: NumPy array, at least one picture.

    Yields:
        After each stage, until the last picture has left, a tuple of new arrays for all pictures:
        the stage that gave the answer, int64 `(pictures,)`; and its probabilities, float32
        `(pictures, classes)`.
    """
    num_pictures = len(pictures)
    # An engine that compiles for numbers of rows does so for few: those up to a power of two.
    batch_size = max(_USUAL_ROWS, 1 << (num_pictures - 1).bit_length())
    positions, carried = np.arange(num_pictures), stages.admit(pictures)
    taken, answers = np.zeros(num_pictures, np.int64), None
    for stage in range(1, stages.num_stages + 1):
        probabilities = read(stage, positions, stages.run(stage, carried, batch_size))
        answers = probabilities.copy() if answers is None else answers
        taken[positions], answers[positions] = stage, probabilities
        yield taken.copy(), answers.copy()
        survivors = find_survivors(probabilities, stage, thresholds)
        if not len(survivors):
            return
        if len(survivors) < len(positions):
            positions, carried = positions[survivors], carried.take(survivors)
