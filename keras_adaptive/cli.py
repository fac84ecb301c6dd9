"""The command `keras-adaptive`: each subcommand calls one public function and prints its result.

Results go to standard output, everything else to standard error. Exit status: 0, 1 if something
failed, 2 if the command was used wrongly.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile

from keras_adaptive import process
from keras_adaptive.content import DEFAULT_MODEL, DEMO_MODEL
from keras_adaptive.manifest import FORMATS, MANIFEST

# As in `training.recipe_tables`, which is not imported for the help: it brings Keras.
_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def main(argv=None):
    """Run the command line.

    Args:
        argv: sequence of strings, or None for those of the process.

    Returns:
        int, the exit status.
    """
    arguments = _make_parser().parse_args(argv)
    if argv is None and arguments.command == "train":  # a process of its own
        process.restart_for_training(arguments.recipe)
    try:
        if not (_is_export(arguments) or _is_resizing(arguments)):
            _import_keras()
        return arguments.run(arguments) or 0  # None where nothing can be amiss
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

    _say("Classifying the pictures of the package, and timing it ...")
    demo = run_demo(arguments.model, arguments.threshold)
    _print(demo.table())
    print(demo)
    demo.save_picture(arguments.output)
    print(f"Picture: {os.path.abspath(arguments.output)}")


def _predict(arguments):
    from keras_adaptive.inference.predictor import EarlyExitPredictor
    from keras_adaptive.picture_files import find_files

    files = []
    for name in arguments.files:
        files += find_files(name) if os.path.isdir(name) else [name]
    chosen = {} if arguments.threshold is None else {"threshold": arguments.threshold}
    make = EarlyExitPredictor.from_export if _is_export(arguments) else EarlyExitPredictor
    predictor = make(arguments.model, **chosen)
    prediction = predictor.predict(files, batch_size=arguments.batch_size)
    if arguments.json:
        for picture in prediction:
            print(json.dumps(picture.to_dict()))
        _say(prediction.summary())
    else:
        _print(prediction.table(max_rows=len(prediction)))
        print(prediction.summary())


def _evaluate(arguments):
    from keras_adaptive import zoo
    from keras_adaptive.curves import plot_accuracy
    from keras_adaptive.evaluation.operating_points import evaluate, spread, write_points
    from keras_adaptive.plots import check_figure_path, save_figure
    from keras_adaptive.training.datasets import check_classes, check_labels, load_data

    if arguments.plot:
        check_figure_path(arguments.plot)
    model = zoo.load(arguments.model, pretrained=True)
    with contextlib.redirect_stdout(sys.stderr):  # Keras reports downloads and progress there
        size = model.input_shape[1]
        data = load_data(arguments.data, size)
        check_classes(data, arguments.data, model.name, model.class_names)
        test = spread(data.test, arguments.num_pictures).resized(size)
        check_labels(test, model.output_shape)
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
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(arguments.model, arguments.data, arguments.num_pictures,
                           arguments.batch_size, verbose=1)
    write_plots(measured, arguments.output)
    print(f"Figures and budgeted.csv: {os.path.abspath(arguments.output)}")


def _card(arguments):
    from keras_adaptive.plots import check_figure_path
    from keras_adaptive.report import complete_entry, measure

    check_figure_path("accuracy.png")
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(arguments.name, arguments.data, None, arguments.batch_size, verbose=1)
    print(f"Card: {os.path.abspath(complete_entry(measured))}")


def _export(arguments):
    from keras_adaptive import zoo
    from keras_adaptive.export import export_stages

    asked = {key: getattr(arguments, key) for key in ("macs", "accuracy")
             if getattr(arguments, key) is not None}
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
    print(f"{done}: {os.path.abspath(arguments.destination)}")
    return 1 if done.unreadable else 0


def _convert(arguments):
    from keras_adaptive.checkpoints import from_torch
    from keras_adaptive.files import write_whole

    with open(arguments.args, encoding="utf-8") as file:
        args = json.load(file)
    if not isinstance(args, dict):
        raise ValueError(f"{arguments.args} holds no JSON object of arguments.")
    model = from_torch(arguments.checkpoint, args, arguments.image_size, arguments.normalization)
    weights, record = f"{arguments.output}.weights.h5", f"{arguments.output}.json"
    write_whole(weights, model.save_weights)
    write_whole(record, lambda partial: _write_text(partial, model.to_json()))
    print(f"Weights: {os.path.abspath(weights)}\nModel: {os.path.abspath(record)}, for "
          "keras.models.model_from_json")


def _write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _list(arguments):
    from keras_adaptive import recipes, zoo

    _print(_models_table(zoo.list_models(), DEFAULT_MODEL))
    _print(_recipes_table(recipes.load(name) for name in recipes.list_recipes()))


def _train(arguments):
    from keras_adaptive import recipes
    from keras_adaptive.training import train
    from keras_adaptive.training.datasets import load_data

    recipe = recipes.load(arguments.recipe)
    if arguments.precision:
        training = dataclasses.replace(recipe.training, precision=arguments.precision)
        recipe = dataclasses.replace(recipe, training=training)
    folder = arguments.folder or os.path.join("runs", recipe.name)
    with contextlib.redirect_stdout(sys.stderr):  # the progress of `fit`
        data = load_data(arguments.data or recipe.data["name"], recipe.image_size)
        train(recipe, data, folder, verbose=1)
    print(f"Weights, log and state: {os.path.abspath(folder)}")


def _points_table(points, model_name, num_pictures):
    from rich.table import Table

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
            f"{point.mean_macs / 1e6:.2f} M", f"{point.cost_share:.1%}",
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


def _make_parser():
    parser = argparse.ArgumentParser(
        prog="keras-adaptive",
        description="Classify pictures with networks that stop as soon as they are sure.",
        epilog="Start with `keras-adaptive demo`. Every command has its own --help.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _add_command(
        commands, "demo", _demo,
        "Classify a dozen pictures that come with the package, and show what stopping early saved.",
        """
  keras-adaptive demo
  keras-adaptive demo --threshold 0.95 --output careful.png""")
    _add_model(demo)
    _add_threshold(demo, 0.8, "0.8")
    demo.add_argument("--output", metavar="PNG", default="demo.png",
                      help="where the picture of the result is written [default: %(default)s]")

    predict = _add_command(
        commands, "predict", _predict,
        "Classify pictures, stopping each at the first exit that is sure enough.",
        """
  keras-adaptive predict cat.png
  keras-adaptive predict photos/ --threshold 0.9
  keras-adaptive predict photos/ more/dog.jpg --json > answers.jsonl
  keras-adaptive predict photos/ --model exported/""")
    predict.add_argument("files", metavar="FILE", nargs="+",
                         help="pictures (PNG, JPEG, WebP and more), or folders of them")
    predict.add_argument("--model", metavar="NAME", default=None,
                         help="a name that `keras-adaptive list` shows, or a folder that `export` "
                              f"wrote, which needs no Keras [default: {DEFAULT_MODEL}]")
    _add_threshold(predict, None, "0.8, or what was exported")
    _add_batch_size(predict, 64)
    predict.add_argument("--json", action="store_true",
                         help="print one JSON object per picture in place of a table")

    evaluate = _add_command(
        commands, "evaluate", _evaluate,
        "Measure accuracy and cost on labelled test pictures: of every exit, and of thresholds.",
        """
  keras-adaptive evaluate
  keras-adaptive evaluate --num-pictures 1000 --threshold 0.5 0.8 0.95
  keras-adaptive evaluate --data my_pictures.npz --output evaluation.csv --plot evaluation.png""")
    _add_model(evaluate)
    _add_data(evaluate, "cifar10", "cifar10")
    evaluate.add_argument("--threshold", metavar="T", type=_number, nargs="+", default=[0.8],
                          help="confidences at which a picture stops; several give one row each "
                               "[default: 0.8]")
    evaluate.add_argument("--num-pictures", metavar="N", type=_positive, default=None,
                          help="use N pictures, evenly spread over the test part [default: all]")
    _add_batch_size(evaluate, 256)
    evaluate.add_argument("--output", metavar="CSV", default=None,
                          help="also write the table to this file")
    evaluate.add_argument("--plot", metavar="PNG", default=None,
                          help="also draw accuracy against multiply-adds")

    plot = _add_command(
        commands, "plot", _plot,
        "Draw what a trained network does with a data set: accuracy against multiply-adds beside "
        "the papers' points, where pictures leave, easy and hard pictures.",
        """
  keras-adaptive plot
  keras-adaptive plot --data cifar10.npz --num-pictures 1000 --output figures""")
    _add_model(plot)
    _add_data(plot, "cifar10", "cifar10")
    plot.add_argument("--num-pictures", metavar="N", type=_positive, default=None,
                      help="use N pictures each, evenly spread over the validation part, which "
                           "chooses thresholds, and the test part, which is shown [default: all]")
    _add_batch_size(plot, 256)
    plot.add_argument("--output", metavar="DIR", default="plots",
                      help="folder for accuracy.png, exits.png, gallery.png and budgeted.csv "
                           "[default: %(default)s]")

    card = _add_command(
        commands, "card", _card,
        "Measure a network of the zoo and write into its folder what is made from that: "
        "results/evaluation.csv, results/budgeted.csv, thresholds.json, figures and card.md.",
        """
  keras-adaptive card ranet_cifar10 --data cifar10
  keras-adaptive card ranet_cifar10 --data cifar10.npz --batch-size 128""")
    card.add_argument("name", metavar="NAME", help="a network with weights, as "
                                                   "`keras-adaptive list` shows it")
    _add_data(card, None, None)
    _add_batch_size(card, 256)

    export = _add_command(
        commands, "export", _export,
        "Write a trained network as files that run without Keras: one per stage, and a manifest.",
        """
  keras-adaptive export ranet_cifar10 exported
  keras-adaptive export ranet_cifar10 exported --format litert --macs 20e6
  keras-adaptive export ranet_cifar10 exported --exits 1,3,6 --accuracy 0.85""")
    export.add_argument("model", metavar="MODEL", help="a network with weights, as "
                                                       "`keras-adaptive list` shows it")
    export.add_argument("folder", metavar="FOLDER",
                        help="new, empty, or an earlier export, which is replaced")
    export.add_argument("--format", choices=FORMATS, default=FORMATS[0],
                        help="onnx runs on ONNX Runtime and OpenVINO [default: %(default)s]")
    goal = export.add_mutually_exclusive_group()
    goal.add_argument("--macs", metavar="N", type=_number, default=None,
                      help="use the calibrated thresholds for at most N multiply-adds a picture on "
                           "average, such as 20e6 [default: those that promise least loss]")
    goal.add_argument("--accuracy", metavar="A", type=_number, default=None,
                      help="use the calibrated thresholds that reach this share, such as 0.85, "
                           "for the least work")
    export.add_argument("--exits", metavar="K,K", type=_integers, default=None,
                        help="exits in use, counted from 1, such as 1,3,6 [default: all]")

    thumbnails = _add_command(
        commands, "thumbnails", _thumbnails,
        "Turn a folder of pictures into one of thumbnail files of the same names. Interrupted, "
        "the same command goes on. Files that cannot be read are named and left out; the exit "
        "status is then 1, though all others are written.",
        """
  keras-adaptive thumbnails photos small --ratio 2
  keras-adaptive thumbnails photos small --downscaler downscaler.keras
  keras-adaptive thumbnails photos small --ratio 4 --method bicubic --format jpeg --quality 75""")
    thumbnails.add_argument("source", metavar="SOURCE",
                            help="folder of pictures, searched with the folders below it")
    thumbnails.add_argument("destination", metavar="DESTINATION",
                            help="new, empty, or one that the same command wrote")
    how = thumbnails.add_mutually_exclusive_group(required=True)
    how.add_argument("--downscaler", metavar="KERAS", default=None,
                     help="a .keras file with a network from pictures to thumbnails")
    how.add_argument("--ratio", metavar="N", type=_positive, default=None,
                     help="shrink each side by N without a network")
    thumbnails.add_argument("--method", choices=("area", "bilinear", "bicubic"), default=None,
                            help="for --ratio [default: area, the mean of pixels]")
    thumbnails.add_argument("--format", choices=("png", "jpeg"), default="png",
                            help="png keeps every value [default: %(default)s]")
    thumbnails.add_argument("--quality", metavar="Q", type=_positive, default=95,
                            help="of jpeg, 1 to 100 [default: %(default)s]")
    _add_batch_size(thumbnails, 32)

    convert = _add_command(
        commands, "convert", _convert,
        "Turn a checkpoint of the authors' PyTorch programs for RANet or MSDNet into a network of "
        "this package with the same answers. Needs PyTorch.",
        """
  keras-adaptive convert model_best.pth.tar --args args.json --output ranet
  keras-adaptive convert msdnet.pth --args args.json --normalization imagenet --output msdnet""")
    convert.add_argument("checkpoint", metavar="PTH", help="a .pth or .pth.tar file")
    convert.add_argument("--args", metavar="JSON", required=True,
                         help="file with the arguments it was trained with: arch, data, nBlocks, "
                              "nChannels, growthRate, grFactor and so on")
    convert.add_argument("--image-size", metavar="N", type=_positive, default=None,
                         help="side of the pictures [default: 32 for CIFAR, 224 for ImageNet]")
    convert.add_argument("--normalization", choices=("cifar10", "cifar100", "imagenet"),
                         default=None,
                         help="put the data set's normalisation into the network, which then takes "
                              "pictures from 0 to 255 [default: they come normalised]")
    convert.add_argument("--output", metavar="NAME", default="converted",
                         help="writes NAME.weights.h5 and NAME.json [default: %(default)s]")

    _add_command(commands, "list", _list, "Show the models and the training recipes by name.",
                 """
  keras-adaptive list""")

    train = _add_command(
        commands, "train", _train,
        "Train a recipe. Interrupted, the same command goes on after the last finished epoch.",
        """
  keras-adaptive train ranet_cifar10
  keras-adaptive train ranet_cifar10 --data cifar10.npz --folder runs/second --precision float32
  keras-adaptive train my_recipe.toml""")
    train.add_argument("recipe", metavar="RECIPE",
                       help="a name that `keras-adaptive list` shows, or a .toml file")
    _add_data(train, None, "the recipe's")
    train.add_argument("--folder", metavar="DIR", default=None,
                       help="where state, weights and log are kept [default: runs/RECIPE]")
    train.add_argument("--precision", choices=_PRECISIONS, default=None,
                       help="in place of the recipe's; bfloat16 is fast on recent processors only")
    return parser


def _add_command(commands, name, run, description, examples):
    command = commands.add_parser(
        name, help=description, description=description, epilog="examples:" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    command.set_defaults(run=run)
    return command


def _add_model(command):
    # Not the predictor's default: the pictures of this one are there, or Keras downloads them.
    command.add_argument("--model", metavar="NAME", default=DEMO_MODEL,
                         help=f"a name that `keras-adaptive list` shows [default: {DEMO_MODEL}]")


def _add_threshold(command, default, shown):
    command.add_argument("--threshold", metavar="T", type=_numbers, default=default,
                         help="confidence at which a picture stops, from 0 to 1; or one per exit, "
                              f"such as 0.9,0.8,0.7,1 [default: {shown}]")


def _add_data(command, default, shown):
    command.add_argument("--data", metavar="DATA", default=default, required=shown is None,
                         help="cifar10 or cifar100 (downloaded by Keras); an .npz file with "
                              "x_train, y_train, x_val, y_val, x_test, y_test, class_names; or a "
                              "folder with train/CLASS/, test/CLASS/ and perhaps val/CLASS/; one "
                              "with train/ and val/ alone is read file by file, as ImageNet is, "
                              "val/ being the test part"
                              + (f" [default: {shown}]" if shown else ""))


def _add_batch_size(command, default):
    command.add_argument("--batch-size", metavar="N", type=_positive, default=default,
                         help="pictures computed at once; changes speed, not the answers "
                              "[default: %(default)s]")


def _number(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _numbers(text):
    numbers = [_number(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _integers(text):
    return [_positive(part) for part in text.split(",")]


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
