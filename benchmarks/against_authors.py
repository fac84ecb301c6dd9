"""How much faster are our engines than the authors' PyTorch program on the same pictures?

    git clone https://github.com/yangle15/RANet-pytorch ../RANet-pytorch
    python benchmarks/against_authors.py --checkout ../RANet-pytorch

The network is C-1 growing linearly, `ranet_cifar10` in the zoo. For each batch size, in turns in
one process with as many threads:

- `authors`: the authors' forward pass, all exits, eager under `torch.inference_mode`, on tensors
  that are normalised and in PyTorch's layout before the clock runs;
- `authors channels_last`: the same with weights and pictures channels last;
- `whole`: our network with all exits, compiled on an engine, from the pictures as they are;
- `nobody`: `EarlyExitPredictor.predict` with a threshold that nobody reaches;
- `adaptive`: `EarlyExitPredictor.predict` with thresholds chosen on the validation part, the
  cheapest of a row of budgets there that lose at most --max-loss points against the last exit.
  What they lose on the test part is in the results.

The authors' network has weights as their program draws them: speed does not depend on weights. With
--parity, a folder that holds a checkpoint of theirs (`checkpoint.pth`), its arguments
(`config.json`) and pictures with logits (`io.npz`), both programs run it before, and the largest
difference of their logits is printed. Their code is imported from the checkout, which needs
PyTorch. Let nothing else run meanwhile.
"""

import copy
import importlib.util
import json
import pathlib
import types

import numpy as np
from common import (
    RESULTS,
    add_num_pictures,
    classify,
    describe,
    make_parser,
    pictures_in_a_run,
    quantiles,
    save_rows,
)

from keras_adaptive import ExitOutputs, zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.evaluation.thresholds import NEVER, ThresholdSearch
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.timing import compile_whole, in_batches, median_ratio, time_in_turns
from keras_adaptive.training.datasets import load_data

# What the authors' command line makes of their options for C-1 growing linearly.
ARGUMENTS = {
    "arch": "RANet", "data": "cifar10", "nBlocks": 2, "block_step": 2, "nChannels": 16,
    "growthRate": 6, "grFactor": [4, 2, 1], "bnFactor": [4, 2, 1], "scale_list": [1, 2, 3],
    "nScales": 3, "compress_factor": 0.25, "step": 2, "stepmode": "lg", "reduction": 0.5,
    "bnAfter": True, "num_classes": 10,
}

_NUM_BUDGETS = 60  # mean multiply-adds that are tried, evenly spread


class Authors:
    """The authors' network, as their program builds it.

    Args:
        checkout: path of a checkout of their repository.
        arguments: dict, as `ARGUMENTS`.

    Raises:
        ValueError: If there is no such program in the checkout.
    """

    def __init__(self, checkout, arguments):
        path = pathlib.Path(checkout) / "models" / "RANet.py"
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist. `--checkout` is a clone of "
                "https://github.com/yangle15/RANet-pytorch."
            )
        # By its path: their package is called `models`, a name that others have, too.
        spec = importlib.util.spec_from_file_location("authors_ranet", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # Their program adds to the arguments that it is given.
        self.network = module.RANet(types.SimpleNamespace(**arguments)).eval()

    def channels_last(self):
        """Return the same network with its weights laid out channels last."""
        import torch

        other = copy.copy(self)
        other.network = copy.deepcopy(self.network).to(memory_format=torch.channels_last)
        return other

    @property
    def num_parameters(self):
        """int. Trainable parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def batches(self, pictures, batch_size, layout):
        """Return normalised pictures `(n, height, width, 3)` as tensors, batch after batch."""
        import torch

        tensors = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
        return [tensors[start:start + batch_size].contiguous(memory_format=layout)
                for start in range(0, len(tensors), batch_size)]

    def run(self, batches):
        """Return the last exit's logits of all batches; the others are computed, too."""
        import torch

        with torch.inference_mode():
            return np.concatenate([self.network(batch)[-1].numpy() for batch in batches])


def largest_difference(checkout, folder):
    """Return how far our logits lie from the authors' on their checkpoint, relative to the largest.

    Args:
        checkout: path of a checkout of the authors' repository.
        folder: path of a folder with `checkpoint.pth`, `config.json` and `io.npz`.
    """
    import torch

    from keras_adaptive.checkpoints import from_torch

    folder = pathlib.Path(folder)
    arguments = json.loads((folder / "config.json").read_text(encoding="utf-8"))["args"]
    authors = Authors(checkout, arguments)
    stored = torch.load(folder / "checkpoint.pth", map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value
             for key, value in stored.get("state_dict", stored).items()}
    authors.network.load_state_dict(state)
    with np.load(folder / "io.npz") as arrays:
        pictures = np.moveaxis(arrays["x"], 1, -1)
    with torch.inference_mode():
        theirs = authors.network(*authors.batches(
            pictures, len(pictures), torch.contiguous_format))
    ours = from_torch(folder / "checkpoint.pth", arguments).predict(pictures, verbose=0)
    return max(float(np.abs(own - their.numpy()).max() / np.abs(their.numpy()).max())
               for own, their in zip(ours, theirs, strict=True))


def choose_thresholds(model, validation, max_loss):
    """Return the cheapest thresholds that lose at most `max_loss` points on a validation part.

    A search among all thresholds for that loss finds some that look harmless by chance. So the
    thresholds of each budget are those that are best by calibrated confidences, and labels only
    choose the budget: above the one chosen, no budget that was tried loses more.
    """
    outputs = ExitOutputs.from_model(model, validation.x, validation.y)
    search = ThresholdSearch(outputs, model.exit_macs, smooth=True)
    goal = outputs.accuracies()[-1] - max_loss / 100
    budgets = np.linspace(model.exit_macs[0], model.exit_macs[-1], _NUM_BUDGETS)
    chosen = search.within(budgets[-1])
    for budget in budgets[-2::-1]:
        cheaper = search.within(budget)
        if cheaper.accuracy < goal:
            break
        chosen = cheaper
    return chosen


def time_all(model, authors, split, thresholds, engines, batch_size, repeats):
    """Return rows: what ran on which engine, times of a picture, and the speed-ups.

    Args:
        model: `MultiExitModel`.
        authors: `Authors` of the same architecture.
        split: `Split` of test pictures.
        thresholds: as in `EarlyExitPredictor`.
        engines: list of strings in `ENGINES`.
        batch_size: int.
        repeats: int. Timed rounds.
    """
    import torch

    normalised = (split.x.astype("float32") - 128) / 64
    plain = authors.batches(normalised, batch_size, torch.contiguous_format)
    last = authors.batches(normalised, batch_size, torch.channels_last)
    authors_last = authors.channels_last()
    calls = {("authors", "torch"): lambda: authors.run(plain),
             ("authors channels_last", "torch"): lambda: authors_last.run(last)}
    for engine in engines:
        whole = compile_whole(model, engine)
        nobody = EarlyExitPredictor(model, NEVER, engine=engine)
        adaptive = EarlyExitPredictor(model, thresholds, engine=engine)
        calls["whole", engine] = lambda run=whole: in_batches(run, split.x, batch_size)
        calls["nobody", engine] = lambda run=nobody: classify(run, split.x, batch_size)
        calls["adaptive", engine] = lambda run=adaptive: classify(run, split.x, batch_size)
    times_ms = time_in_turns(calls, repeats, warmups=1)
    return [
        {"what": what, "engine": engine, "batch_size": batch_size, "num_pictures": len(split),
         "repeats": repeats, **quantiles(samples, len(split)),
         "speed_up": round(median_ratio(times_ms, ("authors", "torch"), (what, engine)), 3),
         "speed_up_over_channels_last": round(median_ratio(
             times_ms, ("authors channels_last", "torch"), (what, engine)), 3)}
        for (what, engine), samples in times_ms.items()
    ]


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"], [1, 64], 7)
    parser.add_argument("--checkout", required=True, help="a clone of the authors' repository")
    parser.add_argument("--parity", help="folder of a checkpoint of theirs, see above")
    parser.add_argument("--max-loss", type=float, default=0.2,
                        help="points of accuracy that exits may cost; default: 0.2")
    add_num_pictures(parser, 512)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "against_authors.csv")
    arguments = parser.parse_args(argv)

    import torch

    machine = describe("onnxruntime", "openvino", "torch")
    torch.set_num_threads(machine["cores"])
    if arguments.parity:
        print(f"checkpoint of {arguments.parity}: logits differ by at most "
              f"{largest_difference(arguments.checkout, arguments.parity):.1e} of the largest")
    model = zoo.load(arguments.model, pretrained=True)
    authors = Authors(arguments.checkout, ARGUMENTS)
    num_parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    if authors.num_parameters != num_parameters:
        raise ValueError(
            f"The authors' network is C-1 growing linearly, of {authors.num_parameters:,} "
            f"parameters, and {arguments.model!r} has {num_parameters:,}. Compare with a network "
            "of that configuration."
        )
    data = load_data(arguments.data)
    chosen = choose_thresholds(model, data.validation, arguments.max_loss)
    test = ExitOutputs.from_model(model, data.test.x, data.test.y)
    accuracy, last_accuracy = test.simulate(chosen.thresholds).accuracy, test.accuracies()[-1]
    print(f"thresholds chosen on the validation part: accuracy on the test part {accuracy:.4f}, "
          f"{100 * (last_accuracy - accuracy):+.2f} points below the last exit", flush=True)
    facts = {"threads": torch.get_num_threads(), "max_loss_points": arguments.max_loss,
             "thresholds": np.round(chosen.thresholds, 4).tolist(),
             "thresholds_from": "validation part", "test_accuracy": round(accuracy, 5),
             "last_exit_test_accuracy": round(last_accuracy, 5)}
    rows = []
    for batch_size in arguments.batch_size:
        pictures = spread(data.test, pictures_in_a_run(arguments.num_pictures, batch_size))
        for row in time_all(model, authors, pictures, chosen.thresholds, arguments.engine,
                            batch_size, arguments.repeats):
            rows.append({"model": arguments.model, **row, **facts, **machine})
            print(f"batch {batch_size}, {row['what']} on {row['engine']}: {row['p50_ms']:.3f} ms a "
                  f"picture, {row['speed_up']:.2f} times the authors' speed", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
