"""Static networks evaluated one after another: the ensemble that stands beside adaptive networks.

The answers of the first k networks, averaged, are exit k, so that everything else in `evaluation/`
reads an ensemble as it reads a network with several exits.
"""

import numbers

import numpy as np

from keras_adaptive.evaluation.exit_outputs import ExitOutputs


def ensemble_outputs(outputs_list):
    """Return the answers of a growing ensemble: exit k averages the first k networks.

    Args:
        outputs_list: sequence of `ExitOutputs`, one per network in the order of evaluation, each
            with one exit, for the same pictures in the same order.

    Returns:
        `ExitOutputs` with as many exits as there are networks. Probabilities are averaged.

    Raises:
        ValueError: If there is no network, one has several exits, or they differ in labels or
            number of classes.

    Example:

    >>> first = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]]], labels=[0, 1])
    >>> second = ExitOutputs([[[0.8, 0.2], [0.1, 0.9]]], labels=[0, 1])
    >>> ensemble_outputs([first, second]).accuracies()
    [0.5, 1.0]

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 5, the ensembles of ResNets
        and DenseNets.
    """
    outputs_list = list(outputs_list)
    if not outputs_list:
        raise ValueError("An ensemble has one network or more. Received an empty list.")
    first = outputs_list[0]
    for number, outputs in enumerate(outputs_list, start=1):
        if outputs.num_exits != 1:
            raise ValueError(
                "The networks of an ensemble have one exit each. "
                f"Network {number} has {outputs.num_exits}."
            )
        if outputs.probabilities.shape != first.probabilities.shape:
            raise ValueError(
                "The networks of an ensemble answer for the same pictures and classes. Received "
                f"{first.probabilities.shape[1:]} (pictures, classes) of network 1 and "
                f"{outputs.probabilities.shape[1:]} of network {number}."
            )
        if not np.array_equal(outputs.labels, first.labels):
            raise ValueError(
                "The networks of an ensemble answer for the same pictures in the same order. The "
                f"labels of network {number} are not those of network 1."
            )
    sums = np.cumsum([outputs.probabilities[0] for outputs in outputs_list], axis=0,
                     dtype="float64")
    counts = np.arange(1, len(outputs_list) + 1).reshape(-1, 1, 1)
    return ExitOutputs(sums / counts, first.labels)


def ensemble_macs(macs_list):
    """Return the multiply-adds up to each exit of an ensemble: networks share no work, costs add.

    Args:
        macs_list: sequence with what `exit_macs` gives for each network, a list of one number, in
            the order of evaluation.

    Returns:
        List of ints, increasing, as `exit_macs` gives for a network with several exits.

    Raises:
        ValueError: If there is no network, or one has not exactly one positive whole number.

    Example:

    >>> ensemble_macs([[100], [250]])
    [100, 350]
    """
    macs_list = list(macs_list)
    if not macs_list:
        raise ValueError("An ensemble has one network or more. Received an empty list.")
    for number, macs in enumerate(macs_list, start=1):
        # A fraction is no number of multiply-adds, but one of millions, whose decimals would go.
        if np.shape(macs) != (1,) or not (isinstance(macs[0], numbers.Real) and macs[0] > 0
                                          and macs[0] % 1 == 0):
            raise ValueError(
                "Each network of an ensemble has the cost of its one exit, a list of one positive "
                "whole number of multiply-adds, such as [40551040]. Received for network "
                f"{number}: {macs!r}."
            )
    return [int(total) for total in np.cumsum([macs[0] for macs in macs_list])]
