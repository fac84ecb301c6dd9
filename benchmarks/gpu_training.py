"""How fast does a GPU learn with CUDA graphs, against step after step from Python?

    KERAS_BACKEND=torch python benchmarks/gpu_training.py

Three ways to train the same network on PyTorch, in turns, on random pictures that lie in memory:

- `keras`: Keras's own step, one operation after the other;
- `operations`: the same with layers as `keras_adaptive/training/torch_operations.py` computes them;
- `graph`: those layers in a captured step, which `keras-adaptive train` takes by itself.

It needs a CUDA GPU, and nothing else may run on it meanwhile.
"""

import argparse
import pathlib
import statistics
import time

import keras
import numpy as np
from common import RESULTS, describe, save_rows

from keras_adaptive import recipes
from keras_adaptive.models.precision import use_precision

WARM_UP_STEPS = 5  # of each way: the graph is captured in the fourth


def make_ways(recipe, precision):
    """Return functions of a batch, by the names of the ways, that learn from it."""
    from keras_adaptive.training.cuda_graphs import capture_steps
    from keras_adaptive.training.torch_operations import use_torch_operations

    ways = {}
    for name, change in (("keras", lambda model: None), ("operations", use_torch_operations),
                         ("graph", capture_steps)):
        with use_precision(precision):
            model = recipe.build()
        recipe.compile(model, steps=100)
        model.optimizer.build(model.trainable_variables)
        change(model)
        model.train()
        ways[name] = model.train_step
    return ways


def pictures_per_second(step, batches, num_steps):
    """Return how fast a way learns, once it is warm."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(num_steps):
        step(batches[i % len(batches)])
    torch.cuda.synchronize()
    return num_steps * len(batches[0][1]) / (time.perf_counter() - start)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=["ranet_cifar10", "msdnet_cifar10"])
    parser.add_argument("--batch-size", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--precision", default="mixed_bfloat16", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed steps; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "gpu_training.csv")
    arguments = parser.parse_args(argv)
    if keras.backend.backend() != "torch":
        parser.error("the backend is PyTorch: set KERAS_BACKEND=torch")
    import torch

    if not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here")
    rng = np.random.default_rng(0)
    rows = []
    for name in arguments.recipe:
        recipe = recipes.load(name)
        size = recipe.image_size
        batches = [(torch.as_tensor(rng.integers(0, 256, (arguments.batch_size, size, size, 3),
                                                 dtype="uint8")),
                    torch.as_tensor(rng.integers(0, 10, arguments.batch_size))) for _ in range(4)]
        on_device = [tuple(part.cuda() for part in batch) for batch in batches]
        ways = make_ways(recipe, arguments.precision)
        fed = {way: batches if way == "graph" else on_device for way in ways}
        for way, step in ways.items():
            pictures_per_second(step, fed[way], WARM_UP_STEPS)
        speeds = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way, step in ways.items():
                speeds[way].append(pictures_per_second(step, fed[way], arguments.steps))
        for way, samples in speeds.items():
            ratio = float(np.median(np.array(samples) / np.array(speeds["keras"])))
            rows.append({"recipe": name, "way": way, "batch_size": arguments.batch_size,
                         "precision": arguments.precision, "steps": arguments.steps,
                         "repeats": arguments.repeats,
                         "pictures_per_second": round(statistics.median(samples), 1),
                         "ratio_to_keras": round(ratio, 2),
                         "gpu": torch.cuda.get_device_name(), **describe("torch")})
            print(f"{name} {way:10} {rows[-1]['pictures_per_second']:8.0f} pictures/s, "
                  f"{ratio:.2f} times Keras's step", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
