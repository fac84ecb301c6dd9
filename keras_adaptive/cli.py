"""The command `keras-adaptive`: each subcommand calls one public function and prints its result.

Results go to standard output, everything else to standard error. Exit status: 0, 1 if something
failed, 2 if the command was used wrongly.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile

from keras_adaptive import process
from keras_adaptive.cli_arguments import make_parser
from keras_adaptive.content import DEFAULT_MODEL
from keras_adaptive.files import check_is_no_file, check_is_no_folder, read_json
from keras_adaptive.manifest import MANIFEST


def main(argv=None):
    """Run the command line.

    Args:
        argv: sequence of strings, or None for those of the process.

    Returns:
        int, the exit status.
    """
    arguments = make_parser().parse_args(argv)
    if argv is None and arguments.command == "train":  # a process of its own
        process.restart_for_training(arguments.recipe)
    if hasattr(sys.stdout, "reconfigure"):  # a file's name may be no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if not (_is_export(arguments) or _is_resizing(arguments)):
            _import_keras()
        return _RUN[arguments.command](arguments) or 0  # None where nothing can be amiss
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"keras-adaptive {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1


def _is_export(arguments):
    """Return whether exported stages are to be run, for which Keras need not be installed."""
    return (arguments.command == "predict" and arguments.model is not None
            and os.path.isfile(os.path.join(arguments.model, MANIFEST)))


def _is_resizing(arguments):
    """Return whether thumbnails are to be made without a network."""
    return arguments.command == "thumbnails" and arguments.ratio is not None


def _import_keras():
    """Import Keras and its backend, whose libraries otherwise greet with a page of log lines."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return
    # The libraries write past Python, so the file descriptor itself is turned away.
    with tempfile.TemporaryFile() as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            import keras  # noqa: F401
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{error}. Keras needs a backend: `pip install keras_adaptive[tensorflow]`, or "
                "set KERAS_BACKEND to one that is installed (tensorflow, jax or torch)."
            ) from error
        finally:
            os.dup2(before, 2)
            os.close(before)


def _demo(arguments):
    from keras_adaptive.demo import run_demo
    from keras_adaptive.plots import check_figure_path

    check_figure_path(arguments.output)
    _say("Classifying the pictures of the package, and timing it ...")
    demo = run_demo(arguments.model, arguments.threshold)
    _print(demo.table())
    print(demo)
    demo.save_picture(arguments.output)
    print(f"Picture: {os.path.abspath(arguments.output)}")


def _predict(arguments):
    from keras_adaptive.inference.predictor import EarlyExitPredictor
    from keras_adaptive.picture_files import UnreadablePicturesError, find_files

    files, not_read = [], {}
    for name in arguments.files:
        try:
            files += find_files(name) if os.path.isdir(name) else [name]
        except ValueError as error:  # no pictures in it
            if len(arguments.files) == 1:
                raise
            not_read[name] = str(error)
    chosen = {} if arguments.threshold is None else {"threshold": arguments.threshold}
    is_export = _is_export(arguments) or _is_other_folder(arguments.model)
    make = EarlyExitPredictor.from_export if is_export else EarlyExitPredictor
    predictor = make(_converted(arguments.model) or arguments.model, **chosen)
    prediction = None
    while prediction is None:
        try:
            prediction = predictor.predict(files, batch_size=arguments.batch_size)
        except UnreadablePicturesError as error:  # it names all: the whole list was tried
            not_read |= error.reasons
            files = [name for name in files if name not in error.reasons]
            if not files:
                raise
    if arguments.json:
        for picture in prediction:
            print(json.dumps(picture.to_dict()))
        _say(prediction.summary())
    else:
        _print(prediction.table(max_rows=len(prediction)))
        print(prediction.summary())
    for name, reason in not_read.items():
        _say(f"not read: {name}: {reason}")
    return 1 if not_read else 0


def _is_other_folder(name):
    """Return whether a folder is meant, which is no export, and not a network of that name."""
    from keras_adaptive import zoo

    if name is None or not os.path.isdir(name):
        return False
    try:
        zoo.find_entry(name)
    except ValueError as error:
        return not isinstance(error, zoo.NoWeightsError)
    return False


def _converted(name):
    """Return the network of a file that `convert` wrote; `None` for another name."""
    if name is None or not name.endswith(".json"):
        return None
    from keras_adaptive.converted import load_converted

    return load_converted(name)


def _evaluate(arguments):
    from keras_adaptive import zoo
    from keras_adaptive.curves import plot_accuracy
    from keras_adaptive.evaluation.arguments import check_shared_thresholds
    from keras_adaptive.evaluation.operating_points import evaluate, spread, write_points
    from keras_adaptive.plots import check_figure_path, save_figure
    from keras_adaptive.training.datasets import (
        check_channels,
        check_classes,
        check_labels,
        load_data,
    )

    if arguments.plot:
        check_figure_path(arguments.plot)
    if arguments.output:
        check_is_no_folder(arguments.output)
    check_shared_thresholds(arguments.threshold)
    model = zoo.load(arguments.model, pretrained=True)
    with contextlib.redirect_stdout(sys.stderr):  # Keras reports downloads and progress there
        size = model.input_shape[1]
        data = load_data(arguments.data, size, model.input_rule)
        check_classes(data, arguments.data, model.name, model.class_names)
        test = spread(data.test, arguments.num_pictures).resized(size)
        check_labels(test, model.output_shape)
        check_channels(test, model.input_shape)
        points = evaluate(model, test, arguments.threshold, arguments.batch_size, verbose=1)
    _print(_points_table(points, model.name, len(test)))
    if arguments.output:
        write_points(arguments.output, points)
        _say(f"Table: {os.path.abspath(arguments.output)}")
    if arguments.plot:
        save_figure(plot_accuracy(points, f"{model.name}, {len(test)} test pictures"),
                    arguments.plot)
        _say(f"Figure: {os.path.abspath(arguments.plot)}")


def _plot(arguments):
    from keras_adaptive.plots import check_figure_path
    from keras_adaptive.report import measure, write_plots

    check_figure_path("accuracy.png")
    check_is_no_file(arguments.output)
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(arguments.model, arguments.data, arguments.num_pictures,
                           arguments.batch_size, verbose=1)
    write_plots(measured, arguments.output)
    print(f"Figures and budgeted.csv: {os.path.abspath(arguments.output)}")


def _card(arguments):
    from keras_adaptive import zoo
    from keras_adaptive.plots import check_figure_path
    from keras_adaptive.report import check_data_set, complete_entry, measure

    check_figure_path("accuracy.png")
    check_data_set(zoo.find_entry(arguments.name), arguments.data)
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(arguments.name, arguments.data, None, arguments.batch_size, verbose=1)
    print(f"Card: {os.path.abspath(complete_entry(measured))}")


def _publish(arguments):
    from keras_adaptive import recipes
    from keras_adaptive.plots import check_figure_path
    from keras_adaptive.publishing import publish

    check_figure_path("accuracy.png")
    recipe = recipes.load(arguments.recipe)
    folder = arguments.folder or os.path.join("runs", recipe.name)
    with contextlib.redirect_stdout(sys.stderr):
        card = publish(recipe, folder, arguments.data or recipe.data["name"], arguments.machine,
                       arguments.dtype, arguments.batch_size, verbose=1)
    print(f"Card: {os.path.abspath(card)}")


def _export(arguments):
    from keras_adaptive import zoo
    from keras_adaptive.export import export_stages
    from keras_adaptive.model_files import is_model_file

    asked = {key: getattr(arguments, key) for key in ("macs", "accuracy")
             if getattr(arguments, key) is not None}
    if asked and is_model_file(arguments.model):
        goal, = asked
        raise ValueError(
            f"--{goal} takes one of the thresholds that were calibrated for a network of the zoo, "
            f"and {arguments.model} has none. `EarlyExitPredictor(model).calibrate(x, y, "
            f"{goal}=...)` chooses thresholds that `export_stages` takes."
        )
    if asked and arguments.exits is not None:
        goal, = asked
        raise ValueError(
            f"--{goal} takes thresholds that were chosen for all exits: with some of them alone "
            "pictures would stop elsewhere, for another cost and accuracy. Received --exits "
            f"{','.join(map(str, arguments.exits))}. Leave out one of the two; for some exits, "
            "`EarlyExitPredictor(model, exits=...).calibrate(x, y, macs=...)` chooses thresholds "
            "that `export_stages` takes."
        )
    thresholds = zoo.thresholds(arguments.model, **asked) if asked else None
    with contextlib.redirect_stdout(sys.stderr):  # TensorFlow reports its progress there
        folder = export_stages(arguments.model, arguments.folder, arguments.format,
                               thresholds=thresholds, exits=arguments.exits)
    print(f"Stages and manifest.json: {os.path.abspath(folder)}")


def _thumbnails(arguments):
    from keras_adaptive.thumbnails import write_thumbnails

    chosen = {} if arguments.method is None else {"method": arguments.method}
    done = write_thumbnails(
        arguments.source, arguments.destination, arguments.downscaler, ratio=arguments.ratio,
        file_format=arguments.format, quality=arguments.quality, batch_size=arguments.batch_size,
        **chosen)
    for path, reason in done.unreadable.items():
        _say(f"{path}: {reason}")
    for path in done.left_over:
        _say(f"{path}: its picture is no longer in {arguments.source}; delete it unless it is "
             "another folder's")
    print(f"{done}: {os.path.abspath(arguments.destination)}")
    return 1 if done.unreadable else 0


def _convert(arguments):
    from keras_adaptive.checkpoints import from_torch
    from keras_adaptive.converted import code_to_load, write_converted

    args = read_json(arguments.args)
    if not isinstance(args, dict):
        raise ValueError(f"{arguments.args} holds no JSON object of arguments.")
    model = from_torch(arguments.checkpoint, args, arguments.image_size, arguments.normalization)
    record = write_converted(model, arguments.output)
    _say("The network and, beside it, its weights are written. Python reads them so:")
    print(code_to_load(record))
    if arguments.normalization:
        _say(f"Pictures are classified by `keras-adaptive predict photos/ --model {record}`.")


def _list(arguments):
    from keras_adaptive import recipes, zoo

    _print(_models_table(zoo.list_models(), DEFAULT_MODEL))
    _print(_recipes_table(recipes.load(name) for name in recipes.list_recipes()))


def _train(arguments):
    from keras_adaptive import recipes
    from keras_adaptive.training import train
    from keras_adaptive.training.datasets import check_phases, load_data

    recipe = recipes.load(arguments.recipe)
    if arguments.precision:
        training = dataclasses.replace(recipe.training, precision=arguments.precision)
        recipe = dataclasses.replace(recipe, training=training)
    folder = arguments.folder or os.path.join("runs", recipe.name)
    source = arguments.data or recipe.data["name"]
    check_phases(source, [phase.image_size for phase in recipe.training.phases])
    with contextlib.redirect_stdout(sys.stderr):  # the progress of `fit`
        data = load_data(source, recipe.image_size)
        train(recipe, data, folder, verbose=1)
    print(f"Weights, log and state: {os.path.abspath(folder)}")


def _points_table(points, model_name, num_pictures):
    from rich.table import Table

    from keras_adaptive.evaluation.tables import in_millions

    table = Table(title=f"{model_name} on {num_pictures} test pictures")
    table.add_column("pictures stop")
    has_top5 = points[0].top5_accuracy is not None
    for heading in ("accuracy", *["top-5 accuracy"] * has_top5, "mean multiply-adds",
                    "share of the full cost", "share stopping at each exit"):
        table.add_column(heading, justify="right")
    for point in points:
        shares = " ".join(f"{share:.0%}" for share in point.exit_shares)
        table.add_row(
            f"at exit {point.exit}" if point.exit else f"at confidence {point.threshold:g}",
            f"{point.accuracy:.2%}", *([f"{point.top5_accuracy:.2%}"] if has_top5 else []),
            in_millions(point.mean_macs), f"{point.cost_share:.1%}",
            "" if point.exit else shares)
    return table


def _models_table(models, default):
    from rich.table import Table

    table = Table(title="Models")
    for heading in ("name", "published configuration", "weights"):
        table.add_column(heading)
    for model in models:
        table.add_row(
            model.name + (" (default)" if model.name == default else ""), model.configuration,
            "trained" if model.has_weights else "none yet; `train` makes some")
    return table


def _recipes_table(recipes):
    from rich.table import Table

    table = Table(title="Recipes")
    table.add_column("name")
    table.add_column("what it trains")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.about.title)
    return table


def _print(table):
    from rich.console import Console

    # A file or a pipe has no width; there nothing is cut off.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _say(message):
    print(message, file=sys.stderr)


_RUN = {"demo": _demo, "predict": _predict, "evaluate": _evaluate, "plot": _plot, "card": _card,
        "publish": _publish, "export": _export, "thumbnails": _thumbnails, "convert": _convert,
        "list": _list, "train": _train}


if __name__ == "__main__":
    sys.exit(main())
