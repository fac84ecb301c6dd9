"""Calibrated thresholds of a trained network: `thresholds.json`, made from its validation part."""

import dataclasses
import json
import math
import pathlib

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs
from keras_adaptive.evaluation.calibration import (
    fit_temperatures,
    measure_calibration,
)
from keras_adaptive.evaluation.risk import choose_safe_threshold
from keras_adaptive.evaluation.thresholds import ThresholdSearch
from keras_adaptive.files import read_json, write_whole
from keras_adaptive.names import check_keys

THRESHOLDS = "thresholds.json"
NUM_BUDGETS = 11  # from the cost of the first exit to that of the last, each the same factor larger
ACCURACY_LOSSES = (0.02, 0.01, 0.005, 0.0)  # of the last exit's accuracy
MAX_LOSSES = (0.005, 0.01, 0.02)
CONFIDENCE = 0.95  # of the promise that such a loss is not exceeded

# The lists of the file, each with the keys of what was asked.
_ASKED = {"by_macs": ("macs",), "by_accuracy": ("accuracy",),
          "by_max_loss": ("max_loss", "confidence")}
_MEASURED = ("thresholds", "validation_accuracy", "mean_macs", "exit_shares", "budget_met")
_MEASURES = ("expected_calibration_error", "auroc")


@dataclasses.dataclass(frozen=True)
class StoredThresholds:
    """Thresholds, what was asked for, and what they give on the validation part.

    Attributes:
        asked: dict: `{"macs": …}`, `{"accuracy": …}` or `{"max_loss": …, "confidence": …}`.
        thresholds: tuple of floats, one per exit, for confidences as they are, without temperature.
        validation_accuracy: float, share of right answers.
        mean_macs: float, multiply-adds of a picture.
        exit_shares: tuple of floats, share of pictures that leave at each exit.
        budget_met: bool. Whether what was asked for is met on the validation part.
    """

    asked: dict
    thresholds: tuple
    validation_accuracy: float
    mean_macs: float
    exit_shares: tuple
    budget_met: bool


@dataclasses.dataclass(frozen=True)
class CalibratedThresholds:
    """Everything that a validation part tells about a trained network.

    Attributes:
        data: string. The pictures that all this was made from.
        pictures: int. Their number.
        weights_sha256: string or `None`. Digest of the weights that answered.
        temperatures: tuple of floats, one per exit; see `fit_temperatures`.
        calibration: dict. `"expected_calibration_error"` and `"auroc"`, each a dict of the values
            per exit `"before"` and `"after"` the temperatures; `None` where one is not defined.
        by_macs, by_accuracy, by_max_loss: tuples of `StoredThresholds`.
    """

    data: str
    pictures: int
    weights_sha256: str | None
    temperatures: tuple
    calibration: dict
    by_macs: tuple
    by_accuracy: tuple
    by_max_loss: tuple

    @classmethod
    def from_outputs(cls, outputs, exit_macs, data, weights_sha256=None):
        """Choose thresholds and temperatures on a validation part.

        Args:
            outputs: `ExitOutputs` of pictures that were not trained on.
            exit_macs: sequence of numbers, the multiply-adds up to each exit.
            data: string. Names the pictures.
            weights_sha256: string or `None`. Digest of the weights that answered.

        Raises:
            ValueError: If `exit_macs` are not one increasing positive number per exit.
        """
        macs = check_exit_macs(exit_macs, outputs.num_exits)
        temperatures = fit_temperatures(outputs)
        measured = measure_calibration(outputs, temperatures)
        search = ThresholdSearch(outputs, macs, smooth=True)
        best = outputs.accuracies()[-1]
        budgets = sorted({round(float(b)) for b in np.geomspace(macs[0], macs[-1], NUM_BUDGETS)})
        accuracies = [math.floor(1e6 * (best - loss) + 1e-6) / 1e6  # never above what is reached
                      for loss in ACCURACY_LOSSES if best > loss]
        by_macs = [_stored({"macs": budget}, search.within(budget)) for budget in budgets]
        by_accuracy = [_stored({"accuracy": goal}, search.reaching(goal)) for goal in accuracies]
        by_max_loss = [_bounded(outputs, macs, max_loss, best) for max_loss in MAX_LOSSES]
        return cls(
            data=data,
            pictures=len(outputs.labels),
            weights_sha256=weights_sha256,
            temperatures=tuple(temperatures),
            calibration={
                "expected_calibration_error": {"before": [p.error_before for p in measured],
                                               "after": [p.error_after for p in measured]},
                "auroc": {"before": _json_numbers(p.auroc_before for p in measured),
                          "after": _json_numbers(p.auroc_after for p in measured)},
            },
            by_macs=tuple(by_macs), by_accuracy=tuple(by_accuracy), by_max_loss=tuple(by_max_loss))

    @classmethod
    def from_file(cls, path):
        """Read what `write` wrote.

        Args:
            path: path of a `thresholds.json`.

        Raises:
            ValueError: If the file is no JSON, or has unknown, missing or malformed entries.
        """
        path = pathlib.Path(path)
        record = read_json(path)
        check_keys(path, record, [field.name for field in dataclasses.fields(cls)])
        temperatures = _numbers(f"{path}, temperatures", record["temperatures"])
        if not temperatures:
            raise ValueError(f"{path}, temperatures: expected one number per exit.")
        num_exits = len(temperatures)
        _check_description(path, record)
        _check_calibration(f"{path}, calibration", record["calibration"], num_exits)
        lists = {name: tuple(_read_stored(f"{path}, {name}[{i}]", item, _ASKED[name], num_exits)
                             for i, item in enumerate(_list(f"{path}, {name}", record[name])))
                 for name in _ASKED}
        return cls(**{**record, **lists, "temperatures": temperatures})

    def write(self, path):
        """Write a `thresholds.json`; nothing half-written is ever found at `path`."""
        record = dataclasses.asdict(self)
        for name in _ASKED:
            record[name] = [{**item.pop("asked"), **item} for item in record[name]]
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    @property
    def num_exits(self):
        """int. Number of exits."""
        return len(self.temperatures)

    def choose(self, macs=None, accuracy=None, max_loss=None):
        """Return the stored thresholds for a budget, an accuracy or a bounded loss.

        Exactly one is given. Costs and accuracies are those of the validation part.

        Args:
            macs: number. The most accurate whose mean multiply-adds of a picture are within it.
            accuracy: float. The cheapest that are as accurate as this share.
            max_loss: float. Those that lose at most this share of accuracy, with the stored
                confidence; one of the stored losses.

        Returns:
            `StoredThresholds`.

        Raises:
            ValueError: If not one of the three is given, or nothing stored satisfies it.
        """
        if sum(value is not None for value in (macs, accuracy, max_loss)) != 1:
            raise ValueError(
                "Stored thresholds are chosen by one of `macs`, `accuracy` and `max_loss`. "
                f"Received: macs={macs}, accuracy={accuracy}, max_loss={max_loss}."
            )
        if max_loss is not None:
            return self._for_loss(max_loss)
        # Both lists are of the same pictures: each answers the other's question too.
        stored = (*self.by_macs, *self.by_accuracy)
        if macs is not None:
            return self._within(stored, macs)
        return self._reaching(stored, accuracy)

    def _within(self, stored, macs):
        found = [item for item in stored if item.mean_macs <= macs]
        if not found:
            least, most = (pick(item.mean_macs for item in stored) for pick in (min, max))
            raise ValueError(
                f"No stored thresholds cost at most {macs:,} multiply-adds a picture; they cost "
                f"{least:,.0f} to {most:,.0f}. Give a larger `macs`."
            )
        return max(found, key=lambda item: (item.validation_accuracy, -item.mean_macs))

    def _reaching(self, stored, accuracy):
        found = [item for item in stored if item.validation_accuracy >= accuracy]
        if not found:
            best = max(item.validation_accuracy for item in stored)
            raise ValueError(
                f"No stored thresholds reach an accuracy of {accuracy}; the best reach {best:.4f} "
                f"on the {self.pictures} validation pictures. Ask for a share of at most that."
            )
        return min(found, key=lambda item: (item.mean_macs, -item.validation_accuracy))

    def _for_loss(self, max_loss):
        for item in self.by_max_loss:
            if math.isclose(item.asked["max_loss"], max_loss):
                return item
        raise ValueError(
            f"No thresholds are stored for a loss of {max_loss}; there are some for "
            f"{[item.asked['max_loss'] for item in self.by_max_loss]}. For another loss use "
            "`EarlyExitPredictor.calibrate` with pictures of your own."
        )


def _stored(asked, chosen, budget_met=None):
    return StoredThresholds(
        asked, tuple(float(t) for t in chosen.thresholds), chosen.accuracy, chosen.mean_macs,
        chosen.exit_shares, chosen.budget_met if budget_met is None else budget_met)


def _bounded(outputs, macs, max_loss, best):
    chosen = choose_safe_threshold(outputs, macs, max_loss, CONFIDENCE)
    return _stored({"max_loss": max_loss, "confidence": CONFIDENCE}, chosen,
                   best - chosen.accuracy <= max_loss)


def _json_numbers(values):
    # JSON has no NaN.
    return [value if math.isfinite(value) else None for value in values]


def _check_description(path, record):
    if not isinstance(record["data"], str):
        raise ValueError(f"{path}, data: expected text. Received: {record['data']!r}.")
    if type(record["pictures"]) is not int or record["pictures"] < 1:
        raise ValueError(
            f"{path}, pictures: expected a number of pictures. Received: {record['pictures']!r}.")
    if not isinstance(record["weights_sha256"], str | None):
        raise ValueError(f"{path}, weights_sha256: expected text or null.")


def _check_calibration(where, values, num_exits):
    check_keys(where, values, _MEASURES)
    for measure in _MEASURES:
        check_keys(f"{where}, {measure}", values[measure], ("before", "after"))
        for when, numbers in values[measure].items():
            place = f"{where}, {measure}, {when}"
            defined = [value for value in _list(place, numbers) if value is not None]
            _numbers(place, defined)
            if len(numbers) != num_exits or (measure != "auroc" and len(defined) < num_exits):
                raise ValueError(f"{place}: expected {num_exits} numbers. Received: {numbers}.")


def _read_stored(where, item, asked, num_exits):
    check_keys(where, item, (*asked, *_MEASURED))
    for key in (*asked, "validation_accuracy", "mean_macs"):
        _numbers(f"{where}, {key}", [item[key]])
    per_exit = {key: _numbers(f"{where}, {key}", item[key]) for key in ("thresholds",
                                                                        "exit_shares")}
    for key, values in per_exit.items():
        if len(values) != num_exits or min(values) < 0:
            raise ValueError(
                f"{where}, {key}: expected {num_exits} numbers of 0 or more, one per exit. "
                f"Received: {list(values)}."
            )
    if not isinstance(item["budget_met"], bool):
        raise ValueError(f"{where}, budget_met: expected true or false.")
    return StoredThresholds({key: item[key] for key in asked},
                            **{key: item[key] for key in _MEASURED if key not in per_exit},
                            **per_exit)


def _list(where, values):
    if not isinstance(values, list):
        raise ValueError(f"{where}: expected a list. Received: {values!r}.")
    return values


def _numbers(where, values):
    """Return a list of finite JSON numbers as a tuple of floats."""
    for value in _list(where, values):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{where}: expected numbers. Received: {value!r}.")
    return tuple(float(value) for value in values)
