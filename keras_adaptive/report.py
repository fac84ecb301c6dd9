"""Measure a trained network once, and write what follows from it: figures, tables, a card.

The test part gives the measured figures only; thresholds come from the validation part.
"""

import dataclasses
import pathlib

import numpy as np

from keras_adaptive import zoo
from keras_adaptive.calibrated import THRESHOLDS, CalibratedThresholds
from keras_adaptive.cards import (
    ACCURACY,
    BUDGETED,
    CALIBRATION,
    EVALUATION,
    EXITS,
    GALLERY,
    THUMBNAILS,
    without_repeats,
    write_card,
)
from keras_adaptive.curves import plot_curves, plot_exit_histogram
from keras_adaptive.entries import Entry, data_set_name
from keras_adaptive.evaluation import ExitOutputs, evaluate_anytime, evaluate_budgeted
from keras_adaptive.evaluation.budgeted import read_budgeted, write_budgeted
from keras_adaptive.evaluation.calibration import measure_calibration, write_calibration
from keras_adaptive.evaluation.operating_points import operating_points, spread, write_points
from keras_adaptive.plots import plot_gallery, plot_thumbnails, save_figure
from keras_adaptive.published_results import read_published
from keras_adaptive.thumbnails import quantize
from keras_adaptive.training.datasets import check_channels, check_classes, check_labels, load_data
from keras_adaptive.training.photographs import Photographs
from keras_adaptive.training.tfds_examples import is_tfds_name

THRESHOLDS_OF_EVALUATION = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # each used at all exits
GALLERY_THRESHOLD = 0.95
EASY_SHARE = 0.1  # of the pictures leave early in the gallery, where so few are surer than that
NUM_BUDGETS_OF_HISTOGRAM = 4
NUM_THUMBNAILS = 8


@dataclasses.dataclass(frozen=True)
class Measured:
    """Answers of all exits of a zoo network on a data set.

    Attributes:
        entry: `Entry` of the network.
        source: string. The data set, as `load_data` took it.
        validation, test: `ExitOutputs` of the two parts.
        test_pictures: uint8 arrays `(height, width, 3)`, in the order of `test`.
        budgeted: list of `BudgetedPoint`, chosen on `validation` and measured on `test`.
        thumbnails: uint8 array of the first test pictures' thumbnails, of a network that makes
            some; otherwise `None`.
    """

    entry: Entry
    source: str
    validation: ExitOutputs
    test: ExitOutputs
    test_pictures: np.ndarray | Photographs
    budgeted: list
    thumbnails: np.ndarray | None = None

    @property
    def data_name(self):
        """string. How the data set is called."""
        return data_name(self.source)


def measure(name, data, num_pictures=None, batch_size=256, verbose=0):
    """Run a network of the zoo once on the validation part and once on the test part.

    Args:
        name: string. A network with weights.
        data: string. As `load_data` takes it.
        num_pictures: int or `None`. Pictures evenly spread over each part, or all.
        batch_size: int.
        verbose: as in `keras.Model.predict`.

    Returns:
        `Measured`.

    Raises:
        ValueError: If the name is unknown, or the data set is not there or has other classes.
    """
    entry = zoo.find_entry(name)
    parts = load_data(data, entry.input_rule["size"][0], entry.input_rule)
    check_classes(parts, data, entry.name, entry.class_names)
    return measure_parts(entry, parts, data, num_pictures, batch_size, verbose)


def measure_parts(entry, parts, source, num_pictures=None, batch_size=256, verbose=0):
    """Run a network of the zoo on data that is loaded already; see `measure`.

    Args:
        entry: `Entry` of the network.
        parts: `Data` or `PhotographData` with the network's classes.
        source: string that `load_data` took for them.
        num_pictures, batch_size, verbose: as for `measure`.
    """
    validation, test = (spread(part, num_pictures).resized(entry.input_rule["size"][0])
                        for part in (parts.validation, parts.test))
    model = entry.load({})
    for part in (validation, test):
        check_labels(part, model.output_shape)
        check_channels(part, model.input_shape)
    fitted, measured = (ExitOutputs.from_model(model, part.pictures, part.y, batch_size, verbose)
                        for part in (validation, test))
    thumbnails = None
    if hasattr(model, "downscaler"):
        shown = _first(test.pictures, NUM_THUMBNAILS)
        thumbnails = quantize(np.asarray(model.downscaler.predict_on_batch(shown)))
    return Measured(entry, source, fitted, measured, test.pictures,
                    evaluate_budgeted(fitted, measured, entry.exit_macs, smooth=True), thumbnails)


def data_name(source):
    """Return how a data set is called: a name of `tensorflow_datasets` as it is, or a file's."""
    return str(source).partition(":")[2] if is_tfds_name(source) else pathlib.Path(source).stem


def check_data_set(entry, source):
    """Raise a `ValueError` if a data set is not the one that a network of the zoo learned.

    Classes of the same names do not make it the same: the card would tell figures of other pictures
    under the name of those that were learned.

    Args:
        entry: `Entry` of the network.
        source: string, as `load_data` takes it.
    """
    if data_set_name(source) != entry.data_set:
        raise ValueError(
            f"{entry.name!r} learned {entry.data_set!r}, whose figures its card tells. Received: "
            f"{str(source)!r}, which is called {data_set_name(source)!r}. Give the one that it "
            f"learned; a file or a folder is called by it, such as '{entry.data_set}.npz'. "
            "`keras-adaptive plot` measures the network on other pictures."
        )


def write_figures(measured, folder):
    """Write `accuracy.png`, for two exits or more `exits.png` and `gallery.png`, and for a network
    with a downscaler `thumbnails.png`.

    Other networks of the zoo for the same data set are drawn where their `results/budgeted.csv`
    are there, as are the papers' points of RANet, MSDNet and static networks.

    Args:
        measured: `Measured`.
        folder: path. Made if missing.
    """
    folder, entry, test = pathlib.Path(folder), measured.entry, measured.test
    about = f"{len(test.labels):,} test pictures of {measured.data_name}"
    save_figure(plot_curves(
        measured.budgeted, evaluate_anytime(test, entry.exit_macs),
        [point for point in read_published(entry.data_set)
         if point.is_adaptive or point.is_static],
        _other_networks(entry), f"{entry.name}, {about}", entry.name), folder / ACCURACY)
    if test.num_exits > 1:
        save_figure(plot_exit_histogram(
            {f"{p.mean_macs / 1e6:.3g} M a picture, {p.accuracy:.1%} right": p.exit_shares
             for p in _spread_budgets(measured.budgeted)},
            entry.exit_macs, f"{entry.name}: where {about} leave"), folder / EXITS)
        save_figure(
            plot_gallery(measured.test_pictures, test, _gallery_threshold(test),
                         entry.class_names),
            folder / GALLERY, dpi=100, num_colors=256)
    if measured.thumbnails is not None:
        pictures = _first(measured.test_pictures, len(measured.thumbnails))
        save_figure(plot_thumbnails(pictures, measured.thumbnails,
                                    f"{entry.name}: what the student sees"),
                    folder / THUMBNAILS, dpi=100)


def write_plots(measured, folder):
    """Write the figures of `write_figures` and the table `budgeted.csv` behind them."""
    folder = pathlib.Path(folder)
    write_figures(measured, folder)
    write_budgeted(folder / BUDGETED.name, measured.budgeted)


def complete_entry(measured):
    """Write everything into the zoo's entry that is made from its answers; earlier files go.

    These are `results/evaluation.csv`, `results/budgeted.csv`, `results/calibration.csv`,
    `thresholds.json`, the figures and `card.md`; the accuracies in `model.json` are renewed, so
    that they are those of the weights as they are shipped.

    Args:
        measured: `Measured`, of all pictures.

    Returns:
        Path of the card.

    Raises:
        ValueError: If other pictures than those of the entry's data set were measured.
    """
    entry = measured.entry
    check_data_set(entry, measured.source)
    accuracies = _accuracies(measured)
    entry.write_figures({**accuracies, **entry.figures, **accuracies})
    write_points(entry.folder / EVALUATION, operating_points(
        measured.test, entry.exit_macs, THRESHOLDS_OF_EVALUATION))
    write_budgeted(entry.folder / BUDGETED, measured.budgeted)
    stored = CalibratedThresholds.from_outputs(
        measured.validation, entry.exit_macs, f"{measured.data_name}, validation part",
        entry.weights["sha256"])
    stored.write(entry.folder / THRESHOLDS)
    write_calibration(entry.folder / CALIBRATION,
                      measure_calibration(measured.test, stored.temperatures))
    write_figures(measured, entry.folder)
    return write_card(entry.folder)


def _accuracies(measured):
    """Return what `model.json` tells of the accuracies of all exits."""
    shares = {"test_accuracy": measured.test.accuracies(),
              "test_top5_accuracy": measured.test.top5_accuracies(),  # `None` for few classes
              "validation_accuracy": measured.validation.accuracies()}
    return {name: [round(float(share), 4) for share in values]
            for name, values in shares.items() if values}


def _gallery_threshold(outputs):
    """Return a threshold so high that hard pictures reach the last exit, and easy ones do not."""
    return min(GALLERY_THRESHOLD, float(np.quantile(outputs.confidences[0], 1 - EASY_SHARE)))


def _first(pictures, number):
    return np.stack([pictures[index] for index in range(min(number, len(pictures)))])


def _spread_budgets(points):
    """Return a few budgeted points with different thresholds, the cheapest of all left out."""
    distinct = without_repeats(points)
    distinct = distinct[1:] or distinct
    rows = np.linspace(0, len(distinct) - 1, NUM_BUDGETS_OF_HISTOGRAM).astype(int)
    return [distinct[row] for row in sorted(set(rows.tolist()))]


def _other_networks(entry):
    """Return the budgeted points of the zoo's other networks for the same data set, by name."""
    others = (zoo.find_entry(info.name) for info in zoo.list_models() if info.has_weights)
    return {other.name: read_budgeted(other.folder / BUDGETED) for other in others
            if other.name != entry.name and other.data_set == entry.data_set
            and (other.folder / BUDGETED).is_file()}
