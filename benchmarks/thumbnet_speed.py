"""What does a student of thumbnails save on the clock, and what does decoding files add?

    python benchmarks/thumbnet_speed.py --data cifar10.npz
    python benchmarks/thumbnet_speed.py thumbnet_tiny_imagenet --data tiny_imagenet.npz

Teacher, student, and downscaler with student, of a network of the zoo, take turns one by one and in
batches of 32; so do ways to get pixels from a file: the full picture, JPEG's own reduced decoding,
and a stored thumbnail. Accuracies are of the validation part. Nothing else may run meanwhile.
"""

import argparse
import pathlib

from common import RESULTS
from rich.console import Console

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.thumbnet_report import report
from keras_adaptive.training.datasets import check_labels, load_data


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="thumbnet_cifar10",
                        help="a ThumbNet of the zoo [default: %(default)s]")
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--engine", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--num-pictures", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=None,
                        help="default: results/NAME_speed.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.name, pretrained=True)
    if not hasattr(model, "downscaler"):
        parser.error(f"{arguments.name} makes no thumbnails; thumbnet_cifar10 does")
    size = model.input_shape[1]
    part = load_data(arguments.data, size, model.input_rule).validation
    part = spread(part, arguments.num_pictures).resized(size)
    check_labels(part, model.output_shape)
    measured = report(model, part.x, part.y, repeats=arguments.repeats, engine=arguments.engine)
    for table in measured.tables():
        Console(width=130).print(table)
    measured.write_csv(arguments.output or RESULTS / f"{arguments.name}_speed.csv")


if __name__ == "__main__":
    main()
