"""Which network is better after the same training: RANet, or MSDNet of the same cost?

Folders of `keras-adaptive train`, one per recipe, are measured: every exit, and budgets whose
thresholds come from the validation part; accuracy and cost are the test part's.

    python benchmarks/equal_schedule.py ranet_imagenet --data tiny_imagenet.npz \\
        --run ranet_imagenet ranet_6_epochs --run msdnet_imagenet runs/msdnet_imagenet

Runs count as equal if they learned as many epochs, at the same picture sizes, learning rates and
batches; where a recipe went on with further cycles, keep a copy of the folder as it was after the
cycle that is compared. The points and a figure go to the entry of the zoo that is named first,
whose card shows them: `keras-adaptive card` writes it anew.
"""

import argparse
import itertools
import pathlib
import sys

from keras_adaptive import recipes, zoo
from keras_adaptive.curves import plot_equal_schedule
from keras_adaptive.equal_schedule import (
    EQUAL_SCHEDULE,
    EQUAL_SCHEDULE_FIGURE,
    EqualSchedulePoint,
    write_equal_schedule,
)
from keras_adaptive.evaluation import ExitOutputs, evaluate_anytime, evaluate_budgeted
from keras_adaptive.graph import exit_macs
from keras_adaptive.plots import check_figure_path, save_figure
from keras_adaptive.report import data_name
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.run import LOG, load_best


def schedule(recipe, epochs):
    """Return what decides how a run learned, of a recipe's first epochs.

    Args:
        recipe: `Recipe`.
        epochs: int.

    Returns:
        Dict; equal for two recipes that teach alike.
    """
    training = recipe.training
    phases = [phase for phase in training.phases for _ in range(phase.epochs)][:epochs]
    ends = list(itertools.accumulate(training.cycles))
    begun = [end for start, end in zip([0, *ends], ends) if start < epochs]
    return {"picture sizes": [phase.image_size for phase in phases],
            "random erasing": [phase.random_erasing for phase in phases],
            "cycles end after": begun, "peak learning rates": list(training.peaks[:len(begun)]),
            "data": recipe.data,
            **{name.replace("_", " "): getattr(training, name) for name in (
                "batch_size", "warmup_epochs", "momentum", "nesterov",
                "weight_decay", "l2", "average", "drop_epochs", "label_smoothing",
                "distillation", "exit_weights", "crop_area", "rand_augment", "seed",
                "validate_every")}}


def check_equal(runs):
    """Return the number of epochs of all runs.

    Args:
        runs: list of pairs, `Recipe` and the path of its folder.

    Raises:
        ValueError: If there are fewer than two runs, or they differ in what they learned.
    """
    if len(runs) < 2:
        raise ValueError("Give `--run RECIPE FOLDER` twice or more: networks are compared.")
    taught = []
    for recipe, folder in runs:
        epochs = _epochs(folder)
        taught.append({"epochs": epochs, **schedule(recipe, epochs)})
    for other, (_, folder) in zip(taught[1:], runs[1:]):
        differing = [f"{name} {value} there, {other[name]} here"
                     for name, value in taught[0].items() if value != other[name]]
        if differing:
            raise ValueError(f"{runs[0][1]} and {folder} were not trained equally: "
                             f"{'; '.join(differing)}.")
    return taught[0]["epochs"]


def _epochs(folder):
    path = folder / LOG
    if not path.is_file():
        raise ValueError(f"{path} does not exist. `keras-adaptive train` writes it.")
    return len(path.read_text(encoding="utf-8").splitlines()) - 1


def measure(recipe, folder, data, about):
    """Return the points of one run.

    Args:
        recipe: `Recipe`.
        folder: path of the run.
        data: `Data`.
        about: dict, the fields of `EqualSchedulePoint` that all runs share.
    """
    model = load_best(recipe, data, folder)
    macs = exit_macs(model)
    validation, test = (ExitOutputs.from_model(model, part.pictures, part.y)
                        for part in (data.validation.resized(recipe.image_size),
                                     data.test.resized(recipe.image_size)))
    points = [("anytime", point) for point in evaluate_anytime(test, macs)]
    points += [("budgeted", point) for point in evaluate_budgeted(
        validation, test, macs, smooth=True)]
    return [EqualSchedulePoint(type(model).__name__, recipe.name, protocol=protocol,
                               mean_macs=round(point.mean_macs, 1),
                               accuracy=round(point.accuracy, 4), **about)
            for protocol, point in points]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", help="the zoo's network whose card is to show the comparison")
    parser.add_argument("--data", required=True, help="as for `keras-adaptive train`")
    parser.add_argument("--run", nargs=2, action="append", default=[], dest="runs",
                        metavar=("RECIPE", "FOLDER"), help="a recipe and what it trained; the "
                        "entry's kind of network first")
    arguments = parser.parse_args(argv)
    try:
        folder = zoo.find_entry(arguments.entry).folder
        check_figure_path(folder / EQUAL_SCHEDULE_FIGURE)
        runs = [(recipes.load(name), pathlib.Path(path)) for name, path in arguments.runs]
        epochs = check_equal(runs)
        data = load_data(arguments.data, runs[0][0].image_size)
    except ValueError as error:
        parser.error(str(error))
    where = f"{len(data.test.y):,} test pictures of {data_name(arguments.data)}"
    points = []
    for recipe, run in runs:
        points += measure(recipe, run, data, {"epochs": epochs, "data": where})
        last = next(p for p in reversed(points) if p.protocol == "anytime")
        print(f"{recipe.name}: {last.accuracy:.2%} at the last exit, "
              f"{last.mean_macs / 1e6:.2f} M", file=sys.stderr)
    write_equal_schedule(folder / EQUAL_SCHEDULE, points)
    save_figure(plot_equal_schedule(points, f"after {epochs} epochs, {where}"),
                folder / EQUAL_SCHEDULE_FIGURE)


if __name__ == "__main__":
    main()
