"""How many pictures a second does `model.fit` learn, against the authors' PyTorch loop?

    git clone https://github.com/yangle15/RANet-pytorch ../RANet-pytorch
    python benchmarks/training_speed.py --data cifar10.npz --checkout ../RANet-pytorch

The network is C-1 growing linearly, pictures of 32 pixels. Every round starts, in turns, a fresh
process for each of:

- `authors`: their network and their loop, eager PyTorch, float32, batches of 64 that lie in memory
  already, and as many threads as cores;
- `plain`: our recipe with `fit`, float32, batches of 64, TensorFlow as it comes;
- `settings`: the same in a process with the settings that `keras-adaptive train` makes, see
  `keras_adaptive/process.py`;
- `batch 128`: the same with the recipe's own batches of 128;
- `bfloat16`: the same in mixed bfloat16, for processors that have it.

Ours reads, crops and flips the pictures meanwhile; the authors' pictures are ready. Without
--checkout theirs are left out. Let nothing else run meanwhile.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
from common import RESULTS, ROOT, describe, save_rows

from keras_adaptive.process import training_settings

# Name: batch size, precision, whether with the settings.
OURS = {
    "plain": (64, "float32", False),
    "settings": (64, "float32", True),
    "batch 128": (128, "float32", True),
    "bfloat16": (128, "mixed_bfloat16", True),
}
WARM_UP_STEPS = 3


def time_ours(recipe, data, batch_size, precision, steps):
    """Return the pictures per second of `fit` with a recipe."""
    import dataclasses

    import keras

    from keras_adaptive import recipes
    from keras_adaptive.models.precision import use_precision
    from keras_adaptive.training.datasets import load_data, steps_per_epoch, training_pipeline

    recipe = recipes.load(recipe)
    recipe = dataclasses.replace(
        recipe, training=dataclasses.replace(recipe.training, batch_size=batch_size))
    with use_precision(precision):
        model = recipe.build()
    recipe.compile(model, steps)
    train = load_data(data).train
    num_epochs = -(-(WARM_UP_STEPS + steps) // steps_per_epoch(train, batch_size))
    pipeline = training_pipeline(train, batch_size, num_epochs, 0)
    starts = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == WARM_UP_STEPS - 1:
                starts.append(time.perf_counter())

    model.fit(pipeline, steps_per_epoch=WARM_UP_STEPS + steps, verbose=0, callbacks=[Clock()])
    return steps * batch_size / (time.perf_counter() - starts[0])


def time_authors(checkout, steps):
    """Return the pictures per second of the authors' loop."""
    import torch
    from against_authors import ARGUMENTS, Authors

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = Authors(checkout, ARGUMENTS).network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss()
    pictures, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    for step in range(WARM_UP_STEPS + steps):
        if step == WARM_UP_STEPS:
            start = time.perf_counter()
        optimizer.zero_grad()
        sum(criterion(logits, labels) for logits in network(pictures)).backward()
        optimizer.step()
    return steps * 64 / (time.perf_counter() - start)


def run_in_fresh_process(what, arguments):
    """Return the pictures per second that a process of its own measures."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3",
                   "PYTHONPATH": os.pathsep.join(
                       filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if what in OURS and OURS[what][2]:
        environment |= training_settings(arguments.recipe)
    done = subprocess.run(
        [sys.executable, __file__, "--data", arguments.data, "--steps", str(arguments.steps),
         "--only", what, "--recipe", arguments.recipe,
         *(["--checkout", arguments.checkout] if arguments.checkout else [])],
        capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{what!r} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["pictures_per_second"]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as for `keras-adaptive train`")
    parser.add_argument("--recipe", default="ranet_c1_lg_cifar10_fast", help="default: %(default)s")
    parser.add_argument("--checkout", help="a clone of the authors' repository")
    parser.add_argument("--what", nargs="+", default=["authors", *OURS], choices=["authors", *OURS])
    parser.add_argument("--steps", type=int, default=20, help="timed steps; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: %(default)s")
    parser.add_argument("--only", choices=["authors", *OURS], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "training_speed.csv")
    arguments = parser.parse_args(argv)
    if arguments.only:
        speed = (time_authors(arguments.checkout, arguments.steps) if arguments.only == "authors"
                 else time_ours(arguments.recipe, arguments.data,
                                *OURS[arguments.only][:2], arguments.steps))
        print(json.dumps({"pictures_per_second": speed}))
        return
    compared = [what for what in arguments.what if what != "authors" or arguments.checkout]
    speeds = {what: [] for what in compared}
    for _ in range(arguments.repeats):
        for what in compared:
            speeds[what].append(run_in_fresh_process(what, arguments))
    rows = []
    for what, samples in speeds.items():
        # Of one round each: what the machine does between rounds counts for both.
        ratios = np.array(samples) / np.array(speeds[compared[0]])
        rows.append({
            "what": what, "batch_size": OURS.get(what, (64,))[0],
            "precision": OURS.get(what, (64, "float32"))[1], "steps": arguments.steps,
            "repeats": arguments.repeats,
            "pictures_per_second": round(statistics.median(samples), 2),
            f"ratio_to_{compared[0]}": round(float(np.median(ratios)), 3),
            **describe("torch")})
        print(f"{what:10} {rows[-1]['pictures_per_second']:7.1f} pictures/s, "
              f"{rows[-1][f'ratio_to_{compared[0]}']:.2f} times {compared[0]}", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
