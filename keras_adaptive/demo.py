"""The demonstration: a dozen pictures, each stopped as soon as the network is sure."""

import dataclasses
import pathlib
import statistics

import numpy as np
from PIL import Image

from keras_adaptive import zoo
from keras_adaptive.content import DEMO_MODEL
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.plots import plot_pictures, save_figure
from keras_adaptive.timing import compile_whole, time_in_turns

FOLDER = pathlib.Path(__file__).with_name("demo_pictures")


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demonstration found.

    Attributes:
        prediction: `Prediction` of the pictures, in the order of their names.
        pictures: list of uint8 arrays.
        true_labels: list of class names.
        adaptive_ms: float. Median time of `EarlyExitPredictor.predict` on all of the pictures.
        whole_ms: float. Median time of the whole network, compiled, on the same pictures.
        repeats: int. Timed rounds, the two in turns.
    """

    prediction: Prediction
    pictures: list
    true_labels: list
    adaptive_ms: float
    whole_ms: float
    repeats: int

    @property
    def num_right(self):
        """int. Pictures whose label is the true one."""
        return sum(
            answer.label == truth for answer, truth in zip(self.prediction, self.true_labels)
        )

    def table(self):
        """Return a `rich.table.Table`, one row per picture."""
        from rich.table import Table

        table = Table()
        for heading in ("picture", "label", ""):
            table.add_column(heading)
        for heading in ("exit", "confidence", "share of the full cost"):
            table.add_column(heading, justify="right")
        for answer, truth in zip(self.prediction, self.true_labels):
            table.add_row(
                pathlib.Path(answer.file).name, answer.label,
                "[green]right[/]" if answer.label == truth else "[red]wrong[/]",
                f"{answer.exit} of {self.prediction.num_exits}",
                f"{answer.confidence:.1%}", f"{answer.cost_share:.1%}")
        return table

    def __str__(self):
        summary = self.prediction.summary()
        return (
            f"{self.num_right} of {summary.num_pictures} right, with "
            f"{summary.mean_cost_share:.1%} of the whole network's multiply-adds "
            f"({summary.mean_macs / 1e6:.1f} of {summary.full_macs / 1e6:.1f} million a picture).\n"
            f"Time for all {summary.num_pictures}: {self.adaptive_ms:.1f} ms; the whole network, "
            f"compiled: {self.whole_ms:.1f} ms (ratio {self.adaptive_ms / self.whole_ms:.2f}, "
            f"medians of {self.repeats} runs in turns)."
        )

    def save_picture(self, path):
        """Write the pictures, grouped by the exit that answered, as an image file."""
        save_figure(plot_pictures(self.pictures, self.prediction, self.true_labels), path)


def run_demo(model=DEMO_MODEL, threshold=0.8, repeats=20):
    """Classify the pictures that come with the package, and time it.

    Args:
        model: as in `EarlyExitPredictor`; it knows the classes of CIFAR-10 and takes pictures of
            their size.
        threshold: as in `EarlyExitPredictor`.
        repeats: int. Timed rounds.

    Returns:
        `Demo`.

    Raises:
        ValueError: If the model is for pictures of other classes or of another size.
    """
    predictor = EarlyExitPredictor(model, threshold)
    files = sorted(FOLDER.glob("*.png"))
    labels = [file.stem.rsplit("_", 1)[0] for file in files]
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    batch = np.stack(pictures)
    _check_fits(predictor, batch.shape[1:3], labels)

    prediction = predictor.predict(files)
    whole = compile_whole(predictor.model, predictor.engine.name)
    times_ms = time_in_turns(
        {"adaptive": lambda: predictor.predict(batch, verbose=False),
         "whole": lambda: whole(batch)}, repeats)
    return Demo(
        prediction=prediction,
        pictures=pictures,
        true_labels=labels,
        adaptive_ms=statistics.median(times_ms["adaptive"]),
        whole_ms=statistics.median(times_ms["whole"]),
        repeats=repeats,
    )


def _check_fits(predictor, size, labels):
    """Raise a `ValueError` if a predictor's network does not take the pictures as they are."""
    if _fits(predictor.model.input_shape[1:3], predictor.class_names, size, labels):
        return
    entries = [zoo.find_entry(info.name) for info in zoo.list_models() if info.has_weights]
    fitting = [entry.name for entry in entries
               if _fits(entry.input_rule["size"], entry.class_names, size, labels)]
    taken, given = ("x".join(map(str, sides)) for sides in (predictor.model.input_shape[1:3], size))
    raise ValueError(
        f"The demonstration shows pictures of {given} pixels and the classes "
        f"{', '.join(sorted(set(labels)))}. Received: a network for {taken} pixels and "
        + ("classes without names" if predictor.class_names is None else
           f"{len(predictor.class_names)} classes")
        + f". Of the zoo these fit: {', '.join(fitting)}. `predict` takes pictures of your own."
    )


def _fits(taken, class_names, size, labels):
    return (all(side in (None, given) for side, given in zip(taken, size))
            and set(labels) <= set(class_names or ()))
