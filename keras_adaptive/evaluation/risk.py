"""A threshold with a promise: with high probability it loses no more accuracy than stated."""

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs, check_inner_share
from keras_adaptive.evaluation.thresholds import NEVER, ChosenThresholds

# Thresholds that are tested, from the most careful on. They are fixed beforehand, as the proof
# wants; confidences crowd near 1, and so do they.
_CANDIDATES = 1 - np.geomspace(1e-6, 1, 300)


def choose_safe_threshold(outputs, exit_macs, max_loss, confidence=0.95, seed=0):
    """Return the lowest shared threshold whose loss of accuracy is bounded.

    With probability `confidence` over the draw of the validation pictures, the accuracy of early
    exit on all pictures of their kind is at least that of the last exit less `max_loss`. Thresholds
    are tested from the most careful down, and the first that cannot be shown to be safe ends the
    search, so that no correction for many tests is due. Each test is a bet against the loss
    exceeding `max_loss`: its stake grows where pictures keep losses small.

    Args:
        outputs: `ExitOutputs` of validation pictures drawn at random, and not used for training.
        exit_macs: sequence of numbers, the multiply-adds up to each exit.
        max_loss: float in (0, 1). Share of accuracy that may be lost, such as 0.01.
        confidence: float in (0, 1).
        seed: int. Of the order in which the pictures are looked at.

    Returns:
        `ChosenThresholds`. All exits are switched off where too few pictures show anything.

    Raises:
        ValueError: If `max_loss` or `confidence` is out of its range.

    Reference:
        [Jazbec et al., 2024](https://arxiv.org/abs/2405.20915), risk control of early exits;
        the test is that of [Waudby-Smith and Ramdas, 2023](https://arxiv.org/abs/2010.09686),
        theorem 3.
    """
    macs = check_exit_macs(exit_macs, outputs.num_exits)
    check_inner_share("max_loss", max_loss)
    check_inner_share("confidence", confidence)
    num_pictures = len(outputs.labels)
    order = np.random.default_rng(seed).permutation(num_pictures)
    right = outputs.is_right[:, order].astype("int8")
    sure = outputs.confidences[:-1, order]
    picture = np.arange(num_pictures)
    chosen, tested = NEVER, None
    for threshold in _CANDIDATES.astype("float32"):
        leaves = np.concatenate([sure >= threshold, np.ones((1, num_pictures), bool)])
        losses = right[-1] - right[leaves.argmax(axis=0), picture]
        # Most candidates move no picture that matters; their test is that of the one before.
        if not np.array_equal(losses, tested) and not _is_bounded(losses, max_loss, 1 - confidence):
            break
        tested = losses
        chosen = float(threshold)
    thresholds = (*[chosen] * (outputs.num_exits - 1), 0.0)
    result = outputs.simulate(thresholds)
    return ChosenThresholds(thresholds, result.accuracy, result.mean_macs(macs),
                            result.exit_shares)


def _is_bounded(losses, max_loss, error):
    """Return whether the mean of losses in [-1, 1] is shown to be at most `max_loss`.

    Wrong with a probability of at most `error`, for losses in random order.
    """
    values, limit = (losses + 1) / 2, (max_loss + 1) / 2
    count = np.arange(1, len(values) + 1)
    mean = (0.5 + np.cumsum(values)) / (count + 1)
    variance = (0.25 + np.cumsum((values - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    stake = np.minimum(1, np.sqrt(2 * np.log(1 / error) / (len(values) * before)))
    capital = np.cumsum(np.log1p(-stake * (values - limit)))
    return bool(capital.max() >= np.log(1 / error))
