"""What the engines for exported TensorFlow programs share: functions of named tensors."""

import abc

import numpy as np


class SignatureEngine(abc.ABC):
    """Base of the engines that run programs which TensorFlow wrote."""

    is_snapshot = True

    def load(self, programs):
        """Make the programs ready to run.

        Args:
            programs: list of objects with `files` (dict from path to bytes, the first the one that
                a loader asks for), `reads` and `makes` (tuples of names) and `output` (a name).

        Raises:
            ValueError: If a program has other tensors than it should.
        """
        self._programs = list(programs)
        self._functions = []
        for number, program in enumerate(programs, start=1):
            function, inputs, outputs = self._load_program(program)
            for kind, names, found in (("reads", program.reads, inputs),
                                       ("gives", (program.output, *program.makes), outputs)):
                if set(names) != set(found):
                    raise ValueError(
                        f"The file of stage {number} {kind} {sorted(found)}, where its manifest "
                        f"has {sorted(names)}. Files and manifest are of two exports: copy the "
                        "whole folder again."
                    )
            self._functions.append(function)

    def reads(self, index):
        """Return the names of the tensors that stage `index`, from 1, takes."""
        return self._programs[index - 1].reads

    def makes(self, index):
        """Return the names of the tensors that stage `index` makes for later ones."""
        return self._programs[index - 1].makes

    def run(self, index, tensors, batch_size):
        """Run one stage.

        Args:
            index: int. The stage, from 1.
            tensors: list, in the order of `reads(index)`.
            batch_size: int. The largest number of rows that the caller ever gives.

        Returns:
            Tuple `(probabilities, tensors)`: a float32 NumPy array `(rows, classes)`, and a list in
            the order of `makes(index)`.
        """
        program = self._programs[index - 1]
        results = self._functions[index - 1](dict(zip(program.reads, tensors)))
        probabilities = np.asarray(results[program.output], np.float32)
        return probabilities, [results[name] for name in program.makes]

    @abc.abstractmethod
    def gather(self, parts):
        """Return rows of several tensors as one.

        Args:
            parts: list of `(tensor, rows)`, `rows` an int array, or None for all.
        """

    @abc.abstractmethod
    def _load_program(self, program):
        """Return a function from a dict of tensors to one, and the names of both."""
