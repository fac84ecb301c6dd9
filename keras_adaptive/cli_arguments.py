"""What the command line `keras-adaptive` takes, and the help that it shows."""

import argparse

from keras_adaptive.content import DEFAULT_MODEL, DEMO_MODEL
from keras_adaptive.manifest import FORMATS

# As in `training.recipe_tables`, which is not imported for the help: it brings Keras.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def make_parser():
    """Return the parser; what it gives names the `command`, and holds its arguments."""
    parser = argparse.ArgumentParser(
        prog="keras-adaptive",
        description="Classify pictures with networks that stop as soon as they are sure.",
        epilog="Start with `keras-adaptive demo`. Every command has its own --help.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _add_command(
        commands, "demo",
        "Classify a dozen pictures that come with the package, and show what stopping early saved.",
        """
  keras-adaptive demo
  keras-adaptive demo --threshold 0.95 --output careful.png""")
    _add_model(demo)
    _add_threshold(demo, 0.8, "0.8")
    demo.add_argument("--output", metavar="PNG", default="demo.png",
                      help="where the picture of the result is written [default: %(default)s]")

    predict = _add_command(
        commands, "predict",
        "Classify pictures, stopping each at the first exit that is sure enough.",
        """
  keras-adaptive predict cat.png
  keras-adaptive predict photos/ --threshold 0.9
  keras-adaptive predict photos/ more/dog.jpg --json > answers.jsonl
  keras-adaptive predict photos/ --model exported/
  keras-adaptive predict photos/ --model my_model.keras
  keras-adaptive predict photos/ --model converted.json""")
    predict.add_argument("files", metavar="FILE", nargs="+",
                         help="pictures (PNG, JPEG, WebP and more), or folders of them")
    predict.add_argument("--model", metavar="NAME", default=None,
                         help="a name that `keras-adaptive list` shows, a folder that `export` "
                              "wrote, which needs no Keras, a .keras file of your own, or a .json "
                              "file that `convert` wrote "
                              f"[default: {DEFAULT_MODEL}]")
    _add_threshold(predict, None, "the network's calibrated ones, or those exported; else 0.8")
    _add_batch_size(predict, 64)
    predict.add_argument("--json", action="store_true",
                         help="print one JSON object per picture in place of a table")

    evaluate = _add_command(
        commands, "evaluate",
        "Measure accuracy and cost on labelled test pictures: of every exit, and of thresholds.",
        """
  keras-adaptive evaluate
  keras-adaptive evaluate --num-pictures 1000 --threshold 0.5 0.8 0.95
  keras-adaptive evaluate --data my_pictures.npz --output evaluation.csv --plot evaluation.png""")
    _add_model(evaluate)
    _add_data(evaluate, "cifar10", "cifar10")
    evaluate.add_argument("--threshold", metavar="T", type=_confidence, nargs="+", default=[0.8],
                          help="confidences from 0 to 1 at which a picture stops; several give "
                               "one row each [default: 0.8]")
    evaluate.add_argument("--num-pictures", metavar="N", type=_positive, default=None,
                          help="use N pictures, evenly spread over the test part [default: all]")
    _add_batch_size(evaluate, 256)
    evaluate.add_argument("--output", metavar="CSV", default=None,
                          help="also write the table to this file")
    evaluate.add_argument("--plot", metavar="PNG", default=None,
                          help="also draw accuracy against multiply-adds")

    plot = _add_command(
        commands, "plot",
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
        commands, "card",
        "Measure a network of the zoo and write into its folder what is made from that: "
        "results/evaluation.csv, results/budgeted.csv, results/calibration.csv, thresholds.json, "
        "figures and card.md.",
        """
  keras-adaptive card ranet_cifar10 --data cifar10
  keras-adaptive card ranet_cifar10 --data cifar10.npz --batch-size 128""")
    card.add_argument("name", metavar="NAME", help="a network with weights, as "
                                                   "`keras-adaptive list` shows it")
    _add_data(card, None, None)
    _add_batch_size(card, 256)

    publish = _add_command(
        commands, "publish",
        "Put the best weights of a training run into the zoo: weights, figures, thresholds, card.",
        """
  keras-adaptive train ranet_cifar10 && keras-adaptive publish ranet_cifar10
  keras-adaptive publish ranet_cifar10 --data cifar10.npz --machine "one H100, 5 h\"""")
    publish.add_argument("recipe", metavar="RECIPE",
                         help="a name that `keras-adaptive list` shows, or a .toml file; its "
                              "`zoo_name`, or else its name, is the entry's")
    _add_data(publish, None, "the recipe's")
    publish.add_argument("--folder", metavar="DIR", default=None,
                         help="what `train` wrote [default: runs/RECIPE]")
    publish.add_argument("--machine", metavar="TEXT", default=None,
                         help="what trained, and how long, for the card")
    publish.add_argument("--dtype", choices=("float16", "float32"), default="float16",
                         help="of the weights' file [default: %(default)s]")
    _add_batch_size(publish, 256)

    export = _add_command(
        commands, "export",
        "Write a trained network as files that run without Keras: one per stage, and a manifest.",
        """
  keras-adaptive export ranet_cifar10 exported
  keras-adaptive export ranet_cifar10 exported --format litert --macs 20e6
  keras-adaptive export ranet_cifar10 exported --exits 1,3,6
  keras-adaptive export my_model.keras exported""")
    export.add_argument("model", metavar="MODEL",
                        help="a network with weights, as `keras-adaptive list` shows it, or a "
                             ".keras file of your own")
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
        commands, "thumbnails",
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
        commands, "convert",
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

    _add_command(commands, "list", "Show the models and the training recipes by name.", """
  keras-adaptive list""")

    train = _add_command(
        commands, "train",
        "Train a recipe. Interrupted, the same command goes on after the last epoch "
        "that was validated.",
        """
  keras-adaptive train ranet_cifar10
  keras-adaptive train ranet_cifar10 --data cifar10.npz --folder runs/second --precision float32
  keras-adaptive train my_recipe.toml""")
    train.add_argument("recipe", metavar="RECIPE",
                       help="a name that `keras-adaptive list` shows, or a .toml file")
    _add_data(train, None, "the recipe's")
    train.add_argument("--folder", metavar="DIR", default=None,
                       help="where state, weights and log are kept [default: runs/RECIPE]")
    train.add_argument("--precision", choices=PRECISIONS, default=None,
                       help="in place of the recipe's; bfloat16 is fast on recent processors only")
    return parser


def _add_command(commands, name, description, examples):
    command = commands.add_parser(
        name, help=description, description=description, epilog="examples:" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    return command


def _add_model(command):
    # Not the predictor's default: the pictures of this one are there, or Keras downloads them.
    command.add_argument("--model", metavar="NAME", default=DEMO_MODEL,
                         help=f"a name that `keras-adaptive list` shows [default: {DEMO_MODEL}]")


def _add_threshold(command, default, shown):
    command.add_argument("--threshold", metavar="T", type=_confidences, default=default,
                         help="confidence at which a picture stops, from 0 to 1; or one per exit, "
                              f"such as 0.9,0.8,0.7,1 [default: {shown}]")


def _add_data(command, default, shown):
    command.add_argument("--data", metavar="DATA", default=default, required=shown is None,
                         help="cifar10 or cifar100 (downloaded by Keras); an .npz file with "
                              "x_train, y_train, x_val, y_val, x_test, y_test, class_names; a "
                              "folder with train/CLASS/, test/CLASS/ and perhaps val/CLASS/; one "
                              "with train/ and val/ alone is read file by file, as ImageNet is, "
                              "val/ being the test part; or tfds:NAME, such as "
                              "tfds:imagenet2012, prepared by tensorflow_datasets"
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


def _confidence(text):
    number = _number(text)
    # 2 is well above every confidence, and stands for never; what is larger is a percentage.
    if number > 2:
        meant = f"; {number / 100:g} may be meant" if number <= 100 else ""
        raise argparse.ArgumentTypeError(
            f"{text!r} is no confidence from 0 to 1{meant}. With 2 no picture stops")
    return number


def _confidences(text):
    numbers = [_confidence(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _integers(text):
    return [_positive(part) for part in text.split(",")]


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)
