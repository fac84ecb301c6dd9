"""Are confidences honest? Temperature scaling, and measures of how well they are calibrated."""

import dataclasses

import numpy as np

from keras_adaptive.evaluation.exit_outputs import ExitOutputs
from keras_adaptive.evaluation.tables import read_table, write_table

NUM_BINS = 15  # as in the paper on calibration

# Where the best temperature is looked for. Outside, a network knows nothing or everything.
_LOWEST, _HIGHEST = 0.05, 20.0


@dataclasses.dataclass(frozen=True)
class CalibrationPoint:
    """How honest an exit's confidences are, as they are and with a temperature.

    The errors are those of `expected_calibration_error`; the AUROC is that of `confidence_auroc`,
    NaN where it is not defined.
    """

    exit: int  # counted from 1
    temperature: float
    error_before: float
    error_after: float
    auroc_before: float
    auroc_after: float


_COLUMNS = [field.name for field in dataclasses.fields(CalibrationPoint)]


def measure_calibration(outputs, temperatures):
    """Return a list of `CalibrationPoint`, one per exit.

    Args:
        outputs: `ExitOutputs`, best of other pictures than those that the temperatures were fitted
            to, on which they look better than they are.
        temperatures: sequence of floats above 0, one per exit.

    Raises:
        ValueError: If there is not one such number per exit.
    """
    scaled = scale_temperatures(outputs, temperatures)
    columns = (temperatures, expected_calibration_error(outputs),
               expected_calibration_error(scaled), confidence_auroc(outputs),
               confidence_auroc(scaled))
    return [CalibrationPoint(number, *map(float, values))
            for number, values in enumerate(zip(*columns), start=1)]


def write_calibration(path, points):
    """Write points as CSV, whole or not at all.

    Args:
        path: path of the file. Its folder is made if missing.
        points: list of `CalibrationPoint`.

    Raises:
        ValueError: If there are no points.
    """
    write_table(path, [
        {"exit": point.exit, **{name: f"{getattr(point, name):.6g}" for name in _COLUMNS[1:]}}
        for point in points])


def read_calibration(path):
    """Return the points that `write_calibration` wrote.

    Raises:
        ValueError: If the file has other columns, or a row is malformed; the message names it.
    """
    points = []
    for row, where in read_table(path, _COLUMNS):
        try:
            number, *values = row
            points.append(CalibrationPoint(int(number), *map(float, values)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}. Received: {row}.") from error
    return points


def fit_temperatures(outputs):
    """Return the temperature of each exit that makes its probabilities fit the labels best.

    Logits divided by the temperature give probabilities of the same classes in the same order:
    confidences change, answers do not, but for probabilities that rounding makes equal. The
    temperature minimises the mean cross-entropy.

    Args:
        outputs: `ExitOutputs` of a validation part.

    Returns:
        List of floats, one per exit. Above 1 for an exit that is surer than it should be.

    Reference:
        [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 4.
    """
    return [_fit(_log(probabilities), outputs.labels) for probabilities in outputs.probabilities]


def scale_temperatures(outputs, temperatures):
    """Return `ExitOutputs` whose logits were divided by a temperature per exit.

    Args:
        outputs: `ExitOutputs`.
        temperatures: sequence of floats above 0, one per exit.

    Raises:
        ValueError: If there is not one such number per exit.
    """
    return ExitOutputs(np.stack([
        with_temperature(probabilities, temperature) for probabilities, temperature
        in zip(outputs.probabilities, check_temperatures(temperatures, outputs.num_exits))
    ]), outputs.labels)


def check_temperatures(temperatures, num_exits):
    """Return temperatures as a tuple of floats.

    Raises:
        ValueError: If they are not `num_exits` finite numbers above 0.
    """
    values = np.asarray(temperatures, dtype="float64")
    if values.shape != (num_exits,) or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(
            f"`temperatures` takes one finite number above 0 per exit: {num_exits}. "
            f"Received: {temperatures!r}."
        )
    return tuple(values.tolist())


def with_temperature(probabilities, temperature):
    """Return the probabilities `(n, classes)` that logits divided by `temperature` would give."""
    if temperature == 1:
        return probabilities
    scaled = _log(probabilities) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype("float32")


def expected_calibration_error(outputs, num_bins=NUM_BINS):
    """Return, per exit, how far confidence and accuracy lie apart: 0 is honest.

    Pictures are sorted into bins of equal width by confidence. In each, the mean confidence is
    compared with the share of right answers; the gaps are weighed by the number of pictures.

    Args:
        outputs: `ExitOutputs`.
        num_bins: int.

    Reference:
        [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 2, equation 3.
    """
    errors = []
    for confidences, right in zip(outputs.confidences, outputs.is_right):
        # Bins are open below and closed above, as in the paper.
        bins = np.clip(np.ceil(confidences * num_bins).astype("int64") - 1, 0, num_bins - 1)
        gaps = np.bincount(bins, right - confidences.astype("float64"), num_bins)
        errors.append(float(np.abs(gaps).sum() / len(right)))
    return errors


def confidence_auroc(outputs):
    """Return, per exit, how often a right answer is surer than a wrong one: 0.5 is chance.

    This is the area under the receiver operating characteristic of the confidence as a detector of
    right answers; ties count half. NaN for an exit that is always right or always wrong.

    Args:
        outputs: `ExitOutputs`.
    """
    areas = []
    for confidences, right in zip(outputs.confidences, outputs.is_right):
        num_right = int(right.sum())
        num_wrong = len(right) - num_right
        if not num_right or not num_wrong:
            areas.append(float("nan"))
            continue
        _, group, counts = np.unique(confidences, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # from 1, the mean rank within ties
        rank_sum = ranks[right].sum()
        areas.append(float((rank_sum - num_right * (num_right + 1) / 2) / (num_right * num_wrong)))
    return areas


def _log(probabilities):
    # Zero is where float32 ended; the logit was not infinite.
    return np.log(np.maximum(probabilities, np.finfo("float32").tiny).astype("float64"))


def _fit(logits, labels):
    """Return the temperature with the smallest cross-entropy, by bisection of its slope."""
    right_logits = logits[np.arange(len(labels)), labels]

    def slope(inverse):
        # Of the cross-entropy with respect to the inverse temperature, in which it is convex.
        scaled = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
        expected = (scaled * logits).sum(axis=1) / scaled.sum(axis=1)
        return np.mean(expected - right_logits)

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / (low * high) ** 0.5)
