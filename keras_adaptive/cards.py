"""The card of a zoo entry, `card.md`, written from the entry's other files and nothing else."""

import csv
import math
import pathlib

import numpy as np

from keras_adaptive.calibrated import THRESHOLDS, CalibratedThresholds
from keras_adaptive.card_comparisons import at_equal_schedule, beside_papers
from keras_adaptive.entries import RECORD, Entry
from keras_adaptive.equal_schedule import EQUAL_SCHEDULE, EQUAL_SCHEDULE_FIGURE, read_equal_schedule
from keras_adaptive.evaluation.budgeted import read_budgeted
from keras_adaptive.evaluation.calibration import read_calibration
from keras_adaptive.evaluation.operating_points import read_points
from keras_adaptive.evaluation.tables import in_millions
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.files import write_whole
from keras_adaptive.markdown import some, table
from keras_adaptive.published_results import read_published

CARD = "card.md"
EVALUATION = pathlib.Path("results", "evaluation.csv")
BUDGETED = pathlib.Path("results", "budgeted.csv")
CALIBRATION = pathlib.Path("results", "calibration.csv")
TRAINING = pathlib.Path("results", "training.csv")
ACCURACY, EXITS, GALLERY = "accuracy.png", "exits.png", "gallery.png"
THUMBNAILS = "thumbnails.png"
NOT_LOGGED = "NA"  # in a log, see `validate_every` of a recipe

# Names of data sets on the Hugging Face Hub.
_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100",
        "imagenet": "ILSVRC/imagenet-1k", "tiny_imagenet": "zh-plus/tiny-imagenet"}
# What else is to be said of the pictures that a network was trained on.
_IMAGENET_TERMS = (
    "The pictures are their owners'; ImageNet gives them to researchers for non-commercial "
    "research and education, see <https://image-net.org/download>")
_SOURCES = {
    "imagenet": f"ImageNet (ILSVRC 2012), Russakovsky et al., 2015. {_IMAGENET_TERMS}",
    "tiny_imagenet": "Tiny ImageNet, made for the course CS231n at Stanford: pictures of 200 of "
                     "ImageNet's 1000 classes, 64 x 64 pixels. Its labelled validation pictures "
                     "are the test part here; a part of its training pictures is the validation "
                     f"part. {_IMAGENET_TERMS}",
}


def without_repeats(points):
    """Return the points whose thresholds no earlier one has, a larger budget often having none."""
    first = {}
    for point in points:
        first.setdefault(point.thresholds, point)
    return list(first.values())


def write_card(folder):
    """Write `card.md` from `model.json`, `thresholds.json` and `results/*.csv`.

    The figures `accuracy.png`, `exits.png`, `thumbnails.png` and `gallery.png` are shown where they
    are there, the training log is summed up where there is one, and the zoo's published results of
    the same data set stand beside the network's own. The same files give the same card.

    Args:
        folder: path of the entry.

    Returns:
        Path of the card.

    Raises:
        ValueError: If a file is missing or malformed, or the files are of different weights.
    """
    card = _Card(pathlib.Path(folder))
    sections = [card.front_matter(), card.introduction(), card.exits(), card.budgets(),
                card.thresholds(), card.calibration(), card.training(), card.comparison(),
                card.equal_schedule(), card.thumbnails(), card.gallery(), card.limits()]
    text = "\n\n".join(section for section in sections if section) + "\n"
    path = card.entry.folder / CARD
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


class _Card:
    """The sections of a card, each a string; empty where there is nothing to say."""

    def __init__(self, folder):
        for name in (RECORD, THRESHOLDS, EVALUATION, BUDGETED, CALIBRATION):
            if not (folder / name).is_file():
                raise ValueError(
                    f"The card needs {folder / name}, which does not exist. "
                    f"`keras-adaptive card {folder.name} --data DATA` makes all but {RECORD}."
                )
        self.entry = Entry.from_file(folder / RECORD)
        self.stored = CalibratedThresholds.from_file(folder / THRESHOLDS)
        self.points = read_points(folder / EVALUATION)
        self.exit_points = [point for point in self.points if point.exit is not None]
        self.has_choice = len(self.entry.exit_macs) > 1  # of an exit, by thresholds
        self.budgeted = without_repeats(read_budgeted(folder / BUDGETED))
        self.calibrated = read_calibration(folder / CALIBRATION)
        self._check_same_weights()
        self.log = _read_log(folder / TRAINING)
        self.published = read_published(self.entry.data_set)

    def _check_same_weights(self):
        macs = self.entry.exit_macs
        measured = [point.mean_macs for point in self.exit_points]
        if (self.stored.weights_sha256 not in (None, self.entry.weights["sha256"])
                or len(measured) != len(macs) or not np.allclose(measured, macs, atol=0.1)
                or self.stored.num_exits != len(macs) or not self.budgeted
                or len(self.calibrated) != len(macs)
                or not np.allclose([point.temperature for point in self.calibrated],
                                   self.stored.temperatures, rtol=1e-5)
                or any(len(point.thresholds) != len(macs) for point in self.budgeted)):
            raise ValueError(
                f"{RECORD}, {THRESHOLDS} and the results of {self.entry.folder} are not of the "
                f"same weights. `keras-adaptive card {self.entry.name} --data DATA` makes them "
                "anew."
            )

    def front_matter(self):
        tags = ["keras", "early-exit", "adaptive-computation", self.entry.builder.lower()]
        lines = ["---", f"license: {self.entry.license.lower()}", "library_name: keras",
                 "pipeline_tag: image-classification", "tags:", *(f"- {tag}" for tag in tags)]
        if self.entry.data_set in _HUB:
            lines += ["datasets:", f"- {_HUB[self.entry.data_set]}"]
        return "\n".join([*lines, "---"])

    def introduction(self):
        entry, rule = self.entry, self.entry.input_rule
        rows = [
            ("paper", f"<{entry.paper}>"),
            ("configuration", f"{entry.builder}, `{entry.configuration}`"),
            ("trainable parameters", f"{entry.num_parameters:,}"),
            ("exits", f"{len(entry.exit_macs)}"),
            ("input", "pictures with values 0 to 255, "
             f"{' x '.join(map(str, rule['size']))} pixels; others are brought to "
             f"that size: {rule['resize'].replace('_', ' ')}, "
             f"{rule['interpolation']} interpolation"
             + (f", {rule['crop']:.4g} of the shorter side" if "crop" in rule else "")),
            ("weights", f"`{entry.weights['file']}`, {entry.weights['dtype']}, "
                        f"{entry.weights['size_bytes']:,} bytes"),
            ("licence of the weights", entry.license),
        ]
        if entry.data_set in _SOURCES:
            rows.append(("data set", _SOURCES[entry.data_set]))
        if entry.class_names is not None:
            rows.append((f"{len(entry.class_names)} classes", ", ".join(entry.class_names)))
        return "\n\n".join([
            "<!-- Written by `keras-adaptive card` from the files beside it. Edits are lost. -->",
            f"# {entry.name}: {entry.title}",
            ("An image classifier with several exits: a picture leaves at the first one that is "
             "sure enough, so that easy pictures cost less than hard ones." if len(
                 entry.exit_macs) > 1 else
             "An image classifier with one exit: every picture costs the same.")
            + " Costs are multiply-adds (M: millions) of one picture, the classifiers of all exits "
            "on its way included.",
            table(("", ""), rows, "--"),
        ])

    def exits(self):
        top5 = ["top-5 accuracy"] if self.exit_points[0].top5_accuracy is not None else []
        exits = table(
            ("exit", "multiply-adds", "share of the full cost", "accuracy", *top5),
            [(p.exit, *_cost_and_accuracy(p)) for p in self.exit_points])
        parts = ["## Accuracy and cost", "On the test part, if all pictures stop at the same exit:",
                 exits]
        adaptive = [p for p in self.points if p.exit is None]
        if adaptive and self.has_choice:
            parts += ["If each stops at the first exit whose confidence reaches one threshold:",
                      table(("threshold", "mean multiply-adds", "share of the full cost",
                             "accuracy", *top5),
                            [(f"{p.threshold:g}", *_cost_and_accuracy(p)) for p in adaptive])]
        return "\n\n".join([*parts, *self._figure(ACCURACY, "Accuracy against multiply-adds")])

    def budgets(self):
        if not self.has_choice:
            return ""
        macs = self.entry.exit_macs
        rows = [(in_millions(p.budget), in_millions(p.mean_macs), f"{p.mean_macs / macs[-1]:.1%}",
                 f"{p.accuracy:.2%}", _shares(p.exit_shares)) for p in some(self.budgeted)]
        parts = [
            "## Within a budget",
            "Thresholds, one per exit, are chosen on the validation part so that the mean cost of "
            "a picture stays within a budget; cost and accuracy are those of the test part.",
            table(("budget", "mean multiply-adds", "share of the full cost", "accuracy",
                   "% leaving at each exit"), rows),
        ]
        last = max(self.budgeted, key=lambda point: point.budget)
        if last.budget < 0.99 * macs[-1]:
            parts.append(f"Budgets above {in_millions(last.budget)} gave no other thresholds.")
        return "\n\n".join([*parts, *self._figure(EXITS, "Share of pictures leaving at each exit")])

    def thresholds(self):
        if not self.has_choice:
            return ""
        stored, name = self.stored, self.entry.name
        asked = [(f"macs={item.asked['macs']}", item) for item in without_repeats(stored.by_macs)]
        asked += [(f"accuracy={item.asked['accuracy']:g}", item) for item in stored.by_accuracy]
        asked += [(f"max_loss={item.asked['max_loss']:g}", item) for item in stored.by_max_loss]
        rows = [(f"`{text}`", _thresholds(item.thresholds), f"{item.validation_accuracy:.2%}",
                 in_millions(item.mean_macs), "yes" if item.budget_met else "no")
                for text, item in asked]
        losses = ", ".join(f"{item.asked['confidence']:g}" for item in stored.by_max_loss[:1])
        promise = (
            f" `max_loss` is one threshold for all exits: with probability {losses} over the draw "
            "of the validation pictures it loses no more accuracy than that against the last exit, "
            "on pictures of the same kind; strictly so only if those pictures chose nothing else "
            "before, such as the epoch whose weights were kept." if losses else "")
        return "\n\n".join([
            "## Calibrated thresholds",
            f"Chosen on {stored.pictures:,} pictures ({stored.data}); the figures are of those "
            f"pictures.{promise} Confidences are the network's own, without temperature; `off`: "
            "nobody leaves there; the last exit takes the rest.",
            table(("asked for", "threshold of each exit", "accuracy", "mean multiply-adds",
                   "met"), rows),
            "`thresholds.json` holds them in full. In use:",
            "```python\n"
            "from keras_adaptive import EarlyExitPredictor, zoo\n"
            "from keras_adaptive.demo import FOLDER  # or a folder of yours\n\n"
            f'thresholds = zoo.thresholds("{name}", macs={self._example_macs()})\n'
            f'predictor = EarlyExitPredictor("{name}", threshold=thresholds)\n'
            "print(predictor.predict(FOLDER).summary())\n"
            "```",
        ])

    def _example_macs(self):
        budgets = [item.asked["macs"] for item in self.stored.by_macs if item.budget_met]
        middle = (budgets or self.entry.exit_macs)[len(budgets or self.entry.exit_macs) // 2]
        return f"{math.ceil(middle / 1e5) / 10}e6"

    def calibration(self):
        rows = [(point.exit, f"{point.temperature:.3f}", *map(_number, (
                    point.error_before, point.error_after, point.auroc_before,
                    point.auroc_after)))
                for point in self.calibrated]
        return "\n\n".join([
            "## Are confidences honest?",
            "The expected calibration error is the mean gap between confidence and accuracy (0 is "
            "honest); the AUROC says how often a right answer is surer than a wrong one. `After`: "
            "logits divided by the exit's temperature, which was fitted on the validation part; "
            "above 1, the exit was too sure. The figures are of the test part.",
            table(("exit", "temperature", "calibration error before", "after", "AUROC before",
                   "after"), rows),
        ])

    def training(self):
        entry = self.entry
        rows = [("recipe", f"`{entry.recipe}`")]
        rows += [(key.replace("_", " "), value) for key, value in entry.figures.items()
                 if isinstance(value, str | int | float)]
        parts = ["## Training", table(("", ""), rows, "--")]
        if self.log:
            losses, accuracy, validation = _log_columns(self.log, len(entry.exit_macs))
            what = ("Sum of the losses, and accuracy of the student, exit 1:"
                    if accuracy == "accuracy" and self.has_choice else
                    "Loss of all exits and accuracy of the last one, at the picture size of the "
                    "epoch:")
            parts += [
                f"The log, `{TRAINING.as_posix()}`, has {len(self.log)} epochs. {what}",
                table(("epoch", "training loss", "training accuracy", "validation accuracy"),
                      [(int(row["epoch"]) + 1, _logged(row[losses], ".3f"),
                        _logged(row[accuracy], ".1%"), _logged(row[validation], ".1%"))
                       for row in some([r for r in self.log if r[validation] != NOT_LOGGED])])]
        return "\n\n".join(parts)

    def comparison(self):
        return beside_papers(self.entry, self.published, self.exit_points,
                             some(self.budgeted) if self.has_choice else [])

    def equal_schedule(self):
        path = self.entry.folder / EQUAL_SCHEDULE
        if not path.is_file():
            return ""
        return at_equal_schedule(read_equal_schedule(path), self._figure(
            EQUAL_SCHEDULE_FIGURE, "Accuracy against multiply-adds after equal training"),
            self.entry.figures.get("epochs"))

    def thumbnails(self):
        figure = self._figure(THUMBNAILS, "Test pictures beside bicubic and learned thumbnails")
        return "\n\n".join([
            "## Thumbnails",
            "What the student sees, exit 1, beside what resizing would show it.",
            *figure]) if figure else ""

    def gallery(self):
        figure = self._figure(GALLERY, "Easy and hard test pictures of each class")
        return "\n\n".join([
            "## Easy and hard pictures",
            "Test pictures that the first exit settles, and those that only the last one gets "
            "right.", *figure]) if figure else ""

    def limits(self):
        entry = self.entry
        classes = ("" if entry.class_names is None else
                   f"- It knows {len(entry.class_names)} classes and gives one of them to every "
                   "picture, also to those that show something else.\n")
        return (
            "## Limits\n\n"
            f"{classes}"
            f"- All figures are of `{entry.data_set}` and of this one set of weights; on other "
            "pictures accuracy, cost and confidences differ.\n"
            + ("- A budget holds for the mean over many pictures like the validation ones, not for "
               f"a single one: that costs up to {in_millions(entry.exit_macs[-1])}.\n"
               if self.has_choice else "")
            + "- What was chosen on the validation part looks better there than elsewhere; the "
            "test part's figures are the ones to trust.\n"
            "- Multiply-adds are not time.")

    def _figure(self, name, text):
        return [f"![{text}]({name})"] if (self.entry.folder / name).is_file() else []


def _read_log(path):
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _log_columns(log, num_exits):
    """Return the names of the columns for loss, accuracy and validation accuracy."""
    # With a single exit Keras leaves its name out, and a ThumbNet learns at one of its two.
    is_single = num_exits == 1 or "val_accuracy" in log[0]
    last = "accuracy" if is_single else f"exit{num_exits}_accuracy"
    names = ("loss", last, f"val_{last}")
    missing = [name for name in ("epoch", *names) if name not in log[0]]
    if missing:
        raise ValueError(f"{TRAINING.as_posix()} lacks the columns {missing}.")
    return names


def _logged(value, form):
    return "-" if value == NOT_LOGGED else format(float(value), form)


def _cost_and_accuracy(point):
    top5 = [] if point.top5_accuracy is None else [f"{point.top5_accuracy:.2%}"]
    return in_millions(point.mean_macs), f"{point.cost_share:.1%}", f"{point.accuracy:.2%}", *top5


def _number(value):
    return "-" if math.isnan(value) else f"{value:.4f}"


def _shares(shares):
    return " ".join(f"{100 * share:.0f}" for share in shares)


def _thresholds(thresholds):
    return " ".join([*("off" if t >= NEVER else f"{t:.3f}" for t in thresholds[:-1]), "rest"])
