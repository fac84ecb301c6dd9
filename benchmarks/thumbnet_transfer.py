"""Does a downscaler that learned with one network serve another one, or other data?

The downscaler of `thumbnet_cifar10`, which learned with ResNet-20 on CIFAR-10, stays as it is. A
network that it has never met learns from its thumbnails, and the same network learns from averaged
ones; both from labels and from a teacher of their own kind, from whose weights they start, and
which learned the same pictures at full size before. Claims, numbered as in `thumbnet_claims.py`:

    C7   it serves other networks: a VGG with batch normalisation and global pooling, on CIFAR-10
    C8   it serves other data: ResNet-20 on CIFAR-100. The way back, a downscaler of CIFAR-100 used
         on CIFAR-10, is not tried: the zoo has none.

    python benchmarks/thumbnet_transfer.py --claim C7 --data cifar10.npz
    python benchmarks/thumbnet_transfer.py --claim C8 --data cifar100.npz --pictures 9000 \\
        --epochs 8 --teacher-epochs 20
    python benchmarks/thumbnet_transfer.py --show

A hundred classes want more pictures than ten. Each seed has a teacher of its own. Seeds are run
whole; those that the results have are not repeated. The paired differences are judged as in
`thumbnet_claims.py`: on the validation part, after the last epoch. The downscaler has seen the
whole training part of CIFAR-10, so that C7 tells of other networks, not of other pictures.
"""

import argparse
import statistics
import time

import keras
from common import describe, read_rows, save_rows
from rich.console import Console
from rich.table import Table
from thumbnet_claims import accuracy, learn, load_few, parse
from thumbnet_verdicts import add_comparison

from keras_adaptive import zoo
from keras_adaptive.graph import exit_macs
from keras_adaptive.models import ResNet
from keras_adaptive.models.inputs import normalize
from keras_adaptive.models.resized import copy_for_size
from keras_adaptive.models.thumbnet import ThumbNet

TRAINED = "thumbnet_cifar10"
WAYS = {"teacher": "full pictures", "averaged": "averaged thumbnails",
        "learned": "the downscaler's thumbnails"}


def vgg(num_classes, channels=16, normalization="cifar10", input_shape=(32, 32, 3)):
    """Return a small VGG: three stages of two 3x3 convolutions, with batch norm, global pooling.

    Args:
        num_classes: int.
        channels: int, width of the first stage; each stage has twice that of the one before.
        normalization: as in `ResNet`.
        input_shape: `(height, width, channels)`.
    """
    pictures = keras.Input(input_shape, name="pictures")
    x = normalize(pictures, normalization)
    for stage in range(3):
        if stage:
            x = keras.layers.MaxPooling2D(2)(x)
        for _ in range(2):
            x = keras.layers.Conv2D(channels * 2**stage, 3, padding="same", use_bias=False,
                                    kernel_initializer="he_normal")(x)
            x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
            x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pictures, keras.layers.Dense(num_classes)(x), name="vgg")


def resnet(num_classes):
    """Return the network of `thumbnet_cifar10` for other data."""
    return ResNet(20, num_classes=num_classes, normalization="cifar100")


# What is claimed, and the network that has never met the downscaler or the data.
CLAIMS = {"C7": ("it serves other networks", vgg), "C8": ("it serves other data", resnet)}


def run_seed(claim, downscaler, data, epochs, teacher_epochs, seed, precision):
    """Train a teacher and both students; return their rows.

    Args:
        claim: string in `CLAIMS`.
        downscaler: frozen `keras.Model`.
        data: `Data`.
        epochs, teacher_epochs: ints, of a student and of the teacher.
        seed: int.
        precision: string, a dtype policy.
    """
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    network = CLAIMS[claim][1](len(data.class_names))
    teacher = copy_for_size(network, network.input_shape[1:], precision=precision, name="teacher")
    learn(teacher, data.train, teacher_epochs, seed,
          loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = [{"way": "teacher", "accuracy": accuracy(teacher, data.validation),
             "macs": exit_macs(teacher)[-1], "epochs": teacher_epochs,
             "seconds": time.perf_counter() - start}]
    for way, chosen in (("averaged", "area"), ("learned", downscaler)):
        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        thumbnet = ThumbNet.from_teacher(teacher, downscaler=chosen, feature_weight=0,
                                         precision=precision)
        learn(thumbnet, data.train, epochs, seed)
        rows.append({"way": way, "accuracy": accuracy(thumbnet, data.validation),
                     "macs": exit_macs(thumbnet.on_pictures())[-1], "epochs": epochs,
                     "seconds": time.perf_counter() - start})
    return [{"claim": claim, "seed": seed, **row, "accuracy": f"{row['accuracy']:.4f}",
             "seconds": round(row["seconds"]), "pictures": len(data.train),
             "precision": precision, **describe()} for row in rows]


def show(rows):
    """Print the ways and the claims."""
    ways = Table("", "way", "what it sees", "epochs", "M", "accuracy", "by seed",
                 title="M: million multiply-adds of a picture")
    claims = Table("", "claim", "compared", "difference, points", "95 % interval", "")
    for claim, (text, _) in CLAIMS.items():
        by_way = {way: {int(row["seed"]): row for row in rows
                        if (row["claim"], row["way"]) == (claim, way)} for way in WAYS}
        for way, by_seed in by_way.items():
            if by_seed:
                first, *_ = by_seed.values()
                shares = [float(by_seed[seed]["accuracy"]) for seed in sorted(by_seed)]
                ways.add_row(claim, way, WAYS[way], str(first["epochs"]),
                             f"{int(first['macs']) / 1e6:.2f}", f"{statistics.fmean(shares):.2%}",
                             " ".join(f"{100 * share:.2f}" for share in shares))
        add_comparison(claims, (claim, text, "learned - averaged"), by_way["learned"],
                       by_way["averaged"])
    Console(width=130).print(ways, claims)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", choices=CLAIMS, default="C7", help="default: %(default)s")
    parser.add_argument("--teacher-epochs", type=int, default=12, help="default: %(default)s")
    arguments = parse(parser, argv, "thumbnet_transfer.csv")
    if arguments.show:
        return show(read_rows(arguments.output))
    data = load_few(arguments)
    trained = zoo.load(TRAINED, pretrained=True)
    is_own = list(data.class_names) == list(trained.class_names)
    if is_own != (arguments.claim == "C7"):
        parser.error(f"C7 is about the data of {TRAINED}, C8 about others. Received: "
                     f"--claim {arguments.claim} --data {arguments.data}.")
    rows = read_rows(arguments.output) if arguments.output.exists() else []
    own = [row for row in rows if row["claim"] == arguments.claim]
    for row in own:
        epochs = arguments.teacher_epochs if row["way"] == "teacher" else arguments.epochs
        if (row["pictures"], row["epochs"], row["precision"]) != (
                str(len(data.train)), str(epochs), arguments.precision):
            parser.error(f"{arguments.output} holds runs of {arguments.claim} with other pictures, "
                         "epochs or precision, which cannot be compared with these. Give another "
                         "--output.")
    for seed in range(arguments.seeds):
        if str(seed) in {row["seed"] for row in own}:
            continue
        downscaler = zoo.load(TRAINED, pretrained=True).downscaler
        downscaler.trainable = False
        new = run_seed(arguments.claim, downscaler, data, arguments.epochs,
                       arguments.teacher_epochs, seed, arguments.precision)
        rows += new
        save_rows(arguments.output, rows)
        print(f"{arguments.claim}, seed {seed}: "
              + ", ".join(f"{row['way']} {row['accuracy']}" for row in new)
              + f", {sum(row['seconds'] for row in new)} s", flush=True)
        keras.utils.clear_session()
    show(rows)


if __name__ == "__main__":
    main()
