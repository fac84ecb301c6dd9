"""Networks compared after equal training: the points, and the files of a zoo entry with them."""

import dataclasses
import math
import pathlib

from keras_adaptive.evaluation.tables import read_table, write_table

EQUAL_SCHEDULE = pathlib.Path("results", "equal_schedule.csv")
EQUAL_SCHEDULE_FIGURE = "equal_schedule.png"

_PROTOCOLS = ("anytime", "budgeted")


@dataclasses.dataclass(frozen=True)
class EqualSchedulePoint:
    """A network at one exit, or within one budget."""

    network: str  # such as "MSDNet"
    recipe: str
    epochs: int  # that it learned, as all of the file did
    data: str  # and on which part of it accuracy was measured, in words
    protocol: str  # "anytime": all pictures stop at one exit; "budgeted": each where it is sure
    mean_macs: float  # multiply-adds of a picture
    accuracy: float  # share of right answers


_COLUMNS = [field.name for field in dataclasses.fields(EqualSchedulePoint)]


def write_equal_schedule(path, points):
    """Write points as CSV, whole or not at all.

    Args:
        path: path of the file. Its folder is made if missing.
        points: list of `EqualSchedulePoint`.

    Raises:
        ValueError: If there are no points.
    """
    write_table(path, [dataclasses.asdict(point) for point in points])


def read_equal_schedule(path):
    """Return the points that `write_equal_schedule` wrote.

    Raises:
        ValueError: If the file has other columns, or a row is malformed; the message names it.
    """
    points = [_point(row, where) for row, where in read_table(path, _COLUMNS)]
    if len({point.network for point in points}) < 2 or len({p.epochs for p in points}) > 1:
        raise ValueError(f"{path}: expected two networks or more that learned equally many epochs. "
                         f"Received: {sorted({(p.network, p.epochs) for p in points})}.")
    return points


def _point(row, where):
    try:
        network, recipe, epochs, data, protocol, mean_macs, accuracy = row
        point = EqualSchedulePoint(network, recipe, int(epochs), data, protocol, float(mean_macs),
                                   float(accuracy))
    except ValueError as error:
        raise ValueError(f"{where}: {error}. Received: {row}.") from error
    if (protocol not in _PROTOCOLS or not 0 <= point.accuracy <= 1
            or not 0 < point.mean_macs < math.inf):
        raise ValueError(f"{where}: `protocol` is one of {_PROTOCOLS}, `mean_macs` above 0, "
                         f"`accuracy` from 0 to 1. Received: {row}.")
    return point
