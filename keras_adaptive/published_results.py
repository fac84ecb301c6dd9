"""The papers' results that our own are compared with: `zoo/published_results.csv`."""

import dataclasses
import math

from keras_adaptive import content
from keras_adaptive.evaluation.tables import read_table

FILE = "published_results.csv"

_COLUMNS = ["data", "protocol", "network", "exit", "mean_macs", "accuracy", "source"]
_PROTOCOLS = ("anytime", "budgeted")


@dataclasses.dataclass(frozen=True)
class PublishedPoint:
    """A point of a published figure."""

    data: str  # such as "cifar10"
    protocol: str  # "anytime": all pictures stop at one exit; "budgeted": each where it is sure
    network: str
    exit: int | None  # counted from 1; None where the source does not number it
    mean_macs: float  # multiply-adds of a picture
    accuracy: float  # share of right answers
    source: str

    @property
    def is_adaptive(self):
        """bool. Whether the network is RANet or MSDNet."""
        return self.network.startswith(("RANet", "MSDNet"))

    @property
    def is_static(self):
        """bool. Whether the point is a network that computes the same for every picture, or some of
        them one after another."""
        return self.network.startswith(("ResNets", "DenseNets", "WideResNet", "ensemble of "))


def read_published(data=None, path=None):
    """Return the published points, in the order of the file.

    Args:
        data: string or `None`. A data set such as `"cifar10"`; `None` for all.
        path: path of the file; `None` for that of the zoo.

    Returns:
        List of `PublishedPoint`.

    Raises:
        ValueError: If the file has other columns, or a row is malformed; the message names it.
    """
    path = content.folder("zoo") / FILE if path is None else path
    points = [_point(row, where) for row, where in read_table(path, _COLUMNS)]
    return [point for point in points if data in (None, point.data)]


def _point(row, where):
    if len(row) != len(_COLUMNS):
        raise ValueError(f"{where}: expected {len(_COLUMNS)} values, received {len(row)}: {row}.")
    data, protocol, network, number, mean_macs, accuracy, source = row
    if protocol not in _PROTOCOLS:
        raise ValueError(f"{where}: `protocol` is one of {_PROTOCOLS}. Received: {protocol!r}.")
    if not (data and network and source):
        raise ValueError(f"{where}: `data`, `network` and `source` are not empty.")
    try:
        point = PublishedPoint(data, protocol, network, int(number) if number else None,
                               float(mean_macs), float(accuracy), source)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error
    if not (0 < point.mean_macs < math.inf and 0 < point.accuracy <= 1
            and (point.exit is None or point.exit >= 1)):
        raise ValueError(
            f"{where}: `mean_macs` is above 0, `accuracy` a share, and exits count from 1. "
            f"Received: {mean_macs}, {accuracy}, {number or 'no exit'}."
        )
    return point
