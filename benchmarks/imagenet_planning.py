"""Which width and which picture sizes bring most for the same work of training?

RANet for 200 ImageNet classes learns a tenth of Tiny ImageNet in several ways that take about as
many multiply-adds, `training_macs` (three times those of the network's answers), so that a narrower
network or smaller pictures have more epochs. The accuracies and the loss are those of the
validation part at full picture size, of the best full-size epoch; the test part stays unread. Rows
are written after every run, and runs that the file has are not repeated.

    python benchmarks/imagenet_planning.py --data tiny_imagenet.npz --precision mixed_bfloat16

It ranks ways for the first minutes of a run. Wide networks learn slowly at first, so it says little
about which is best after days.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

import numpy as np
from common import RESULTS, describe, read_rows, save_rows

from keras_adaptive import recipes
from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.graph import exit_macs
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.recipe_tables import PRECISIONS, Phase
from keras_adaptive.training.run import load_best, train

RECIPE = "ranet_imagenet"
# Changes of the recipe's network, and the phases: epochs and side of the pictures.
ARMS = {
    "recipe: 48, then 64 pixels": ({}, [(4, 48), (2, 64)]),
    "64 pixels": ({}, [(4, 64)]),
    "32, 48, then 64 pixels": ({}, [(4, 32), (2, 48), (2, 64)]),
    "two thirds of the width": ({"channels": 22, "growth_rate": 11}, [(7, 48), (4, 64)]),
    "five quarters of the width": ({"channels": 40, "growth_rate": 20}, [(3, 48), (1, 64)]),
    "half of the layers": ({"layers_per_block": 2}, [(8, 48), (4, 64)]),
}


def run(recipe, data, training_pictures):
    """Train a recipe; return what came of it and what it took, as a row.

    Args:
        recipe: `Recipe`.
        data: `Data`.
        training_pictures: int, for the multiply-adds.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, data, folder, verbose=0)
        minutes = (time.perf_counter() - start) / 60
        model = load_best(recipe, data, folder)
    macs = 3 * training_pictures * sum(
        phase.epochs * exit_macs(recipe.build(phase.image_size))[-1]
        for phase in recipe.training.phases)
    validation = data.validation.resized(recipe.image_size)
    outputs = ExitOutputs.from_model(model, validation.pictures, validation.y)
    accuracies = outputs.accuracies()
    surest = outputs.probabilities[-1][np.arange(len(outputs.labels)), outputs.labels]
    return {"macs": exit_macs(model)[-1], "epochs": recipe.training.epochs, "training_macs": macs,
            "training_minutes": round(minutes, 1), "first_exit": round(float(accuracies[0]), 4),
            "last_exit": round(float(accuracies[-1]), 4),
            "last_exit_loss": round(float(-np.log(np.maximum(surest, 1e-12)).mean()), 4)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as for `keras-adaptive train`")
    parser.add_argument("--pictures", type=int, default=None,
                        help="training pictures; default: a tenth")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM",
                        help=f"default: all, {'; '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "imagenet_planning.csv")
    arguments = parser.parse_args(argv)

    data = load_data(arguments.data)
    number = arguments.pictures or len(data.train) // 10
    data = dataclasses.replace(data, train=data.train.head(number))
    rows = read_rows(arguments.output) if arguments.output.exists() else []
    if any(row["precision"] != arguments.precision for row in rows):
        parser.error(f"{arguments.output} holds runs of another precision: give another --output, "
                     "or that one")
    done = {(row["arm"], int(row["seed"]), int(row["training_pictures"])) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.arms:
            if (name, seed, number) in done:
                continue
            network, phases = ARMS[name]
            recipe = recipes.load(RECIPE)
            recipe = dataclasses.replace(
                recipe, model={**recipe.model, **network}, training=dataclasses.replace(
                    recipe.training, phases=tuple(Phase(*phase) for phase in phases), seed=seed,
                    precision=arguments.precision))
            row = {"arm": name, "seed": seed, "training_pictures": number,
                   "validation_pictures": len(data.validation),
                   "precision": arguments.precision, **run(recipe, data, number), **describe()}
            rows.append(row)
            save_rows(arguments.output, rows)
            print(f"{name}, seed {seed}: {row['first_exit']:.2%} to {row['last_exit']:.2%}, loss "
                  f"{row['last_exit_loss']:.3f}, {row['training_minutes']} min", file=sys.stderr)


if __name__ == "__main__":
    main()
