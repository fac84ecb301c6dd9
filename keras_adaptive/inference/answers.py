"""From what exits give to what users get: checks, temperatures, costs, `Prediction`."""

import threading

import numpy as np

from keras_adaptive.evaluation.calibration import with_temperature
from keras_adaptive.evaluation.exit_outputs import LARGEST_GAP
from keras_adaptive.inference.prediction import Prediction


class Answers:
    """The exits in use, read: what they gave is checked, scaled, counted and put in order.

    Args:
        network: `Network`.
        exits: tuple of ints, the exits in use; exit `exits[s - 1]` is the output of stage `s`.
        temperatures: tuple of floats, one per exit of the network.
        class_names: tuple of strings or `None`.
    """

    def __init__(self, network, exits, temperatures, class_names):
        self.exits = exits
        self.temperatures = temperatures
        self.class_names = class_names
        self._network = network
        self._exit_numbers = np.array(exits, np.int64)
        self._costs = {}
        self._turn = threading.Lock()

    def with_exits(self, exits):
        """Return the same for other exits in use."""
        return Answers(self._network, exits, self.temperatures, self.class_names)

    def read(self, stage, positions, probabilities):
        """Check what a stage gave, and scale it with its exit's temperature.

        Args:
            stage: int, counted from 1.
            positions: int array `(rows,)`. Numbers of the pictures, for messages.
            probabilities: float32 array `(rows, classes)`.

        Returns:
            float32 array `(rows, classes)`.

        Raises:
            ValueError: If these are no probabilities.
        """
        number = self.exits[stage - 1]
        sums = np.add.reduce(probabilities, axis=1)
        # NaN is not within it. One number needs no calls of NumPy, which are slow on scalars.
        gap = abs(sums.item() - 1) if len(sums) == 1 else np.abs(sums - 1).max()
        if not gap <= LARGEST_GAP:
            self._refuse(number, positions, sums)
        return with_temperature(probabilities, self.temperatures[number - 1])

    def _refuse(self, number, positions, sums):
        if not np.isfinite(sums).all():
            raise ValueError(
                f"Exit {number} of {self._network.name!r} gave NaN or infinity for picture "
                f"{positions[~np.isfinite(sums)][0]}. Its weights are damaged, or its precision "
                "does not hold its values."
            )
        raise ValueError(
            f"Exit {number} of {self._network.name!r} should give probabilities, but they add up "
            f"to {sums[np.argmax(np.abs(sums - 1))]:.3g}. Pass `from_logits=True` if it gives "
            "logits."
        )

    def collect(self, answers, size, files):
        """Return the `Prediction` of pictures that have all left.

        Args:
            answers: list of `Answer`, in any order.
            size: tuple of ints, height and width of the pictures, or `None` if there were none.
            files: tuple of paths or `None`.
        """
        if len(answers) == 1:  # of all pictures, in order
            probabilities = np.array(answers[0].probabilities, np.float32)
            stages = np.full(len(probabilities), answers[0].stage)
            return self.predict_from(probabilities, stages, size, files)
        num_pictures = sum(len(answer.positions) for answer in answers)
        probabilities = np.zeros((num_pictures, self._network.num_classes), np.float32)
        stages = np.ones(num_pictures, np.int64)
        for answer in answers:
            probabilities[answer.positions] = answer.probabilities
            stages[answer.positions] = answer.stage
        return self.predict_from(probabilities, stages, size, files)

    def predict_from(self, probabilities, stages, size, files):
        """Return a `Prediction` of float32 probabilities and of the stages that gave them."""
        costs, full_macs = self.count_macs(size)
        return Prediction._of_checked(
            class_ids=probabilities.argmax(axis=1),
            confidences=np.maximum.reduce(probabilities, axis=1),
            probabilities=probabilities,
            exits=self._exit_numbers[stages - 1],
            macs=costs[stages - 1],
            full_macs=full_macs,
            num_exits=self._network.num_exits,
            class_names=self.class_names,
            files=files,
        )

    def count_macs(self, size):
        """Return the cost of the exits in use and of the whole network, for pictures of a size."""
        if size is None:  # there were no pictures, and the network takes any size
            return np.zeros(len(self.exits), np.int64), 0
        if size not in self._costs:
            with self._turn:  # counting takes longer than a batch: threads that wait need not count
                if size not in self._costs:
                    in_use, whole = self._network.count_macs(self.exits, size)
                    self._costs[size] = np.array(in_use, np.int64), whole
        return self._costs[size]
